//! The headline rules that real clients set, each on raw bytes: what goes over the socket, not what a library makes of it.
//!
//! | rule | what it says, and where it is shown |
//! |---|---|
//! | 1–4, 17 | compression: none for now, whatever a client or a proxy in front asks for (here) |
//! | 5 | no refusal makes a hot loop: refusals are held, or soft (`refusals`) |
//! | 6 | `retry:` stands inside the first block that carries data (here; in a farewell: `process`, `wire`) |
//! | 7 | a keep-alive is `:` and one line end (here; as NDJSON: `ndjson`) |
//! | 8 | every event has an id, and no block has an id or a `retry` alone (here; who asks for positions: `canary`) |
//! | 9 | ids are ASCII, without NUL, and have 4 KB at most (here; the compact form followed: `old_ids`) |
//! | 10 | one whole event per chunk, LF, no BOM, UTF-8, U+2028, U+2029 and U+0085 escaped (here; HTTP/1.0: `wire`) |
//! | 11 | `text/event-stream` in lower case (here; the whole negotiation: `ndjson`) |
//! | 12 | preflights with every header that clients send are answered with yes (here; every route: `browsers`) |
//! | 13 | `?lastEventId=` is the header, and an empty header is none (`resume`) |
//! | 14 | a stream is never redirected (here) |
//! | 15 | the end is a clean one, between events (`process`; as NDJSON: `ndjson`) |
//! | 16 | a quiet stream has a comment every 10 s (here) |
//! | 18 | ids are exact, for siblings of one millisecond too (here; every shape of old ids: `old_ids`) |

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::engine::{DAWN_MS, Engine, event_at, on_both_engines};
use crate::raw::{Event, Head, Raw};
use crate::server::{Options, Server, free_address, sluice};
use crate::support::unique;

const TARGET: &str = "/v2/stream/test.event";
/// As `requests` 2.34 sends it, in whose name `sseclient` 0.0.27 asks for bytes that it then reads raw.
const SSECLIENT: &str = "User-Agent: python-requests/2.34.2\r\nAccept-Encoding: gzip, deflate\r\nAccept: text/event-stream\r\nConnection: keep-alive\r\nCache-Control: no-cache\r\n";
const CHROMIUM: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept: text/event-stream\r\n";

/// In its own reader of streams: it commits such an id, and hands nothing to its user.
const PYWIKIBOT: &str = "User-Agent: ExampleBot/script (wikipedia:en; User:ExampleBot) Pywikibot/11.9.0 (x) Python/3.11.7.final.0 requests/2.34.2\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n";

async fn open(server: &Server, target: &str, headers: &str) -> (Head, Raw) {
    let mut raw = server.connect().await;
    raw.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
    (raw.head().await, raw)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

/// The bytes of the answer to this are those of a stream that nobody has compressed.
async fn assert_plain(server: &Server, headers: &str) {
    let (head, mut raw) = open(server, &format!("{TARGET}?since=0"), headers).await;
    assert_eq!((head.status(), head.header("content-encoding")), (200, None), "{headers}: {head:?}");
    assert_eq!(raw.take(10).await, b"5\r\n:ok\n\n\r\n", "{headers}");
    let event = Event::parse(&text(raw.chunk().await));
    assert_eq!(event.json()["number"], 1, "{headers}");
}

async fn with_one_event() -> Server {
    let server = Server::start(Options::default()).await;
    server.put(&event_at("test.event", 1, 0)).await;
    server
}

#[tokio::test]
async fn rules_1_to_3_compress_once_no_gzip_members_segments_plain_to_everybody_for_now() {
    let server = with_one_event().await;
    for coding in ["gzip", "br", "zstd", "gzip, deflate, br, zstd", "*", "gzip;q=1.0, identity;q=0", "identity"] {
        assert_plain(&server, &format!("Accept-Encoding: {coding}\r\n")).await;
    }
    assert_plain(&server, CHROMIUM).await;
}

#[tokio::test]
async fn rule_4_compression_is_not_negotiated_by_accept_encoding_alone() {
    assert_plain(&with_one_event().await, SSECLIENT).await;
}

#[tokio::test]
async fn rule_17_varnish_gets_identity() {
    let server = with_one_event().await;
    assert_plain(&server, "X-Varnish: 32770\r\nVia: 1.1 varnish (Varnish/7.1)\r\nAccept-Encoding: gzip\r\n").await;
}

#[tokio::test]
async fn rule_6_retry_is_inside_the_first_data_carrying_event_and_nowhere_else() {
    let server = Server::start(Options::default().env("SLUICE__HUB__HEARTBEAT", "1s")).await;
    let (_, mut raw) = open(&server, TARGET, "").await;
    assert_eq!(raw.chunk().await, b":ok\n\n");
    assert_eq!(raw.chunk().await, b":\n", "no retry before the first event");
    for number in 0..3 {
        server.put(&event_at("test.event", number, 0)).await;
    }
    let mut blocks = Vec::new();
    while blocks.len() < 3 {
        blocks.extend(Some(text(raw.chunk().await)).filter(|chunk| chunk != ":\n"));
    }
    let lines: Vec<&str> = blocks[0].lines().map(|line| line.split(':').next().unwrap_or_default()).collect();
    assert_eq!(lines, ["event", "id", "retry", "data", ""], "{}", blocks[0]);
    let retry = Event::parse(&blocks[0]).retry.expect("a retry");
    assert!((1_000..=60_000).contains(&retry), "{retry}");
    assert!(blocks[1..].iter().all(|block| !block.contains("retry")), "{blocks:?}");
}

#[tokio::test]
async fn rule_7_a_keep_alive_is_a_single_comment_line_without_a_blank_line() {
    let server = Server::start(Options::default().env("SLUICE__HUB__HEARTBEAT", "1s")).await;
    let (_, mut raw) = open(&server, TARGET, "").await;
    assert_eq!(raw.take(24).await, b"5\r\n:ok\n\n\r\n2\r\n:\n\r\n2\r\n:\n\r\n");
    server.put(&event_at("test.event", 1, 0)).await;
    let mut between = text(raw.take_through(b"data: ").await);
    let event = between.split_off(between.find("event: ").expect("an event"));
    // Nothing but comments and the size of the event's own chunk.
    let (comments, size) =
        between.rsplit_once("\r\n").and_then(|(rest, _)| rest.rsplit_once("\r\n")).unwrap_or(("", &between));
    assert_eq!(comments.replace("2\r\n:\n\r\n", "").trim_end_matches("2\r\n:\n"), "", "{between:?}");
    assert!(!size.contains(':') && event.starts_with("event: message\n"), "{size:?} {event:?}");
}

#[tokio::test]
async fn rule_8_every_event_carries_an_id_and_no_block_has_an_id_or_a_retry_alone() {
    let server = Server::start(Options::default().env("SLUICE__HUB__HEARTBEAT", "1s")).await;
    let mut readers = Vec::new();
    let old_pywikibot = PYWIKIBOT.replace("11.9.0", "9.6.3");
    let curl = "User-Agent: curl/7.88.1\r\nAccept: */*\r\n";
    for headers in ["", SSECLIENT, CHROMIUM, curl, "Accept: text/event-stream\r\n", &old_pywikibot] {
        let (_, mut raw) = open(&server, TARGET, headers).await;
        assert_eq!(raw.chunk().await, b":ok\n\n");
        readers.push((headers, raw));
    }
    // The place moves over a canary that is not shown: silence is all that may be seen of it.
    let mut canary = event_at("test.event", 0, 0);
    canary["meta"]["domain"] = "canary".into();
    let mut shown = server.stream(&format!("{TARGET}?canary=true"), "").await;
    server.put(&canary).await;
    // The rings have it, and not the log alone.
    shown.event().await;
    let (_, mut measured) = open(&server, &format!("{TARGET}?since=2099-01-01"), PYWIKIBOT).await;
    let told = format!("id: [{{\"topic\":\"test.event\",\"partition\":0,\"offset\":1,\"timestamp\":{DAWN_MS}}}]\n\n");
    let opening = text([measured.chunk().await, measured.chunk().await].concat());
    assert_eq!(opening, format!(":ok\n\n{told}"), "who is measured to take it gets its place");
    for (headers, raw) in &mut readers {
        for _ in 0..2 {
            assert_eq!(raw.chunk().await, b":\n", "{headers}");
        }
    }
    for number in 1..3 {
        server.put(&event_at("test.event", number, 0)).await;
    }
    for (headers, raw) in &mut readers {
        let mut events = Vec::new();
        while events.len() < 2 {
            let chunk = text(raw.chunk().await);
            events.extend((chunk != ":\n").then(|| Event::parse(&chunk)));
        }
        let numbers = events.iter().map(|event| (event.json()["number"].as_i64(), event.id.is_empty()));
        assert_eq!(numbers.collect::<Vec<_>>(), [(Some(1), false), (Some(2), false)], "{headers}");
    }
}

#[tokio::test]
async fn rule_9_an_id_is_ascii_without_nul_and_at_most_4_kb() {
    for topics in [1, 2, 20, 60] {
        let names: Vec<String> = (0..topics).map(|_| unique(&"long.".repeat(24))).collect();
        let streams = format!("wide: {{schema_title: test/event, topics: [{}]}}\n", names.join(", "));
        let server = Server::start(Options::default().streams(&streams)).await;
        server.put(&event_at("wide", 1, 0)).await;
        let (_, mut raw) = open(&server, "/v2/stream/wide?since=0", "").await;
        raw.chunk().await;
        let id = Event::parse(&text(raw.chunk().await)).id;
        assert!(id.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && id.len() <= 4_096, "{topics}: {id}");
        let answer = open(&server, "/v2/stream/wide", &format!("Last-Event-ID: {id}\r\n")).await.0;
        assert_eq!((answer.status(), answer.header("sluice-notice")), (200, None), "{topics} topics");
    }
}

#[tokio::test]
async fn rule_10_one_whole_event_per_chunk_lf_only_no_bom_valid_utf_8_and_line_separators_escaped() {
    let server = Server::start(Options::default()).await;
    let texts = ["\u{2028}\u{2029}\u{85}", "é ÿ 😀 \u{feff}", "\r\n\t\u{b}\u{c}\u{1c}\u{0}", "\\n\\r", "\u{202e}abc"];
    for (number, text) in texts.iter().enumerate() {
        let mut event = event_at("test.event", number, 0);
        event["test"] = (*text).into();
        server.put(&event).await;
    }
    // Large events too: they do not go out in one write.
    let mut large = event_at("test.event", texts.len(), 0);
    large["test"] = "é\u{2028}".repeat(100_000).into();
    server.put(&large).await;
    let (head, mut raw) = open(&server, &format!("{TARGET}?since=0"), "").await;
    assert_eq!((head.header("transfer-encoding"), head.header("content-length")), (Some("chunked"), None));
    assert_eq!(raw.chunk().await, b":ok\n\n", "no BOM");
    for expected in texts.iter().map(|text| Value::from(*text)).chain([large["test"].clone()]) {
        let chunk = text(raw.chunk().await);
        // Every line end that some client's library knows.
        let broken = ['\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{0}', '\u{85}', '\u{2028}', '\u{2029}'];
        assert!(!chunk.contains(broken), "{chunk:?}");
        assert_eq!(Event::parse(&chunk).json()["test"], expected);
    }
}

#[tokio::test]
async fn rule_11_the_content_type_is_lower_case_text_event_stream() {
    let server = Server::start(Options::default()).await;
    for (headers, expected) in [
        ("", "content-type: text/event-stream\r\n"),
        ("Accept: TEXT/EVENT-STREAM\r\n", "content-type: text/event-stream; charset=utf-8\r\n"),
        ("Accept: */*\r\n", "content-type: text/event-stream; charset=utf-8\r\n"),
    ] {
        let mut raw = server.connect().await;
        raw.send(format!("GET {TARGET} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
        let head = text(raw.take_through(b"\r\n\r\n").await);
        assert!(head.contains(expected), "{headers}: {head}");
    }
}

#[tokio::test]
async fn rule_12_a_preflight_allows_every_header_that_a_client_resumes_with() {
    let server = Server::start(Options::default()).await;
    let wanted = ["last-event-id", "cache-control", "accept", "content-type", "x-requested-with", "api-user-agent"];
    let mut raw = server.connect().await;
    raw.send(format!(
        "OPTIONS {TARGET} HTTP/1.1\r\nHost: x\r\nOrigin: https://wiki.example\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: {}\r\n\r\n",
        wanted.join(",")
    ))
    .await;
    let answer = raw.answer().await;
    assert_eq!((answer.status(), answer.header("access-control-allow-origin")), (200, "*"), "{answer:?}");
    let allowed: Vec<&str> = answer.header("access-control-allow-headers").split(", ").collect();
    for header in wanted {
        assert!(allowed.contains(&header), "{header}: {allowed:?}");
    }
}

#[tokio::test]
async fn rule_14_a_stream_is_never_redirected() {
    let server = Server::start(Options::default()).await;
    // As found in public code, refused or not.
    let table = [
        ("/v2/stream/recentchange", 200),
        ("/v2/stream/recentchange/", 200),
        ("//v2/stream/recentchange", 200),
        ("//v2/stream/recentchange/?since=2026-03-25", 200),
        ("/v2/stream/mediawiki.recentchange,test.event", 200),
        ("/v2/stream/recentchange%2Ctest.event", 200),
        ("/v2/stream/recentchange?since=2026-03-25T00:00:00+00:00", 200),
        ("http://stream.wikimedia.org/v2/stream/recentchange", 200),
        ("/v2/stream", 400),
        ("/v2/stream/nope", 404),
        ("/v2/stream/recentchange//", 404),
    ];
    for (target, status) in table {
        let (head, _raw) = open(&server, target, "").await;
        assert_eq!((head.status(), head.header("location")), (status, None), "{target}: {head:?}");
    }
}

#[tokio::test]
async fn rule_16_a_quiet_stream_has_a_comment_every_10_seconds_also_while_the_log_is_away() {
    let mut shown = sluice();
    let shown = shown.args(["config", "show"]).output().expect("it runs");
    let shown = text(shown.stdout);
    assert!(shown.lines().any(|line| line.starts_with("hub.heartbeat = \"10s\"")), "{shown}");
    let server = Server::start(Options::default().env("SLUICE__HUB__HEARTBEAT", "1s")).await;
    let nobody = free_address().to_string();
    let away = Options::default().kafka(&nobody).unready().env("SLUICE__HUB__HEARTBEAT", "1s");
    let away = Server::start(away).await;
    for server in [&server, &away] {
        let (_, mut raw) = open(server, TARGET, "").await;
        assert_eq!(raw.chunk().await, b":ok\n\n");
        let asked = Instant::now();
        for _ in 0..3 {
            assert_eq!(raw.chunk().await, b":\n");
        }
        let took = asked.elapsed();
        assert!((Duration::from_secs(2)..Duration::from_secs(15)).contains(&took), "{took:?}");
    }
}

/// Three events of one millisecond and one that goes back, as EventStreams' ids of times could not tell.
async fn rule_18_every_id_is_its_own_and_leads_exactly_behind_its_event(engine: Engine) {
    let (server, topics) = engine.serve(Options::default()).await;
    let times = [5, 5, 5, 2, 5, 9];
    let batch: Vec<_> = times.iter().enumerate().map(|(number, ms)| event_at("eqiad", number, *ms)).collect();
    assert_eq!(server.post(&json!(batch).to_string()).await.status(), 201);
    let mut whole = server.stream("/v2/stream/eqiad?since=0", "").await;
    for (at, ms) in times.iter().enumerate() {
        let (next, time) = (at + 1, DAWN_MS + ms);
        let id = whole.event().await.id;
        assert_eq!(id, format!(r#"[{{"topic":"{}","partition":0,"offset":{next},"timestamp":{time}}}]"#, topics.eqiad));
        if next < times.len() {
            let mut resumed = server.stream("/v2/stream/eqiad", &format!("Last-Event-ID: {id}\r\n")).await;
            let expected: Vec<i64> = (next as i64..6).collect();
            assert_eq!(resumed.numbers_until(|read| read.len() == expected.len()).await, expected);
        }
    }
}

on_both_engines!(rule_18_every_id_is_its_own_and_leads_exactly_behind_its_event);
