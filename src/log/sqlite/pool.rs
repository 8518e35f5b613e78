//! Read-only connections, few, on blocking threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::schema;
use crate::log::ReadError;

/// Reads at once. More wait their turn.
const READS_MAX: usize = 4;
/// Longest wait for a turn and the answer together. Past it the read is given up.
const READ_WAIT_MAX: Duration = Duration::from_secs(5);

pub(super) struct Pool {
    file: PathBuf,
    turns: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    pub(super) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), turns: Arc::new(Semaphore::new(READS_MAX)), idle: Mutex::default() }
    }

    /// Runs this on a connection of its own, in one snapshot of the log.
    pub(super) async fn ask<T, Q>(self: &Arc<Self>, query: Q) -> Result<T, ReadError>
    where
        T: Send + 'static,
        Q: FnOnce(&Connection) -> Result<T, ReadError> + Send + 'static,
    {
        let answer = async {
            let closed = |_| ReadError::Unavailable("the log is closed".to_owned());
            let turn = self.turns.clone().acquire_owned().await.map_err(closed)?;
            let pool = self.clone();
            let answer = tokio::task::spawn_blocking(move || pool.ask_now(turn, query));
            answer.await.map_err(|error| ReadError::Unavailable(error.to_string()))?
        };
        let too_slow = |_| Err(ReadError::Unavailable(format!("no answer within {READ_WAIT_MAX:?}")));
        tokio::time::timeout(READ_WAIT_MAX, answer).await.unwrap_or_else(too_slow)
    }

    /// Holds its turn to the end, also when nobody waits for the answer any more.
    fn ask_now<T>(
        &self,
        _turn: OwnedSemaphorePermit,
        query: impl FnOnce(&Connection) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let idle = self.idle.lock().pop();
        let connection = idle.map_or_else(|| schema::open_reader(&self.file), Ok)?;
        let snapshot = connection.unchecked_transaction()?;
        let answer = query(&snapshot);
        drop(snapshot);
        // A connection that failed is not asked again: a new one may find the file well.
        if !matches!(answer, Err(ReadError::Unavailable(_))) && !self.turns.is_closed() {
            self.idle.lock().push(connection);
        }
        answer
    }

    /// Reads from now on are refused; those under way end.
    pub(super) fn close(&self) {
        self.turns.close();
        self.idle.lock().clear();
    }
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}
