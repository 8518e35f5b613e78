//! What a producer is told, by table: status, sentence, items.

use serde_json::{Value, json};

use crate::engine::event_at;
use crate::raw::Answer;
use crate::server::{Options, Server};
use crate::support::{PATIENCE, eventually};

const JSON: &str = "Content-Type: application/json\r\n";

/// The sentence stands in the header and in the reason.
fn assert_says(answer: &Answer, status: u16, sentence: &str) {
    assert_eq!(answer.status(), status, "{answer:?}");
    assert_eq!(answer.header("sluice-message"), sentence, "{answer:?}");
    assert_eq!(answer.head.reason(), sentence, "{answer:?}");
}

#[tokio::test]
async fn accepted_events_are_counted_in_the_reason_and_the_body_is_empty() {
    let server = Server::start(Options::default()).await;
    let event = event_at("test.event", 0, 0);
    let mut raw = server.connect().await;
    let one = raw.post(&event.to_string()).await;
    assert_says(&one, 201, "All 1 out of 1 events were accepted.");
    assert_eq!(one.body, b"");
    let content_types = ["application/json; charset=utf-8", "text/plain;charset=UTF-8", "application/reports+json"];
    for content_type in content_types {
        let body = json!([event, event]).to_string();
        let two = raw.post_as(&format!("Content-Type: {content_type}\r\n"), body.as_bytes()).await;
        assert_says(&two, 201, "All 2 out of 2 events were accepted.");
    }
}

#[tokio::test]
async fn refused_events_come_back_with_index_code_and_their_bytes() {
    let server = Server::start(Options::default()).await;
    let good = event_at("test.event", 0, 0).to_string();
    let unknown = r#"{"$schema":"/a/1","meta":{"stream":"no.such","id":"i1"}, "n":1.10,"n":2}"#;
    let unnamed = r#"{ "$schema":"/a/1","x" : [ ] }"#;
    let answer = server.post(&format!("[{good}, {unknown}, {unnamed} ,7]")).await;
    assert_says(&answer, 207, "1 out of 4 events were accepted, but 3 failed (0 invalid and 3 errored).");
    let lists = answer.json();
    assert_eq!(lists["invalid"], json!([]));
    let items = lists["error"].as_array().expect("a list");
    let told: Vec<(&Value, &Value)> = items.iter().map(|item| (&item["index"], &item["code"])).collect();
    let expected = [(json!(1), json!("stream-not-configured")), (json!(2), json!("missing-stream"))];
    assert_eq!(told[..2], [(&expected[0].0, &expected[0].1), (&expected[1].0, &expected[1].1)]);
    assert_eq!(told[2], (&json!(3), &json!("not-an-object")));
    for event in [unknown, unnamed] {
        assert!(answer.text().contains(&format!(r#""event":{event}"#)), "{event} in {}", answer.text());
    }
    let message = items[0]["context"]["message"].as_str().expect("a message");
    assert_eq!(
        message,
        "event i1 of schema at /a/1 destined to stream no.such is not allowed in stream; no.such is not configured."
    );
    let none = server.post(unknown).await;
    assert_says(&none, 400, "1 out of 1 events had failures and were not accepted. (0 invalid and 1 errored).");
    let log = server.stream("/v2/stream/test.event?since=0", "").await.event().await;
    assert_eq!(log.json()["number"], 0, "the good one is in the log");
}

#[tokio::test]
async fn a_body_that_is_no_batch_is_refused_with_a_sentence() {
    let server = Server::start(Options::default()).await;
    let empty = "Request body was empty. Must provide JSON encoded events.";
    let table: [(&[u8], &str); 10] = [
        (b"", empty),
        (b" \r\n", empty),
        (b"{}", empty),
        (b"[]", empty),
        (b"[ ]", empty),
        (b"12", "The body must be one JSON object or an array of them."),
        (b"\"x\"", "The body must be one JSON object or an array of them."),
        (b"{\"a\":\n 1,}", "The body is not JSON: key must be a string, at line 2, column 4."),
        (b"{\"a\":1} {", "The body is not JSON: trailing characters, at line 1, column 9."),
        (b"{\"a\":\"\xff\"}", "The body is not UTF-8: byte 6 does not belong there."),
    ];
    for (body, sentence) in table {
        let answer = server.connect().await.post_as(JSON, body).await;
        assert_says(&answer, 400, sentence);
        let lists = answer.json();
        assert_eq!((&lists["invalid"], &lists["error"][0]["event"]), (&json!([]), &Value::Null), "{lists}");
        assert_eq!(lists["error"][0]["context"]["message"], sentence, "{lists}");
    }
}

#[tokio::test]
async fn nesting_is_taken_to_its_limit_and_refused_beyond_it_alone_and_in_a_batch() {
    let server = Server::start(Options::default()).await;
    let event = |levels: usize| {
        let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
        format!(r#"{{"$schema":"/test/event/1.0.0","deep":{open}{close},"meta":{{"stream":"test.event"}}}}"#)
    };
    for body in [event(128), format!("[{}]", event(128))] {
        assert_eq!(server.post(&body).await.status(), 201, "128 levels: {:?}", server.post(&body).await);
    }
    for body in [event(129), format!("[{}]", event(129)), event(100_000)] {
        assert_says(&server.post(&body).await, 400, "The body is nested deeper than 128 levels.");
    }
}

#[tokio::test]
async fn a_content_type_that_is_not_json_is_told_the_cure() {
    let server = Server::start(Options::default()).await;
    let form = "The Content-Type is application/x-www-form-urlencoded, curl's default: add -H 'Content-Type: application/json'.";
    let table = [
        ("", "The request has no Content-Type: send application/json."),
        ("Content-Type: application/x-www-form-urlencoded\r\n", form),
        (
            "Content-Type: text/html\r\n",
            "The Content-Type must be one of application/json, text/plain, application/reports+json.",
        ),
    ];
    for (headers, sentence) in table {
        let answer = server.connect().await.post_as(headers, event_at("test.event", 0, 0).to_string().as_bytes()).await;
        assert_says(&answer, 415, sentence);
    }
}

fn small_limits() -> Options {
    Options::default().env("SLUICE__INTAKE__MAX_BODY_BYTES", "2000").env("SLUICE__INTAKE__MAX_EVENT_BYTES", "1000")
}

fn event_of(bytes: usize) -> String {
    let frame = r#"{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"},"pad":""}"#;
    frame.replace(r#""""#, &format!(r#""{}""#, "x".repeat(bytes - frame.len())))
}

#[tokio::test]
async fn a_body_over_its_limit_is_413_however_it_is_sent() {
    let server = Server::start(small_limits()).await;
    let sentence = "The body is larger than 2000 bytes.";
    assert_eq!(server.post(&event_of(1000)).await.status(), 201, "at the limit");
    assert_says(&server.post(&event_of(2001)).await, 413, sentence);
    let mut raw = server.connect().await;
    raw.send(format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{JSON}Content-Length: 99999999999\r\n\r\n")).await;
    assert_says(&raw.answer().await, 413, sentence);
    let mut raw = server.connect().await;
    raw.send(format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n")).await;
    raw.send(format!("7d0\r\n{}\r\n", event_of(2000))).await;
    raw.send("1\r\n \r\n").await;
    assert_says(&raw.answer().await, 413, sentence);
}

#[tokio::test]
async fn a_chunked_body_within_its_limit_is_taken() {
    let server = Server::start(small_limits()).await;
    let mut raw = server.connect().await;
    raw.send(format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n")).await;
    for part in event_of(1000).as_bytes().chunks(100) {
        raw.send([b"64\r\n", part, b"\r\n"].concat()).await;
    }
    raw.send("0\r\n\r\n").await;
    assert_says(&raw.answer().await, 201, "All 1 out of 1 events were accepted.");
}

#[tokio::test]
async fn a_producer_that_asks_first_is_told_to_go_on() {
    let server = Server::start(small_limits()).await;
    let mut raw = server.connect().await;
    let head =
        format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{JSON}Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n");
    raw.send(head).await;
    assert_eq!(raw.head().await.status(), 100);
    raw.send(event_of(1000)).await;
    assert_says(&raw.answer().await, 201, "All 1 out of 1 events were accepted.");
}

#[tokio::test]
async fn an_event_over_its_limit_is_413_alone_and_an_item_in_a_batch() {
    let server = Server::start(small_limits()).await;
    assert_eq!(server.post(&event_of(1001)).await.status(), 413);
    let answer = server.post(&format!("[{},{}]", event_of(100), event_of(1001))).await;
    assert_eq!(answer.status(), 207, "{answer:?}");
    let item = &answer.json()["error"][0];
    assert_eq!((&item["index"], &item["code"]), (&json!(1), &json!("too-large")), "{item}");
}

#[tokio::test]
async fn bodies_that_fill_the_room_while_they_are_read_are_503_and_small_ones_pass() {
    let server = Server::start(Options::default().env("SLUICE__INTAKE__MAX_INFLIGHT_BYTES", "1MiB")).await;
    let event = |bytes: usize| event_of(bytes).replace("{\"meta", r#"{"$schema":"/test/event/1.0.0","meta"#);
    // It has the room, and does not end: its head and what went before its last byte have been taken.
    let mut holder = server.connect().await;
    let length = 1 << 20;
    holder.send(format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{JSON}Content-Length: {length}\r\n\r\n")).await;
    holder.send(vec![b' '; length - 1]).await;
    let mut refused = None;
    let full = eventually(PATIENCE, async || {
        let answer = server.post(&event(200_000)).await;
        let full = answer.status() == 503;
        refused = Some(answer);
        full
    });
    assert!(full.await, "{refused:?}");
    let refused = refused.expect("an answer");
    assert_says(&refused, 503, "Too many events are waiting for the log.");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(server.post(&event(1_000)).await.status(), 201);
    holder.send(" ").await;
    assert_says(&holder.answer().await, 400, "Request body was empty. Must provide JSON encoded events.");
    assert_eq!(server.post(&event(200_000)).await.status(), 201);
}
