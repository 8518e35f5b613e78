//! What only the Kafka engine has: brokers that stop, stall and come back, topics with limits of their own, groups that
//! tools can see.
//!
//! - this page: a log on a broker, records, and what a tail has brought
//! - `outage` the broker goes and comes back
//! - `topics` limits, retention, topics made anew
//! - `mock` faults that a real broker shows rarely, injected into librdkafka's mock of a cluster
//! - `client` what depends on librdkafka's client: groups, properties, fatal errors

mod client;
mod mock;
mod outage;
#[path = "../support/mod.rs"]
mod support;
mod topics;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use sluice::log::kafka::{KafkaLog, Options};
use sluice::log::{AppendError, Appended, Log, Opened, Tail};
use sluice::model::{NewRecord, Offset, Partition, Timestamp, Topic};
use support::{Broker, PATIENCE};
use tokio::runtime::Handle;

/// Shorter than the default, so that a test of what happens at it takes seconds.
const DEADLINE: Duration = Duration::from_secs(3);
/// What an answer may come later than the deadline on a busy machine.
const MARGIN: Duration = Duration::from_secs(2);
const EVENT_BYTES_MAX: usize = 4 << 20;

fn open(broker: &Broker) -> Arc<KafkaLog> {
    open_with(broker, &[])
}

fn open_with(broker: &Broker, properties: &[(&str, &str)]) -> Arc<KafkaLog> {
    let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let options = Options { bootstrap_servers: vec![broker.bootstrap().to_owned()], properties, ..Options::default() };
    let log = KafkaLog::open(options, &support::unique("group"), EVENT_BYTES_MAX, DEADLINE, Handle::current());
    Arc::new(log.expect("the log opens"))
}

/// The only recorder of this binary.
fn metrics() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| PrometheusBuilder::new().install_recorder().expect("nobody else has one"))
}

/// A counter without labels; 0 if it does not exist yet.
fn counted(name: &str) -> u64 {
    let text = metrics().render();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_default()
}

async fn new_topic(broker: &Broker, partitions: i32, config: &[(&str, &str)]) -> Topic {
    let topic = Topic::new(&support::unique("kafka"));
    broker.create_topic(topic.as_str(), partitions, config).await;
    topic
}

fn record(topic: &Topic, value: impl Into<Bytes>) -> NewRecord {
    NewRecord { topic: topic.clone(), time: Timestamp::now(), key: None, value: Some(value.into()) }
}

async fn append_one(log: &KafkaLog, record: NewRecord) -> Result<Appended, AppendError> {
    log.append(vec![record]).await.pop().expect("one answer for one record")
}

/// What a tail has brought; each batch must keep what a tail promises.
struct Watched {
    tail: Box<dyn Tail>,
    opened: Vec<Opened>,
    /// Values and how often they came.
    values: HashMap<String, usize>,
    next: HashMap<Partition, Offset>,
    caught_up: bool,
}

impl Watched {
    async fn open(log: &KafkaLog, topics: &[&Topic], warm: u64) -> Self {
        let tail = log.tail(topics.iter().copied().cloned().collect(), warm).await;
        Self { tail, opened: Vec::new(), values: HashMap::new(), next: HashMap::new(), caught_up: false }
    }

    async fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !wanted(self) {
                self.take().await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
        assert!(came, "{what}: {} values, opened {:?}, caught up: {}", self.values.len(), self.opened, self.caught_up);
    }

    async fn take(&mut self) {
        let batch = self.tail.next().await;
        for opened in batch.opened {
            self.next.insert(opened.partition.clone(), opened.next);
            self.opened.push(opened);
        }
        for record in batch.records {
            let next = self.next.get_mut(&record.partition).expect("a partition is opened before its records");
            assert!(record.offset >= *next, "{}: {} came after {next}", record.partition, record.offset);
            *next = record.offset.after();
            let value = record.value.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            *self.values.entry(value.into_owned()).or_default() += 1;
        }
        self.caught_up = batch.caught_up;
    }
}
