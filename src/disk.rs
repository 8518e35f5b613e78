//! Small files that an earlier run has left for a later one: written whole or not at all.
//!
//! Knows nothing of what they hold.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

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
