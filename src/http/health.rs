//! `GET /health`: the verdict, for external checks.

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use serde_json::json;

use super::Services;

pub(super) async fn get(services: web::Data<Services>) -> HttpResponse {
    let verdict = services.health.verdict();
    let mut answer = match verdict.state.is_healthy() {
        true => HttpResponse::Ok(),
        false => HttpResponse::ServiceUnavailable(),
    };
    let body = json!({
        "state": verdict.state.as_str(),
        "since": verdict.since.to_string(),
        "cause": verdict.cause,
        "do": verdict.cure,
        "probe_ms": verdict.probe_took.map(|took| took.as_secs_f64() * 1_000.0),
    });
    answer.content_type("application/json; charset=utf-8");
    answer.insert_header((header::CACHE_CONTROL, "no-store")).body(body.to_string())
}
