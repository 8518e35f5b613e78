//! The embedded engine's fixture.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sluice::log::Log;
use sluice::log::sqlite::{Options, SqliteLog};
use sluice::model::{Offset, Partition, Topic};
use tempfile::TempDir;

use crate::engine::Engine;
use crate::story::{append, record};

contract_suite! {
    Sqlite,
    every: [],
    several_partitions: [#[ignore = "SQLite keeps one partition per topic"]],
    partitions_added: [#[ignore = "SQLite keeps one partition per topic"]],
    gaps: [],
}

/// Past the 64 MiB that a record may have.
const TOO_LARGE: usize = (64 << 20) + 1;

struct Sqlite {
    log: Option<Arc<SqliteLog>>,
    topics: AtomicU32,
    folder: TempDir,
}

impl Sqlite {
    fn sqlite(&self) -> &Arc<SqliteLog> {
        self.log.as_ref().expect("the log is open")
    }

    /// Another hand in the file: what a person could do with the sqlite3 shell.
    fn by_hand(&self, partition: &Partition, sql: &str, offset: Offset) {
        let shell = rusqlite::Connection::open(self.folder.path().join("log.db")).expect("the file opens");
        shell.busy_timeout(Duration::from_secs(10)).expect("a wait is set");
        let name = partition.topic.as_str();
        let id = shell.query_row("SELECT id FROM topics WHERE name = ?", [name], |row| row.get::<_, i64>(0));
        let table = format!("records_{}", id.expect("the topic exists"));
        shell.execute(&sql.replace("{records}", &table), [offset.0]).expect("the statement runs");
    }
}

fn open(folder: &TempDir) -> Option<Arc<SqliteLog>> {
    Some(Arc::new(SqliteLog::open(folder.path(), Options::default()).expect("the log opens")))
}

#[async_trait]
impl Engine for Sqlite {
    async fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        Self { log: open(&folder), topics: AtomicU32::new(0), folder }
    }

    fn log(&self) -> Arc<dyn Log> {
        self.sqlite().clone()
    }

    fn unused_topic(&self) -> Topic {
        Topic::new(&format!("test.topic-{}", self.topics.fetch_add(1, Ordering::Relaxed)))
    }

    async fn create(&self, _: &Topic, partitions: i32) {
        assert_eq!(partitions, 1, "a topic is made by its first append, with one partition");
    }

    fn too_large(&self) -> usize {
        TOO_LARGE
    }

    async fn restart(&mut self) {
        let closed = self.log.take().expect("the log is open");
        closed.close().await;
        drop(closed);
        self.log = open(&self.folder);
    }

    /// The records become as old as can be, and retention does the rest.
    async fn delete_before(&self, partition: &Partition, at: Offset) {
        self.by_hand(partition, "UPDATE {records} SET appended = 0 WHERE offset < ?", at);
        self.sqlite().retain_now().await;
    }

    async fn add_partitions(&self, _: &Topic, _: i32) {
        unreachable!("SQLite keeps one partition per topic");
    }

    async fn make_gap(&self, partition: &Partition) {
        let offset = append(&**self.sqlite(), vec![record(&partition.topic, "never seen")]).await[0];
        self.by_hand(partition, "DELETE FROM {records} WHERE offset = ?", offset);
    }
}
