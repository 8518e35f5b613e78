//! Where a reader starts: `Last-Event-ID`, `since`, live; and what it is told when that is no longer there.

use serde_json::{Value, json};

use crate::engine::{DAWN_MS, Engine, Topics, event_at, on_both_engines};
use crate::raw::Stream;
use crate::server::{Options, Server};
use crate::support::{self, PATIENCE, eventually};

fn escaped(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

async fn number(stream: &mut Stream) -> Value {
    stream.event().await.json()["number"].clone()
}

async fn a_reader_resumes_exactly_behind_the_event_whose_id_it_shows(engine: Engine) {
    let (server, _topics) = engine.serve(Options::default()).await;
    for number in 0..6 {
        server.put(&event_at(["eqiad", "codfw"][number % 2], number, 10 * number as i64)).await;
    }
    let mut whole = server.stream("/v2/stream/both?since=0", "").await;
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(whole.event().await);
    }
    for (at, event) in seen.iter().enumerate() {
        let id = format!("Last-Event-ID: {}\r\n", event.id);
        let by_header = server.stream("/v2/stream/both?lastEventId=[]", &id).await;
        let by_query = format!("/v2/stream/both?since=0&lastEventId={}", escaped(&event.id));
        let by_query = server.stream(&by_query, "Last-Event-ID:\r\n").await;
        for mut resumed in [by_header, by_query] {
            assert_eq!(resumed.head.header("sluice-notice"), None, "{}", event.id);
            let mut numbers = Vec::new();
            for _ in at + 1..6 {
                numbers.push(number(&mut resumed).await);
            }
            let mut rest: Vec<_> = seen[at + 1..].iter().map(|event| event.json()["number"].clone()).collect();
            // Two partitions have no order between them; nothing is lost or repeated.
            numbers.sort_by_key(Value::as_i64);
            rest.sort_by_key(Value::as_i64);
            assert_eq!(numbers, rest, "behind {}", event.id);
        }
    }
}

async fn since_starts_with_the_first_event_of_that_time_or_later(engine: Engine) {
    let (server, _topics) = engine.serve(Options::default()).await;
    for number in 0..4 {
        server.put(&event_at("eqiad", number, 1_000 * number as i64)).await;
    }
    let table = [
        ("2026-01-01T00:00:02Z", 2),
        ("2026-01-01T00:00:01.001Z", 2),
        ("2026-01-01T02:00:02%2B02:00", 2),
        ("2026-01-01T02:00:02+02:00", 2),
        ("1767225602000", 2),
        ("1767225602", 2),
        ("2026-01-01", 0),
        ("0", 0),
    ];
    for (since, first) in table {
        let mut stream = server.stream(&format!("/v2/stream/eqiad?since={since}"), "").await;
        assert_eq!(number(&mut stream).await, first, "{since}");
    }
}

/// Two of them, asked in every way that means "from now on".
async fn live_readers_get_what_comes(engine: Engine) {
    let (server, topics) = engine.serve(Options::default()).await;
    server.put(&event_at("eqiad", 0, 0)).await;
    // The tail has delivered it when a reader of all has it.
    server.stream("/v2/stream/eqiad?since=0", "").await.event().await;
    let mut warm = server.stream("/v2/stream/eqiad", "").await;
    server.put(&event_at("eqiad", 1, 1)).await;
    warm.event_where(|event| event.json()["number"] == 1).await;
    let (empty, live) = ("Last-Event-ID: \r\n", r#"[{"topic":"T","partition":0,"offset":-1}]"#);
    let live = format!("Last-Event-ID: {}\r\n", live.replace('T', &topics.eqiad));
    let asked =
        [("", ""), ("?since=", ""), ("?lastEventId=", empty), ("?since=2099-01-01", ""), ("?since=0", live.as_str())];
    let mut readers = Vec::new();
    for (query, headers) in asked {
        readers.push(server.stream(&format!("/v2/stream/eqiad{query}"), headers).await);
    }
    server.put(&event_at("eqiad", 2, 2)).await;
    for (reader, asked) in readers.iter_mut().zip(asked) {
        assert_eq!(number(reader).await, 2, "{asked:?}");
    }
}

/// Makes the log forget the beginning of `eqiad`, in which at least three events were.
async fn forget(engine: Engine, server: &Server, topics: &Topics) {
    if engine == Engine::Kafka {
        support::kafka().await.delete_records(&topics.eqiad, 0, 2).await;
        return;
    }
    // Every sixteenth of its bytes that is appended, the log deletes what is too much.
    // With a time that no record has: the ring cannot vouch for it, so the log is asked what it still has.
    let oldest = format!(r#"[{{"topic":"{}","partition":0,"offset":0,"timestamp":1}}]"#, topics.eqiad);
    let padding = "x".repeat(20_000);
    let forgotten = eventually(PATIENCE, async || {
        let mut event = event_at("eqiad", 99, 99);
        event["padding"] = padding.as_str().into();
        server.put(&event).await;
        let stream = server.stream("/v2/stream/eqiad", &format!("Last-Event-ID: {oldest}\r\n")).await;
        stream.head.header("sluice-notice").is_some()
    });
    assert!(forgotten.await, "the log keeps everything");
}

async fn a_place_that_is_no_longer_kept_starts_at_the_oldest_and_is_told_so(engine: Engine) {
    let small = Options::default().config("[log.sqlite]\nretention_bytes = '200KiB'\n");
    let (mut server, topics) = engine.serve(small).await;
    for number in 0..4 {
        server.put(&event_at("eqiad", number, number as i64)).await;
    }
    forget(engine, &server, &topics).await;
    // A ring would still have what the log has not.
    server.stop().await;
    server.start_again().await;
    let asked = format!(r#"[{{"topic":"{}","partition":0,"offset":1,"timestamp":{DAWN_MS}}}]"#, topics.eqiad);
    let by_id = server.stream("/v2/stream/eqiad", &format!("Last-Event-ID: {asked}\r\n")).await;
    let by_time = server.stream("/v2/stream/eqiad?since=2020-01-01", "").await;
    for (mut stream, asked) in [(by_id, "offset 1"), (by_time, "2020-01-01")] {
        let notice = stream.head.header("sluice-notice").unwrap_or_else(|| panic!("no notice of {asked}")).to_owned();
        assert!(notice.contains(&topics.eqiad) && notice.contains(asked), "{notice}");
        let comment = String::from_utf8(stream.raw.chunk().await).expect("UTF-8");
        assert_eq!(comment, format!(": {notice}\n"), "one line, and no blank one");
        let first = stream.event().await.json()["meta"]["offset"].as_i64().expect("an offset");
        assert!(first >= 2, "{first}: {notice}");
        if asked == "offset 1" {
            assert!(notice.ends_with(&format!("is {first}")), "{first}: {notice}");
        }
    }
}

async fn a_place_past_the_end_and_entries_of_others_are_told(engine: Engine) {
    let (server, topics) = engine.serve(Options::default()).await;
    server.put(&event_at("eqiad", 0, 0)).await;
    let Topics { eqiad, codfw } = &topics;
    let past = format!(r#"[{{"topic":"{eqiad}","partition":0,"offset":99}}]"#);
    let others = format!(
        r#"[{{"topic":"{eqiad}","partition":0,"offset":0}},{{"topic":"{codfw}","partition":0,"offset":3}},{{"topic":"{eqiad}","partition":5,"offset":3}}]"#
    );
    let mut past = server.stream("/v2/stream/eqiad", &format!("Last-Event-ID: {past}\r\n")).await;
    let notice = past.head.header("sluice-notice").unwrap_or_default().to_owned();
    assert!(notice.contains("99") && notice.contains("past the end"), "{notice}");
    let mut others = server.stream("/v2/stream/eqiad", &format!("Last-Event-ID: {others}\r\n")).await;
    let notice = others.head.header("sluice-notice").unwrap_or_default();
    assert!(notice.contains(codfw.as_str()) && notice.contains("left out"), "{notice}");
    assert_eq!(number(&mut others).await, 0);
    server.put(&event_at("eqiad", 1, 1)).await;
    assert_eq!(number(&mut past).await, 1);
    assert_eq!(number(&mut others).await, 1);
}

/// Another cluster's id: its offset is another record here.
async fn an_id_of_another_cluster_is_resumed_by_its_time(engine: Engine) {
    let (server, topics) = engine.serve(Options::default()).await;
    let batch: Vec<_> = (0..5).map(|number| event_at("eqiad", number, 1_000 * number as i64)).collect();
    assert_eq!(server.post(&json!(batch).to_string()).await.status(), 201);
    for offset in [1, 4, 700_000] {
        let time = DAWN_MS + 2_000;
        let id = format!(r#"[{{"topic":"{}","partition":0,"offset":{offset},"timestamp":{time}}}]"#, topics.eqiad);
        let mut stream = server.stream("/v2/stream/eqiad", &format!("Last-Event-ID: {id}\r\n")).await;
        assert_eq!(number(&mut stream).await, 2, "offset {offset}");
        assert!(stream.head.header("sluice-notice").is_some(), "offset {offset}");
    }
}

on_both_engines!(
    a_reader_resumes_exactly_behind_the_event_whose_id_it_shows,
    since_starts_with_the_first_event_of_that_time_or_later,
    live_readers_get_what_comes,
    a_place_that_is_no_longer_kept_starts_at_the_oldest_and_is_told_so,
    a_place_past_the_end_and_entries_of_others_are_told,
    an_id_of_another_cluster_is_resumed_by_its_time,
);
