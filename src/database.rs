//! SQLite files of sluice's own: whose they are, and how what was committed stays.
//!
//! Knows nothing of their tables.

use rusqlite::Connection;

/// What the write-ahead log shrinks to after a burst.
const WAL_BYTES_KEPT: u32 = 16 << 20;

/// What a file is made as.
pub struct Form {
    /// Where SQLite files say whose they are.
    pub application_id: i32,
    /// Grows with every change of the tables.
    pub format: i32,
    /// Statements, without a semicolon after the last.
    pub create_sql: &'static str,
}

impl Form {
    /// Makes the tables where there is nothing yet.
    pub fn make_if_empty(&self, connection: &Connection) -> rusqlite::Result<()> {
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables > 0 || pragma(connection, "application_id")? != 0 {
            return Ok(());
        }
        let Self { application_id, format, create_sql } = self;
        // Before the first table: later it would cost a VACUUM, which needs the file's size again in free space.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {create_sql}; PRAGMA application_id = {application_id}; PRAGMA user_version = {format};
             COMMIT"
        ))
    }
}

/// One number of a `PRAGMA`.
pub fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// `synchronous=FULL`: in WAL mode that is one fsync per commit, before it returns, so what was acknowledged survives
/// a power loss. `NORMAL` would survive only a crash of the process, `EXTRA` adds nothing in this mode. Group commit
/// pays for it: whoever waits shares the fsync. (`fullfsync` is for macOS, whose fsync stops at the drive's cache.)
pub fn set_up(connection: &Connection) -> rusqlite::Result<()> {
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
