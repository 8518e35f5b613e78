//! Where tests keep what they fetch: a folder outside the tree. Fetched once, by one process, all or nothing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// `SLUICE_TEST_CACHE`, or a folder of the user's.
pub fn dir() -> PathBuf {
    std::env::var_os("SLUICE_TEST_CACHE").map_or_else(
        || std::env::home_dir().unwrap_or_else(std::env::temp_dir).join(".cache/sluice-tests"),
        PathBuf::from,
    )
}

/// Held while something is fetched: several test binaries may start at once on a machine that has nothing yet.
pub fn lock(cache: &Path) -> Result<File, String> {
    let cannot = |fault| format!("the tests' cache at {} cannot be used: {fault}", cache.display());
    fs::create_dir_all(cache).map_err(cannot)?;
    let lock = File::create(cache.join("lock")).map_err(cannot)?;
    lock.lock().map_err(cannot)?;
    Ok(lock)
}
