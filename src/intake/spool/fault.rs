//! Why the spool takes nothing. A fault is over when what it speaks of is: see `Writer::look_at_fault`.

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) of: Of,
    /// For the operator.
    pub(super) why: String,
}

/// What a fault speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// Nobody knows what is in the file.
    Opening,
    /// So many bytes, which came together, found no room beside what is kept.
    Room(u64),
    FreeSpace,
    Writing,
    Reading,
}

impl Of {
    /// Whether it may be over although nobody asks anything of the spool.
    pub(super) fn is_of_the_disk(self) -> bool {
        matches!(self, Self::FreeSpace | Self::Writing)
    }
}
