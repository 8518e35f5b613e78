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
use crate::log::AppendError;
use crate::model::Topic;

/// How often is looked whether the folder is free, and what has been appended there.
const LOOK_EVERY: Duration = Duration::from_millis(10);
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
        let seen = schema::pragma(&reader, "data_version").map_err(failed)?;
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
        let Some(lock) = self.wait(&mut waiting, jobs) else {
            return refuse(waiting, "the log is closed");
        };
        match self.become_writer(lock) {
            Ok(writer) => writer.run(waiting, jobs),
            Err(error) => {
                tracing::error!(%error, "the log of the server before this one cannot be written to");
                refuse(waiting, &error.to_string());
            }
        }
    }

    /// None where the queue has been closed before the folder was free.
    fn wait(&mut self, waiting: &mut Vec<Job>, jobs: &Receiver<Job>) -> Option<FolderLock> {
        let since = Instant::now();
        let mut told = false;
        loop {
            match FolderLock::take(&self.folder) {
                Ok(lock) => {
                    tracing::info!(waited = ?since.elapsed(), "the log is this server's now");
                    return Some(lock);
                }
                Err(error) if !told && since.elapsed() > TOLD_AFTER => {
                    told = true;
                    tracing::error!(%error, "events wait for the log, or are refused");
                }
                Err(_) => {}
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
        let Ok(version) = schema::pragma(&self.reader, "data_version") else { return };
        if version != self.seen && self.heads.load_again(&self.reader).is_ok() {
            self.seen = version;
        }
    }

    fn become_writer(self, lock: FolderLock) -> Result<Writer, OpenError> {
        let failed = |cause| schema::open_error(&self.file, cause);
        let mut connection = schema::open_writer(&self.file)?;
        group::create_missing(&mut connection, &self.topics).map_err(failed)?;
        self.heads.load_again(&connection).map_err(failed)?;
        let retention = Retention::new(&self.options);
        Ok(Writer::new(connection, self.heads, retention, self.world, self.options.free_bytes_min, lock))
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
