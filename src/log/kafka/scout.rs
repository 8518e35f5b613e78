//! The tail's second thread: asks the brokers what the polling thread must not wait for.
//!
//! Finds partitions and opens their places, looks back over gaps, moves places that retention or a new topic of the same
//! name has passed, commits where the tail stands, and notices that the log is away.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;

use super::context::Context;
use super::places::Restless;
use super::reader::{Led, Reader, Until};
use super::tail::TailState;
use crate::log::{PartitionEnds, ReadError};
use crate::metrics::TAIL_MOVED;
use crate::model::{Offset, Partition, Topic};

/// How often the log is asked for new partitions; sooner just after the start and while it is away.
const LOOK_EVERY: Duration = Duration::from_secs(3);
const LOOK_SOON: Duration = Duration::from_millis(300);
/// For so long after the start, and after a change of the topics, a look is taken soon.
const YOUNG_FOR: Duration = Duration::from_secs(10);
const COMMIT_EVERY: Duration = Duration::from_secs(3);
/// A place that should have moved is looked into after this.
const PATIENCE: Duration = Duration::from_millis(300);
/// For one question; a broker that does not answer holds up the scout, never the poll.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Places looked into in one round: sick ones must not keep the scout from finding new ones.
const LOOKED_INTO_MAX: usize = 16;

pub(super) struct Scout {
    state: Arc<TailState>,
    consumer: Arc<BaseConsumer<Context>>,
    reader: Reader,
    warm: u64,
    committed_at: Instant,
    committed: BTreeMap<Partition, Offset>,
    young_until: Instant,
}

impl Scout {
    pub(super) fn new(state: Arc<TailState>, consumer: Arc<BaseConsumer<Context>>, reader: Reader, warm: u64) -> Self {
        let now = Instant::now();
        let committed = BTreeMap::new();
        Self { state, consumer, reader, warm, committed_at: now, committed, young_until: now + YOUNG_FOR }
    }

    /// Until the tail stops.
    pub(super) fn run(mut self) {
        loop {
            let soon = self.state.places.lock().is_away() || Instant::now() < self.young_until;
            let called = self.state.calls.wait(if soon { LOOK_SOON } else { LOOK_EVERY });
            if self.state.stopped() {
                return self.commit(CommitMode::Sync);
            }
            if called.topics {
                self.young_until = Instant::now() + YOUNG_FOR;
            }
            self.leave();
            self.look();
            if called.out_of_range {
                self.check_all();
            }
            self.look_into_the_restless();
            if self.committed_at.elapsed() >= COMMIT_EVERY {
                self.commit(CommitMode::Async);
            }
        }
    }

    /// One look at the log: what is there that has no place yet, and whether the log answers at all.
    pub(super) fn look(&self) {
        let topics = self.state.places.lock().wanted();
        let Ok(led) = self.reader.partitions(&topics, Until::after(ANSWER_WITHIN)) else {
            return self.state.places.lock().set_away(true);
        };
        let was_away = self.state.places.lock().is_away();
        self.note_look(&led);
        let new: Vec<Led> = {
            let places = self.state.places.lock();
            led.into_iter().filter(|one| !places.has(&one.partition)).collect()
        };
        for partitions in by_leader(new) {
            match self.reader.ends(&partitions, Until::after(ANSWER_WITHIN)) {
                Ok(ends) => self.open(&ends),
                Err(fault) => tracing::debug!(?partitions, "the ends of new partitions are not known yet: {fault}"),
            }
        }
        if was_away {
            self.come_back();
        }
    }

    /// What exists at the first look was there before the tail: it starts near its end. What comes later is new.
    fn note_look(&self, led: &[Led]) {
        let there: HashSet<Partition> = led.iter().map(|one| one.partition.clone()).collect();
        let mut places = self.state.places.lock();
        if !places.looked {
            places.looked = true;
            places.unasked = there;
        } else {
            // Nobody waits for the ends of what was deleted.
            places.unasked.retain(|partition| there.contains(partition));
        }
    }

    fn open(&self, ends: &[PartitionEnds]) {
        let mut starts = TopicPartitionList::new();
        let mut places = self.state.places.lock();
        for PartitionEnds { partition, first, next } in ends {
            let there_before = places.unasked.contains(partition);
            let back = i64::try_from(self.warm).unwrap_or(i64::MAX);
            let begin = if there_before { Offset(next.0.saturating_sub(back)).max(*first) } else { *first };
            let early = begin > *first;
            let from = if early { Offset(begin.0 - 1) } else { begin };
            if places.open(partition, begin, early, there_before.then_some(*next)) {
                add(&mut starts, partition, from);
            }
        }
        drop(places);
        self.assign(&starts);
    }

    /// Topics that are not followed any more: their places are gone already, and what still comes is dropped.
    fn leave(&self) {
        let left = std::mem::take(&mut *self.state.left.lock());
        let places = self.state.places.lock();
        let left: Vec<Partition> = left.into_iter().filter(|partition| !places.has(partition)).collect();
        drop(places);
        self.unassign(&left);
    }

    /// The log answers again: caught up is from now on who has what it holds now.
    fn come_back(&self) {
        let (all, stood) = self.where_all_stand();
        let Ok(ends) = self.ends_of(all) else { return };
        let mut places = self.state.places.lock();
        ends.iter().for_each(|ends| places.aim(&ends.partition, ends.next));
        places.set_away(false);
        drop(places);
        // What was deleted and made again meanwhile has other ends.
        self.move_those_out_of_range(&stood, &ends);
    }

    fn check_all(&self) {
        let (all, stood) = self.where_all_stand();
        if let Ok(ends) = self.ends_of(all) {
            self.move_those_out_of_range(&stood, &ends);
        } else {
            self.state.calls.out_of_range();
        }
    }

    /// Taken before the ends are asked for: a tail that moves meanwhile would seem to stand past them.
    fn where_all_stand(&self) -> (Vec<Partition>, BTreeMap<Partition, Offset>) {
        let places = self.state.places.lock();
        (places.all(), places.followed().into_iter().collect())
    }

    /// Of those that can be asked; an error if none can.
    fn ends_of(&self, partitions: Vec<Partition>) -> Result<Vec<PartitionEnds>, ReadError> {
        let mut topics: Vec<Topic> = partitions.iter().map(|one| one.topic.clone()).collect();
        topics.sort();
        topics.dedup();
        let led = self.reader.partitions(&topics, Until::after(ANSWER_WITHIN))?;
        let mut all = Vec::new();
        let mut fault = None;
        for partitions in by_leader(led.into_iter().filter(|one| partitions.contains(&one.partition)).collect()) {
            match self.reader.ends(&partitions, Until::after(ANSWER_WITHIN)) {
                Ok(ends) => all.extend(ends),
                Err(error) => fault = Some(error),
            }
        }
        match fault {
            Some(error) if all.is_empty() => Err(error),
            _ => Ok(all),
        }
    }

    /// Below the first: retention was faster, and the tail goes on with the oldest. Past the end: this is another topic of
    /// the same name, followed from its first record.
    fn move_those_out_of_range(&self, stood: &BTreeMap<Partition, Offset>, ends: &[PartitionEnds]) {
        for PartitionEnds { partition, first, next: end } in ends {
            let Some(stood) = stood.get(partition) else { continue };
            if stood < first {
                tracing::warn!(%partition, lost_from = %stood, goes_on_at = %first, "retention has passed the tail");
                self.put_at(partition, *first, false);
            } else if stood > end {
                tracing::warn!(%partition, stood = %stood, end = %end, "the topic was made anew: followed from its first record");
                self.put_at(partition, *first, true);
            }
        }
    }

    fn put_at(&self, partition: &Partition, next: Offset, anew: bool) {
        metrics::counter!(TAIL_MOVED).increment(1);
        self.state.places.lock().lift(partition);
        self.unassign(std::slice::from_ref(partition));
        if self.state.places.lock().put(partition, next, anew, None) {
            self.assign_one(partition, next);
        }
    }

    fn look_into_the_restless(&self) {
        let restless = self.state.places.lock().restless(PATIENCE);
        for (partition, why) in restless.into_iter().take(LOOKED_INTO_MAX) {
            let looked = match why {
                Restless::Opening => self.look_back(&partition),
                Restless::Missing { next, target } => self.look_for_a_gap(&partition, next, target),
            };
            if let Err(fault) = looked {
                tracing::debug!(%partition, "nothing comes, and nobody says why: {fault}");
                self.state.places.lock().touch(&partition);
            }
        }
    }

    /// There was no record one early: the time comes from further back.
    fn look_back(&self, partition: &Partition) -> Result<(), ReadError> {
        let Some(next) = self.state.places.lock().lift(partition) else { return Ok(()) };
        self.unassign(std::slice::from_ref(partition));
        let before = self.reader.before(partition, next, Until::after(ANSWER_WITHIN))?;
        if self.state.places.lock().put(partition, next, false, before.map(|(_, time)| time)) {
            self.assign_one(partition, next);
        }
        Ok(())
    }

    fn look_for_a_gap(&self, partition: &Partition, next: Offset, target: Offset) -> Result<(), ReadError> {
        let last = self.reader.before(partition, target, Until::after(ANSWER_WITHIN))?;
        let mut places = self.state.places.lock();
        if last.is_none_or(|(last, _)| last < next) {
            places.pass_over(partition, target);
        }
        places.touch(partition);
        Ok(())
    }

    /// What was taken (the last batch of it may not be handed on yet), so that lag tools show this host's lag. Where reading starts never depends on it.
    fn commit(&mut self, mode: CommitMode) {
        self.committed_at = Instant::now();
        if self.state.places.lock().is_away() {
            return;
        }
        let mut moved = TopicPartitionList::new();
        for (partition, next) in self.state.places.lock().followed() {
            if self.committed.insert(partition.clone(), next) != Some(next) {
                add(&mut moved, &partition, next);
            }
        }
        if moved.count() > 0 {
            log_fault("committed", self.consumer.commit(&moved, mode));
        }
    }

    fn assign_one(&self, partition: &Partition, from: Offset) {
        let mut list = TopicPartitionList::new();
        add(&mut list, partition, from);
        self.assign(&list);
    }

    fn assign(&self, list: &TopicPartitionList) {
        if list.count() > 0 {
            log_fault("assigned", self.consumer.incremental_assign(list));
        }
    }

    fn unassign(&self, partitions: &[Partition]) {
        let mut list = TopicPartitionList::new();
        partitions.iter().for_each(|one| _ = list.add_partition(one.topic.as_str(), one.index));
        if list.count() > 0 {
            log_fault("left", self.consumer.incremental_unassign(&list));
        }
    }
}

fn add(list: &mut TopicPartitionList, partition: &Partition, at: Offset) {
    let added = list.add_partition_offset(partition.topic.as_str(), partition.index, rdkafka::Offset::Offset(at.0));
    debug_assert!(added.is_ok(), "offsets are not negative");
}

fn log_fault(what: &'static str, result: Result<(), KafkaError>) {
    if let Err(fault) = result {
        tracing::warn!("partitions of the tail could not be {what}: {fault}");
    }
}

/// Those without a leader cannot be asked; those of one broker are asked together, so that one that does not answer
/// speaks only for itself.
fn by_leader(led: Vec<Led>) -> Vec<Vec<Partition>> {
    let mut groups: BTreeMap<i32, Vec<Partition>> = BTreeMap::new();
    for Led { partition, leader } in led {
        if let Some(leader) = leader {
            groups.entry(leader).or_default().push(partition);
        }
    }
    groups.into_values().collect()
}
