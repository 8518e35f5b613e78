//! A writer that has not got the folder yet: the process before it still writes there, and is about to end.
//!
//! Until then what is to be appended waits as it waits for the writer, and is refused when it has waited too long. What the
//! process before appends is seen, so that the tails bring it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::heads::Heads;
use super::lock::FolderLock;
use super::queue::Job;
use super::retention::Retention;
use super::world::World;
use super::writer::Writer;
use super::{OpenError, Options, group, schema};
use crate::database::pragma;
use crate::log::AppendError;
use crate::model::Topic;

/// How often is looked whether the folder is free, and what has been appended there.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// After the log could not be opened.
const OPENED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Jobs that wait for the folder; the others wait in the queue, and fill it.
const WAITING_MAX: usize = 4096;
/// After which it is worth a warning that the other process still has it.
const TOLD_AFTER: Duration = Duration::from_secs(30);

pub(super) struct Successor {
    folder: PathBuf,
    file: PathBuf,
    /// Those that are to be there.
    topics: Vec<Topic>,
    options: Options,
    heads: Arc<Heads>,
    world: World,
    reader: Connection,
    /// Changes whenever somebody else has committed.
    seen: i64,
}

impl Successor {
    pub(super) fn new(folder: &Path, world: World, options: Options, topics: &[Topic]) -> Result<Self, OpenError> {
        let file = folder.join(schema::FILE_NAME);
        let failed = |cause| schema::open_error(&file, cause);
        let reader = schema::open_reader(&file).map_err(failed)?;
        schema::require_ours(&reader, &file)?;
        let seen = pragma(&reader, "data_version").map_err(failed)?;
        let heads = Arc::new(Heads::load(&reader).map_err(failed)?);
        let (folder, topics) = (folder.to_owned(), topics.to_vec());
        Ok(Self { folder, file, topics, options, heads, world, reader, seen })
    }

    pub(super) fn heads(&self) -> Arc<Heads> {
        self.heads.clone()
    }

    /// Until the queue is closed and empty.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        let mut waiting = Vec::new();
        let Some((connection, lock)) = self.wait(&mut waiting, jobs) else {
            return refuse(waiting, "the log is closed");
        };
        let retention = Retention::new(&self.options);
        let free_bytes_min = self.options.free_bytes_min;
        Writer::new(connection, self.heads, retention, self.world, free_bytes_min, lock).run(waiting, jobs);
    }

    /// None where the queue has been closed before the log could be written to.
    fn wait(&mut self, waiting: &mut Vec<Job>, jobs: &Receiver<Job>) -> Option<(Connection, FolderLock)> {
        let mut turn = Turn::default();
        loop {
            if let Some(connection) = turn.comes(self) {
                return turn.lock.map(|lock| (connection, lock));
            }
            self.look();
            refuse_late(waiting);
            if waiting.len() >= WAITING_MAX {
                std::thread::park_timeout(LOOK_EVERY);
                continue;
            }
            match jobs.recv_timeout(LOOK_EVERY) {
                Ok(job) => waiting.push(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// What the other process has appended. A look that fails is made again.
    fn look(&mut self) {
        let Ok(version) = pragma(&self.reader, "data_version") else { return };
        if version != self.seen && self.heads.load_again(&self.reader).is_ok() {
            self.seen = version;
        }
    }

    fn open(&self) -> Result<Connection, OpenError> {
        let failed = |cause| schema::open_error(&self.file, cause);
        let mut connection = schema::open_writer(&self.file)?;
        group::create_missing(&mut connection, &self.topics).map_err(failed)?;
        // It may have been appended to since the last look, and before the lock.
        self.heads.load_again(&connection).map_err(failed)?;
        Ok(connection)
    }
}

/// How far it is with the turn of the one who waits.
struct Turn {
    since: Instant,
    told: bool,
    lock: Option<FolderLock>,
    /// When it is tried to open the log.
    opens_at: Instant,
    /// Whether the operator has been told that it cannot be.
    fails: bool,
}

impl Default for Turn {
    fn default() -> Self {
        let now = Instant::now();
        Self { since: now, told: false, lock: None, opens_at: now, fails: false }
    }
}

impl Turn {
    fn comes(&mut self, successor: &Successor) -> Option<Connection> {
        if self.lock.is_none() {
            match FolderLock::take(&successor.folder) {
                Ok(lock) => self.lock = Some(lock),
                Err(error) => self.tell_once(&error),
            }
        }
        if self.lock.is_none() || Instant::now() < self.opens_at {
            return None;
        }
        match successor.open() {
            Ok(connection) => {
                tracing::info!(waited = ?self.since.elapsed(), "the log is this server's now");
                Some(connection)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.fails, true) {
                    tracing::error!(%error, "the log of the server before this one cannot be opened: that is tried again");
                }
                self.opens_at = Instant::now() + OPENED_AGAIN_AFTER;
                None
            }
        }
    }

    fn tell_once(&mut self, error: &OpenError) {
        if !self.told && self.since.elapsed() > TOLD_AFTER {
            self.told = true;
            tracing::error!(%error, "events wait for the log, or are refused");
        }
    }
}

/// Those that have waited for as long as they may wait for a writer, and those that nobody waits for any more.
fn refuse_late(waiting: &mut Vec<Job>) {
    let now = Instant::now();
    let is_late = |job: &mut Job| match job {
        Job::Append(batch) => batch.start_by < now,
        Job::Make(_, answer) => answer.is_closed(),
        Job::Retain(done) => done.is_closed(),
    };
    let late = waiting.extract_if(.., is_late).collect();
    refuse(late, "the server before this one has not given the log back yet");
}

fn refuse(jobs: Vec<Job>, why: &str) {
    let error = AppendError::NotWritten(why.to_owned());
    for job in jobs {
        match job {
            Job::Append(batch) => batch.refuse(&error),
            Job::Make(_, answer) => _ = answer.send(Err(error.clone())),
            Job::Retain(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::TryRecvError;

    use super::super::queue::Queue;
    use super::*;
    use crate::model::{NewRecord, Timestamp};

    #[tokio::test]
    async fn who_has_waited_too_long_is_refused_and_who_has_not_waits_on() {
        let (queue, jobs) = Queue::new();
        let record = || NewRecord { topic: Topic::new("t"), time: Timestamp(0), key: None, value: None };
        let refused = queue.append(vec![record()]);
        let waits = queue.append(vec![record()]);
        let late = async {
            let mut waiting: Vec<_> = std::iter::from_fn(|| jobs.try_recv().ok()).collect();
            let Some(Job::Append(first)) = waiting.first_mut() else { panic!("a batch was queued") };
            first.start_by = Instant::now();
            while Instant::now() == first.start_by {}
            refuse_late(&mut waiting);
            assert_eq!(waiting.len(), 1);
            assert_eq!(jobs.try_recv().err(), Some(TryRecvError::Empty));
            refuse(waiting, "over");
        };
        let (refused, waits, ()) = futures_util::join!(refused, waits, late);
        let why = |answers: &[Result<_, AppendError>]| format!("{:?}", answers[0].as_ref().err());
        assert!(why(&refused).contains("has not given the log back yet"), "{refused:?}");
        assert!(why(&waits).contains("over"), "{waits:?}");
    }
}
