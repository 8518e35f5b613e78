//! One stream set's live frames. All readers of the set share it.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::frame::Body;
use super::ring::{Ring, Seq};
use crate::log::Opened;
use crate::model::{Record, StreamSet};

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) set: StreamSet,
    ring: Mutex<Ring>,
    /// The ring's end, so that workers see without a lock which channels have moved.
    end: AtomicU64,
    /// How often the log has begun a partition anew under the channel's readers, or the channel was closed. Short, as
    /// every reader keeps the one that its place is of; where it wraps, those that follow each other differ all the same.
    epoch: AtomicU16,
    /// Nothing will come any more: its set is no longer what the streams say.
    closed: AtomicBool,
    /// Until then its topics may have partitions that the tail has yet to open, also such as have records already.
    settled_at: Option<Instant>,
}

impl Channel {
    /// A channel that begins where the tail stands.
    pub(super) fn new(set: StreamSet, partitions: impl Iterator<Item = Opened>, settled_at: Option<Instant>) -> Self {
        let mut ring = Ring::new(set.view().format);
        partitions.for_each(|opened| _ = ring.open(&opened));
        let (end, epoch, closed) = (AtomicU64::new(0), AtomicU16::new(0), AtomicBool::new(false));
        Self { set, ring: Mutex::new(ring), end, epoch, closed, settled_at }
    }

    /// Says how many bytes the ring has given back: what does not join what will come is dropped.
    pub(super) fn open(&self, opened: &Opened) -> usize {
        let mut ring = self.ring.lock();
        let before = ring.bytes();
        if ring.open(opened) {
            self.epoch.fetch_add(1, Ordering::Release);
        }
        self.end.store(ring.end(), Ordering::Release);
        before - ring.bytes()
    }

    /// Says how many bytes the ring has grown by.
    pub(super) fn push(&self, record: &Record, body: Option<&Body>, bytes_max: usize) -> isize {
        let body = body.filter(|body| body.is_shown(self.set.view()));
        let mut ring = self.ring.lock();
        let before = ring.bytes();
        ring.push(record, body);
        while ring.bytes() > bytes_max && ring.evict().is_some() {}
        self.end.store(ring.end(), Ordering::Release);
        ring.bytes().wrapping_sub(before).cast_signed()
    }

    /// Gives back at least this much, or all.
    pub(super) fn shrink(&self, bytes: usize) -> usize {
        let mut ring = self.ring.lock();
        let mut given_back = 0;
        while given_back < bytes {
            let Some(more) = ring.evict() else { break };
            given_back += more;
        }
        given_back
    }

    pub(super) fn end(&self) -> Seq {
        self.end.load(Ordering::Acquire)
    }

    pub(super) fn epoch(&self) -> u16 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Ends its readers, at the next ring of their workers' bells, and those that come later.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // After it: a reader that came too early to see the one is there to be found by the other.
        self.epoch.fetch_add(1, Ordering::Release);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether the log may have what the ring does not know of: a topic followed anew is opened at its first record, and
    /// that is not where readers start.
    pub(super) fn may_lack_a_topic(&self) -> bool {
        let settling = self.settled_at.is_some_and(|at| Instant::now() < at);
        settling && {
            let ring = self.ring.lock();
            !self.set.topics().iter().all(|topic| ring.partitions().any(|partition| partition.topic == *topic))
        }
    }

    /// Nothing where the log has begun a partition anew since then: a place of that time is not the ring's.
    pub(super) fn with_ring_of<T>(&self, epoch: u16, ask: impl FnOnce(&Ring) -> T) -> Option<T> {
        let ring = self.ring.lock();
        // Who begins a partition anew holds the ring.
        (self.epoch() == epoch).then(|| ask(&ring))
    }

    pub(super) fn with_ring<T>(&self, ask: impl FnOnce(&Ring) -> T) -> T {
        ask(&self.ring.lock())
    }
}
