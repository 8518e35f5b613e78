//! A reader that hops between two servers.

use std::time::Duration;

use tokio::time::timeout;

use crate::ledger::{self, Ledger};
use crate::load::{Fate, Load};
use crate::raw::{Event, Stream};
use crate::server::{Options, Server};
use crate::support::{self, Broker};

const HOPS: usize = 1_000;
const STAY_EVENTS_MAX: usize = 20;
const PARTITIONS: i32 = 3;
const PRODUCERS_AT_EACH: usize = 2;
/// First the reader is mostly at the live end, then mostly behind it. Never less than it reads in one stay.
const AHEAD_FIRST: usize = 32;
const AHEAD_LATER: usize = 400;
/// So small that a part of what the reader wants has left it.
const SMALL_RING_BYTES: &str = "65536";
/// Runs the same hops again.
const SEED_VARIABLE: &str = "SLUICE_TEST_SEED";
/// Without the next event for this long, it is lost.
const LOST_AFTER: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_reader_that_hops_between_two_servers_has_every_record_exactly_once() {
    let seed = Seed::choose();
    let broker = support::kafka().await;
    let stream = support::unique("hop");
    let topics: Vec<String> = ["one.", "two."].map(|prefix| format!("{prefix}{stream}")).into();
    for topic in &topics {
        broker.create_topic(topic, PARTITIONS, &[]).await;
    }
    let catalogue = format!("{stream}: {{schema_title: test/event, topics: [{}]}}", topics.join(", "));
    let options = |prefix| {
        let options = Options::default().kafka(broker.bootstrap()).streams(&catalogue);
        options.env("SLUICE__INTAKE__TOPIC_PREFIX", prefix)
    };
    let one = Server::start(options("one.")).await;
    let two = Server::start(options("two.").env("SLUICE__HUB__RING_BYTES", SMALL_RING_BYTES)).await;

    let id = ledger::from_the_first(&topics, PARTITIONS);
    let mut hopper = Hopper {
        target: format!("/v2/stream/{stream}"),
        servers: [&one, &two],
        visits: [0, 0],
        ledger: Ledger::after(&id),
        id,
        load: Load::new(std::slice::from_ref(&stream), AHEAD_FIRST),
        random: fastrand::Rng::with_seed(seed.0),
    };
    hopper.hop_all_over(&broker, &topics).await;
    hopper.gets_nothing_twice_in_the_end().await;
    assert!(two.metric("sluice_catchup_reads_total").await > 0.0, "a part came from the log, not from the ring");
}

struct Hopper<'a> {
    target: String,
    servers: [&'a Server; 2],
    visits: [usize; 2],
    id: String,
    ledger: Ledger,
    load: std::sync::Arc<Load>,
    random: fastrand::Rng,
}

impl Hopper<'_> {
    async fn hop_all_over(&mut self, broker: &Broker, topics: &[String]) {
        let producers = self.load.start(&self.servers.map(|server| server.address), PRODUCERS_AT_EACH);
        for hop in 0..HOPS {
            if hop == HOPS / 2 {
                self.load.credit.add_permits(AHEAD_LATER - AHEAD_FIRST);
            }
            let events = self.random.usize(1..=STAY_EVENTS_MAX);
            self.stay(events).await;
        }
        self.load.stop(producers).await;
        let log = ledger::records(broker, topics, PARTITIONS).await;
        while self.ledger.count() < log.len() {
            let left = log.len() - self.ledger.count();
            self.stay(left.min(STAY_EVENTS_MAX)).await;
        }
        assert!(self.ledger.is_complete(&log), "the log holds {log:?}, the reader had {:?}", self.ledger);
        assert_eq!(self.load.told(Fate::Accepted).await.len(), log.len(), "each event that was accepted, once");
        assert_eq!(self.ledger.partitions().len(), 6, "every partition was used: {:?}", self.ledger.partitions());
        assert!(self.visits.iter().all(|visits| *visits > HOPS / 3), "{:?}", self.visits);
    }

    /// Reads this many events at a server of its choice, and drops the connection in the middle of the stream.
    async fn stay(&mut self, events: usize) {
        let server = self.random.usize(..2);
        self.visits[server] += 1;
        let mut stream = self.open(server).await;
        for _ in 0..events {
            let event = next(&mut stream).await;
            if let Err(fault) = self.ledger.enter(&event) {
                panic!("hop {:?} to server {server} with the id {}: {fault}", self.visits, self.id);
            }
            self.id = event.id;
            self.load.credit.add_permits(1);
        }
    }

    async fn open(&self, server: usize) -> Stream {
        let address = self.servers[server].address;
        let stream = Stream::open(address, &self.target, &format!("Last-Event-ID: {}\r\n", self.id)).await;
        assert_eq!(stream.head.header("sluice-notice"), None, "what was asked is given; asked: {}", self.id);
        stream
    }

    /// At either server the next event is one that nobody had before.
    async fn gets_nothing_twice_in_the_end(&mut self) {
        let mut streams = [self.open(0).await, self.open(1).await];
        let posted = self.load.post(self.servers[0].address, 1).await;
        for stream in &mut streams {
            let event = next(stream).await;
            assert_eq!((event.json()["number"].as_u64(), Fate::Accepted), (Some(posted[0].0), posted[0].1));
        }
    }
}

async fn next(stream: &mut Stream) -> Event {
    timeout(LOST_AFTER, stream.event()).await.expect("the next event comes")
}

/// Printed when the test fails.
struct Seed(u64);

impl Seed {
    fn choose() -> Self {
        let given = std::env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok());
        Self(given.unwrap_or_else(|| fastrand::u64(..)))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the hops were those of {SEED_VARIABLE}={}", self.0);
        }
    }
}
