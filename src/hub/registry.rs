//! All readers of the host, in one place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;

use super::Who;
use super::channel::Channel;
use super::wake::Bell;
use crate::limits::{Asker, Place};
use crate::metrics as names;
use crate::model::{StreamSet, Timestamp};

/// Longest user agent that is remembered, in bytes.
const USER_AGENT_BYTES_MAX: usize = 200;
/// The place of a reader that has everything, wherever its channel moves.
const AT_TIP: i64 = i64::MAX;

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client left.
    Left,
    /// The socket failed, or its peer acknowledges nothing any more.
    Failed,
    /// It was behind, and its socket stood still.
    Slow,
    Operator,
    /// Its streams have other topics now, or its log is another.
    Changed,
    Stop,
    /// Without a word: before it began, by a fault of its task, or with the process.
    Cut,
}

impl End {
    const ALL: [Self; 7] = [Self::Left, Self::Failed, Self::Slow, Self::Operator, Self::Changed, Self::Stop, Self::Cut];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Failed => "failed",
            Self::Slow => "slow",
            Self::Operator => "operator",
            Self::Changed => "changed",
            Self::Stop => "stop",
            Self::Cut => "cut",
        }
    }
}

/// One reader, as operators see it.
#[derive(Debug)]
pub struct Reader {
    pub id: u64,
    pub asker: Asker,
    pub user_agent: Option<Box<str>>,
    pub set: StreamSet,
    pub since: Timestamp,
    sent_bytes: AtomicU64,
    /// How far its channel had moved where the reader stands, or `AT_TIP`. Said when that changes, and not at every event:
    /// see [`super::subscription`].
    place: AtomicI64,
    /// An operator wants it to end.
    is_to_end: AtomicBool,
    /// Why it ended, as a number.
    end: AtomicU8,
    channel: Arc<Channel>,
    registry: Arc<Registry>,
}

impl Reader {
    /// What was written to it, except the newest few kilobytes of a reader that is being written to.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// How many records of the log lie between its place and where the tail stands.
    pub fn lag_events(&self) -> u64 {
        match self.place.load(Ordering::Relaxed) {
            AT_TIP => 0,
            place => {
                let lag = self.channel.with_ring(|ring| ring.moved()).saturating_sub(place);
                u64::try_from(lag).unwrap_or_default()
            }
        }
    }

    fn is_own(&self) -> bool {
        self.asker.key.is_own()
    }

    pub(super) fn is_to_end(&self) -> bool {
        self.is_to_end.load(Ordering::Acquire)
    }
}

#[derive(Debug, Default)]
pub struct Registry {
    readers: DashMap<u64, Arc<Reader>>,
    next_id: AtomicU64,
    bells: Mutex<Vec<Arc<Bell>>>,
}

impl Registry {
    /// Takes a reader in, until what is returned is dropped. Sluice's own is read for, and stands in no list.
    pub(super) fn enter(self: &Arc<Self>, channel: &Arc<Channel>, who: Who) -> Entry {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let user_agent = who.user_agent.map(|text| text.chars().take(USER_AGENT_BYTES_MAX).collect());
        let since = Timestamp::now();
        let reader = Arc::new(Reader {
            id,
            asker: who.asker,
            user_agent,
            set: channel.set.clone(),
            since,
            sent_bytes: AtomicU64::new(0),
            place: AtomicI64::new(AT_TIP),
            is_to_end: AtomicBool::new(false),
            end: AtomicU8::new(End::Cut as u8),
            channel: channel.clone(),
            registry: self.clone(),
        });
        if !reader.is_own() {
            self.readers.insert(id, reader.clone());
            metrics::gauge!(names::STREAMS_OPEN).increment(1);
            metrics::counter!(names::STREAMS_OPENED).increment(1);
        }
        Entry { reader, place: who.place.map(Box::new) }
    }

    pub fn open(&self) -> usize {
        self.readers.len()
    }

    pub fn readers(&self) -> Vec<Arc<Reader>> {
        self.readers.iter().map(|entry| entry.value().clone()).collect()
    }

    /// Ends those that are chosen, after a whole event, so that they may come back. Says how many were told.
    pub fn end(&self, chosen: &dyn Fn(&Reader) -> bool) -> usize {
        let chosen = self.readers.iter().filter(|entry| chosen(entry.value()));
        let told = chosen.filter(|entry| !entry.value().is_to_end.swap(true, Ordering::AcqRel)).count();
        if told > 0 {
            // After the flags: a worker that looks finds them.
            self.bells.lock().iter().for_each(|bell| bell.ring_for_the_chosen());
        }
        told
    }

    /// One more worker whose readers are woken by this bell.
    pub(super) fn hear(&self, bell: Arc<Bell>) {
        self.bells.lock().push(bell);
    }

    pub(super) fn ring_bells(&self) {
        self.bells.lock().iter().for_each(|bell| bell.ring());
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

    /// Why it is about to be dropped.
    pub(super) fn ends(&self, why: End) {
        self.reader.end.store(why as u8, Ordering::Relaxed);
    }

    pub(super) fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    pub(super) fn stands_at_tip(&self) {
        self.reader.place.store(AT_TIP, Ordering::Relaxed);
    }

    /// The reader stands where its channel had moved so far.
    pub(super) fn stands_at(&self, moved: i64) {
        self.reader.place.store(moved.min(AT_TIP - 1), Ordering::Relaxed);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // First: who sees that a stream has ended finds its place free.
        drop(self.place.take());
        if self.reader.is_own() {
            return;
        }
        self.reader.registry.readers.remove(&self.reader.id);
        metrics::gauge!(names::STREAMS_OPEN).decrement(1);
        let end = self.reader.end.load(Ordering::Relaxed);
        let why = End::ALL.into_iter().find(|why| *why as u8 == end).unwrap_or(End::Cut);
        metrics::counter!(names::STREAMS_CLOSED, "reason" => why.as_str()).increment(1);
    }
}
