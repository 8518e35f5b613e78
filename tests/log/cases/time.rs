//! From a time to a place.

use sluice::model::{Offset, Partition, Timestamp};

use crate::engine::Engine;
use crate::story::*;

async fn at<E: Engine>(engine: &E, partition: &Partition, time: Timestamp) -> Offset {
    engine.log().at_time(&[(partition.clone(), time)]).await.expect("the log is asked")[0]
}

async fn single_at<E: Engine>(engine: &E, minutes: &[i64]) -> (Partition, Vec<Offset>) {
    let (topic, partition) = single(engine).await;
    let records = minutes.iter().map(|at| record_at(&topic, minute(*at))).collect();
    let offsets = append(&*engine.log(), records).await;
    (partition, offsets)
}

pub(crate) async fn a_time_is_the_first_record_at_or_after_it<E: Engine>(engine: E) {
    let (partition, offsets) = single_at(&engine, &[10, 20, 20, 20, 30]).await;

    assert_eq!(at(&engine, &partition, minute(0)).await, offsets[0]);
    assert_eq!(at(&engine, &partition, minute(10)).await, offsets[0]);
    assert_eq!(at(&engine, &partition, minute(10).minus_ms(-1)).await, offsets[1]);
    assert_eq!(at(&engine, &partition, minute(20)).await, offsets[1]);
    assert_eq!(at(&engine, &partition, minute(20).minus_ms(-1)).await, offsets[4]);
    assert_eq!(at(&engine, &partition, minute(30)).await, offsets[4]);
    assert_eq!(at(&engine, &partition, Timestamp(0)).await, offsets[0]);
}

pub(crate) async fn a_time_past_the_last_record_is_the_end<E: Engine>(engine: E) {
    let (partition, offsets) = single_at(&engine, &[10, 20]).await;

    assert_eq!(at(&engine, &partition, minute(20).minus_ms(-1)).await, offsets[1].after());
    assert_eq!(at(&engine, &partition, minute(60 * 24 * 365)).await, offsets[1].after());
}

pub(crate) async fn out_of_order_times_resume_at_the_first_that_is_late_enough<E: Engine>(engine: E) {
    let (partition, offsets) = single_at(&engine, &[10, 40, 20, 30, 50, 5]).await;

    assert_eq!(at(&engine, &partition, minute(5)).await, offsets[0]);
    assert_eq!(at(&engine, &partition, minute(15)).await, offsets[1]);
    assert_eq!(at(&engine, &partition, minute(30)).await, offsets[1]);
    assert_eq!(at(&engine, &partition, minute(45)).await, offsets[4]);
    assert_eq!(at(&engine, &partition, minute(51)).await, offsets[5].after());
}

pub(crate) async fn many_places_are_answered_in_the_order_asked<E: Engine>(engine: E) {
    let (one, one_offsets) = single_at(&engine, &[10, 20, 30]).await;
    let (two, two_offsets) = single_at(&engine, &[15, 25]).await;
    let missing = Partition::new(&engine.unused_topic(), 0);
    let wanted = [(two.clone(), minute(20)), (missing, minute(0)), (one, minute(20)), (two, minute(0))];

    let places = engine.log().at_time(&wanted).await;

    assert_eq!(places, Ok(vec![two_offsets[1], Offset(0), one_offsets[1], two_offsets[0]]));
}
