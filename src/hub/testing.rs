//! A log in memory whose tails a test feeds by hand, so that two servers can see partitions in different orders.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::log::{AppendError, Appended, Block, Log, Opened, PartitionEnds, ReadError, Tail, TailBatch};
use crate::model::{NewRecord, Offset, Partition, Record, Timestamp, Topic};

#[derive(Default)]
pub(super) struct MemLog {
    partitions: Mutex<BTreeMap<Partition, Kept>>,
    tails: Mutex<Vec<mpsc::Sender<TailBatch>>>,
    pub(super) reads: AtomicUsize,
    pub(super) away: AtomicBool,
}

#[derive(Default, Clone)]
struct Kept {
    records: Vec<Record>,
    first: Offset,
    next: Offset,
}

impl MemLog {
    pub(super) fn add_partition(&self, partition: &Partition) {
        self.partitions.lock().insert(partition.clone(), Kept::default());
    }

    /// Appends one record, `gap` offsets further on than the next one would be.
    pub(super) fn put(&self, partition: &Partition, gap: i64, time: i64, value: Option<&str>) {
        let mut partitions = self.partitions.lock();
        let kept = partitions.get_mut(partition).expect("a partition");
        let offset = Offset(kept.next.0 + gap);
        let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
        kept.records.push(Record { partition: partition.clone(), offset, time: Timestamp(time), key: None, value });
        kept.next = offset.after();
    }

    pub(super) fn retain_from(&self, partition: &Partition, first: Offset) {
        let mut partitions = self.partitions.lock();
        let kept = partitions.get_mut(partition).expect("a partition");
        kept.first = first.max(kept.first).min(kept.next);
        let first = kept.first;
        kept.records.retain(|record| record.offset >= first);
    }

    pub(super) fn partitions(&self) -> Vec<Partition> {
        self.partitions.lock().keys().cloned().collect()
    }

    pub(super) fn bounds(&self, partition: &Partition) -> (Offset, Offset) {
        let kept = &self.partitions.lock()[partition];
        (kept.first, kept.next)
    }

    pub(super) fn records(&self, partition: &Partition, range: Range<Offset>) -> Vec<Record> {
        let kept = &self.partitions.lock()[partition];
        kept.records.iter().filter(|record| range.contains(&record.offset)).cloned().collect()
    }

    pub(super) fn opened(&self, partition: &Partition, next: Offset) -> Opened {
        let before = self.records(partition, Offset(0)..next).last().map(|record| record.time);
        Opened { partition: partition.clone(), next, before }
    }

    /// The feeding end of the tail that was opened last.
    pub(super) fn last_tail(&self) -> Option<mpsc::Sender<TailBatch>> {
        self.tails.lock().last().cloned()
    }

    fn answer(&self) -> Result<(), ReadError> {
        match self.away.load(Ordering::Relaxed) {
            true => Err(ReadError::Unavailable("away".into())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Log for MemLog {
    async fn append(&self, _: Vec<NewRecord>) -> Vec<Result<Appended, AppendError>> {
        Vec::new()
    }

    async fn read(&self, partition: &Partition, range: Range<Offset>, _: usize) -> Result<Block, ReadError> {
        self.answer()?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        let (first, next) = self.bounds(partition);
        if range.start < first {
            return Err(ReadError::Gone { first });
        }
        let next = if range.start >= next { range.start } else { range.end.min(next) };
        Ok(Block { records: self.records(partition, range), next })
    }

    async fn ends(&self, topics: &[Topic]) -> Result<Vec<PartitionEnds>, ReadError> {
        self.answer()?;
        let partitions = self.partitions.lock();
        let of_topics = partitions.iter().filter(|(partition, _)| topics.contains(&partition.topic));
        Ok(of_topics
            .map(|(partition, kept)| PartitionEnds { partition: partition.clone(), first: kept.first, next: kept.next })
            .collect())
    }

    async fn at_time(&self, wanted: &[(Partition, Timestamp)]) -> Result<Vec<Offset>, ReadError> {
        self.answer()?;
        let partitions = self.partitions.lock();
        let first_at = |(partition, time): &(Partition, Timestamp)| {
            let kept = &partitions[partition];
            kept.records.iter().find(|record| record.time >= *time).map_or(kept.next, |record| record.offset)
        };
        Ok(wanted.iter().map(first_at).collect())
    }

    async fn before(&self, partition: &Partition, at: Offset) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        self.answer()?;
        Ok(self.records(partition, Offset(0)..at).last().map(|record| (record.offset, record.time)))
    }

    async fn tail(&self, _: Vec<Topic>, _: u64) -> Box<dyn Tail> {
        let (feed, fed) = mpsc::channel(1024);
        self.tails.lock().push(feed);
        Box::new(FedTail(fed))
    }

    async fn check(&self) -> Result<(), ReadError> {
        self.answer()
    }

    async fn close(&self) {}

    fn describe(&self) -> String {
        "memory".into()
    }
}

struct FedTail(mpsc::Receiver<TailBatch>);

#[async_trait]
impl Tail for FedTail {
    async fn next(&mut self) -> TailBatch {
        match self.0.recv().await {
            Some(batch) => batch,
            None => std::future::pending().await,
        }
    }

    fn follow(&mut self, _: Vec<Topic>) {}
}

/// Two topics, one stream each, and the set of both.
pub(super) fn two_topics() -> (Vec<Topic>, crate::model::StreamSet) {
    let topics = vec![Topic::new("a.t"), Topic::new("b.t")];
    let streams = ["a", "b"].map(|name| crate::model::StreamName::parse(name).expect("a name"));
    (topics.clone(), crate::model::StreamSet::new(streams.to_vec(), topics, vec![]))
}

pub(super) fn who() -> super::Who {
    let address = std::net::IpAddr::from([127, 0, 0, 1]);
    super::Who { client: crate::model::ClientKey::of(address, 32, 64), user_agent: None }
}

pub(super) type SharedLog = Arc<MemLog>;
