//! The file's tables and settings, and the connections to it.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::OpenError;
use crate::database::{self, Form, pragma};

pub(super) const FILE_NAME: &str = "log.db";

/// "slui", where SQLite files say whose they are.
const APPLICATION_ID: i32 = 0x736c_7569;
/// Grows with every change of the tables.
const FORMAT: i32 = 1;
/// Longest wait for somebody else's lock: a person with the sqlite3 shell. Past it the batch is refused.
pub(super) const BUSY_WAIT_MAX: Duration = Duration::from_secs(2);
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

const FORM: Form = Form { application_id: APPLICATION_ID, format: FORMAT, create_sql: CREATE_SQL };

/// The connection that writes. Makes the file where there is none.
pub(super) fn open_writer(file: &Path) -> Result<Connection, OpenError> {
    let failed = |cause| open_error(file, cause);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_WAIT_MAX).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT_MAX);
    FORM.make_if_empty(&connection).map_err(failed)?;
    require_ours(&connection, file)?;
    database::set_up(&connection).map_err(failed)?;
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

pub(super) fn open_error(file: &Path, cause: rusqlite::Error) -> OpenError {
    let file = file.to_owned();
    match cause.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotALog { file, cause: "it is not an SQLite database".to_owned() },
        Some(ErrorCode::DiskFull) => OpenError::DiskFull { file },
        _ => OpenError::Sqlite { file, cause },
    }
}
