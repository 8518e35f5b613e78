//! The clock and the disk's free space: what the writer asks of the world, and tests answer.

use std::io;
use std::path::Path;

use crate::disk;
use crate::model::Timestamp;

pub(super) struct World {
    pub(super) now: Box<dyn Fn() -> Timestamp + Send>,
    pub(super) free_bytes: Box<dyn Fn() -> io::Result<u64> + Send>,
}

impl World {
    pub(super) fn real(folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self { now: Box::new(Timestamp::now), free_bytes: Box::new(move || disk::free_bytes(&folder)) }
    }
}
