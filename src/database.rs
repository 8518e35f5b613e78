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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const FORM: Form = Form { application_id: 7, format: 3, create_sql: "CREATE TABLE t (value BLOB)" };

    fn tables(connection: &Connection) -> rusqlite::Result<i64> {
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
    }

    #[test]
    fn an_empty_file_is_made_ours_and_one_that_belongs_to_somebody_stays_as_it_is() -> rusqlite::Result<()> {
        let empty = Connection::open_in_memory()?;
        FORM.make_if_empty(&empty)?;
        FORM.make_if_empty(&empty)?;
        assert_eq!((tables(&empty)?, pragma(&empty, "application_id")?, pragma(&empty, "user_version")?), (1, 7, 3));
        for of_another in ["PRAGMA application_id = 8", "CREATE TABLE theirs (value)"] {
            let theirs = Connection::open_in_memory()?;
            theirs.execute_batch(of_another)?;
            let before = (tables(&theirs)?, pragma(&theirs, "application_id")?);
            FORM.make_if_empty(&theirs)?;
            assert_eq!((tables(&theirs)?, pragma(&theirs, "application_id")?), before, "{of_another}");
        }
        Ok(())
    }

    #[test]
    fn a_file_that_can_have_no_write_ahead_log_is_refused() {
        // One in memory has none either.
        let refused = Connection::open_in_memory().and_then(|connection| set_up(&connection));
        let said = refused.expect_err("refused").to_string();
        assert!(said.contains("journal mode memory"), "{said}");
    }

    #[test]
    fn the_write_ahead_log_gives_its_room_back_after_a_burst() -> rusqlite::Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("some.db");
        let wal_bytes = || fs::metadata(folder.path().join("some.db-wal")).expect("a write-ahead log").len();
        let connection = Connection::open(&file)?;
        set_up(&connection)?;
        FORM.make_if_empty(&connection)?;
        connection.execute("INSERT INTO t VALUES (zeroblob(?))", [2 * WAL_BYTES_KEPT])?;
        assert!(wal_bytes() > u64::from(WAL_BYTES_KEPT));
        connection.execute("INSERT INTO t VALUES (0)", [])?;
        assert!(wal_bytes() <= u64::from(WAL_BYTES_KEPT));
        Ok(())
    }
}
