//! Following the log.

use std::time::Duration;

use sluice::log::Opened;
use sluice::model::Offset;

use super::append::{RECORDS_OF_MANY, append_from_many, assert_each_appender_is_whole};
use crate::engine::Engine;
use crate::story::*;

pub(crate) async fn a_live_tail_brings_what_comes_and_nothing_older<E: Engine>(engine: E) {
    let (topic, partition) = single(&engine).await;
    let offsets = append(&*engine.log(), vec![record_at(&topic, minute(1)), record_at(&topic, minute(2))]).await;
    let mut tail = Watched::open(&*engine.log(), &[&topic], 0).await;

    append(&*engine.log(), numbered(&topic, 2..4)).await;
    tail.until_records(2).await;
    append(&*engine.log(), numbered(&topic, 4..5)).await;
    tail.until_records(3).await;

    assert_eq!(tail.values(), numbers(2..5));
    let next = offsets[1].after();
    assert_eq!(tail.opened, [Opened { partition, next, before: Some(minute(2)) }]);
}

pub(crate) async fn a_warm_tail_starts_so_many_records_back<E: Engine>(engine: E) {
    let (topic, partition) = single(&engine).await;
    let records = (0..10).map(|at| record_at(&topic, minute(at))).collect();
    let offsets = append(&*engine.log(), records).await;

    let mut some = Watched::open(&*engine.log(), &[&topic], 3).await;
    some.until_caught_up().await;
    let mut all = Watched::open(&*engine.log(), &[&topic], 1_000).await;
    all.until_caught_up().await;

    assert_eq!(some.records.iter().map(|record| record.offset).collect::<Vec<_>>(), offsets[7..]);
    assert_eq!(some.opened, [Opened { partition: partition.clone(), next: offsets[7], before: Some(minute(6)) }]);
    assert_eq!(all.records.len(), 10);
    assert_eq!(all.opened_at(&partition).map(|opened| opened.before), Some(None));
}

pub(crate) async fn a_tail_says_once_it_has_caught_up<E: Engine>(engine: E) {
    let (topic, _, _) = single_with(&engine, 500).await;
    let (other, _, _) = single_with(&engine, 500).await;

    let mut tail = Watched::open(&*engine.log(), &[&topic, &other], 10_000).await;
    tail.until_caught_up().await;

    assert_eq!(tail.values_of(&topic), numbers(0..500));
    assert_eq!(tail.values_of(&other), numbers(0..500));
    append(&*engine.log(), numbered(&topic, 500..501)).await;
    tail.until_records(1001).await;
    assert!(tail.caught_up, "it stays so when more comes");
}

pub(crate) async fn a_tail_of_nothing_has_caught_up<E: Engine>(engine: E) {
    let topic = engine.unused_topic();
    let mut tail = Watched::open(&*engine.log(), &[&topic], 10).await;

    tail.until_caught_up().await;

    assert_eq!((tail.opened.len(), tail.records.len()), (0, 0));
    let ends = engine.log().ends(std::slice::from_ref(&topic)).await;
    assert_eq!(ends, Ok(vec![]), "following has made the topic");
}

pub(crate) async fn an_empty_topic_is_opened_at_its_end<E: Engine>(engine: E) {
    let (topic, partition, offsets) = single_with(&engine, 3).await;
    let next = offsets[2].after();
    engine.delete_before(&partition, next).await;

    let mut tail = Watched::open(&*engine.log(), &[&topic], 10).await;
    tail.until_caught_up().await;

    assert_eq!(tail.opened, [Opened { partition, next, before: None }]);
    assert_eq!(tail.values(), numbers(0..0));
}

pub(crate) async fn a_topic_that_appears_later_is_followed_from_its_first_record<E: Engine>(engine: E) {
    let (known, _, _) = single_with(&engine, 1).await;
    let later = engine.unused_topic();
    let mut tail = Watched::open(&*engine.log(), &[&known, &later], 0).await;
    tail.until_caught_up().await;

    engine.create(&later, 1).await;
    append(&*engine.log(), numbered(&later, 0..3)).await;
    append(&*engine.log(), numbered(&known, 1..2)).await;

    tail.until_records(4).await;
    assert_eq!(tail.values_of(&later), numbers(0..3));
    assert_eq!(tail.values_of(&known), numbers(1..2));
    let opened = tail.opened.iter().find(|opened| opened.partition.topic == later).expect("it is opened");
    assert_eq!((opened.next, opened.before), (Offset(0), None));
}

pub(crate) async fn a_topic_followed_later_comes_from_its_first_record<E: Engine>(engine: E) {
    let (known, _, _) = single_with(&engine, 1).await;
    let (other, _, _) = single_with(&engine, 3).await;
    let mut tail = Watched::open(&*engine.log(), &[&known], 0).await;
    tail.until_caught_up().await;

    tail.tail.follow(vec![known.clone(), other.clone()]);

    tail.until_records(3).await;
    append(&*engine.log(), [numbered(&known, 1..2), numbered(&other, 3..4)].concat()).await;
    tail.until_records(5).await;
    assert_eq!(tail.values_of(&other), numbers(0..4));
    assert_eq!(tail.values_of(&known), numbers(1..2));
}

pub(crate) async fn a_topic_followed_no_longer_is_silent<E: Engine>(engine: E) {
    let (kept, _, _) = single_with(&engine, 1).await;
    let (left, _, _) = single_with(&engine, 1).await;
    let mut tail = Watched::open(&*engine.log(), &[&kept, &left], 0).await;
    tail.until_caught_up().await;

    tail.tail.follow(vec![kept.clone()]);
    append(&*engine.log(), numbered(&left, 1..2)).await;
    append(&*engine.log(), numbered(&kept, 1..2)).await;

    tail.until_records(1).await;
    assert_eq!(tail.values(), ["1"]);
    assert_eq!(tail.records[0].partition.topic, kept);
}

/// Shorter than any answer: the call is dropped at its first wait, or soon after.
const IMPATIENCE: Duration = Duration::from_micros(200);

pub(crate) async fn a_cancelled_next_loses_nothing<E: Engine>(engine: E) {
    let (topic, _, _) = single_with(&engine, 200).await;
    let mut tail = Watched::open(&*engine.log(), &[&topic], 1_000).await;

    for count in 200..260 {
        let _ = tokio::time::timeout(IMPATIENCE, tail.until(|_| false)).await;
        append(&*engine.log(), numbered(&topic, count..count + 1)).await;
    }

    tail.until_records(260).await;
    assert_eq!(tail.values(), numbers(0..260));
}

pub(crate) async fn a_tail_under_many_appenders_brings_each_record_once<E: Engine>(engine: E) {
    let (topic, _) = single(&engine).await;
    let mut tail = Watched::open(&*engine.log(), &[&topic], 0).await;

    tokio::join!(append_from_many(&engine, &topic), tail.until_records(RECORDS_OF_MANY));

    assert_each_appender_is_whole(&tail.values());
}
