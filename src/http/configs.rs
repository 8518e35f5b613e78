//! `GET /v1/stream-configs[/{streams}]`: the settings of streams, as producers know them from EventGate.

use actix_web::{HttpRequest, HttpResponse, web};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::Services;
use super::error::Refusal;
use super::info::json_of;

/// Bytes of a list of streams.
const STREAMS_BYTES_MAX: usize = 16 * 1024;

pub(super) async fn get(request: HttpRequest, services: web::Data<Services>) -> HttpResponse {
    let catalog = services.catalog.now();
    match asked(request.uri().path()) {
        Ok(streams) => {
            let names: Option<Vec<&str>> = streams.as_deref().map(|list| split(list).collect());
            json_of(&Value::Object(catalog.stream_configs(names.as_deref())))
        }
        Err(refusal) => refusal.answer(&request),
    }
}

/// The list after the route's own name, decoded; `None`: no stream is named, and all are asked for.
fn asked(path: &str) -> Result<Option<String>, Refusal> {
    let list = path.trim_start_matches('/').splitn(3, '/').nth(2).unwrap_or_default();
    if list.len() > STREAMS_BYTES_MAX {
        return Err(Refusal::TooManyNames(STREAMS_BYTES_MAX));
    }
    let list = percent_decode_str(list.trim_end_matches('/')).decode_utf8().map_err(|_| Refusal::PathNotUtf8)?;
    Ok(split(&list).next().is_some().then(|| list.clone().into_owned()))
}

fn split(list: &str) -> impl Iterator<Item = &str> {
    list.split([',', '|']).map(str::trim).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str) -> Option<Vec<String>> {
        asked(path).expect("a list").map(|list| split(&list).map(str::to_owned).collect())
    }

    #[test]
    fn a_list_splits_at_commas_and_bars_raw_or_encoded() {
        for path in ["a,b", "a|b", "a%2Cb", "a%7cb", "a,b/", ",a,,b|", "a, b"] {
            assert_eq!(names(&format!("/v1/stream-configs/{path}")), Some(vec!["a".into(), "b".into()]), "{path}");
        }
        assert_eq!(names("//v1/stream-configs/a"), Some(vec!["a".into()]));
        assert_eq!(names("/v1/stream-configs/%2F%5Emediawiki%2F"), Some(vec!["/^mediawiki/".into()]));
        for path in ["/v1/stream-configs", "/v1/stream-configs/", "/v1/stream-configs/,"] {
            assert_eq!(names(path), None, "{path}");
        }
    }

    #[test]
    fn a_list_that_is_too_long_or_not_utf_8_is_refused() {
        assert_eq!(asked("/v1/stream-configs/%ff"), Err(Refusal::PathNotUtf8));
        let long = format!("/v1/stream-configs/{}", "a".repeat(STREAMS_BYTES_MAX + 1));
        assert_eq!(asked(&long), Err(Refusal::TooManyNames(STREAMS_BYTES_MAX)));
    }
}
