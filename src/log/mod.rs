//! The log between the two halves: an append-only sequence of records per partition of a topic.
//!
//! - this page: [`Log`] and [`Tail`], whose docs are the contract that every engine passes (`tests/log`)
//! - `sqlite` the embedded engine, one partition per topic
//! - `kafka` the engine for production, through librdkafka
//!
//! Knows no streams, no JSON, no SSE, no readers; and an engine does not know the other one.

pub mod kafka;
pub mod sqlite;

use std::ops::Range;

use async_trait::async_trait;

use crate::model::{NewRecord, Offset, Partition, Record, Timestamp, Topic};

/// An append-only log of topics with partitions.
///
/// All calls are safe to make at once from many tasks, on any multi-thread tokio runtime, and end within a bounded
/// time whatever the log's state: what cannot be answered is an error, not a wait.
///
/// - Offsets of a partition only grow. They may have gaps, and the oldest records may vanish at any time (retention).
/// - A read sees every record that was acknowledged before the read began, unless retention took it.
/// - A topic that does not exist yet has no partitions; that is not an error.
#[async_trait]
pub trait Log: Send + Sync {
    /// Appends the records, in their order per partition, and answers for each of them in the order given.
    ///
    /// `Ok` means durable: it survives a crash of this process and of the machine (SQLite) or is held by all in-sync
    /// replicas (Kafka). A failed record fails alone.
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Appended, AppendError>>;

    /// The records of one partition from `range.start` on, below `range.end`.
    ///
    /// Stops after about `bytes_max` bytes, but always brings one record if there is one. [`Block::next`] says where to
    /// read on: at `range.end` (or past a gap that crosses it) there is nothing more; below it with no records, the
    /// partition ends there. A start that retention has passed is [`ReadError::Gone`]; a start at or past the end
    /// brings nothing, with `next == range.start`.
    async fn read(&self, partition: &Partition, range: Range<Offset>, bytes_max: usize) -> Result<Block, ReadError>;

    /// First and next offset of every partition of these topics. Topics that do not exist are left out.
    async fn ends(&self, topics: &[Topic]) -> Result<Vec<PartitionEnds>, ReadError>;

    /// For each: the first offset whose record's time is at or after the time given, or the partition's end if there is none.
    /// (SQLite may answer an earlier offset where retention took the records in between: never a later one.)
    async fn at_time(&self, wanted: &[(Partition, Timestamp)]) -> Result<Vec<Offset>, ReadError>;

    /// The newest record below this offset, as its offset and time, if there still is one.
    async fn before(&self, partition: &Partition, at: Offset) -> Result<Option<(Offset, Timestamp)>, ReadError>;

    /// Follows these topics from near their ends: at most `warm` records back in each partition. Partitions that
    /// appear later are followed from their first record. Never fails: a log that is away is waited for by [`Tail::next`].
    async fn tail(&self, topics: Vec<Topic>, warm: u64) -> Box<dyn Tail>;

    /// Makes those of these topics that are missing, where topics come to be by being appended to, so that they stand in
    /// readers' places before their first record. Where they are the operator's this does nothing.
    async fn prepare(&self, _topics: &[Topic]) -> Result<(), AppendError> {
        Ok(())
    }

    /// How every partition of these topics is, for who watches the log. One that is sick fails alone; an error means that
    /// the log as a whole does not answer. Topics that do not exist are left out.
    async fn survey(&self, topics: &[Topic]) -> Result<Vec<Surveyed>, ReadError> {
        let ends = self.ends(topics).await?;
        Ok(ends
            .into_iter()
            .map(|PartitionEnds { partition, first, next }| Surveyed { partition, ends: Ok(first..next) })
            .collect())
    }

    /// Makes this topic, with one partition, where it is missing: for sluice's own, whoever the others belong to.
    async fn make_own(&self, topic: &Topic) -> Result<(), MakeError> {
        self.prepare(std::slice::from_ref(topic))
            .await
            .map_err(|error| MakeError { why: error.to_string(), by_hand: None })
    }

    /// Is reached at these addresses from now on, where it is reached by address at all. What is under way is finished or
    /// answered; tails and reads go on where they stand.
    async fn reconnect(&self, _addresses: &[String]) {}

    /// Whether the log answers now.
    async fn check(&self) -> Result<(), ReadError>;

    /// Finishes what was appended; appends after it are refused, and reads go on. The first half of [`Log::close`].
    async fn finish(&self) {}

    /// Finishes what was appended and gives back what the log holds; appends after it are refused.
    async fn close(&self);

    /// A few words for people: which engine, and where the log is.
    fn describe(&self) -> String;
}

/// A following read of many partitions. One sick partition does not hold up the others.
#[async_trait]
pub trait Tail: Send {
    /// What has come since; waits until there is something. Cancel-safe. A log that is away is waited for and re-joined
    /// where the tail stood: it is not an error.
    async fn next(&mut self) -> TailBatch;

    /// Follows these topics from now on; those that are new are followed like partitions that appear later.
    fn follow(&mut self, topics: Vec<Topic>);
}

/// What a tail brings at once. `opened` comes before `records`; a partition's records come after it was opened.
#[derive(Debug, Default)]
pub struct TailBatch {
    pub opened: Vec<Opened>,
    /// In order per partition, each record once.
    pub records: Vec<Record>,
    /// All that the log held when the tail was opened has been delivered. False again while a log is away.
    pub caught_up: bool,
}

/// A partition whose records the tail brings from now on, from `next`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub partition: Partition,
    pub next: Offset,
    /// The time of the record before `next` in the log, if there is one.
    pub before: Option<Timestamp>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Block {
    pub records: Vec<Record>,
    pub next: Offset,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionEnds {
    pub partition: Partition,
    /// The oldest offset that may still be read.
    pub first: Offset,
    /// The offset that the next record will have, or a later one.
    pub next: Offset,
}

/// One partition, as [`Log::survey`] finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
    pub partition: Partition,
    /// Its first and its next offset, or why nobody can say.
    pub ends: Result<Range<Offset>, Sick>,
}

/// What is wrong with a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sick {
    /// The broker that should answer for it, where there is one.
    pub broker: Option<String>,
    pub why: String,
}

/// Why a topic of sluice's own is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct MakeError {
    pub why: String,
    /// The command with which an operator makes it. None where the log has not answered: it may be there.
    pub by_hand: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    pub partition: Partition,
    pub offset: Offset,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The record will never fit: the client's fault.
    #[error("the record is too large for its topic: {0}")]
    TooLarge(String),
    /// Never handed over, or handed back: it is not in the log and never will be.
    #[error("the log cannot take the record now: {0}")]
    NotWritten(String),
    /// The same, and it says nothing of how the log is: too much is under way here, or the log is being closed.
    #[error("the log cannot take the record now: {0}")]
    Busy(String),
    /// The log will not take it, and trying again does not help until an operator has done something: the topic is not
    /// there and will not be made, or sluice has no right to write to it. It is not in the log.
    #[error("the log refuses the record: {0}")]
    Refused(String),
    /// Handed over and not acknowledged: it may yet appear.
    #[error("the log did not acknowledge the record: {0}")]
    Unknown(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("the records below offset {first} are no longer kept")]
    Gone { first: Offset },
    #[error("the log cannot be read now: {0}")]
    Unavailable(String),
}
