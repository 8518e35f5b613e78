//! An event in the log, and one on its way there.

use bytes::Bytes;

use super::{Offset, Partition, Timestamp, Topic};

/// A record as the log holds it. The value is whatever somebody appended: not necessarily JSON, not necessarily
/// UTF-8, absent for a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub partition: Partition,
    pub offset: Offset,
    pub time: Timestamp,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
}

impl Record {
    /// What the record weighs where bytes are counted.
    pub fn bytes(&self) -> usize {
        bytes_of(self.key.as_ref(), self.value.as_ref())
    }
}

/// A record to append. The engine picks the partition: by key where the topic has several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    pub topic: Topic,
    pub time: Timestamp,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
}

impl NewRecord {
    /// What the record weighs where bytes are counted.
    pub fn bytes(&self) -> usize {
        bytes_of(self.key.as_ref(), self.value.as_ref())
    }
}

fn bytes_of(key: Option<&Bytes>, value: Option<&Bytes>) -> usize {
    key.map_or(0, Bytes::len) + value.map_or(0, Bytes::len)
}
