//! Room for deletions: on a full disk even these need some, and what the log has must not stay in the spool.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_NAME: &str = "spool.spare";
/// As much as SQLite writes ahead before it takes that over into the database.
const BYTES: usize = 4 << 20;

/// A file of no use, until the disk is full.
pub(super) struct Spare {
    path: PathBuf,
    kept: bool,
}

impl Spare {
    /// The one that an earlier run has kept, if it has.
    pub(super) fn of(folder: &Path) -> Self {
        let path = folder.join(FILE_NAME);
        let kept = fs::metadata(&path).is_ok_and(|file| file.len() >= BYTES as u64);
        Self { path, kept }
    }

    /// Kept from now on, where the disk has room for it beside what is not to be used. Where it cannot be, deletions wait for
    /// room like all else.
    pub(super) fn keep(&mut self, free_bytes: u64, free_bytes_min: u64) {
        if self.kept || free_bytes < free_bytes_min.saturating_add(2 * BYTES as u64) {
            return;
        }
        self.kept = fs::write(&self.path, vec![0; BYTES]).is_ok();
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }

    pub(super) fn give_up(&mut self) {
        self.kept = false;
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_where_there_is_room_and_over_restarts_until_it_is_given_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let length = || fs::metadata(folder.path().join(FILE_NAME)).map_or(0, |file| file.len());
        let mut spare = Spare::of(folder.path());
        spare.keep(3 * BYTES as u64, 2 * BYTES as u64);
        assert_eq!(length(), 0, "too little room");
        spare.keep(4 * BYTES as u64, 2 * BYTES as u64);
        assert_eq!(length(), BYTES as u64);
        let mut spare = Spare::of(folder.path());
        assert!(spare.kept);
        spare.give_up();
        assert_eq!(length(), 0);
        spare.keep(u64::MAX, 0);
        assert!(spare.kept, "and kept again when there is room");
    }
}
