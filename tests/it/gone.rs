//! Readers that stand still, and peers that vanish without a word: what they had is given back within the stated time.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{SockFilter, SockRef};

use crate::engine::event_at;
use crate::raw::{Raw, Stream};
use crate::server::{Options, Server};
use crate::support::{PATIENCE, eventually};

const STREAMS: &str = "eqiad: {schema_title: test/event, topics: [eqiad.it]}\n";
const TARGET: &str = "/v2/stream/eqiad";
const RECEIVE_BUFFER_BYTES: u32 = 4_096;
const EVENTS: i64 = 1_000;
const PADDING_BYTES: usize = 2_000;
const OPEN: &str = "sluice_streams_open";
/// What a busy machine may add to a time that is stated in seconds.
const GRACE: Duration = Duration::from_secs(5);

async fn serve(slow_after: &str, dead_after: &str) -> Server {
    let options = Options::default()
        .streams(STREAMS)
        .env("SLUICE__HUB__HEARTBEAT", "1s")
        .env("SLUICE__LIMITS__SLOW_AFTER", slow_after)
        .env("SLUICE__LIMITS__DEAD_AFTER", dead_after);
    Server::start(options).await
}

/// From now on nothing reaches this end of the connection: it acknowledges nothing, and says nothing.
fn vanish(stream: &Stream) {
    /// `BPF_RET | BPF_K` of classic BPF: of every packet so many bytes are kept.
    const RETURN: u16 = 0x06;
    SockRef::from(&stream.raw.io).attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)]).expect("a filter");
}

async fn until_open(server: &Server, open: f64) -> Duration {
    let start = Instant::now();
    let reached = eventually(PATIENCE, async || server.metric(OPEN).await == open).await;
    assert!(reached, "{} streams are open", server.metric(OPEN).await);
    start.elapsed()
}

async fn closed_by(server: &Server, reason: &str) -> bool {
    let metrics = Raw::connect(server.admin).await.get("/metrics", "").await;
    metrics.text().contains(&format!("sluice_streams_closed_total{{reason=\"{reason}\"}} 1"))
}

async fn post_many(server: &Server) {
    let events: Vec<Value> = (0..EVENTS).map(padded).collect();
    for batch in events.chunks(100) {
        assert_eq!(server.post(&json!(batch).to_string()).await.status(), 201);
    }
}

fn padded(number: i64) -> Value {
    let mut event = event_at("eqiad", usize::try_from(number).expect("a number"), number);
    event["padding"] = "x".repeat(PADDING_BYTES).into();
    event
}

#[tokio::test]
async fn a_quiet_stream_whose_peer_vanishes_is_over_a_heartbeat_after_dead_after() {
    let server = serve("1s", "2s").await;
    let vanished = server.stream(TARGET, "").await;
    let _stays = server.stream(TARGET, "").await;
    vanish(&vanished);
    let waited = until_open(&server, 1.0).await;
    assert!(waited < Duration::from_secs(2 + 1) + GRACE, "{waited:?}");
    assert!(closed_by(&server, "failed").await);
}

#[tokio::test]
async fn a_busy_stream_whose_peer_vanishes_is_over_after_slow_after() {
    let server = serve("2s", "180s").await;
    let vanished = server.stream(TARGET, "").await;
    vanish(&vanished);
    post_many(&server).await;
    let waited = until_open(&server, 0.0).await;
    assert!(waited < Duration::from_secs(2 + 2) + GRACE, "{waited:?}");
    assert!(closed_by(&server, "slow").await);
}

#[tokio::test]
async fn a_reader_that_stands_still_ends_well_and_resumes_complete_and_one_that_is_merely_slow_stays() {
    let server = serve("2s", "180s").await;
    let with_small_buffer = || Raw::with_receive_buffer(server.address, Some(RECEIVE_BUFFER_BYTES));
    let mut still = Stream::open_on(with_small_buffer().await, TARGET, "").await;
    let mut slow = Stream::open_on(with_small_buffer().await, TARGET, "").await;
    post_many(&server).await;
    let mut read = Vec::new();
    let ended = eventually(PATIENCE, async || {
        read.push(slow.event().await);
        server.metric(OPEN).await == 1.0
    });
    assert!(ended.await, "the one that stands still stays");
    assert!(closed_by(&server, "slow").await);
    // For longer than the other was given.
    let end = Instant::now() + Duration::from_secs(5);
    let stays = eventually(PATIENCE, async || {
        read.push(slow.event().await);
        Instant::now() >= end
    });
    assert!(stays.await);
    let in_all = usize::try_from(EVENTS).expect("a number");
    assert!(read.len() < in_all, "it was behind all the time");
    while read.len() < in_all {
        read.push(slow.event().await);
    }
    let numbers = |events: &[crate::raw::Event]| -> Vec<i64> {
        events.iter().map(|event| event.json()["number"].as_i64().expect("a number")).collect()
    };
    assert_eq!(numbers(&read), (0..EVENTS).collect::<Vec<_>>());

    let mut had = Vec::new();
    let farewell = loop {
        let text = String::from_utf8(still.raw.chunk().await).expect("UTF-8");
        match text.starts_with("event: ") {
            true => had.push(crate::raw::Event::parse(&text)),
            false => break text,
        }
    };
    assert!(farewell.starts_with("retry: "), "{farewell}");
    assert!(still.raw.chunk().await.is_empty(), "the end of the body");
    assert!(!had.is_empty() && had.len() < in_all, "{}", had.len());
    let last = had.last().expect("an event").id.clone();
    let mut again = server.stream(TARGET, &format!("Last-Event-ID: {last}\r\n")).await;
    while had.len() < in_all {
        had.push(again.event().await);
    }
    assert_eq!(numbers(&had), (0..EVENTS).collect::<Vec<_>>());
}
