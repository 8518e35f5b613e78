//! The front door: `GET /` leads to `/?doc`, a page for people, and `/?spec`, the document behind it.
//!
//! The page is Swagger UI, which is part of the program: nothing is asked of another host. Its addresses are relative, so
//! that it works below any path that a proxy puts before it.

use std::borrow::Cow;
use std::io::{self, Read};
use std::sync::Arc;

use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, web};
use flate2::read::GzDecoder;
use utoipa_swagger_ui::{Config, SwaggerFile};

use super::error::Refusal;
use super::info;
use super::openapi::{self, Specification};

const PAGE: &str = include_str!("doc.html");
/// What the page may do; EventStreams' own words.
const POLICY: &str = "default-src 'none'; script-src 'self' 'unsafe-inline'; connect-src *; style-src 'self' \
                      'unsafe-inline'; img-src 'self' data:; font-src 'self';";
/// Where people are sent.
const DOC: &str = "/?doc";
/// Files change with the program alone.
const FILES_KEPT: &str = "public, max-age=3600";
/// Bytes of a file of the page, unpacked. The largest one has 1.5 MB.
const FILE_BYTES_MAX: u64 = 16 << 20;

pub(super) async fn front(request: HttpRequest, specification: web::Data<Specification>) -> HttpResponse {
    let query: Vec<(Cow<str>, Cow<str>)> = form_urlencoded::parse(request.query_string().as_bytes()).collect();
    let value = |name: &str| query.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_ref());
    if value("spec").is_some() {
        return openapi::answer(&request, &specification).await;
    }
    if value("doc").is_none() {
        return HttpResponse::SeeOther()
            .insert_header((header::LOCATION, DOC))
            .insert_header((header::VARY, "Accept"))
            .content_type("text/plain; charset=utf-8")
            .body(format!("See Other. Redirecting to {DOC}"));
    }
    match value("path").unwrap_or_default().trim_start_matches('/') {
        "" | "index.html" => page(),
        path => file(&request, path),
    }
}

/// Where RCStream was.
pub(super) async fn rc() -> HttpResponse {
    HttpResponse::MovedPermanently().insert_header((header::LOCATION, DOC)).finish()
}

fn page() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .content_type("text/html; charset=utf-8")
        .body(PAGE.replace("{name}", info::NAME))
}

/// The files are in the program, by name: no path leads out of them.
fn file(request: &HttpRequest, path: &str) -> HttpResponse {
    let found = match utoipa_swagger_ui::serve(path, Arc::new(Config::from("?spec"))) {
        Ok(Some(found)) => found,
        Ok(None) => return Refusal::UnknownRoute.answer(request),
        Err(e) => return Refusal::Internal(format!("the page's file cannot be read: {e}")).answer(request),
    };
    let mut answer = HttpResponse::Ok();
    answer.insert_header((header::CONTENT_SECURITY_POLICY, POLICY));
    answer.insert_header((header::CACHE_CONTROL, FILES_KEPT));
    answer.insert_header((header::VARY, "Accept-Encoding"));
    answer.content_type(content_type(&found));
    if !found.gzpipped {
        return answer.body(found.bytes.into_owned());
    }
    if takes_gzip(request.headers()) {
        return answer.insert_header((header::CONTENT_ENCODING, "gzip")).body(found.bytes.into_owned());
    }
    match unpacked(&found.bytes) {
        Ok(bytes) => answer.body(bytes),
        Err(e) => Refusal::Internal(format!("the page's file cannot be unpacked: {e}")).answer(request),
    }
}

fn content_type(file: &SwaggerFile<'_>) -> String {
    match file.content_type.starts_with("text/") {
        true => format!("{}; charset=utf-8", file.content_type),
        false => file.content_type.clone(),
    }
}

fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).take(FILE_BYTES_MAX).read_to_end(&mut plain)?;
    Ok(plain)
}

/// Named, and not with a weight of nothing.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).filter_map(|list| list.to_str().ok());
    let mut codings = lists.flat_map(|list| list.split(','));
    codings.any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.trim().parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_none_or(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn gzip_is_taken_where_it_is_named_and_not_ruled_out() {
        for (list, taken) in [
            ("gzip, deflate, br", true),
            ("br;q=1.0, GZIP ; q=0.5", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000, br", false),
            ("br", false),
            ("", false),
        ] {
            let request = TestRequest::get().insert_header(("accept-encoding", list)).to_http_request();
            assert_eq!(takes_gzip(request.headers()), taken, "{list}");
        }
        assert!(!takes_gzip(TestRequest::get().to_http_request().headers()));
    }

    #[test]
    fn every_file_that_the_page_names_is_in_the_program() {
        let named: Vec<&str> =
            PAGE.split("path=").skip(1).map(|rest| rest.split('"').next().unwrap_or_default()).collect();
        assert_eq!(named.len(), 4, "{named:?}");
        for path in named {
            let answer = file(&TestRequest::get().to_http_request(), path);
            assert_eq!(answer.status(), 200, "{path}");
        }
    }
}
