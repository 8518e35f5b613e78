//! What waits on disk for a log that is away: accepted events, in one SQLite file in the data folder, on disk before they are
//! answered, and sent on in order when the log is back.
//!
//! - this page: `Spool`, which stands between the intake and the log
//! - `gate` which way a record goes: to the log, or behind what is spooled of its topic
//! - `store` the file; `writer` the one thread that has it; `fault` why it takes nothing; `spare` room on a full
//!   disk for what is to leave it
//! - `replay` the way from the file into the log
//! - `desk` what operators see and do
//! - `open` one process has the file; the next one waits for it
//!
//! An event is twice in the log only if a crash came between the log's acknowledgement and its deletion here, or if it was
//! sent and not acknowledged when the log went away. What the log refuses for good is set aside in the same file.
//!
//! Knows no schemas and no streams: records are what it has.

mod desk;
#[cfg(test)]
mod fake;
mod fault;
mod gate;
mod open;
mod replay;
mod spare;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::join;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use self::fault::Of;
use self::gate::{Gate, Way};
use self::writer::{Answer, Job, Put};
use crate::log::{AppendError, Log};
use crate::metrics as names;
use crate::model::{CANARY, NewRecord, Timestamp, Topic, units};

pub use self::desk::Desk;
pub use self::open::Place;
pub use self::store::Aside;

/// Jobs that wait for the writer. When full, events are refused.
const JOBS_MAX: usize = 4_096;
/// Kilobytes of events that wait for the writer. When full, events are refused; a request alone may be larger.
const QUEUE_KIB_MAX: u32 = 64 << 10;
/// What of a request's time is kept for the spool: a fifth, this at most.
const RESERVE_MOST: Duration = Duration::from_secs(1);
const RESERVE_SHARE: u32 = 5;
/// Longest wait for an operator's answer.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// Who has waited in vain is told why, so long before nobody listens any more.
const SAY_WHY: Duration = Duration::from_millis(100);
/// Longest wait of [`Spool::close`].
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// The section `intake.spool` of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether events are taken while the log is away: answered 202, kept on disk, and sent on when it is back.
    pub enabled: bool,
    /// Bytes of events that are kept so, those that were set aside included; past it events are refused. 0 = no limit.
    #[serde(deserialize_with = "units::bytes")]
    pub max_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: false, max_bytes: 1 << 30 }
    }
}

impl Options {
    /// What of a request's time the log does not get, because the spool may need it.
    pub(super) fn reserve(&self, deadline: Duration) -> Duration {
        if self.enabled { (deadline / RESERVE_SHARE).min(RESERVE_MOST) } else { Duration::ZERO }
    }
}

/// How the spool is doing, for metrics and the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Events that wait for the log.
    pub events: u64,
    pub bytes: u64,
    pub bytes_max: u64,
    /// When the oldest of them was accepted.
    pub oldest: Option<Timestamp>,
    /// Events that the log refuses for good.
    pub aside: u64,
    /// Why it takes no events now.
    pub fault: Option<String>,
}

/// Why the spool cannot be opened, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the folder {} cannot be used for the spool: {cause}; check its owner and permissions, or name another with --data", folder.display())]
    Folder { folder: PathBuf, cause: io::Error },
    #[error("the spool in {} is in use by another sluice{}; stop that one, or name another folder with --data", folder.display(), crate::disk::by_pid(*pid))]
    InUse { folder: PathBuf, pid: Option<u32> },
    #[error("{} is not a spool that this sluice can read; move it away (events may wait in it), or name another folder with --data", file.display())]
    NotASpool { file: PathBuf },
    #[error("{} cannot be opened: {cause}; move it away (events may wait in it), or name another folder with --data", file.display())]
    Sqlite { file: PathBuf, cause: rusqlite::Error },
    #[error("the spool's thread cannot be started: {0}")]
    Thread(io::Error),
}

/// Why events are not in the spool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum PutError {
    #[error("the spool is full: it has the {bytes_max} bytes of intake.spool.max_bytes")]
    Full { bytes_max: u64, bytes: u64 },
    /// It would be refused by an empty spool, too.
    #[error("the spool takes no more than the {0} bytes of intake.spool.max_bytes, and this alone is more")]
    Larger(u64),
    #[error("the spool's disk has {0} bytes of free space left, below the floor of {1}")]
    Space(u64, u64),
    #[error("the spool cannot be written: {0}")]
    Disk(String),
    /// They may be found there after a crash.
    #[error("the spool cannot be written: its disk did not confirm it")]
    Fsync,
    #[error("too much waits for the spool's disk")]
    Busy,
    #[error("the spool's disk is too slow: no time was left")]
    Late,
    /// They may yet be.
    #[error("the spool's disk has not answered in time")]
    Unanswered,
    #[error("the spool is closed")]
    Closed,
}

impl PutError {
    /// None: it is not the spool's fault.
    fn fault(&self) -> Option<Of> {
        match self {
            Self::Full { bytes, .. } => Some(Of::Room(*bytes)),
            Self::Space(..) => Some(Of::FreeSpace),
            Self::Disk(_) | Self::Fsync => Some(Of::Writing),
            Self::Larger(_) | Self::Busy | Self::Late | Self::Unanswered | Self::Closed => None,
        }
    }

    fn may_be_there(&self) -> bool {
        matches!(self, Self::Fsync | Self::Unanswered)
    }
}

/// Where an accepted record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Log,
    Spool,
}

pub(super) type Fate = Result<Kept, AppendError>;

/// Between the intake and the log. Dropping it writes what it was given and gives the file back.
pub(super) struct Spool {
    shared: Arc<Shared>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
    replay: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

/// What the intake, the writer and the replay share.
struct Shared {
    gate: Mutex<Gate>,
    /// Who waits for another way may have one.
    changed: Notify,
    /// There may be something to replay.
    work: Notify,
    /// None: closed.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    room: Arc<Semaphore>,
    log: Arc<dyn Log>,
    engine: Handle,
    bytes_max: u64,
    free_bytes_min: u64,
    reserve: Duration,
    stopping: AtomicBool,
}

/// Some of a request's records, and their places in it.
#[derive(Default)]
struct Part {
    places: Vec<usize>,
    records: Vec<NewRecord>,
}

impl Part {
    fn push(&mut self, place: usize, record: NewRecord) {
        self.places.push(place);
        self.records.push(record);
    }
}

/// Topics whose records are on their way into the spool. Given back when dropped.
struct Coming {
    shared: Arc<Shared>,
    topics: Vec<Topic>,
}

impl Drop for Coming {
    fn drop(&mut self) {
        if self.topics.is_empty() {
            return;
        }
        let mut gate = self.shared.gate.lock();
        self.topics.iter().for_each(|topic| gate.came(topic));
        drop(gate);
        self.shared.changed.notify_waiters();
    }
}

/// An append that has no answer yet.
struct Ticket {
    shared: Arc<Shared>,
    number: u64,
    taken: bool,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.gate.lock().answered(self.number, self.taken, Instant::now());
    }
}

impl Spool {
    /// Appends the records or keeps them, and says of each which it was, in their order. Answers by then. `place` is held
    /// until it has answered, and as long as the log has any of them.
    pub(super) async fn append<P: Send + Sync + 'static>(
        &self,
        records: Vec<NewRecord>,
        place: Arc<P>,
        due: Instant,
    ) -> Vec<Fate> {
        let shared = &self.shared;
        // Also while the spool has them, and the log has none.
        let _place = place.clone();
        let topics = topics_of(&records);
        let (ways, ticket, coming) = match shared.decide(&topics, due - shared.reserve.max(SAY_WHY)).await {
            Ok(decided) => decided,
            Err(why) => return vec![Err(AppendError::NotWritten(why)); records.len()],
        };
        let mut fates: Vec<Option<Fate>> = vec![None; records.len()];
        let (mut to_log, mut to_spool) = (Part::default(), Part::default());
        for (index, record) in records.into_iter().enumerate() {
            // What is in no list is sluice's own canary, which is to find out how the log is.
            let way = topics.iter().position(|topic| *topic == record.topic).map_or(&Way::Log, |at| &ways[at]);
            match way {
                Way::Log => to_log.push(index, record),
                Way::Spool => to_spool.push(index, record),
                Way::Nowhere(why) => fates[index] = Some(Err(AppendError::Refused(why.clone()))),
            }
        }
        let (of_log, of_spool) =
            join(shared.send(to_log, ticket, place, due), shared.keep(to_spool, coming, None, due)).await;
        of_log.into_iter().chain(of_spool).for_each(|(index, fate)| fates[index] = Some(fate));
        let unanswered = || Err(AppendError::Unknown("no answer".to_owned()));
        fates.into_iter().map(|fate| fate.unwrap_or_else(unanswered)).collect()
    }

    /// Whether events may go into it. (It may only be there to be emptied.)
    pub(super) fn takes(&self) -> bool {
        self.shared.gate.lock().takes()
    }

    pub(super) fn status(&self) -> Status {
        self.shared.status()
    }

    /// Finishes what is under way and gives the file back. What waits is sent after the next start.
    pub(super) async fn close(&self) {
        self.shared.end_replays();
        let end = Instant::now() + CLOSE_WITHIN;
        let replay = self.replay.lock().take();
        if let Some(replay) = replay {
            let _ = timeout_at(end, replay).await;
        }
        self.shared.jobs.lock().take();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            let joined = self.shared.engine.spawn_blocking(move || writer.join());
            let _ = timeout_at(end, joined).await;
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.shared.end_replays();
        self.shared.jobs.lock().take();
        // Waited for, so that whoever opens the file next finds it free: a transaction long, at most.
        if let Some(writer) = self.writer.lock().take() {
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn status(&self) -> Status {
        let gate = self.gate.lock();
        Status {
            events: gate.waiting.events,
            bytes: gate.waiting.bytes + gate.aside.bytes,
            bytes_max: self.bytes_max,
            oldest: gate.oldest.filter(|_| gate.waiting.events > 0),
            aside: gate.aside.events,
            fault: gate.fault.as_ref().map(|fault| fault.why.clone()),
        }
    }

    fn end_replays(&self) {
        self.stopping.store(true, Ordering::Release);
        self.work.notify_one();
    }

    /// Waits, until then, for a time at which every topic has a way.
    async fn decide(
        self: &Arc<Self>,
        topics: &[Topic],
        due: Instant,
    ) -> Result<(Vec<Way>, Option<Ticket>, Coming), String> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before the look: what changes after it wakes us.
            changed.as_mut().enable();
            let wait = match self.ways(topics) {
                Ok(ways) => return Ok(ways),
                Err(wait) => wait,
            };
            let until = wait.until.map_or(due, |until| until.min(due));
            if timeout_at(until, changed).await.is_err() && until == due {
                return Err(wait.why);
            }
        }
    }

    fn ways(self: &Arc<Self>, topics: &[Topic]) -> Result<(Vec<Way>, Option<Ticket>, Coming), gate::Wait> {
        let (ways, number) = match topics {
            [] => (Vec::new(), None),
            topics => self.gate.lock().decide(topics, Instant::now())?,
        };
        let spooled = topics.iter().zip(&ways).filter(|(_, way)| **way == Way::Spool);
        let coming = Coming { shared: self.clone(), topics: spooled.map(|(topic, _)| topic.clone()).collect() };
        let ticket = number.map(|number| Ticket { shared: self.clone(), number, taken: false });
        Ok((ways, ticket, coming))
    }

    /// To the log; what that does not take goes into the spool.
    async fn send<P: Send + Sync + 'static>(
        self: &Arc<Self>,
        part: Part,
        ticket: Option<Ticket>,
        place: Arc<P>,
        due: Instant,
    ) -> Vec<(usize, Fate)> {
        let Part { places, records } = part;
        if records.is_empty() {
            return Vec::new();
        }
        let kept = records.clone();
        let log = self.log.clone();
        // A task of its own: past our time the log goes on with it, and must come to its end.
        let sending = self.engine.spawn(async move {
            let _place = place;
            let started = Instant::now();
            let answers = log.append(records).await;
            metrics::histogram!(names::APPEND_SECONDS).record(started.elapsed());
            if let Some(mut ticket) = ticket {
                ticket.taken = answers.iter().any(Result::is_ok);
            }
            answers
        });
        let answers = match timeout_at(due - self.reserve, sending).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(_)) | Err(_) => vec![Err(AppendError::Unknown("no answer in time".to_owned())); kept.len()],
        };
        let takes = self.gate.lock().takes();
        let mut fates = Vec::new();
        let (mut left, mut whys) = (Part::default(), Vec::new());
        for ((index, record), answer) in places.into_iter().zip(kept).zip(answers) {
            match answer {
                Err(why @ (AppendError::NotWritten(_) | AppendError::Busy(_) | AppendError::Unknown(_)))
                    if takes && record.topic.as_str() != CANARY =>
                {
                    left.push(index, record);
                    whys.push(why);
                }
                answer => fates.push((index, answer.map(|_| Kept::Log))),
            }
        }
        let coming = self.expect(topics_of(&left.records));
        fates.extend(self.keep(left, coming, Some(whys), due).await);
        fates
    }

    fn expect(self: &Arc<Self>, topics: Vec<Topic>) -> Coming {
        let mut gate = self.gate.lock();
        topics.iter().for_each(|topic| gate.expect(topic, Instant::now()));
        drop(gate);
        Coming { shared: self.clone(), topics }
    }

    /// Into the spool. `whys`: what the log said of them, if it was asked.
    async fn keep(
        &self,
        part: Part,
        coming: Coming,
        whys: Option<Vec<AppendError>>,
        due: Instant,
    ) -> Vec<(usize, Fate)> {
        let Part { places, records } = part;
        if records.is_empty() {
            return Vec::new();
        }
        let Err(error) = self.put(records, coming, due).await else {
            return places.into_iter().map(|index| (index, Ok(Kept::Spool))).collect();
        };
        let fate = |at: usize| {
            let (of_log, sent) = match whys.as_ref().map(|whys| &whys[at]) {
                Some(why) => (format!("{why}; and "), matches!(why, AppendError::Unknown(_))),
                None => (String::new(), false),
            };
            let why = format!("{of_log}{error}");
            Err(if sent || error.may_be_there() { AppendError::Unknown(why) } else { AppendError::NotWritten(why) })
        };
        places.iter().enumerate().map(|(at, index)| (*index, fate(at))).collect()
    }

    async fn put(&self, records: Vec<NewRecord>, coming: Coming, due: Instant) -> Result<(), PutError> {
        let bytes: usize = records.iter().map(NewRecord::bytes).sum();
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(QUEUE_KIB_MAX).min(QUEUE_KIB_MAX);
        let room = self.room.clone().try_acquire_many_owned(kib).map_err(|_| PutError::Busy)?;
        let (answer, answered) = oneshot::channel();
        self.give(Job::Put(Put { records, coming, start_by: due, answer, _room: room }))?;
        match timeout_at(due, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(PutError::Unanswered),
        }
    }

    fn give(&self, job: Job) -> Result<(), PutError> {
        let jobs = self.jobs.lock();
        let sent = jobs.as_ref().ok_or(PutError::Closed)?.try_send(job);
        // The job goes when the lock has been given back: it may want others.
        drop(jobs);
        sent.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PutError::Busy,
            mpsc::error::TrySendError::Closed(_) => PutError::Closed,
        })
    }

    async fn ask<T>(&self, job: impl FnOnce(Answer<T>) -> Job) -> Result<T, String> {
        let (answer, answered) = oneshot::channel();
        self.give(job(answer)).map_err(|error| error.to_string())?;
        match tokio::time::timeout(ASK_WITHIN, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(PutError::Unanswered.to_string()),
        }
    }
}

/// Each once; without that of sluice's own canaries.
fn topics_of(records: &[NewRecord]) -> Vec<Topic> {
    let mut topics: Vec<Topic> = Vec::new();
    for record in records {
        if record.topic.as_str() != CANARY && !topics.contains(&record.topic) {
            topics.push(record.topic.clone());
        }
    }
    topics
}
