//! A crowd of readers that check everything they get, each with its own ledger.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::event::{self, Stamp};
use crate::failure::Failure;
use crate::ledger::{Arrival, Ledger};
use crate::report::Report;
use crate::stream::{Ask, Flow, Stream};
use crate::target::Target;

/// Connections being opened at once: below any backlog.
const OPENING_MAX: usize = 64;
/// Readers of one source address: below the server's limit of streams per client.
const READERS_PER_ADDRESS: usize = 16;
/// Without progress for this long, what has not come is lost.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 15 });
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// For repeats that come after everything has come.
const REPEATS_WAIT: Duration = Duration::from_millis(300);

/// What all readers together have seen.
pub(crate) struct Crowd {
    run: u32,
    opened: AtomicUsize,
    refused: AtomicUsize,
    /// Events of this run, each once per reader.
    delivered: AtomicU64,
    bytes: AtomicU64,
    repeated: AtomicU64,
    disordered: AtomicU64,
    /// Streams that ended, by the server or by a fault.
    ended: AtomicUsize,
    why: Mutex<Option<String>>,
    /// Microseconds from the POST being sent to the event being here.
    latency: Mutex<Histogram<u64>>,
}

/// The readers' connections; dropping it closes them.
pub(crate) struct Readers {
    crowd: Arc<Crowd>,
    tasks: JoinSet<()>,
}

/// Counters at a moment.
#[derive(Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) delivered: u64,
    pub(crate) bytes: u64,
}

impl Readers {
    /// Opens this many readers at the live end.
    pub(crate) async fn live(target: &Target, count: usize) -> Result<Self, Failure> {
        Self::open(target, (0..count).map(|index| (target.ask(index), Ledger::default())).collect()).await
    }

    /// Opens readers, each with a ledger of what it had before. Returns when the head of every answer has come.
    pub(crate) async fn open(target: &Target, asks: Vec<(Ask, Ledger)>) -> Result<Self, Failure> {
        let readers = asks.len();
        let crowd = Arc::new(Crowd::new(target.run));
        let doors = Arc::new(Semaphore::new(OPENING_MAX));
        let mut tasks = JoinSet::new();
        for (ask, ledger) in asks {
            tasks.spawn(read(crowd.clone(), doors.clone(), ask, ledger));
        }
        let all = Self { crowd, tasks };
        while all.crowd.opened.load(Relaxed) < readers && all.crowd.refused.load(Relaxed) == 0 {
            sleep(LOOK_EVERY).await;
        }
        match all.crowd.refused.load(Relaxed) {
            0 => Ok(all),
            readers => Err(Failure::Readers { readers, why: all.why() }),
        }
    }

    pub(crate) fn count(&self) -> Count {
        Count { delivered: self.crowd.delivered.load(Relaxed), bytes: self.crowd.bytes.load(Relaxed) }
    }

    /// Waits until so many events have come, or nothing comes any more. Says whether they have.
    pub(crate) async fn wait_for(&self, delivered: u64) -> bool {
        let (mut last, mut moved) = (self.count().delivered, Instant::now());
        while last < delivered && moved.elapsed() < PATIENCE {
            sleep(LOOK_EVERY).await;
            let now = self.count().delivered;
            if now != last {
                (last, moved) = (now, Instant::now());
            }
        }
        last >= delivered
    }

    /// Microseconds from sent to here.
    pub(crate) fn latency(&self) -> Histogram<u64> {
        self.crowd.latency.lock().clone()
    }

    /// Counts what is wrong against what should have come; anything but zeros is a fault.
    pub(crate) async fn check(&self, expected: u64, report: &mut Report) {
        sleep(REPEATS_WAIT).await;
        let delivered = self.count().delivered;
        report.zero("lost", expected.saturating_sub(delivered));
        report.zero("unexpected", delivered.saturating_sub(expected));
        report.zero("repeated", self.crowd.repeated.load(Relaxed));
        report.zero("disordered", self.crowd.disordered.load(Relaxed));
        report.zero("streams_ended", self.crowd.ended.load(Relaxed) as u64);
        if self.crowd.ended.load(Relaxed) > 0 {
            report.fault(format!("a stream ended: {}", self.why()));
        }
    }

    /// Closes all connections and waits until they are closed here.
    pub(crate) async fn close(mut self) {
        self.tasks.shutdown().await;
    }

    fn why(&self) -> String {
        self.crowd.why.lock().clone().unwrap_or_default()
    }
}

impl Crowd {
    fn new(run: u32) -> Self {
        Self {
            run,
            opened: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            delivered: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            disordered: AtomicU64::new(0),
            ended: AtomicUsize::new(0),
            why: Mutex::new(None),
            latency: Mutex::new(histogram()),
        }
    }

    /// What one block says to one reader.
    fn enter(&self, ledger: &mut Ledger, block: &[u8]) {
        let Some(event) = crate::wire::Event::parse(block) else { return };
        let Some(stamp) = Stamp::find(event.data).filter(|stamp| stamp.run == self.run) else { return };
        match ledger.enter(stamp, event::partition(event.data).unwrap_or(0)) {
            Arrival::Fresh => {}
            Arrival::Disordered => _ = self.disordered.fetch_add(1, Relaxed),
            Arrival::Repeated => {
                self.repeated.fetch_add(1, Relaxed);
                return;
            }
        }
        self.delivered.fetch_add(1, Relaxed);
        self.bytes.fetch_add(block.len() as u64, Relaxed);
        self.latency.lock().saturating_record(event::now_us().saturating_sub(stamp.sent_us));
    }

    /// One more stream was refused or ended; the first reason is kept.
    fn over(&self, counter: &AtomicUsize, why: String) {
        self.why.lock().get_or_insert(why);
        counter.fetch_add(1, Relaxed);
    }
}

async fn read(crowd: Arc<Crowd>, doors: Arc<Semaphore>, ask: Ask, mut ledger: Ledger) {
    let opened = {
        let _door = doors.acquire().await;
        Stream::open(&ask).await
    };
    // Only the address is needed from here on: ten thousand requests are not kept.
    drop((doors, ask));
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(failure) => return crowd.over(&crowd.refused, failure.to_string()),
    };
    crowd.opened.fetch_add(1, Relaxed);
    loop {
        let next = stream.next(|block| {
            crowd.enter(&mut ledger, block);
            std::ops::ControlFlow::Continue(())
        });
        match next.await {
            Ok(Flow::Open | Flow::Left) => {}
            Ok(Flow::Ended) => return crowd.over(&crowd.ended, "the server ended it".to_owned()),
            Err(error) => return crowd.over(&crowd.ended, error.to_string()),
        }
    }
}

/// A loopback address for the reader of this number, so that limits per client are not met.
pub(crate) fn source(first: u32, index: usize) -> Ipv4Addr {
    const ADDRESSES: u32 = 250 * 250;
    let number = u32::try_from(index / READERS_PER_ADDRESS).unwrap_or(u32::MAX).wrapping_add(first) % ADDRESSES;
    let octet = |value: u32| u8::try_from(1 + value % 250).unwrap_or(1);
    Ipv4Addr::new(127, 0, octet(number / 250), octet(number))
}

/// Microseconds up to an hour, to three digits; what is longer counts as an hour.
pub(crate) fn histogram() -> Histogram<u64> {
    const HOUR_US: u64 = 3_600_000_000;
    Histogram::new_with_max(HOUR_US, 3).unwrap_or_else(|_| unreachable!("an hour to three digits is allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_readers_share_an_address() {
        assert_eq!(source(0, 0), Ipv4Addr::new(127, 0, 1, 1));
        assert_eq!(source(0, 15), source(0, 0));
        assert_eq!(source(0, 16), Ipv4Addr::new(127, 0, 1, 2));
        assert_eq!(source(250 * 250 - 1, 16), source(0, 0));
    }
}
