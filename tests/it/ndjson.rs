//! Streams as newline-delimited JSON: who gets them, and their bytes.

use crate::engine::{DAWN_MS, Engine, event_at, on_both_engines};
use crate::raw::{Head, Raw};
use crate::server::{Options, Server};

const JSON: &str = "Accept: application/json\r\n";
const TARGET: &str = "/v2/stream/test.event";

/// A stream of documents, its opening line read.
struct Documents {
    raw: Raw,
    head: Head,
}

impl Documents {
    async fn open(server: &Server, target: &str, headers: &str) -> Self {
        let mut raw = server.connect().await;
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{JSON}{headers}\r\n")).await;
        let head = raw.head().await;
        assert_eq!(head.status(), 200, "{target} {headers}: {head:?}");
        assert_eq!(raw.take(6).await, b"1\r\n\n\r\n", "the first byte is a line end");
        Self { raw, head }
    }

    /// The next document, which is one line and one chunk.
    async fn next(&mut self) -> String {
        loop {
            let chunk = String::from_utf8(self.raw.chunk().await).expect("UTF-8");
            if chunk != "\n" {
                let line = chunk.strip_suffix('\n').unwrap_or_else(|| panic!("no line end: {chunk:?}"));
                assert!(line.starts_with('{') && line.ends_with('}') && !line.contains(['\n', '\r']), "{chunk:?}");
                return line.to_owned();
            }
        }
    }

    async fn numbers(&mut self, count: usize) -> Vec<i64> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            numbers.push(number(&self.next().await));
        }
        numbers
    }
}

fn number(document: &str) -> i64 {
    let document: serde_json::Value = serde_json::from_str(document).expect("JSON");
    document["number"].as_i64().expect("a number")
}

#[tokio::test]
async fn how_accept_begins_decides_and_nobody_is_refused() {
    let server = Server::start(Options::default()).await;
    server.put(&event_at("test.event", 1, 0)).await;
    let (sse, sse_utf8) = ("text/event-stream", "text/event-stream; charset=utf-8");
    let (json, ndjson) = ("application/json; charset=utf-8", "application/x-ndjson; charset=utf-8");
    let table = [
        ("", sse),
        ("Accept: */*\r\n", sse_utf8),
        ("Accept:\r\n", sse_utf8),
        ("Accept: text/event-stream\r\n", sse_utf8),
        ("Accept: text/html, application/json\r\n", sse_utf8),
        ("Accept: image/png\r\n", sse_utf8),
        ("Accept: application/*\r\n", sse_utf8),
        ("Accept: application/jso\r\n", sse_utf8),
        ("Accept: \u{e9}\r\n", sse_utf8),
        ("Accept: application/json\r\n", json),
        ("accept: application/json;q=0.1, text/event-stream\r\n", json),
        ("Accept: application/json; charset=utf-8\r\n", json),
        ("Accept: Application/JSON\r\n", json),
        ("Accept: application/x-ndjson\r\n", ndjson),
        ("Accept: application/x-ndjson, application/json\r\n", ndjson),
    ];
    for (accept, kind) in table {
        for method in ["GET", "HEAD"] {
            let mut raw = server.connect().await;
            raw.send(format!("{method} {TARGET}?since=0 HTTP/1.1\r\nHost: x\r\n{accept}\r\n")).await;
            let head = raw.head().await;
            assert_eq!((head.status(), head.header("content-type")), (200, Some(kind)), "{method} {accept}: {head:?}");
            assert!(head.header("vary").is_some_and(|vary| vary.contains("Accept")), "{head:?}");
            if method == "GET" {
                let is_sse = kind.starts_with("text/");
                assert_eq!(raw.chunk().await, if is_sse { b":ok\n\n".as_slice() } else { b"\n" }, "{accept}");
                let event = String::from_utf8(raw.chunk().await).expect("UTF-8");
                assert!(event.starts_with(if is_sse { "event: message\nid: [" } else { "{" }), "{accept}: {event}");
            }
        }
    }
    let mut raw = server.connect().await;
    let refused = raw.get("/v2/stream/nope", JSON).await;
    assert_eq!((refused.status(), refused.header("content-type")), (404, "application/problem+json"), "{refused:?}");
}

#[tokio::test]
async fn a_document_is_the_data_of_its_event_and_a_line_whatever_its_size_and_text() {
    let server = Server::start(Options::default()).await;
    let sizes = [0, 1_000, 15_000, 16_000, 17_000, 70_000, 1_500_000];
    for (number, size) in sizes.into_iter().enumerate() {
        let mut event = event_at("test.event", number, 0);
        event["test"] = format!("\n\r\u{2028}é😀{}", "x".repeat(size)).into();
        server.put(&event).await;
    }
    let target = format!("{TARGET}?since=0");
    let mut sse = server.stream(&target, "").await;
    let mut documents = Documents::open(&server, &target, "").await;
    for size in sizes {
        let (document, data) = (documents.next().await, sse.event().await.data);
        assert!(document == data, "{size}: {} and {} bytes", document.len(), data.len());
        assert!(document.len() > size && document.contains(r#""partition":0,"offset":"#), "{size}");
    }
    // The same live, large after small.
    for (number, size) in [(7, 10), (8, 100_000)] {
        let mut event = event_at("test.event", number, 0);
        event["test"] = "y".repeat(size).into();
        server.put(&event).await;
        assert_eq!(documents.next().await, sse.event().await.data);
    }
}

#[tokio::test]
async fn a_stream_of_documents_has_no_word_of_ours() {
    let server = Server::start(Options::default().env("SLUICE__HUB__HEARTBEAT", "1s")).await;
    server.put(&event_at("test.event", 0, 0)).await;
    // Who is told something is told in the header alone: there are no comments here, and no blocks for positions.
    let past = "Last-Event-ID: [{\"topic\":\"test.event\",\"partition\":0,\"offset\":99}]\r\n";
    let mut documents = Documents::open(&server, &format!("{TARGET}?positions=true"), past).await;
    let notice = documents.head.header("sluice-notice").unwrap_or_default();
    assert!(notice.contains("past the end"), "{notice}");
    for _ in 0..2 {
        assert_eq!(documents.raw.chunk().await, b"\n", "a sign of life is an empty line");
    }
    server.put(&event_at("test.event", 1, 0)).await;
    assert_eq!(documents.numbers(1).await, [1], "and no `retry:` before the first");
}

#[tokio::test]
async fn a_stop_ends_it_behind_a_whole_document() {
    let mut server = Server::start(Options::default()).await;
    let mut greeted = Documents::open(&server, TARGET, "").await;
    server.put(&event_at("test.event", 1, 0)).await;
    assert_eq!(greeted.numbers(1).await, [1]);
    let mut quiet = Documents::open(&server, "/v2/stream/recentchange", "").await;
    assert!(server.stop().await.success(), "{}", server.stderr());
    for documents in [&mut greeted, &mut quiet] {
        assert_eq!(documents.raw.rest().await, b"0\r\n\r\n");
    }
}

#[tokio::test]
async fn http_1_0_gets_bare_lines_until_the_connection_closes() {
    let mut server = Server::start(Options::default()).await;
    for number in 0..2 {
        let mut event = event_at("test.event", number, 0);
        event["test"] = "x".repeat(number * 40_000).into();
        server.put(&event).await;
    }
    let mut raw = server.connect().await;
    raw.send(format!("GET {TARGET}?since=0 HTTP/1.0\r\n{JSON}\r\n")).await;
    let head = raw.head().await;
    assert_eq!(
        (head.status(), head.header("transfer-encoding"), head.header("connection")),
        (200, None, None),
        "{head:?}"
    );
    assert_eq!(head.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(raw.take(1).await, b"\n");
    for expected in 0..2 {
        let line = String::from_utf8(raw.take_through(b"\n").await).expect("UTF-8");
        assert_eq!(number(&line), expected);
    }
    assert!(server.stop().await.success());
    assert_eq!(raw.rest().await, b"");
}

/// It has no ids: a reader makes one of what a document says of its place, or asks by time.
async fn a_reader_of_documents_resumes_with_an_id_of_its_own_making_or_by_time(engine: Engine) {
    let (server, topics) = engine.serve(Options::default()).await;
    for number in 0..4 {
        server.put(&event_at("eqiad", number, number as i64)).await;
    }
    let target = "/v2/stream/eqiad";
    let mut documents = Documents::open(&server, &format!("{target}?since=0"), "").await;
    for expected in 0..3 {
        let document: serde_json::Value = serde_json::from_str(&documents.next().await).expect("JSON");
        let meta = &document["meta"];
        assert_eq!((&document["number"], &meta["topic"]), (&expected.into(), &topics.eqiad.as_str().into()));
        let next = meta["offset"].as_i64().expect("an offset") + 1;
        let id = format!(r#"[{{"topic":{},"partition":{},"offset":{next}}}]"#, meta["topic"], meta["partition"]);
        let escaped: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let time = DAWN_MS + expected + 1;
        for (target, headers) in [
            (target.to_owned(), format!("Last-Event-ID: {id}\r\n")),
            (format!("{target}?lastEventId={escaped}"), String::new()),
            (format!("{target}?since={time}"), String::new()),
        ] {
            let mut resumed = Documents::open(&server, &target, &headers).await;
            assert_eq!(resumed.head.header("sluice-notice"), None, "{target}");
            let rest: Vec<i64> = (expected + 1..4).collect();
            assert_eq!(resumed.numbers(rest.len()).await, rest, "{target} {headers}");
        }
    }
}

on_both_engines!(a_reader_of_documents_resumes_with_an_id_of_its_own_making_or_by_time);
