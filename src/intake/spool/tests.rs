//! What the spool promises, over a log that does as it is told.

mod edges;

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use fastrand::Rng;
use tokio::task::JoinSet;

use super::fake::{Fake, Mood, pace, text};
use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(20);

/// A spool, and the folder it is in.
pub(super) struct World {
    log: Arc<Fake>,
    pub(super) spool: Spool,
    folder: Arc<tempfile::TempDir>,
}

impl World {
    pub(super) fn new(mood: Mood) -> Self {
        Self::on(Fake::new(mood), Arc::new(tempfile::tempdir().expect("a folder")), &enabled())
    }

    fn on(log: Arc<Fake>, folder: Arc<tempfile::TempDir>, options: &Options) -> Self {
        let spool = open(&log, &folder, options, 0, false).expect("a spool").expect("something in it");
        Self { log, spool, folder }
    }

    /// With an end, and a log that is away.
    fn of_bytes(max_bytes: u64) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        Self::on(Fake::new(Mood::Away), folder, &Options { enabled: true, max_bytes })
    }

    /// Who has the file open, too.
    fn somebody_else(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join(store::FILE_NAME)).expect("the file")
    }

    async fn append(&self, records: Vec<NewRecord>) -> Vec<Fate> {
        self.spool.append(records, Arc::new(()), Instant::now() + DEADLINE).await
    }

    async fn one(&self, value: &str) -> Fate {
        self.append(vec![record("t", "", value)]).await.remove(0)
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&Status) -> bool) {
        let mut look = tokio::time::interval(Duration::from_millis(2));
        let reached = async {
            while !holds(&self.spool.status()) {
                look.tick().await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        assert!(reached.is_ok(), "{what}: {:?}", self.spool.status());
    }

    async fn until_empty(&self) {
        self.until("it gets empty", |status| status.events == 0).await;
    }

    /// The same file, as another process finds it.
    async fn again(self, options: &Options) -> Self {
        self.spool.close().await;
        let Self { log, spool, folder } = self;
        drop(spool);
        Self::on(log, folder, options)
    }
}

fn open(
    log: &Arc<Fake>,
    folder: &tempfile::TempDir,
    options: &Options,
    free_bytes_min: u64,
    waits: bool,
) -> Result<Option<Spool>, OpenError> {
    let place = Place { folder: folder.path().to_owned(), free_bytes_min, waits };
    Spool::open_at(pace(), options, &place, DEADLINE, log.clone(), Handle::current())
}

fn enabled() -> Options {
    Options { enabled: true, ..Options::default() }
}

pub(super) fn record(topic: &str, key: &str, value: &str) -> NewRecord {
    let key = Some(Bytes::copy_from_slice(key.as_bytes()));
    let value = Some(Bytes::copy_from_slice(value.as_bytes()));
    NewRecord { topic: Topic::new(topic), time: Timestamp(5), key, value }
}

fn why(fate: Fate) -> String {
    match fate {
        Err(why) => format!("{why:?}"),
        Ok(kept) => panic!("it is taken: {kept:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_log_takes_events_nothing_is_spooled() {
    let world = World::new(Mood::Takes);
    assert_eq!(world.one("a").await, Ok(Kept::Log));
    assert_eq!(world.spool.status().events, 0);
    assert_eq!(world.log.values(), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_does_not_take_is_spooled_and_sent_on_before_what_comes_later() {
    let world = World::new(Mood::Away);
    for value in ["a", "b", "c"] {
        assert_eq!(world.one(value).await, Ok(Kept::Spool));
    }
    let status = world.spool.status();
    assert_eq!((status.events, status.fault), (3, None));
    assert!(status.oldest.is_some() && status.bytes > 3, "{:?}", world.spool.status());
    world.log.is(Mood::Takes);
    world.one("d").await.expect("it is taken");
    world.until_empty().await;
    assert_eq!(world.one("e").await, Ok(Kept::Log));
    assert_eq!(world.log.values(), ["a", "b", "c", "d", "e"]);
    assert_eq!(world.log.taken.lock()[0], record("t", "", "a"), "as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_an_answer_is_not_waited_for_by_those_who_come_later() {
    let world = Arc::new(World::new(Mood::Hangs));
    let early = world.clone();
    let early = Handle::current().spawn(async move { early.one("early").await });
    let mut kept = None;
    world.until("the log is asked", |_| *world.log.asked.lock() == 1).await;
    while kept.is_none() {
        let asked = world.one("later");
        // Those that come before it is suspect hang, too.
        kept = tokio::time::timeout(pace().suspect, asked).await.ok();
    }
    assert_eq!(kept, Some(Ok(Kept::Spool)));
    assert!(!early.is_finished());
    world.log.is(Mood::Takes);
    assert_eq!(early.await.expect("an answer"), Ok(Kept::Spool), "the log did not know");
    world.until_empty().await;
    assert!(world.log.values().contains(&"early".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_refused_is_the_logs_answer_and_canaries_are_never_spooled() {
    let world = World::new(Mood::Lacks(Topic::new("gone")));
    let canary = record(CANARY, "", "canary");
    let fates = world.append(vec![record("t", "", "large"), record("gone", "", "a"), canary.clone()]).await;
    assert!(matches!(fates[0], Err(AppendError::TooLarge(_))), "{fates:?}");
    assert!(matches!(fates[1], Err(AppendError::Refused(_))), "{fates:?}");
    assert_eq!(fates[2], Ok(Kept::Log));
    world.log.is(Mood::Away);
    assert_eq!(world.one("a").await, Ok(Kept::Spool));
    assert!(why(world.append(vec![canary]).await.remove(0)).contains("NotWritten"));
    assert_eq!(world.spool.status().events, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_and_says_so_until_there_is_room() {
    let world = World::of_bytes(500);
    let mut taken = 0;
    let refused = loop {
        match world.one("x").await {
            Ok(_) => taken += 1,
            refused => break why(refused),
        }
    };
    assert!(taken > 0 && refused.contains("NotWritten") && refused.contains("intake.spool.max_bytes"), "{refused}");
    assert!(world.spool.status().fault.is_some_and(|fault| fault.contains("full")));
    assert!(world.spool.status().bytes <= 500);
    world.log.is(Mood::Takes);
    world.until_empty().await;
    world.until("there is room", |status| status.fault.is_none()).await;
    assert_eq!(world.log.values().len(), taken, "what was refused is not in the log");
    world.log.is(Mood::Away);
    assert_eq!(world.one("y").await, Ok(Kept::Spool));
    assert_eq!(world.spool.status().fault, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_larger_than_the_spool_is_refused_and_is_no_fault_of_the_spool() {
    let world = World::of_bytes(500);
    let refused = why(world.one(&"x".repeat(900)).await);
    assert!(refused.contains("NotWritten") && refused.contains("this alone is more"), "{refused}");
    assert_eq!(world.spool.status().fault, None);
    assert_eq!(world.one("x").await, Ok(Kept::Spool));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_full_of_what_was_set_aside_has_room_when_that_is_dropped() {
    let world = World::of_bytes(500);
    assert_eq!(world.one(&format!("large {}", "x".repeat(300))).await, Ok(Kept::Spool));
    world.log.is(Mood::Takes);
    world.until_empty().await;
    world.log.is(Mood::Away);
    assert!(why(world.one(&"x".repeat(300)).await).contains("full"));
    let World { log, spool, folder } = world;
    let desk = Desk::new(Arc::new(spool));
    assert!(desk.status().fault.is_some());
    assert_eq!(desk.drop_aside().await, Ok(1));
    let world = World { log, spool: desk.into_spool(), folder };
    world.until("there is room", |status| status.fault.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_with_too_little_space_refuses_until_it_has_more() {
    let log = Fake::new(Mood::Away);
    let folder = tempfile::tempdir().expect("a folder");
    let spool = open(&log, &folder, &enabled(), u64::MAX, false).expect("a spool").expect("it is wanted");
    let world = World { log, spool, folder: Arc::new(folder) };
    assert!(why(world.one("a").await).contains("free space"));
    assert!(world.spool.status().fault.is_some_and(|fault| fault.contains("free space")));
    // A file system that does not say how much it has is taken to have enough.
    let elsewhere = tempfile::tempdir().expect("a folder");
    std::fs::rename(world.folder.path(), elsewhere.path().join("moved")).expect("it is moved");
    world.until("there is space", |status| status.fault.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_refuses_until_it_works_again() {
    let world = World::new(Mood::Away);
    let other = world.somebody_else();
    other.execute_batch("BEGIN IMMEDIATE").expect("somebody writes");
    let refused = why(world.one("b").await);
    assert!(refused.contains("cannot be written") && refused.contains("NotWritten"), "{refused}");
    assert!(world.spool.status().fault.is_some_and(|fault| fault.contains("cannot be written")));
    other.execute_batch("ROLLBACK").expect("and stops");
    world.until("it works", |status| status.fault.is_none()).await;
    assert_eq!(world.one("c").await, Ok(Kept::Spool));
    world.log.is(Mood::Takes);
    world.until_empty().await;
    assert_eq!(world.log.values(), ["c"], "what was refused is not in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_set_aside_alone() {
    let world = World::new(Mood::Away);
    for value in ["a", "large", "b"] {
        assert_eq!(world.one(value).await, Ok(Kept::Spool));
    }
    world.log.is(Mood::Takes);
    world.until_empty().await;
    assert_eq!(world.log.values(), ["a", "b"]);
    let World { log, spool, folder } = world;
    let desk = Desk::new(Arc::new(spool));
    let aside = desk.look_aside(10).await.expect("a list");
    assert_eq!((aside.len(), aside[0].topic.as_str(), desk.status().aside), (1, "t", 1));
    assert!(aside[0].reason.contains("large") && aside[0].bytes > 5, "{aside:?}");
    assert_eq!(desk.drop_aside().await, Ok(1));
    assert_eq!((desk.status().aside, desk.status().bytes), (0, 0));
    drop((log, folder));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_gone_holds_up_nobody_and_can_be_tried_again() {
    let world = World::new(Mood::Away);
    let both = |n: usize| vec![record("gone", "", &format!("g{n}")), record("t", "", &format!("t{n}"))];
    for n in 0..1_200 {
        assert_eq!(world.append(both(n)).await, vec![Ok(Kept::Spool); 2]);
    }
    world.log.is(Mood::Lacks(Topic::new("gone")));
    world.until("the other topic is through", |_| world.log.values().len() == 1_200).await;
    world.until_empty().await;
    assert_eq!(world.spool.status().aside, 1_200);
    assert!(matches!(world.append(both(7)).await[..], [Err(AppendError::Refused(_)), Ok(Kept::Log)]));
    let World { log, spool, folder } = world.again(&enabled()).await;
    let desk = Desk::new(Arc::new(spool));
    assert_eq!(desk.status().aside, 1_200, "after a restart, too");
    log.is(Mood::Takes);
    assert_eq!(desk.retry().await, Ok(1_200));
    let spool = desk.into_spool();
    let world = World { log, spool, folder };
    world.until_empty().await;
    let gone: Vec<String> = world.log.values().into_iter().filter(|value| value.starts_with('g')).collect();
    assert_eq!(gone, (0..1_200).map(|n| format!("g{n}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_what_was_spooled_comes_first() {
    let world = World::new(Mood::Away);
    for value in ["a", "b"] {
        assert_eq!(world.one(value).await, Ok(Kept::Spool));
    }
    let world = world.again(&enabled()).await;
    assert_eq!(world.spool.status().events, 2);
    assert_eq!(world.one("c").await, Ok(Kept::Spool));
    world.log.is(Mood::Takes);
    world.until_empty().await;
    assert_eq!(world.log.values(), ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_is_switched_off_is_emptied_and_takes_nothing() {
    let world = World::new(Mood::Away);
    assert_eq!(world.one("a").await, Ok(Kept::Spool));
    let world = world.again(&Options::default()).await;
    let soon = Instant::now() + pace().suspect;
    let refused = world.spool.append(vec![record("t", "", "b")], Arc::new(()), soon).await.remove(0);
    assert!(why(refused).contains("spooled earlier"));
    world.log.is(Mood::Takes);
    assert_eq!(world.one("c").await, Ok(Kept::Log));
    assert_eq!(world.log.values(), ["a", "c"]);
    world.log.is(Mood::Away);
    assert!(why(world.one("d").await).contains("NotWritten"));
    world.spool.close().await;
    let World { log, spool, folder } = world;
    drop(spool);
    let none = open(&log, &folder, &Options::default(), 0, false).expect("no fault");
    assert!(none.is_none(), "nothing is in it any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_waits_for_the_one_that_leaves_and_sends_what_that_has_spooled_first() {
    let first = World::new(Mood::Away);
    assert_eq!(first.one("a").await, Ok(Kept::Spool));
    let log = Fake::new(Mood::Takes);
    assert!(matches!(open(&log, &first.folder, &enabled(), 0, false), Err(OpenError::InUse { .. })));
    let spool = open(&log, &first.folder, &enabled(), 0, true).expect("it waits").expect("it is wanted");
    let second = Arc::new(World { log, spool, folder: first.folder.clone() });
    assert!(second.spool.status().fault.is_some());
    let soon = Instant::now() + pace().suspect;
    let early = second.spool.append(vec![record("t", "", "early")], Arc::new(()), soon).await.remove(0);
    assert!(why(early).contains("another process"));
    let waits = second.clone();
    let waits = Handle::current().spawn(async move { waits.one("b").await });
    first.spool.close().await;
    waits.await.expect("an answer").expect("it is taken");
    second.until_empty().await;
    assert_eq!(second.log.values(), ["a", "b"]);
    assert_eq!(second.spool.status().fault, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_never_quiet_comes_out_of_its_spool() {
    let world = Arc::new(World::new(Mood::Away));
    for n in 0..20 {
        assert_eq!(world.one(&format!("{n}")).await, Ok(Kept::Spool));
    }
    world.log.is(Mood::Takes);
    let mut producers = JoinSet::new();
    for producer in 0..8 {
        let world = world.clone();
        producers.spawn(async move {
            // They go on without a pause until they all get through.
            let mut direct = 0;
            for n in 0.. {
                let kept = world.one(&format!("{producer}/{n}")).await.expect("it is taken");
                direct = if kept == Kept::Log { direct + 1 } else { 0 };
                if direct > 100 {
                    return;
                }
            }
        });
    }
    tokio::time::timeout(PATIENCE, producers.join_all()).await.expect("they get through");
}

const SEEDS: u64 = 6;
const PRODUCERS: usize = 6;
const POSTS: usize = 60;

/// The model: whatever the log does, what was accepted is in it, in the order of its key, and twice only if the log did
/// not know of it.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_log_does_nothing_accepted_is_lost_and_no_key_is_out_of_order() {
    for seed in 0..SEEDS {
        let log = Fake::seeded(Mood::Wild, seed);
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let world = Arc::new(World::on(log, folder, &enabled()));
        let mut producers = JoinSet::new();
        for producer in 0..PRODUCERS {
            producers.spawn(produce(world.clone(), seed, producer));
        }
        let accepted: Vec<(String, Vec<String>)> = producers.join_all().await;
        let mut world = Arc::into_inner(world).expect("the producers are done");
        if seed % 2 == 1 {
            world = world.again(&enabled()).await;
        }
        world.log.is(Mood::Takes);
        world.until_empty().await;
        check(seed, &world.log, &accepted);
    }
}

/// One key, one post after the other; what was accepted, in that order.
async fn produce(world: Arc<World>, seed: u64, producer: usize) -> (String, Vec<String>) {
    let mut rng = Rng::with_seed(seed * 1_000 + producer as u64);
    let (topic, key) = (["a", "b"][producer % 2], format!("k{producer}"));
    let mut accepted = Vec::new();
    for post in 0..POSTS {
        let values: Vec<String> = (0..rng.usize(1..4)).map(|n| format!("{key}-{post}-{n}")).collect();
        let records = values.iter().map(|value| record(topic, &key, value)).collect();
        let fates = world.append(records).await;
        accepted.extend(values.into_iter().zip(fates).filter(|(_, fate)| fate.is_ok()).map(|(value, _)| value));
    }
    (key, accepted)
}

fn check(seed: u64, log: &Fake, accepted: &[(String, Vec<String>)]) {
    let taken = log.taken.lock();
    let mut times: HashMap<String, usize> = HashMap::new();
    let mut first: HashMap<String, Vec<String>> = HashMap::new();
    for record in taken.iter() {
        let seen = times.entry(text(record)).or_default();
        *seen += 1;
        if *seen == 1 {
            let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
            first.entry(key).or_default().push(text(record));
        }
    }
    let unsure = log.unsure.lock();
    for (value, times) in &times {
        assert!(*times == 1 || unsure.contains(value.as_bytes()), "seed {seed}: {value} is there {times} times");
    }
    for (key, accepted) in accepted {
        let set: HashSet<&String> = accepted.iter().collect();
        let found: Vec<String> = first[key].iter().filter(|value| set.contains(value)).cloned().collect();
        assert_eq!(&found, accepted, "seed {seed}, key {key}");
        assert_eq!(accepted.len(), set.len());
    }
}
