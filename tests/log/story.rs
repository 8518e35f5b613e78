//! Records made, records read, tails watched.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use sluice::log::{Appended, Log, Opened, Tail};
use sluice::model::{NewRecord, Offset, Partition, Record, Timestamp, Topic};

use crate::engine::Engine;

/// No end: as far as the partition goes.
pub(crate) const END: Offset = Offset(i64::MAX);
/// Larger than all small records of a case.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;
/// Longest wait for what a tail must bring. Not a measure of speed: only the end of a test that fails.
const TAIL_WAIT_MAX: Duration = Duration::from_secs(60);

/// Minutes since an hour and a half ago: not so old that a broker's retention takes it, never in the future.
pub(crate) fn minute(count: i64) -> Timestamp {
    static START: std::sync::OnceLock<Timestamp> = std::sync::OnceLock::new();
    let start = START.get_or_init(|| Timestamp::now().minus_ms(90 * 60_000));
    start.minus_ms(-count * 60_000)
}

pub(crate) fn record(topic: &Topic, value: &str) -> NewRecord {
    NewRecord { topic: topic.clone(), time: Timestamp::now(), key: None, value: Some(Bytes::from(value.to_owned())) }
}

pub(crate) fn record_at(topic: &Topic, time: Timestamp) -> NewRecord {
    NewRecord { time, ..record(topic, &format!("at {time}")) }
}

pub(crate) fn numbered(topic: &Topic, numbers: std::ops::Range<u32>) -> Vec<NewRecord> {
    numbers.map(|number| record(topic, &number.to_string())).collect()
}

/// An existing topic with one partition, and that partition.
pub(crate) async fn single<E: Engine>(engine: &E) -> (Topic, Partition) {
    let topic = engine.unused_topic();
    engine.create(&topic, 1).await;
    let partition = Partition::new(&topic, 0);
    (topic, partition)
}

/// The same, with so many records: "0", "1", "2", …
pub(crate) async fn single_with<E: Engine>(engine: &E, count: u32) -> (Topic, Partition, Vec<Offset>) {
    let (topic, partition) = single(engine).await;
    let offsets = append(&*engine.log(), numbered(&topic, 0..count)).await;
    (topic, partition, offsets)
}

/// Appends; all must be taken.
pub(crate) async fn append(log: &dyn Log, records: Vec<NewRecord>) -> Vec<Offset> {
    append_places(log, records).await.into_iter().map(|place| place.offset).collect()
}

pub(crate) async fn append_places(log: &dyn Log, records: Vec<NewRecord>) -> Vec<Appended> {
    let answers = log.append(records).await;
    answers.into_iter().map(|answer| answer.expect("the record is appended")).collect()
}

/// Everything from here to the partition's end, block by block.
pub(crate) async fn read_from(log: &dyn Log, partition: &Partition, start: Offset, block_bytes: usize) -> Vec<Record> {
    let mut records = Vec::new();
    let mut at = start;
    loop {
        let block = log.read(partition, at..END, block_bytes).await.expect("the log is read");
        if block.records.is_empty() {
            return records;
        }
        assert!(block.next > at, "a block with records goes forward");
        at = block.next;
        records.extend(block.records);
    }
}

pub(crate) fn values(records: &[Record]) -> Vec<String> {
    records.iter().map(value).collect()
}

pub(crate) fn value(record: &Record) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or(b"(none)")).into_owned()
}

/// "from", …, "until - 1"
pub(crate) fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// A tail and all that it has brought.
pub(crate) struct Watched {
    pub(crate) tail: Box<dyn Tail>,
    pub(crate) opened: Vec<Opened>,
    pub(crate) records: Vec<Record>,
    pub(crate) caught_up: bool,
    next: HashMap<Partition, Offset>,
    seen: HashSet<(Partition, Offset)>,
}

impl Watched {
    pub(crate) async fn open(log: &dyn Log, topics: &[&Topic], warm: u64) -> Self {
        let tail = log.tail(topics.iter().copied().cloned().collect(), warm).await;
        let (opened, records, next, seen) = Default::default();
        Self { tail, opened, records, caught_up: false, next, seen }
    }

    /// Takes batches until this holds; each must keep what a tail promises.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !wanted(self) {
                self.take().await;
            }
        };
        if tokio::time::timeout(TAIL_WAIT_MAX, waiting).await.is_err() {
            panic!("the tail brought {:?}, {:?}, caught up: {}", self.opened, values(&self.records), self.caught_up);
        }
    }

    pub(crate) async fn until_caught_up(&mut self) {
        self.until(|seen| seen.caught_up).await;
    }

    pub(crate) async fn until_records(&mut self, count: usize) {
        self.until(|seen| seen.records.len() >= count).await;
    }

    pub(crate) fn values(&self) -> Vec<String> {
        values(&self.records)
    }

    pub(crate) fn values_of(&self, topic: &Topic) -> Vec<String> {
        self.records.iter().filter(|record| record.partition.topic == *topic).map(value).collect()
    }

    pub(crate) fn opened_at(&self, partition: &Partition) -> Option<&Opened> {
        self.opened.iter().find(|opened| opened.partition == *partition)
    }

    async fn take(&mut self) {
        let batch = self.tail.next().await;
        for opened in &batch.opened {
            self.next.insert(opened.partition.clone(), opened.next);
        }
        for record in &batch.records {
            let next = self.next.get_mut(&record.partition).expect("a partition is opened before its records");
            assert!(record.offset >= *next, "{}: {} came after {next}", record.partition, record.offset);
            *next = record.offset.after();
            assert!(self.seen.insert((record.partition.clone(), record.offset)), "a record came twice");
        }
        self.opened.extend(batch.opened);
        self.records.extend(batch.records);
        self.caught_up = batch.caught_up;
    }
}
