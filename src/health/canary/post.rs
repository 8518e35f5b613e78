//! The canary's producer.

use http_body_util::{BodyExt, Limited};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::Lost;
use super::line::{Answer, Line};
use crate::health::Step;
use crate::intake::Code;
use crate::model::CANARY;

const SCHEMA: &str = "/sluice/canary/1.0.0";
/// What is read of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What a refusal says: the batch's form, or a problem's.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: Vec<Item>,
    invalid: Vec<Item>,
    detail: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Item {
    code: String,
    context: Context,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Context {
    message: String,
    errors_text: String,
}

/// Ends when the log has acknowledged the canary.
pub(super) async fn post(line: &Line, instance: &str, number: u64) -> Result<(), Lost> {
    let event =
        json!({ "$schema": SCHEMA, "meta": { "stream": CANARY }, "instance": instance, "number": number }).to_string();
    // Said twice: an operator may have intake look for schemas in another field.
    let target = format!("/v1/events?schema_uri={SCHEMA}");
    let headers = [("content-type", "application/json")];
    let answer = line.ask(Step::Post, Method::POST, &target, &headers, event).await?;
    if answer.status == StatusCode::CREATED { Ok(()) } else { Err(refused(answer).await) }
}

async fn refused(answer: Answer) -> Lost {
    let status = answer.status;
    let body = Limited::new(answer.body, ANSWER_BYTES_MAX).collect().await.map(|body| body.to_bytes());
    let refusal: Refusal = body.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
    let Refusal { error, invalid, detail } = refusal;
    let Item { code, context } = error.into_iter().chain(invalid).next().unwrap_or_default();
    let said = [context.message, context.errors_text, detail].into_iter().find(|text| !text.is_empty());
    let why = format!("{status}: {}", said.unwrap_or_else(|| "without a word".into()));
    let is = |other: Code| code == other.as_str();
    let at = if is(Code::NotWritten) || is(Code::Unknown) || is(Code::LogRefused) { Step::Append } else { Step::Post };
    Lost { at, why, log_refuses: is(Code::LogRefused) }
}
