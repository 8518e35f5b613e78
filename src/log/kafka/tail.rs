//! The tail: one consumer of all topics, polled by a thread of its own; a second thread, the scout, asks questions, and
//! makes the consumer anew where it has to. What was handed on is known to the places, not to the consumer: another one
//! goes on where they stand.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Condvar, Mutex};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use super::OpenError;
use super::clients::{Clients, make};
use super::context::{Context, Trouble};
use super::places::{Places, Taken};
use super::reader::{record_of, time_of};
use super::scout::Scout;
use crate::log::{Tail, TailBatch};
use crate::model::{Offset, Partition, Record, Topic};

/// Batches read ahead of who takes them. When full the thread stops polling, and the log keeps the rest.
const READ_AHEAD_BATCHES_MAX: usize = 4;
const BATCH_RECORDS_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Messages wake the poll; what the scout has found is told after at most this.
const TURN: Duration = Duration::from_millis(20);

/// Its threads end when it is dropped, or when the log is closed.
pub(super) struct KafkaTail {
    state: Arc<TailState>,
    batches: mpsc::Receiver<TailBatch>,
}

/// What the two threads and the tail share.
pub(super) struct TailState {
    pub(super) places: Mutex<Places>,
    /// Partitions that are followed no longer, until the scout has told the consumer.
    pub(super) left: Mutex<Vec<Partition>>,
    pub(super) calls: Calls,
    /// Who takes the batches was behind, so that nothing was polled.
    pub(super) held_up: AtomicBool,
    stop: watch::Sender<bool>,
}

/// What the scout is called for.
#[derive(Default)]
pub(super) struct Calls {
    waiting: Mutex<Called>,
    bell: Condvar,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Called {
    any: bool,
    pub(super) topics: bool,
    pub(super) out_of_range: bool,
    /// The thread that polls has failed.
    pub(super) failed: bool,
}

/// The consumer that holds now: the scout makes it, the poll takes it for a turn.
pub(super) type Current = Arc<Mutex<Arc<BaseConsumer<Context>>>>;

impl Calls {
    /// Waits for a call, at most so long.
    pub(super) fn wait(&self, at_most: Duration) -> Called {
        let mut waiting = self.waiting.lock();
        if !waiting.any {
            let _ = self.bell.wait_for(&mut waiting, at_most);
        }
        std::mem::take(&mut waiting)
    }

    pub(super) fn out_of_range(&self) {
        self.call(|called| called.out_of_range = true);
    }

    /// The thread that polls has, and it polls no more until it has another consumer.
    pub(super) fn failed(&self) {
        self.call(|called| called.failed = true);
    }

    pub(super) fn look(&self) {
        self.call(|_| ());
    }

    fn call(&self, what: impl FnOnce(&mut Called)) {
        let mut waiting = self.waiting.lock();
        waiting.any = true;
        what(&mut waiting);
        self.bell.notify_one();
    }
}

impl TailState {
    pub(super) fn new(topics: Vec<Topic>) -> Self {
        let mut places = Places::default();
        places.follow(topics);
        Self {
            places: Mutex::new(places),
            left: Mutex::default(),
            calls: Calls::default(),
            held_up: AtomicBool::new(false),
            stop: watch::Sender::new(false),
        }
    }

    pub(super) fn stopped(&self) -> bool {
        *self.stop.borrow()
    }

    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
        self.calls.call(|_| ());
    }

    /// Since it was last asked.
    pub(super) fn was_held_up(&self) -> bool {
        self.held_up.swap(false, Ordering::Relaxed)
    }

    fn on_trouble(&self, trouble: Trouble) {
        match trouble {
            Trouble::Away => self.places.lock().set_away(true),
            Trouble::OutOfRange => self.calls.out_of_range(),
        }
    }
}

/// A tail's threads, for who closes the log.
pub(super) struct Running {
    pub(super) state: Arc<TailState>,
    pub(super) threads: Vec<JoinHandle<()>>,
}

impl KafkaTail {
    /// Blocks for the first look at the log, so that what is appended from now on is followed; a log that does not answer
    /// is looked at again later.
    pub(super) fn start(
        clients: &Clients,
        topics: Vec<Topic>,
        warm: u64,
        engine: Handle,
    ) -> Result<(Self, Running), OpenError> {
        let state = Arc::new(TailState::new(topics));
        let (sender, batches) = mpsc::channel(READ_AHEAD_BATCHES_MAX);
        let scout = Scout::start(clients, state.clone(), warm, sender.downgrade(), engine.clone())?;
        scout.look();

        let poll = Poll::new(state.clone(), scout.current(), sender, engine);
        let threads = vec![spawn("kafka-scout", move || scout.run())?, spawn("kafka-tail", move || poll.run())?];
        Ok((Self { state: state.clone(), batches }, Running { state, threads }))
    }
}

/// A consumer that tells its troubles to this tail, and is assigned nothing yet.
pub(super) fn consumer(clients: &Clients, state: &Arc<TailState>) -> Result<Arc<BaseConsumer<Context>>, OpenError> {
    let troubled = state.clone();
    let context = Context::new("kafka-tail", move |trouble| troubled.on_trouble(trouble));
    make(&clients.tail(), context).map(Arc::new)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|fault| OpenError::Client(fault.to_string()))
}

#[async_trait]
impl Tail for KafkaTail {
    async fn next(&mut self) -> TailBatch {
        match self.batches.recv().await {
            Some(batch) => batch,
            // The log was closed: nothing will come any more.
            None if self.state.stopped() => std::future::pending().await,
            // With records that it had taken. Who reads the tail opens another one, where it knows itself to be.
            None => panic!("the thread of the tail has failed"),
        }
    }

    fn follow(&mut self, topics: Vec<Topic>) {
        let left = self.state.places.lock().follow(topics);
        self.state.left.lock().extend(left);
        self.state.calls.call(|called| called.topics = true);
    }
}

impl Drop for KafkaTail {
    fn drop(&mut self) {
        self.state.stop();
    }
}

/// The thread that takes messages from the consumer.
struct Poll {
    state: Arc<TailState>,
    consumer: Current,
    /// The consumer that it has failed with.
    failed: Weak<BaseConsumer<Context>>,
    batches: mpsc::Sender<TailBatch>,
    engine: Handle,
    records: Vec<Record>,
    bytes: usize,
    /// The last `caught_up` that was told.
    told: bool,
}

impl Poll {
    fn new(state: Arc<TailState>, consumer: Current, batches: mpsc::Sender<TailBatch>, engine: Handle) -> Self {
        let (failed, records) = (Weak::new(), Vec::new());
        Self { state, consumer, failed, batches, engine, records, bytes: 0, told: false }
    }

    fn run(mut self) {
        while !self.state.stopped() {
            let consumer = self.consumer.lock().clone();
            if Weak::ptr_eq(&self.failed, &Arc::downgrade(&consumer)) {
                self.wait();
            } else if catch_unwind(AssertUnwindSafe(|| self.collect(&consumer))).is_err() {
                // What was taken so far is kept, and what was not is with the consumer that the scout makes in its place.
                // This one would go on behind the message that it failed with.
                self.failed = Arc::downgrade(&consumer);
                self.state.calls.failed();
            }
            // It may be the last to have it, and its end tells its troubles, too.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(consumer)));
            if !self.tell() {
                break;
            }
        }
        self.state.stop();
    }

    /// Waits for a message, then takes what else is there.
    fn collect(&mut self, consumer: &BaseConsumer<Context>) {
        let mut wait = TURN;
        while self.records.len() < BATCH_RECORDS_MAX && self.bytes < BATCH_BYTES_MAX {
            match consumer.poll(wait) {
                None => return,
                // It may be made again soon: then what is known of it is to be held against what is there.
                Some(Err(KafkaError::MessageConsumption(Code::UnknownTopicOrPartition | Code::UnknownTopic))) => {
                    self.state.calls.look();
                }
                // Told through the context, and mended by librdkafka or the scout.
                Some(Err(_)) => {}
                Some(Ok(message)) => {
                    if self.take(&message) == Taken::LookBack {
                        self.state.calls.look();
                    }
                }
            }
            wait = Duration::ZERO;
        }
    }

    /// For a turn: the scout may take its time to make another consumer.
    fn wait(&self) {
        let mut stop = self.state.stop.subscribe();
        // Either way it is looked at again.
        let _ = self.engine.block_on(async { tokio::time::timeout(TURN, stop.wait_for(|stop| *stop)).await.is_ok() });
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) -> Taken {
        let offset = Offset(message.offset());
        let mut places = self.state.places.lock();
        let taken = places.take(message.topic(), message.partition(), offset, time_of(message));
        drop(places);
        if let Taken::Deliver(partition) = &taken {
            let record = record_of(partition.clone(), message);
            self.bytes += record.bytes();
            self.records.push(record);
        }
        taken
    }

    /// Hands on what there is; waits while who takes it is behind. False when nobody does.
    fn tell(&mut self) -> bool {
        let mut places = self.state.places.lock();
        let (opened, caught_up) = (places.take_opened(), places.caught_up());
        drop(places);
        if opened.is_empty() && self.records.is_empty() && caught_up == self.told {
            return true;
        }
        self.told = caught_up;
        self.bytes = 0;
        let records = std::mem::take(&mut self.records);
        let batch = match self.batches.try_send(TailBatch { opened, records, caught_up }) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(batch)) => batch,
        };
        self.state.held_up.store(true, Ordering::Relaxed);
        let mut stop = self.state.stop.subscribe();
        self.engine.block_on(async {
            tokio::select! {
                sent = self.batches.send(batch) => sent.is_ok(),
                _ = stop.wait_for(|stop| *stop) => false,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::super::Options;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);
    const DEADLINE: Duration = Duration::from_secs(9);
    /// Nobody listens here.
    const NOWHERE: &str = "127.0.0.1:1";

    fn clients(bootstrap: &str) -> Clients {
        let options = Options { bootstrap_servers: vec![bootstrap.to_owned()], ..Options::default() };
        Clients::new(options, "g", 1 << 20, DEADLINE)
    }

    fn write(bootstrap: &str, values: &[&str]) {
        let config = ClientConfig::new().set("bootstrap.servers", bootstrap).clone();
        let producer: BaseProducer = config.create().expect("a producer");
        for value in values {
            let record = BaseRecord::<(), _>::to("t").payload(*value);
            producer.send(record).unwrap_or_else(|(fault, _)| panic!("{fault}"));
        }
        producer.flush(PATIENCE).expect("the records are written");
    }

    async fn values(tail: &mut KafkaTail, wanted: usize) -> Vec<String> {
        let mut values = Vec::new();
        while values.len() < wanted {
            let batch = tokio::time::timeout(PATIENCE, tail.next()).await.expect("records come");
            let texts = batch.records.iter().filter_map(|record| record.value.as_deref());
            values.extend(texts.map(|text| String::from_utf8_lossy(text).into_owned()));
        }
        values
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_thread_of_the_tail_that_fails_goes_on_with_another_consumer_and_brings_everything_once() {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic("t", 1, 1).expect("a topic");
        let (bootstrap, engine) = (cluster.bootstrap_servers(), Handle::current());
        let state = Arc::new(TailState::new(vec![Topic::new("t")]));
        let (sender, batches) = mpsc::channel(READ_AHEAD_BATCHES_MAX);
        let scout = Scout::start(&clients(&bootstrap), state.clone(), 0, sender.downgrade(), engine.clone());
        let scout = scout.expect("a scout");
        assert!(scout.look().is_some(), "the cluster answers");
        let current = scout.current();
        // In place of the scout's: it fails whoever polls it, as soon as it cannot connect.
        let failing = Context::new("failing", |_| panic!("planted"));
        *current.lock() = Arc::new(make(&clients(NOWHERE).tail(), failing).expect("a consumer"));
        let poll = Poll::new(state.clone(), current.clone(), sender, engine);
        let failing = Arc::downgrade(&current.lock().clone());
        let mut tail = KafkaTail { state, batches };

        let threads = [spawn("scout", move || scout.run()), spawn("poll", move || poll.run())];
        tokio::task::block_in_place(|| write(&bootstrap, &["a", "b", "c"]));

        assert_eq!(values(&mut tail, 3).await, ["a", "b", "c"]);
        assert!(failing.upgrade().is_none_or(|failing| !Arc::ptr_eq(&failing, &current.lock())), "it was replaced");
        tokio::task::block_in_place(|| write(&bootstrap, &["d"]));
        assert_eq!(values(&mut tail, 1).await, ["d"]);
        drop(tail);
        for thread in threads {
            thread.expect("a thread").join().expect("it ends in peace");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_thread_that_fails_says_so_at_once_and_goes_on_with_another_consumer() {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic("t", 1, 1).expect("a topic");
        let bootstrap = cluster.bootstrap_servers();
        let state = Arc::new(TailState::new(vec![Topic::new("t")]));
        let (sender, batches) = mpsc::channel(READ_AHEAD_BATCHES_MAX);
        // Once: it is asked again when it ends.
        let has_failed = AtomicBool::new(false);
        let failing = Context::new("failing", move |_| assert!(has_failed.swap(true, Ordering::Relaxed), "planted"));
        let failing = Arc::new(make(&clients(NOWHERE).tail(), failing).expect("a consumer"));
        let current = Arc::new(Mutex::new(failing));
        let poll = Poll::new(state.clone(), current.clone(), sender, Handle::current());
        let poll = spawn("poll", move || poll.run()).expect("a thread");
        // No scout is there to hear it, or to find out by itself.
        tokio::task::block_in_place(|| {
            let begun = Instant::now();
            while !state.calls.wait(TURN).failed {
                assert!(begun.elapsed() < PATIENCE / 6, "it does not say so");
            }
        });
        let mut tail = KafkaTail { state: state.clone(), batches };
        let other = consumer(&clients(&bootstrap), &state).expect("a consumer");
        let mut list = rdkafka::TopicPartitionList::new();
        list.add_partition_offset("t", 0, rdkafka::Offset::Beginning).expect("a place");
        rdkafka::consumer::Consumer::assign(&*other, &list).expect("assigned");
        state.places.lock().open(&Partition::new(&Topic::new("t"), 0), Offset(0), false, None);
        *current.lock() = other;
        tokio::task::block_in_place(|| write(&bootstrap, &["a"]));
        assert_eq!(values(&mut tail, 1).await, ["a"]);
        drop(tail);
        poll.join().expect("it ends in peace");
    }

    #[tokio::test]
    #[should_panic = "the thread of the tail has failed"]
    async fn a_tail_whose_thread_is_gone_says_so() {
        let (_, batches) = mpsc::channel(READ_AHEAD_BATCHES_MAX);
        let state = Arc::new(TailState::new(vec![]));
        KafkaTail { state, batches }.next().await;
    }
}
