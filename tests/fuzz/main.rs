//! Any bytes in, an answer out: what is almost right goes in as fast as it is taken.
//!
//! - this page: bodies of producers through intake
//! - `readers` ids, times and names through their parsers; whole requests for streams over real sockets
//!
//! Together they take `SLUICE_FUZZ_SECONDS` (default 10), and mutate real ones from `SLUICE_FUZZ_SEED` (default: the clock;
//! printed). Of every body it holds:
//!
//! - it is answered, with one outcome per event or a reason for the whole body; nothing panics
//! - what is appended is JSON, has all that was sent in it, in its order, and names the stream and schema it was judged by
//! - a dry run says the same as the real one

#![allow(unreachable_pub, reason = "in a test binary `pub` means: for the other modules")]

#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code, reason = "another test binary uses the rest")]
#[path = "../it/raw.rs"]
mod raw;
#[allow(dead_code, reason = "another test binary uses the rest")]
#[path = "../it/server.rs"]
mod server;

mod readers;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use regex::Regex;
use sluice::catalog::{Catalog, Live};
use sluice::fetch::Fetcher;
use sluice::intake::{Intake, Mode, Options, Outcome, Request};
use sluice::log::{AppendError, Appended, Block, Log, PartitionEnds, ReadError, Tail, TailBatch};
use sluice::model::{Document, NewRecord, Offset, Partition, Timestamp, Topic};
use sluice::schema::{self, Schemas};
use tokio::runtime::Handle;

const CAPTURED: &str = include_str!("../data/recentchange_2025-08-29_raw.sse");
const CATALOG: &str = r#"
mediawiki.recentchange: {schema_title: mediawiki/recentchange, topics: [a]}
test.event: {schema_title: test/event, topics: [b], message_key_fields: {test: test, stream: meta.stream}}
"#;
const SMALL: [&str; 4] = [
    r#"{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"},"test":"a"}"#,
    r#"{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event","id":"é","dt":"2020-01-01T00:00:00Z"},"test":"","test_map":{"k":"v"}}"#,
    r#"[{"$schema":"/test/event/latest","meta":{"stream":"test.event"},"test":"\ud83d\ude00"},{}]"#,
    r#"{"$schema":"/test/event/0.0.3","meta":{"stream":"test.event","dt":null},"n":[1e400,-0,12345678901234567890123]}"#,
];
/// What JSON and its readers trip over.
const TOKENS: [&[u8]; 24] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b",",
    b":",
    b"\\",
    b"null",
    b"1e400",
    b"-",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\\ud800",
    b"\\u0000",
    b"\0",
    b"\"meta\":",
    b"\"$schema\":",
    b"\"/test/event/1.0.0\"",
    b"\"../../etc/passwd\"",
    b"{}",
    b"[[[[",
    b"\"test\":7",
    b"\n",
];

/// The targets, each of which has an equal share of the time.
const TARGETS: u32 = 3;

/// A target's time, and what it is to do in it.
fn share() -> (Duration, fastrand::Rng) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let time = Duration::from_secs(number("SLUICE_FUZZ_SECONDS").unwrap_or(10)) / TARGETS;
    let seed = number("SLUICE_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("SLUICE_FUZZ_SEED={seed}");
    (time, fastrand::Rng::with_seed(seed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whatever_comes_in_is_answered_and_what_is_appended_is_what_was_sent() {
    let (time, mut random) = share();
    let (intake, log) = intake();
    let corpus: Vec<&str> = CAPTURED.lines().filter_map(|line| line.strip_prefix("data: ")).chain(SMALL).collect();
    let (mut answered, mut accepted) = (0_u64, 0_u64);
    let end = Instant::now() + time;
    while Instant::now() < end {
        let body = mutated(&mut random, &corpus);
        accepted += judged(&intake, &log, body).await;
        answered += 1;
    }
    println!("{answered} bodies, {accepted} events accepted");
    assert!(accepted > 0 && answered > accepted / 10, "the mutations are neither all too wild nor all harmless");
}

fn intake() -> (Intake, Arc<Kept>) {
    let log = Arc::<Kept>::default();
    let schemas = Schemas::new(&schema::Options::default(), Fetcher::new().expect("a fetcher"), Handle::current());
    let live = Live::fixed(Catalog::parse(CATALOG, "test").expect("a catalogue"));
    let schemas = Arc::new(schemas.expect("schemas"));
    (Intake::new(Options::default(), live, schemas, log.clone(), Handle::current()), log)
}

fn mutated(random: &mut fastrand::Rng, corpus: &[&str]) -> Vec<u8> {
    let mut body = corpus[random.usize(..corpus.len())].as_bytes().to_vec();
    for _ in 0..random.usize(..4) {
        let at = random.usize(..=body.len());
        match random.usize(..5) {
            0 => drop(body.splice(at..at, TOKENS[random.usize(..TOKENS.len())].iter().copied())),
            1 if at < body.len() => body[at] = random.u8(..),
            2 => drop(body.drain(at..(at + random.usize(..20)).min(body.len()))),
            3 => {
                let other = corpus[random.usize(..corpus.len())].as_bytes();
                let from = random.usize(..other.len());
                let to = (from + random.usize(..60)).min(other.len());
                drop(body.splice(at..at, other[from..to].iter().copied()));
            }
            _ => body.truncate(at.max(1)),
        }
    }
    body
}

/// Events that were accepted.
async fn judged(intake: &Intake, log: &Kept, body: Vec<u8>) -> u64 {
    let shown = String::from_utf8_lossy(&body).into_owned();
    let request = Request::of_ours(body.into());
    let dry = intake.accept(Request { mode: Mode::DryRun, ..request.clone() }).await;
    assert!(log.0.lock().is_empty(), "a dry run appends nothing: {shown}");
    let real = intake.accept(request).await;
    let records = std::mem::take(&mut *log.0.lock());
    let (Ok(dry), Ok(real)) = (&dry, &real) else {
        assert_eq!(dry.err(), real.err(), "{shown}");
        return 0;
    };
    let codes = |outcomes: &[Outcome]| outcomes.iter().map(code).collect::<Vec<_>>();
    assert_eq!(codes(dry), codes(real), "{shown}");
    let accepted = real.iter().filter(|outcome| **outcome == Outcome::Accepted).count();
    assert_eq!(accepted, records.len(), "{shown}");
    for record in &records {
        let value = record.value.clone().expect("a value");
        let text = std::str::from_utf8(&value).expect("UTF-8");
        let document = Document::parse(value.clone()).expect("JSON");
        let event = document.value();
        assert!(event["meta"]["stream"].is_string() && event["$schema"].is_string(), "{text}");
        assert!(event["meta"]["id"].is_string() && event["meta"]["dt"].is_string(), "{text}");
        assert!(is_what_was_sent(text, &shown), "{text} of {shown}");
    }
    accepted as u64
}

fn code(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted => "accepted",
        Outcome::Spooled => "spooled",
        Outcome::Refused(refusal) => refusal.code.as_str(),
    }
}

/// Whether the text is what was sent but for what was filled in: an id, a time, a default.
fn is_what_was_sent(text: &str, sent: &str) -> bool {
    const FILLED: [&str; 3] =
        [r#",?"id":"[0-9a-f-]{36}""#, r#",?"dt":"[0-9T:.-]{23}Z""#, r#",?"test":"default value""#];
    // The event may have brought any of them itself: then taking it out is wrong, and leaving it in is right.
    (0..1 << FILLED.len()).any(|chosen| {
        let mut left = text.to_owned();
        for (_, filled) in FILLED.iter().enumerate().filter(|(at, _)| chosen & (1 << at) != 0) {
            let last = Regex::new(filled).expect("a pattern").find_iter(&left).last().map(|found| found.range());
            last.into_iter().for_each(|range| left.replace_range(range, ""));
        }
        sent.contains(&left)
    })
}

/// Keeps what is appended.
#[derive(Default)]
struct Kept(Mutex<Vec<NewRecord>>);

#[async_trait]
impl Log for Kept {
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Appended, AppendError>> {
        let mut kept = self.0.lock();
        let answers = records.iter().enumerate().map(|(at, record)| {
            let offset = Offset(i64::try_from(at).unwrap_or_default());
            Ok(Appended { partition: Partition::new(&record.topic, 0), offset })
        });
        let answers = answers.collect();
        kept.extend(records);
        answers
    }

    async fn read(&self, _: &Partition, range: Range<Offset>, _: usize) -> Result<Block, ReadError> {
        Ok(Block { records: Vec::new(), next: range.start })
    }

    async fn ends(&self, _: &[Topic]) -> Result<Vec<PartitionEnds>, ReadError> {
        Ok(Vec::new())
    }

    async fn at_time(&self, wanted: &[(Partition, Timestamp)]) -> Result<Vec<Offset>, ReadError> {
        Ok(vec![Offset(0); wanted.len()])
    }

    async fn before(&self, _: &Partition, _: Offset) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        Ok(None)
    }

    async fn tail(&self, _: Vec<Topic>, _: u64) -> Box<dyn Tail> {
        Box::new(Never)
    }

    async fn check(&self) -> Result<(), ReadError> {
        Ok(())
    }

    async fn close(&self) {}

    fn describe(&self) -> String {
        "kept".into()
    }
}

struct Never;

#[async_trait]
impl Tail for Never {
    async fn next(&mut self) -> TailBatch {
        std::future::pending().await
    }

    fn follow(&mut self, _: Vec<Topic>) {}
}
