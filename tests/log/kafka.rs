//! The contract over the Kafka engine, on a real broker that all cases share; each case has topics of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use sluice::log::Log;
use sluice::log::kafka::{KafkaLog, Options};
use sluice::model::{Offset, Partition, Topic};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::engine::Engine;
use crate::support::{self, Broker, PATIENCE};

const EVENT_BYTES_MAX: usize = 8 << 20;
const DEADLINE: Duration = Duration::from_secs(9);

struct Kafka {
    broker: Broker,
    log: Arc<dyn Log>,
}

fn open(broker: &Broker) -> Arc<dyn Log> {
    let options = Options { bootstrap_servers: vec![broker.bootstrap().to_owned()], ..Options::default() };
    let group = support::unique("contract");
    Arc::new(KafkaLog::open(options, &group, EVENT_BYTES_MAX, DEADLINE, Handle::current()).expect("the log opens"))
}

#[async_trait]
impl Engine for Kafka {
    async fn start() -> Self {
        let broker = support::kafka().await;
        Self { log: open(&broker), broker }
    }

    fn log(&self) -> Arc<dyn Log> {
        self.log.clone()
    }

    fn unused_topic(&self) -> Topic {
        Topic::new(&support::unique("contract"))
    }

    async fn create(&self, topic: &Topic, partitions: i32) {
        self.broker.create_topic(topic.as_str(), partitions, &[("max.message.bytes", "6291456")]).await;
    }

    /// Above the client's limit: what compresses well may pass a topic's.
    fn too_large(&self) -> usize {
        EVENT_BYTES_MAX + (1 << 20)
    }

    async fn restart(&mut self) {
        self.log.close().await;
        self.log = open(&self.broker);
    }

    async fn delete_before(&self, partition: &Partition, at: Offset) {
        self.broker.delete_records(partition.topic.as_str(), partition.index, at.0).await;
    }

    async fn add_partitions(&self, topic: &Topic, partitions: i32) {
        self.broker.add_partitions(topic.as_str(), partitions.unsigned_abs() as usize).await;
    }

    /// A transaction taken back: its record and its marker have offsets, and nobody sees them.
    async fn make_gap(&self, partition: &Partition) {
        let mut config = self.broker.client();
        config.set("transactional.id", support::unique("gap"));
        let partition = partition.clone();
        let abort = spawn_blocking(move || {
            let producer: BaseProducer = config.create().expect("a valid configuration");
            producer.init_transactions(PATIENCE).expect("transactions");
            producer.begin_transaction().expect("a transaction");
            let record = BaseRecord::<[u8], str>::to(partition.topic.as_str()).partition(partition.index).payload("no");
            producer.send(record).map_err(|(fault, _)| fault).expect("the record is taken");
            producer.flush(PATIENCE).expect("the record is sent");
            producer.abort_transaction(PATIENCE).expect("the transaction is taken back");
        });
        abort.await.expect("the gap is made");
    }
}

contract_suite! {
    Kafka,
    every: [#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]],
    several_partitions: [],
    partitions_added: [],
    gaps: [],
}
