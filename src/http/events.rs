//! `POST /v1/events`: from a request to a batch, from outcomes to an answer.

use std::future::{Future, ready};

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::Services;
use super::body::{self, CODINGS, Room};
use super::client_ip;
use super::door;
use super::error::{self, BodyRefusal};
use super::panics;
use super::query::Query;
use super::sentence;
use crate::catalog::Catalog;
use crate::intake::auth::Grant;
use crate::intake::{self, Kind, Mode, Outcome, Refusal};
use crate::limits::{Asker, Did};
use crate::metrics as names;
use crate::schema;

/// What `GET /v1/_test/events` posts where nothing else is configured. Its id and its time are stamped like any other's.
const TEST_EVENT: &str =
    r#"{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"},"test":"GET /v1/_test/events"}"#;
/// Messages that the answer to a producer who may post none of its events has.
const FORBIDDEN_TOLD_MAX: usize = 10;

/// A body that was a batch.
struct Posted {
    mode: Mode,
    /// Decoded.
    bytes: u64,
    outcomes: Vec<Outcome>,
}

pub(super) async fn post(
    request: HttpRequest,
    mut payload: web::Payload,
    services: web::Data<Services>,
    room: web::Data<Room>,
) -> HttpResponse {
    let _under_way = services.posts.begin();
    let bytes_max = services.intake.options().body_bytes_max();
    let limits = body::Limits {
        bytes: bytes_max,
        depth: services.intake.options().max_depth,
        time: services.intake.options().log_deadline(),
    };
    let asker = client_ip::asker(&request, &services.limits);
    let body = async {
        let expected = body::expect(request.headers(), bytes_max)?;
        let declared = expected.bytes.unwrap_or_default();
        services.limits.post_bytes(&asker, 0..declared)?;
        let body = expected.take(&mut payload, limits, &room).await?;
        // What a packed body comes to, or one whose length was not told, shows only now.
        services.limits.post_bytes(&asker, declared..body.len() as u64)?;
        Ok(body)
    };
    let answer = panics::caught(&request, handle(&request, &services, &asker, body)).await;
    // Where the body was read whole there is nothing left, and this costs nothing.
    if !answer.status().is_success() {
        body::discard(request.headers(), &mut payload).await;
    }
    answer
}

/// As if the events that are configured for this had been posted: they are appended, and read.
pub(super) async fn post_test_events(request: HttpRequest, services: web::Data<Services>) -> HttpResponse {
    let _under_way = services.posts.begin();
    let body = match services.intake.options().test_events.as_slice() {
        [] => TEST_EVENT.to_owned(),
        events => json!(events).to_string(),
    };
    let asker = client_ip::asker(&request, &services.limits);
    panics::caught(&request, handle(&request, &services, &asker, ready(Ok(body.into())))).await
}

/// Whoever may not post, or not now, is told before the body is read.
async fn handle(
    request: &HttpRequest,
    services: &Services,
    asker: &Asker,
    body: impl Future<Output = Result<Bytes, BodyRefusal>>,
) -> HttpResponse {
    if let Err(exceeded) = services.limits.post(asker) {
        return refuse(asker, &exceeded.into());
    }
    let grant = match services.guard.admit(door::shown(request, services)) {
        Ok(grant) => grant,
        Err(denied) => return error::Refusal::Denied(denied).answer(request),
    };
    match accept(request, services, asker, grant, body).await {
        Ok(Posted { mode, bytes, outcomes }) => {
            services.limits.ledger().note(&asker.key, Did::Posted { events: taken(mode, &outcomes), bytes });
            answer(request, mode, &outcomes)
        }
        Err(refusal) => refuse(asker, &refusal),
    }
}

/// Events that are in the log, or will be as far as anybody knows.
fn taken(mode: Mode, outcomes: &[Outcome]) -> u64 {
    let accepted = outcomes.iter().filter(|outcome| !matches!(outcome, Outcome::Refused(_))).count() as u64;
    if mode == Mode::DryRun { 0 } else { accepted }
}

async fn accept(
    request: &HttpRequest,
    services: &Services,
    asker: &Asker,
    grant: Grant,
    body: impl Future<Output = Result<Bytes, BodyRefusal>>,
) -> Result<Posted, BodyRefusal> {
    let began = Instant::now();
    let Query { mode, stream, schema_uri } = Query::parse(request.query_string())?;
    let body = body.await?;
    let bytes = body.len() as u64;
    let headers = wanted_headers(request, &services.catalog.now());
    let client = Some(asker.address);
    let asked = intake::Request { began, body, mode, stream, schema_uri, headers, client, grant };
    let outcomes = services.intake.accept(asked).await?;
    Ok(Posted { mode, bytes, outcomes })
}

/// A header that is no text can fill no field.
fn wanted_headers(request: &HttpRequest, catalog: &Catalog) -> Vec<(String, String)> {
    let wanted = catalog.headers_wanted();
    let headers = request.headers().iter().filter(|(name, _)| wanted.contains(name.as_str()));
    headers
        .filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), std::str::from_utf8(value.as_bytes()).ok()?.into()))
        })
        .collect()
}

fn refuse(asker: &Asker, refusal: &BodyRefusal) -> HttpResponse {
    let (status, code) = refusal.row();
    if !asker.key.is_own() {
        metrics::counter!(names::POSTS_REFUSED, "cause" => code).increment(1);
    }
    no_batch(refusal, status, code)
}

/// A body that is no batch: both lists are there, and empty but for what is wrong.
fn no_batch(refusal: &BodyRefusal, status: StatusCode, code: &'static str) -> HttpResponse {
    let sentence = refusal.to_string();
    let mut context = json!({ "message": sentence });
    if let Some((line, column)) = refusal.position() {
        context["line"] = line.into();
        context["column"] = column.into();
    }
    if let BodyRefusal::Limited { limit, most, .. } = refusal {
        context["limit_name"] = limit.as_str().into();
        context["limit"] = (*most).into();
    }
    let item = json!({ "status": "error", "event": null, "context": context, "code": code });
    let reason = match refusal.has_place() {
        true => sentence::interned_with_place(&sentence),
        false => sentence::interned(&sentence),
    };
    let mut answer = respond(status, &sentence, reason, Some(json!({ "invalid": [], "error": [item] }).to_string()));
    match refusal {
        // RFC 9110, 12.5.3: in an answer it says what the next request may have.
        BodyRefusal::Coding => {
            answer.headers_mut().insert(header::ACCEPT_ENCODING, header::HeaderValue::from_static(CODINGS));
        }
        BodyRefusal::Limited { retry_after, .. } => {
            answer.headers_mut().insert(header::RETRY_AFTER, error::seconds_after(*retry_after).into());
        }
        _ => {}
    }
    answer
}

fn answer(request: &HttpRequest, mode: Mode, outcomes: &[Outcome]) -> HttpResponse {
    let refusals: Vec<&Refusal> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Refused(refusal) => Some(refusal),
            Outcome::Accepted | Outcome::Spooled => None,
        })
        .collect();
    let spooled = outcomes.iter().filter(|outcome| **outcome == Outcome::Spooled).count();
    let status = error::of_batch(mode, outcomes.len(), spooled, &refusals);
    if status == StatusCode::FORBIDDEN {
        return error::Refusal::Forbidden(told(&refusals)).answer(request);
    }
    let sentence = match mode {
        Mode::Hasty if refusals.is_empty() => format!("{} events hastily received.", outcomes.len()),
        _ => sentence_of(outcomes.len(), &refusals) + &of_spooled(spooled),
    };
    let with_lists = mode == Mode::DryRun || !refusals.is_empty();
    respond(status, &sentence, sentence::interned(&sentence), with_lists.then(|| lists(&refusals)))
}

/// What EventGate says of a batch.
fn sentence_of(all: usize, refusals: &[&Refusal]) -> String {
    let failed = refusals.len();
    let invalid = refusals.iter().filter(|refusal| refusal.code.kind() == Kind::Invalid).count();
    let (errored, accepted) = (failed - invalid, all - failed);
    if failed == 0 {
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
    }
}

/// Who knows nothing of it finds the sentence as it always was at the beginning.
fn of_spooled(spooled: usize) -> String {
    match spooled {
        0 => String::new(),
        1 => " 1 of them is spooled, and goes to the log when that is back.".to_owned(),
        more => format!(" {more} of them are spooled, and go to the log when that is back."),
    }
}

/// What these events are told, each thing once: it names their streams.
fn told(refusals: &[&Refusal]) -> String {
    let mut messages: Vec<&str> = Vec::new();
    for refusal in refusals {
        if messages.len() < FORBIDDEN_TOLD_MAX && !messages.contains(&refusal.message.as_str()) {
            messages.push(&refusal.message);
        }
    }
    messages.join(" ")
}

fn respond(status: StatusCode, sentence: &str, reason: Option<&'static str>, body: Option<String>) -> HttpResponse {
    let mut answer = HttpResponse::build(status);
    answer.insert_header(("sluice-message", sentence));
    if let Some(reason) = reason {
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
    let event = embedded(&refusal.event);
    // AJV's errors have a message that JSON does not show, so theirs has none.
    let context = match refusal.violations.as_slice() {
        [] => json!({ "message": refusal.message }),
        violations => json!({ "errors": violations, "errorsText": schema::errors_text(violations) }),
    };
    let (code, index) = (refusal.code.as_str(), refusal.index);
    format!(r#"{{"status":"{status}","event":{event},"context":{context},"index":{index},"code":"{code}"}}"#)
}

/// An event as it was sent, where that is JSON; else the text of it.
fn embedded(event: &Bytes) -> String {
    let text = String::from_utf8_lossy(event);
    match serde_json::from_str::<&RawValue>(&text) {
        Ok(_) => text.into_owned(),
        Err(_) => json!(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use actix_web::test::TestRequest;
    use serde_json::Value;

    use super::*;
    use crate::intake::Code;
    use crate::schema::Violation;

    fn refused(index: usize, code: Code, event: &'static str) -> Outcome {
        let event = Bytes::from_static(event.as_bytes());
        Outcome::Refused(Refusal { index, code, message: "Why.".into(), event, violations: Vec::new() })
    }

    fn invalid(index: usize) -> Outcome {
        let violation = |path: &str, keyword: &str, message: &str| Violation {
            keyword: keyword.into(),
            data_path: path.into(),
            schema_path: format!("#/{keyword}"),
            params: json!({ "type": "string" }),
            message: message.into(),
            property_name: None,
        };
        let violations =
            vec![violation(".test", "type", "should be string"), violation("", "required", "should \"x\"")];
        let event = Bytes::from_static(b"{\"test\":5}");
        let message = "two things".into();
        Outcome::Refused(Refusal { index, code: Code::Invalid, message, event, violations })
    }

    fn somebody() -> Asker {
        crate::limits::Limits::none().asker([192, 0, 2, 1].into(), None)
    }

    fn answer_to(mode: Mode, outcomes: &[Outcome]) -> HttpResponse {
        answer(&TestRequest::post().to_http_request(), mode, outcomes)
    }

    fn header_of(answer: &HttpResponse, name: &str) -> String {
        answer.headers().get(name).and_then(|value| value.to_str().ok()).expect("a header").to_owned()
    }

    async fn answered(mode: Mode, outcomes: &[Outcome]) -> (u16, String, String) {
        let answer = answer_to(mode, outcomes);
        let sentence = header_of(&answer, "sluice-message");
        assert_eq!(answer.head().reason(), sentence, "the sentence is the reason phrase too");
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body()).await.expect("a body");
        (status, sentence, String::from_utf8_lossy(&body).into())
    }

    #[tokio::test]
    async fn accepted_batches_have_a_sentence_and_no_body() {
        let both = [Outcome::Accepted, Outcome::Accepted];
        let all = answered(Mode::Guaranteed, &both).await;
        assert_eq!(all, (201, "All 2 out of 2 events were accepted.".into(), String::new()));
        let hasty = answered(Mode::Hasty, &both).await;
        assert_eq!(hasty, (202, "2 events hastily received.".into(), String::new()));
    }

    #[tokio::test]
    async fn what_is_spooled_is_202_and_the_sentence_says_so() {
        let one = answered(Mode::Guaranteed, &[Outcome::Accepted, Outcome::Spooled]).await;
        let sentence =
            "All 2 out of 2 events were accepted. 1 of them is spooled, and goes to the log when that is back.";
        assert_eq!(one, (202, sentence.into(), String::new()));
        let outcomes = [Outcome::Spooled, Outcome::Spooled, refused(2, Code::TooLarge, "{}")];
        let (status, sentence, _) = answered(Mode::Guaranteed, &outcomes).await;
        assert_eq!(status, 207);
        let spooled = "2 of them are spooled, and go to the log when that is back.";
        assert_eq!(
            sentence,
            format!("2 out of 3 events were accepted, but 1 failed (0 invalid and 1 errored). {spooled}")
        );
    }

    #[tokio::test]
    async fn a_dry_run_is_200_with_both_lists_and_the_sentence_of_a_real_one() {
        let all = answered(Mode::DryRun, &[Outcome::Accepted]).await;
        let empty = r#"{"invalid":[],"error":[]}"#;
        assert_eq!(all, (200, "All 1 out of 1 events were accepted.".into(), empty.into()));
        for outcomes in [vec![Outcome::Accepted, invalid(1)], vec![refused(0, Code::TooLarge, "{}")]] {
            let (dry, real) = (answered(Mode::DryRun, &outcomes).await, answered(Mode::Guaranteed, &outcomes).await);
            assert_eq!((dry.0, dry.1, dry.2), (200, real.1, real.2));
        }
    }

    #[tokio::test]
    async fn refused_events_come_back_as_they_were_sent() {
        let outcomes = [Outcome::Accepted, refused(1, Code::MissingStream, r#"{"b" : 1.0,"a":1,"a":"\ud800"}"#)];
        let (status, sentence, body) = answered(Mode::Guaranteed, &outcomes).await;
        assert_eq!(status, 207);
        assert_eq!(sentence, "1 out of 2 events were accepted, but 1 failed (0 invalid and 1 errored).");
        let item = r#"{"status":"error","event":{"b" : 1.0,"a":1,"a":"\ud800"},"context":{"message":"Why."},"index":1,"code":"missing-stream"}"#;
        assert_eq!(body, format!(r#"{{"invalid":[],"error":[{item}]}}"#));
    }

    #[tokio::test]
    async fn what_is_not_json_comes_back_as_text() {
        let (_, _, body) = answered(Mode::Guaranteed, &[refused(0, Code::NotAnObject, "{\"a\": \u{7}")]).await;
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["error"][0]["event"], "{\"a\": \u{7}");
        assert_eq!(embedded(&Bytes::from_static(b"\xff")), "\"\u{fffd}\"");
    }

    #[tokio::test]
    async fn invalid_events_have_a_list_of_their_own_with_what_their_schema_says() {
        let (status, sentence, body) = answered(Mode::Guaranteed, &[invalid(0), invalid(1)]).await;
        assert_eq!((status, sentence.as_str()), (400, "2 out of 2 events were invalid and not accepted."));
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["error"], json!([]));
        let item = &body["invalid"][1];
        assert_eq!((&item["status"], &item["code"], &item["index"]), (&json!("invalid"), &json!("invalid"), &json!(1)));
        let context = json!({
            "errors": [
                { "keyword": "type", "dataPath": ".test", "schemaPath": "#/type", "params": { "type": "string" },
                  "message": "should be string" },
                { "keyword": "required", "dataPath": "", "schemaPath": "#/required", "params": { "type": "string" },
                  "message": "should \"x\"" },
            ],
            "errorsText": "'.test' should be string, '' should \"x\"",
        });
        assert_eq!(item["context"], context);
        let (status, sentence, _) = answered(Mode::Guaranteed, &[invalid(0), refused(1, Code::TooLarge, "{}")]).await;
        assert_eq!(status, 400);
        assert_eq!(sentence, "2 out of 2 events had failures and were not accepted. (1 invalid and 1 errored).");
    }

    #[tokio::test]
    async fn a_log_that_is_away_is_ours_and_says_when_to_come_back() {
        let outcomes = [refused(0, Code::MissingStream, "{}"), refused(1, Code::NotWritten, "{}")];
        assert_eq!(header_of(&answer_to(Mode::Guaranteed, &outcomes), "retry-after"), "1");
        let (status, sentence, _) = answered(Mode::Guaranteed, &outcomes).await;
        assert_eq!(status, 503);
        assert_eq!(sentence, "2 out of 2 events had failures and were not accepted. (0 invalid and 2 errored).");
    }

    #[tokio::test]
    async fn a_producer_who_may_post_none_of_its_events_gets_a_problem_that_names_each_thing_once() {
        let forbidden = |index| match refused(index, Code::Forbidden, "{}") {
            Outcome::Refused(refusal) => Outcome::Refused(Refusal { message: format!("No {}.", index / 2), ..refusal }),
            accepted => accepted,
        };
        let answer = answer_to(Mode::Guaranteed, &[forbidden(0), forbidden(1), forbidden(2)]);
        assert_eq!(answer.status(), 403);
        assert_eq!(header_of(&answer, "content-type"), "application/problem+json");
        let body = to_bytes(answer.into_body()).await.expect("a body");
        let problem: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((&problem["detail"], &problem["type"]), (&json!("No 0. No 1."), &json!("forbidden")));
        let many: Vec<Outcome> = (0..100).map(forbidden).collect();
        let body = to_bytes(answer_to(Mode::Guaranteed, &many).into_body()).await.expect("a body");
        let problem: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(problem["detail"].as_str().map(|text| text.matches("No").count()), Some(FORBIDDEN_TOLD_MAX));
        let (status, _, body) = answered(Mode::Guaranteed, &[forbidden(0), Outcome::Accepted]).await;
        assert!(status == 207 && body.contains(r#""code":"forbidden""#), "{body}");
    }

    #[tokio::test]
    async fn a_body_that_is_no_batch_is_one_item_of_the_same_shape() {
        let refusal = refuse(&somebody(), &BodyRefusal::Form);
        assert_eq!(refusal.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert!(!refusal.headers().contains_key("accept-encoding"));
        let body = to_bytes(refusal.into_body()).await.expect("a body");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["invalid"], json!([]));
        assert_eq!(body["error"][0]["code"], "unsupported-media-type");
        assert!(body["error"][0]["context"]["message"].as_str().is_some_and(|text| text.contains("curl's default")));
        assert_eq!(header_of(&refuse(&somebody(), &BodyRefusal::Coding), "accept-encoding"), "gzip, deflate, br, zstd");
    }

    #[test]
    fn the_test_event_is_json_of_the_stream_that_is_built_in() {
        let event: Value = serde_json::from_str(TEST_EVENT).expect("JSON");
        assert_eq!((&event["meta"]["stream"], &event["$schema"]), (&json!("test.event"), &json!("/test/event/1.0.0")));
    }
}
