//! What goes in comes out.

use bytes::Bytes;
use sluice::log::{AppendError, Log};
use sluice::model::{NewRecord, Offset, Record, Topic};

use crate::engine::Engine;
use crate::story::*;

pub(crate) async fn appended_records_are_read_back_as_they_were<E: Engine>(engine: E) {
    let (topic, partition) = single(&engine).await;
    let keyed = NewRecord { key: Some(Bytes::from("key")), ..record_at(&topic, minute(1)) };
    let sent = vec![keyed, record_at(&topic, minute(3)), record_at(&topic, minute(2))];

    let places = append_places(&*engine.log(), sent.clone()).await;

    assert!(places.iter().all(|place| place.partition == partition));
    assert!(places.windows(2).all(|two| two[0].offset < two[1].offset));
    let expected: Vec<Record> = sent.into_iter().zip(&places).map(|(sent, place)| stored(sent, place.offset)).collect();
    assert_eq!(read_from(&*engine.log(), &partition, places[0].offset, BLOCK_BYTES).await, expected);
}

fn stored(sent: NewRecord, offset: Offset) -> Record {
    let partition = sluice::model::Partition::new(&sent.topic, 0);
    Record { partition, offset, time: sent.time, key: sent.key, value: sent.value }
}

pub(crate) async fn one_record_too_large_fails_alone<E: Engine>(engine: E) {
    let (topic, partition) = single(&engine).await;
    let too_large = NewRecord { value: Some(vec![b'x'; engine.too_large()].into()), ..record(&topic, "") };

    let answers = engine.log().append(vec![record(&topic, "a"), too_large, record(&topic, "b")]).await;

    assert!(matches!(answers[..], [Ok(_), Err(AppendError::TooLarge(_)), Ok(_)]), "{answers:?}");
    assert_eq!(values(&read_from(&*engine.log(), &partition, Offset(0), BLOCK_BYTES).await), ["a", "b"]);
}

pub(crate) async fn an_empty_batch_has_no_answers<E: Engine>(engine: E) {
    assert_eq!(engine.log().append(Vec::new()).await, []);
}

pub(crate) async fn tombstones_and_bytes_that_are_not_utf8_survive<E: Engine>(engine: E) {
    let (topic, partition) = single(&engine).await;
    let odd = |key: Option<&'static [u8]>, value: Option<&'static [u8]>| NewRecord {
        key: key.map(Bytes::from_static),
        value: value.map(Bytes::from_static),
        ..record(&topic, "")
    };
    let sent = vec![
        odd(None, None),
        odd(Some(b"k"), None),
        odd(Some(b"\xff\x00\xfe"), Some(b"\x00\xc3\x28\xff")),
        odd(None, Some(b"")),
        odd(None, Some(b"after")),
    ];

    let offsets = append(&*engine.log(), sent.clone()).await;

    let expected: Vec<Record> = sent.into_iter().zip(offsets).map(|(sent, offset)| stored(sent, offset)).collect();
    assert_eq!(read_from(&*engine.log(), &partition, Offset(0), BLOCK_BYTES).await, expected);
}

pub(crate) async fn a_value_of_four_mebibytes_survives<E: Engine>(engine: E) {
    let (topic, partition) = single(&engine).await;
    let large: Bytes = (0..4 << 20).map(|at: u32| at.to_le_bytes()[at as usize % 3]).collect();
    let sent = NewRecord { value: Some(large.clone()), ..record(&topic, "") };
    let mut tail = Watched::open(&*engine.log(), &[&topic], 0).await;

    append(&*engine.log(), vec![sent, record(&topic, "after")]).await;

    let read = read_from(&*engine.log(), &partition, Offset(0), 1).await;
    assert_eq!(read.len(), 2);
    assert!(read[0].value.as_ref() == Some(&large), "the value is another");
    tail.until_records(2).await;
    assert!(tail.records[0].value.as_ref() == Some(&large), "the tail's value is another");
}

const APPENDERS: u32 = 16;
const BATCHES_EACH: u32 = 20;
const BATCH_RECORDS: u32 = 5;

pub(crate) async fn many_appenders_lose_nothing_and_keep_their_order<E: Engine>(engine: E) {
    let (topic, partition) = single(&engine).await;

    append_from_many(&engine, &topic).await;

    let records = read_from(&*engine.log(), &partition, Offset(0), 4096).await;
    assert_each_appender_is_whole(&values(&records));
}

/// Sixteen tasks at once; each waits for its batch's answers before it appends the next.
pub(crate) async fn append_from_many<E: Engine>(engine: &E, topic: &Topic) {
    let appenders: Vec<_> = (0..APPENDERS)
        .map(|appender| {
            let (log, topic) = (engine.log(), topic.clone());
            tokio::runtime::Handle::current().spawn(async move { append_batches(&*log, &topic, appender).await })
        })
        .collect();
    for appender in appenders {
        appender.await.expect("the appender ends");
    }
}

async fn append_batches(log: &dyn Log, topic: &Topic, appender: u32) {
    let mut last = Offset(-1);
    for batch in 0..BATCHES_EACH {
        let first = batch * BATCH_RECORDS;
        let numbers = first..first + BATCH_RECORDS;
        let records = numbers.map(|number| record(topic, &format!("{appender} {number}"))).collect();
        for offset in append(log, records).await {
            assert!(offset > last, "the offsets of one appender grow");
            last = offset;
        }
    }
}

pub(crate) const RECORDS_OF_MANY: usize = (APPENDERS * BATCHES_EACH * BATCH_RECORDS) as usize;

pub(crate) fn assert_each_appender_is_whole(values: &[String]) {
    assert_eq!(values.len(), RECORDS_OF_MANY);
    for appender in 0..APPENDERS {
        let prefix = format!("{appender} ");
        let own: Vec<String> =
            values.iter().filter_map(|value| value.strip_prefix(&prefix)).map(str::to_owned).collect();
        assert_eq!(own, numbers(0..BATCHES_EACH * BATCH_RECORDS), "of appender {appender}");
    }
}

pub(crate) async fn a_closed_log_takes_nothing<E: Engine>(mut engine: E) {
    let (topic, partition, _) = single_with(&engine, 2).await;
    let closed = engine.log();
    closed.close().await;

    let answers = closed.append(vec![record(&topic, "late")]).await;

    assert!(matches!(answers[..], [Err(AppendError::Busy(_))]), "{answers:?}");
    drop(closed);
    engine.restart().await;
    assert_eq!(values(&read_from(&*engine.log(), &partition, Offset(0), BLOCK_BYTES).await), ["0", "1"]);
}
