//! The bytes of a stream, as HTTP and as Server-Sent Events.

use serde_json::json;

use crate::server::{Options, Server};

/// An event of `test.event` with this number.
pub fn event(number: usize) -> serde_json::Value {
    json!({ "meta": { "stream": "test.event", "id": format!("e{number}") }, "number": number })
}

#[tokio::test]
async fn a_stream_opens_with_ok_and_says_what_it_is() {
    let server = Server::start(Options::default()).await;
    let mut raw = server.connect().await;
    raw.send("GET /v2/stream/test.event HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n").await;
    let head = raw.head().await;
    assert_eq!(head.line, "HTTP/1.1 200 OK");
    assert_eq!(raw.take(10).await, b"5\r\n:ok\n\n\r\n");
    let expected = [
        ("content-type", Some("text/event-stream; charset=utf-8")),
        ("cache-control", Some("no-cache")),
        ("x-accel-buffering", Some("no")),
        ("transfer-encoding", Some("chunked")),
        ("access-control-allow-origin", Some("*")),
        ("x-content-type-options", Some("nosniff")),
        ("content-length", None),
        ("content-encoding", None),
        ("sluice-notice", None),
    ];
    for (name, value) in expected {
        assert_eq!(head.header(name), value, "{name}");
    }
    let plain = server.stream("/v2/stream/test.event", "").await;
    assert_eq!(plain.head.header("content-type"), Some("text/event-stream"), "no charset without an Accept header");
}
