//! The one thread that has the file. What waits is one transaction, answered after it is on disk.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{ErrorCode, ffi};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use super::fault::{Fault, Of};
use super::spare::Spare;
use super::store::{Aside, Load, Settled, Store, Waiting, weight};
use super::{Coming, PutError, Shared};
use crate::disk::{self, FileLock};
use crate::metrics as names;
use crate::model::{NewRecord, Timestamp, Topic};

/// Jobs that are taken together.
const GROUP_JOBS_MAX: usize = 1_024;
/// Bytes of what is replayed at once, of one topic.
pub(super) const REPLAY_BYTES_MAX: u64 = 2 << 20;

pub(super) type Answer<T> = oneshot::Sender<Result<T, String>>;

pub(super) enum Job {
    Put(Put),
    Oldest {
        topic: Topic,
        events_max: usize,
        answer: Answer<Vec<Waiting>>,
    },
    Settle {
        topic: Topic,
        settled: Settled,
        answer: Answer<()>,
    },
    LookAside {
        events_max: u32,
        answer: Answer<Vec<Aside>>,
    },
    /// How many were put back.
    Retry {
        answer: Answer<u64>,
    },
    /// How many were dropped.
    Drop {
        answer: Answer<u64>,
    },
    /// Whether the disk's fault is over.
    Look,
}

pub(super) struct Put {
    pub(super) records: Vec<NewRecord>,
    /// Given back when they are on disk, or will not be.
    pub(super) coming: Coming,
    pub(super) start_by: Instant,
    pub(super) answer: oneshot::Sender<Result<(), PutError>>,
    pub(super) _room: OwnedSemaphorePermit,
}

pub(super) struct Writer {
    pub(super) store: Store,
    pub(super) shared: Arc<Shared>,
    pub(super) folder: PathBuf,
    pub(super) spare: Spare,
    /// Held as long as anything may be written, and given back last.
    pub(super) _lock: FileLock,
}

impl Writer {
    /// Until nobody can ask any more.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut puts = Vec::new();
            let rest = std::iter::from_fn(|| jobs.try_recv().ok()).take(GROUP_JOBS_MAX);
            for job in std::iter::once(first).chain(rest) {
                match job {
                    Job::Put(put) => puts.push(put),
                    other => self.work(other),
                }
            }
            if !puts.is_empty() {
                self.put(puts);
            }
            self.look_at_fault(false);
            self.shared.work.notify_one();
            while jobs.is_empty() && self.shrink() {}
        }
    }

    fn work(&mut self, job: Job) {
        let now = Timestamp::now();
        match job {
            Job::Put(put) => self.put(vec![put]),
            Job::Oldest { topic, events_max, answer } => {
                let found = self.store.oldest_of(&topic, events_max, REPLAY_BYTES_MAX);
                match &found {
                    Ok(_) => self.is_over(|of| of == Of::Reading),
                    Err(error) => self.has_failed(Of::Reading, error),
                }
                let _ = answer.send(found.map_err(|error| error.to_string()));
            }
            Job::Settle { topic, settled, answer } => {
                let _ = answer.send(self.settle(&topic, &settled, now));
            }
            Job::LookAside { events_max, answer } => {
                let _ = answer.send(self.store.look_aside(events_max).map_err(|error| error.to_string()));
            }
            Job::Retry { answer } => {
                let moved = self.with_spare(Store::retry_some).map(|loads| self.put_back(&loads));
                let _ = answer.send(moved.map_err(|error| error.to_string()));
            }
            Job::Drop { answer } => {
                let dropped = self.with_spare(Store::drop_some).map(|loads| self.not_aside_any_more(&loads));
                let _ = answer.send(dropped.map_err(|error| error.to_string()));
            }
            Job::Look => self.look_at_fault(true),
        }
    }

    fn put(&mut self, puts: Vec<Put>) {
        let mut going = Vec::new();
        let mut bytes = 0;
        for put in puts {
            match self.refusal(&put, bytes) {
                Some(refusal) => self.refuse(vec![put], &refusal),
                None => {
                    bytes += put.records.iter().map(weight).sum::<u64>();
                    going.push(put);
                }
            }
        }
        if going.is_empty() {
            return;
        }
        let now = Timestamp::now();
        match self.store.put(now, going.iter().flat_map(|put| &put.records)) {
            Ok(()) => self.is_on_disk(going, now),
            Err(error) => {
                let fsync = error.sqlite_error().map(|error| error.extended_code) == Some(ffi::SQLITE_IOERR_FSYNC);
                let refusal = if fsync { PutError::Fsync } else { PutError::Disk(error.to_string()) };
                self.refuse(going, &refusal);
            }
        }
    }

    fn refusal(&self, put: &Put, before: u64) -> Option<PutError> {
        if put.start_by < Instant::now() {
            return Some(PutError::Late);
        }
        let bytes: u64 = put.records.iter().map(weight).sum();
        let bytes_max = self.shared.bytes_max;
        if bytes_max > 0 && bytes > bytes_max {
            return Some(PutError::Larger(bytes_max));
        }
        if !self.has_room(before + bytes) {
            return Some(PutError::Full { bytes_max, bytes });
        }
        let free = self.free_bytes();
        (free < self.shared.free_bytes_min).then_some(PutError::Space(free, self.shared.free_bytes_min))
    }

    fn has_room(&self, bytes: u64) -> bool {
        let gate = self.shared.gate.lock();
        self.shared.bytes_max == 0 || gate.waiting.bytes + gate.aside.bytes + bytes <= self.shared.bytes_max
    }

    /// A file system that does not say is no reason to refuse: the commit will tell.
    fn free_bytes(&self) -> u64 {
        disk::free_bytes(&self.folder).unwrap_or(u64::MAX)
    }

    fn is_on_disk(&mut self, puts: Vec<Put>, now: Timestamp) {
        let mut gate = self.shared.gate.lock();
        for record in puts.iter().flat_map(|put| &put.records) {
            gate.added(&record.topic, Load { events: 1, bytes: weight(record) }, Instant::now());
        }
        gate.oldest.get_or_insert(now);
        drop(gate);
        self.is_over(Of::is_of_the_disk);
        for Put { records, coming, answer, .. } in puts {
            metrics::counter!(names::SPOOLED).increment(records.len() as u64);
            drop(coming);
            let _ = answer.send(Ok(()));
        }
    }

    fn refuse(&self, puts: Vec<Put>, refusal: &PutError) {
        if let Some(of) = refusal.fault() {
            self.has_a_fault(Fault { of, why: refusal.to_string() });
        }
        for Put { coming, answer, .. } in puts {
            drop(coming);
            let _ = answer.send(Err(refusal.clone()));
        }
    }

    fn settle(&mut self, topic: &Topic, settled: &Settled, now: Timestamp) -> Result<(), String> {
        let failed = |of| move |error: rusqlite::Error| (of, error);
        let done = self.with_spare(|store| store.settle(now, settled)).map_err(failed(Of::Writing));
        let oldest = done.and_then(|()| self.store.oldest().map_err(failed(Of::Reading)));
        let oldest = oldest.map_err(|(of, error)| {
            self.has_failed(of, &error);
            error.to_string()
        })?;
        let appended = Load {
            events: settled.appended.len() as u64,
            bytes: settled.appended.iter().map(|(_, bytes)| bytes).sum(),
        };
        let refused = Load {
            events: settled.refused.len() as u64,
            bytes: settled.refused.iter().map(|(_, bytes, _)| bytes).sum(),
        };
        let mut gate = self.shared.gate.lock();
        gate.removed(topic, appended);
        gate.removed(topic, refused);
        gate.aside.events += refused.events;
        gate.aside.bytes += refused.bytes;
        gate.oldest = oldest;
        drop(gate);
        self.is_over(|of| matches!(of, Of::Writing | Of::Reading));
        metrics::counter!(names::SPOOL_REPLAYED).increment(appended.events);
        Ok(())
    }

    /// What takes events out again is done on a full disk, too.
    fn with_spare<T>(&mut self, act: impl Fn(&mut Store) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let done = act(&mut self.store);
        if !done.as_ref().is_err_and(|error| error.sqlite_error_code() == Some(ErrorCode::DiskFull)) {
            self.spare.keep(self.free_bytes(), self.shared.free_bytes_min);
            return done;
        }
        self.spare.give_up();
        // Where it does not work the next attempt says why.
        let _ = self.store.checkpoint();
        act(&mut self.store)
    }

    fn put_back(&mut self, loads: &[(Topic, Load)]) -> u64 {
        let mut gate = self.shared.gate.lock();
        loads.iter().for_each(|(topic, load)| gate.added(topic, *load, Instant::now()));
        drop(gate);
        let oldest = self.store.oldest().ok().flatten();
        self.shared.gate.lock().oldest = oldest;
        self.not_aside_any_more(loads)
    }

    fn not_aside_any_more(&self, loads: &[(Topic, Load)]) -> u64 {
        let mut gate = self.shared.gate.lock();
        let events = loads.iter().map(|(_, load)| load.events).sum();
        gate.aside.events = gate.aside.events.saturating_sub(events);
        gate.aside.bytes = gate.aside.bytes.saturating_sub(loads.iter().map(|(_, load)| load.bytes).sum());
        events
    }

    fn has_failed(&self, of: Of, error: &rusqlite::Error) {
        let what = if of == Of::Reading { "read" } else { "written" };
        self.has_a_fault(Fault { of, why: format!("the spool cannot be {what}: {error}") });
    }

    /// The operator is told once, however many events it concerns.
    fn has_a_fault(&self, fault: Fault) {
        metrics::counter!(names::SPOOL_FAULTS).increment(1);
        let before = self.shared.gate.lock().fault.replace(fault.clone());
        if before.is_none() {
            tracing::error!(fault = fault.why, "the spool takes no events: while the log is away, they are refused");
        }
    }

    /// What the fault speaks of has just been seen to work, if it speaks of that.
    fn is_over(&self, is_that: impl FnOnce(Of) -> bool) {
        let over = self.shared.gate.lock().fault.take_if(|fault| is_that(fault.of));
        if let Some(fault) = over {
            tracing::info!(fault = fault.why, "the spool takes events again");
        }
    }

    /// Room comes by whatever takes something out; free space, and a disk that works, from outside. `writes`: a disk that
    /// failed is tried by a write.
    fn look_at_fault(&self, writes: bool) {
        let fault = self.shared.gate.lock().fault.as_ref().map(|fault| fault.of);
        let is_over = fault.is_some_and(|of| match of {
            Of::Room(bytes) => self.has_room(bytes),
            Of::FreeSpace => self.free_bytes() >= self.shared.free_bytes_min,
            Of::Writing => writes && self.store.try_to_write().is_ok(),
            Of::Opening | Of::Reading => false,
        });
        if is_over {
            self.is_over(|of| Some(of) == fault);
        }
    }

    fn shrink(&mut self) -> bool {
        let is_empty = self.shared.gate.lock().waiting.events == 0;
        is_empty && self.store.shrink_some().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::fake::Mood;
    use super::super::store::FILE_NAME;
    use super::super::tests::{World, record};
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_leaves_a_full_disk_is_tried_again_without_the_spare_and_what_was_written_ahead() {
        let world = World::new(Mood::Takes);
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let mut writer = Writer {
            store: Store::open(&path(FILE_NAME)).expect("a store"),
            shared: world.spool.shared.clone(),
            folder: folder.path().to_owned(),
            spare: Spare::of(folder.path()),
            _lock: FileLock::take(&path("lock")).expect("nobody has it"),
        };
        let ahead = || fs::metadata(path("spool.db-wal")).map_or(0, |file| file.len());
        let written = writer.with_spare(|store| store.put(Timestamp(5), [record("t", "", "a")].iter()));
        assert!(written.is_ok() && ahead() > 0 && path("spool.spare").exists());
        let full = || rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None);
        let left =
            writer.with_spare(|_| if ahead() > 0 || path("spool.spare").exists() { Err(full()) } else { Ok(()) });
        assert_eq!(left, Ok(()));
    }
}
