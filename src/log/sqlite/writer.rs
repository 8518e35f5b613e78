//! The one thread that writes. What waits is one transaction, acknowledged after its commit; retention works between
//! transactions, a small step at a time.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use rusqlite::Connection;

use super::group::{self, Group, not_written};
use super::heads::Heads;
use super::lock::FolderLock;
use super::queue::{Answers, Batch, Job};
use super::retention::Retention;
use super::world::World;
use crate::log::AppendError;
use crate::model::Topic;

pub(super) struct Writer {
    connection: Connection,
    heads: Arc<Heads>,
    retention: Retention,
    world: World,
    free_bytes_min: u64,
    /// Whether the operator has been told that appends fail.
    refusing: bool,
    /// Held as long as anything may be written, and given back last.
    _lock: FolderLock,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        heads: Arc<Heads>,
        retention: Retention,
        world: World,
        free_bytes_min: u64,
        lock: FolderLock,
    ) -> Self {
        Self { connection, heads, retention, world, free_bytes_min, refusing: false, _lock: lock }
    }

    /// Those that have waited, and then until the queue is closed and empty.
    pub(super) fn run(mut self, waited: Vec<Job>, jobs: &Receiver<Job>) {
        self.work(waited.into_iter());
        loop {
            match jobs.recv_timeout(self.retention.wait()) {
                // The job and all that waits behind it. Ends because a batch keeps its room until it is answered.
                Ok(job) => self.work(std::iter::once(job).chain(jobs.try_iter())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.retention.step(&mut self.connection, &self.heads, (self.world.now)());
        }
    }

    fn work(&mut self, jobs: impl Iterator<Item = Job>) {
        let mut batches = Vec::new();
        for job in jobs {
            match job {
                Job::Append(batch) => batches.push(batch),
                Job::Retain(done) => self.retention.ask(done),
                Job::Make(topics, answer) => {
                    let _ = answer.send(self.make(&topics));
                }
            }
        }
        if !batches.is_empty() {
            self.append(batches);
        }
    }

    fn make(&mut self, topics: &[Topic]) -> Result<(), AppendError> {
        self.require_space()?;
        let made = group::create_missing(&mut self.connection, topics).map_err(|error| not_written(&error))?;
        self.heads.advance(made);
        Ok(())
    }

    fn append(&mut self, batches: Vec<Batch>) {
        let now = Instant::now();
        let (batches, late): (Vec<_>, Vec<_>) = batches.into_iter().partition(|batch| batch.start_by >= now);
        let too_late = AppendError::NotWritten("the disk is too slow: the batch waited too long".to_owned());
        late.into_iter().for_each(|batch| batch.refuse(&too_late));

        let outcome = self.require_space().and_then(|()| self.commit(&batches));
        self.tell_operator(outcome.as_ref().err());
        match outcome {
            Ok(answers) => answer_all(batches, answers),
            Err(error) => batches.into_iter().for_each(|batch| batch.refuse(&error)),
        }
    }

    fn require_space(&self) -> Result<(), AppendError> {
        // A file system that does not say is no reason to refuse: the commit will tell.
        let free = (self.world.free_bytes)().unwrap_or(u64::MAX);
        if free >= self.free_bytes_min {
            return Ok(());
        }
        let floor = self.free_bytes_min;
        Err(AppendError::NotWritten(format!(
            "the disk has {free} bytes of free space left, below the floor of {floor}"
        )))
    }

    fn commit(&mut self, batches: &[Batch]) -> Result<Vec<Answers>, AppendError> {
        let appended = (self.world.now)();
        let mut group =
            Group::begin(&mut self.connection, &self.heads, appended).map_err(|error| not_written(&error))?;
        let answers = batches.iter().map(|batch| group.insert(&batch.records)).collect::<Result<_, _>>();
        let answers = answers.map_err(|error| not_written(&error))?;
        self.heads.advance(group.commit()?);
        self.retention.appended(batches);
        Ok(answers)
    }

    /// Once when it begins and once when it is over, however many batches were refused between.
    fn tell_operator(&mut self, error: Option<&AppendError>) {
        match error {
            Some(error) if !self.refusing => {
                tracing::error!(%error, "events are refused");
                // What retention may delete is deleted now: it may be all that is missing.
                self.retention.begin();
            }
            None if self.refusing => tracing::info!("events are taken again"),
            _ => {}
        }
        self.refusing = error.is_some();
    }
}

fn answer_all(batches: Vec<Batch>, answers: Vec<Answers>) {
    for (batch, answers) in batches.into_iter().zip(answers) {
        // Nobody waits any more: the record is in the log all the same.
        let _ = batch.answer.send(answers);
    }
}
