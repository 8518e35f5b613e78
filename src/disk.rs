//! What several parts do with the disk: small files that an earlier run has left for a later one, written whole or not at
//! all; locks that one process holds; how much is free.
//!
//! Knows nothing of what the files hold.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// More than any process id has digits.
const PID_BYTES_MAX: u64 = 20;

/// A file that one process holds at a time. The system gives it back when the process ends, however it ends; the file
/// stays, because deleting it would let two processes lock two files of one name.
#[derive(Debug)]
pub struct FileLock(#[expect(dead_code, reason = "held open: that is the lock")] File);

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// By this process, as far as it has said so.
    #[error("it is in use by another sluice{}", by_pid(*.0))]
    Held(Option<u32>),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl FileLock {
    /// Takes it now or not at all.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Held(read_pid(&file))),
            Err(TryLockError::Error(cause)) => return Err(cause.into()),
        }
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self(file))
    }
}

fn read_pid(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Words for who holds a lock.
pub fn by_pid(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// What this process may still write: space reserved for root is not free.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// A file that is one (no pipe, whose writer may never come) and holds no more than that. Blocks.
pub fn read_file(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let without_waiting = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(without_waiting).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 <= bytes_max {
        true => Ok(bytes),
        false => Err(io::Error::other(format!("it holds more than {bytes_max} bytes"))),
    }
}

/// Puts these bytes in the place of what the file held, also where the machine stops in between. Makes its folder. Blocks
/// until it is on disk.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    let mut file = File::create(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    File::open(folder)?.sync_all()
}
