//! Topics with limits of their own, topics that lose records, topics made anew.

use std::time::Instant;

use sluice::log::{AppendError, Log, Surveyed};
use sluice::model::{Offset, Partition, Topic};

use crate::support::{self, PATIENCE, eventually};
use crate::{DEADLINE, MARGIN, Watched, append_one, new_topic, open, open_with, record};

/// Does not compress.
fn noise(bytes: usize) -> Vec<u8> {
    std::iter::repeat_with(|| fastrand::u8(..)).take(bytes).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_topic_with_a_small_limit_refuses_what_is_above_it_and_nothing_else() {
    let broker = support::kafka().await;
    let topic = new_topic(&broker, 1, &[("max.message.bytes", "10000")]).await;
    let log = open(&broker);

    let too_large = append_one(&log, record(&topic, noise(20_000))).await;
    // Together far above the limit, each of them below it.
    let together = log.append((0..100).map(|_| record(&topic, noise(5_000))).collect()).await;
    let mixed = log.append(vec![record(&topic, "a"), record(&topic, noise(20_000)), record(&topic, "b")]).await;

    assert!(matches!(too_large, Err(AppendError::TooLarge(_))), "{too_large:?}");
    assert!(together.iter().all(Result::is_ok), "{together:?}");
    assert!(matches!(mixed[..], [Ok(_), Err(AppendError::TooLarge(_)), Ok(_)]), "{mixed:?}");
    let ends = log.ends(std::slice::from_ref(&topic)).await.expect("the log is asked");
    assert_eq!(ends[0].next, Offset(102));
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_topic_that_cannot_exist_takes_nothing_and_says_so_in_time() {
    let log = open(&support::kafka().await);
    let started = Instant::now();

    let answer = append_one(&log, record(&Topic::new("no such/topic"), "x")).await;

    assert!(matches!(answer, Err(AppendError::Refused(_))), "{answer:?}");
    assert!(started.elapsed() < DEADLINE + MARGIN);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_topic_of_our_own_is_made_once_with_one_partition_and_a_short_memory() {
    let broker = support::kafka().await;
    let log = open(&broker);
    let topic = Topic::new(&support::unique("own"));

    assert_eq!(log.make_own(&topic).await, Ok(()));
    assert_eq!(log.make_own(&topic).await, Ok(()), "it is there");

    let surveyed = log.survey(std::slice::from_ref(&topic)).await.expect("the log is asked");
    let partition = Partition::new(&topic, 0);
    assert_eq!(surveyed, [Surveyed { partition, ends: Ok(Offset(0)..Offset(0)) }]);
    let told = broker.config(topic.as_str(), "retention.ms").await;
    assert_eq!(told.as_deref(), Some("3600000"));
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_topic_that_the_broker_makes_by_itself_takes_the_first_record() {
    let log = open(&support::kafka().await);
    let topic = Topic::new(&support::unique("made"));
    let mut tail = Watched::open(&log, &[&topic], 0).await;

    append_one(&log, record(&topic, "first")).await.expect("the broker makes the topic");

    tail.until("the first record", |seen| seen.values.contains_key("first")).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_tail_that_retention_has_passed_goes_on_with_the_oldest() {
    let broker = support::kafka().await;
    let topic = new_topic(&broker, 1, &[]).await;
    // So little is read ahead that most of the topic is still to be fetched when it vanishes.
    let small = [("queued.max.messages.kbytes", "1024"), ("fetch.message.max.bytes", "1048576")];
    let log = open_with(&broker, &small);
    let mut tail = Watched::open(&log, &[&topic], 0).await;
    tail.until("opened", |seen| seen.caught_up).await;
    for _ in 0..20 {
        append_one(&log, record(&topic, noise(1 << 20))).await.expect("appended");
    }

    broker.delete_records(topic.as_str(), 0, 19).await;
    append_one(&log, record(&topic, "last")).await.expect("appended");

    tail.until("the last record", |seen| seen.values.contains_key("last")).await;
    let came: usize = tail.values.values().sum();
    assert!(came < 21, "nothing had vanished: {came}");
    assert_eq!(tail.opened.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_topic_deleted_and_made_again_is_opened_anew() {
    let broker = support::kafka().await;
    let topic = new_topic(&broker, 1, &[]).await;
    let other = new_topic(&broker, 1, &[]).await;
    let log = open(&broker);
    let mut tail = Watched::open(&log, &[&topic, &other], 0).await;
    log.append((0..10).map(|number| record(&topic, format!("old {number}"))).collect()).await;
    tail.until("the old records", |seen| seen.values.len() == 10).await;

    broker.delete_topic(topic.as_str()).await;
    broker.create_topic(topic.as_str(), 1, &[]).await;
    let again = eventually(PATIENCE, || async { append_one(&log, record(&topic, "new")).await.is_ok() });
    assert!(again.await, "the new topic takes records");
    append_one(&log, record(&other, "beside")).await.expect("appended");

    tail.until("the new record", |seen| seen.values.contains_key("new") && seen.values.contains_key("beside")).await;
    let opened = tail.opened.iter().filter(|opened| opened.partition == Partition::new(&topic, 0));
    assert_eq!(opened.map(|opened| opened.next).collect::<Vec<_>>(), [Offset(0), Offset(0)]);
}
