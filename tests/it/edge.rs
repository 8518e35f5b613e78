//! What HTTP promises around an answer: lengths, methods, and that a refusal is read before its connection ends.

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
async fn requests_that_follow_a_refused_body_are_answered_in_their_turn() {
    let server = Server::start(Options::default().env("SLUICE__INTAKE__MAX_BODY_BYTES", "2000")).await;
    let post = "POST /v1/events HTTP/1.1\r\nHost: x\r\n";
    let next = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let refused = [
        (format!("{post}Content-Type: text/html\r\nContent-Length: 5\r\n\r\nGET /"), 415),
        (format!("{post}Content-Type: text/plain\r\nContent-Encoding: lzma\r\nContent-Length: 1\r\n\r\nx"), 415),
        (format!("{post}Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n"), 400),
        (format!("{post}Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n"), 415),
    ];
    for (request, status) in refused {
        let mut raw = server.connect().await;
        raw.send(format!("{request}{next}{next}")).await;
        let answer = raw.answer().await;
        assert_eq!(answer.status(), status, "{request}: {answer:?}");
        assert_eq!(answer.header("connection"), "", "{request}");
        for _ in 0..2 {
            let answer = raw.answer().await;
            assert_eq!((answer.status(), answer.text().as_str()), (200, "ok\n"), "{request}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_ends_with_a_refusal_answers_nothing_that_was_sent_behind_it() {
    let server = Server::start(Options::default()).await;
    for bytes in [1_000, 130_000, 250_000, 300_000, 2_000_000] {
        let mut raw = server.connect().await;
        let head = format!("POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: text/html\r\nContent-Length: {bytes}");
        let next = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        raw.send(format!("{head}\r\n\r\n{}{next}", " ".repeat(bytes))).await;
        let answer = raw.answer().await;
        assert_eq!(answer.status(), 415, "{bytes}: {answer:?}");
        match answer.header("connection") {
            "close" => assert_eq!(raw.rest().await, b"", "{bytes}"),
            _ => assert_eq!(raw.answer().await.text(), "ok\n", "{bytes}"),
        }
    }
}

#[tokio::test]
async fn a_refused_body_in_chunks_can_be_sent_whole_and_the_connection_goes_on() {
    let server = Server::start(Options::default().env("SLUICE__INTAKE__MAX_BODY_BYTES", "2000")).await;
    for (headers, status) in [
        ("Content-Type: text/html", 415),
        ("Content-Type: text/plain", 413),
        ("Content-Type: text/plain\r\nContent-Encoding: gzip", 413),
    ] {
        let mut raw = server.connect().await;
        raw.send(format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{headers}\r\nTransfer-Encoding: chunked\r\n\r\n"))
            .await;
        let chunk = [b"10000\r\n", " ".repeat(0x10000).as_bytes(), b"\r\n"].concat();
        for _ in 0..128 {
            raw.send(&chunk).await;
        }
        raw.send("0\r\n\r\n").await;
        assert_eq!(raw.answer().await.status(), status, "{headers}");
        assert_eq!(raw.get("/healthz", "").await.text(), "ok\n", "{headers}");
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
