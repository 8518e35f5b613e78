//! A few readers, shared by everybody who asks: each answers one question at a time, on a thread that may block.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::OpenError;
use super::clients::Clients;
use super::reader::{Cluster, Reader, Until, out_of_time};
use super::survey::survey;
use crate::log::{Block, PartitionEnds, ReadError, Surveyed};
use crate::model::{Offset, Partition, Timestamp, Topic};

/// Questions answered at once; the others wait their turn. A reader holds some threads and a connection per broker.
const READERS_MAX: usize = 4;
/// Longest wait for a turn, and then for the answer.
const TURN_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const CHECK_WITHIN: Duration = Duration::from_secs(2);
const CHECK_NAME: &str = "kafka-check";
/// A client that is not answered so often in a row is made anew: one that has lost its brokers may go on looking where they
/// were, while a new one finds them.
const UNANSWERED_MAX: u32 = 3;

pub(super) struct Reads {
    pool: Arc<Pool>,
    check: Arc<Check>,
    engine: Handle,
}

/// Whether and how the log answers is asked beside the queue: a full one is not an absent log.
pub(super) struct Check {
    clients: Clients,
    reader: Mutex<Arc<Reader>>,
    unanswered: AtomicU32,
    /// What the cluster last said of itself.
    pub(super) known: Mutex<Cluster>,
}

struct Pool {
    clients: Clients,
    idle: Mutex<Vec<Reader>>,
    turns: Arc<Semaphore>,
}

impl Reads {
    pub(super) fn start(clients: &Clients, engine: Handle) -> Result<Self, OpenError> {
        let turns = Arc::new(Semaphore::new(READERS_MAX));
        let pool = Arc::new(Pool { clients: clients.clone(), idle: Mutex::default(), turns });
        Ok(Self { pool, check: Arc::new(Check::start(clients)?), engine })
    }

    pub(super) async fn check(&self) -> Result<(), ReadError> {
        let check = self.check.clone();
        let asked = self.engine.spawn_blocking(move || check.ask(|reader| reader.answers(Until::after(CHECK_WITHIN))));
        asked.await.unwrap_or_else(|_| Err(stopping()))
    }

    pub(super) async fn survey(&self, topics: &[Topic]) -> Result<Vec<Surveyed>, ReadError> {
        survey(&self.check, topics, &self.engine).await
    }

    /// The addresses have changed: readers of the old ones go, those in use when they come back.
    pub(super) async fn move_on(&self) {
        let pool = self.pool.clone();
        let _ = self.engine.spawn_blocking(move || drop(std::mem::take(&mut *pool.idle.lock()))).await;
    }

    pub(super) async fn read(
        &self,
        partition: &Partition,
        range: Range<Offset>,
        bytes_max: usize,
    ) -> Result<Block, ReadError> {
        let partition = partition.clone();
        self.ask(move |reader, until| reader.read(&partition, range.start, range.end, bytes_max, until)).await
    }

    pub(super) async fn ends(&self, topics: &[Topic]) -> Result<Vec<PartitionEnds>, ReadError> {
        let topics = topics.to_vec();
        self.ask(move |reader, until| {
            let led = reader.partitions(&topics, until)?;
            let partitions: Vec<Partition> = led.into_iter().map(|one| one.partition).collect();
            reader.ends(&partitions, until)
        })
        .await
    }

    pub(super) async fn at_time(&self, wanted: &[(Partition, Timestamp)]) -> Result<Vec<Offset>, ReadError> {
        let wanted = wanted.to_vec();
        self.ask(move |reader, until| at_time(reader, &wanted, until)).await
    }

    pub(super) async fn before(
        &self,
        partition: &Partition,
        at: Offset,
    ) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        let partition = partition.clone();
        self.ask(move |reader, until| reader.before(&partition, at, until)).await
    }

    /// Goes on to its end when the caller has gone, so that its reader comes back.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Reader, Until) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let turn = timeout(TURN_WITHIN, self.pool.turns.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| out_of_time())?.map_err(|_| stopping())?;
        let pool = self.pool.clone();
        let answered = self.engine.spawn_blocking(move || {
            let _turn = turn;
            let reader = pool.reader()?;
            let answer = question(&reader, Until::after(ANSWER_WITHIN));
            // One that nobody answers is not asked again: another one may find who does.
            if !matches!(answer, Err(ReadError::Unavailable(_))) {
                pool.idle.lock().push(reader);
            }
            answer
        });
        answered.await.unwrap_or_else(|_| Err(stopping()))
    }
}

impl Pool {
    fn reader(&self) -> Result<Reader, ReadError> {
        loop {
            let idle = self.idle.lock().pop();
            match idle {
                Some(reader) if reader.is_of(&self.clients) => return Ok(reader),
                Some(of_old_addresses) => drop(of_old_addresses),
                None => return Reader::new(&self.clients, "kafka-reader").map_err(not_made),
            }
        }
    }
}

impl Check {
    fn start(clients: &Clients) -> Result<Self, OpenError> {
        let reader = Mutex::new(Arc::new(Reader::new(clients, CHECK_NAME)?));
        Ok(Self { clients: clients.clone(), reader, unanswered: AtomicU32::new(0), known: Mutex::default() })
    }

    /// A question to the cluster. Blocks.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&Reader) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let answer = question(self.reader()?.as_ref());
        match answer {
            Ok(_) => self.unanswered.store(0, Ordering::Relaxed),
            Err(_) => _ = self.unanswered.fetch_add(1, Ordering::Relaxed),
        }
        answer
    }

    /// Blocks where it is made anew.
    pub(super) fn reader(&self) -> Result<Arc<Reader>, ReadError> {
        let reader = self.reader.lock().clone();
        if reader.is_of(&self.clients) && self.unanswered.load(Ordering::Relaxed) < UNANSWERED_MAX {
            return Ok(reader);
        }
        self.unanswered.store(0, Ordering::Relaxed);
        let made = Arc::new(Reader::new(&self.clients, CHECK_NAME).map_err(not_made)?);
        *self.reader.lock() = made.clone();
        Ok(made)
    }
}

fn not_made(fault: OpenError) -> ReadError {
    ReadError::Unavailable(fault.to_string())
}

/// A partition that does not exist has its end where its first record will be.
fn at_time(reader: &Reader, wanted: &[(Partition, Timestamp)], until: Until) -> Result<Vec<Offset>, ReadError> {
    let mut topics: Vec<Topic> = wanted.iter().map(|(partition, _)| partition.topic.clone()).collect();
    topics.sort();
    topics.dedup();
    let there: HashSet<Partition> = reader.partitions(&topics, until)?.into_iter().map(|one| one.partition).collect();
    let known: Vec<_> = wanted.iter().filter(|(partition, _)| there.contains(partition)).cloned().collect();
    let mut found = reader.at_time(&known, until)?.into_iter();
    let place = |(partition, _): &(Partition, _)| match there.contains(partition) {
        true => found.next().unwrap_or_default(),
        false => Offset(0),
    };
    Ok(wanted.iter().map(place).collect())
}

pub(super) fn stopping() -> ReadError {
    ReadError::Unavailable("the process is stopping".to_owned())
}
