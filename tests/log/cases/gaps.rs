//! Offsets that no record has: transactions, compaction, a hand in the file.

use sluice::model::{Offset, Partition, Topic};

use crate::engine::Engine;
use crate::story::*;

/// Three records, a gap, three records.
async fn with_gap<E: Engine>(engine: &E) -> (Topic, Partition, Vec<Offset>) {
    let (topic, partition, mut offsets) = single_with(engine, 3).await;
    engine.make_gap(&partition).await;
    offsets.extend(append(&*engine.log(), numbered(&topic, 3..6)).await);
    assert!(offsets[3] > offsets[2].after(), "there is a gap");
    (topic, partition, offsets)
}

pub(crate) async fn a_read_goes_over_a_gap<E: Engine>(engine: E) {
    let (_, partition, offsets) = with_gap(&engine).await;
    let log = engine.log();

    for block_bytes in [1, BLOCK_BYTES] {
        assert_eq!(values(&read_from(&*log, &partition, Offset(0), block_bytes).await), numbers(0..6));
    }
    let inside = offsets[2].after();
    assert_eq!(values(&read_from(&*log, &partition, inside, BLOCK_BYTES).await), numbers(3..6));
    let only_gap = log.read(&partition, inside..offsets[3], BLOCK_BYTES).await.expect("the log is read");
    assert!(only_gap.records.is_empty());
    assert!(only_gap.next >= offsets[3], "nothing more below the end of the range: {}", only_gap.next);
}

pub(crate) async fn a_read_over_a_gap_at_the_end_ends<E: Engine>(engine: E) {
    let (topic, partition, offsets) = single_with(&engine, 3).await;
    engine.make_gap(&partition).await;

    let records = read_from(&*engine.log(), &partition, Offset(0), BLOCK_BYTES).await;
    let end = engine.log().ends(&[topic]).await.expect("the log is asked")[0].next;

    assert_eq!(values(&records), numbers(0..3));
    assert!(end > offsets[2].after());
    let block = engine.log().read(&partition, offsets[2].after()..end, BLOCK_BYTES).await.expect("the log is read");
    assert!(block.records.is_empty() && block.next >= end, "{block:?} does not reach {end}");
}

pub(crate) async fn before_looks_over_a_gap<E: Engine>(engine: E) {
    let (_, partition, offsets) = with_gap(&engine).await;

    let before = engine.log().before(&partition, offsets[3]).await.expect("the log is asked");

    assert_eq!(before.map(|(offset, _)| offset), Some(offsets[2]));
}

pub(crate) async fn a_tail_goes_over_a_gap<E: Engine>(engine: E) {
    let (topic, partition, _) = with_gap(&engine).await;
    engine.make_gap(&partition).await;

    let mut tail = Watched::open(&*engine.log(), &[&topic], 1_000).await;
    tail.until_caught_up().await;
    append(&*engine.log(), numbered(&topic, 6..7)).await;
    tail.until_records(7).await;

    assert_eq!(tail.values(), numbers(0..7));
}
