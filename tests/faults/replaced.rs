//! The only broker that a server knows goes away under load, and it or another one takes its place. Nobody restarts the
//! server: producers and readers go on, every event that was accepted arrives, and arrives once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::follower::Follower;
use crate::forwarder::Forwarder;
use crate::ledger::{self, Ledger};
use crate::load::{Fate, Load};
use crate::server::{Options, Server};
use crate::support::{self, Broker, KafkaNode};

const PARTITIONS: i32 = 3;
const PRODUCERS: usize = 2;
const AHEAD_MAX: usize = 100;
/// Before each outage, so that it meets a load.
const EVENTS_BETWEEN_OUTAGES: usize = 200;
/// From the moment that a broker answers again.
const RECOVERS_WITHIN: Duration = Duration::from_secs(30);
/// A broker that stands still for longer than a client waits for an answer (10 s): in heartbeats, of which one comes a second.
const LONG_PAUSE_HEARTBEATS: usize = 16;

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_broker_that_comes_back_where_it_was_or_elsewhere_behind_its_name_or_out_of_a_long_pause_is_found() {
    let forwarder = Forwarder::start().await;
    let node = KafkaNode::start_behind(forwarder.address.port()).await;
    forwarder.point_to(Some(address_of(&node)));
    let topic = new_topic(&node.broker(), 1).await;
    let options = Options::default().kafka(&forwarder.address.to_string());
    let mut world = World::start(options, &topic).await;

    world.lives_through_the_load().await;
    node.stop().await;
    world.until_a_post_is_refused().await;
    node.start_again().await;
    world.recovers("the same broker came back").await;

    world.lives_through_the_load().await;
    forwarder.point_to(None);
    world.until_a_post_is_refused().await;
    node.restart_at_new_address().await;
    forwarder.point_to(Some(address_of(&node)));
    world.recovers("its data came back behind the same name").await;

    world.lives_through_the_load().await;
    node.pause().await;
    world.until_readers_have_heard(LONG_PAUSE_HEARTBEATS).await;
    node.resume().await;
    world.recovers("it went on after a long pause").await;

    world.ends_with_everything_once(&node.broker()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn another_broker_of_the_cluster_takes_over_from_the_only_one_that_was_named() {
    let first = KafkaNode::start().await;
    let named = first.start_another().await;
    let topic = new_topic(&first.broker(), 2).await;
    let mut world = World::start(Options::default().kafka(&named.bootstrap()), &topic).await;

    world.lives_through_the_load().await;
    let started = Instant::now();
    named.kill().await;
    world.recovers("the named broker was killed, and another one of the cluster took over").await;
    println!("{:.1} s since the kill", started.elapsed().as_secs_f64());

    world.lives_through_the_load().await;
    world.ends_with_everything_once(&first.broker()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn brokers_at_addresses_that_a_reload_names_are_gone_on_with() {
    let node = KafkaNode::start().await;
    let topic = new_topic(&node.broker(), 1).await;
    let config = |at: &str| format!("[log.kafka]\nbootstrap_servers = ['{at}']\n");
    let mut world = World::start(Options::default().config(&config(&node.bootstrap())), &topic).await;
    world.lives_through_the_load().await;

    // While the old one is there: what is under way is settled.
    let (another, alias) = (node.bootstrap(), node.bootstrap().replace("127.0.0.1", "localhost"));
    for address in [alias, another] {
        world.server.rewrite("sluice.toml", &config(&address));
        world.reload().await;
        world.recovers(&format!("{address} was named, which is the same broker")).await;
    }

    // Nobody tells where it is now, but the file.
    world.lives_through_the_load().await;
    node.restart_at_new_address().await;
    world.until_a_post_is_refused().await;
    world.server.rewrite("sluice.toml", &config(&node.bootstrap()));
    world.reload().await;
    world.recovers("a reload named the new address").await;

    world.lives_through_the_load().await;
    world.ends_with_everything_once(&node.broker()).await;
}

fn address_of(node: &KafkaNode) -> SocketAddr {
    node.bootstrap().parse().expect("an address")
}

async fn new_topic(broker: &Broker, replicas: i32) -> String {
    let topic = support::unique("replaced");
    broker.create_replicated_topic(&topic, PARTITIONS, replicas, &[]).await;
    topic
}

/// A server under load. Readers leave before it does.
struct World {
    followers: Vec<Follower>,
    producers: JoinSet<()>,
    load: Arc<Load>,
    server: Server,
    topics: [String; 1],
}

impl World {
    async fn start(options: Options, topic: &str) -> Self {
        let options = options.streams(&format!("{topic}: {{schema_title: test/event, topics: [{topic}]}}"));
        let server = Server::start(options.env("SLUICE__HUB__HEARTBEAT", "1s")).await;
        let topics = [topic.to_owned()];
        let load = Load::new(&topics, AHEAD_MAX);
        let first = ledger::from_the_first(&topics, PARTITIONS);
        let stream = server.stream(&format!("/v2/stream/{topic}"), "").await;
        let reader = Follower::start("reader", stream, Ledger::after(&first), Some(load.credit.clone()));
        let producers = load.start(&[server.address], PRODUCERS);
        Self { followers: vec![reader], producers, load, server, topics }
    }

    async fn lives_through_the_load(&mut self) {
        let had = self.followers[0].count();
        self.followers[0].until("the load", |seen| seen.ledger.count() >= had + EVENTS_BETWEEN_OUTAGES).await;
    }

    async fn until_a_post_is_refused(&self) {
        while self.load.post(self.server.address, 1).await[0].1 == Fate::Accepted {}
    }

    async fn until_readers_have_heard(&mut self, heartbeats: usize) {
        let heard = self.followers[0].heartbeats();
        self.followers[0].until("heartbeats", |seen| seen.heartbeats >= heard + heartbeats).await;
    }

    /// Events are taken and reach the reader that stayed, and one that comes back.
    async fn recovers(&mut self, what: &str) {
        let started = Instant::now();
        let number = loop {
            let posted = self.load.post(self.server.address, 1).await;
            if posted[0].1 == Fate::Accepted {
                break posted[0].0;
            }
        };
        let taken = started.elapsed();
        let id = self.followers[0].last_id().expect("the reader has had an event");
        let target = format!("/v2/stream/{}", self.topics[0]);
        let stream = self.server.stream(&target, &format!("Last-Event-ID: {id}\r\n")).await;
        self.followers.push(Follower::start("reader that came back", stream, Ledger::after(&id), None));
        self.followers[0].until("an event that was accepted", |seen| seen.ledger.has_number(number)).await;
        let took = started.elapsed();
        println!("{what}: taken after {:.1} s, read after {:.1} s", taken.as_secs_f64(), took.as_secs_f64());
        assert!(took < RECOVERS_WITHIN, "{what}: events flow only after {took:?}; the log:\n{}", self.server.stderr());
    }

    async fn reload(&self) {
        let reloaded = self.server.ask_admin("POST", "/reload", "").await;
        assert_eq!(reloaded.status(), 200, "{reloaded:?}");
        let reloaded = reloaded.json();
        assert_eq!(reloaded["changed"], json!(["log.kafka.bootstrap_servers"]), "{reloaded}");
        assert_eq!(reloaded["needs_restart"], json!([]), "{reloaded}");
    }

    async fn ends_with_everything_once(mut self, broker: &Broker) {
        self.load.stop(std::mem::take(&mut self.producers)).await;
        // What was answered `unknown` may still come while we look.
        loop {
            let log = ledger::records(broker, &self.topics, PARTITIONS).await;
            for follower in &mut self.followers {
                follower.until("the rest of the log", |seen| seen.ledger.is_complete(&log)).await;
            }
            if ledger::records(broker, &self.topics, PARTITIONS).await == log {
                self.load.check_promises(&log).await;
                break;
            }
        }
        println!("tails rebuilt: {}", self.server.metric("sluice_kafka_tails_rebuilt_total").await.abs());
    }
}
