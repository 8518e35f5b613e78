//! Producers that keep a little ahead of a reader, and what each of their events was told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::raw::Raw;

/// Within which every POST is answered, and what a busy machine may add.
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
}

impl Load {
    /// Producers are never further ahead of the reader than this.
    pub fn new(streams: &[String], ahead_max: usize) -> Arc<Self> {
        Arc::new(Self {
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
        let first = self.next_number.fetch_add(count, Ordering::Relaxed);
        let numbers: Vec<u64> = (first..first + count).collect();
        let body = Value::from(numbers.iter().map(|number| self.event(*number)).collect::<Vec<_>>());
        let asked = Instant::now();
        let answer = Raw::connect(server).await.post(&body.to_string()).await;
        let took = asked.elapsed();
        assert!(took < DEADLINE + GRACE, "a POST was answered after {took:?}: {answer:?}");
        let mut fates: BTreeMap<u64, Fate> = numbers.iter().map(|number| (*number, Fate::Accepted)).collect();
        if answer.status() != 201 {
            for refused in answer.json()["error"].as_array().expect("a list of what was refused") {
                let number = refused["event"]["number"].as_u64().expect("the event as it was sent");
                fates.insert(number, fate_of(refused));
            }
        }
        let refused = fates.values().filter(|fate| **fate != Fate::Accepted).count();
        let status = match refused {
            0 => 201,
            all if all == numbers.len() => 503,
            _ => 207,
        };
        assert_eq!(answer.status(), status, "{refused} of {count} events were refused: {answer:?}");
        self.fates.lock().await.extend(&fates);
        fates.into_iter().collect()
    }

    /// The numbers of the events that were told this.
    pub async fn told(&self, fate: Fate) -> Vec<u64> {
        self.fates.lock().await.iter().filter(|(_, told)| **told == fate).map(|(number, _)| *number).collect()
    }

    fn event(&self, number: u64) -> Value {
        let stream = fastrand::choice(&self.streams).expect("a stream");
        let ago = jiff::SignedDuration::from_millis(fastrand::i64(0..CLOCKS_DIFFER_MS));
        json!({
            "$schema": "/test/event/1.0.0",
            "meta": {"stream": stream, "id": format!("e{number}"), "dt": (jiff::Timestamp::now() - ago).to_string()},
            "number": number,
            "padding": "x".repeat(fastrand::usize(..PADDING_BYTES_MAX)),
        })
    }
}

fn fate_of(refused: &Value) -> Fate {
    match refused["code"].as_str() {
        Some("not-written") => Fate::NotWritten,
        Some("unknown") => Fate::Unknown,
        _ => panic!("an event was refused for its own sake: {refused}"),
    }
}
