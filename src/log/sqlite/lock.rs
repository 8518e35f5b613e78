//! One server per data folder.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::OpenError;

/// Beside the database, not on it: the sqlite3 shell may look in while a server runs.
const FILE_NAME: &str = "sluice.lock";
/// More than any process id has digits.
const PID_BYTES_MAX: u64 = 20;

/// This process alone writes in the folder. The system gives it back when the process ends, however it ends; the file
/// stays, because deleting it would let two servers lock two files of one name.
#[derive(Debug)]
pub(super) struct FolderLock(#[expect(dead_code, reason = "held open: that is the lock")] File);

impl FolderLock {
    pub(super) fn take(folder: &Path) -> Result<Self, OpenError> {
        let unusable = |cause| OpenError::Folder { folder: folder.to_owned(), cause };
        let path = folder.join(FILE_NAME);
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse { folder: folder.to_owned(), pid: read_pid(&file) });
            }
            Err(TryLockError::Error(cause)) => return Err(unusable(cause)),
        }
        write_pid(&mut file).map_err(unusable)?;
        Ok(Self(file))
    }
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// For the sentence of [`OpenError::InUse`].
pub(super) fn by_pid(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}
