//! Small answers about the server itself.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::Services;
use super::error::Refusal;
use crate::shutdown::Stage;

pub(super) const NAME: &str = env!("CARGO_PKG_NAME");
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
const TEXT: &str = "text/plain; charset=utf-8";

pub(super) async fn info() -> HttpResponse {
    let description = env!("CARGO_PKG_DESCRIPTION");
    json_of(&json!({ "name": NAME, "version": VERSION, "description": description, "home": home_page() }))
}

pub(super) async fn name() -> HttpResponse {
    json_of(&json!({ "name": NAME }))
}

pub(super) async fn version() -> HttpResponse {
    json_of(&json!({ "version": VERSION }))
}

/// The home page of the package, where it has one.
pub(super) async fn home(request: HttpRequest) -> HttpResponse {
    match home_page() {
        Some(page) => HttpResponse::MovedPermanently().insert_header((header::LOCATION, page)).finish(),
        None => Refusal::UnknownRoute.answer(&request),
    }
}

pub(super) async fn robots() -> HttpResponse {
    HttpResponse::Ok().content_type(TEXT).body("User-agent: *\nDisallow: /\n")
}

/// Alive: the process can answer.
pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().content_type(TEXT).insert_header((header::CACHE_CONTROL, "no-store")).body("ok\n")
}

/// Ready to be sent traffic. Only for reasons of this instance it is not: a log that is lost later is lost to all of them,
/// and were they all to leave, readers would have nobody.
pub(super) async fn readyz(services: web::Data<Services>) -> HttpResponse {
    let why = if services.stop.stage() >= Stage::Leaving {
        Some("not ready: it is stopping\n")
    } else if services.hub.began_at().is_none() {
        Some("not ready: what the log holds has not been read yet; see /health for why\n")
    } else {
        None
    };
    let mut answer = if why.is_none() { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer.content_type(TEXT).insert_header((header::CACHE_CONTROL, "no-store")).body(why.unwrap_or("ready\n"))
}

pub(super) fn home_page() -> Option<&'static str> {
    Some(env!("CARGO_PKG_HOMEPAGE")).filter(|page| page.starts_with("http"))
}

pub(super) fn json_of(value: &serde_json::Value) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json; charset=utf-8").body(value.to_string())
}
