//! `POST /v1/events`: from a body to a batch, from outcomes to an answer.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::timeout;

use super::Services;
use super::error::{self, BodyRefusal};
use super::sentence;
use crate::intake::{self, Kind, Outcome, Refusal};

const CONTENT_TYPES: [&str; 3] = ["application/json", "text/plain", "application/reports+json"];
const CHARSETS: [&str; 3] = ["utf-8", "utf8", "us-ascii"];
/// A body that takes longer is refused, whatever has come of it.
const BODY_TIME_MAX: Duration = Duration::from_secs(60);

pub(super) async fn post(request: HttpRequest, payload: web::Payload, services: web::Data<Services>) -> HttpResponse {
    match take(request.headers(), payload, &services).await {
        Ok(outcomes) => answer(&outcomes),
        Err(refusal) => refuse(&refusal),
    }
}

async fn take(headers: &HeaderMap, payload: web::Payload, services: &Services) -> Result<Vec<Outcome>, BodyRefusal> {
    check_form(headers)?;
    let body = read(headers, payload, services.intake.options().body_bytes_max());
    let body = timeout(BODY_TIME_MAX, body).await.map_err(|_| BodyRefusal::TooSlow(BODY_TIME_MAX))??;
    let grant = services.guard.admit(None).map_err(|_| BodyRefusal::Cut)?;
    let request = intake::Request { grant, ..intake::Request::of_ours(body) };
    Ok(services.intake.accept(request).await?)
}

/// What the headers say of the body must be what is read here: UTF-8 JSON, as it is.
fn check_form(headers: &HeaderMap) -> Result<(), BodyRefusal> {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut content_type = value(header::CONTENT_TYPE).split(';').map(str::trim);
    match content_type.next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "" => return Err(BodyRefusal::NoContentType),
        "application/x-www-form-urlencoded" => return Err(BodyRefusal::Form),
        other if !CONTENT_TYPES.contains(&other) => return Err(BodyRefusal::ContentType),
        _ => {}
    }
    let parameters = content_type.filter_map(|parameter| parameter.split_once('='));
    let mut charsets = parameters.filter(|(name, _)| name.eq_ignore_ascii_case("charset"));
    if !charsets.all(|(_, charset)| CHARSETS.iter().any(|known| known.eq_ignore_ascii_case(charset.trim_matches('"'))))
    {
        return Err(BodyRefusal::Charset);
    }
    match value(header::CONTENT_ENCODING).trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(()),
        _ => Err(BodyRefusal::Encoded),
    }
}

/// The whole body. The limit acts before the body is read where its length is declared, and while it streams in.
async fn read(headers: &HeaderMap, mut payload: web::Payload, bytes_max: u64) -> Result<Bytes, BodyRefusal> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| declared > bytes_max) {
        return Err(BodyRefusal::TooLarge(bytes_max));
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| BodyRefusal::Cut)?;
        if (body.len() + chunk.len()) as u64 > bytes_max {
            return Err(BodyRefusal::TooLarge(bytes_max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// A body that is no batch: both lists are there, and empty but for what is wrong.
fn refuse(refusal: &BodyRefusal) -> HttpResponse {
    let (status, code) = refusal.row();
    let sentence = refusal.to_string();
    let mut context = json!({ "message": sentence });
    if let Some((line, column)) = refusal.position() {
        context["line"] = line.into();
        context["column"] = column.into();
    }
    let item = json!({ "status": "error", "event": null, "context": context, "code": code });
    respond(status, &sentence, Some(json!({ "invalid": [], "error": [item] }).to_string()))
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
    respond(error::of_batch(all, &refusals), &sentence, body)
}

fn respond(status: StatusCode, sentence: &str, body: Option<String>) -> HttpResponse {
    let mut answer = HttpResponse::build(status);
    answer.insert_header(("sluice-message", sentence));
    if let Some(reason) = sentence::interned(sentence) {
        answer.reason(reason);
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.insert_header((header::RETRY_AFTER, error::RETRY_AFTER.as_secs()));
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

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use actix_web::http::StatusCode;
    use actix_web::test::TestRequest;

    use super::*;
    use crate::intake::Code;

    fn form(content_type: &str, more: Option<(&str, &str)>) -> Result<(), BodyRefusal> {
        let mut request = TestRequest::post().insert_header((header::CONTENT_TYPE, content_type));
        if let Some(more) = more {
            request = request.insert_header(more);
        }
        check_form(request.to_http_request().headers())
    }

    fn refused(index: usize, code: Code, event: &'static str) -> Outcome {
        Outcome::Refused(Refusal {
            index,
            code,
            message: "Why.".into(),
            violations: vec![],
            event: Bytes::from_static(event.as_bytes()),
        })
    }

    fn header_of(answer: &HttpResponse, name: &str) -> String {
        answer.headers().get(name).and_then(|value| value.to_str().ok()).expect("a header").to_owned()
    }

    async fn answered(outcomes: &[Outcome]) -> (StatusCode, String, String) {
        let answer = answer(outcomes);
        let sentence = header_of(&answer, "sluice-message");
        assert_eq!(answer.head().reason(), sentence, "the sentence is the reason phrase too");
        let status = answer.status();
        let body = to_bytes(answer.into_body()).await.expect("a body");
        (status, sentence, String::from_utf8_lossy(&body).into())
    }

    #[test]
    fn what_producers_send_today_is_taken() {
        for content_type in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "text/plain;charset=\"utf-8\"",
            "application/reports+json",
            "application/json; charset=us-ascii; odd",
        ] {
            assert_eq!(form(content_type, None), Ok(()), "{content_type}");
        }
        assert_eq!(form("application/json", Some(("content-encoding", "identity"))), Ok(()));
    }

    #[test]
    fn what_would_be_misread_is_refused() {
        let refused = [
            ("", BodyRefusal::NoContentType),
            ("application/x-www-form-urlencoded", BodyRefusal::Form),
            ("text/xml", BodyRefusal::ContentType),
            ("application/json; charset=utf-16", BodyRefusal::Charset),
            ("application/json; charset=utf-8; charset=latin1", BodyRefusal::Charset),
        ];
        for (content_type, refusal) in refused {
            assert_eq!(form(content_type, None), Err(refusal), "{content_type}");
        }
        for encoding in ["gzip", "identity, gzip", "br"] {
            assert_eq!(form("text/plain", Some(("content-encoding", encoding))), Err(BodyRefusal::Encoded));
        }
    }

    #[tokio::test]
    async fn accepted_batches_have_a_sentence_and_no_body() {
        let all = answered(&[Outcome::Accepted, Outcome::Accepted]).await;
        assert_eq!(all, (StatusCode::CREATED, "All 2 out of 2 events were accepted.".into(), String::new()));
    }

    #[tokio::test]
    async fn refused_events_come_back_as_they_were_sent() {
        let outcomes = [Outcome::Accepted, refused(1, Code::MissingStream, r#"{"b" : 1.0,"a":1,"a":2}"#)];
        let (status, sentence, body) = answered(&outcomes).await;
        assert_eq!(status, StatusCode::MULTI_STATUS);
        assert_eq!(sentence, "1 out of 2 events were accepted, but 1 failed (0 invalid and 1 errored).");
        let item = r#"{"status":"error","event":{"b" : 1.0,"a":1,"a":2},"context":{"message":"Why."},"index":1,"code":"missing-stream"}"#;
        assert_eq!(body, format!(r#"{{"invalid":[],"error":[{item}]}}"#));
    }

    #[tokio::test]
    async fn a_log_that_is_away_is_ours_and_says_when_to_come_back() {
        let outcomes = [refused(0, Code::MissingStream, "{}"), refused(1, Code::NotWritten, "{}")];
        assert_eq!(header_of(&answer(&outcomes), "retry-after"), "1");
        let (status, sentence, _) = answered(&outcomes).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(sentence, "2 out of 2 events had failures and were not accepted. (0 invalid and 2 errored).");
    }

    #[tokio::test]
    async fn a_body_that_is_no_batch_is_one_item_of_the_same_shape() {
        let refusal = refuse(&BodyRefusal::Form);
        assert_eq!(refusal.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let body = to_bytes(refusal.into_body()).await.expect("a body");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["invalid"], json!([]));
        assert_eq!(body["error"][0]["code"], "unsupported-media-type");
        assert!(body["error"][0]["context"]["message"].as_str().is_some_and(|text| text.contains("curl's default")));
    }
}
