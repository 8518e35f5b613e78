//! What readers send: of every id, time and list, that its parser says yes or no, and of an id that it can be written and
//! read again; of every request, that the real server answers it in time, with a stream or a 4xx, and goes on.

use std::time::Instant;

use serde_json::json;
use sluice::model::{AskedPlace, Bookmark, ClientId, Mark, Place, Topic, parse_since, parse_stream_names};

use crate::raw::{Head, Raw};
use crate::server::{Options, Server};
use crate::share;

const IDS: [&str; 9] = [
    r#"[{"topic":"test.event","partition":0,"offset":0}]"#,
    r#"[{"topic":"test.event","partition":0,"offset":1,"timestamp":1756449917001}]"#,
    r#"[{"topic":"eqiad.test.event","partition":0,"timestamp":1756449917002},{"topic":"codfw.test.event","partition":0,"offset":-1}]"#,
    r#"[{"topic":"test.event","partition":2147483647,"offset":9223372036854775807,"timestamp":9223372036854775807}]"#,
    r#"[{"topic":"test.event","partition":0,"offset":-2},{"topic":"test.event","partition":1,"offset":null,"timestamp":0}]"#,
    r#"[{"topic":"\ud83d\ude00","partition":0,"offset":5}]"#,
    "c1.icfUy48zAQIDBAUGBwgBAAAA",
    "c1.AAECAwQFBgcIAQAAAQ",
    "c1.",
];
const TIMES: [&str; 9] = [
    "2026-11-20T08:00:00Z",
    "2026-11-20T08:00:00.123+02:00",
    "2026-11-20T08:00:00 02:00",
    "2026-11-20",
    "1756449917001",
    "-009999-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z[Europe/Berlin]",
    "Fri, 29 Aug 2025 06:45:17 GMT",
    "",
];
const LISTS: [&str; 6] =
    ["test.event", "test.event,recentchange", "a|b,c", "test.event%2Cnope/", "..%2f%00", "mediawiki.page-create"];
/// No body in chunks among them: where its chunks are broken while the handler still waits, actix closes without an answer.
const HEADERS: [&str; 10] = [
    "Accept: text/event-stream",
    "Accept: application/json",
    "Accept-Encoding: gzip, deflate",
    "Cache-Control: no-cache",
    "Connection: keep-alive",
    "Connection: close",
    "Content-Length: 3",
    "If-None-Match: *",
    "Expect: 100-continue",
    "X-Client-IP: 192.0.2.1",
];
/// What ids, times, addresses and heads are made of, and what breaks them.
const TOKENS: [&[u8]; 30] = [
    b"[",
    b"]",
    b"{",
    b"}",
    b"\"",
    b",",
    b":",
    b"|",
    b"/",
    b"?",
    b"&",
    b"=",
    b"%",
    b"%00",
    b"%ff",
    b"%2C",
    b"..",
    b"\0",
    b"\xff",
    b" ",
    b"\t",
    b"\r\n",
    b"-1",
    b"1e400",
    b"9223372036854775808",
    b"null",
    b"c1.",
    b"since=",
    b"lastEventId=",
    b"\"offset\":",
];

/// Up to four changes.
fn mutated(random: &mut fastrand::Rng, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.usize(..5) {
        let at = random.usize(..=bytes.len());
        match random.usize(..5) {
            0 | 1 => drop(bytes.splice(at..at, TOKENS[random.usize(..TOKENS.len())].iter().copied())),
            2 if at < bytes.len() => bytes[at] = random.u8(..),
            3 => drop(bytes.drain(at..(at + random.usize(..12)).min(bytes.len()))),
            _ => {
                let again = bytes[at..(at + random.usize(..40)).min(bytes.len())].repeat(random.usize(..3));
                drop(bytes.splice(at..at, again));
            }
        }
    }
    bytes
}

fn one_of<'a>(random: &mut fastrand::Rng, corpus: &[&'a str]) -> &'a str {
    corpus[random.usize(..corpus.len())]
}

#[test]
fn whatever_a_reader_asks_for_is_understood_or_refused_and_an_id_can_be_written_again() {
    let (time, mut random) = share();
    let topics = ["test.event", "eqiad.test.event", "codfw.test.event"].map(Topic::new);
    let (mut asked, mut ids, mut others) = (0_u64, 0_u64, 0_u64);
    let end = Instant::now() + time;
    while Instant::now() < end {
        asked += 1;
        let base = one_of(&mut random, &IDS);
        let id = String::from_utf8_lossy(&mutated(&mut random, base.as_bytes())).into_owned();
        if let Ok(parsed) = ClientId::parse(&id, &topics) {
            parsed.newest();
            ids += u64::from(is_read_as_it_is_written(&id, &parsed));
        }
        let base = one_of(&mut random, &TIMES);
        let time = mutated(&mut random, base.as_bytes());
        others += u64::from(parse_since(&String::from_utf8_lossy(&time)).is_ok());
        let base = one_of(&mut random, &LISTS);
        let list = mutated(&mut random, base.as_bytes());
        others += u64::from(parse_stream_names(&String::from_utf8_lossy(&list)).is_ok());
    }
    println!("{asked} ids, times and lists; {ids} ids written again, {others} of the others understood");
    assert!(ids > 0 && others > 0 && others < 2 * asked, "the mutations are neither all too wild nor all harmless");
}

/// Whether it can be written: only ids with offsets can, of topics as a log has them.
fn is_read_as_it_is_written(text: &str, id: &ClientId) -> bool {
    let place = |asked: &AskedPlace| match asked.mark {
        Mark::At { next, before } if is_a_topic(asked.partition.topic.as_str()) => {
            Some(Place { partition: asked.partition.clone(), next, before })
        }
        _ => None,
    };
    let Some(places) = id.places().iter().map(place).collect::<Option<Vec<_>>>() else { return false };
    let mut written = Vec::new();
    Bookmark::new(places).write_id(&mut written);
    let written = String::from_utf8(written).expect("ASCII");
    let topics: Vec<Topic> = id.places().iter().map(|place| place.partition.topic.clone()).collect();
    let again = ClientId::parse(&written, &topics).unwrap_or_else(|e| panic!("{e}: {written}, from {text}"));
    let mut expected = id.places().to_vec();
    expected.sort_by(|a, b| a.partition.cmp(&b.partition));
    assert_eq!(again.places(), expected, "{written}, from {text}");
    true
}

fn is_a_topic(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The bytes of a request whose head ends, whatever else is wrong with it.
fn request(random: &mut fastrand::Rng) -> Vec<u8> {
    let method = if random.u8(..) < 230 { "GET" } else { one_of(random, &["HEAD", "OPTIONS", "DELETE", "GET"]) };
    let list = one_of(random, &LISTS);
    let mut target = [one_of(random, &["/v2/stream/", "//v2/stream/", "/v2/stream"]), list].concat().into_bytes();
    if random.bool() {
        target = mutated(random, &target);
    }
    for (key, corpus) in [("since", &TIMES[..]), ("lastEventId", &IDS[..]), ("other", &LISTS[..])] {
        if random.u8(..) < 80 {
            let base = one_of(random, corpus);
            let value = mutated(random, base.as_bytes());
            let value: String = match random.bool() {
                true => form_urlencoded::byte_serialize(&value).collect(),
                false => String::from_utf8_lossy(&value).into_owned(),
            };
            target.extend_from_slice(if target.contains(&b'?') { b"&" } else { b"?" });
            target.extend_from_slice(format!("{key}={value}").as_bytes());
        }
    }
    let version = if random.u8(..) < 240 { " HTTP/1.1" } else { one_of(random, &[" HTTP/1.0", " HTTP/2.0", ""]) };
    let mut head = [method.as_bytes(), b" ", &target, version.as_bytes(), b"\r\nHost: x\r\n"].concat();
    for _ in 0..random.usize(..3) {
        head.extend_from_slice(one_of(random, &HEADERS).as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    if random.bool() {
        let id = one_of(random, &IDS);
        head.extend_from_slice(b"Last-Event-ID: ");
        head.extend_from_slice(&mutated(random, id.as_bytes()));
        head.extend_from_slice(b"\r\n");
    }
    if random.u8(..) < 40 {
        head = mutated(random, &head);
    }
    [head.as_slice(), b"\r\n\r\n"].concat()
}

/// Shown when what is waited for does not come.
struct Sent<'a>(&'a [u8]);

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the request was {:?}", String::from_utf8_lossy(self.0));
        }
    }
}

/// Reads the answer; the status.
async fn answered(raw: &mut Raw, request: &[u8]) -> u16 {
    let _shown = Sent(request);
    raw.send_what_is_taken(request).await;
    let mut head = raw.head().await;
    while head.status() == 100 {
        head = raw.head().await;
    }
    let shown = || format!("{:?}\n{head:?}", String::from_utf8_lossy(request));
    let status = head.status();
    // The front page leads to the description; what leads to it is short.
    let leads_on = matches!(status, 301 | 303) && matches!(head.header("location"), Some("/?doc"));
    assert!(status == 200 || leads_on || (400..500).contains(&status), "{}", shown());
    if request.trim_ascii_start().starts_with(b"HEAD ") {
        return status;
    }
    if is_a_stream(&head) {
        let opening = match head.header("transfer-encoding") {
            Some(_) => raw.chunk().await,
            None if head.header("content-type").is_some_and(|kind| kind.starts_with("text/")) => raw.take(5).await,
            None => raw.take(1).await,
        };
        assert!(opening == b":ok\n\n" || opening == b"\n", "{}", shown());
        return status;
    }
    let body = raw.body_of(&head).await;
    match head.header("content-type") {
        Some("application/problem+json") => {
            let problem: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(problem["status"], status, "{}", shown());
        }
        _ => assert!(leads_on || status == 400 || status == 431 || body.is_empty(), "{}", shown()),
    }
    status
}

fn is_a_stream(head: &Head) -> bool {
    let types = ["text/event-stream", "application/json", "application/x-ndjson"];
    let is_one = |kind: &str| types.iter().any(|own| kind.starts_with(own));
    head.status() == 200 && head.header("content-type").is_some_and(is_one)
}

#[tokio::test]
async fn whatever_a_reader_sends_is_answered_with_a_stream_or_a_4xx() {
    /// Fewer than a client may have refused without waiting.
    const REQUESTS_PER_CLIENT: usize = 8;
    const AT_ONCE: usize = 4;
    let server = Server::start(Options::default()).await;
    let event = json!({"$schema": "/test/event/1.0.0", "meta": {"stream": "test.event"}});
    server.put(&event).await;
    let serves_at = server.address;
    let (time, mut random) = share();
    let end = Instant::now() + time;
    let clients = (0..AT_ONCE).map(|_| random.fork()).map(|mut random| async move {
        let (mut streams, mut refused) = (0_u64, 0_u64);
        while Instant::now() < end {
            let address = Raw::somebody_new();
            for _ in 0..REQUESTS_PER_CLIENT {
                let request = request(&mut random);
                match answered(&mut Raw::from(address, serves_at).await, &request).await {
                    200 => streams += 1,
                    _ => refused += 1,
                }
            }
        }
        (streams, refused)
    });
    let counts = futures_util::future::join_all(clients).await;
    let (streams, refused) = counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    println!("{streams} requests answered with 200, {refused} refused");
    assert!(streams > 0 && refused > 0, "the mutations are neither all too wild nor all harmless");
    assert_eq!(server.get("/readyz").await.status(), 200, "it goes on");
    for name in ["sluice_panics_total", "sluice_refusals_held"] {
        assert_eq!(server.metric(name).await, 0.0, "{name}");
    }
}
