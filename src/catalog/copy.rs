//! The last good answer of an address, on disk: what a start has while the address does not answer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::disk;
use crate::model::Timestamp;

const FILE_NAME: &str = "catalog.json";
/// A larger file is not one of ours.
const BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Clone)]
pub(super) struct Copy {
    folder: PathBuf,
    /// Whose answer it is. Another source's is not used.
    source: String,
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    source: String,
    /// Milliseconds since 1970.
    fetched_at: i64,
    pub(super) streams: Map<String, Value>,
}

impl Kept {
    pub(super) fn fetched_at(&self) -> Timestamp {
        Timestamp(self.fetched_at)
    }
}

impl Copy {
    pub(super) fn new(folder: &Path, source: String) -> Self {
        Self { folder: folder.to_owned(), source }
    }

    /// The copy, if there is one of this source that can be read. Blocks.
    pub(super) fn read(&self) -> Option<Kept> {
        let path = self.path();
        let size = fs::metadata(&path).ok()?.len();
        let kept = match fs::read(&path) {
            _ if size > BYTES_MAX => Err(format!("it has {size} bytes")),
            Ok(bytes) => serde_json::from_slice::<Kept>(&bytes).map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        match kept {
            Ok(kept) if kept.source == self.source => Some(kept),
            Ok(_) => None,
            Err(why) => {
                tracing::warn!(%why, "the copy of the catalogue in {} cannot be used", path.display());
                None
            }
        }
    }

    /// Blocks.
    pub(super) fn write(&self, streams: Map<String, Value>, fetched_at: Timestamp) -> io::Result<()> {
        let kept = Kept { source: self.source.clone(), fetched_at: fetched_at.0, streams };
        disk::replace(&self.path(), &serde_json::to_vec(&kept)?)
    }

    fn path(&self) -> PathBuf {
        self.folder.join(FILE_NAME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams() -> Map<String, Value> {
        serde_json::json!({"b": {"topics": ["b"]}, "a": {}}).as_object().expect("a map").clone()
    }

    #[test]
    fn what_was_written_is_read_by_the_same_source_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let copy = Copy::new(&folder.path().join("new"), "http://a/".into());
        assert!(copy.read().is_none());
        copy.write(streams(), Timestamp(7)).expect("it is written");
        copy.write(streams(), Timestamp(8)).expect("it is written again");
        let kept = copy.read().expect("a copy");
        assert_eq!((kept.fetched_at(), kept.streams), (Timestamp(8), streams()));
        assert!(Copy::new(&folder.path().join("new"), "http://b/".into()).read().is_none());
    }

    #[test]
    fn a_damaged_copy_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let copy = Copy::new(folder.path(), "http://a/".into());
        for damaged in ["", "{", "[]", r#"{"source":"http://a/","fetched_at":1}"#] {
            fs::write(folder.path().join(FILE_NAME), damaged).expect("a file");
            assert!(copy.read().is_none(), "{damaged}");
        }
    }
}
