//! The file's tables and settings, and the connections to it.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::OpenError;

pub(super) const FILE_NAME: &str = "log.db";

/// "slui", where SQLite files say whose they are.
const APPLICATION_ID: i32 = 0x736c_7569;
/// Grows with every change of the tables.
const FORMAT: i32 = 1;
/// Longest wait for somebody else's lock: a person with the sqlite3 shell. Past it the batch is refused.
pub(super) const BUSY_WAIT_MAX: Duration = Duration::from_secs(2);
/// What the write-ahead log shrinks to after a burst.
const WAL_BYTES_KEPT: u32 = 16 << 20;
/// Statements kept ready, one per busy topic. Others are prepared anew: slower, not wrong.
const STATEMENTS_KEPT_MAX: usize = 256;

/// A topic's number: the name of its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TopicId(pub(super) i64);

impl TopicId {
    pub(super) fn table(self) -> String {
        format!("records_{}", self.0)
    }
}

/// `time_max` is the largest `time` up to here, so it only grows with the offset: the first record at or after a time
/// is the first whose `time_max` is, and that is a binary search. An index on `time` would cost space and every append a
/// second tree. `value` stands last: what is asked of the others does not read it.
pub(super) fn create_records_sql(id: TopicId) -> String {
    format!(
        "CREATE TABLE {} (offset INTEGER PRIMARY KEY, time INTEGER NOT NULL, time_max INTEGER NOT NULL,
         appended INTEGER NOT NULL, key BLOB, value BLOB) STRICT",
        id.table()
    )
}

/// `next` stands here because retention may take all records of a topic, and its offsets must still go on.
const CREATE_SQL: &str =
    "CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, next INTEGER NOT NULL) STRICT";

/// The connection that writes. Makes the file where there is none.
pub(super) fn open_writer(file: &Path) -> Result<Connection, OpenError> {
    let failed = |cause| open_error(file, cause);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_WAIT_MAX).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT_MAX);
    if is_empty(&connection).map_err(failed)? {
        create(&connection).map_err(failed)?;
    }
    require_ours(&connection, file)?;
    set_up(&connection).map_err(failed)?;
    Ok(connection)
}

/// A connection that reads. The file exists: the writer was there first.
pub(super) fn open_reader(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(BUSY_WAIT_MAX)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT_MAX);
    Ok(connection)
}

/// One number of a `PRAGMA`.
pub(super) fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(tables == 0 && pragma(connection, "application_id")? == 0)
}

fn create(connection: &Connection) -> rusqlite::Result<()> {
    // Before the first table: later it would cost a VACUUM, which needs the file's size again in free space.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {CREATE_SQL}; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT};
         COMMIT"
    ))
}

pub(super) fn require_ours(connection: &Connection, file: &Path) -> Result<(), OpenError> {
    let number = |name| pragma(connection, name).map_err(|cause| open_error(file, cause));
    if number("application_id")? != i64::from(APPLICATION_ID) {
        let cause = "it is a database of another program".to_owned();
        return Err(OpenError::NotALog { file: file.to_owned(), cause });
    }
    let found = i32::try_from(number("user_version")?).unwrap_or(i32::MAX);
    match found {
        ..=FORMAT => Ok(()),
        _ => Err(OpenError::Newer { file: file.to_owned(), found, known: FORMAT }),
    }
}

/// `synchronous=FULL`: in WAL mode that is one fsync per commit, before it returns, so an acknowledged record survives
/// a power loss. `NORMAL` would survive only a crash of the process, `EXTRA` adds nothing in this mode. Group commit
/// pays for it: whoever waits shares the fsync. (`fullfsync` is for macOS, whose fsync stops at the drive's cache.)
fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        let message = format!("the file system cannot share memory (journal mode {mode}): a network drive?");
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
            Some(message),
        ));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "fullfsync", "ON")?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_KEPT, |_| Ok(()))
}

pub(super) fn open_error(file: &Path, cause: rusqlite::Error) -> OpenError {
    let file = file.to_owned();
    match cause.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotALog { file, cause: "it is not an SQLite database".to_owned() },
        Some(ErrorCode::DiskFull) => OpenError::DiskFull { file },
        _ => OpenError::Sqlite { file, cause },
    }
}
