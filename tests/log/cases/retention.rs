//! The oldest records vanish, also under a reader.

use sluice::log::{PartitionEnds, ReadError};
use sluice::model::{Offset, Partition};

use crate::engine::Engine;
use crate::story::*;

async fn ends<E: Engine>(engine: &E, partition: &Partition) -> (Offset, Offset) {
    let ends = engine.log().ends(std::slice::from_ref(&partition.topic)).await.expect("the log is asked");
    let [PartitionEnds { first, next, .. }] = ends[..] else { panic!("one partition, not {ends:?}") };
    (first, next)
}

pub(crate) async fn a_start_that_retention_passed_is_gone<E: Engine>(engine: E) {
    let (_, partition, offsets) = single_with(&engine, 10).await;

    engine.delete_before(&partition, offsets[6]).await;

    let log = engine.log();
    let gone = Err(ReadError::Gone { first: offsets[6] });
    assert_eq!(log.read(&partition, offsets[0]..END, BLOCK_BYTES).await, gone);
    assert_eq!(log.read(&partition, offsets[5]..END, BLOCK_BYTES).await, gone);
    assert_eq!(values(&read_from(&*log, &partition, offsets[6], BLOCK_BYTES).await), numbers(6..10));
    assert_eq!(ends(&engine, &partition).await, (offsets[6], offsets[9].after()));
    assert_eq!(log.before(&partition, offsets[6]).await, Ok(None));
}

pub(crate) async fn retention_between_two_blocks_is_told<E: Engine>(engine: E) {
    let (_, partition, offsets) = single_with(&engine, 10).await;
    let block = engine.log().read(&partition, offsets[0]..END, 1).await.expect("the log is read");

    engine.delete_before(&partition, offsets[4]).await;

    let next = engine.log().read(&partition, block.next..END, BLOCK_BYTES).await;
    assert_eq!(next, Err(ReadError::Gone { first: offsets[4] }));
}

pub(crate) async fn an_emptied_partition_keeps_its_offsets<E: Engine>(engine: E) {
    let (topic, partition, offsets) = single_with(&engine, 4).await;
    let end = offsets[3].after();

    engine.delete_before(&partition, end).await;

    let log = engine.log();
    assert_eq!(ends(&engine, &partition).await, (end, end));
    assert_eq!(log.read(&partition, offsets[0]..END, BLOCK_BYTES).await, Err(ReadError::Gone { first: end }));
    assert_eq!(log.read(&partition, end..END, BLOCK_BYTES).await.map(|block| block.next), Ok(end));
    assert_eq!(log.at_time(&[(partition.clone(), minute(0))]).await, Ok(vec![end]));
    assert_eq!(log.before(&partition, end).await, Ok(None));
    assert_eq!(append(&*log, numbered(&topic, 4..6)).await[0], end);
    assert_eq!(values(&read_from(&*log, &partition, end, BLOCK_BYTES).await), ["4", "5"]);
}

pub(crate) async fn times_before_the_oldest_record_are_the_oldest_record_or_earlier<E: Engine>(engine: E) {
    let (topic, partition) = single(&engine).await;
    let records = [10, 50, 20, 30, 60].map(|at| record_at(&topic, minute(at))).to_vec();
    let offsets = append(&*engine.log(), records).await;

    engine.delete_before(&partition, offsets[2]).await;

    let at = async |time| engine.log().at_time(&[(partition.clone(), time)]).await.expect("the log is asked")[0];
    assert_eq!(at(minute(0)).await, offsets[2]);
    assert_eq!(at(minute(20)).await, offsets[2]);
    // The record of minute 50 is gone: the one of minute 30 is right, and an engine may still remember the gone one.
    assert!((offsets[2]..=offsets[3]).contains(&at(minute(30)).await));
    assert!((offsets[2]..=offsets[4]).contains(&at(minute(40)).await));
    assert_eq!(at(minute(60)).await, offsets[4]);
    assert_eq!(at(minute(61)).await, offsets[4].after());
}

pub(crate) async fn a_tail_over_an_emptied_partition_goes_on<E: Engine>(engine: E) {
    let (topic, partition, offsets) = single_with(&engine, 4).await;
    let mut tail = Watched::open(&*engine.log(), &[&topic], 100).await;
    tail.until_caught_up().await;

    engine.delete_before(&partition, offsets[3].after()).await;
    append(&*engine.log(), numbered(&topic, 4..6)).await;

    tail.until_records(6).await;
    assert_eq!(tail.values(), numbers(0..6));
}
