//! Refusals that wait: for whom, how long, how many, and what they cost.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::raw::{Head, Raw, Stream};
use crate::server::{Options, Server};
use crate::support::{PATIENCE, eventually};

const HELD: &str = "sluice_refusals_held";
const REFUSED: &str = "sluice_refusals_total";
/// What everybody may have refused at once.
const BURST: usize = 10;
const CONNECTIONS: usize = 64;
/// Less than any refusal is held, and more than an answer takes.
const HOLD_LEAST: Duration = Duration::from_secs(4);
/// What a soft refusal asks for.
pub const RETRY_MS: RangeInclusive<u64> = 15_000..=60_000;

const GET: &str = "GET /v2/stream/nope HTTP/1.1\r\nHost: x\r\n\r\n";

/// A client that has had all the refusals that are free.
struct Offender {
    address: Ipv4Addr,
    server: SocketAddr,
}

impl Offender {
    async fn new(server: &Server, address: [u8; 4]) -> Self {
        let offender = Self { address: address.into(), server: server.address };
        let mut raw = offender.connect().await;
        for _ in 0..BURST {
            let answer = raw.get("/v2/stream/nope", "").await;
            assert_eq!((answer.status(), answer.header("connection")), (404, ""), "{answer:?}");
        }
        offender
    }

    async fn connect(&self) -> Raw {
        Raw::from(self.address, self.server).await
    }

    /// A request that is not answered yet.
    async fn asks(&self, request: &str) -> Raw {
        let mut raw = self.connect().await;
        raw.send(request).await;
        raw
    }
}

async fn until_held(server: &Server, held: usize) {
    let holds = eventually(PATIENCE, async || server.metric(HELD).await == held as f64).await;
    assert!(holds, "{} are held, and not {held}", server.metric(HELD).await);
}

#[tokio::test]
async fn who_keeps_being_refused_waits_for_it_and_nobody_else_does() {
    let server = Server::start(Options::default()).await;
    let offender = Offender::new(&server, [127, 2, 0, 1]).await;
    let asked = Instant::now();
    let mut held = offender.asks(GET).await;
    until_held(&server, 1).await;
    // Others go on meanwhile, and so do its streams.
    assert_eq!(Raw::from([127, 2, 0, 2].into(), server.address).await.get("/v2/stream/nope", "").await.status(), 404);
    Stream::open_on(offender.connect().await, "/v2/stream/test.event", "").await;
    assert_eq!(server.metric(HELD).await, 1.0);
    let answer = held.answer().await;
    assert!(asked.elapsed() >= HOLD_LEAST, "{:?}", asked.elapsed());
    assert_eq!((answer.status(), answer.header("connection")), (404, "close"));
    assert_eq!((answer.header("cache-control"), answer.header("access-control-allow-origin")), ("no-store", "*"));
    assert_eq!(answer.json()["type"], "not_found");
    assert_eq!(held.rest().await, b"");
    drop(held);
    until_held(&server, 0).await;
    assert_eq!(server.metric(REFUSED).await, BURST as f64 + 2.0);
}

#[tokio::test]
async fn who_waits_for_refusals_with_all_its_connections_gets_no_more_of_them_and_others_do() {
    let limit = CONNECTIONS.to_string();
    let server = Server::start(Options::default().env("SLUICE__LIMITS__CONNECTIONS_PER_CLIENT", &limit)).await;
    let offender = Offender::new(&server, [127, 2, 0, 1]).await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(offender.asks(GET).await);
    }
    // Also where the wait is over soon: it is counted until the client has closed its side.
    until_held(&server, CONNECTIONS).await;
    assert!(offender.connect().await.is_closed().await, "one more is closed at once");
    assert_eq!(server.get("/v2/stream/nope").await.status(), 404);
    drop(held);
    until_held(&server, 0).await;
}

#[tokio::test]
async fn answers_keep_their_order_and_nothing_behind_a_held_one_is_answered() {
    let server = Server::start(Options::default()).await;
    let offender = Offender::new(&server, [127, 2, 0, 1]).await;
    let info = "GET /_info/name HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut raw = offender.asks(&format!("{info}{GET}{info}")).await;
    assert_eq!(raw.answer().await.status(), 200);
    assert_eq!(raw.answer().await.status(), 404);
    assert_eq!(raw.rest().await, b"");
}

#[tokio::test]
async fn a_body_behind_a_held_request_does_not_cost_its_answer() {
    let server = Server::start(Options::default()).await;
    let offender = Offender::new(&server, [127, 2, 0, 1]).await;
    let body = "x".repeat(20_000);
    let request = format!("GET /v2/stream/nope HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n{body}");
    let mut raw = offender.asks(&request).await;
    assert_eq!(raw.answer().await.status(), 404);
    assert_eq!(raw.rest().await, b"");
}

#[tokio::test]
async fn http_1_0_waits_too() {
    let server = Server::start(Options::default()).await;
    let offender = Offender::new(&server, [127, 2, 0, 1]).await;
    let mut raw = offender.asks("GET /v2/stream/nope HTTP/1.0\r\n\r\n").await;
    until_held(&server, 1).await;
    let answer = raw.answer().await;
    assert_eq!((answer.status(), answer.json()["status"].as_u64()), (404, Some(404)));
    assert_eq!(raw.rest().await, b"");
}

#[tokio::test]
async fn what_is_held_is_out_before_a_stop_ends_the_process() {
    let mut server = Server::start(Options::default()).await;
    let offender = Offender::new(&server, [127, 2, 0, 1]).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(offender.asks(GET).await);
    }
    until_held(&server, 20).await;
    server.signal(Signal::TERM);
    for raw in &mut held {
        assert_eq!(raw.answer().await.status(), 404);
        assert_eq!(raw.rest().await, b"");
    }
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_who_has_its_refusal_and_keeps_its_side_open() {
    /// For so long it is waited for at other times.
    const LINGER: Duration = Duration::from_secs(2);
    let mut server = Server::start(Options::default()).await;
    let offender = Offender::new(&server, [127, 2, 0, 1]).await;
    let mut held = offender.asks(GET).await;
    until_held(&server, 1).await;
    server.signal(Signal::TERM);
    assert_eq!(held.answer().await.status(), 404);
    let answered = Instant::now();
    assert!(server.ended().await.success());
    assert!(answered.elapsed() < LINGER, "{:?}", answered.elapsed());
}

#[tokio::test]
async fn a_held_refusal_costs_no_buffer_of_the_server() {
    /// An actix connection with a handler that waits would cost 8 to 11, and a thread more.
    const KB_EACH_MAX: usize = 7;
    const CLIENTS: u8 = 10;
    let server = Server::start(Options::default()).await;
    let mut offenders = Vec::new();
    for number in 1..=CLIENTS {
        offenders.push(Offender::new(&server, [127, 2, 1, number]).await);
    }
    let before = server.resident_kb();
    let mut held = Vec::new();
    for offender in &offenders {
        for _ in 0..CONNECTIONS {
            held.push(offender.asks(GET).await);
        }
    }
    until_held(&server, held.len()).await;
    let each = server.resident_kb().saturating_sub(before) as f64 / held.len() as f64;
    println!("{each:.1} KiB for each of {} held refusals", held.len());
    assert!(each < KB_EACH_MAX as f64, "{each} KiB");
}

/// A refusal that looks like a stream; its head has been read.
pub async fn soft(raw: &mut Raw, head: &Head) -> u64 {
    assert_eq!((head.status(), head.header("content-type")), (200, Some("text/event-stream")), "{head:?}");
    assert_eq!(raw.chunk().await, b":ok\n\n");
    let farewell = String::from_utf8(raw.chunk().await).expect("UTF-8");
    let retry = farewell.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix('\n')).expect("a bare line");
    assert_eq!(raw.chunk().await, b"", "a clean end");
    assert_eq!(raw.rest().await, b"");
    retry.parse().expect("a number")
}

#[tokio::test]
async fn who_asks_for_a_stream_while_the_server_stops_is_asked_for_patience() {
    const READERS: usize = 120;
    let mut server = Server::start(Options::default().env("SLUICE__STOP__DRAIN_SPREAD", "3s")).await;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(server.stream("/v2/stream/test.event", "").await);
    }
    let mut asking = Vec::new();
    for _ in 0..3 {
        let mut raw = server.connect().await;
        assert_eq!(raw.get("/healthz", "").await.status(), 200);
        asking.push(raw);
    }
    let [browser, lines, old] = &mut asking[..] else { panic!("three") };
    // Idle connections close before streams end: these have begun to ask.
    browser.send("GET /v2/stream/test.event HTTP/1.1\r\n").await;
    lines.send("GET /v2/stream/test.event HTTP/1.1\r\n").await;
    old.send("GET /v2/stream/test.event HTTP/1.0\r\n").await;
    server.signal(Signal::TERM);
    // The first readers end, the others are still there.
    readers[0].raw.rest().await;
    browser.send("Host: x\r\n\r\n").await;
    lines.send("Host: x\r\nAccept: application/json\r\n\r\n").await;
    old.send("\r\n").await;
    let head = browser.head().await;
    let retry = soft(browser, &head).await;
    assert!(RETRY_MS.contains(&retry), "{retry}");
    let answer = lines.answer().await;
    assert_eq!((answer.status(), answer.json()["type"].as_str()), (503, Some("stopping")), "{answer:?}");
    let seconds: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!(RETRY_MS.contains(&(seconds * 1_000)), "{seconds}");
    let head = old.head().await;
    assert_eq!((head.status(), head.header("transfer-encoding")), (200, None));
    let body = String::from_utf8(old.rest().await).expect("UTF-8");
    assert!(body.starts_with(":ok\n\nretry: ") && body.ends_with('\n'), "{body}");
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn who_asks_for_one_stream_set_too_many_is_told_how_many_there_are() {
    const SETS_MAX: usize = 1024;
    // This process has a socket for each of them.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).expect("a limit");
    let names: Vec<String> = (0..11).map(|number| format!("s{number}")).collect();
    let catalog: String = names.iter().map(|name| format!("{name}: {{schema_title: test/event}}\n")).collect();
    let server = Server::start(Options::default().streams(&catalog)).await;
    // Every number is another set: its bits say who is in it.
    let set = |number: usize| {
        let named = names.iter().enumerate().filter(|(bit, _)| number & (1 << bit) != 0).map(|(_, name)| name.as_str());
        format!("/v2/stream/{}", named.collect::<Vec<_>>().join(","))
    };
    // A stream alone has its ring from the start, and does not count.
    let mut sets = (1..1_usize << names.len()).filter(|number| number.count_ones() > 1).map(set);
    let mut readers = Vec::new();
    for target in sets.by_ref().take(SETS_MAX) {
        readers.push(server.stream(&target, "").await);
    }
    let one_more = sets.next().expect("one more");
    for accept in ["", "Accept: application/x-ndjson\r\n"] {
        let answer = server.connect().await.get(&one_more, accept).await;
        assert_eq!(answer.status(), 429, "{answer:?}");
        let problem = answer.json();
        assert_eq!((&problem["type"], &problem["limit_name"]), (&"too_many_requests".into(), &"stream_sets".into()));
        assert_eq!((&problem["limit"], &problem["in_use"]), (&SETS_MAX.into(), &SETS_MAX.into()));
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains("a set that others read")), "{problem}");
        let seconds: u64 = answer.header("retry-after").parse().expect("seconds");
        assert!(RETRY_MS.contains(&(seconds * 1_000)), "{seconds}");
    }
    // A set that is read already, and a stream alone, are no more of them.
    for target in [set(3), set(1)] {
        readers.push(server.stream(&target, "").await);
    }
    assert_eq!(server.metric("sluice_streams_open").await, (SETS_MAX + 2) as f64);
}
