//! Who gets how much: exactly so many whatever the number of workers, and nobody gets more by failing.

use std::net::Ipv4Addr;

use async_compression::tokio::write::GzipEncoder;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::patience::{RETRY_MS, soft};
use crate::raw::{Answer, Raw, Stream};
use crate::server::{Options, Server, free_address};
use crate::support::{PATIENCE, eventually};

const PATH: &str = "/v2/stream/test.event";
const GET: &str = "GET /v2/stream/test.event HTTP/1.1\r\nHost: x\r\n\r\n";
const OPEN: &str = "sluice_streams_open";
const LINES: &str = "Accept: application/json\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

/// With these of the section `limits`.
fn limits(set: &[(&str, &str)]) -> Options {
    set.iter().fold(Options::default(), |options, (key, value)| options.env(&format!("SLUICE__LIMITS__{key}"), value))
}

fn event(test: &str) -> Value {
    json!({ "$schema": "/test/event/1.0.0", "meta": { "stream": "test.event" }, "test": test })
}

/// How often a limit was reached: `enforced`, or in `shadow`.
async fn reached(server: &Server, limit: &str, mode: &str) -> f64 {
    let name = format!(r#"sluice_limited_total{{limit="{limit}",mode="{mode}"}}"#);
    server.metric(&name).await
}

async fn until_open(server: &Server, streams: usize) {
    let open = eventually(PATIENCE, async || server.metric(OPEN).await == streams as f64).await;
    assert!(open, "{} are open, and not {streams}", server.metric(OPEN).await);
}

/// As this client: what it is answered, or the stream.
async fn asks(server: &Server, address: Ipv4Addr, headers: &str) -> Result<Stream, Answer> {
    let mut raw = Raw::from(address, server.address).await;
    raw.send(format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
    let head = raw.head().await;
    match head.status() {
        200 => Ok(Stream { raw, head }),
        _ => Err(Answer { body: raw.body_of(&head).await, head }),
    }
}

/// How many streams this client gets, one after the other, out of as many as are asked for. They stay open.
async fn gets(server: &Server, address: Ipv4Addr, asked: usize) -> Vec<Stream> {
    let mut open = Vec::new();
    for _ in 0..asked {
        open.extend(asks(server, address, "").await);
    }
    open
}

#[tokio::test]
async fn of_fifty_streams_at_once_exactly_five_live_and_when_they_have_ended_five_more() {
    const ASKED: usize = 50;
    const LIMIT: usize = 5;
    let options = limits(&[("STREAMS_PER_CLIENT", "5")]).env("SLUICE__HTTP__WORKERS", "4");
    let server = Server::start(options).await;
    let address = Raw::somebody_new();
    for round in 1..=12 {
        let mut asking = Vec::new();
        for _ in 0..ASKED {
            asking.push(Raw::from(address, server.address).await);
        }
        for raw in &mut asking {
            raw.send(GET).await;
        }
        let (live_now, refused) = (LIMIT as f64, ((ASKED - LIMIT) * round) as f64);
        let decided = eventually(PATIENCE, async || {
            let refused_by_now = reached(&server, "streams_per_client", "enforced").await;
            server.metric(OPEN).await + refused_by_now >= live_now + refused
        });
        assert!(decided.await, "round {round}");
        let counts = (server.metric(OPEN).await, reached(&server, "streams_per_client", "enforced").await);
        assert_eq!(counts, (live_now, refused), "round {round}");
        // They live; the refusals of who keeps asking are held, and need not be waited for.
        let mut answers: FuturesUnordered<_> =
            asking.into_iter().map(async |mut raw: Raw| (raw.head().await, raw)).collect();
        let mut live = Vec::new();
        while live.len() < LIMIT {
            let (head, raw) = answers.next().await.expect("an answer");
            assert!([200, 429].contains(&head.status()), "{head:?}");
            live.extend((head.status() == 200).then_some(Stream { raw, head }));
        }
        for stream in &mut live {
            assert_eq!(stream.raw.chunk().await, b":ok\n\n");
        }
        let sent = event(&round.to_string());
        server.put(&sent).await;
        for stream in &mut live {
            stream.event_where(|event| event.json()["test"] == sent["test"]).await;
        }
        drop((live, answers));
        until_open(&server, 0).await;
    }
    assert_eq!(gets(&server, Raw::somebody_new(), 7).await.len(), LIMIT, "another has its own");
}

#[tokio::test]
async fn a_refusal_says_what_the_limit_is_and_what_is_in_use_and_what_to_do() {
    let server = Server::start(limits(&[("STREAMS_PER_CLIENT", "2")])).await;
    let address = Raw::somebody_new();
    let _open = gets(&server, address, 2).await;
    for headers in ["", LINES] {
        let answer = asks(&server, address, headers).await.err().expect("a refusal");
        assert_eq!((answer.status(), answer.header("content-type")), (429, "application/problem+json"));
        assert_eq!((answer.header("cache-control"), answer.header("access-control-allow-origin")), ("no-store", "*"));
        assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
        let problem = answer.json();
        assert_eq!(
            (&problem["type"], &problem["limit_name"]),
            (&json!("too_many_requests"), &json!("streams_per_client"))
        );
        assert_eq!((&problem["limit"], &problem["in_use"]), (&json!(2), &json!(2)));
        let detail = problem["detail"].as_str().expect("a sentence");
        assert!(detail.contains(&address.to_string()) && detail.contains("close one"), "{detail}");
    }
    // What would be asked of a stream needs no place, and spends none.
    let mut raw = Raw::from(address, server.address).await;
    raw.send(GET.replace("GET", "HEAD")).await;
    assert_eq!(raw.head().await.status(), 200);
    assert_eq!(gets(&server, Raw::somebody_new(), 3).await.len(), 2);
}

#[tokio::test]
async fn a_failing_request_frees_no_stream_of_anybody_and_keeps_none() {
    let server = Server::start(limits(&[("STREAMS_PER_CLIENT", "5")])).await;
    let (address, other) = (Raw::somebody_new(), Raw::somebody_new());
    let mut open = gets(&server, address, 4).await;
    let others = gets(&server, other, 5).await;
    assert_eq!((open.len(), others.len()), (4, 5));
    let failing = [
        "GET /v2/stream/nope HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /v2/stream/%00 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        GET.replace(" HTTP", "?since=soon HTTP"),
        GET.replace("\r\n\r\n", "\r\nLast-Event-ID: nonsense\r\n\r\n"),
        GET.replace("\r\n\r\n", "\r\nLast-Event-ID: [{\"topic\":\"z\",\"partition\":0,\"offset\":1}]\r\n\r\n"),
        GET.replace("\r\n\r\n", "\r\nLast-Event-ID: [{\"topic\":\"test.event\",\"partition\":9,\"offset\":1}]\r\n\r\n"),
        GET.replace("GET", "HEAD"),
        GET.replace("GET", "DELETE"),
        "GET /v2/stream/test.event HTTP/1.1\r\nHost".to_owned(),
        "GARBAGE\r\n\r\n".to_owned(),
    ];
    // Its own, while it has one place left, all at once and in all orders; most of them leave before they are answered.
    for _ in 0..10 {
        for request in &failing {
            let mut raw = Raw::from(address, server.address).await;
            raw.send(request).await;
        }
    }
    // And streams that end in every way.
    for leaves_early in [true, false].repeat(10) {
        let mut raw = Raw::from(address, server.address).await;
        raw.send(GET).await;
        if !leaves_early {
            raw.head().await;
        }
    }
    until_open(&server, 9).await;
    let fifth = eventually(PATIENCE, async || {
        open.extend(asks(&server, address, "").await);
        open.len() == 5
    });
    assert!(fifth.await, "the place that was left is there");
    for _ in 0..3 {
        assert!(asks(&server, address, "").await.is_err() && asks(&server, other, "").await.is_err(), "and no other");
    }
    assert_eq!(server.metric(OPEN).await, 10.0);
    drop((open, others));
    until_open(&server, 0).await;
    assert_eq!(gets(&server, other, 6).await.len(), 5);
}

#[tokio::test]
async fn some_networks_have_other_limits_and_0_is_none() {
    let networks = "[limits]\noverrides = [
        { cidr = '127.77.0.0/16', streams_per_client = 3 },
        { cidr = '127.77.7.0/24', streams_per_client = 0 },
        { cidr = '127.77.8.1', streams_per_client = 1 },
    ]";
    let server = Server::start(limits(&[("STREAMS_PER_CLIENT", "2")]).config(networks)).await;
    for (address, most) in [([127, 77, 7, 1], 40), ([127, 77, 8, 2], 3), ([127, 77, 8, 1], 1), ([127, 78, 0, 1], 2)] {
        let address = Ipv4Addr::from(address);
        assert_eq!(gets(&server, address, (most + 1).min(40)).await.len(), most, "{address}");
    }
}

#[tokio::test]
async fn what_is_in_shadow_is_counted_and_served() {
    let set = [
        ("STREAMS_PER_CLIENT", "1"),
        ("NEW_STREAMS_PER_MINUTE", "2"),
        ("POSTS_PER_SECOND", "1"),
        ("POST_BYTES_PER_SECOND", "1"),
        ("SHADOW", "streams_per_client,posts_per_second,post_bytes_per_second"),
    ];
    let server = Server::start(limits(&set)).await;
    let address = Raw::somebody_new();
    assert_eq!(gets(&server, address, 3).await.len(), 2, "the rate of new streams is enforced");
    let counted = async |limit| (reached(&server, limit, "shadow").await, reached(&server, limit, "enforced").await);
    assert_eq!(counted("streams_per_client").await, (2.0, 0.0));
    assert_eq!(counted("new_streams_per_minute").await, (0.0, 1.0));
    let seen = eventually(PATIENCE, async || {
        server.put(&event("shadow")).await;
        counted("posts_per_second").await.0 > 0.0
    });
    assert!(seen.await, "two posts in a second");
    assert_eq!((counted("posts_per_second").await.1, counted("post_bytes_per_second").await.1), (0.0, 0.0));
    assert!(counted("post_bytes_per_second").await.0 > 0.0);
}

#[tokio::test]
async fn when_all_streams_are_in_use_browsers_are_asked_for_patience_and_others_are_told() {
    let server = Server::start(limits(&[("STREAMS_TOTAL", "3")])).await;
    let address = Raw::somebody_new();
    let mut open = gets(&server, address, 3).await;
    let mut raw = Raw::as_somebody_new(server.address).await;
    raw.send(GET).await;
    let head = raw.head().await;
    let retry = soft(&mut raw, &head).await;
    assert!(RETRY_MS.contains(&retry), "{retry}");
    let guess = format!("{LINES}Sluice-Probe: {}\r\n", "0".repeat(64));
    for headers in [LINES, &guess] {
        let answer = asks(&server, Raw::somebody_new(), headers).await.err().expect("a refusal");
        assert_eq!((answer.status(), answer.json()["type"].as_str()), (503, Some("overloaded")), "{answer:?}");
        assert_eq!((&answer.json()["limit"], &answer.json()["in_use"]), (&json!(3), &json!(3)));
        let seconds: u64 = answer.header("retry-after").parse().expect("seconds");
        assert!(RETRY_MS.contains(&(seconds * 1_000)), "{seconds}");
    }
    let mut raw = Raw::as_somebody_new(server.address).await;
    raw.send(GET.replace("GET", "HEAD")).await;
    assert_eq!(raw.head().await.status(), 200);
    assert_eq!(reached(&server, "streams_total", "enforced").await, 3.0);
    open.pop();
    until_open(&server, 2).await;
    assert!(asks(&server, Raw::somebody_new(), LINES).await.is_ok());
}

#[tokio::test]
async fn who_opens_too_many_streams_in_a_minute_is_told_when_to_come_back() {
    let server = Server::start(limits(&[("NEW_STREAMS_PER_MINUTE", "3")])).await;
    let address = Raw::somebody_new();
    // These spend nothing.
    for _ in 0..5 {
        let mut raw = Raw::from(address, server.address).await;
        assert_eq!(raw.get("/v2/stream/nope", "").await.status(), 404);
        raw.send(GET.replace("GET", "HEAD")).await;
        assert_eq!(raw.head().await.status(), 200);
    }
    assert_eq!(gets(&server, address, 3).await.len(), 3);
    let answer = asks(&server, address, "").await.err().expect("a refusal");
    assert_eq!((answer.status(), &answer.json()["limit"]), (429, &json!(3)), "{answer:?}");
    assert_eq!(answer.json()["limit_name"], "new_streams_per_minute");
    let seconds: u64 = answer.header("retry-after").parse().expect("seconds");
    // A third of a minute, and a quarter more at most.
    assert!((1..=26).contains(&seconds), "{seconds}");
    assert!(asks(&server, Raw::somebody_new(), "").await.is_ok());
}

fn is_limited(answer: &Answer, limit: &str, most: u64) {
    assert_eq!((answer.status(), answer.header("content-type")), (429, "application/json"), "{answer:?}");
    let seconds: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((1..=15).contains(&seconds), "{seconds}");
    let body = answer.json();
    let (item, sentence) = (&body["error"][0], answer.header("sluice-message"));
    assert_eq!(
        (&body["invalid"], &item["code"], &item["event"]),
        (&json!([]), &json!("too-many-requests"), &Value::Null)
    );
    assert_eq!(item["context"], json!({ "message": sentence, "limit_name": limit, "limit": most }));
    assert_eq!(answer.head.reason(), sentence);
}

#[tokio::test]
async fn who_posts_too_often_is_refused_in_the_producers_form_and_so_is_a_test_event() {
    let options = limits(&[("POSTS_PER_SECOND", "1")]).env("SLUICE__INTAKE__DEADLINE", "2s");
    let server = Server::start(options).await;
    for target in ["/v1/events", "/v1/_test/events"] {
        let address = Raw::somebody_new();
        let mut raw = Raw::from(address, server.address).await;
        let mut answers = Vec::new();
        let refused = eventually(PATIENCE, async || {
            answers.push(match target {
                "/v1/events" => raw.post(&event("often").to_string()).await,
                _ => raw.get(target, "").await,
            });
            answers.last().is_some_and(|answer| answer.status() == 429)
        });
        assert!(refused.await, "{target}: {answers:?}");
        assert_eq!(answers[0].status(), 201, "{target}");
        is_limited(answers.last().expect("one"), "posts_per_second", 1);
        // Before its body is there: one that follows another is over the rate.
        let early = eventually(PATIENCE, async || {
            Raw::from(address, server.address).await.post(&event("first").to_string()).await;
            let mut early = Raw::from(address, server.address).await;
            early.send(format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{JSON}Content-Length: 900000\r\n\r\n")).await;
            early.answer().await.status() == 429
        });
        assert!(early.await, "{target}");
        assert_eq!(Raw::as_somebody_new(server.address).await.post(&event("x").to_string()).await.status(), 201);
    }
}

#[tokio::test]
async fn bytes_are_counted_as_they_are_declared_and_as_they_come_out() {
    // Ten seconds' worth may come at once.
    let server = Server::start(limits(&[("POST_BYTES_PER_SECOND", "1000")])).await;
    let padded = |bytes: usize| event(&"x".repeat(bytes)).to_string();
    let large = padded(9_000);
    let mut packed = GzipEncoder::new(Vec::new());
    packed.write_all(large.as_bytes()).await.expect("encodes");
    packed.shutdown().await.expect("encodes");
    let packed = packed.into_inner();
    assert!(packed.len() < 500);

    let address = Raw::somebody_new();
    let mut raw = Raw::from(address, server.address).await;
    assert_eq!(raw.post(&large).await.status(), 201);
    // Before its body is there.
    let mut early = Raw::from(address, server.address).await;
    early.send(format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{JSON}Content-Length: 9000\r\n\r\n")).await;
    is_limited(&early.answer().await, "post_bytes_per_second", 1000);
    let gzip = format!("{JSON}Content-Encoding: gzip\r\n");
    is_limited(&raw.post_as(&gzip, &packed).await, "post_bytes_per_second", 1000);
    let mut chunked = Raw::from(address, server.address).await;
    let head = format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n");
    chunked.send(format!("{head}{:x}\r\n{large}\r\n0\r\n\r\n", large.len())).await;
    is_limited(&chunked.answer().await, "post_bytes_per_second", 1000);
    // What was refused has not been appended; and a body that is larger than all of it costs no more than all.
    let huge = Raw::as_somebody_new(server.address).await.post(&padded(50_000)).await;
    assert_eq!(huge.status(), 201);
    assert_eq!(server.metric("sluice_events_accepted_total").await, 2.0);
}

#[tokio::test]
async fn more_bytes_in_flight_than_there_may_be_are_ours_and_not_the_clients() {
    // What waits for a log that is away is in flight.
    let away = Options::default().kafka(&free_address().to_string()).unready().env("SLUICE__INTAKE__DEADLINE", "3s");
    let server = Server::start(away.env("SLUICE__INTAKE__MAX_INFLIGHT_BYTES", "4096")).await;
    let body = event(&"x".repeat(2_000)).to_string();
    let answers = futures_util::future::join_all([&body; 3].map(async |body| server.post(body).await)).await;
    let codes: Vec<Value> = answers.iter().map(|answer| answer.json()["error"][0]["code"].clone()).collect();
    assert_eq!(codes.iter().filter(|code| **code == "overloaded").count(), 2, "{codes:?}");
    for answer in answers {
        assert_eq!((answer.status(), answer.header("retry-after")), (503, "1"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_stream_is_no_longer_one_of_its_clients_connections() {
    let server = Server::start(limits(&[("CONNECTIONS_PER_CLIENT", "3")])).await;
    let from = Ipv4Addr::new(127, 5, 0, 9);
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(Stream::open_on(Raw::from(from, server.address).await, PATH, "").await);
    }
    until_open(&server, 20).await;
    assert_eq!(reached(&server, "connections_per_client", "enforced").await, 0.0);
}
