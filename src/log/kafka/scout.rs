//! The tail's second thread: asks the brokers what the polling thread must not wait for.
//!
//! Finds partitions and opens their places, looks back over gaps, moves places that retention or a new topic of the same
//! name has passed, commits where the tail stands, and notices that the log is away, or that it answers and the tail stands
//! still: then the consumer is made anew, and begins where the places stand. So it is where the addresses have changed, or
//! a thread of the tail has failed.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use tokio::runtime::Handle;
use tokio::sync::mpsc::WeakSender;

use super::OpenError;
use super::clients::Clients;
use super::context::Context;
use super::failing::Failing;
use super::places::Restless;
use super::reader::{Cluster, Led, Reader, Until, by_leader};
use super::still::{Odd, Still};
use super::tail::{Called, Current, TailState, consumer};
use crate::log::{PartitionEnds, ReadError, TailBatch};
use crate::metrics::{TAIL_MOVED, TAILS_REBUILT};
use crate::model::{Offset, Partition, Topic};

/// How often the log is asked for new partitions; sooner just after the start and while it is away.
const LOOK_EVERY: Duration = Duration::from_secs(3);
const LOOK_SOON: Duration = Duration::from_millis(300);
/// For so long after the start, and after a change of the topics, a look is taken soon.
pub(super) const YOUNG_FOR: Duration = Duration::from_secs(10);
const COMMIT_EVERY: Duration = Duration::from_secs(3);
/// How often the ends are held against where the tail stands.
const WATCH_EVERY: Duration = Duration::from_secs(3);
/// A place that should have moved is looked into after this.
const PATIENCE: Duration = Duration::from_millis(300);
/// For one question; a broker that does not answer holds up the scout, never the poll.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Places looked into in one round: sick ones must not keep the scout from finding new ones.
pub(super) const LOOKED_INTO_MAX: usize = 16;

const NAME: &str = "kafka-scout";

pub(super) struct Scout {
    pub(super) state: Arc<TailState>,
    consumer: Arc<BaseConsumer<Context>>,
    current: Current,
    /// Consumers that others took the place of, until the poll has let go of them.
    worn: Vec<Arc<BaseConsumer<Context>>>,
    pub(super) reader: Reader,
    clients: Clients,
    /// Batches on their way to who takes them.
    batches: WeakSender<TailBatch>,
    engine: Handle,
    warm: u64,
    committed_at: Instant,
    committed: BTreeMap<Partition, Offset>,
    pub(super) young_until: Instant,
    still: Still,
    failing: Failing,
    watched_at: Instant,
}

impl Scout {
    pub(super) fn start(
        clients: &Clients,
        state: Arc<TailState>,
        warm: u64,
        batches: WeakSender<TailBatch>,
        engine: Handle,
    ) -> Result<Self, OpenError> {
        let reader = Reader::new(clients, NAME)?;
        let consumer = consumer(clients, &state)?;
        let now = Instant::now();
        Ok(Self {
            state,
            current: Arc::new(Mutex::new(consumer.clone())),
            consumer,
            worn: Vec::new(),
            reader,
            clients: clients.clone(),
            batches,
            engine,
            warm,
            committed_at: now,
            committed: BTreeMap::new(),
            young_until: now + YOUNG_FOR,
            still: Still::default(),
            failing: Failing::default(),
            watched_at: now,
        })
    }

    pub(super) fn current(&self) -> Current {
        self.current.clone()
    }

    /// Until the tail stops.
    pub(super) fn run(mut self) {
        loop {
            let is_young = Instant::now() < self.young_until;
            let soon = is_young || self.failing.has_failed() || self.state.places.lock().is_away();
            let called = self.state.calls.wait(if soon { LOOK_SOON } else { LOOK_EVERY });
            if self.state.stopped() {
                return self.commit(CommitMode::Sync);
            }
            if catch_unwind(AssertUnwindSafe(|| self.round(called))).is_err() {
                // It may have failed with a place in its hand.
                self.failing.note("its scout has failed");
            }
        }
    }

    fn round(&mut self, called: Called) {
        if called.topics {
            self.young_until = Instant::now() + YOUNG_FOR;
        }
        if called.failed {
            self.failing.note("its thread has failed");
        }
        if let Some(why) = self.failing.due(Instant::now()) {
            self.rebuild(why);
        }
        self.move_on();
        self.leave();
        let cluster = self.look();
        if let Some(cluster) = &cluster {
            self.doubt_and_settle(cluster);
        }
        if called.out_of_range {
            self.check_all();
        }
        self.look_into_the_restless();
        if self.watched_at.elapsed() >= WATCH_EVERY {
            self.watch(cluster.as_ref(), Instant::now());
        }
        if self.committed_at.elapsed() >= COMMIT_EVERY {
            self.commit(CommitMode::Async);
        }
        self.let_go();
    }

    /// Where the addresses have changed: a reader and a consumer that begin at the new ones.
    fn move_on(&mut self) {
        if self.reader.is_of(&self.clients) {
            return;
        }
        match Reader::new(&self.clients, NAME) {
            Ok(reader) => {
                let old = std::mem::replace(&mut self.reader, reader);
                self.engine.spawn_blocking(move || drop(old));
                if self.put_in_place() {
                    self.still.forget();
                    tracing::info!("the tail goes on with the brokers at other addresses");
                }
            }
            Err(fault) => tracing::error!("the tail stays with the brokers that it has: {fault}"),
        }
    }

    /// Another consumer, as this one does not do what it should.
    fn rebuild(&mut self, why: &str) {
        if self.put_in_place() {
            self.still.rebuilt();
            tracing::warn!(why, "the consumer of the tail was made anew, and goes on where the tail stands");
            metrics::counter!(TAILS_REBUILT).increment(1);
        }
    }

    /// What the old consumer has brought stays, and what it has not brought the new one begins with.
    fn put_in_place(&mut self) -> bool {
        let made = match consumer(&self.clients, &self.state) {
            Ok(made) => made,
            Err(fault) => {
                tracing::error!("no new consumer for the tail: {fault}");
                return false;
            }
        };
        // The new one was never told of them.
        self.state.left.lock().clear();
        let mut starts = TopicPartitionList::new();
        let begins = self.state.places.lock().begin_anew();
        begins.iter().for_each(|(partition, from)| add(&mut starts, partition, *from));
        self.worn.push(std::mem::replace(&mut self.consumer, made.clone()));
        self.assign(&starts);
        *self.current.lock() = made;
        self.failing.mended();
        true
    }

    /// The end of a consumer may wait for a broker.
    fn let_go(&mut self) {
        let (held, free): (Vec<_>, Vec<_>) = self.worn.drain(..).partition(|worn| Arc::strong_count(worn) > 1);
        self.worn = held;
        for worn in free {
            self.engine.spawn_blocking(move || drop(worn));
        }
    }

    /// Holds the ends against where the tail stands: does it move where it should?
    fn watch(&mut self, cluster: Option<&Cluster>, now: Instant) {
        self.watched_at = now;
        let who_takes_is_behind = self.batches.upgrade().is_none_or(|batches| batches.capacity() == 0);
        let held_up = self.state.was_held_up() || who_takes_is_behind;
        let Some(cluster) = cluster.filter(|_| !held_up) else {
            return self.still.forget();
        };
        let (_, stood) = self.where_all_stand();
        let mut ends = BTreeMap::new();
        for partitions in by_leader(cluster.led.clone()).into_values() {
            if let Ok(nexts) = self.reader.nexts(&partitions, Until::after(ANSWER_WITHIN)) {
                ends.extend(partitions.into_iter().zip(nexts));
            }
        }
        let odd = self.still.look(&stood, &ends, now);
        let odd = self.leave_other_topics(odd);
        self.look_into_the_odd(odd, cluster);
    }

    fn look_into_the_odd(&mut self, odd: Vec<(Partition, Offset, Odd)>, cluster: &Cluster) {
        let (mut past, mut stands_still) = (Vec::new(), false);
        for (partition, next, odd) in odd.into_iter().take(LOOKED_INTO_MAX) {
            match odd {
                Odd::Past { .. } => past.push(partition),
                // One is enough, and each question may take its time.
                Odd::Behind { .. } if stands_still => {}
                Odd::Behind { end } => {
                    let last = self.reader.before(&partition, end, Until::after(ANSWER_WITHIN));
                    if matches!(&last, Ok(last) if last.is_none_or(|(last, _)| last < next)) {
                        self.state.places.lock().pass_over(&partition, end);
                        continue;
                    }
                    let broker = leader_of(&partition, cluster);
                    tracing::warn!(%partition, broker, stands_at = %next, %end, "the tail stands still, and the broker answers");
                    stands_still = true;
                }
            }
        }
        if !past.is_empty() {
            self.move_those_past_the_end(past);
        }
        if stands_still {
            // All its partitions begin anew, those that were moved, too: there is one consumer.
            self.rebuild("it stood still");
        }
    }

    /// One look at the log: what is there that has no place yet, and whether the log answers at all.
    pub(super) fn look(&self) -> Option<Cluster> {
        let topics = self.state.places.lock().wanted();
        let Ok(cluster) = self.reader.cluster(&topics, Until::after(ANSWER_WITHIN)) else {
            self.state.places.lock().set_away(true);
            return None;
        };
        let was_away = self.state.places.lock().is_away();
        self.note_look(&cluster.led);
        let new: Vec<Led> = {
            let places = self.state.places.lock();
            cluster.led.iter().filter(|one| !places.has(&one.partition)).cloned().collect()
        };
        for partitions in by_leader(new).into_values() {
            match self.reader.ends(&partitions, Until::after(ANSWER_WITHIN)) {
                Ok(ends) => self.open(&ends),
                Err(fault) => tracing::debug!(?partitions, "the ends of new partitions are not known yet: {fault}"),
            }
        }
        if was_away {
            self.come_back();
        }
        Some(cluster)
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
        self.move_those_that_retention_has_passed(&stood, &ends);
    }

    fn check_all(&self) {
        let (all, stood) = self.where_all_stand();
        if let Ok(ends) = self.ends_of(all) {
            self.move_those_that_retention_has_passed(&stood, &ends);
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
        let led = self.reader.partitions(&topics_of(&partitions), Until::after(ANSWER_WITHIN))?;
        let mut all = Vec::new();
        let mut fault = None;
        let wanted: HashSet<Partition> = partitions.into_iter().collect();
        let led = led.into_iter().filter(|one| wanted.contains(&one.partition)).collect();
        for partitions in by_leader(led).into_values() {
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

    /// Retention was faster, and the tail goes on with the oldest.
    fn move_those_that_retention_has_passed(&self, stood: &BTreeMap<Partition, Offset>, ends: &[PartitionEnds]) {
        for PartitionEnds { partition, first, .. } in ends {
            if let Some(stood) = stood.get(partition).filter(|stood| *stood < first) {
                tracing::warn!(%partition, lost_from = %stood, goes_on_at = %first, "retention has passed the tail");
                self.put_at(partition, *first, false);
            }
        }
    }

    /// Another topic of the same name, followed from its first record.
    fn move_those_past_the_end(&self, partitions: Vec<Partition>) {
        let (_, stood) = self.where_all_stand();
        let Ok(ends) = self.ends_of(partitions) else { return };
        for PartitionEnds { partition, first, next: end } in &ends {
            if let Some(stood) = stood.get(partition).filter(|stood| *stood > end) {
                tracing::warn!(%partition, stood = %stood, end = %end, "the topic was made anew: followed from its first record");
                self.put_at(partition, *first, true);
            }
        }
    }

    pub(super) fn put_at(&self, partition: &Partition, next: Offset, anew: bool) {
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
        if self.state.places.lock().put(partition, next, false, before) {
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

    pub(super) fn assign_one(&self, partition: &Partition, from: Offset) {
        let mut list = TopicPartitionList::new();
        add(&mut list, partition, from);
        self.assign(&list);
    }

    fn assign(&self, list: &TopicPartitionList) {
        if list.count() > 0 {
            log_fault("assigned", self.consumer.incremental_assign(list));
        }
    }

    pub(super) fn unassign(&self, partitions: &[Partition]) {
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

fn topics_of(partitions: &[Partition]) -> Vec<Topic> {
    let mut topics: Vec<Topic> = partitions.iter().map(|one| one.topic.clone()).collect();
    topics.sort();
    topics.dedup();
    topics
}

fn leader_of(partition: &Partition, cluster: &Cluster) -> String {
    let led = cluster.led.iter().find(|led| led.partition == *partition);
    led.and_then(|led| led.leader).map(|leader| cluster.broker(leader)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
    use tokio::runtime::Runtime;
    use tokio::sync::mpsc;

    use super::super::Options;
    use super::super::still::STANDS_STILL;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);
    const BATCHES_MAX: usize = 1;

    type Mock = MockCluster<'static, DefaultProducerContext>;

    /// A scout whose rounds the test takes, and which nobody polls for.
    struct Rig {
        scout: Scout,
        clients: Clients,
        state: Arc<TailState>,
        batches: mpsc::Sender<TailBatch>,
        _taken: mpsc::Receiver<TailBatch>,
        cluster: Mock,
        _engine: Runtime,
    }

    fn cluster(partitions: i32) -> Mock {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic("t", partitions, 1).expect("a topic");
        cluster
    }

    fn of(index: i32) -> Partition {
        Partition::new(&Topic::new("t"), index)
    }

    impl Rig {
        /// All its places stand at the beginning, and there is nothing yet.
        fn new(partitions: i32) -> Self {
            let (cluster, engine) = (cluster(partitions), Runtime::new().expect("an engine"));
            let options = Options { bootstrap_servers: vec![cluster.bootstrap_servers()], ..Options::default() };
            let clients = Clients::new(options, "g", 1 << 20, Duration::from_secs(9));
            let state = Arc::new(TailState::new(vec![Topic::new("t")]));
            let (batches, taken) = mpsc::channel(BATCHES_MAX);
            let scout = Scout::start(&clients, state.clone(), 0, batches.downgrade(), engine.handle().clone());
            let rig = Self {
                scout: scout.expect("a scout"),
                clients,
                state,
                batches,
                _taken: taken,
                cluster,
                _engine: engine,
            };
            let found = rig.look();
            assert_eq!(found.led.len(), usize::try_from(partitions).expect("a few"));
            rig
        }

        fn look(&self) -> Cluster {
            self.scout.look().expect("the cluster answers")
        }

        fn write(&self, index: i32) {
            let config = ClientConfig::new().set("bootstrap.servers", self.cluster.bootstrap_servers()).clone();
            let producer: BaseProducer = config.create().expect("a producer");
            let record = BaseRecord::<(), _>::to("t").partition(index).payload("x");
            producer.send(record).unwrap_or_else(|(fault, _)| panic!("{fault}"));
            producer.flush(PATIENCE).expect("it is written");
        }

        /// Whether another consumer stands in its place after this.
        fn is_made_anew_by(&mut self, what: impl FnOnce(&mut Scout)) -> bool {
            let before = self.scout.current.lock().clone();
            what(&mut self.scout);
            let after = self.scout.current.lock().clone();
            assert!(Arc::ptr_eq(&after, &self.scout.consumer), "what is polled is what the scout moves");
            !Arc::ptr_eq(&before, &after)
        }

        fn places(&self) -> BTreeMap<Partition, Offset> {
            self.state.places.lock().followed().into_iter().collect()
        }
    }

    #[test]
    fn a_place_past_the_end_is_moved_also_where_another_one_stands_still() {
        for turn in 0..2 {
            let mut rig = Rig::new(2);
            rig.write(1);
            rig.state.places.lock().pass_over(&of(0), Offset(5));
            let cluster = rig.look();
            let mut odd = vec![
                (of(1), Offset(0), Odd::Behind { end: Offset(1) }),
                (of(0), Offset(5), Odd::Past { end: Offset(0) }),
            ];
            odd.rotate_left(turn);
            assert!(rig.is_made_anew_by(|scout| scout.look_into_the_odd(odd, &cluster)));
            assert_eq!(rig.places(), [(of(0), Offset(0)), (of(1), Offset(0))].into(), "one after the other");
        }
    }

    #[test]
    fn a_gap_is_passed_over_and_is_no_reason_for_another_consumer() {
        let mut rig = Rig::new(1);
        let cluster = rig.look();
        let odd = vec![(of(0), Offset(0), Odd::Behind { end: Offset(3) })];
        assert!(!rig.is_made_anew_by(|scout| scout.look_into_the_odd(odd, &cluster)));
        assert_eq!(rig.places(), [(of(0), Offset(3))].into());
    }

    #[test]
    fn a_tail_that_is_held_up_does_not_stand_still() {
        let hold_up: [fn(&Rig); 2] = [
            |rig| rig.state.held_up.store(true, Ordering::Relaxed),
            |rig| rig.batches.try_send(TailBatch::default()).expect("there is room for one"),
        ];
        for hold_up in hold_up {
            let mut rig = Rig::new(1);
            rig.write(0);
            let (cluster, start) = (rig.look(), Instant::now());
            let after = |rig: &mut Rig, halves: u32| {
                rig.is_made_anew_by(|scout| scout.watch(Some(&cluster), start + halves * STANDS_STILL / 2))
            };
            assert!(!after(&mut rig, 0));
            hold_up(&rig);
            assert!(!after(&mut rig, 2), "it was held up");
            while rig._taken.try_recv().is_ok() {}
            assert!(!after(&mut rig, 3), "what was seen before that is forgotten");
            assert!(after(&mut rig, 5), "now it stands still by itself");
        }
    }

    #[test]
    fn a_consumer_that_fails_again_at_once_is_not_made_anew_at_once_again() {
        let mut rig = Rig::new(1);
        let polled = rig.scout.current.lock().clone();
        let fails = |rig: &mut Rig| {
            rig.state.calls.failed();
            let called = rig.state.calls.wait(Duration::ZERO);
            rig.is_made_anew_by(|scout| scout.round(called))
        };
        rig.state.left.lock().push(of(7));
        assert!(fails(&mut rig));
        assert!(rig.state.left.lock().is_empty(), "the new one was never told of it");
        assert!(!fails(&mut rig));
        assert!(rig.scout.failing.has_failed(), "it is put off, not forgotten");
        // The old one is let go of as soon as nobody polls it.
        assert_eq!(rig.scout.worn.len(), 1);
        drop(polled);
        rig.scout.let_go();
        assert!(rig.scout.worn.is_empty());
    }

    #[test]
    fn where_the_addresses_have_changed_the_tail_goes_on_there() {
        let mut rig = Rig::new(1);
        assert!(!rig.is_made_anew_by(Scout::move_on));
        let other = cluster(3);
        assert!(rig.clients.move_to(&[other.bootstrap_servers()]));
        assert!(rig.is_made_anew_by(Scout::move_on));
        assert_eq!(rig.look().led.len(), 3);
        assert!(!rig.is_made_anew_by(Scout::move_on), "once");
    }
}
