//! A log in memory whose tails a test feeds by hand, so that two servers can see partitions in different orders.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{From, Hub, Options, Subscription, Who, Worker};
use crate::limits::{Asker, Limits};
use crate::log::{AppendError, Appended, Block, Log, Opened, PartitionEnds, ReadError, Tail, TailBatch};
use crate::model::{ClientKey, NewRecord, Offset, Partition, Record, StreamName, StreamSet, Timestamp, Topic};
use crate::shutdown::Shutdown;

#[derive(Default)]
pub(crate) struct MemLog {
    partitions: Mutex<BTreeMap<Partition, Kept>>,
    tails: Mutex<Vec<mpsc::Sender<TailBatch>>>,
    pub(crate) reads: AtomicUsize,
    pub(crate) away: AtomicBool,
    /// So many batches that are brought next make their tail fail, and are lost with it.
    tails_that_fail: Arc<AtomicUsize>,
}

#[derive(Default, Clone)]
struct Kept {
    records: Vec<Record>,
    first: Offset,
    next: Offset,
}

impl MemLog {
    pub(crate) fn add_partition(&self, partition: &Partition) {
        self.partitions.lock().insert(partition.clone(), Kept::default());
    }

    /// Appends one record, `gap` offsets further on than the next one would be.
    pub(crate) fn put(&self, partition: &Partition, gap: i64, time: i64, value: Option<&str>) {
        let mut partitions = self.partitions.lock();
        let kept = partitions.get_mut(partition).expect("a partition");
        let offset = Offset(kept.next.0 + gap);
        let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
        kept.records.push(Record { partition: partition.clone(), offset, time: Timestamp(time), key: None, value });
        kept.next = offset.after();
    }

    pub(crate) fn retain_from(&self, partition: &Partition, first: Offset) {
        let mut partitions = self.partitions.lock();
        let kept = partitions.get_mut(partition).expect("a partition");
        kept.first = first.max(kept.first).min(kept.next);
        let first = kept.first;
        kept.records.retain(|record| record.offset >= first);
    }

    pub(crate) fn partitions(&self) -> Vec<Partition> {
        self.partitions.lock().keys().cloned().collect()
    }

    pub(crate) fn bounds(&self, partition: &Partition) -> (Offset, Offset) {
        let kept = &self.partitions.lock()[partition];
        (kept.first, kept.next)
    }

    pub(crate) fn records(&self, partition: &Partition, range: Range<Offset>) -> Vec<Record> {
        let kept = &self.partitions.lock()[partition];
        kept.records.iter().filter(|record| range.contains(&record.offset)).cloned().collect()
    }

    pub(crate) fn opened(&self, partition: &Partition, next: Offset) -> Opened {
        let before = self.records(partition, Offset(0)..next).last().map(|record| record.time);
        Opened { partition: partition.clone(), next, before }
    }

    /// The feeding end of the tail that was opened last.
    pub(crate) fn last_tail(&self) -> Option<mpsc::Sender<TailBatch>> {
        self.tails.lock().last().cloned()
    }

    /// The next batch that a tail brings is lost, together with that tail.
    pub(crate) fn fail_a_tail(&self) {
        self.tails_that_fail.fetch_add(1, Ordering::Relaxed);
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
        Box::new(FedTail { fed, fails: self.tails_that_fail.clone() })
    }

    async fn check(&self) -> Result<(), ReadError> {
        self.answer()
    }

    async fn close(&self) {}

    fn describe(&self) -> String {
        "memory".into()
    }
}

struct FedTail {
    fed: mpsc::Receiver<TailBatch>,
    fails: Arc<AtomicUsize>,
}

#[async_trait]
impl Tail for FedTail {
    async fn next(&mut self) -> TailBatch {
        match self.fed.recv().await {
            Some(batch) => {
                let fails = self.fails.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
                if fails.is_ok() {
                    // As a panic, but silent.
                    std::panic::resume_unwind(Box::new("injected"));
                }
                batch
            }
            None => std::future::pending().await,
        }
    }

    fn follow(&mut self, _: Vec<Topic>) {}
}

/// Two topics, one stream each, and the set of both.
pub(crate) fn two_topics() -> (Vec<Topic>, StreamSet) {
    let topics = vec![Topic::new("a.t"), Topic::new("b.t")];
    let streams = ["a", "b"].map(|name| StreamName::parse(name).expect("a name"));
    (topics.clone(), StreamSet::new(streams.to_vec(), topics, vec![]))
}

pub(crate) fn who() -> Who {
    let address = std::net::IpAddr::from([127, 0, 0, 1]);
    Who { asker: Asker { address, key: ClientKey::of(address, 32, 64) }, user_agent: None, place: None }
}

pub(crate) type SharedLog = Arc<MemLog>;

/// A hub whose tail brings what the test feeds it, into one partition.
pub(crate) struct Feeder {
    pub(crate) hub: Hub,
    pub(crate) worker: Rc<Worker>,
    pub(crate) shutdown: Shutdown,
    pub(crate) limits: Limits,
    log: SharedLog,
    feed: mpsc::Sender<TailBatch>,
    set: StreamSet,
    partition: Partition,
}

impl Feeder {
    pub(crate) async fn start(options: Options) -> Self {
        let (topics, set) = two_topics();
        let log = SharedLog::default();
        let partition = Partition::new(&topics[0], 0);
        log.add_partition(&partition);
        let shutdown = Shutdown::default();
        let engine = tokio::runtime::Handle::current();
        let (limits, warm, stop) = (Limits::none(), std::slice::from_ref(&set), shutdown.watcher());
        let hub = Hub::start(options, limits.clone(), log.clone(), topics, warm, &engine, stop).expect("a hub");
        let feed = loop {
            match log.last_tail() {
                Some(feed) => break feed,
                None => tokio::task::yield_now().await,
            }
        };
        let worker = hub.worker(Duration::ZERO);
        let feeder = Self { hub, worker, shutdown, limits, feed, set, partition, log };
        let opened = vec![feeder.log.opened(&feeder.partition, Offset(0))];
        feeder.send(TailBatch { opened, records: vec![], caught_up: true }).await;
        feeder
    }

    /// Appends one event and brings it to the readers. Its time is its offset, in seconds.
    pub(crate) async fn feed(&self, value: &str) {
        let (_, next) = self.log.bounds(&self.partition);
        self.log.put(&self.partition, 0, (next.0 + 1) * 1000, Some(value));
        let records = self.log.records(&self.partition, next..next.after());
        self.send(TailBatch { opened: vec![], records, caught_up: true }).await;
    }

    /// The log begins the partition anew, as after a topic was deleted and made again.
    pub(crate) async fn begin_anew(&self) {
        self.log.add_partition(&self.partition);
        let opened = vec![self.log.opened(&self.partition, Offset(0))];
        self.send(TailBatch { opened, records: vec![], caught_up: true }).await;
    }

    /// From now on it does not answer.
    pub(crate) fn take_the_log_away(&self) {
        self.log.away.store(true, Ordering::Relaxed);
    }

    pub(crate) async fn subscribe(&self, from: From) -> Subscription {
        let mut subscription = self.hub.subscribe(&self.set, from, who()).expect("a subscription");
        subscription.settle(Duration::from_secs(2)).await.expect("a place");
        subscription
    }

    async fn send(&self, batch: TailBatch) {
        self.feed.send(batch).await.expect("the tail listens");
        while self.feed.capacity() < self.feed.max_capacity() {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
    }
}
