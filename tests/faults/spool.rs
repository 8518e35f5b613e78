//! A broker that stands still or stops for a while, and a server with a spool that is killed meanwhile: nothing that was
//! accepted is lost, and no key is out of order.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::server::{Options, Server};
use crate::support::{self, Broker, KafkaNode, PATIENCE, eventually};

const PARTITIONS: i32 = 3;
const PRODUCERS: usize = 12;
const SPOOLED_AT_LEAST: f64 = 300.0;
const DEADLINE: Duration = Duration::from_secs(3);
const GRACE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn nothing_spooled_is_lost_though_the_server_is_killed_while_it_spools_and_while_it_replays() {
    let mut world = World::start().await;
    world.until_direct().await;
    // Connections stay open, nothing is answered.
    world.node.pause().await;
    world.until_spooled(SPOOLED_AT_LEAST).await;
    world.die().await;
    world.until_spooled(SPOOLED_AT_LEAST * 3.0).await;
    world.node.resume().await;
    world.until_replaying().await;
    world.die().await;
    world.until_direct().await;
    // A clean stop, and the server is not killed.
    world.node.stop().await;
    world.until_spooled(SPOOLED_AT_LEAST).await;
    world.node.start_again().await;
    let back = Instant::now();
    world.until_direct().await;
    println!("events went to the log again {:?} after it was back", back.elapsed());
    world.check().await;
}

struct World {
    server: Server,
    address: SocketAddr,
    topic: String,
    producers: JoinSet<Produced>,
    direct: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    node: KafkaNode,
}

/// What one producer, which has a key of its own, was told.
struct Produced {
    key: String,
    accepted: Vec<u64>,
    spooled: usize,
}

impl World {
    async fn start() -> Self {
        let node = KafkaNode::start().await;
        let topic = support::unique("spool");
        node.broker().create_topic(&topic, PARTITIONS, &[]).await;
        let catalogue =
            format!("{topic}: {{schema_title: test/event, topics: [{topic}], message_key_fields: {{key: key}}}}\n");
        let options = Options::default().kafka(&node.bootstrap()).streams(&catalogue).unready();
        let options = options.env("SLUICE__INTAKE__DEADLINE", &format!("{}s", DEADLINE.as_secs()));
        let server = Server::start(options.env("SLUICE__INTAKE__SPOOL__ENABLED", "true")).await;
        server.until_ready().await;
        let (direct, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let address = server.address;
        let mut producers = JoinSet::new();
        for producer in 0..PRODUCERS {
            let (topic, key) = (topic.clone(), format!("k{producer}"));
            producers.spawn(produce(address, topic, key, direct.clone(), over.clone()));
        }
        Self { server, address, topic, producers, direct, over, node }
    }

    /// Until a POST of every producer, as good as surely, went to the log itself.
    async fn until_direct(&self) {
        let begin = self.direct.load(Ordering::Relaxed);
        let enough = begin + 20 * PRODUCERS as u64;
        let direct = eventually(PATIENCE, async || self.direct.load(Ordering::Relaxed) >= enough).await;
        assert!(direct, "events go to the log again; its log:\n{}", self.server.stderr());
    }

    async fn until_spooled(&self, events: f64) {
        let spooled = eventually(PATIENCE, async || self.server.metric("sluice_spool_events").await >= events).await;
        assert!(spooled, "events are spooled; the log:\n{}", self.server.stderr());
    }

    async fn until_replaying(&self) {
        let replays =
            eventually(PATIENCE, async || self.server.metric("sluice_spool_replayed_total").await > 0.0).await;
        assert!(replays, "the spool is replayed; the log:\n{}", self.server.stderr());
    }

    async fn die(&mut self) {
        self.server.kill().await;
        self.server.start_again().await;
        assert_eq!(self.server.address, self.address);
    }

    async fn check(mut self) {
        self.over.store(true, Ordering::Relaxed);
        let mut produced = Vec::new();
        while let Some(one) = self.producers.join_next().await {
            produced.push(one.expect("a producer"));
        }
        let empty = eventually(PATIENCE, async || self.server.metric("sluice_spool_events").await == 0.0).await;
        assert!(empty, "the spool is emptied; the log:\n{}", self.server.stderr());
        let (broker, topic) = (self.node.broker(), self.topic.clone());
        let reading = tokio::task::spawn_blocking(move || read_all(&broker, &topic));
        let log = reading.await.expect("the log can be read");
        let (mut accepted, mut spooled, mut twice) = (0, 0, 0);
        for one in &produced {
            let (mut first, mut times) = (Vec::new(), HashMap::new());
            for number in &log[&one.key] {
                let seen: &mut usize = times.entry(*number).or_default();
                *seen += 1;
                if *seen == 1 {
                    first.push(*number);
                }
            }
            twice += times.values().filter(|times| **times > 1).count();
            let lost: Vec<&u64> = one.accepted.iter().filter(|number| !times.contains_key(number)).collect();
            assert!(lost.is_empty(), "{}: accepted and not in the log: {lost:?}", one.key);
            first.retain(|number| one.accepted.contains(number));
            assert_eq!(first, one.accepted, "{}: in the order in which they were accepted", one.key);
            accepted += one.accepted.len();
            spooled += one.spooled;
        }
        println!("{accepted} accepted, {spooled} of them spooled, {twice} are in the log more than once");
        assert!(spooled > 0 && accepted > spooled);
    }
}

/// One event after the other, each until it is accepted: the same again when the server dies before it answers.
async fn produce(
    address: SocketAddr,
    topic: String,
    key: String,
    direct: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
) -> Produced {
    let mut produced = Produced { key: key.clone(), accepted: Vec::new(), spooled: 0 };
    let mut io = None;
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        let body = json!({
            "$schema": "/test/event/1.0.0",
            "meta": {"stream": topic, "id": format!("{key}-{number}")},
            "key": key,
            "number": number,
        });
        match post(&mut io, address, &body).await {
            Some(201) => {
                direct.fetch_add(1, Ordering::Relaxed);
            }
            Some(202) => produced.spooled += 1,
            // Unknown or refused: the same again.
            Some(503) | None => continue,
            Some(other) => panic!("the server answers {other}"),
        }
        produced.accepted.push(number);
        number += 1;
    }
    produced
}

/// The status; none if the server has gone.
async fn post(io: &mut Option<TcpStream>, address: SocketAddr, body: &Value) -> Option<u16> {
    if io.is_none() {
        *io = TcpStream::connect(address).await.ok();
        if io.is_none() {
            tokio::task::yield_now().await;
        }
    }
    let mut stream = io.take()?;
    let body = body.to_string();
    let head = "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length:";
    stream.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let status = timeout(DEADLINE + GRACE, async {
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            if stream.read_buf(&mut answer).await.ok()? == 0 {
                return None;
            }
        }
        String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|status| status.parse().ok())
    });
    let status = status.await.expect("a POST is answered in time")?;
    if status < 300 {
        // Nothing comes after the head of these.
        *io = Some(stream);
    }
    Some(status)
}

/// The numbers of every key, in the log's order.
fn read_all(broker: &Broker, topic: &str) -> BTreeMap<String, Vec<u64>> {
    let mut config = broker.client();
    config.set("group.id", "of nobody").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().expect("a client");
    let (mut wanted, mut left) = (TopicPartitionList::new(), 0);
    for partition in 0..PARTITIONS {
        let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE).expect("the broker answers");
        left += high - low;
        wanted.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&wanted).expect("the partitions are there");
    let mut keys: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let end = Instant::now() + PATIENCE;
    while left > 0 {
        assert!(Instant::now() < end, "{left} records do not come");
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let event: Value = serde_json::from_slice(message.payload().unwrap_or_default()).expect("an event");
        let key = event["key"].as_str().expect("a key").to_owned();
        keys.entry(key).or_default().push(event["number"].as_u64().expect("a number"));
        left -= 1;
    }
    keys
}
