//! One wake per worker, not per reader: the tail rings each worker's bell, and each worker wakes its own readers,
//! without a lock or a cross-thread wake for each of them. The same round brings heartbeats and the end, and looks after
//! readers whose sockets are full.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use metrics::{Counter, Histogram};
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::channel::Channel;
use super::delivery::Delivery;
use super::registry::{End, Reader};
use super::ring::Seq;
use crate::limits::Limits;
use crate::metrics as names;
use crate::model::{CANARY, StreamSet};
use crate::shutdown::{Stage, Stop};

/// How exactly heartbeats are kept. One timer per worker, not one per reader.
const TICK: Duration = Duration::from_secs(1);
/// When streams end, a worker ends some of its readers this often, until all have ended after the spread.
const END_TICK: Duration = Duration::from_millis(50);

/// Of so many writes to live readers one has its delay measured.
const MEASURED_EVERY: u32 = 16;

/// What the tail rings when channels have moved. Rings that come while the worker is busy are one.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Notify,
    /// Some readers are to end whom an operator has chosen: the worker looks which of them are its own.
    for_the_chosen: AtomicBool,
}

impl Bell {
    pub(super) fn ring(&self) {
        self.rung.notify_one();
    }

    pub(super) fn ring_for_the_chosen(&self) {
        self.for_the_chosen.store(true, Ordering::Release);
        self.ring();
    }
}

/// Wakes the readers of one worker thread, and lives on it.
pub struct Worker {
    bell: Arc<Bell>,
    stop: Stop,
    limits: Limits,
    heartbeat_ticks: u32,
    end_spread: Duration,
    channels: RefCell<HashMap<*const Channel, Rc<Local>>>,
    /// Ticks since the worker began.
    now: Cell<u32>,
    /// What a poll finds: one list for all readers of the worker, as only one of them runs at a time.
    found: RefCell<Vec<Delivery>>,
    /// Writes to live readers.
    live_writes: Cell<u32>,
    delays: Histogram,
}

/// One channel's readers on this worker.
struct Local {
    /// Of as long as there are readers.
    worker: Rc<Worker>,
    channel: Arc<Channel>,
    seen: Cell<Seq>,
    epoch: Cell<u16>,
    readers: RefCell<Slab<Waiting>>,
    sent: Sent,
}

/// What a channel's readers on this worker were sent. Added up here, where nobody else counts, and told at every tick.
struct Sent {
    events: Cell<u64>,
    bytes: Cell<u64>,
    events_told: Counter,
    bytes_told: Counter,
}

/// One reader's part of the round.
struct Waiting {
    /// Touched only where an operator has chosen somebody: it stands elsewhere in memory.
    reader: Arc<Reader>,
    waker: Waker,
    /// Whether it waits, and for what.
    wants: Wants,
    /// The tick at which something was last sent to it, or at which its socket was found full.
    sent: u32,
    due: Due,
    /// It had everything, and was woken because its channel has moved.
    is_fresh: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    /// It runs.
    Nothing,
    /// It waits for its socket, which is full.
    Socket,
    /// It waits for the log, or for its pace: heartbeats only.
    Heartbeat,
    /// It has had everything.
    Frames,
}

/// What the round has for a reader besides frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Heartbeat,
    /// Its socket has taken nothing for as long as a slow reader may.
    Look,
    /// End now, after the last whole event.
    End(End),
}

impl Worker {
    pub(super) fn new(
        bell: Arc<Bell>,
        stop: Stop,
        limits: Limits,
        heartbeat: Duration,
        end_spread: Duration,
    ) -> Rc<Self> {
        let heartbeat_ticks = u32::try_from(heartbeat.as_secs()).unwrap_or(u32::MAX).max(1);
        Rc::new(Self {
            bell,
            stop,
            limits,
            heartbeat_ticks,
            end_spread,
            channels: RefCell::default(),
            now: Cell::new(0),
            found: RefCell::default(),
            live_writes: Cell::new(0),
            delays: metrics::histogram!(names::DELIVERY_SECONDS),
        })
    }

    /// Wakes readers until the stop is over; ends them, spread over time, when streams are to end.
    pub async fn run(self: Rc<Self>) {
        let mut stop = self.stop.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = self.bell.rung.notified() => self.wake_moved(),
                _ = tick.tick() => self.tick(),
                () = stop.reached(Stage::EndStreams) => break,
            }
        }
        self.end_readers(stop).await;
    }

    /// A reader's part of the round. Dropped with the reader.
    pub(super) fn enter(self: &Rc<Self>, channel: &Arc<Channel>, reader: Arc<Reader>) -> Turn {
        let key = Arc::as_ptr(channel);
        let mut channels = self.channels.borrow_mut();
        let local = channels.entry(key).or_insert_with(|| {
            let seen = Cell::new(channel.end());
            let epoch = Cell::new(channel.epoch());
            let sent = Sent::of(&channel.set);
            let (worker, channel, readers) = (self.clone(), channel.clone(), RefCell::default());
            Rc::new(Local { worker, channel, seen, epoch, readers, sent })
        });
        // After the epoch was noted: whoever closes the channel now is seen by the one or the other.
        let due = match reader.is_to_end() {
            true => Due::End(End::Operator),
            false if channel.is_closed() => Due::End(End::Changed),
            false => Due::Nothing,
        };
        let waiting = Waiting {
            reader,
            waker: Waker::noop().clone(),
            wants: Wants::Nothing,
            sent: self.now.get(),
            due,
            is_fresh: false,
        };
        let key = local.readers.borrow_mut().insert(waiting);
        Turn { local: local.clone(), key }
    }

    fn measure(&self, deliveries: &[Delivery]) {
        let writes = self.live_writes.get();
        self.live_writes.set(writes.wrapping_add(1));
        if writes.is_multiple_of(MEASURED_EVERY)
            && let Some(age) = deliveries.first().and_then(Delivery::age)
        {
            self.delays.record(age);
        }
    }

    fn wake_moved(&self) {
        if self.bell.for_the_chosen.swap(false, Ordering::AcqRel) {
            self.channels.borrow().values().for_each(|local| local.end_the_chosen());
        }
        for local in self.channels.borrow().values() {
            // Offsets mean other records now: readers come back with their ids, which are then resumed by time. Or the
            // streams have other topics: they come back to those.
            let epoch = local.channel.epoch();
            if local.epoch.replace(epoch) != epoch {
                local.end_one_in(1, End::Changed);
            }
            let end = local.channel.end();
            if local.seen.replace(end) == end {
                continue;
            }
            for (_, reader) in &mut *local.readers.borrow_mut() {
                if reader.wants == Wants::Frames {
                    reader.is_fresh = true;
                    reader.wake();
                }
            }
        }
    }

    fn tick(&self) {
        let now = self.now.get().wrapping_add(1);
        self.now.set(now);
        let slow_after = self.limits.options().slow_after;
        // More ticks than that: the first may have been a part of one.
        let slow_ticks = u32::try_from(slow_after.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u32::MAX);
        for local in self.channels.borrow().values() {
            local.sent.tell();
            for (_, reader) in &mut *local.readers.borrow_mut() {
                let since = now.wrapping_sub(reader.sent);
                match (reader.wants, reader.due) {
                    (_, Due::End(_)) | (Wants::Nothing, _) => {}
                    (Wants::Heartbeat | Wants::Frames, _) if since >= self.heartbeat_ticks => {
                        reader.due = Due::Heartbeat;
                        reader.wake();
                    }
                    // It goes on waiting for its socket: whether it is slow is for the reader to say.
                    (Wants::Socket, _) if slow_ticks > 0 && since > slow_ticks => {
                        reader.due = Due::Look;
                        reader.waker.wake_by_ref();
                    }
                    _ => {}
                }
            }
        }
    }

    /// Ends some of the readers at every tick; all that are left where the stop is in a hurry. New ones end at once.
    async fn end_readers(&self, mut stop: Stop) {
        let ticks = (self.end_spread.as_millis() / END_TICK.as_millis()).max(1);
        let mut tick = tokio::time::interval(END_TICK);
        for left in (1..=ticks).rev() {
            tokio::select! {
                _ = tick.tick() => self.end_one_in(left),
                () = stop.reached(Stage::EndAtOnce) => break,
            }
        }
        loop {
            self.end_one_in(1);
            tick.tick().await;
        }
    }

    fn end_one_in(&self, ticks: u128) {
        let ticks = u64::try_from(ticks).unwrap_or(u64::MAX);
        self.channels.borrow().values().for_each(|local| local.end_one_in(ticks, End::Stop));
    }
}

impl Local {
    /// Ends each reader with the chance of one in so many ticks that are left: then all ticks are alike to it, however
    /// few readers there are on however many workers. A share of their number would be none, or would end few too early.
    fn end_one_in(&self, ticks: u64, why: End) {
        for (_, reader) in &mut *self.readers.borrow_mut() {
            if !reader.is_ending() && fastrand::u64(..ticks) == 0 {
                reader.due = Due::End(why);
                reader.wake();
            }
        }
    }

    fn end_the_chosen(&self) {
        // Also those that end for another reason, and are stuck.
        for (_, reader) in &mut *self.readers.borrow_mut() {
            if reader.reader.is_to_end() {
                reader.due = Due::End(End::Operator);
                reader.wake();
            }
        }
    }
}

impl Sent {
    fn of(set: &StreamSet) -> Self {
        let stream = match set.streams() {
            // Canaries are nobody's events.
            [stream] if stream.as_str() == CANARY => None,
            [stream] => Some(stream.as_str().to_owned()),
            _ => Some(names::SEVERAL_STREAMS.to_owned()),
        };
        let counter = |name| match &stream {
            Some(stream) => metrics::counter!(name, "stream" => stream.clone()),
            None => metrics::Counter::noop(),
        };
        Self {
            events: Cell::new(0),
            bytes: Cell::new(0),
            events_told: counter(names::EVENTS_SENT),
            bytes_told: counter(names::EVENTS_SENT_BYTES),
        }
    }

    fn tell(&self) {
        self.events_told.increment(self.events.take());
        self.bytes_told.increment(self.bytes.take());
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.tell();
    }
}

impl Waiting {
    fn is_ending(&self) -> bool {
        matches!(self.due, Due::End(_))
    }

    fn wake(&mut self) {
        self.wants = Wants::Nothing;
        self.waker.wake_by_ref();
    }
}

/// A reader's part of its worker's round.
pub struct Turn {
    local: Rc<Local>,
    key: usize,
}

impl Turn {
    /// Whether the stream is to end now, and why.
    pub fn is_over(&self) -> Option<End> {
        self.with(|reader, _| match reader.due {
            Due::End(why) => Some(why),
            _ => None,
        })
    }

    /// The stream is to end now.
    pub(super) fn end(&self, why: End) {
        self.with(|reader, _| reader.due = Due::End(why));
    }

    /// Whether its socket has taken nothing for as long as a slow reader may. Asking takes it, and the time begins anew.
    pub fn take_standstill(&self) -> bool {
        self.with(|reader, now| {
            let due = reader.due == Due::Look;
            if due {
                (reader.due, reader.sent) = (Due::Nothing, now);
            }
            due
        })
    }

    /// Whether a heartbeat is due. Asking takes it.
    pub fn take_heartbeat(&self) -> bool {
        self.with(|reader, _| {
            let due = reader.due == Due::Heartbeat;
            if due {
                reader.due = Due::Nothing;
            }
            due
        })
    }

    /// Notes that the reader was sent something, so that its next heartbeat counts from now.
    pub fn sent(&self, bytes: usize) {
        let sent = &self.local.sent.bytes;
        sent.set(sent.get() + bytes as u64);
        self.with(|reader, now| {
            reader.sent = now;
            if !reader.is_ending() {
                reader.due = Due::Nothing;
            }
        });
    }

    /// Counts these events as the reader's. They have just been written; of some that came live, that says how long it took.
    pub fn accepted(&self, deliveries: &[Delivery]) {
        let sent = &self.local.sent.events;
        sent.set(sent.get() + deliveries.len() as u64);
        // What a reader gets that was not at the tip is late by what it missed itself.
        if self.with(|reader, _| std::mem::take(&mut reader.is_fresh)) {
            self.local.worker.measure(deliveries);
        }
    }

    /// Wakes the reader when its channel moves (if it waits for frames) or something else is due.
    pub(super) fn wait(&self, context: &Context<'_>, for_frames: bool) {
        self.with(|reader, _| {
            reader.wants = if for_frames { Wants::Frames } else { Wants::Heartbeat };
            reader.set_waker(context);
        });
    }

    /// Wakes the reader when something else is due.
    pub fn wait_for_heartbeats(&self, context: &Context<'_>) {
        self.wait(context, false);
    }

    /// Wakes the reader at the end even while it waits for its socket, and when that has stood still for too long.
    pub fn wait_for_the_socket(&self, context: &Context<'_>) {
        self.with(|reader, now| {
            if reader.wants != Wants::Socket {
                (reader.wants, reader.sent) = (Wants::Socket, now);
            }
            reader.set_waker(context);
        });
    }

    /// The worker's list for what a poll finds.
    pub fn take_found(&self) -> Vec<Delivery> {
        self.local.worker.found.take()
    }

    /// Gives the list back, emptied.
    pub fn give_found(&self, mut found: Vec<Delivery>) {
        found.clear();
        self.local.worker.found.replace(found);
    }

    fn with<T>(&self, change: impl FnOnce(&mut Waiting, u32) -> T) -> T {
        let mut readers = self.local.readers.borrow_mut();
        let reader = readers.get_mut(self.key).expect("a turn lives as long as its entry");
        change(reader, self.local.worker.now.get())
    }
}

impl Waiting {
    fn set_waker(&mut self, context: &Context<'_>) {
        if !self.waker.will_wake(context.waker()) {
            self.waker = context.waker().clone();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Dropped after the borrow: a waker may own what borrows the list again.
        let gone = self.local.readers.borrow_mut().try_remove(self.key);
        drop(gone);
        if self.local.readers.borrow().is_empty() {
            self.local.worker.channels.borrow_mut().remove(&Arc::as_ptr(&self.local.channel));
        }
    }
}
