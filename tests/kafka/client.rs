//! What depends on librdkafka's client: groups, properties, fatal errors.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use sluice::log::Log;
use sluice::log::kafka::{KafkaLog, OpenError, Options};
use sluice::model::Topic;
use tokio::runtime::Handle;

use crate::support::{self, Broker, PATIENCE, eventually};
use crate::{DEADLINE, EVENT_BYTES_MAX, Watched, append_one, counted, metrics, new_topic, open, record};

fn open_as(broker: &Broker, group: &str) -> KafkaLog {
    let options = Options {
        bootstrap_servers: vec![broker.bootstrap().to_owned()],
        group_id: Some(group.to_owned()),
        ..Options::default()
    };
    KafkaLog::open(options, "unused", EVENT_BYTES_MAX, DEADLINE, Handle::current()).expect("the log opens")
}

/// What a lag tool does.
fn observer(broker: &Broker, group: &str) -> BaseConsumer {
    broker.client().set("group.id", group).create().expect("a valid configuration")
}

/// The sum over the topic's partitions.
fn committed(observer: &BaseConsumer, topic: &Topic, partitions: i32) -> i64 {
    let mut asked = TopicPartitionList::new();
    (0..partitions).for_each(|index| _ = asked.add_partition(topic.as_str(), index));
    let found = tokio::task::block_in_place(|| observer.committed_offsets(asked, PATIENCE));
    found.expect("the group is known").elements().iter().filter_map(|one| one.offset().to_raw()).sum()
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn the_group_shows_how_far_this_host_is() {
    let broker = support::kafka().await;
    let topic = new_topic(&broker, 2, &[]).await;
    let group = support::unique("group");
    let log = open_as(&broker, &group);
    let mut tail = Watched::open(&log, &[&topic], 0).await;
    for number in 0..30 {
        append_one(&log, record(&topic, format!("{number}"))).await.expect("appended");
    }
    tail.until("all records", |seen| seen.values.len() == 30).await;

    let observer = observer(&broker, &group);
    let all = || async { committed(&observer, &topic, 2) == 30 };
    assert!(eventually(PATIENCE, all).await, "the lag becomes zero, in every partition");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_producer_that_failed_for_good_is_made_anew() {
    metrics();
    let cluster = MockCluster::new(1).expect("a mock cluster");
    // What idempotence cannot survive.
    let denied = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED];
    cluster.request_errors(RDKafkaApiKey::InitProducerId, &denied);
    let log = open(&Broker::at(&cluster.bootstrap_servers()));
    let topic = Topic::new("t");

    let recovers = eventually(PATIENCE, || async { append_one(&log, record(&topic, "x")).await.is_ok() });

    assert!(recovers.await, "appends go on with the new producer");
    assert_eq!(counted("sluice_kafka_producers_rebuilt_total"), 1);
}

#[tokio::test]
async fn a_property_that_cannot_be_had_is_refused_when_the_log_opens_and_a_secret_is_not_repeated() {
    let refused = |key: &str, value: &str| {
        let options = Options {
            bootstrap_servers: vec!["localhost:1".to_owned()],
            properties: [(key.to_owned(), value.to_owned())].into(),
            ..Options::default()
        };
        KafkaLog::open(options, "g", EVENT_BYTES_MAX, Duration::from_secs(9), Handle::current()).err()
    };

    assert!(matches!(refused("acks", "1"), Some(OpenError::Fault(_))));
    assert!(matches!(refused("no.such.property", "1"), Some(OpenError::Property { .. })));
    assert!(matches!(refused("compression.type", "loud"), Some(OpenError::Property { .. })));
    let secret = refused("ssl.key.password", "hush\0hush").map(|fault| fault.to_string()).unwrap_or_default();
    assert!(!secret.contains("hush"), "{secret}");
    assert!(refused("compression.type", "gzip").is_none(), "zlib is compiled in");
}

#[test]
fn every_property_that_librdkafka_does_not_take_is_a_fault_of_the_configuration() {
    let options = Options {
        bootstrap_servers: vec!["localhost:1".to_owned()],
        properties: [
            ("no.such.property", "1"),
            ("compression.type", "loud"),
            ("fetch.wait.max.ms", "-7"),
            ("ssl.key.password", "hush\0hush"),
            ("retries", "3"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        ..Options::default()
    };
    let mut faults = options.faults(Duration::from_secs(9));
    faults.sort_by(|one, other| one.key.cmp(&other.key));
    let keys: Vec<&str> = faults.iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["compression.type", "fetch.wait.max.ms", "no.such.property", "ssl.key.password"], "{faults:?}");
    assert!(!faults[3].why.contains("hush") && faults[1].why.contains("-7"), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn closing_waits_for_what_was_handed_over() {
    let broker = support::kafka().await;
    let topic = new_topic(&broker, 1, &[]).await;
    let log = open(&broker);
    let appended = tokio::runtime::Handle::current().spawn({
        let (log, topic) = (log.clone(), topic.clone());
        async move { log.append((0..1_000).map(|number| record(&topic, format!("{number}"))).collect()).await }
    });
    let ends = open(&broker);
    assert!(
        eventually(PATIENCE, || async { ends.ends(std::slice::from_ref(&topic)).await.is_ok_and(|e| e[0].next.0 > 0) })
            .await
    );

    log.close().await;

    assert!(appended.await.expect("the append ends").iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn closing_does_not_wait_for_a_tail_that_nobody_reads() {
    let broker = support::kafka().await;
    let topic = new_topic(&broker, 1, &[]).await;
    let group = support::unique("group");
    let log = open_as(&broker, &group);
    for _ in 0..10 {
        append_one(&log, record(&topic, vec![b'x'; 1 << 20])).await.expect("appended");
    }
    let unread = log.tail(vec![topic.clone()], 1_000).await;
    // Four batches are read ahead, of one such record each or of the opening alone; then the thread waits.
    let observer = observer(&broker, &group);
    assert!(eventually(PATIENCE, || async { committed(&observer, &topic, 1) >= 4 }).await);

    let closed = tokio::time::timeout(Duration::from_secs(4), log.close()).await;

    assert!(closed.is_ok());
    drop(unread);
}
