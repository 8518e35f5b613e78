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

/// Ready to be sent traffic: what the log held at the start has been read.
pub(super) async fn readyz(services: web::Data<Services>) -> HttpResponse {
    let (mut answer, body) = match services.hub.caught_up() {
        _ if services.stop.stage() > Stage::Running => (HttpResponse::ServiceUnavailable(), "not ready: it stops\n"),
        true => (HttpResponse::Ok(), "ready\n"),
        false => (HttpResponse::ServiceUnavailable(), "not ready: the log has not been read yet\n"),
    };
    answer.content_type(TEXT).insert_header((header::CACHE_CONTROL, "no-store")).body(body)
}

pub(super) fn home_page() -> Option<&'static str> {
    Some(env!("CARGO_PKG_HOMEPAGE")).filter(|page| page.starts_with("http"))
}

pub(super) fn json_of(value: &serde_json::Value) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json; charset=utf-8").body(value.to_string())
}
