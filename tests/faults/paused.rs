//! Producers while the broker stands still: each is told in time, what waits is bounded, and when the broker is back so is
//! everything.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ledger;
use crate::load::{Fate, Load, is_overloaded};
use crate::raw::{Answer, Raw};
use crate::server::{Options, Server};
use crate::support::{self, KafkaNode};

const PARTITIONS: i32 = 3;
const CONNECTIONS: usize = 64;
const DEADLINE: Duration = Duration::from_secs(3);
/// Told at once is told in less, and at the deadline in more.
const AT_ONCE: Duration = Duration::from_secs(2);
const IN_FLIGHT_BYTES: usize = 1 << 20;
/// At most two of them fit at once.
const LARGE_BYTES: usize = 400 << 10;
const LARGE_POSTS: usize = 8;
/// Many times what may wait, so that it would show if it were kept; in pieces of which few fit, so that few have to wait.
/// Not more at once: what is refused at once is judged before, and a busy machine has enough to do.
const FLOOD_CONNECTIONS: usize = 16;
const FLOOD_POSTS: usize = 32;
const FLOOD_POST_BYTES: usize = 256 << 10;
/// What buffers of connections, the allocator and librdkafka may come to hold beside what may wait.
const SLACK_BYTES: usize = 32 << 20;

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn while_the_broker_stands_still_every_producer_is_told_in_time_and_memory_stays_flat() {
    let world = World::start().await;
    world.all_told(&[Fate::Accepted]).await;
    let resident = world.resident_bytes();
    world.node.pause().await;
    // These meet a log that seems to be there: what gets in waits for its deadline.
    world.what_does_not_fit_is_refused_before_what_waits_is_answered().await;
    world.flood().await;
    world.all_told(&[Fate::NotWritten, Fate::Unknown]).await;
    // By now the log is known to be away.
    let slow = world.all_told(&[Fate::NotWritten, Fate::Unknown]).await;
    assert!(slow <= 1, "one of {CONNECTIONS} is let through as a trial, and {slow} waited");
    world.hasty_posts_are_answered().await;
    let grown = world.resident_bytes().saturating_sub(resident);
    println!(
        "{} MiB were posted, resident memory grew by {} KiB",
        (FLOOD_CONNECTIONS * FLOOD_POSTS * FLOOD_POST_BYTES) >> 20,
        grown >> 10
    );
    assert!(grown < IN_FLIGHT_BYTES + SLACK_BYTES, "resident memory grew by {grown} bytes");
    world.node.resume().await;
    while world.load.post(world.server.address, 1).await[0].1 != Fate::Accepted {}
    world.all_told(&[Fate::Accepted]).await;
    let log = ledger::records(&world.node.broker(), &world.topics, PARTITIONS).await;
    world.load.check_promises(&log).await;
}

/// The server goes before the broker.
struct World {
    server: Server,
    load: Arc<Load>,
    topics: [String; 1],
    node: KafkaNode,
}

impl World {
    async fn start() -> Self {
        let node = KafkaNode::start().await;
        let topics = [support::unique("paused")];
        node.broker().create_topic(&topics[0], PARTITIONS, &[]).await;
        let options = Options::default().kafka(&node.bootstrap());
        let options = options.streams(&format!("{}: {{schema_title: test/event, topics: [{0}]}}", topics[0]));
        let options = options.env("SLUICE__INTAKE__DEADLINE", &format!("{}s", DEADLINE.as_secs()));
        let options = options.env("SLUICE__INTAKE__MAX_INFLIGHT_BYTES", &IN_FLIGHT_BYTES.to_string());
        let server = Server::start(options).await;
        Self { server, load: Load::with_deadline(&topics, 0, DEADLINE), topics, node }
    }

    /// One POST on each connection, all at once; `Load` looks at the answers. How many of them waited for theirs.
    async fn all_told(&self, expected: &'static [Fate]) -> usize {
        let mut posts = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (load, address) = (self.load.clone(), self.server.address);
            posts.spawn(async move {
                let asked = Instant::now();
                (load.post(address, 1).await[0].1, asked.elapsed())
            });
        }
        let told = posts.join_all().await;
        for (told, _) in &told {
            assert!(expected.contains(told), "told {told:?}, and not one of {expected:?}");
        }
        let at_once = told.iter().filter(|(_, took)| *took < AT_ONCE);
        println!(
            "{} of {CONNECTIONS} at once, the slowest of them after {:?}",
            at_once.clone().count(),
            at_once.clone().map(|(_, took)| took).max()
        );
        told.len() - at_once.count()
    }

    /// While the broker stands still, because nobody lets it go on before this is over.
    async fn hasty_posts_are_answered(&self) {
        let mut posts = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let ((_, body), address) = (self.load.batch(1, 500), self.server.address);
            posts.spawn(async move {
                let mut raw = Raw::connect(address).await;
                let asked = Instant::now();
                (post_hastily(&mut raw, &body).await, asked.elapsed())
            });
        }
        let answers = posts.join_all().await;
        for (answer, _) in &answers {
            assert_eq!(answer.status(), 202, "{answer:?}");
        }
        println!("the slowest hasty answer took {:?}", answers.iter().map(|(_, took)| took).max());
    }

    async fn what_does_not_fit_is_refused_before_what_waits_is_answered(&self) {
        let mut posts = JoinSet::new();
        for _ in 0..LARGE_POSTS {
            let ((_, body), address) = (self.load.batch(1, LARGE_BYTES), self.server.address);
            posts.spawn(async move { Raw::connect(address).await.post(&body).await });
        }
        let mut overloaded = Vec::new();
        while let Some(answer) = posts.join_next().await {
            let answer = answer.expect("an answer");
            assert_eq!((answer.status(), answer.header("retry-after")), (503, "1"), "{:?}", answer.head);
            overloaded.push(is_overloaded(&answer.json()));
        }
        let refused = overloaded.iter().take_while(|overloaded| **overloaded).count();
        assert!(
            (LARGE_POSTS - 2..LARGE_POSTS).contains(&refused),
            "two fit, the others are told first: {overloaded:?}"
        );
        assert!(!overloaded[refused..].contains(&true), "nobody is refused late: {overloaded:?}");
    }

    async fn flood(&self) {
        let mut floods = JoinSet::new();
        for _ in 0..FLOOD_CONNECTIONS {
            let (load, address) = (self.load.clone(), self.server.address);
            floods.spawn(async move {
                for _ in 0..FLOOD_POSTS {
                    let told = load.post_padded(address, 1, FLOOD_POST_BYTES).await[0].1;
                    assert_ne!(told, Fate::Accepted, "the log stands still");
                }
            });
        }
        floods.join_all().await;
    }

    fn resident_bytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.pid())).expect("the server runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its resident memory");
        let kib: usize = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
        kib << 10
    }
}

async fn post_hastily(raw: &mut Raw, body: &str) -> Answer {
    let head = "POST /v1/events?hasty=true HTTP/1.1\r\nHost: x\r\nContent-Type: application/json";
    raw.send(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
    raw.answer().await
}
