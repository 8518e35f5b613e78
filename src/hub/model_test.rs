//! The model test: two servers over one log, random producers, evictions, slow readers, retention, offset gaps,
//! partitions added, tails that fail and are made anew, canaries that some are shown and others not, places that are told
//! without an event, and readers that hop between the servers. Nothing is lost, nothing comes twice.
//!
//! `SLUICE_MODEL_SEEDS=N` runs more seeds, `SLUICE_MODEL_SEED=S` that one alone. A failure prints its seed.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::mpsc;

use super::subscription::Subscription;
use super::testing::{SharedLog, two_topics, who};
use super::{Delivery, From, Hub, Next, Options, Turn, Worker};
use crate::limits::Limits;
use crate::log::TailBatch;
use crate::model::{ClientId, Offset, Partition, Record, StreamSet, Topic, View};
use crate::shutdown::Shutdown;

const SEEDS: u64 = 2_000;
const STEPS: usize = 250;
/// Only canaries have this here.
const CANARY: &[u8] = b"\"canary\"";

#[test]
fn nothing_is_lost_and_nothing_comes_twice_whatever_happens() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("SLUICE_MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SLUICE_MODEL_SEEDS").unwrap_or(SEEDS),
    };
    let mut total = 0;
    for seed in seeds.clone() {
        let _told = TellSeed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        total += runtime.expect("a runtime").block_on(World::new(seed).run());
    }
    assert!(total > 100 * (seeds.end - seeds.start), "the model delivered too little to mean anything: {total}");
}

struct TellSeed(u64);

impl Drop for TellSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with SLUICE_MODEL_SEED={}", self.0);
        }
    }
}

struct World {
    random: Rng,
    log: SharedLog,
    servers: Vec<Server>,
    readers: Vec<Reader>,
    set: StreamSet,
    topics: Vec<Topic>,
    shutdown: Shutdown,
    clock: i64,
}

/// A server's hub, and how far its tail has been fed in each partition.
struct Server {
    hub: Hub,
    worker: Rc<Worker>,
    feed: mpsc::Sender<TailBatch>,
    fed: BTreeMap<Partition, Offset>,
}

struct Reader {
    server: usize,
    subscription: Subscription,
    turn: Turn,
    set: StreamSet,
    /// The id of the last event, or the place that was told since.
    id: Option<String>,
    /// The next offset that must come, by partition.
    wants: BTreeMap<Partition, Offset>,
    delivered: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let (topics, set) = two_topics();
        let log = SharedLog::default();
        for topic in &topics {
            log.add_partition(&Partition::new(topic, 0));
        }
        Self {
            random: Rng::with_seed(seed),
            log,
            servers: vec![],
            readers: vec![],
            set,
            topics,
            shutdown: Shutdown::default(),
            clock: 1_000_000,
        }
    }

    async fn run(mut self) -> u64 {
        for _ in 0..self.random.usize(0..30) {
            self.produce();
        }
        for _ in 0..2 {
            self.start_server().await;
        }
        for _ in 0..STEPS {
            match self.random.u32(0..100) {
                0..30 => self.produce(),
                30..50 => self.feed(8).await,
                50..54 if self.readers.len() < 6 => self.connect().await,
                54..60 => self.hop().await,
                60..62 => self.retain(),
                62..63 => self.add_partition(),
                63..64 => self.fail_a_tail().await,
                _ => self.read().await,
            }
        }
        self.drain().await;
        self.readers.iter().map(|reader| reader.delivered).sum()
    }

    fn produce(&mut self) {
        let partition = self.any_partition();
        // Producers' clocks go forth and back, and some records share a time.
        self.clock += self.random.i64(0..3);
        let time = self.clock - self.random.i64(0..5);
        let gap = if self.random.u32(0..8) == 0 { self.random.i64(1..20) } else { 0 };
        let value = match self.random.u32(0..12) {
            0 => None,
            1 => Some("not json"),
            2..5 => Some(r#"{"meta":{"stream":"a","domain":"canary"}}"#),
            _ => Some(r#"{"meta":{"stream":"a"},"x":1}"#),
        };
        self.log.put(&partition, gap, time, value);
    }

    async fn start_server(&mut self) {
        // A ring of a few frames, so that readers fall off it all the time.
        let ring_bytes = self.random.u64(1..16) * 2_000;
        let options = Options { ring_bytes: Some(ring_bytes), ..Options::default() };
        let engine = tokio::runtime::Handle::current();
        let stop = self.shutdown.watcher();
        let log = self.log.clone();
        let hub = Hub::start(options, Limits::none(), log, self.topics.clone(), &[], &engine, stop).expect("a hub");
        let feed = loop {
            let feed =
                self.log.last_tail().filter(|feed| self.servers.iter().all(|server| !server.feed.same_channel(feed)));
            match feed {
                Some(feed) => break feed,
                None => tokio::task::yield_now().await,
            }
        };
        let worker = hub.worker(Duration::ZERO);
        self.servers.push(Server { hub, worker, feed, fed: BTreeMap::new() });
        let server = self.servers.len() - 1;
        for partition in self.log.partitions() {
            let (first, next) = self.log.bounds(&partition);
            let from = Offset(self.random.i64(first.0..=next.0));
            self.open(server, &partition, from).await;
        }
    }

    async fn open(&mut self, server: usize, partition: &Partition, from: Offset) {
        let opened = self.log.opened(partition, from);
        self.servers[server].fed.insert(partition.clone(), from);
        self.send(server, TailBatch { opened: vec![opened], records: vec![], caught_up: true }).await;
    }

    /// Feeds some records of one partition to one server, as its tail would bring them.
    async fn feed(&mut self, records_max: usize) {
        let server = self.random.usize(0..self.servers.len());
        let partition = self.any_partition();
        let (first, next) = self.log.bounds(&partition);
        let Some(from) = self.servers[server].fed.get(&partition).copied() else {
            return self.open(server, &partition, first).await;
        };
        if from < first {
            // Retention passed the tail itself: it goes on from the oldest.
            return self.open(server, &partition, first).await;
        }
        let mut records = self.log.records(&partition, from..next);
        records.truncate(self.random.usize(1..=records_max));
        let Some(last) = records.last() else { return };
        self.servers[server].fed.insert(partition, last.offset.after());
        self.send(server, TailBatch { opened: vec![], records, caught_up: true }).await;
    }

    async fn send(&self, server: usize, batch: TailBatch) {
        let feed = &self.servers[server].feed;
        feed.send(batch).await.expect("the tail listens");
        while feed.capacity() < feed.max_capacity() {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
    }

    async fn connect(&mut self) {
        let server = self.random.usize(0..self.servers.len());
        let set = self.set.clone().seen(View { canaries: self.random.bool(), ..View::default() });
        let subscription = self.subscribe(server, &set, From::Live).await;
        let turn = subscription.enter(&self.servers[server].worker);
        let wants = subscription.places();
        self.readers.push(Reader { server, subscription, turn, set, id: None, wants, delivered: 0 });
    }

    async fn subscribe(&self, server: usize, set: &StreamSet, from: From) -> Subscription {
        let mut subscription = self.servers[server].hub.subscribe(set, from, who()).expect("a subscription");
        subscription.settle(Duration::from_secs(2)).await.expect("a place");
        subscription
    }

    /// A reader leaves and comes back, here or there, with the id of its last event.
    async fn hop(&mut self) {
        if self.readers.is_empty() {
            return;
        }
        let at = self.random.usize(0..self.readers.len());
        let Some(id) = self.readers[at].id.clone() else { return };
        let id = ClientId::parse(&id, self.set.topics()).expect("an id that a stream has sent");
        let mentioned: Vec<Partition> = id.places().iter().map(|place| place.partition.clone()).collect();
        let timed = id.newest().is_some();
        let server = self.random.usize(0..self.servers.len());
        let set = self.readers[at].set.clone();
        let subscription = self.subscribe(server, &set, From::Id(id)).await;
        let reader = &mut self.readers[at];
        reader.turn = subscription.enter(&self.servers[server].worker);
        reader.server = server;
        // A partition that the id does not mention starts a minute before its newest time, and nothing here is that old:
        // all of it must come that is still kept.
        reader.wants.retain(|partition, _| mentioned.contains(partition));
        // With no time in the id they start live.
        if !timed {
            for (partition, next) in subscription.places() {
                reader.wants.entry(partition).or_insert(next);
            }
        }
        reader.subscription = subscription;
    }

    fn retain(&mut self) {
        let partition = self.any_partition();
        let (first, next) = self.log.bounds(&partition);
        self.log.retain_from(&partition, Offset(self.random.i64(first.0..=next.0)));
    }

    fn add_partition(&mut self) {
        let count = self.log.partitions().len();
        if count < 5 {
            let topic = &self.topics[count % 2];
            self.log.add_partition(&Partition::new(topic, i32::try_from(count).expect("small") / 2));
        }
    }

    /// A server's tail fails with what it was bringing, which is lost. The one that is made instead begins at the log's end.
    async fn fail_a_tail(&mut self) {
        let server = self.random.usize(0..self.servers.len());
        self.log.fail_a_tail();
        let batch = match self.servers[server].fed.iter().next() {
            Some((partition, from)) => self.log.records(partition, *from..self.log.bounds(partition).1),
            None => vec![],
        };
        let batch = TailBatch { opened: vec![], records: batch, caught_up: true };
        self.servers[server].feed.send(batch).await.expect("the tail listens");
        self.servers[server].feed.closed().await;
        assert!(!self.servers[server].hub.caught_up(), "nobody is told that this server has everything");
        // Of paused time.
        tokio::time::sleep(super::tail::REBUILD_AFTER * 2).await;
        self.servers[server].feed = self.log.last_tail().expect("a tail made anew");
        let opened: Vec<Partition> = self.servers[server].fed.keys().cloned().collect();
        for partition in opened {
            let (_, end) = self.log.bounds(&partition);
            self.open(server, &partition, end).await;
        }
    }

    /// One reader takes some of what there is for it: a slow one takes little.
    async fn read(&mut self) {
        if self.readers.is_empty() {
            return;
        }
        let at = self.random.usize(0..self.readers.len());
        let takes = self.random.usize(1..=32);
        let log = self.log.clone();
        self.readers[at].read(&log, takes).await;
        if self.random.u32(0..6) == 0 {
            self.readers[at].ask_for_its_place(&log);
        }
    }

    async fn drain(&mut self) {
        for server in 0..self.servers.len() {
            for partition in self.log.partitions() {
                if !self.servers[server].fed.contains_key(&partition) {
                    let (first, _) = self.log.bounds(&partition);
                    self.open(server, &partition, first).await;
                }
            }
        }
        for _ in 0..10_000 {
            self.feed(64).await;
            let fed = |server: &Server| {
                server.fed.iter().all(|(partition, fed)| {
                    let (first, next) = self.log.bounds(partition);
                    *fed >= first && self.log.records(partition, *fed..next).is_empty()
                })
            };
            if self.servers.iter().all(fed) {
                break;
            }
        }
        let log = self.log.clone();
        for reader in &mut self.readers {
            while reader.read(&log, 32).await {}
            for (partition, wants) in &reader.wants {
                let (_, next) = log.bounds(partition);
                let left = reader.shown(log.records(partition, *wants..next));
                assert!(left.is_empty(), "{partition}: {} never came, from {wants} on", left.len());
            }
        }
    }

    fn any_partition(&mut self) -> Partition {
        let partitions = self.log.partitions();
        partitions[self.random.usize(0..partitions.len())].clone()
    }
}

impl Reader {
    /// Whether there was anything to take.
    async fn read(&mut self, log: &SharedLog, takes: usize) -> bool {
        let mut found = Vec::new();
        let next = std::future::poll_fn(|_| {
            let mut context = Context::from_waker(Waker::noop());
            let polled = self.subscription.poll_next(&mut context, &self.turn, &mut found);
            std::task::Poll::Ready(polled)
        })
        .await;
        match next {
            std::task::Poll::Ready(Next::AtTip) => return false,
            std::task::Poll::Ready(Next::Notice(_)) => return true,
            std::task::Poll::Pending => {
                // A block is under way, on this runtime.
                tokio::time::advance(Duration::from_millis(1)).await;
                tokio::task::yield_now().await;
                return true;
            }
            std::task::Poll::Ready(Next::Frames) => {}
            std::task::Poll::Ready(Next::Over) => panic!("no partition is begun anew here"),
        }
        found.truncate(takes);
        for delivery in &found {
            self.check(delivery, log);
        }
        self.subscription.accept(&found);
        true
    }

    fn check(&mut self, delivery: &Delivery, log: &SharedLog) {
        let (partition, offset) = meta_of(delivery);
        let wants = self.wants.entry(partition.clone()).or_insert(Offset(0));
        assert!(offset >= *wants, "{partition} {offset} came again, {wants} was next");
        let wanted = *wants;
        *wants = offset.after();
        let missed = self.shown(log.records(&partition, wanted..offset));
        assert!(missed.is_empty(), "{partition}: {} lost between {wanted} and {offset}", missed.len());
        assert!(!is_canary(delivery.body().raw()) || self.set.view().canaries, "{partition} {offset} is a canary");
        self.delivered += 1;
        let head = std::str::from_utf8(delivery.head().raw()).expect("ASCII");
        let id = head.strip_prefix("event: message\nid: ").and_then(|rest| rest.strip_suffix('\n')).expect("an id");
        self.check_id(id);
        self.id = Some(id.to_owned());
    }

    /// What is told without an event is as good as an id: nothing that the reader is to see lies before it.
    fn ask_for_its_place(&mut self, log: &SharedLog) {
        let Some(id) = self.subscription.position() else { return };
        let id = String::from_utf8(id).expect("ASCII");
        self.check_id(&id);
        for place in ClientId::parse(&id, &[]).expect("an id").places() {
            let crate::model::Mark::At { next, .. } = place.mark else { panic!("{place:?}") };
            let Some(wants) = self.wants.insert(place.partition.clone(), next) else { continue };
            let passed = self.shown(log.records(&place.partition, wants..next));
            assert!(passed.is_empty(), "{}: {} never came, and its place is {next}", place.partition, passed.len());
        }
        assert_eq!(self.subscription.position(), None, "told once");
        self.id = Some(id);
    }

    fn shown(&self, records: Vec<Record>) -> Vec<Record> {
        let canaries = self.set.view().canaries;
        let shown = |value: &[u8]| value.starts_with(b"{") && (canaries || !is_canary(value));
        records.into_iter().filter(|record| record.value.as_deref().is_some_and(shown)).collect()
    }

    /// The id never says more than the reader has had, and never less than it has had of its own partition.
    fn check_id(&self, id: &str) {
        let id = ClientId::parse(id, &[]).expect("an id");
        for place in id.places() {
            let crate::model::Mark::At { next, .. } = place.mark else { panic!("{place:?}") };
            if let Some(wants) = self.wants.get(&place.partition) {
                let skipped_only = next >= *wants;
                assert!(skipped_only, "{}: the id went back to {next} from {wants}", place.partition);
            }
        }
    }
}

fn is_canary(value: &[u8]) -> bool {
    value.windows(CANARY.len()).any(|window| window == CANARY)
}

fn meta_of(delivery: &Delivery) -> (Partition, Offset) {
    let text = std::str::from_utf8(delivery.body().raw()).expect("UTF-8");
    let json: serde_json::Value = serde_json::from_str(text.trim_start_matches("data: ").trim()).expect("JSON");
    let meta = &json["meta"];
    let topic = Topic::new(meta["topic"].as_str().expect("a topic"));
    let index = i32::try_from(meta["partition"].as_i64().expect("a partition")).expect("small");
    (Partition::new(&topic, index), Offset(meta["offset"].as_i64().expect("an offset")))
}
