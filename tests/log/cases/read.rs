//! Reading a range, its ends, and what stands before a place.

use sluice::log::{Block, PartitionEnds};
use sluice::model::{Offset, Partition};

use crate::engine::Engine;
use crate::story::*;

pub(crate) async fn a_block_stops_near_its_bytes_and_always_brings_a_record<E: Engine>(engine: E) {
    let (topic, partition) = single(&engine).await;
    let records: Vec<_> = (0..20).map(|number| record(&topic, &format!("{number:01000}"))).collect();
    append(&*engine.log(), records).await;

    let one = engine.log().read(&partition, Offset(0)..END, 1).await.expect("the log is read");
    let some = engine.log().read(&partition, Offset(0)..END, 5_000).await.expect("the log is read");

    assert_eq!(one.records.len(), 1);
    assert_eq!(one.next, one.records[0].offset.after());
    assert!((2..=10).contains(&some.records.len()), "{} records of 1,000 bytes in 5,000", some.records.len());
}

pub(crate) async fn reading_on_from_next_brings_each_record_once<E: Engine>(engine: E) {
    let (_, partition, _) = single_with(&engine, 100).await;

    for block_bytes in [1, 7, 64, 1 << 20] {
        let records = read_from(&*engine.log(), &partition, Offset(0), block_bytes).await;
        assert_eq!(values(&records), numbers(0..100), "in blocks of {block_bytes} bytes");
    }
}

pub(crate) async fn a_read_stays_below_the_end_of_its_range<E: Engine>(engine: E) {
    let (_, partition, offsets) = single_with(&engine, 10).await;

    let block = engine.log().read(&partition, offsets[3]..offsets[7], BLOCK_BYTES).await.expect("the log is read");
    let nothing = engine.log().read(&partition, offsets[3]..offsets[3], BLOCK_BYTES).await.expect("the log is read");

    assert_eq!(values(&block.records), numbers(3..7));
    assert_eq!(block.next, offsets[7]);
    assert_eq!(nothing, Block { records: vec![], next: offsets[3] });
}

pub(crate) async fn a_start_at_or_past_the_end_brings_nothing<E: Engine>(engine: E) {
    let (_, partition, offsets) = single_with(&engine, 5).await;
    let end = offsets[4].after();

    for start in [end, Offset(end.0 + 1), Offset(end.0 + 1_000_000)] {
        let block = engine.log().read(&partition, start..END, BLOCK_BYTES).await;
        assert_eq!(block, Ok(Block { records: vec![], next: start }));
    }
}

pub(crate) async fn a_topic_that_does_not_exist_is_no_error<E: Engine>(engine: E) {
    let topic = engine.unused_topic();
    let partition = Partition::new(&topic, 0);
    let log = engine.log();

    let block = log.read(&partition, Offset(0)..END, BLOCK_BYTES).await;

    assert_eq!(block, Ok(Block { records: vec![], next: Offset(0) }));
    assert_eq!(log.before(&partition, Offset(7)).await, Ok(None));
    assert_eq!(log.at_time(&[(partition, minute(0))]).await, Ok(vec![Offset(0)]));
    assert_eq!(log.ends(std::slice::from_ref(&topic)).await, Ok(vec![]), "asking has made the topic");
}

pub(crate) async fn before_is_the_newest_record_below<E: Engine>(engine: E) {
    let (topic, partition) = single(&engine).await;
    let records = (0..3).map(|at| record_at(&topic, minute(at))).collect();
    let offsets = append(&*engine.log(), records).await;
    let log = engine.log();

    assert_eq!(log.before(&partition, offsets[0]).await, Ok(None));
    assert_eq!(log.before(&partition, offsets[2]).await, Ok(Some((offsets[1], minute(1)))));
    assert_eq!(log.before(&partition, offsets[2].after()).await, Ok(Some((offsets[2], minute(2)))));
    assert_eq!(log.before(&partition, Offset(offsets[2].0 + 1_000)).await, Ok(Some((offsets[2], minute(2)))));
}

pub(crate) async fn ends_are_those_of_the_topics_that_exist<E: Engine>(engine: E) {
    let (one, one_partition, one_offsets) = single_with(&engine, 3).await;
    let (two, two_partition, two_offsets) = single_with(&engine, 1).await;

    let mut ends = engine.log().ends(&[two, engine.unused_topic(), one]).await.expect("the log is asked");

    ends.sort_by_key(|ends| ends.partition != one_partition);
    let expected = [(one_partition, one_offsets), (two_partition, two_offsets)].map(|(partition, offsets)| {
        PartitionEnds { partition, first: offsets[0], next: offsets[offsets.len() - 1].after() }
    });
    assert_eq!(ends, expected);
    assert_eq!(engine.log().check().await, Ok(()));
}
