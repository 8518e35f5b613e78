//! What HTTP promises around an answer: lengths, methods, and that a refusal is read before its connection ends.

use crate::engine::event_at;
use crate::raw::Raw;
use crate::server::{Options, Server};

#[tokio::test]
async fn the_head_of_a_stream_promises_no_length() {
    let server = Server::start(Options::default()).await;
    for version in ["1.1", "1.0"] {
        let mut raw = server.connect().await;
        raw.send(format!("HEAD /v2/stream/test.event HTTP/{version}\r\nHost: x\r\n\r\n")).await;
        let head = raw.head().await;
        assert_eq!(head.status(), 200, "{head:?}");
        assert_eq!((head.header("content-length"), head.header("transfer-encoding")), (None, None), "{version}");
    }
}

#[tokio::test]
async fn a_stream_for_http_1_0_ends_with_its_connection_whatever_was_asked() {
    let server = Server::start(Options::default()).await;
    let mut raw = server.connect().await;
    raw.send("GET /v2/stream/test.event HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let head = raw.head().await;
    assert_eq!((head.header("connection"), head.header("transfer-encoding")), (None, None), "{head:?}");
    assert_eq!(raw.take(5).await, b":ok\n\n");
}

#[tokio::test]
async fn a_route_may_be_written_percent_encoded() {
    let server = Server::start(Options::default()).await;
    let stream = server.stream("/v2/%73tream/test%2Eevent%2Crecentchange/", "").await;
    assert_eq!(stream.head.status(), 200);
}

#[tokio::test]
async fn a_refused_body_can_be_sent_whole_and_the_refusal_still_be_read() {
    let server = Server::start(Options::default().env("SLUICE__INTAKE__MAX_BODY_BYTES", "2000")).await;
    let body = vec![b' '; 8 << 20];
    let mut raw = server.connect().await;
    let answer = raw.post_as("Content-Type: application/json\r\n", &body).await;
    assert_eq!(answer.status(), 413, "{answer:?}");
    let mut raw = server.connect().await;
    let answer = raw.post_as("Content-Type: text/html\r\n", &body).await;
    assert_eq!(answer.status(), 415, "{answer:?}");
}

#[tokio::test]
async fn a_body_that_would_be_misread_is_refused() {
    let server = Server::start(Options::default()).await;
    let event = event_at("test.event", 0, 0).to_string();
    let table = [
        (
            "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
            "The body must not be compressed: send it without Content-Encoding.",
        ),
        ("Content-Type: application/json; charset=latin1\r\n", "The charset must be UTF-8."),
    ];
    for (headers, sentence) in table {
        let answer = server.connect().await.post_as(headers, event.as_bytes()).await;
        assert_eq!((answer.status(), answer.header("sluice-message")), (415, sentence), "{answer:?}");
        assert_eq!(answer.json()["error"][0]["code"], "unsupported-media-type");
    }
}

#[tokio::test]
async fn the_operators_listener_has_the_same_manners() {
    let server = Server::start(Options::default()).await;
    let mut raw = Raw::connect(server.admin).await;
    raw.send("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(raw.head().await.status(), 200);
    raw.send("POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let answer = raw.answer().await;
    assert_eq!((answer.status(), answer.header("allow")), (405, "GET, HEAD"), "{answer:?}");
    assert_eq!(raw.get("/v2/stream/test.event", "").await.json()["type"], "not_found");
}
