//! The spool's file: its tables, and what is done to them. Every change is one transaction, on disk when it returns.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row as SqlRow, Transaction, TransactionBehavior, params};

use super::OpenError;
use crate::database::{self, Form, pragma};
use crate::model::{NewRecord, Timestamp, Topic};

pub(super) const FILE_NAME: &str = "spool.db";

/// "slsp", where SQLite files say whose they are.
const APPLICATION_ID: i32 = 0x736c_7370;
/// Grows with every change of the tables.
const FORMAT: i32 = 1;
/// Longest wait for somebody else's lock: a person with the sqlite3 shell.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(1);
/// Free pages that stay in the file, and those cut off at once.
const FREE_PAGES_KEPT: i64 = 1_024;
const STEP_PAGES_MAX: i64 = 1_024;
/// What an event weighs in the file beside its key and value.
const EVENT_OVERHEAD_BYTES: u64 = 128;
/// Of a reason why the log refuses an event.
const REASON_BYTES_MAX: usize = 1_024;
/// Events that are put back, or dropped, in one transaction: others wait that long.
pub(super) const STEP_EVENTS_MAX: u32 = 500;

/// A number never comes twice (AUTOINCREMENT), so that what is deleted late deletes nothing else. `bytes` stands before the
/// blobs: what adds it up does not read them.
const CREATE_SQL: &str = "
CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, time INTEGER NOT NULL,
 accepted INTEGER NOT NULL, bytes INTEGER NOT NULL, key BLOB, value BLOB) STRICT;
CREATE INDEX events_by_topic ON events (topic, seq);
CREATE TABLE aside (seq INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, time INTEGER NOT NULL,
 accepted INTEGER NOT NULL, bytes INTEGER NOT NULL, since INTEGER NOT NULL, reason TEXT NOT NULL,
 key BLOB, value BLOB) STRICT";

const FORM: Form = Form { application_id: APPLICATION_ID, format: FORMAT, create_sql: CREATE_SQL };

pub(super) struct Store(Connection);

/// An event that waits for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) seq: i64,
    pub(super) record: NewRecord,
}

/// Events of one topic, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) events: u64,
    pub(super) bytes: u64,
}

/// What became of events that were replayed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// The log has them.
    pub(super) appended: Vec<(i64, u64)>,
    /// The log will not have them, and why not.
    pub(super) refused: Vec<(i64, u64, String)>,
}

/// An event that was set aside, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    pub topic: String,
    pub reason: String,
    pub accepted: Timestamp,
    pub since: Timestamp,
    pub bytes: u64,
}

pub(super) fn weight(record: &NewRecord) -> u64 {
    record.bytes() as u64 + EVENT_OVERHEAD_BYTES
}

impl Store {
    /// Makes the file where there is none.
    pub(super) fn open(file: &Path) -> Result<Self, OpenError> {
        let failed = |cause| OpenError::Sqlite { file: file.to_owned(), cause };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags).map_err(failed)?;
        connection.busy_timeout(BUSY_WAIT_MAX).map_err(failed)?;
        FORM.make_if_empty(&connection).map_err(failed)?;
        let number = |name| pragma(&connection, name).map_err(failed);
        let ours = number("application_id")? == i64::from(APPLICATION_ID);
        if !ours || number("user_version")? != i64::from(FORMAT) {
            return Err(OpenError::NotASpool { file: file.to_owned() });
        }
        database::set_up(&connection).map_err(failed)?;
        Ok(Self(connection))
    }

    /// What waits for the log, by topic.
    pub(super) fn waiting(&self) -> rusqlite::Result<Vec<(Topic, Load)>> {
        let mut statement = self.0.prepare("SELECT topic, count(*), sum(bytes) FROM events GROUP BY topic")?;
        let rows = statement.query_map([], |row| {
            let (topic, events, bytes): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok((Topic::new(&topic), Load { events: unsigned(events), bytes: unsigned(bytes) }))
        })?;
        rows.collect()
    }

    pub(super) fn aside(&self) -> rusqlite::Result<Load> {
        self.0.query_row("SELECT count(*), coalesce(sum(bytes), 0) FROM aside", [], |row| {
            Ok(Load { events: unsigned(row.get(0)?), bytes: unsigned(row.get(1)?) })
        })
    }

    /// When the event that has waited longest was accepted.
    pub(super) fn oldest(&self) -> rusqlite::Result<Option<Timestamp>> {
        let mut statement = self.0.prepare_cached("SELECT accepted FROM events ORDER BY seq LIMIT 1")?;
        statement.query_row([], |row| Ok(Timestamp(row.get(0)?))).optional()
    }

    pub(super) fn put<'a>(
        &mut self,
        now: Timestamp,
        records: impl Iterator<Item = &'a NewRecord>,
    ) -> rusqlite::Result<()> {
        let transaction = self.begin()?;
        {
            let sql = "INSERT INTO events (topic, time, accepted, bytes, key, value) VALUES (?, ?, ?, ?, ?, ?)";
            let mut statement = transaction.prepare_cached(sql)?;
            for record in records {
                let (key, value) = (record.key.as_deref(), record.value.as_deref());
                let bytes = signed(weight(record));
                statement.execute(params![record.topic.as_str(), record.time.0, now.0, bytes, key, value])?;
            }
        }
        transaction.commit()
    }

    /// The oldest of a topic: so many events, and about so many bytes, but one at least.
    pub(super) fn oldest_of(&self, topic: &Topic, events_max: usize, bytes_max: u64) -> rusqlite::Result<Vec<Waiting>> {
        let sql = "SELECT seq, time, key, value FROM events WHERE topic = ? ORDER BY seq LIMIT ?";
        let mut statement = self.0.prepare_cached(sql)?;
        let limit = i64::try_from(events_max).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![topic.as_str(), limit])?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max
            && let Some(row) = rows.next()?
        {
            let waiting = Waiting { seq: row.get(0)?, record: record_of(topic, row)? };
            bytes += weight(&waiting.record);
            found.push(waiting);
        }
        Ok(found)
    }

    pub(super) fn settle(&mut self, now: Timestamp, settled: &Settled) -> rusqlite::Result<()> {
        let transaction = self.begin()?;
        {
            let sql = "INSERT INTO aside (topic, time, accepted, bytes, since, reason, key, value)
                SELECT topic, time, accepted, bytes, ?, ?, key, value FROM events WHERE seq = ?";
            let mut set_aside = transaction.prepare_cached(sql)?;
            let mut delete = transaction.prepare_cached("DELETE FROM events WHERE seq = ?")?;
            for (seq, _, reason) in &settled.refused {
                let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
                set_aside.execute(params![now.0, reason, seq])?;
                delete.execute([seq])?;
            }
            for (seq, _) in &settled.appended {
                delete.execute([seq])?;
            }
        }
        transaction.commit()
    }

    /// The first that were set aside.
    pub(super) fn look_aside(&self, events_max: u32) -> rusqlite::Result<Vec<Aside>> {
        let sql = "SELECT topic, reason, accepted, since, bytes FROM aside ORDER BY seq LIMIT ?";
        let mut statement = self.0.prepare_cached(sql)?;
        let rows = statement.query_map([events_max], |row| {
            Ok(Aside {
                topic: row.get(0)?,
                reason: row.get(1)?,
                accepted: Timestamp(row.get(2)?),
                since: Timestamp(row.get(3)?),
                bytes: unsigned(row.get(4)?),
            })
        })?;
        rows.collect()
    }

    /// Puts some of what was set aside back at the end. What it weighs, by topic.
    pub(super) fn retry_some(&mut self) -> rusqlite::Result<Vec<(Topic, Load)>> {
        let transaction = self.begin()?;
        let loads = first_aside(&transaction)?;
        transaction.execute(
            "INSERT INTO events (topic, time, accepted, bytes, key, value)
             SELECT topic, time, accepted, bytes, key, value FROM aside ORDER BY seq LIMIT ?",
            [STEP_EVENTS_MAX],
        )?;
        delete_first_aside(&transaction)?;
        transaction.commit()?;
        Ok(loads)
    }

    /// Deletes some of what was set aside. What it weighed, by topic.
    pub(super) fn drop_some(&mut self) -> rusqlite::Result<Vec<(Topic, Load)>> {
        let transaction = self.begin()?;
        let loads = first_aside(&transaction)?;
        delete_first_aside(&transaction)?;
        transaction.commit()?;
        Ok(loads)
    }

    /// Gives some of the file's free pages back. Whether there are more.
    pub(super) fn shrink_some(&mut self) -> rusqlite::Result<bool> {
        if pragma(&self.0, "freelist_count")? <= FREE_PAGES_KEPT {
            return Ok(false);
        }
        self.0.execute_batch(&format!("PRAGMA incremental_vacuum({STEP_PAGES_MAX})"))?;
        Ok(pragma(&self.0, "freelist_count")? > FREE_PAGES_KEPT)
    }

    /// What was written ahead goes into the database, and its room is free.
    pub(super) fn checkpoint(&self) -> rusqlite::Result<()> {
        self.0.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    }

    /// As little as can be written, to see whether anything can be.
    pub(super) fn try_to_write(&self) -> rusqlite::Result<()> {
        self.0.pragma_update(None, "user_version", FORMAT)
    }

    fn begin(&mut self) -> rusqlite::Result<Transaction<'_>> {
        self.0.transaction_with_behavior(TransactionBehavior::Immediate)
    }
}

fn first_aside(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<(Topic, Load)>> {
    let sql =
        "SELECT topic, count(*), sum(bytes) FROM (SELECT topic, bytes FROM aside ORDER BY seq LIMIT ?) GROUP BY topic";
    let mut statement = transaction.prepare_cached(sql)?;
    let rows = statement.query_map([STEP_EVENTS_MAX], |row| {
        let (topic, events, bytes): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok((Topic::new(&topic), Load { events: unsigned(events), bytes: unsigned(bytes) }))
    })?;
    rows.collect()
}

fn delete_first_aside(transaction: &Transaction<'_>) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM aside WHERE seq IN (SELECT seq FROM aside ORDER BY seq LIMIT ?)";
    transaction.execute(sql, [STEP_EVENTS_MAX])
}

fn record_of(topic: &Topic, row: &SqlRow<'_>) -> rusqlite::Result<NewRecord> {
    let bytes = |blob: Option<Vec<u8>>| blob.map(Into::into);
    Ok(NewRecord {
        topic: topic.clone(),
        time: Timestamp(row.get(1)?),
        key: bytes(row.get(2)?),
        value: bytes(row.get(3)?),
    })
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_is_on_disk_when_the_commit_returns() {
        let folder = tempfile::tempdir().expect("a folder");
        for _ in ["made", "opened again"] {
            let store = Store::open(&folder.path().join(FILE_NAME)).expect("a store");
            // 2 is FULL.
            let how = ["synchronous", "fullfsync"].map(|name| pragma(&store.0, name).expect("a number"));
            assert_eq!(how, [2, 1]);
            let mode = store.0.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0));
            assert_eq!(mode.as_deref(), Ok("wal"));
        }
    }
}
