//! The log outlives its process.

use sluice::log::ReadError;
use sluice::model::Offset;

use crate::engine::Engine;
use crate::story::*;

pub(crate) async fn a_restart_keeps_records_and_offsets<E: Engine>(mut engine: E) {
    let (topic, partition) = single(&engine).await;
    let records = [10, 30, 20].map(|at| record_at(&topic, minute(at))).to_vec();
    let offsets = append(&*engine.log(), records).await;
    let before = read_from(&*engine.log(), &partition, Offset(0), BLOCK_BYTES).await;

    engine.restart().await;

    let log = engine.log();
    let next = append(&*log, vec![record_at(&topic, minute(25))]).await[0];
    assert_eq!(next, offsets[2].after());
    let after = read_from(&*log, &partition, Offset(0), BLOCK_BYTES).await;
    assert_eq!(after[..3], before);
    assert_eq!(log.at_time(&[(partition.clone(), minute(25))]).await, Ok(vec![offsets[1]]));
    assert_eq!(log.at_time(&[(partition.clone(), minute(31))]).await, Ok(vec![next.after()]));
    let mut tail = Watched::open(&*log, &[&topic], 2).await;
    tail.until_records(2).await;
    assert_eq!(tail.records, after[2..]);
}

pub(crate) async fn an_emptied_partition_goes_on_counting_after_a_restart<E: Engine>(mut engine: E) {
    let (topic, partition, offsets) = single_with(&engine, 4).await;
    let end = offsets[3].after();
    engine.delete_before(&partition, end).await;

    engine.restart().await;

    let log = engine.log();
    assert_eq!(log.read(&partition, offsets[2]..END, BLOCK_BYTES).await, Err(ReadError::Gone { first: end }));
    assert_eq!(append(&*log, numbered(&topic, 4..5)).await, [end]);
}
