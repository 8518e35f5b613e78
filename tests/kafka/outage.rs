//! The broker goes and comes back.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sluice::log::kafka::KafkaLog;
use sluice::log::{AppendError, Log, ReadError};
use sluice::model::{Offset, Partition, Topic};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::support::{KafkaNode, PATIENCE, eventually};
use crate::{DEADLINE, MARGIN, Watched, append_one, new_topic, open, record};

const APPENDERS: usize = 8;

/// Appenders that never stop and never repeat a value.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    appenders: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(log: &Arc<KafkaLog>, topic: &Topic) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let appenders = (0..APPENDERS)
            .map(|appender| {
                let (log, topic) = (log.clone(), topic.clone());
                let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
                tokio::runtime::Handle::current().spawn(async move {
                    let mut taken = Vec::new();
                    for number in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let value = format!("{appender} {number}");
                        let answer = append_one(&log, record(&topic, value.clone())).await;
                        assert!(!matches!(answer, Err(AppendError::Refused(_))), "an outage passes: {answer:?}");
                        if answer.is_ok() {
                            taken.push(value);
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    taken
                })
            })
            .collect();
        Self { stop, acknowledged, appenders }
    }

    async fn goes_on(&self, what: &str) {
        let before = self.acknowledged.load(Ordering::Relaxed);
        let more = eventually(PATIENCE, || async { self.acknowledged.load(Ordering::Relaxed) > before + 500 }).await;
        assert!(more, "appends do not recover: {what}");
    }

    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut taken = Vec::new();
        for appender in self.appenders {
            taken.extend(appender.await.expect("the appender ends"));
        }
        taken
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_broker_that_stops_and_starts_under_load_loses_and_repeats_nothing() {
    let node = KafkaNode::start().await;
    let topic = new_topic(&node.broker(), 3, &[]).await;
    let log = open(&node.broker());
    let mut tail = Watched::open(&log, &[&topic], 0).await;
    tail.until("caught up at first", |seen| seen.caught_up).await;
    let load = Load::start(&log, &topic);

    let caught_up = Arc::new(AtomicBool::new(true));
    let told = caught_up.clone();
    let watch = tokio::runtime::Handle::current().spawn(async move {
        // The end of the load is a value of its own.
        while !tail.values.contains_key("end") {
            tail.take().await;
            told.store(tail.caught_up, Ordering::Relaxed);
        }
        tail
    });
    // A broker that is back at once need not have been missed: it stays away until it was.
    let tells = async |wanted| {
        let told = eventually(PATIENCE, async || caught_up.load(Ordering::Relaxed) == wanted).await;
        assert!(told, "the tail never says caught up: {wanted}");
    };
    load.goes_on("at first").await;
    node.stop().await;
    tells(false).await;
    node.start_again().await;
    load.goes_on("after a stop").await;
    tells(true).await;
    node.kill().await;
    tells(false).await;
    node.start_again().await;
    load.goes_on("after a crash").await;
    let taken = load.end().await;
    append_one(&log, record(&topic, "end")).await.expect("the end is appended");

    let mut tail = timeout(PATIENCE, watch).await.expect("the tail ends").expect("the tail is read");
    tail.until("everything acknowledged", |seen| taken.iter().all(|value| seen.values.contains_key(value))).await;
    let twice: Vec<_> = tail.values.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "came twice: {twice:?}");
    assert_eq!(taken.len(), taken.iter().collect::<HashSet<_>>().len());
    assert_eq!(tail.opened.len(), 3, "nothing was opened anew");
    tail.until("caught up again", |seen| seen.caught_up).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_broker_that_stalls_gets_every_call_answered_in_time() {
    let node = KafkaNode::start().await;
    let topic = new_topic(&node.broker(), 1, &[]).await;
    let log = open(&node.broker());
    append_one(&log, record(&topic, "before")).await.expect("appended");

    node.pause().await;
    let started = Instant::now();
    let partition = Partition::new(&topic, 0);
    let (sent, read, check) = tokio::join!(
        append_one(&log, record(&topic, "meanwhile")),
        log.read(&partition, Offset(0)..Offset(9), 1),
        log.check(),
    );
    assert!(started.elapsed() < DEADLINE + Duration::from_secs(5) + MARGIN, "{:?}", started.elapsed());
    assert!(matches!(sent, Err(AppendError::Unknown(_))), "it may yet appear: {sent:?}");
    assert!(matches!(read, Err(ReadError::Unavailable(_))), "{read:?}");
    assert!(check.is_err());

    node.resume().await;
    let recovers = eventually(PATIENCE, || async { append_one(&log, record(&topic, "after")).await.is_ok() });
    assert!(recovers.await, "appends recover");
    assert_eq!(log.check().await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_log_opened_before_its_broker_waits_for_it_and_writes_nothing_it_has_refused() {
    let node = KafkaNode::start().await;
    let topic = new_topic(&node.broker(), 1, &[]).await;
    append_one(&open(&node.broker()), record(&topic, "old")).await.expect("appended");
    node.stop().await;

    let log = open(&node.broker());
    let mut tail = Watched::open(&log, &[&topic], 10).await;
    assert!(log.check().await.is_err());
    let started = Instant::now();
    let refused = append_one(&log, record(&topic, "refused")).await;
    assert!(matches!(refused, Err(AppendError::NotWritten(_))), "{refused:?}");
    assert!(started.elapsed() < DEADLINE + MARGIN, "{:?}", started.elapsed());

    node.start_again().await;
    tail.until("the old record", |seen| seen.caught_up && seen.values.contains_key("old")).await;
    let recovers = eventually(PATIENCE, || async { append_one(&log, record(&topic, "new")).await.is_ok() });
    assert!(recovers.await, "appends recover");
    tail.until("the new record", |seen| seen.values.contains_key("new")).await;
    assert!(!tail.values.contains_key("refused"), "not written means not written");
}
