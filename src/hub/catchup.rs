//! Blocks of records read from the log for readers behind the ring, encoded once and shared by all of them: a thousand
//! readers that return from nearly the same place cost about one read of the gap.

use std::collections::BTreeMap;
use std::future::ready;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::frame::Body;
use crate::limits::{Turn, Turns};
use crate::log::{Log, ReadError};
use crate::metrics as names;
use crate::model::{CANARY, ClientKey, Offset, Partition, Timestamp};

/// Blocks begin at multiples of this, so that readers from nearly the same place ask for the same block.
const BLOCK_OFFSETS: i64 = 512;
/// Bytes of one block, about. A block cut short by it is followed by one that begins where it ends.
const BLOCK_BYTES: usize = 1 << 20;
/// Blocks kept, in bytes and in number. The least recently used ones go first.
const CACHE_BYTES_MAX: usize = 64 << 20;
const CACHE_BLOCKS_MAX: usize = 4096;
/// A block that nobody asked for during this time is given back.
const IDLE_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) offset: Offset,
    pub(super) time: Timestamp,
    /// None: not a JSON object, skipped.
    pub(super) body: Option<Body>,
}

/// The records of one partition from `start` up to `next`.
#[derive(Debug)]
pub(super) struct Block {
    start: Offset,
    pub(super) next: Offset,
    entries: Vec<Entry>,
    bytes: usize,
}

impl Block {
    pub(super) fn entries_from(&self, from: Offset) -> &[Entry] {
        &self.entries[self.entries.partition_point(|entry| entry.offset < from)..]
    }

    fn covers(&self, offset: Offset) -> bool {
        self.start <= offset && offset < self.next
    }
}

type Loading = Shared<BoxFuture<'static, Result<Arc<Block>, ReadError>>>;

enum Slot {
    Loading(Loading),
    Ready { block: Arc<Block>, used: Instant },
}

#[derive(Default)]
struct Blocks {
    by_start: BTreeMap<(Partition, Offset), Slot>,
    bytes: usize,
}

pub(super) struct CatchUp {
    log: Arc<dyn Log>,
    engine: Handle,
    blocks: Mutex<Blocks>,
    /// Reads of the log at once, in all and of one client. Others wait their turn, with heartbeats.
    turns: Turns,
}

impl CatchUp {
    pub(super) fn new(log: Arc<dyn Log>, turns: Turns, engine: Handle) -> Arc<Self> {
        Arc::new(Self { log, engine, blocks: Mutex::default(), turns })
    }

    /// The block that covers this offset, if it is at hand.
    pub(super) fn cached(&self, partition: &Partition, from: Offset) -> Option<Arc<Block>> {
        match self.blocks.lock().at_or_before(partition, from) {
            Some((_, Slot::Ready { block, used })) if block.covers(from) => {
                *used = Instant::now();
                Some(block.clone())
            }
            _ => None,
        }
    }

    /// The block that covers this offset, or, where the partition has nothing there, an empty one.
    pub(super) async fn block(
        self: &Arc<Self>,
        client: &ClientKey,
        partition: &Partition,
        from: Offset,
    ) -> Result<Arc<Block>, ReadError> {
        loop {
            if let Some(block) = self.cached(partition, from) {
                return Ok(block);
            }
            let under_way = self.blocks.lock().loading(partition, from);
            let (start, loading) = match under_way {
                Some(joined) => joined,
                None => self.in_turn(client, partition, from).await?,
            };
            let block = match loading.await {
                // Of another reader's place, in a read that this one joined: its own is still there.
                Err(ReadError::Gone { first }) if first <= from => continue,
                read => read?,
            };
            if from < block.start {
                return Err(ReadError::Gone { first: block.start });
            }
            // Cut short before `from`: what follows it is another block, unless the partition ends here.
            if block.covers(from) || block.next <= start {
                return Ok(block);
            }
        }
    }

    /// The time of the newest record below this offset.
    pub(super) async fn time_before(
        self: &Arc<Self>,
        client: &ClientKey,
        partition: &Partition,
        at: Offset,
    ) -> Result<Option<Timestamp>, ReadError> {
        if at.0 <= 0 {
            return Ok(None);
        }
        // Most often the record right before it, in the block that the reader wants next anyway.
        match self.block(client, partition, Offset(at.0 - 1)).await {
            Ok(block) => match block.entries.iter().rev().find(|entry| entry.offset < at) {
                Some(entry) => Ok(Some(entry.time)),
                None => Ok(self.log.before(partition, at).await?.map(|(_, time)| time)),
            },
            Err(ReadError::Gone { .. }) => Ok(None),
            Err(unavailable) => Err(unavailable),
        }
    }

    /// The partition's offsets mean other records from now on.
    pub(super) fn forget(&self, partition: &Partition) {
        let mut blocks = self.blocks.lock();
        let keys: Vec<_> = blocks.by_start.keys().filter(|(of, _)| of == partition).cloned().collect();
        keys.iter().for_each(|key| blocks.remove(key));
    }

    /// Gives back the blocks that nobody has asked for in a while.
    pub(super) fn sweep(&self) {
        let mut blocks = self.blocks.lock();
        let idle = |slot: &Slot| matches!(slot, Slot::Ready { used, .. } if used.elapsed() > IDLE_MAX);
        let gone: Vec<_> = blocks.by_start.iter().filter(|(_, slot)| idle(slot)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            blocks.remove(&key);
        }
    }

    /// Waits for the client's turn, and only then marks the block as loading: who joins a read waits for that read, and not
    /// for another's turn. Not in the reader's own task: it may wait for its socket when its turn comes, and would keep
    /// the turn from others.
    async fn in_turn(
        self: &Arc<Self>,
        client: &ClientKey,
        partition: &Partition,
        from: Offset,
    ) -> Result<(Offset, Loading), ReadError> {
        let (this, client, partition) = (self.clone(), client.clone(), partition.clone());
        let begun = self.engine.spawn(async move {
            let waits = Waits::begin();
            let turn = this.turns.take(&client).await;
            drop(waits);
            this.load(&partition, from, turn)
        });
        // Who leaves gives its place in the line up.
        let _given_up = GivenUp(begun.abort_handle());
        begun.await.map_err(|e| ReadError::Unavailable(e.to_string()))
    }

    /// The read that will bring the block: one that has brought it, the one under way, or a new one in this turn.
    fn load(self: &Arc<Self>, partition: &Partition, from: Offset, turn: Turn) -> (Offset, Loading) {
        let mut blocks = self.blocks.lock();
        if let Some(joined) = blocks.loading(partition, from) {
            return joined;
        }
        let aligned = aligned(from);
        let start = match blocks.at_or_before(partition, from) {
            Some((start, Slot::Ready { block, .. })) if block.covers(from) => {
                return (start, ready(Ok(block.clone())).boxed().shared());
            }
            Some((_, Slot::Ready { block, .. })) => aligned.max(block.next.min(from)),
            _ => aligned,
        };
        let end = Offset(aligned.0.saturating_add(BLOCK_OFFSETS));
        let this = self.clone();
        let key = (partition.clone(), start);
        // A task of its own, so that it ends (and gives its turn back) also when the readers who asked have left.
        let read = self.engine.spawn(async move {
            let _turn = turn;
            this.read(key, from, end).await
        });
        let loading =
            read.map(|read| read.unwrap_or_else(|e| Err(ReadError::Unavailable(e.to_string())))).boxed().shared();
        blocks.by_start.insert((partition.clone(), start), Slot::Loading(loading.clone()));
        (start, loading)
    }

    async fn read(&self, key: (Partition, Offset), from: Offset, end: Offset) -> Result<Arc<Block>, ReadError> {
        // A read that panics leaves its place too: else whoever wants these records would wait for it for ever.
        let read = AssertUnwindSafe(self.read_log(&key, from, end)).catch_unwind().await;
        let read =
            read.unwrap_or_else(|_| Err(ReadError::Unavailable("the read has failed: see the server's log".into())));
        let mut blocks = self.blocks.lock();
        blocks.remove(&key);
        let block = Arc::new(read?);
        if block.next > block.start {
            blocks.insert(key, block.clone());
        }
        Ok(block)
    }

    async fn read_log(
        &self,
        (partition, start): &(Partition, Offset),
        from: Offset,
        end: Offset,
    ) -> Result<Block, ReadError> {
        let mut start = *start;
        let began = Instant::now();
        let mut read = self.log.read(partition, start..end, BLOCK_BYTES).await;
        // The block begins before what is kept, but the reader's place does not.
        if let Err(ReadError::Gone { first }) = read
            && first <= from
        {
            start = first;
            read = self.log.read(partition, start..end, BLOCK_BYTES).await;
        }
        let read = read?;
        let bytes = read.records.iter().map(|record| record.bytes()).sum();
        // Those of the canaries are nobody's traffic.
        if partition.topic.as_str() != CANARY {
            metrics::histogram!(names::CATCHUP_READ_SECONDS).record(began.elapsed());
            metrics::counter!(names::CATCHUP_READS).increment(1);
            metrics::counter!(names::CATCHUP_READ_BYTES).increment(bytes as u64);
        }
        let entries = read.records.iter().map(|record| Entry {
            offset: record.offset,
            time: record.time,
            body: Body::encode(record),
        });
        Ok(Block { start, next: read.next, entries: entries.collect(), bytes })
    }
}

/// One who waits for a turn, counted until then, or until it is given up.
struct Waits(metrics::Gauge);

impl Waits {
    fn begin() -> Self {
        let waiting = metrics::gauge!(names::CATCHUP_READS_WAITING);
        waiting.increment(1);
        Self(waiting)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// Ends a task when dropped.
struct GivenUp(AbortHandle);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where the block begins that this offset lies in, if none is cut short.
fn aligned(offset: Offset) -> Offset {
    Offset(offset.0 - offset.0.rem_euclid(BLOCK_OFFSETS))
}

impl Blocks {
    /// The read under way that will bring the block of this offset, and where that begins.
    fn loading(&mut self, partition: &Partition, from: Offset) -> Option<(Offset, Loading)> {
        match self.at_or_before(partition, from)? {
            (start, Slot::Loading(loading)) if start >= aligned(from) => Some((start, loading.clone())),
            _ => None,
        }
    }

    /// The last slot of the partition that begins at or before this offset.
    fn at_or_before(&mut self, partition: &Partition, offset: Offset) -> Option<(Offset, &mut Slot)> {
        let first = (partition.clone(), Offset(i64::MIN));
        let last = (partition.clone(), offset);
        self.by_start.range_mut(first..=last).next_back().map(|((_, start), slot)| (*start, slot))
    }

    fn insert(&mut self, key: (Partition, Offset), block: Arc<Block>) {
        self.bytes += block.bytes;
        self.by_start.insert(key, Slot::Ready { block, used: Instant::now() });
        while self.bytes > CACHE_BYTES_MAX || self.by_start.len() > CACHE_BLOCKS_MAX {
            let used = |slot: &Slot| match slot {
                Slot::Ready { used, .. } => Some(*used),
                Slot::Loading(_) => None,
            };
            let oldest = self.by_start.iter().filter_map(|(key, slot)| Some((used(slot)?, key))).min();
            let Some((_, key)) = oldest else { break };
            let key = key.clone();
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &(Partition, Offset)) {
        if let Some(Slot::Ready { block, .. }) = self.by_start.remove(key) {
            self.bytes -= block.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn who_waits_for_a_turn_is_counted_until_it_is_had_or_given_up() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let (one, two) = metrics::with_local_recorder(&recorder, || (Waits::begin(), Waits::begin()));
        let told = |count: u32| {
            let text = recorder.handle().render();
            assert!(text.contains(&format!("{} {count}\n", names::CATCHUP_READS_WAITING)), "{text}");
        };
        told(2);
        drop(one);
        told(1);
        drop(two);
        told(0);
    }
}
