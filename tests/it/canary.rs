//! Canary events: hidden from who does not ask for them, on every way to a reader; and places that move over them.

use serde_json::{Value, json};

use crate::engine::{DAWN_MS, Engine, Topics, event_at, on_both_engines};
use crate::raw::{Event, Stream};
use crate::server::{Options, Server};

fn canary(stream: &str, number: usize) -> Value {
    let mut event = event_at(stream, number, number as i64);
    event["meta"]["domain"] = "canary".into();
    event
}

/// The even ones are events, the odd ones canaries.
async fn put(server: &Server, stream: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let event =
            if number.is_multiple_of(2) { event_at(stream, number, number as i64) } else { canary(stream, number) };
        server.put(&event).await;
    }
}

/// Of one of the two topics, or of both.
fn id(places: &[(&str, usize)]) -> String {
    let entry = |(topic, next): &(&str, usize)| {
        let time = DAWN_MS + *next as i64 - 1;
        format!(r#"{{"topic":"{topic}","partition":0,"offset":{next},"timestamp":{time}}}"#)
    };
    format!("[{}]", places.iter().map(entry).collect::<Vec<_>>().join(","))
}

async fn numbers(stream: &mut Stream, count: usize) -> Vec<i64> {
    stream.numbers_until(|read| read.len() == count).await
}

async fn canaries_are_hidden_live_and_in_what_was_missed_unless_asked_for(engine: Engine) {
    let (server, _topics) = engine.serve(Options::default()).await;
    put(&server, "eqiad", 0..6).await;
    // The first three read what was missed, and go on live.
    let (plain, shown) = (vec![0, 2, 4, 6, 8], (0..10).collect::<Vec<i64>>());
    let table = [
        ("", plain.clone()),
        ("&canary=false", plain.clone()),
        ("&canary=0", plain.clone()),
        ("&canary=no", plain),
        ("&canary=true", shown.clone()),
        ("&canary=1", shown.clone()),
        ("&canary", shown),
    ];
    let mut readers = Vec::new();
    for (query, _) in &table {
        readers.push(server.stream(&format!("/v2/stream/eqiad?since=0{query}"), "").await);
    }
    let mut live = server.stream("/v2/stream/eqiad", "").await;
    put(&server, "eqiad", 6..10).await;
    for (reader, (query, expected)) in readers.iter_mut().zip(&table) {
        assert_eq!(numbers(reader, expected.len()).await, *expected, "{query}");
    }
    let seen = live.numbers_until(|read| read.last() == Some(&8)).await;
    assert!(seen.iter().all(|number| number % 2 == 0), "{seen:?}");
}

async fn a_place_moves_over_canaries_and_every_id_is_good_for_both_kinds_of_reader(engine: Engine) {
    let (server, Topics { eqiad, .. }) = engine.serve(Options::default()).await;
    put(&server, "eqiad", 0..8).await;
    let ids = async |query: &str, count: usize| {
        let mut stream = server.stream(&format!("/v2/stream/eqiad?since=0{query}"), "").await;
        let mut ids = Vec::new();
        for _ in 0..count {
            let Event { id, data, .. } = stream.event().await;
            ids.push((serde_json::from_str::<Value>(&data).expect("JSON")["number"].as_i64().expect("a number"), id));
        }
        ids
    };
    let mut all = ids("", 4).await;
    all.extend(ids("&canary=true", 8).await);
    for (number, shown) in all {
        let next = usize::try_from(number + 1).expect("a number");
        assert_eq!(shown, id(&[(&eqiad, next)]), "behind {number}");
        let headers = format!("Last-Event-ID: {shown}\r\n");
        let rest: Vec<i64> = (number + 1..8).collect();
        let mut every = server.stream("/v2/stream/eqiad?canary=true", &headers).await;
        assert_eq!(numbers(&mut every, rest.len()).await, rest, "behind {number}, with canaries");
        let rest: Vec<i64> = rest.into_iter().filter(|number| number % 2 == 0).collect();
        let mut plain = server.stream("/v2/stream/eqiad", &headers).await;
        assert_eq!(numbers(&mut plain, rest.len()).await, rest, "behind {number}");
    }
}

async fn two_streams_together_hide_the_canaries_of_both(engine: Engine) {
    let (server, topics) = engine.serve(Options::default()).await;
    put(&server, "eqiad", 0..4).await;
    put(&server, "codfw", 4..8).await;
    for list in ["both", "codfw,eqiad"] {
        let mut plain = server.stream(&format!("/v2/stream/{list}?since=0"), "").await;
        let mut every = server.stream(&format!("/v2/stream/{list}?since=0&canary=true"), "").await;
        let mut read = numbers(&mut plain, 4).await;
        read.sort_unstable();
        assert_eq!(read, [0, 2, 4, 6], "{list}");
        let mut read = numbers(&mut every, 8).await;
        read.sort_unstable();
        assert_eq!(read, (0..8).collect::<Vec<i64>>(), "{list}");
    }
    // Behind every event, canaries too: nothing comes twice, and the next is the next.
    let places = [(topics.codfw.as_str(), 4), (topics.eqiad.as_str(), 4)];
    let entry = |(topic, next): (&str, usize)| format!(r#"{{"topic":"{topic}","partition":0,"offset":{next}}}"#);
    let headers = format!("Last-Event-ID: [{}]\r\n", places.map(entry).join(","));
    let mut resumed = server.stream("/v2/stream/both", &headers).await;
    server.put(&canary("codfw", 9)).await;
    server.put(&event_at("codfw", 10, 10)).await;
    assert_eq!(numbers(&mut resumed, 1).await, [10]);
}

/// Far more than a ring holds, so that the log is read for it.
async fn canaries_are_hidden_in_what_is_read_from_the_log(engine: Engine) {
    let (server, _topics) = engine.serve(Options::default().env("SLUICE__HUB__RING_BYTES", "64KiB")).await;
    let padded = |number: usize| {
        let mut event = if number.is_multiple_of(2) { event_at("eqiad", number, 0) } else { canary("eqiad", number) };
        event["padding"] = "x".repeat(2_000).into();
        event
    };
    let batch: Vec<Value> = (0..300).map(padded).collect();
    assert_eq!(server.post(&json!(batch).to_string()).await.status(), 201);
    // Once the tail has it all, the ring has the end alone.
    let mut last = server.stream("/v2/stream/eqiad?since=0&canary=true", "").await;
    assert_eq!(numbers(&mut last, 300).await, (0..300).collect::<Vec<i64>>());
    let mut plain = server.stream("/v2/stream/eqiad?since=0", "").await;
    assert_eq!(numbers(&mut plain, 150).await, (0..300).step_by(2).collect::<Vec<i64>>());
    assert!(server.metric("sluice_catchup_reads_total").await > 0.0, "the log was read");
}

#[tokio::test]
async fn canaries_are_hidden_in_newline_delimited_json_too() {
    let server = Server::start(Options::default()).await;
    put(&server, "test.event", 0..4).await;
    for (query, expected) in [("", vec![0, 2, 4]), ("&canary=true", vec![0, 1, 2, 3, 4])] {
        let mut raw = server.connect().await;
        raw.send(format!(
            "GET /v2/stream/test.event?since=0{query} HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n"
        ))
        .await;
        assert_eq!(raw.head().await.status(), 200);
        assert_eq!(raw.chunk().await, b"\n");
        if query.is_empty() {
            server.put(&event_at("test.event", 4, 4)).await;
        }
        for number in expected {
            let document: Value = serde_json::from_slice(&raw.chunk().await).expect("a document");
            assert_eq!(document["number"], number, "{query}");
        }
    }
}

/// By blocks with an id and no event, which nobody else gets: see `rules`.
#[tokio::test]
async fn who_asks_for_positions_is_told_of_its_place_behind_canaries_that_it_does_not_see() {
    let server = Server::start(Options::default().env("SLUICE__HUB__HEARTBEAT", "1s")).await;
    put(&server, "test.event", 0..1).await;
    let mut stream = server.stream("/v2/stream/test.event?since=0&positions=true", "").await;
    let at = |next| format!("id: {}\n\n", id(&[("test.event", next)]));
    let mut chunks = Vec::new();
    while chunks.last().is_none_or(|chunk: &String| chunk.starts_with("id: ") || chunk == ":\n") {
        chunks.push(String::from_utf8(stream.raw.chunk().await).expect("UTF-8"));
    }
    assert_eq!(Event::parse(&chunks.pop().expect("an event")).json()["number"], 0, "{chunks:?}");
    server.put(&canary("test.event", 1)).await;
    server.put(&canary("test.event", 2)).await;
    // Told while it is silent, and once for each place.
    let mut told = Vec::new();
    while told.last() != Some(&at(3)) {
        let chunk = String::from_utf8(stream.raw.chunk().await).expect("UTF-8");
        if chunk != ":\n" {
            told.push(chunk);
        }
    }
    assert!(told.len() <= 2 && told.iter().all(|chunk| *chunk == at(2) || *chunk == at(3)), "{told:?}");
    for _ in 0..2 {
        assert_eq!(stream.raw.chunk().await, b":\n", "what it knows is not told again");
    }
    let headers = format!("Last-Event-ID: {}\r\n", id(&[("test.event", 3)]));
    let mut resumed = server.stream("/v2/stream/test.event?canary=true", &headers).await;
    server.put(&event_at("test.event", 3, 3)).await;
    assert_eq!(numbers(&mut resumed, 1).await, [3]);
    assert_eq!(numbers(&mut stream, 1).await, [3]);
}

#[tokio::test]
async fn an_answer_that_is_neither_yes_nor_no_is_refused() {
    let server = Server::start(Options::default()).await;
    for query in ["canary=2", "canary=maybe", "canary=0&canary=1", "positions=x", "since=0&canary=%ff"] {
        for accept in ["", "Accept: application/json\r\n"] {
            let mut raw = server.connect().await;
            raw.send(format!("GET /v2/stream/test.event?{query} HTTP/1.1\r\nHost: x\r\n{accept}\r\n")).await;
            // The head first: a stream that is opened all the same has no end.
            let head = raw.head().await;
            assert_eq!(
                (head.status(), head.header("content-type")),
                (400, Some("application/problem+json")),
                "{query}"
            );
            let length = head.header("content-length").and_then(|length| length.parse().ok()).expect("a length");
            let problem: Value = serde_json::from_slice(&raw.take(length).await).expect("a problem");
            let parameter = if query.contains("canary") { "canary" } else { "positions" };
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(parameter)), "{problem}");
        }
    }
    assert_eq!(server.metric("sluice_streams_open").await, 0.0);
}

on_both_engines!(
    canaries_are_hidden_live_and_in_what_was_missed_unless_asked_for,
    a_place_moves_over_canaries_and_every_id_is_good_for_both_kinds_of_reader,
    two_streams_together_hide_the_canaries_of_both,
    canaries_are_hidden_in_what_is_read_from_the_log,
);
