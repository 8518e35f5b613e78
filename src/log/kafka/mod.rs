//! The log in Kafka, through librdkafka.
//!
//! - this page: [`KafkaLog`], the engine
//! - `options` the section of the configuration; `clients` what it makes of librdkafka's clients; `context` what those say
//! - `producer` appends: `outbox` when what goes, `batch` one call's answers, `lane` a producer and its thread
//! - `unknown` topics that the cluster denies; `own` makes sluice's own
//! - `reads` questions from many, answered by a few; `reader` one of these; `survey` how every partition is
//! - `tail` the following read: `places` where it stands, `scout` what it has to ask, `still` where nothing moves,
//!   `doubt` whether a topic is still the one that it was; `failing` how soon what has failed is made anew
//!
//! Every client finds its brokers again by itself when these come back, at the same name or known from the cluster. Where
//! nobody tells it where they are now, an operator does: [`Log::reconnect`] makes all clients anew, and nothing is lost.
//!
//! Blocking calls of librdkafka stay on threads of our own or on the engine runtime's blocking threads.

mod batch;
mod clients;
mod context;
mod doubt;
mod failing;
mod lane;
mod options;
mod outbox;
mod own;
mod places;
mod producer;
mod reader;
mod reads;
mod scout;
mod still;
mod survey;
mod tail;
mod unknown;

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::runtime::Handle;

pub use options::{Options, PropertyFault};

use self::clients::Clients;
use self::producer::Producer;
use self::reads::Reads;
use self::tail::{KafkaTail, Running};
use super::{AppendError, Appended, Block, Log, MakeError, PartitionEnds, ReadError, Surveyed, Tail};
use crate::model::{NewRecord, Offset, Partition, Timestamp, Topic};

/// A topic that a cluster has, or may have, without our doing: asked for to see whether anybody answers.
const PROBE_TOPIC: &str = "__consumer_offsets";
/// How long a close waits for the threads of tails.
const TAILS_END_WITHIN: Duration = Duration::from_secs(5);

/// The Kafka engine.
pub struct KafkaLog {
    clients: Clients,
    producer: Producer,
    reads: Reads,
    tails: Mutex<Tails>,
    engine: Handle,
}

#[derive(Default)]
struct Tails {
    running: Vec<Running>,
    closed: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Fault(#[from] PropertyFault),
    #[error("log.kafka.properties.{key}: {why}")]
    Property { key: String, why: String },
    #[error("no Kafka client can be made: {0}")]
    Client(String),
}

impl KafkaLog {
    /// Opens the log at these brokers. That none of them answers is no error: they are waited for.
    ///
    /// `event_bytes_max` is the largest value ever appended; `deadline` that of a request to append, within which
    /// every append is answered; blocking work and timers run on `engine`.
    pub fn open(
        options: Options,
        default_group_id: &str,
        event_bytes_max: usize,
        deadline: Duration,
        engine: Handle,
    ) -> Result<Self, OpenError> {
        if let Some(fault) = options.contradictions(deadline).into_iter().next() {
            return Err(fault.into());
        }
        let clients = Clients::new(options, default_group_id, event_bytes_max, deadline);
        let producer = Producer::start(&clients, engine.clone())?;
        let reads = Reads::start(&clients, engine.clone())?;
        Ok(Self { clients, producer, reads, tails: Mutex::default(), engine })
    }

    fn keep(&self, running: Running) {
        let mut tails = self.tails.lock();
        tails.running.retain(|one| !one.threads.iter().all(std::thread::JoinHandle::is_finished));
        if tails.closed {
            running.state.stop();
        }
        tails.running.push(running);
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Appended, AppendError>> {
        self.producer.append(records).await
    }

    async fn read(&self, partition: &Partition, range: Range<Offset>, bytes_max: usize) -> Result<Block, ReadError> {
        self.reads.read(partition, range, bytes_max).await
    }

    async fn ends(&self, topics: &[Topic]) -> Result<Vec<PartitionEnds>, ReadError> {
        self.reads.ends(topics).await
    }

    async fn at_time(&self, wanted: &[(Partition, Timestamp)]) -> Result<Vec<Offset>, ReadError> {
        self.reads.at_time(wanted).await
    }

    async fn before(&self, partition: &Partition, at: Offset) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        self.reads.before(partition, at).await
    }

    async fn tail(&self, topics: Vec<Topic>, warm: u64) -> Box<dyn Tail> {
        let (clients, engine) = (self.clients.clone(), self.engine.clone());
        let started = self.engine.spawn_blocking(move || KafkaTail::start(&clients, topics, warm, engine)).await;
        // The configuration has made clients before: what is left is a machine that gives no more threads.
        let (tail, running) = started.expect("a tail starts").expect("a tail's clients can be made");
        self.keep(running);
        Box::new(tail)
    }

    async fn survey(&self, topics: &[Topic]) -> Result<Vec<Surveyed>, ReadError> {
        self.reads.survey(topics).await
    }

    async fn make_own(&self, topic: &Topic) -> Result<(), MakeError> {
        own::make(&self.clients, topic, &self.engine).await
    }

    async fn reconnect(&self, addresses: &[String]) {
        if !self.clients.move_to(addresses) {
            return;
        }
        self.tails.lock().running.iter().for_each(|tail| tail.state.calls.look());
        self.reads.move_on().await;
        self.producer.move_on().await;
        tracing::info!(
            addresses = self.clients.bootstrap_servers(),
            "Kafka's clients were made anew at other addresses"
        );
    }

    async fn check(&self) -> Result<(), ReadError> {
        self.reads.check().await
    }

    async fn finish(&self) {
        self.producer.close().await;
    }

    async fn close(&self) {
        let running = {
            let mut tails = self.tails.lock();
            tails.closed = true;
            std::mem::take(&mut tails.running)
        };
        running.iter().for_each(|one| one.state.stop());
        self.producer.close().await;
        let threads = running.into_iter().flat_map(|one| one.threads);
        let ended = self.engine.spawn_blocking(move || threads.for_each(|thread| _ = thread.join()));
        if tokio::time::timeout(TAILS_END_WITHIN, ended).await.is_err() {
            tracing::warn!("a tail's thread still waits for a broker; the process ends without it");
        }
    }

    fn describe(&self) -> String {
        format!("Kafka at {}", self.clients.bootstrap_servers())
    }
}
