//! The socket that leaves the HTTP server, and what it may have been through before.

use crate::engine::event_at;
use crate::raw::{Raw, Stream};
use crate::server::{Options, Server};
use crate::support::{PATIENCE, eventually};

const OPEN: &str = "sluice_streams_open";

/// The stream whose head comes next on this connection gets what is posted.
async fn streams(mut raw: Raw, server: &Server, number: usize) -> Stream {
    let head = raw.head().await;
    assert_eq!(head.status(), 200, "{head:?}");
    assert_eq!(raw.chunk().await, b":ok\n\n");
    server.put(&event_at("test.event", number, 0)).await;
    let mut stream = Stream { raw, head };
    assert_eq!(stream.event().await.json()["number"], number);
    stream
}

#[tokio::test]
async fn a_stream_behind_pipelined_requests_is_a_stream_wherever_its_bytes_are_cut() {
    let server = Server::start(Options::default()).await;
    let before = "GET /nope HTTP/1.1\r\nHost: x\r\n\r\nGET /v2/stream/nope HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /v2/stream/test.event HTTP/1.1\r\nHost: x\r\n\r\n";
    let whole = format!("{before}{last}");
    let cuts = [whole.len(), before.len(), before.len() + "GET /v2/str".len(), whole.len() - 2, 10];
    for (number, cut) in cuts.into_iter().enumerate() {
        let mut raw = server.connect().await;
        raw.send(&whole[..cut]).await;
        // What came whole is answered before the rest is sent, so that the cut is one.
        let mut answers = 0;
        while answers < whole[..cut].matches("\r\n\r\n").count().min(2) {
            assert_eq!(raw.answer().await.status(), 404);
            answers += 1;
        }
        raw.send(&whole[cut..]).await;
        for _ in answers..2 {
            assert_eq!(raw.answer().await.status(), 404);
        }
        streams(raw, &server, number).await;
    }
}

#[tokio::test]
async fn a_connection_that_has_posted_can_become_a_stream() {
    let server = Server::start(Options::default()).await;
    let mut raw = server.connect().await;
    // The stream may begin before it or behind it: what comes first is a 1.
    assert_eq!(raw.post(&event_at("test.event", 1, 0).to_string()).await.status(), 201);
    raw.send("GET /v2/stream/test HTTP/1.1\r\nHost: x\r\n\r\n").await;
    streams(raw, &server, 1).await;
}

#[tokio::test]
async fn head_takes_no_reader_and_leaves_the_connection() {
    let server = Server::start(Options::default()).await;
    let mut raw = server.connect().await;
    for (target, status) in [("test.event", 200), ("nope", 404), ("test.event?since=x", 400), ("test.event", 200)] {
        raw.send(format!("HEAD /v2/stream/{target} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let head = raw.head().await;
        assert_eq!(head.status(), status, "{head:?}");
        if status == 200 {
            assert_eq!(head.header("content-type"), Some("text/event-stream"));
        }
    }
    assert_eq!(server.metric(OPEN).await, 0.0);
    raw.send("GET /v2/stream/test.event HTTP/1.1\r\nHost: x\r\n\r\n").await;
    streams(raw, &server, 1).await;
}

#[tokio::test]
async fn a_client_that_vanishes_is_gone_from_the_gauge() {
    let server = Server::start(Options::default()).await;
    let staying = server.stream("/v2/stream/test.event", "").await;
    let closing = server.stream("/v2/stream/test.event", "").await;
    let cut_off = server.stream("/v2/stream/test.event", "").await;
    assert_eq!(server.metric(OPEN).await, 3.0);
    // One says that it leaves, the other resets the connection.
    drop(closing);
    cut_off.raw.io.set_zero_linger().expect("a socket option");
    drop(cut_off);
    assert!(eventually(PATIENCE, async || server.metric(OPEN).await == 1.0).await);
    drop(staying);
    assert!(eventually(PATIENCE, async || server.metric(OPEN).await == 0.0).await);
}

#[tokio::test]
async fn a_reader_that_has_had_events_and_vanishes_is_gone_too() {
    let server = Server::start(Options::default()).await;
    let mut raw = server.connect().await;
    raw.send("GET /v2/stream/test.event HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let stream = streams(raw, &server, 1).await;
    assert_eq!(server.metric(OPEN).await, 1.0);
    drop(stream);
    assert!(eventually(PATIENCE, async || server.metric(OPEN).await == 0.0).await);
}
