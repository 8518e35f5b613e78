//! One server per data folder.

use std::path::Path;

use super::OpenError;
use crate::disk::{FileLock, LockError};

/// Beside the database, not on it: the sqlite3 shell may look in while a server runs.
const FILE_NAME: &str = "sluice.lock";

/// This process alone writes in the folder.
#[derive(Debug)]
pub(super) struct FolderLock(#[expect(dead_code, reason = "held: that is its use")] FileLock);

impl FolderLock {
    pub(super) fn take(folder: &Path) -> Result<Self, OpenError> {
        FileLock::take(&folder.join(FILE_NAME)).map(Self).map_err(|error| match error {
            LockError::Held(pid) => OpenError::InUse { folder: folder.to_owned(), pid },
            LockError::Io(cause) => OpenError::Folder { folder: folder.to_owned(), cause },
        })
    }
}
