//! A broker that goes away under load, in every way it can, and comes back.

use std::time::Duration;

use tokio::time::Instant;

use crate::follower::Follower;
use crate::group;
use crate::ledger::{self, Ledger, Records};
use crate::load::{Fate, Load};
use crate::raw::Stream;
use crate::server::{Options, Server};
use crate::support::{self, Broker, KafkaNode};

const PARTITIONS: i32 = 3;
const PRODUCERS: usize = 3;
const AHEAD_MAX: usize = 100;
/// Before each outage, so that it meets a load.
const EVENTS_BETWEEN_OUTAGES: usize = 500;
/// A reader gets its first bytes after 2 s at the latest, whatever the log does; the rest is a busy machine's.
const OPENED_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
enum Outage {
    /// SIGTERM: connections are closed, what was begun is finished.
    Stop,
    /// SIGKILL.
    Kill,
    /// SIGSTOP: connections stay open, nothing is answered.
    Pause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lasting {
    /// So long that producers are told.
    UntilAPostIsRefused,
    /// So short that producers wait it out: every reader has had two heartbeats.
    UntilReadersHearNothingElse,
}

impl Outage {
    async fn begin(self, node: &KafkaNode) {
        match self {
            Self::Stop => node.stop().await,
            Self::Kill => node.kill().await,
            Self::Pause => node.pause().await,
        }
    }

    async fn end(self, node: &KafkaNode) {
        match self {
            Self::Stop | Self::Kill => node.start_again().await,
            Self::Pause => node.resume().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_broker_that_goes_away_and_comes_back_costs_no_reader_its_connection_or_an_event() {
    let node = KafkaNode::start().await;
    let streams: Vec<String> = ["a", "b"].map(support::unique).into();
    for topic in &streams {
        node.broker().create_topic(topic, PARTITIONS, &[]).await;
    }
    let catalogue: String =
        streams.iter().map(|name| format!("{name}: {{schema_title: test/event, topics: [{name}]}}\n")).collect();
    let options = Options::default().kafka(&node.bootstrap()).streams(&catalogue);
    let server = Server::start(options.env("SLUICE__HUB__HEARTBEAT", "1s")).await;
    let mut world = World::new(node, server, &streams).await;
    let producers = world.load.start(&[world.server.address], PRODUCERS);
    world.until_events_flow().await;
    world.live_through(Outage::Stop, Lasting::UntilAPostIsRefused).await;
    world.live_through(Outage::Kill, Lasting::UntilReadersHearNothingElse).await;
    world.live_through(Outage::Pause, Lasting::UntilAPostIsRefused).await;
    world.live_through(Outage::Pause, Lasting::UntilReadersHearNothingElse).await;
    world.load.stop(producers).await;
    let log = world.until_readers_have_everything().await;
    world.load.check_promises(&log).await;
    group::shows_no_lag(&world.node, &world.server, &world.topics, PARTITIONS).await;
}

/// Readers leave before the server, and that before the broker: what ends at the end is no fault.
struct World {
    followers: Vec<Follower>,
    load: std::sync::Arc<Load>,
    server: Server,
    node: KafkaNode,
    broker: Broker,
    topics: Vec<String>,
    target: String,
}

impl World {
    async fn new(node: KafkaNode, server: Server, topics: &[String]) -> Self {
        let target = format!("/v2/stream/{}", topics.join(","));
        let load = Load::new(topics, AHEAD_MAX);
        let broker = node.broker();
        let mut world = Self { node, broker, server, topics: topics.to_vec(), target, load, followers: Vec::new() };
        let first = ledger::from_the_first(topics, PARTITIONS);
        let stream = world.open("").await;
        let credit = Some(world.load.credit.clone());
        world.followers.push(Follower::start("first reader", stream, Ledger::after(&first), credit));
        // Live, on topics that are still empty.
        let stream = world.open("").await;
        world.followers.push(Follower::start("second reader", stream, Ledger::after(&first), None));
        world
    }

    async fn live_through(&mut self, outage: Outage, lasting: Lasting) {
        let had = self.followers[0].count();
        self.followers[0].until("the load", |seen| seen.ledger.count() >= had + EVENTS_BETWEEN_OUTAGES).await;
        outage.begin(&self.node).await;
        let heard: Vec<usize> = self.followers.iter().map(Follower::heartbeats).collect();
        if lasting == Lasting::UntilAPostIsRefused {
            self.until_a_post_is_refused().await;
        }
        for (follower, heard) in self.followers.iter_mut().zip(heard) {
            follower.until("heartbeats", |seen| seen.heartbeats >= heard + 2).await;
        }
        self.connect_while_the_broker_is_away().await;
        outage.end(&self.node).await;
        self.until_events_flow().await;
    }

    /// Events are taken again, by themselves, and reach every reader.
    async fn until_events_flow(&mut self) {
        let number = loop {
            let posted = self.load.post(self.server.address, 1).await;
            if posted[0].1 == Fate::Accepted {
                break posted[0].0;
            }
        };
        for follower in &mut self.followers {
            follower.until("an event that was accepted", |seen| seen.ledger.has_number(number)).await;
        }
    }

    async fn until_a_post_is_refused(&self) {
        while self.load.post(self.server.address, 1).await[0].1 == Fate::Accepted {}
    }

    /// One that goes on where the first reader is, and one without a place. They stay.
    async fn connect_while_the_broker_is_away(&mut self) {
        let id = self.followers[0].last_id().expect("the first reader has had an event");
        let stream = self.open(&format!("Last-Event-ID: {id}\r\n")).await;
        self.followers.push(Follower::start("reader that came back", stream, Ledger::after(&id), None));
        let stream = self.open("").await;
        self.followers.push(Follower::start("reader that was new", stream, Ledger::default(), None));
    }

    async fn open(&self, headers: &str) -> Stream {
        let asked = Instant::now();
        let stream = Stream::open(self.server.address, &self.target, headers).await;
        assert!(asked.elapsed() < OPENED_WITHIN, "a stream was opened after {:?}", asked.elapsed());
        stream
    }

    /// What was answered `unknown` may still come while we look.
    async fn until_readers_have_everything(&mut self) -> Records {
        loop {
            let log = ledger::records(&self.broker, &self.topics, PARTITIONS).await;
            for follower in &mut self.followers {
                follower.until("the rest of the log", |seen| seen.ledger.is_complete(&log)).await;
            }
            if ledger::records(&self.broker, &self.topics, PARTITIONS).await == log {
                return log;
            }
        }
    }
}
