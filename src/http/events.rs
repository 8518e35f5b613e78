//! `POST /v1/events`: from a body to a batch, from outcomes to an answer.

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, RETRY_AFTER};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde_json::json;

use super::Services;
use super::sentence;
use crate::intake::{BodyError, Code, Fault, Kind, Outcome, Refusal};

const CONTENT_TYPES: [&str; 3] = ["application/json", "text/plain", "application/reports+json"];
/// What a producer is asked to wait when the log is away or busy, in seconds.
const RETRY_AFTER_SECONDS: u64 = 1;

/// Why a body was not even read.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("The body is larger than {0} bytes.")]
    TooLarge(u64),
    #[error("{0}")]
    ContentType(String),
    #[error("The body did not arrive whole: {0}")]
    Broken(String),
}

pub(super) async fn post(request: HttpRequest, payload: web::Payload, services: web::Data<Services>) -> HttpResponse {
    let body = match read(&request, payload, services.intake.options().body_bytes_max()).await {
        Ok(body) => body,
        Err(unread) => return refuse(unread.status(), &unread.to_string(), None),
    };
    match services.intake.accept(body).await {
        Ok(outcomes) => answer(&outcomes),
        Err(error) => {
            let position = match &error {
                BodyError::NotJson { line, column, .. } => Some((*line, *column)),
                _ => None,
            };
            refuse(status_of(&error), &error.to_string(), position)
        }
    }
}

/// The whole body, or why not. The limit acts while it streams in.
async fn read(request: &HttpRequest, mut payload: web::Payload, bytes_max: u64) -> Result<Bytes, Unread> {
    check_content_type(request)?;
    let declared = request.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| declared > bytes_max) {
        return Err(Unread::TooLarge(bytes_max));
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|e| Unread::Broken(e.to_string()))?;
        if (body.len() + chunk.len()) as u64 > bytes_max {
            return Err(Unread::TooLarge(bytes_max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn check_content_type(request: &HttpRequest) -> Result<(), Unread> {
    let given = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if CONTENT_TYPES.contains(&essence.as_str()) {
        return Ok(());
    }
    let cure = match essence.as_str() {
        "" => "The request has no Content-Type: send application/json.".to_owned(),
        "application/x-www-form-urlencoded" => {
            "The Content-Type is application/x-www-form-urlencoded, curl's default: add -H 'Content-Type: application/json'.".to_owned()
        }
        _ => format!("The Content-Type must be one of {}.", CONTENT_TYPES.join(", ")),
    };
    Err(Unread::ContentType(cure))
}

impl Unread {
    fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }
}

fn status_of(error: &BodyError) -> StatusCode {
    match error {
        BodyError::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        BodyError::TooMany(_) => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// A body that is no batch: both lists are there, and empty but for what is wrong.
fn refuse(status: StatusCode, sentence: &str, position: Option<(usize, usize)>) -> HttpResponse {
    let mut context = json!({ "message": sentence });
    if let Some((line, column)) = position {
        context["line"] = line.into();
        context["column"] = column.into();
    }
    let item = json!({ "status": "error", "event": null, "context": context });
    respond(status, sentence, Some(json!({ "invalid": [], "error": [item] }).to_string()))
}

fn answer(outcomes: &[Outcome]) -> HttpResponse {
    let refusals: Vec<&Refusal> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Refused(refusal) => Some(refusal),
            Outcome::Accepted => None,
        })
        .collect();
    let (all, failed) = (outcomes.len(), refusals.len());
    let invalid = refusals.iter().filter(|refusal| refusal.code.kind() == Kind::Invalid).count();
    let errored = failed - invalid;
    let accepted = all - failed;
    let sentence = if failed == 0 {
        format!("All {all} out of {all} events were accepted.")
    } else if accepted > 0 {
        format!(
            "{accepted} out of {all} events were accepted, but {failed} failed ({invalid} invalid and {errored} errored)."
        )
    } else if errored == 0 {
        format!("{invalid} out of {all} events were invalid and not accepted.")
    } else {
        format!(
            "{failed} out of {all} events had failures and were not accepted. ({invalid} invalid and {errored} errored)."
        )
    };
    let body = (failed > 0).then(|| lists(&refusals));
    respond(status(all, &refusals), &sentence, body)
}

fn status(all: usize, refusals: &[&Refusal]) -> StatusCode {
    match refusals {
        [] => StatusCode::CREATED,
        some if some.len() < all => StatusCode::MULTI_STATUS,
        [alone] if alone.code == Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        all if all.iter().any(|refusal| refusal.code.fault() == Fault::Ours) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn respond(status: StatusCode, sentence: &str, body: Option<String>) -> HttpResponse {
    let mut answer = HttpResponse::build(status);
    answer.insert_header(("sluice-message", sentence));
    if let Some(reason) = sentence::interned(sentence) {
        answer.reason(reason);
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.insert_header((RETRY_AFTER, RETRY_AFTER_SECONDS));
    }
    match body {
        Some(body) => answer.content_type("application/json").body(body),
        None => answer.finish(),
    }
}

/// `{"invalid":[…],"error":[…]}`, with each event as it was sent.
fn lists(refusals: &[&Refusal]) -> String {
    let of_kind = |kind| {
        let items = refusals.iter().filter(|refusal| refusal.code.kind() == kind);
        items.map(|refusal| item(refusal)).collect::<Vec<_>>().join(",")
    };
    format!(r#"{{"invalid":[{}],"error":[{}]}}"#, of_kind(Kind::Invalid), of_kind(Kind::Error))
}

fn item(refusal: &Refusal) -> String {
    let status = match refusal.code.kind() {
        Kind::Invalid => "invalid",
        Kind::Error => "error",
    };
    let event = String::from_utf8_lossy(&refusal.event);
    let context = json!({ "message": refusal.message });
    let (code, index) = (refusal.code.as_str(), refusal.index);
    format!(r#"{{"status":"{status}","event":{event},"context":{context},"index":{index},"code":"{code}"}}"#)
}
