//! The embedded log: one SQLite file in the data folder, one partition (index 0) per topic.
//!
//! - this page: [`SqliteLog`] and its [`Options`]
//! - `lock` one server per folder
//! - `schema` the file's tables and settings; what else may be found in its place
//! - `queue` batches on their way to the writer, bounded
//! - `writer` the one thread that writes: what waits is one transaction, acknowledged after its commit
//! - `successor` a writer that waits for the process before it
//! - `group` that transaction
//! - `heads` which topics exist and where they end; wakes the tails
//! - `retention` the oldest records go, in small steps between the writer's transactions
//! - `pool` read-only connections, few, on blocking threads; `query` what is asked of them
//! - `tail` a following read, woken by commits
//! - `world` the clock and the disk's free space
//!
//! The file is for people too: `sqlite3 data/log.db 'select * from topics'`, and then
//! `select offset, cast(value as text) from records_1`. A shell that keeps a transaction open stops the file from
//! shrinking, one that keeps a write transaction open stops appends.
//!
//! Writes happen on the writer's thread alone; reads never wait for them. Knows nothing of what a record means.

mod group;
mod heads;
mod lock;
mod pool;
mod query;
mod queue;
mod retention;
mod schema;
mod successor;
mod tail;
#[cfg(test)]
mod tests;
mod world;
mod writer;

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::Deserialize;

use super::{AppendError, Appended, Block, Log, PartitionEnds, ReadError, Tail};
use crate::model::units;
use crate::model::{NewRecord, Offset, Partition, Timestamp, Topic};
use heads::Heads;
use lock::FolderLock;
use pool::Pool;
use queue::{Job, Queue};
use retention::Retention;
use successor::Successor;
use tail::SqliteTail;
use world::World;
use writer::Writer;

/// The only partition of a topic here.
const PARTITION: i32 = 0;
/// Longest wait of [`Log::finish`] and [`Log::close`] for what was appended before it.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(10);

/// The section `log.sqlite`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Records older than this are deleted. Counted from the append, not from the record's own time. 0 = no limit.
    #[serde(deserialize_with = "units::duration")]
    pub retention_age: Duration,
    /// While the file's pages in use are more than this, the oldest records of all topics are deleted. 0 = no limit.
    #[serde(deserialize_with = "units::bytes")]
    pub retention_bytes: u64,
    /// With less free space on the file system appends are refused, so that retention keeps room to work. 0 = no limit.
    #[serde(deserialize_with = "units::bytes")]
    pub free_bytes_min: u64,
}

impl Default for Options {
    fn default() -> Self {
        let retention_age = Duration::from_secs(7 * 24 * 60 * 60);
        Self { retention_age, retention_bytes: 10 << 30, free_bytes_min: 256 << 20 }
    }
}

/// Why the log in a data folder cannot be opened, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the data folder {} cannot be used: {cause}; check its owner and permissions, or name another with --data",
        folder.display()
    )]
    Folder { folder: PathBuf, cause: io::Error },
    #[error(
        "the data folder {} is in use by another sluice{}; stop that one, or name another folder with --data",
        folder.display(),
        crate::disk::by_pid(*pid)
    )]
    InUse { folder: PathBuf, pid: Option<u32> },
    #[error("{} is not a log of sluice: {cause}; move it away, or name another folder with --data", file.display())]
    NotALog { file: PathBuf, cause: String },
    #[error(
        "{} was written by a newer sluice (format {found}, this one knows {known}); start that one, or name another \
         folder with --data",
        file.display()
    )]
    Newer { file: PathBuf, found: i32, known: i32 },
    #[error("the disk of {} is full: free some space, or name another folder with --data", file.display())]
    DiskFull { file: PathBuf },
    #[error("{} cannot be opened: {cause}", file.display())]
    Sqlite { file: PathBuf, cause: rusqlite::Error },
    #[error("the writer's thread cannot be started: {0}")]
    Thread(io::Error),
}

/// The log in one data folder. Dropping it writes what was appended and gives the folder back.
pub struct SqliteLog {
    file: PathBuf,
    queue: Queue,
    heads: Arc<Heads>,
    pool: Arc<Pool>,
    /// `None` once it was waited for.
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteLog {
    /// Opens the log in this folder, or makes both. Blocks: call it before serving.
    pub fn open(folder: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_with(folder, options, &[])
    }

    /// The same, and makes those of these topics that are missing: a topic that is there from the start stands, empty,
    /// in its readers' places, and nothing of it can come before them.
    pub fn open_with(folder: &Path, options: Options, topics: &[Topic]) -> Result<Self, OpenError> {
        Self::open_in(World::real(folder), folder, options, topics)
    }

    fn open_in(world: World, folder: &Path, options: Options, topics: &[Topic]) -> Result<Self, OpenError> {
        let unusable = |cause| OpenError::Folder { folder: folder.to_owned(), cause };
        fs::create_dir_all(folder).map_err(unusable)?;
        let lock = FolderLock::take(folder)?;
        let file = folder.join(schema::FILE_NAME);
        let mut connection = schema::open_writer(&file)?;
        group::create_missing(&mut connection, topics).map_err(|cause| schema::open_error(&file, cause))?;
        // The file's own name must survive a power loss too, not only what is in it.
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(unusable)?;
        let heads = Heads::load(&connection).map_err(|cause| schema::open_error(&file, cause))?;
        let heads = Arc::new(heads);
        let retention = Retention::new(&options);
        let writer = Writer::new(connection, heads.clone(), retention, world, options.free_bytes_min, lock);
        Self::start(file, heads, move |jobs| writer.run(Vec::new(), jobs))
    }

    /// The same where another process may still write here, and is about to end: what is there can be read, and what is
    /// appended waits, for as long as appends may wait, until the folder is free.
    pub fn open_after(folder: &Path, options: Options, topics: &[Topic]) -> Result<Self, OpenError> {
        match Self::open_with(folder, options.clone(), topics) {
            Err(OpenError::InUse { .. }) => {}
            opened => return opened,
        }
        let file = folder.join(schema::FILE_NAME);
        let successor = Successor::new(folder, World::real(folder), options, topics)?;
        Self::start(file, successor.heads(), move |jobs| successor.run(jobs))
    }

    fn start(
        file: PathBuf,
        heads: Arc<Heads>,
        write: impl FnOnce(&Receiver<Job>) + Send + 'static,
    ) -> Result<Self, OpenError> {
        let (queue, jobs) = Queue::new();
        let thread = thread::Builder::new().name("sluice-log".to_owned());
        let writer = thread.spawn(move || write(&jobs)).map_err(OpenError::Thread)?;
        Ok(Self { pool: Arc::new(Pool::new(&file)), file, queue, heads, writer: Mutex::new(Some(writer)) })
    }

    /// Until what was appended is written, and the folder is given back.
    async fn until_written(&self) {
        self.queue.close();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            let joined = tokio::task::spawn_blocking(move || writer.join());
            if tokio::time::timeout(CLOSE_WAIT_MAX, joined).await.is_err() {
                tracing::warn!("the log's writer still works after {CLOSE_WAIT_MAX:?}; not waited for any longer");
            }
        }
    }

    /// Deletes what retention must delete now, gives its space back, and returns when that is done. It happens by
    /// itself too; this is for who cannot wait for it.
    pub async fn retain_now(&self) {
        self.queue.retain().await;
    }

    fn writer_runs(&self) -> bool {
        self.writer.lock().as_ref().is_some_and(|writer| !writer.is_finished())
    }
}

impl Drop for SqliteLog {
    fn drop(&mut self) {
        self.queue.close();
        // Waited for, so that whoever opens the folder next finds it free: a transaction long, at most.
        if let Some(writer) = self.writer.get_mut().take() {
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Log for SqliteLog {
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Appended, AppendError>> {
        self.queue.append(records).await
    }

    async fn read(&self, partition: &Partition, range: Range<Offset>, bytes_max: usize) -> Result<Block, ReadError> {
        let partition = partition.clone();
        self.pool.ask(move |connection| query::read(connection, &partition, range, bytes_max)).await
    }

    async fn ends(&self, topics: &[Topic]) -> Result<Vec<PartitionEnds>, ReadError> {
        let topics = topics.to_vec();
        self.pool.ask(move |connection| query::ends(connection, &topics)).await
    }

    async fn at_time(&self, wanted: &[(Partition, Timestamp)]) -> Result<Vec<Offset>, ReadError> {
        let wanted = wanted.to_vec();
        self.pool.ask(move |connection| query::at_time(connection, &wanted)).await
    }

    async fn before(&self, partition: &Partition, at: Offset) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        let partition = partition.clone();
        self.pool.ask(move |connection| query::before(connection, &partition, at)).await
    }

    async fn tail(&self, topics: Vec<Topic>, warm: u64) -> Box<dyn Tail> {
        Box::new(SqliteTail::open(&self.file, self.heads.clone(), topics, warm))
    }

    async fn prepare(&self, topics: &[Topic]) -> Result<(), AppendError> {
        let missing: Vec<Topic> = topics.iter().filter(|topic| self.heads.get(topic).is_none()).cloned().collect();
        if missing.is_empty() { Ok(()) } else { self.queue.make(missing).await }
    }

    async fn check(&self) -> Result<(), ReadError> {
        if !self.writer_runs() {
            return Err(ReadError::Unavailable("the writer has stopped".to_owned()));
        }
        self.pool.ask(query::check).await
    }

    async fn finish(&self) {
        self.until_written().await;
    }

    async fn close(&self) {
        self.until_written().await;
        self.pool.close();
    }

    fn describe(&self) -> String {
        format!("SQLite, {}", self.file.display())
    }
}
