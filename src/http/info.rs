//! Small answers about the server itself.

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use serde_json::json;

use super::Services;

const NAME: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) async fn info() -> HttpResponse {
    json_of(&json!({ "name": NAME, "version": VERSION, "description": env!("CARGO_PKG_DESCRIPTION") }))
}

pub(super) async fn name() -> HttpResponse {
    json_of(&json!({ "name": NAME }))
}

pub(super) async fn version() -> HttpResponse {
    json_of(&json!({ "version": VERSION }))
}

pub(super) async fn robots() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("User-agent: *\nDisallow: /\n")
}

/// Alive: the process can answer.
pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).body("ok\n")
}

/// Ready to be sent traffic: what the log held at the start has been read.
pub(super) async fn readyz(services: web::Data<Services>) -> HttpResponse {
    let (mut answer, body) = match services.hub.caught_up() {
        true => (HttpResponse::Ok(), "ready\n"),
        false => (HttpResponse::ServiceUnavailable(), "not ready: the log has not been read yet\n"),
    };
    answer.insert_header((header::CACHE_CONTROL, "no-store")).body(body)
}

pub(super) fn json_of(value: &serde_json::Value) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json; charset=utf-8").body(value.to_string())
}
