//! Producers that keep a little ahead of a reader, and what each of their events was told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ledger::Records;
use crate::raw::{Answer, Raw};

/// Within which every POST is answered where no server is told otherwise, and what a busy machine may add.
const DEADLINE: Duration = Duration::from_secs(9);
const GRACE: Duration = Duration::from_secs(2);
/// Events of one POST.
const BATCH_MAX: u32 = 8;
const PADDING_BYTES_MAX: usize = 2_000;
/// Producers' clocks differ: the times of records in a partition go back and forth.
const CLOCKS_DIFFER_MS: i64 = 5_000;

/// What a producer was told of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Accepted,
    NotWritten,
    Unknown,
}

/// Shared by the producers of a test. A producer spends one credit for each event; the reader gives them back.
pub struct Load {
    streams: Vec<String>,
    next_number: AtomicU64,
    pub credit: Arc<Semaphore>,
    fates: Mutex<BTreeMap<u64, Fate>>,
    deadline: Duration,
}

impl Load {
    /// Producers are never further ahead of the reader than this.
    pub fn new(streams: &[String], ahead_max: usize) -> Arc<Self> {
        Self::with_deadline(streams, ahead_max, DEADLINE)
    }

    /// For servers whose `intake.deadline` is this.
    pub fn with_deadline(streams: &[String], ahead_max: usize, deadline: Duration) -> Arc<Self> {
        Arc::new(Self {
            deadline,
            streams: streams.to_vec(),
            next_number: AtomicU64::new(0),
            credit: Arc::new(Semaphore::new(ahead_max)),
            fates: Mutex::default(),
        })
    }

    /// Runs this many producers at each server until [`Load::stop`].
    pub fn start(self: &Arc<Self>, servers: &[SocketAddr], at_each: usize) -> JoinSet<()> {
        let mut producers = JoinSet::new();
        for server in servers.iter().flat_map(|server| std::iter::repeat_n(*server, at_each)) {
            let load = self.clone();
            producers.spawn(async move { load.produce(server).await });
        }
        producers
    }

    /// Tells the producers to end, and waits until their last POSTs are answered.
    pub async fn stop(&self, mut producers: JoinSet<()>) {
        self.credit.close();
        while let Some(ended) = producers.join_next().await {
            ended.unwrap_or_else(|fault| std::panic::resume_unwind(fault.into_panic()));
        }
    }

    async fn produce(&self, server: SocketAddr) {
        loop {
            let count = fastrand::u32(1..=BATCH_MAX);
            let Ok(permits) = self.credit.acquire_many(count).await else { return };
            permits.forget();
            let fates = self.post(server, count.into()).await;
            // What was refused comes to no reader that could give the credit back.
            self.credit.add_permits(fates.iter().filter(|(_, fate)| *fate != Fate::Accepted).count());
        }
    }

    /// POSTs new events and checks the answer: in time, in the promised shape, every event told its fate.
    pub async fn post(&self, server: SocketAddr, count: u64) -> Vec<(u64, Fate)> {
        self.post_padded(server, count, fastrand::usize(..PADDING_BYTES_MAX)).await
    }

    /// The same with events of about this many bytes.
    pub async fn post_padded(&self, server: SocketAddr, count: u64, padding_bytes: usize) -> Vec<(u64, Fate)> {
        let (numbers, body) = self.batch(count, padding_bytes);
        let asked = Instant::now();
        let answer = Raw::connect(server).await.post(&body).await;
        let took = asked.elapsed();
        assert!(took < self.deadline + GRACE, "a POST was answered after {took:?}: {answer:?}");
        let fates = fates_in(&answer, &numbers);
        let refused = fates.values().filter(|fate| **fate != Fate::Accepted).count();
        let status = match refused {
            0 => 201,
            all if all == numbers.len() => 503,
            _ => 207,
        };
        assert_eq!(answer.status(), status, "{refused} of {count} events were refused: {answer:?}");
        if status == 503 {
            assert_ne!(answer.header("retry-after"), "", "a 503 says when to come back: {answer:?}");
        }
        self.fates.lock().await.extend(&fates);
        fates.into_iter().collect()
    }

    /// The body of a POST, and the numbers in it.
    pub fn batch(&self, count: u64, padding_bytes: usize) -> (Vec<u64>, String) {
        let first = self.next_number.fetch_add(count, Ordering::Relaxed);
        let numbers: Vec<u64> = (first..first + count).collect();
        let body = Value::from(numbers.iter().map(|number| self.event(*number, padding_bytes)).collect::<Vec<_>>());
        (numbers, body.to_string())
    }

    /// What was told of each event is so.
    pub async fn check_promises(&self, log: &Records) {
        let numbers: BTreeSet<u64> = log.values().copied().collect();
        assert_eq!(numbers.len(), log.len(), "no event is in the log twice");
        let accepted = self.told(Fate::Accepted).await;
        let lost: Vec<_> = accepted.iter().filter(|number| !numbers.contains(number)).collect();
        assert!(lost.is_empty(), "answered 201 and not in the log: {lost:?}");
        let not_written = self.told(Fate::NotWritten).await;
        let written: Vec<_> = not_written.iter().filter(|number| numbers.contains(number)).collect();
        assert!(written.is_empty(), "answered not-written and in the log: {written:?}");
        let unknown = self.told(Fate::Unknown).await;
        println!("accepted {}, not written {}, unknown {}", accepted.len(), not_written.len(), unknown.len());
    }

    /// The numbers of the events that were told this.
    pub async fn told(&self, fate: Fate) -> Vec<u64> {
        self.fates.lock().await.iter().filter(|(_, told)| **told == fate).map(|(number, _)| *number).collect()
    }

    fn event(&self, number: u64, padding_bytes: usize) -> Value {
        let stream = fastrand::choice(&self.streams).expect("a stream");
        let ago = jiff::SignedDuration::from_millis(fastrand::i64(0..CLOCKS_DIFFER_MS));
        json!({
            "$schema": "/test/event/1.0.0",
            "meta": {"stream": stream, "id": format!("e{number}"), "dt": (jiff::Timestamp::now() - ago).to_string()},
            "number": number,
            "padding": "x".repeat(padding_bytes),
        })
    }
}

/// What an answer says of each event.
fn fates_in(answer: &Answer, numbers: &[u64]) -> BTreeMap<u64, Fate> {
    let all = |fate| numbers.iter().map(move |number| (*number, fate));
    let mut fates: BTreeMap<u64, Fate> = all(Fate::Accepted).collect();
    if answer.status() == 201 {
        return fates;
    }
    let answer = answer.json();
    if is_overloaded(&answer) {
        return all(Fate::NotWritten).collect();
    }
    for refused in answer["error"].as_array().expect("a list of what was refused") {
        let number = refused["event"]["number"].as_u64().expect("the event as it was sent");
        fates.insert(number, fate_of(refused));
    }
    fates
}

/// Whether the body was refused as a whole, because too much waits for the log.
pub fn is_overloaded(answer: &Value) -> bool {
    answer["error"][0]["code"] == "overloaded"
}

fn fate_of(refused: &Value) -> Fate {
    match refused["code"].as_str() {
        Some("not-written") => Fate::NotWritten,
        Some("unknown") => Fate::Unknown,
        _ => panic!("an event was refused for its own sake: {refused}"),
    }
}
