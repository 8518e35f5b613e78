//! A topic of the catalogue that comes when readers are there already, and one that goes and comes back.

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;

use crate::follower::Follower;
use crate::ledger::{self, Ledger};
use crate::load::{Fate, Load};
use crate::server::{Options, Server};
use crate::support::{self, Broker, PATIENCE, eventually};

const PARTITIONS: i32 = 3;
const RECORDS_OF_EACH: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_topic_that_does_not_exist_yet_stops_no_other_and_is_read_from_its_first_record() {
    let broker = support::kafka().await;
    let stream = support::unique("late");
    let topics: Vec<String> = ["early.", "late."].map(|prefix| format!("{prefix}{stream}")).into();
    broker.create_topic(&topics[0], PARTITIONS, &[]).await;
    let catalogue = format!("{stream}: {{schema_title: test/event, topics: [{}]}}", topics.join(", "));
    let options = Options::default().kafka(broker.bootstrap()).streams(&catalogue);
    let server = Server::start(options.env("SLUICE__INTAKE__TOPIC_PREFIX", "early.")).await;
    let opened = server.stream(&format!("/v2/stream/{stream}"), "").await;
    let first = ledger::from_the_first(&topics[..1], PARTITIONS);
    let mut reader = Follower::start("reader", opened, Ledger::after(&first), None);

    let load = Load::new(&[stream], 0);
    let early = load.post(server.address, 3).await;
    assert!(early.iter().all(|(_, fate)| *fate == Fate::Accepted), "{early:?}");
    reader.until("the topic that exists", |seen| early.iter().all(|(number, _)| seen.ledger.has_number(*number))).await;

    // At once, so that the records are there before the server knows of the topic.
    broker.create_topic(&topics[1], PARTITIONS, &[]).await;
    fill(&broker, &topics[1], RECORDS_OF_EACH).await;
    let log = ledger::records(&broker, &topics, PARTITIONS).await;
    assert_eq!(log.len() as u64, 3 + u64::try_from(PARTITIONS).expect("few") * RECORDS_OF_EACH);
    reader.until("the late topic", |seen| seen.ledger.is_complete(&log) && seen.ledger.count() == log.len()).await;

    let after = load.post(server.address, 1).await;
    reader.until("what comes after", |seen| seen.ledger.has_number(after[0].0)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_topic_that_is_deleted_is_said_to_be_gone_and_made_again_reaches_readers_whole_however_much_is_in_it() {
    let broker = support::kafka().await;
    let topics = [support::unique("gone")];
    let topic = topics[0].as_str();
    broker.create_topic(topic, PARTITIONS, &[]).await;
    let catalogue = format!("{topic}: {{schema_title: test/event, topics: [{topic}]}}\nother: {{topics: [no.such]}}");
    let server = Server::start(Options::default().kafka(broker.bootstrap()).streams(&catalogue)).await;
    let state = async |target: &str| server.get(target).await.json()["state"].as_str().map(str::to_owned);
    let is_well = |state: Option<String>| matches!(state.as_deref(), Some("flowing" | "quiet"));
    let mut reader = server.stream(&format!("/v2/stream/{topic}"), "").await;
    fill(&broker, topic, RECORDS_OF_EACH).await;
    let mut last = reader.event().await;
    for _ in 1..u64::try_from(PARTITIONS).expect("few") * RECORDS_OF_EACH {
        last = reader.event().await;
    }
    assert!(eventually(PATIENCE, async || is_well(state("/health").await)).await, "{:?}", state("/health").await);

    broker.delete_topic(topic).await;
    let target = format!("/health?stream={topic}");
    let told = eventually(PATIENCE, async || state(&target).await.as_deref() == Some("stalled")).await;
    let told = (told, server.get(&target).await, server.get("/health").await);
    assert!(told.0 && told.1.text().contains("no such topic any more"), "{told:?}");
    assert_eq!((told.1.status(), &told.2.json()["state"]), (503, &json!("degraded")), "{told:?}");
    assert!(told.2.json()["cause"].as_str().is_some_and(|cause| cause.contains(topic)), "{told:?}");
    assert!(is_well(state("/health?stream=other").await), "what never was is not missed");

    // More than there was: offsets alone do not tell that it is another one.
    broker.create_topic(topic, PARTITIONS, &[]).await;
    fill(&broker, topic, 2 * RECORDS_OF_EACH).await;
    while !reader.raw.chunk().await.is_empty() {}
    // Partitions are found to be others one after the other, so it may be sent back again.
    let mut wanted = [0; PARTITIONS as usize];
    let all = [2 * i64::try_from(RECORDS_OF_EACH).expect("few"); PARTITIONS as usize];
    while wanted != all {
        let target = format!("/v2/stream/{topic}");
        let mut again = server.stream(&target, &format!("Last-Event-ID: {}\r\n", last.id)).await;
        while wanted != all
            && let Some(event) = again.event_or_end().await
        {
            let meta = &event.json()["meta"];
            let partition = usize::try_from(meta["partition"].as_i64().expect("a partition")).expect("an index");
            assert_eq!(meta["offset"], json!(wanted[partition]), "of {wanted:?}: {}", event.id);
            wanted[partition] += 1;
            last = event;
        }
    }
    assert_eq!(server.metric("sluice_kafka_tail_moved_total").await, f64::from(PARTITIONS));
    assert!(eventually(PATIENCE, async || is_well(state(&target).await)).await, "{:?}", state(&target).await);
}

/// So many into each partition.
async fn fill(broker: &Broker, topic: &str, records: u64) {
    let (config, topic) = (broker.client(), topic.to_owned());
    let filling = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = config.create().expect("a producer");
        for (partition, number) in (0..PARTITIONS).flat_map(|one| (0..records).map(move |n| (one, n))) {
            let event = json!({"meta": {"id": "x"}, "number": 1_000 + number}).to_string();
            let record = BaseRecord::<(), _>::to(&topic).partition(partition).payload(&event);
            producer.send(record).unwrap_or_else(|(fault, _)| panic!("{fault}"));
        }
        producer.flush(PATIENCE).expect("the records are written");
    });
    filling.await.expect("the topic is filled");
}
