//! Surveys, lags and looks, over a log that says what a test wants it to.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::FutureExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::runtime::Handle;

use super::seen::Seen;
use super::{Health, LOOK_OLD, Options, Sides, State, Step, Trip, survey};
use crate::catalog::{Catalog, Live};
use crate::fetch::Fetcher;
use crate::hub::testing::SharedLog;
use crate::hub::{self, Hub};
use crate::intake::{self, Intake};
use crate::limits::Limits;
use crate::log::{AppendError, Appended, Block, Log, PartitionEnds, ReadError, Sick, Surveyed, Tail, TailBatch};
use crate::metrics::{CANARY_AGE, VERDICT};
use crate::model::{CANARY, NewRecord, Offset, Partition, Timestamp, Topic};
use crate::schema::{self, Schemas};
use crate::shutdown::Shutdown;

const STALL_AFTER: Duration = Duration::from_millis(200);
const AT_MOST: Duration = Duration::from_secs(20);
/// For what is there in a moment, or never.
const SOON: Duration = Duration::from_secs(5);
/// The partition that no stream of the catalogue has.
const CANARYS: usize = 2;

/// The log in memory, with faults.
#[derive(Default)]
struct FaultyLog {
    memory: SharedLog,
    sick: AtomicBool,
    /// The second topic was deleted.
    gone: AtomicBool,
    /// Its ends are so much further than its records.
    gap: AtomicI64,
}

#[async_trait]
impl Log for FaultyLog {
    async fn survey(&self, topics: &[Topic]) -> Result<Vec<Surveyed>, ReadError> {
        let ends = self.memory.ends(topics).await?;
        let sick = |partition: &Partition| partition.topic.as_str() == "b.t" && self.sick.load(Ordering::Relaxed);
        let one = |PartitionEnds { partition, first, next }| {
            let end = Offset(next.0 + self.gap.load(Ordering::Relaxed));
            let fault = Sick { broker: Some("3 (secret.internal:9092)".into()), why: "no leader".into() };
            let ends = if sick(&partition) { Err(fault) } else { Ok(first..end) };
            Surveyed { partition, ends }
        };
        let gone = |partition: &Partition| partition.topic.as_str() == "b.t" && self.gone.load(Ordering::Relaxed);
        Ok(ends.into_iter().filter(|ends| !gone(&ends.partition)).map(one).collect())
    }

    async fn read(&self, partition: &Partition, range: Range<Offset>, bytes: usize) -> Result<Block, ReadError> {
        let end = range.end;
        let block = self.memory.read(partition, range, bytes).await?;
        let is_gap = self.gap.load(Ordering::Relaxed) > 0 && block.records.is_empty();
        Ok(if is_gap { Block { next: end, ..block } } else { block })
    }

    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Appended, AppendError>> {
        self.memory.append(records).await
    }

    async fn ends(&self, topics: &[Topic]) -> Result<Vec<PartitionEnds>, ReadError> {
        self.memory.ends(topics).await
    }

    async fn at_time(&self, wanted: &[(Partition, Timestamp)]) -> Result<Vec<Offset>, ReadError> {
        self.memory.at_time(wanted).await
    }

    async fn before(&self, partition: &Partition, at: Offset) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        self.memory.before(partition, at).await
    }

    async fn tail(&self, topics: Vec<Topic>, warm: u64) -> Box<dyn Tail> {
        self.memory.tail(topics, warm).await
    }

    async fn check(&self) -> Result<(), ReadError> {
        self.memory.check().await
    }

    async fn close(&self) {}

    fn describe(&self) -> String {
        self.memory.describe()
    }
}

/// A host whose tail stands where the test leaves it, and whose canaries always come through.
struct Host {
    health: Health,
    log: Arc<FaultyLog>,
    feed: tokio::sync::mpsc::Sender<TailBatch>,
    partitions: Vec<Partition>,
    _shutdown: Shutdown,
}

impl Host {
    async fn start() -> Self {
        let (engine, shutdown, limits) = (Handle::current(), Shutdown::default(), Limits::none());
        let catalog = Catalog::parse("a: {topics: [a.t]}\nb: {topics: [b.t]}", "test").expect("a catalogue");
        let log = Arc::new(FaultyLog::default());
        let topics = catalog.topics().into_iter().chain([Topic::new(CANARY)]);
        let partitions: Vec<Partition> = topics.map(|topic| Partition::new(&topic, 0)).collect();
        partitions.iter().for_each(|partition| log.memory.add_partition(partition));
        let (topics, options) = (catalog.topics(), hub::Options::default());
        let topics = topics.into_iter().chain([Topic::new(CANARY)]).collect();
        let hub = Hub::start(options, limits.clone(), log.clone(), topics, &[], &engine, shutdown.watcher());
        let (hub, catalog) = (hub.expect("a hub"), Live::fixed(catalog));
        let schemas = Schemas::new(&schema::Options::default(), Fetcher::new().expect("a fetcher"), engine.clone());
        let schemas = Arc::new(schemas.expect("schemas"));
        let intake = Intake::new(intake::Options::default(), catalog.clone(), schemas, log.clone(), engine);
        let sides =
            Sides { limits, catalog, hub: hub.clone(), intake: Arc::new(intake), log: log.clone(), gives_out: true };
        let health = Health::new(sides, Options { stall_after: STALL_AFTER, ..Options::default() });
        let feed = loop {
            match log.memory.last_tail() {
                Some(feed) => break feed,
                None => tokio::task::yield_now().await,
            }
        };
        let host = Self { health, log, feed, partitions, _shutdown: shutdown };
        let opened = host.partitions.iter().map(|partition| host.log.memory.opened(partition, Offset(0))).collect();
        host.feed.send(TailBatch { opened, records: vec![], caught_up: true }).await.expect("a tail");
        while hub.began_at().is_none() {
            tokio::task::yield_now().await;
        }
        host
    }

    /// One record, which the tail brings if it is told to.
    async fn put(&self, partition: usize, brought: bool) {
        let partition = &self.partitions[partition];
        let (_, next) = self.log.memory.bounds(partition);
        self.log.memory.put(partition, 0, 1_000, Some("{}"));
        if brought {
            self.bring(partition, next).await;
        }
    }

    async fn bring(&self, partition: &Partition, from: Offset) {
        let (_, next) = self.log.memory.bounds(partition);
        let records = self.log.memory.records(partition, from..next);
        self.feed.send(TailBatch { opened: vec![], records, caught_up: true }).await.expect("a tail");
    }

    /// A canary comes through, the log is asked, and everything is looked at.
    async fn look(&self) -> (State, String) {
        // The tail gets its turn.
        tokio::task::yield_now().await;
        self.health.note(Trip::Made { took: Duration::from_millis(1) });
        survey::ask(&self.health.0).await;
        self.health.0.look();
        let verdict = self.health.verdict();
        assert!(!verdict.cause.contains("secret"), "{verdict:?}");
        (verdict.state, verdict.cause)
    }

    async fn until(&self, state: State) -> String {
        let begun = Instant::now();
        loop {
            let (now, cause) = self.look().await;
            if now == state {
                return cause;
            }
            assert!(begun.elapsed() < AT_MOST, "{now:?}: {cause}, and not {state:?}");
        }
    }
}

#[tokio::test]
async fn a_partition_without_a_leader_is_told_at_the_second_look_and_no_longer_when_it_has_one() {
    let host = Host::start().await;
    assert_eq!(host.look().await.0, State::Quiet);
    host.log.sick.store(true, Ordering::Relaxed);
    assert_eq!(host.look().await.0, State::Quiet, "leaders change");
    assert_eq!(host.look().await, (State::Degraded, "nobody answers for b.t/0 (broker 3)".into()));
    let report = host.health.report();
    assert_eq!((report.partitions.first.len(), report.partitions.first[0].broker_id()), (1, Some("3")));
    assert!(report.verdict.detail.contains("secret.internal"), "operators are told where it is: {report:?}");
    let states: Vec<(State, usize)> = report.streams.states;
    assert_eq!(states, [(State::Quiet, 1), (State::Stalled, 1)], "stream by stream");
    host.log.sick.store(false, Ordering::Relaxed);
    assert_eq!(host.look().await.0, State::Quiet);
}

#[tokio::test]
async fn a_topic_that_was_followed_and_is_gone_is_told_at_the_second_look_until_it_is_back() {
    let host = Host::start().await;
    host.log.gone.store(true, Ordering::Relaxed);
    assert_eq!(host.look().await.0, State::Quiet, "not at the first look");
    assert_eq!(host.look().await, (State::Degraded, "the log has no such topic any more: b.t".into()));
    let report = host.health.report();
    assert_eq!(report.streams.states, [(State::Quiet, 1), (State::Stalled, 1)], "stream by stream");
    let (unhealthy, part) = (&report.streams.unhealthy.first[0], &report.partitions.first[0]);
    assert_eq!((unhealthy.name.as_str(), part.partition.topic.as_str()), ("b", "b.t"));
    assert!(part.sick.as_ref().is_some_and(|sick| sick.why.contains("no such topic")), "{part:?}");
    host.log.gone.store(false, Ordering::Relaxed);
    assert_eq!(host.look().await.0, State::Quiet);
}

#[tokio::test]
async fn a_log_that_does_not_answer_is_told_at_the_second_question_or_at_the_first_if_a_canary_says_so_too() {
    let host = Host::start().await;
    assert_eq!(host.look().await.0, State::Quiet);
    host.log.memory.away.store(true, Ordering::Relaxed);
    assert_eq!(host.look().await.0, State::Quiet);
    host.health.note(Trip::Failed { at: Step::Append, why: "secret.internal".into() });
    assert_eq!(host.health.verdict().state, State::LogUnreachable);
    assert_eq!(host.look().await.0, State::LogUnreachable, "the second question");
    assert!(host.health.report().streams.states.iter().all(|(state, _)| *state == State::LogUnreachable));
    host.log.memory.away.store(false, Ordering::Relaxed);
    assert_eq!(host.look().await.0, State::Quiet);
}

#[tokio::test]
async fn a_log_that_comes_back_is_well_when_a_canary_is_and_one_is_sent_at_once() {
    let host = Host::start().await;
    host.until(State::Quiet).await;
    host.log.memory.away.store(true, Ordering::Relaxed);
    let lost = || host.health.note(Trip::Failed { at: Step::Append, why: "secret.internal".into() });
    for _ in 0..3 {
        survey::ask(&host.health.0).await;
        lost();
    }
    assert_eq!(host.health.verdict().state, State::LogUnreachable);
    host.log.memory.away.store(false, Ordering::Relaxed);
    survey::ask(&host.health.0).await;
    let verdict = host.health.verdict();
    assert_eq!((verdict.state, verdict.cause.contains("answers again")), (State::LogUnreachable, true), "{verdict:?}");
    tokio::time::timeout(AT_MOST, host.health.log_is_back()).await.expect("a canary is to be sent");
    host.health.note(Trip::Made { took: Duration::from_millis(1) });
    assert_eq!(host.health.verdict().state, State::Quiet);
    // And what is refused from then on is not the log that was away.
    lost();
    assert_eq!(host.health.verdict().state, State::Quiet);
    lost();
    assert_eq!(host.health.verdict().state, State::Stalled);
}

#[tokio::test]
async fn half_an_instance_stays_one_when_a_canary_is_lost_until_one_makes_the_whole_trip() {
    let host = Host::start().await;
    host.until(State::Quiet).await;
    host.health.note(Trip::Half { took: Duration::ZERO, missing: "it may not write: no".into() });
    assert_eq!(host.health.verdict().state, State::NotExposed);
    host.health.note(Trip::Failed { at: Step::Append, why: "secret.internal".into() });
    let verdict = host.health.verdict();
    assert_eq!((verdict.state, verdict.cause.contains("may not write")), (State::NotExposed, true), "{verdict:?}");
    host.health.note(Trip::Made { took: Duration::from_millis(1) });
    assert_eq!(host.health.verdict().state, State::Quiet);
}

#[tokio::test]
async fn a_judgement_of_older_facts_never_comes_after_one_of_newer_facts() {
    let host = Host::start().await;
    host.until(State::Quiet).await;
    let health = &host.health.0;
    // Whoever judges stops at the surveys. By then nobody else can: the verdict is taken first.
    let surveys = health.surveys.lock();
    std::thread::scope(|scope| {
        let judging = scope.spawn(|| health.verdict());
        let begun = Instant::now();
        while health.last.try_lock().is_some() && begun.elapsed() < SOON {
            std::thread::yield_now();
        }
        let is_taken = health.last.try_lock().is_none();
        drop(surveys);
        assert_eq!(judging.join().expect("a verdict").state, State::Quiet);
        assert!(is_taken, "the facts are looked up before the verdict is taken");
    });
}

#[tokio::test]
async fn a_canary_that_is_lost_has_the_log_asked_and_one_that_is_not_does_not() {
    let host = Host::start().await;
    host.health.note(Trip::Made { took: Duration::ZERO });
    assert!(host.health.0.doubt.notified().now_or_never().is_none());
    host.health.note(Trip::Failed { at: Step::Read, why: String::new() });
    assert!(host.health.0.doubt.notified().now_or_never().is_some());
}

#[tokio::test]
async fn a_look_that_is_old_is_not_believed() {
    let host = Host::start().await;
    host.until(State::Quiet).await;
    let old = Instant::now().checked_sub(LOOK_OLD).expect("this machine has run for some seconds");
    host.health.0.seen.store(Arc::new(Seen::nothing(old)));
    host.health.verdict();
    assert_eq!(host.health.0.seen.load().partitions.len(), 3, "it has looked anew");
}

#[tokio::test]
async fn what_no_stream_of_the_catalogue_brings_is_no_event_of_users() {
    let host = Host::start().await;
    host.until(State::Quiet).await;
    host.put(CANARYS, true).await;
    // The tail has handed it on when its place has moved.
    let lag = |topic| format!("sluice_consumer_lag{{topic=\"{topic}\",partition=\"0\"}}");
    let brought = || host.health.0.seen.load().partitions[&host.partitions[CANARYS]].came_at.is_some();
    let begun = Instant::now();
    while !brought() {
        assert_eq!(host.look().await.0, State::Quiet);
        assert!(begun.elapsed() < AT_MOST, "the tail brings it");
    }
    assert_eq!(host.look().await.0, State::Quiet);
    let gauges = host.health.gauges();
    assert!(gauges.contains(&lag("a.t")) && !gauges.contains(&lag(CANARY)), "{gauges}");
    host.put(0, true).await;
    host.until(State::Flowing).await;
}

#[tokio::test]
async fn the_state_that_holds_is_one_alone_and_a_canary_that_never_came_is_as_old_as_the_start() {
    let host = Host::start().await;
    survey::ask(&host.health.0).await;
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || host.health.0.look());
    let text = recorder.handle().render();
    let value = |of: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(of)).unwrap_or_else(|| panic!("{of}: {text}"));
        line.trim().parse().expect("a number")
    };
    let holds = host.health.0.last.lock().state;
    for state in State::ALL {
        let of = format!("{}{{state=\"{}\"}}", VERDICT, state.as_str());
        assert_eq!(value(&of), f64::from(u8::from(state == holds)), "{text}");
    }
    assert!(value(CANARY_AGE) > 0.0, "{text}");
}

#[tokio::test]
async fn a_tail_that_stands_still_is_told_from_one_that_is_late_in_a_part() {
    let host = Host::start().await;
    host.put(0, true).await;
    host.until(State::Flowing).await;
    host.put(0, false).await;
    let cause = host.until(State::Stalled).await;
    assert!(cause.contains("stands still while records wait: a.t/0 (1 records"), "{cause}");
    // Another partition goes on: now this one alone is late.
    host.put(1, true).await;
    let cause = host.until(State::Degraded).await;
    assert!(cause.contains("get events late: a.t/0"), "{cause}");
    assert!(host.health.gauges().contains("sluice_consumer_lag{topic=\"a.t\",partition=\"0\"} 1\n"));
    host.bring(&host.partitions[0], Offset(1)).await;
    host.until(State::Flowing).await;
    assert!(host.health.gauges().contains("sluice_consumer_lag{topic=\"a.t\",partition=\"0\"} 0\n"));
}

#[tokio::test]
async fn offsets_that_hold_no_record_are_nothing_to_wait_for() {
    let host = Host::start().await;
    host.put(0, true).await;
    host.until(State::Flowing).await;
    host.log.gap.store(2, Ordering::Relaxed);
    let begun = Instant::now();
    while begun.elapsed() < 3 * STALL_AFTER {
        let (state, cause) = host.look().await;
        assert!(matches!(state, State::Quiet | State::Flowing), "{state:?}: {cause}");
    }
    assert!(host.health.gauges().contains("sluice_consumer_lag{topic=\"a.t\",partition=\"0\"} 0\n"));
}
