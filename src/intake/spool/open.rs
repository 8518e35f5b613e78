//! Opening the file: now, or, where another process still has it, as soon as that one has left it. Until then nobody knows
//! what is in it, so nothing may overtake it: events wait.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{Instant, sleep};

use super::gate::{Gate, Pace};
use super::spare::Spare;
use super::store::{FILE_NAME, Store};
use super::writer::{Job, Writer};
use super::{JOBS_MAX, OpenError, Options, QUEUE_KIB_MAX, Shared, Spool, replay};
use crate::disk::{self, FileLock, LockError};
use crate::log::Log;

/// Beside the file, not on it: the sqlite3 shell may look in.
const LOCK_NAME: &str = "spool.lock";
/// How often it is looked whether the other process has left.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where the spool is.
#[derive(Debug, Clone)]
pub struct Place {
    pub folder: PathBuf,
    /// With less free space on its disk nothing is taken. 0 = no limit.
    pub free_bytes_min: u64,
    /// Whether another process may still have it, which is about to leave: it is waited for then, and nothing is appended
    /// meanwhile. Otherwise that is an error.
    pub waits: bool,
}

/// The file, and what is in it.
struct Opened {
    store: Store,
    lock: FileLock,
}

type WriterThread = Arc<Mutex<Option<JoinHandle<()>>>>;

impl Spool {
    /// None where it is not wanted and nothing waits in it. Blocks: call it before serving.
    pub(in crate::intake) fn open(
        options: &Options,
        place: &Place,
        deadline: Duration,
        log: Arc<dyn Log>,
        engine: Handle,
    ) -> Result<Option<Self>, OpenError> {
        Self::open_at(Pace::default(), options, place, deadline, log, engine)
    }

    pub(super) fn open_at(
        pace: Pace,
        options: &Options,
        place: &Place,
        deadline: Duration,
        log: Arc<dyn Log>,
        engine: Handle,
    ) -> Result<Option<Self>, OpenError> {
        let folder = &place.folder;
        if !options.enabled && !folder.join(FILE_NAME).exists() {
            return Ok(None);
        }
        let opened = match open_file(folder) {
            Err(OpenError::InUse { pid, .. }) if place.waits => {
                tracing::info!(?pid, "the spool is another process's: waiting for it to leave");
                None
            }
            opened => Some(opened?),
        };
        if let Some(opened) = &opened
            && !options.enabled
        {
            let waiting = opened.waiting(folder)?;
            if waiting == 0 {
                return Ok(None);
            }
            tracing::warn!(
                events = waiting,
                "intake.spool.enabled is false, and events are in the spool: they go to the log, and no others go there"
            );
        }
        let (jobs, writers_end) = mpsc::channel(JOBS_MAX);
        let shared = Arc::new(Shared {
            gate: Mutex::new(Gate::new(pace, options.enabled)),
            changed: Notify::new(),
            work: Notify::new(),
            jobs: Mutex::new(Some(jobs)),
            room: Arc::new(Semaphore::new(QUEUE_KIB_MAX as usize)),
            log,
            engine: engine.clone(),
            bytes_max: options.max_bytes,
            free_bytes_min: place.free_bytes_min,
            reserve: options.reserve(deadline),
            stopping: AtomicBool::new(false),
        });
        let writer = WriterThread::default();
        match opened {
            Some(opened) => *writer.lock() = Some(opened.start(&shared, folder, writers_end)?),
            None => {
                shared.gate.lock().shut("the spool is still another process's".to_owned());
                engine.spawn(open_later(shared.clone(), folder.clone(), writers_end, writer.clone()));
            }
        }
        let replay = engine.spawn(replay::run(shared.clone()));
        Ok(Some(Self { shared, writer, replay: Mutex::new(Some(replay)) }))
    }
}

fn open_file(folder: &Path) -> Result<Opened, OpenError> {
    let unusable = |cause| OpenError::Folder { folder: folder.to_owned(), cause };
    std::fs::create_dir_all(folder).map_err(unusable)?;
    let lock = FileLock::take(&folder.join(LOCK_NAME)).map_err(|error| match error {
        LockError::Held(pid) => OpenError::InUse { folder: folder.to_owned(), pid },
        LockError::Io(cause) => unusable(cause),
    })?;
    let store = Store::open(&folder.join(FILE_NAME))?;
    // The file's own name must survive a power loss too, not only what is in it.
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(unusable)?;
    Ok(Opened { store, lock })
}

/// The one that has it stops or dies: nobody can say when.
async fn open_later(shared: Arc<Shared>, folder: PathBuf, jobs: mpsc::Receiver<Job>, writer: WriterThread) {
    let fault = loop {
        if shared.stopping.load(Ordering::Acquire) {
            return;
        }
        let place = folder.clone();
        let opened = shared.engine.spawn_blocking(move || open_file(&place)).await;
        match opened.map_err(|error| error.to_string()) {
            Ok(Err(OpenError::InUse { .. })) => sleep(LOOK_EVERY).await,
            Ok(Ok(opened)) => match opened.start(&shared, &folder, jobs) {
                Ok(thread) => {
                    *writer.lock() = Some(thread);
                    return tracing::info!("the spool is this process's");
                }
                Err(error) => break error.to_string(),
            },
            Ok(Err(error)) => break error.to_string(),
            Err(why) => break why,
        }
    };
    tracing::error!(fault, "the spool cannot be opened: no events are taken, because what waits in it comes first");
    shared.gate.lock().shut(fault);
}

impl Opened {
    fn waiting(&self, folder: &Path) -> Result<u64, OpenError> {
        let failed = |cause| OpenError::Sqlite { file: folder.join(FILE_NAME), cause };
        let waiting: u64 = self.store.waiting().map_err(failed)?.iter().map(|(_, load)| load.events).sum();
        Ok(waiting + self.store.aside().map_err(failed)?.events)
    }

    fn start(
        self,
        shared: &Arc<Shared>,
        folder: &Path,
        jobs: mpsc::Receiver<Job>,
    ) -> Result<JoinHandle<()>, OpenError> {
        let failed = |cause| OpenError::Sqlite { file: folder.join(FILE_NAME), cause };
        let Self { store, lock } = self;
        let waiting = store.waiting().map_err(failed)?;
        let aside = store.aside().map_err(failed)?;
        let oldest = store.oldest().map_err(failed)?;
        let events: u64 = waiting.iter().map(|(_, load)| load.events).sum();
        if events > 0 {
            tracing::info!(events, "events of an earlier run are in the spool: they go to the log first");
        }
        let mut spare = Spare::of(folder);
        spare.keep(disk::free_bytes(folder).unwrap_or_default(), shared.free_bytes_min);
        let writer = Writer { store, shared: shared.clone(), folder: folder.to_owned(), spare, _lock: lock };
        let thread = thread::Builder::new().name("sluice-spool".to_owned());
        let thread = thread.spawn(move || writer.run(jobs)).map_err(OpenError::Thread)?;
        shared.gate.lock().open(waiting, aside, oldest, Instant::now());
        shared.changed.notify_waiters();
        shared.work.notify_one();
        Ok(thread)
    }
}
