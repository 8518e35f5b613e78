//! The bytes of a stream: HTTP chunks and Server-Sent Events in them.

use serde_json::{Value, json};

use crate::engine::{DAWN_MS, Engine, event_at, on_both_engines};
use crate::raw::Event;
use crate::server::{Options, Server};

const RETRY_MS: std::ops::RangeInclusive<u64> = 1_000..=60_000;

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

#[tokio::test]
async fn every_event_is_one_chunk_and_the_first_one_alone_carries_retry() {
    let server = Server::start(Options::default()).await;
    let mut stream = server.stream("/v2/stream/test.event", "").await;
    let batch: Vec<_> = (0..3).map(|number| event_at("test.event", number, number as i64)).collect();
    assert_eq!(server.post(&json!(batch).to_string()).await.status(), 201);
    for (number, sent) in batch.iter().enumerate() {
        let chunk = String::from_utf8(stream.raw.chunk().await).expect("UTF-8");
        let event = Event::parse(&chunk);
        assert_eq!(event.retry.is_some(), number == 0, "{chunk}");
        assert!(event.retry.is_none_or(|ms| RETRY_MS.contains(&ms)), "{chunk}");
        let (next, time) = (number + 1, DAWN_MS + number as i64);
        assert_eq!(event.id, format!(r#"[{{"topic":"test.event","partition":0,"offset":{next},"timestamp":{time}}}]"#));
        let spliced = format!(r#","topic":"test.event","partition":0,"offset":{number}}},"#);
        assert_eq!(event.data, sent.to_string().replacen("},", &spliced, 1));
    }
}

#[tokio::test]
async fn the_producers_bytes_come_out_as_they_went_in() {
    let server = Server::start(Options::default()).await;
    let meta = r#""meta":{"topic":"lie","stream":"test.event","offset":-1,"id":"i","dt":"2026-01-01T00:00:00Z"}"#;
    let sent = format!(
        r#"{{"$schema":"/test/event/1.0.0","test":"","n":12345678901234567890.10,"a":1E3,"a":-0.0,"é":"\u00e9 / \/","":null,{meta},"z":"😀"}}"#
    );
    assert_eq!(server.post(&sent).await.status(), 201);
    let event = server.stream("/v2/stream/test.event?since=0", "").await.event().await;
    let (before, after) = sent.split_once(meta).expect("its meta");
    assert!(event.data.starts_with(before) && event.data.ends_with(after), "{}", event.data);
    let read = event.json()["meta"].clone();
    assert_eq!(
        read,
        json!({"topic": "test.event", "stream": "test.event", "id": "i", "dt": "2026-01-01T00:00:00Z", "partition": 0, "offset": 0})
    );
    for field in [r#""topic""#, r#""partition""#, r#""offset""#] {
        assert_eq!(event.data.matches(field).count(), 1, "{field} in {}", event.data);
    }
}

#[tokio::test]
async fn line_breaks_of_every_kind_stay_out_of_the_stream() {
    let server = Server::start(Options::default()).await;
    let sent = "{\"$schema\":\"/test/event/1.0.0\",\r\n\t\"meta\" : {\n\"stream\" : \"test.event\" },\r\"s\": \"a\u{2028}b\u{2029}c\u{85}d\"\n}\n";
    assert_eq!(server.post(sent).await.status(), 201);
    let event = server.stream("/v2/stream/test.event?since=0", "").await.event().await;
    assert!(!event.data.contains(['\u{2028}', '\u{2029}', '\u{85}']), "{}", event.data);
    assert_eq!(event.json()["s"], "a\u{2028}b\u{2029}c\u{85}d");
}

async fn the_id_names_the_quiet_topics_too(engine: Engine) {
    let (server, topics) = engine.serve(Options::default()).await;
    server.put(&event_at("codfw", 0, 5)).await;
    server.put(&event_at("eqiad", 0, 7)).await;
    let mut stream = server.stream("/v2/stream/both?since=2099-01-01", "").await;
    server.put(&event_at("eqiad", 1, 9)).await;
    let event = stream.event_where(|event| event.json()["number"] == 1).await;
    let id: Value = serde_json::from_str(&event.id).expect("JSON");
    let eqiad = json!({"topic": topics.eqiad, "partition": 0, "offset": 2, "timestamp": DAWN_MS + 9});
    let codfw = json!({"topic": topics.codfw, "partition": 0, "offset": 1, "timestamp": DAWN_MS + 5});
    let entries = id.as_array().expect("an array");
    assert!(entries.len() == 2 && entries.contains(&eqiad) && entries.contains(&codfw), "{id}");
}

on_both_engines!(the_id_names_the_quiet_topics_too);

#[tokio::test]
async fn lists_of_streams_may_be_escaped_aliased_repeated_and_end_in_a_slash() {
    let streams = "test.event: {schema_title: test/event, stream_aliases: [test]}
        mediawiki.page-create: {schema_title: test/event, stream_aliases: [page-create]}";
    let server = Server::start(Options::default().streams(&streams.replace("        ", ""))).await;
    let lists = [
        "test.event,mediawiki.page-create",
        "test.event%2Cmediawiki.page-create",
        "test.event%2cpage-create",
        "test|page-create",
        "test%7Cpage-create",
        "test,test.event,page-create,page-create",
        "test,page-create/",
        "test.event%2Cpage-create|test",
        "%74est,page-create/?since=",
    ];
    let mut streams = Vec::new();
    for (list, before) in lists.iter().zip(["/v2/stream", "//v2/stream"].into_iter().cycle()) {
        streams.push(server.stream(&format!("{before}/{list}"), "").await);
    }
    server.put(&event_at("test.event", 1, 0)).await;
    server.put(&event_at("mediawiki.page-create", 2, 0)).await;
    for (stream, list) in streams.iter_mut().zip(lists) {
        let numbers = [stream.event().await.json()["number"].clone(), stream.event().await.json()["number"].clone()];
        assert!(numbers.contains(&json!(1)) && numbers.contains(&json!(2)), "{list}: {numbers:?}");
    }
}

#[tokio::test]
async fn http_1_0_gets_the_same_events_without_chunks_until_the_connection_closes() {
    let mut server = Server::start(Options::default()).await;
    server.put(&event_at("test.event", 1, 0)).await;
    let mut raw = server.connect().await;
    raw.send("GET /v2/stream/test.event?since=0 HTTP/1.0\r\n\r\n").await;
    let head = raw.head().await;
    assert_eq!((head.status(), head.header("transfer-encoding")), (200, None), "{head:?}");
    assert_eq!(raw.take(5).await, b":ok\n\n");
    let event = raw.take_through(b"\n\n").await;
    assert_eq!(Event::parse(&String::from_utf8(event).expect("UTF-8")).json()["number"], 1);
    assert!(server.stop().await.success());
    let farewell = String::from_utf8(raw.rest().await).expect("UTF-8");
    assert!(farewell.starts_with("retry: ") && farewell.ends_with('\n'), "{farewell:?}");
}
