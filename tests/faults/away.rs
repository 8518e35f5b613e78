//! A steady load on a broker that goes away for longer than producers wait, without a spool: it is told at once, and served as
//! soon as the broker is back. What stalls for less refuses nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::ledger;
use crate::load::{Fate, Load};
use crate::server::{Options, Server};
use crate::support::{self, KafkaNode, PATIENCE, eventually};

const PARTITIONS: i32 = 3;
const DEADLINE: Duration = Duration::from_secs(6);
/// One POST each time.
const EVERY: Duration = Duration::from_millis(10);
const EVENTS_EACH: u64 = 10;
/// A stall of about that: POSTs wait so long, and are far from their deadline.
const STALL: Duration = Duration::from_secs(2);
/// Told at once is told in less, and at the deadline in more. (It is milliseconds; the rest is a busy machine's.)
const AT_ONCE: Duration = Duration::from_secs(3);
/// From the first refusal on at its deadline to the first at once: one second of failures, and what a busy machine adds.
const KNOWN_WITHIN: Duration = Duration::from_secs(4);
const BACK_WITHIN: Duration = Duration::from_secs(5);
const TRIALS: usize = 2;

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn while_the_log_is_away_producers_are_told_at_once_and_a_short_stall_refuses_nobody() {
    let world = World::start().await;
    world.until_accepted_after(Instant::now()).await;
    world.stalls().await;
    world.node.pause().await;
    world.is_away("stands still").await;
    world.node.resume().await;
    world.is_back("went on").await;
    world.node.stop().await;
    world.is_away("is stopped").await;
    world.node.start_again().await;
    world.is_back("was started").await;
    world.check().await;
}

struct World {
    server: Server,
    load: Arc<Load>,
    topics: [String; 1],
    told: Arc<Mutex<Vec<Told>>>,
    waiting: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    posts: JoinSet<()>,
    node: KafkaNode,
}

/// What a POST was answered.
#[derive(Clone, Debug)]
struct Told {
    asked: Instant,
    took: Duration,
    fates: Vec<Fate>,
}

impl Told {
    fn is_accepted(&self) -> bool {
        self.fates.iter().all(|fate| *fate == Fate::Accepted)
    }

    fn is_refused_at_once(&self) -> bool {
        self.took < AT_ONCE && self.fates.iter().all(|fate| *fate == Fate::NotWritten)
    }
}

impl World {
    async fn start() -> Self {
        let node = KafkaNode::start().await;
        let topics = [support::unique("away")];
        node.broker().create_topic(&topics[0], PARTITIONS, &[]).await;
        let options = Options::default().kafka(&node.bootstrap());
        let options = options.streams(&format!("{}: {{schema_title: test/event, topics: [{0}]}}", topics[0]));
        let server = Server::start(options.env("SLUICE__INTAKE__DEADLINE", &format!("{}s", DEADLINE.as_secs()))).await;
        let load = Load::with_deadline(&topics, 0, DEADLINE);
        let (told, waiting, over) = (Arc::default(), Arc::default(), Arc::default());
        let mut posts = JoinSet::new();
        posts.spawn(post_steadily(
            load.clone(),
            server.address,
            Arc::clone(&told),
            Arc::clone(&waiting),
            Arc::clone(&over),
        ));
        Self { server, load, topics, told, waiting, over, posts, node }
    }

    /// The broker stands still for a moment.
    async fn stalls(&self) {
        self.node.pause().await;
        let begin = Instant::now();
        let many = eventually(PATIENCE, async || begin.elapsed() >= STALL).await;
        let waited = self.waiting.load(Ordering::Relaxed);
        self.node.resume().await;
        let stalled = begin.elapsed();
        assert!(many && stalled < DEADLINE - AT_ONCE, "the test itself stalled: {stalled:?}");
        self.until_accepted_after(Instant::now()).await;
        self.until(|told| told.iter().filter(|told| told.asked >= begin).count() > waited).await;
        let refused: Vec<Told> = self.told.lock().iter().filter(|told| !told.is_accepted()).cloned().collect();
        assert!(refused.is_empty() && waited > 10, "{waited} waited, and some were refused: {refused:?}");
        println!("a stall of {stalled:?}: {waited} POSTs waited, and all were accepted");
    }

    async fn is_away(&self, how: &str) {
        let begin = Instant::now();
        self.until(|told| told.iter().any(|told| told.asked >= begin && told.is_refused_at_once())).await;
        let known = Instant::now();
        assert!(known - begin < DEADLINE + KNOWN_WITHIN, "it was known after {:?}", known - begin);
        // Trials, which are told at their deadline.
        let is_trial = |told: &&Told| told.asked >= known && told.took >= AT_ONCE;
        self.until(|told| told.iter().filter(is_trial).count() >= TRIALS).await;
        let told: Vec<Told> = self.told.lock().iter().filter(|told| told.asked >= known).cloned().collect();
        let (mut took, trials): (Vec<Duration>, Vec<&Told>) = (
            told.iter().filter(|told| !is_trial(told)).map(|told| told.took).collect(),
            told.iter().filter(is_trial).collect(),
        );
        assert!(trials.len() <= TRIALS + 1, "one trial at a time: {trials:?}");
        assert!(told.iter().all(|told| !told.is_accepted()), "the broker {how}");
        took.sort();
        println!(
            "the broker {how}: known after {:?}; then {} POSTs were refused, half within {:?}, 99 % within {:?}, all within {:?}, and {} trials at their deadline",
            known - begin,
            took.len(),
            took[took.len() / 2],
            took[took.len() * 99 / 100],
            took[took.len() - 1],
            trials.len()
        );
        assert!(took.len() > 100, "producers went on meanwhile");
    }

    async fn is_back(&self, how: &str) {
        let back = Instant::now();
        self.until_accepted_after(back).await;
        let first = back.elapsed();
        println!("after the broker {how} the first POST that was sent then was accepted within {first:?}");
        assert!(first < BACK_WITHIN);
        let open = Instant::now();
        self.until(|told| told.iter().filter(|told| told.asked >= open).count() >= 100).await;
        let refused = self.told.lock().iter().filter(|told| told.asked >= open && !told.is_accepted()).count();
        assert_eq!(refused, 0, "it is open for all");
    }

    /// A POST that was sent after this.
    async fn until_accepted_after(&self, then: Instant) {
        self.until(|told| told.iter().rev().any(|told| told.asked >= then && told.is_accepted())).await;
    }

    async fn until(&self, seen: impl Fn(&[Told]) -> bool) {
        let seen = eventually(PATIENCE, async || seen(&self.told.lock())).await;
        assert!(seen, "it was not seen; the log:\n{}", self.server.stderr());
    }

    async fn check(mut self) {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.posts.join_next().await.expect("the load");
        ended.expect("every POST was answered as promised");
        let log = ledger::records(&self.node.broker(), &self.topics, PARTITIONS).await;
        self.load.check_promises(&log).await;
    }
}

/// Whatever has become of those before.
async fn post_steadily(
    load: Arc<Load>,
    address: std::net::SocketAddr,
    told: Arc<Mutex<Vec<Told>>>,
    waiting: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
) {
    let mut posts = JoinSet::new();
    let mut next = interval(EVERY);
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !over.load(Ordering::Relaxed) {
        next.tick().await;
        while let Some(ended) = posts.try_join_next() {
            told.lock().push(ended.expect("it was answered as promised"));
        }
        let load = load.clone();
        posts.spawn(async move {
            let asked = Instant::now();
            let fates = load.post(address, EVENTS_EACH).await.into_iter().map(|(_, fate)| fate).collect();
            Told { asked, took: asked.elapsed(), fates }
        });
        waiting.store(posts.len(), Ordering::Relaxed);
    }
    posts.join_all().await;
}
