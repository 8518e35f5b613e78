//! All readers of the host, in one place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use super::Who;
use crate::limits::{Asker, Place};
use crate::metrics as names;
use crate::model::{StreamSet, Timestamp};

/// Longest user agent that is remembered, in bytes.
const USER_AGENT_BYTES_MAX: usize = 200;

/// One reader, as operators see it.
#[derive(Debug)]
pub struct Reader {
    pub id: u64,
    pub asker: Asker,
    pub user_agent: Option<Box<str>>,
    pub set: StreamSet,
    pub since: Timestamp,
    sent_bytes: AtomicU64,
    registry: Arc<Registry>,
}

impl Reader {
    /// What was written to it, except the newest few kilobytes.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub struct Registry {
    readers: DashMap<u64, Arc<Reader>>,
    next_id: AtomicU64,
}

impl Registry {
    /// Takes a reader in, until what is returned is dropped.
    pub(super) fn enter(self: &Arc<Self>, set: StreamSet, who: Who) -> Entry {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let user_agent = who.user_agent.map(|text| text.chars().take(USER_AGENT_BYTES_MAX).collect());
        let since = Timestamp::now();
        let (asker, sent_bytes, registry) = (who.asker, AtomicU64::new(0), self.clone());
        let reader = Arc::new(Reader { id, asker, user_agent, set, since, sent_bytes, registry });
        self.readers.insert(id, reader.clone());
        metrics::gauge!(names::STREAMS_OPEN).increment(1);
        Entry { reader, place: who.place.map(Box::new) }
    }

    pub fn open(&self) -> usize {
        self.readers.len()
    }

    pub fn readers(&self) -> Vec<Arc<Reader>> {
        self.readers.iter().map(|entry| entry.value().clone()).collect()
    }
}

/// A reader's entry. Given back when dropped, however the stream ended.
#[derive(Debug)]
pub(super) struct Entry {
    reader: Arc<Reader>,
    place: Option<Box<Place>>,
}

impl Entry {
    pub(super) fn sent(&self, bytes: u64) {
        self.reader.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // First: who sees that a stream has ended finds its place free.
        drop(self.place.take());
        self.reader.registry.readers.remove(&self.reader.id);
        metrics::gauge!(names::STREAMS_OPEN).decrement(1);
    }
}
