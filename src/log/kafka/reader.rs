//! One consumer that answers one question at a time: a range of a partition, ends, times. Blocks; every question has a time
//! by which it ends.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::metadata::{Metadata, MetadataTopic};

use super::OpenError;
use super::clients::{Clients, make};
use super::context::Context;
use crate::log::{Block, PartitionEnds, ReadError};
use crate::model::{Offset, Partition, Record, Timestamp, Topic};

/// Up to so many topics are asked for one by one; for more, the whole cluster's list is one request.
const TOPICS_ONE_BY_ONE_MAX: usize = 8;
/// How far [`Reader::before`] looks back at first, and how its steps grow over gaps.
const BEFORE_STEP_FIRST: i64 = 1;
const BEFORE_STEP_GROWTH: i64 = 16;

/// Addresses kept of brokers that are away.
const BROKERS_REMEMBERED_MAX: usize = 1_024;

/// Raw times that Kafka's lookup by time takes for "the oldest" and "the end"; librdkafka passes them through.
const OLDEST: rdkafka::Offset = rdkafka::Offset::Beginning;
const END: rdkafka::Offset = rdkafka::Offset::End;

pub(super) struct Reader {
    consumer: BaseConsumer<Context>,
    /// See [`Clients::generation`].
    generation: u64,
}

/// When an answer is no longer waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until(Instant);

impl Until {
    pub(super) fn after(within: Duration) -> Self {
        Self(Instant::now() + within)
    }

    pub(super) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// A partition and the broker that leads it; none while it is being elected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Led {
    pub(super) partition: Partition,
    pub(super) leader: Option<i32>,
    /// The brokers that hold it, whether they are there or not.
    pub(super) replicas: Vec<i32>,
}

/// What the cluster says of itself: who leads what, and where the brokers are that are there.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    pub(super) led: Vec<Led>,
    brokers: BTreeMap<i32, String>,
}

impl Cluster {
    /// As people know it: `3 (host:port)`.
    pub(super) fn broker(&self, id: i32) -> String {
        match self.brokers.get(&id) {
            Some(address) => format!("{id} ({address})"),
            None => id.to_string(),
        }
    }

    /// A cluster does not name brokers that are away; people want to know where they were.
    pub(super) fn remember(&mut self, before: &Self) {
        for (id, address) in &before.brokers {
            if self.brokers.len() < BROKERS_REMEMBERED_MAX {
                self.brokers.entry(*id).or_insert_with(|| address.clone());
            }
        }
    }

    fn add(&mut self, metadata: &Metadata, topics: &HashMap<&str, &Topic>) {
        let brokers = metadata.brokers().iter();
        self.brokers.extend(brokers.map(|broker| (broker.id(), format!("{}:{}", broker.host(), broker.port()))));
        for found in metadata.topics() {
            if let Some(topic) = topics.get(found.name()) {
                self.led.extend(led_of(topic, found));
            }
        }
    }
}

/// What one pass over a range has met.
struct Pass {
    records: Vec<Record>,
    stopped: Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    /// Enough bytes, or the range's end is reached or crossed.
    Full,
    RangeDone,
    PartitionEnd,
    OutOfRange,
    NoSuchPartition,
    OutOfTime,
}

impl Reader {
    pub(super) fn new(clients: &Clients, name: &'static str) -> Result<Self, OpenError> {
        let generation = clients.generation();
        Ok(Self { consumer: make(&clients.reads(), Context::new(name, |_| ()))?, generation })
    }

    /// Whether it is a client of the addresses that hold now.
    pub(super) fn is_of(&self, clients: &Clients) -> bool {
        self.generation == clients.generation()
    }

    pub(super) fn answers(&self, until: Until) -> Result<(), ReadError> {
        self.consumer.fetch_metadata(Some(super::PROBE_TOPIC), until.left()).map(drop).map_err(unavailable)
    }

    /// The partitions of those topics that exist.
    pub(super) fn partitions(&self, topics: &[Topic], until: Until) -> Result<Vec<Led>, ReadError> {
        self.cluster(topics, until).map(|cluster| cluster.led)
    }

    /// Those of its partitions that are these topics'.
    pub(super) fn cluster(&self, topics: &[Topic], until: Until) -> Result<Cluster, ReadError> {
        let known: HashMap<&str, &Topic> = topics.iter().map(|topic| (topic.as_str(), topic)).collect();
        let mut cluster = Cluster::default();
        if topics.len() > TOPICS_ONE_BY_ONE_MAX {
            let metadata = self.consumer.fetch_metadata(None, until.left()).map_err(unavailable)?;
            cluster.add(&metadata, &known);
            return Ok(cluster);
        }
        for topic in topics {
            let metadata = self.consumer.fetch_metadata(Some(topic.as_str()), until.left()).map_err(unavailable)?;
            cluster.add(&metadata, &known);
        }
        Ok(cluster)
    }

    /// The next offsets of partitions that exist, in the order asked. One request per broker.
    pub(super) fn nexts(&self, partitions: &[Partition], until: Until) -> Result<Vec<Offset>, ReadError> {
        self.offsets(partitions.iter().map(|partition| (partition, END)), until)
    }

    /// Ends of partitions that exist. One request per broker and end; one that cannot be answered fails them all.
    pub(super) fn ends(&self, partitions: &[Partition], until: Until) -> Result<Vec<PartitionEnds>, ReadError> {
        let firsts = self.offsets(partitions.iter().map(|partition| (partition, OLDEST)), until)?;
        let nexts = self.offsets(partitions.iter().map(|partition| (partition, END)), until)?;
        let ends = partitions.iter().zip(firsts.into_iter().zip(nexts));
        Ok(ends.map(|(partition, (first, next))| PartitionEnds { partition: partition.clone(), first, next }).collect())
    }

    /// In the order asked; the end where no record is late enough. The partitions exist.
    pub(super) fn at_time(&self, wanted: &[(Partition, Timestamp)], until: Until) -> Result<Vec<Offset>, ReadError> {
        // Negative times would be read as "the oldest" and "the end".
        let times = wanted.iter().map(|(partition, time)| (partition, rdkafka::Offset::Offset(time.0.max(0))));
        let mut offsets = self.offsets(times, until)?;
        let none: Vec<usize> = (0..offsets.len()).filter(|at| offsets[*at].0 < 0).collect();
        if !none.is_empty() {
            let ends = self.offsets(none.iter().map(|at| (&wanted[*at].0, END)), until)?;
            none.into_iter().zip(ends).for_each(|(at, end)| offsets[at] = end);
        }
        Ok(offsets)
    }

    /// Offsets for times, in the order asked; the same partition may be asked for more than once.
    fn offsets<'a>(
        &self,
        wanted: impl Iterator<Item = (&'a Partition, rdkafka::Offset)>,
        until: Until,
    ) -> Result<Vec<Offset>, ReadError> {
        let mut offsets = Vec::new();
        let mut left: Vec<(usize, &Partition, rdkafka::Offset)> =
            wanted.enumerate().map(|(at, (partition, time))| (at, partition, time)).collect();
        offsets.resize(left.len(), Offset(-1));
        // A request names each partition once: what is asked again goes into the next one.
        while !left.is_empty() {
            let mut asked: HashMap<&Partition, usize> = HashMap::new();
            let mut list = TopicPartitionList::new();
            let mut again = Vec::new();
            for (at, partition, time) in left {
                if asked.contains_key(partition) {
                    again.push((at, partition, time));
                    continue;
                }
                asked.insert(partition, at);
                list.add_partition_offset(partition.topic.as_str(), partition.index, time).map_err(unavailable)?;
            }
            let found = self.consumer.offsets_for_times(list, until.left()).map_err(unavailable)?;
            for one in found.elements() {
                one.error().map_err(unavailable)?;
                let partition = Partition::new(&Topic::new(one.topic()), one.partition());
                if let Some(at) = asked.get(&partition) {
                    offsets[*at] = Offset(one.offset().to_raw().unwrap_or(-1));
                }
            }
            left = again;
        }
        Ok(offsets)
    }

    /// As [`crate::log::Log::read`].
    pub(super) fn read(
        &self,
        partition: &Partition,
        start: Offset,
        end: Offset,
        bytes_max: usize,
        until: Until,
    ) -> Result<Block, ReadError> {
        let nothing = Block { records: Vec::new(), next: start };
        if start >= end {
            return Ok(nothing);
        }
        let pass = self.pass(partition, start, end, bytes_max, until)?;
        let next = pass.records.last().map(|last| last.offset.after());
        match (pass.stopped, next) {
            (Stopped::RangeDone, _) => Ok(Block { records: pass.records, next: end }),
            (Stopped::Full | Stopped::PartitionEnd | Stopped::OutOfTime, Some(next)) => {
                Ok(Block { records: pass.records, next })
            }
            (Stopped::PartitionEnd, None) => self.over_the_last_gap(partition, start, end, until),
            (Stopped::OutOfRange, _) => self.out_of_range(partition, start, until),
            (Stopped::NoSuchPartition, _) => self.no_such_partition(partition, until).map(|()| nothing),
            (Stopped::Full | Stopped::OutOfTime, None) => Err(out_of_time()),
        }
    }

    /// The partition ended without a record: at `start`, or with a gap behind it, such as the marker of a transaction.
    fn over_the_last_gap(
        &self,
        partition: &Partition,
        start: Offset,
        end: Offset,
        until: Until,
    ) -> Result<Block, ReadError> {
        let ends = self.ends(std::slice::from_ref(partition), until)?;
        let gap_end = ends.first().map_or(start, |ends| ends.next).min(end);
        if gap_end <= start {
            return Ok(Block { records: Vec::new(), next: start });
        }
        // Once more, as a record may have come before the end was asked for.
        let pass = self.pass(partition, start, gap_end, usize::MAX, until)?;
        let next = pass.records.last().map(|last| last.offset.after());
        match pass.stopped {
            Stopped::RangeDone => Ok(Block { records: pass.records, next: gap_end }),
            Stopped::PartitionEnd => Ok(Block { records: pass.records, next: next.unwrap_or(gap_end) }),
            _ => Err(out_of_time()),
        }
    }

    fn out_of_range(&self, partition: &Partition, start: Offset, until: Until) -> Result<Block, ReadError> {
        let ends = self.ends(std::slice::from_ref(partition), until)?;
        match ends.first() {
            Some(ends) if start < ends.first => Err(ReadError::Gone { first: ends.first }),
            Some(ends) if start >= ends.next => Ok(Block { records: Vec::new(), next: start }),
            // The broker that said so was not the leader any more.
            _ => Err(ReadError::Unavailable("the partition is changing its leader".to_owned())),
        }
    }

    /// Only if a broker says so now: a client that has lost the cluster knows no partitions either.
    fn no_such_partition(&self, partition: &Partition, until: Until) -> Result<(), ReadError> {
        let led = self.partitions(std::slice::from_ref(&partition.topic), until)?;
        match led.iter().any(|one| one.partition == *partition) {
            true => Err(ReadError::Unavailable("the partition has just been made".to_owned())),
            false => Ok(()),
        }
    }

    /// As [`crate::log::Log::before`]: backwards in steps that grow over gaps.
    pub(super) fn before(
        &self,
        partition: &Partition,
        at: Offset,
        until: Until,
    ) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        // Nearly always there is no gap, and one fetch is the answer.
        if at > Offset(0)
            && let Some(found) = self.last_in(partition, Offset(at.0 - 1), at, until)?
        {
            return Ok(Some(found));
        }
        if self.partition_is_missing(partition, until)? {
            return Ok(None);
        }
        let ends = self.ends(std::slice::from_ref(partition), until)?;
        let Some(PartitionEnds { first, next, .. }) = ends.first() else { return Ok(None) };
        let at = at.min(*next);
        let mut step = BEFORE_STEP_FIRST;
        let mut upper = at;
        while upper > *first {
            let from = Offset(at.0.saturating_sub(step)).max(*first);
            if let Some(found) = self.last_in(partition, from, upper, until)? {
                return Ok(Some(found));
            }
            upper = from;
            step = step.saturating_mul(BEFORE_STEP_GROWTH);
        }
        Ok(None)
    }

    fn partition_is_missing(&self, partition: &Partition, until: Until) -> Result<bool, ReadError> {
        let led = self.partitions(std::slice::from_ref(&partition.topic), until)?;
        Ok(led.iter().all(|one| one.partition != *partition))
    }

    fn last_in(
        &self,
        partition: &Partition,
        from: Offset,
        below: Offset,
        until: Until,
    ) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        let pass = self.pass(partition, from, below, usize::MAX, until)?;
        match pass.stopped {
            Stopped::OutOfTime => Err(out_of_time()),
            // Retention was faster.
            Stopped::OutOfRange | Stopped::NoSuchPartition => Ok(None),
            _ => Ok(pass.records.last().map(|last| (last.offset, last.time))),
        }
    }

    fn pass(
        &self,
        partition: &Partition,
        start: Offset,
        end: Offset,
        bytes_max: usize,
        until: Until,
    ) -> Result<Pass, ReadError> {
        let mut list = TopicPartitionList::new();
        let from = rdkafka::Offset::Offset(start.0.max(0));
        list.add_partition_offset(partition.topic.as_str(), partition.index, from).map_err(unavailable)?;
        self.consumer.assign(&list).map_err(unavailable)?;
        let pass = self.take(partition, start, end, bytes_max, until);
        self.consumer.unassign().map_err(unavailable)?;
        Ok(pass)
    }

    fn take(&self, partition: &Partition, start: Offset, end: Offset, bytes_max: usize, until: Until) -> Pass {
        let mut records: Vec<Record> = Vec::new();
        let mut bytes = 0;
        let stopped = loop {
            match self.consumer.poll(until.left()) {
                None => {
                    if until.left().is_zero() {
                        break Stopped::OutOfTime;
                    }
                }
                // An echo of the question before.
                Some(Ok(message)) if !is_of(&message, partition) || message.offset() < start.0 => {}
                Some(Ok(message)) if message.offset() >= end.0 => break Stopped::RangeDone,
                Some(Ok(message)) => {
                    let record = record_of(partition.clone(), &message);
                    bytes += record.bytes();
                    if !records.is_empty() && bytes > bytes_max {
                        break Stopped::Full;
                    }
                    let last = record.offset.after() >= end;
                    records.push(record);
                    if last {
                        break Stopped::RangeDone;
                    }
                    if bytes >= bytes_max {
                        break Stopped::Full;
                    }
                }
                Some(Err(error)) => {
                    if let Some(stopped) = stopped_by(&error) {
                        break stopped;
                    }
                }
            }
        };
        Pass { records, stopped }
    }
}

/// What else librdkafka reports, such as a lost connection, it mends itself: the time given is the limit.
fn stopped_by(error: &KafkaError) -> Option<Stopped> {
    match error {
        KafkaError::PartitionEOF(_) => Some(Stopped::PartitionEnd),
        error => match error.rdkafka_error_code()? {
            Code::AutoOffsetReset | Code::OffsetOutOfRange => Some(Stopped::OutOfRange),
            Code::UnknownPartition | Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::InvalidTopic => {
                Some(Stopped::NoSuchPartition)
            }
            _ => None,
        },
    }
}

fn is_of(message: &BorrowedMessage<'_>, partition: &Partition) -> bool {
    message.partition() == partition.index && message.topic() == partition.topic.as_str()
}

/// A copy: librdkafka's memory holds a whole fetch as long as one of its messages lives.
pub(super) fn record_of(partition: Partition, message: &BorrowedMessage<'_>) -> Record {
    Record {
        partition,
        offset: Offset(message.offset()),
        time: time_of(message),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
    }
}

pub(super) fn time_of(message: &BorrowedMessage<'_>) -> Timestamp {
    Timestamp(message.timestamp().to_millis().unwrap_or_default())
}

fn led_of(topic: &Topic, found: &MetadataTopic) -> Vec<Led> {
    // A topic that does not exist is an entry with an error and no partitions.
    let led = found.partitions().iter().map(|one| Led {
        partition: Partition::new(topic, one.id()),
        leader: (one.leader() >= 0).then(|| one.leader()),
        replicas: one.replicas().to_vec(),
    });
    led.collect()
}

pub(super) fn unavailable(error: KafkaError) -> ReadError {
    ReadError::Unavailable(error.to_string())
}

pub(super) fn out_of_time() -> ReadError {
    ReadError::Unavailable("no answer in time".to_owned())
}

/// Those without a leader cannot be asked; those of one broker are asked together, so that one that does not answer
/// speaks only for itself.
pub(super) fn by_leader(led: Vec<Led>) -> BTreeMap<i32, Vec<Partition>> {
    let mut groups: BTreeMap<i32, Vec<Partition>> = BTreeMap::new();
    for Led { partition, leader, .. } in led {
        if let Some(leader) = leader {
            groups.entry(leader).or_default().push(partition);
        }
    }
    groups
}
