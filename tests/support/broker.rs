//! A running Kafka as tests use it: an address, and what an administrator does there.

use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::{PATIENCE, eventually_send};

/// Test topics keep old records (events are dated by their producers, often long ago) and take large ones.
const TOPIC_DEFAULTS: [(&str, &str); 2] = [("retention.ms", "-1"), ("max.message.bytes", "16777216")];

#[derive(Clone, Debug)]
pub struct Broker {
    bootstrap: String,
}

impl Broker {
    pub fn at(bootstrap: &str) -> Self {
        Self { bootstrap: bootstrap.to_owned() }
    }

    /// `host:port`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A client's configuration with nothing but the address.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    /// Makes a topic with this configuration (on top of "keep everything, take 16 MiB") and waits until it can be used.
    pub async fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) {
        self.create_replicated_topic(name, partitions, 1, config).await;
    }

    /// The same, held by so many brokers.
    pub async fn create_replicated_topic(&self, name: &str, partitions: i32, by: i32, config: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(by));
        for (key, value) in TOPIC_DEFAULTS {
            if config.iter().all(|(own, _)| *own != key) {
                topic = topic.set(key, value);
            }
        }
        for (key, value) in config {
            topic = topic.set(key, value);
        }
        let answers = self.admin().create_topics([&topic], &options()).await.expect("the broker answers");
        answers.into_iter().for_each(|answer| _ = answer.expect("the topic is made"));
        self.has_partitions(name, partitions).await;
    }

    pub async fn delete_topic(&self, name: &str) {
        let answers = self.admin().delete_topics(&[name], &options()).await.expect("the broker answers");
        answers.into_iter().for_each(|answer| _ = answer.expect("the topic is deleted"));
        self.has_partitions(name, 0).await;
    }

    /// Grows a topic to this many partitions.
    pub async fn add_partitions(&self, topic: &str, total: usize) {
        let grown = NewPartitions::new(topic, total);
        let answers = self.admin().create_partitions([&grown], &options()).await.expect("the broker answers");
        answers.into_iter().for_each(|answer| _ = answer.expect("the partitions are made"));
        self.has_partitions(topic, i32::try_from(total).expect("a small number")).await;
    }

    /// Takes every record below this offset away, as retention would.
    pub async fn delete_records(&self, topic: &str, partition: i32, below: i64) {
        let mut cut = TopicPartitionList::new();
        cut.add_partition_offset(topic, partition, Offset::Offset(below)).expect("a valid offset");
        let cut = self.admin().delete_records(&cut, &options()).await.expect("the broker answers");
        cut.elements().iter().for_each(|one| one.error().expect("the records are deleted"));
    }

    /// The topic's configuration is this from now on, and nothing else but "keep everything".
    pub async fn set_config(&self, topic: &str, config: &[(&str, &str)]) {
        let mut wanted = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("retention.ms", "-1");
        for (key, value) in config {
            wanted = wanted.set(key, value);
        }
        let answers = self.admin().alter_configs([&wanted], &options()).await.expect("the broker answers");
        answers.into_iter().for_each(|answer| _ = answer.expect("the topic is configured"));
    }

    /// What the topic's configuration says.
    pub async fn config(&self, topic: &str, key: &str) -> Option<String> {
        let asked = self.admin().describe_configs([&ResourceSpecifier::Topic(topic)], &options()).await;
        let mut described = asked.expect("the broker answers");
        let described = described.pop()?.expect("the topic is there");
        described.entry_map().get(key)?.value.clone()
    }

    /// Waits until the topic has this many partitions with a leader; none: until it is gone.
    async fn has_partitions(&self, topic: &str, count: i32) {
        let there = eventually_send(PATIENCE, || async { self.partitions_with_leader(topic).await == count }).await;
        assert!(there, "{topic} does not come to have {count} partitions");
    }

    async fn partitions_with_leader(&self, topic: &str) -> i32 {
        let (broker, topic) = (self.clone(), topic.to_owned());
        let count = tokio::task::spawn_blocking(move || {
            let metadata = broker.consumer().fetch_metadata(Some(&topic), Duration::from_secs(5)).ok()?;
            let partitions = metadata.topics().first()?.partitions();
            i32::try_from(partitions.iter().filter(|one| one.leader() >= 0).count()).ok()
        });
        count.await.expect("asking does not panic").unwrap_or(-1)
    }

    /// Blocking.
    pub fn answers_within(&self, timeout: Duration) -> bool {
        self.consumer().fetch_metadata(None, timeout).is_ok_and(|metadata| !metadata.brokers().is_empty())
    }

    /// Looks only: it makes no topic by asking for it, and complains about nothing while a node starts.
    fn consumer(&self) -> BaseConsumer {
        let mut config = self.client();
        config.set("allow.auto.create.topics", "false").set("reconnect.backoff.max.ms", "200");
        config.set("log_level", "0").create().expect("a valid configuration")
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("a valid configuration")
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}
