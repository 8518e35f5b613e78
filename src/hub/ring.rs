//! The newest frames of one channel, and the one question that readers ask of them: what comes after my bookmark?
//!
//! Three answers, given under one lock, so the hand-over from the log to the ring has no state of its own and can leave
//! no gap:
//!
//! - [`After::Behind`]: the ring no longer has (or never had) what the reader wants; it is in the log, below the floor
//! - frames, with what the bookmark has passed already left out
//! - [`After::AtTip`] nothing more for now

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::delivery::Delivery;
use super::frame::{Body, Frame, Head};
use crate::log::Opened;
use crate::model::{Bookmark, Format, Offset, Partition, Place, Record, Timestamp};

/// A frame's number in its ring. Means nothing outside this process.
pub(super) type Seq = u64;

/// Frames that one answer brings at most.
pub const BATCH_FRAMES_MAX: usize = 32;

/// Frames of one ring at most, however small they are.
const FRAMES_MAX: usize = 65_536;

/// A place in a partition whose name is known from where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) next: Offset,
    pub(super) before: Option<Timestamp>,
}

/// One partition of the channel. Slots are only ever added.
#[derive(Debug)]
struct Slot {
    partition: Partition,
    /// Where the channel began to follow it.
    opened: Point,
    /// Where it began to, before the tail ever jumped: how far the partition has moved counts from here.
    base: Offset,
    /// Everything of it from here on (and below the tip) is in the ring.
    floor: Point,
    /// The next offset that the tail will bring.
    tip: Point,
}

/// What the ring answers where it has no frames to give.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Deliveries were put into the caller's list.
    Frames,
    Behind(Gap),
    AtTip,
}

/// What a reader wants and only the log has: one partition, from the first offset up to the second.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) partition: Partition,
    pub(super) from: Offset,
    pub(super) until: Offset,
    /// How far in time the reader stands in the partition that is next furthest behind: past it, that one's turn comes,
    /// so that a replay of several partitions stays roughly in the order of time.
    pub(super) turn: Option<Timestamp>,
}

#[derive(Debug, Default)]
pub(super) struct Ring {
    format: Format,
    slots: Vec<Slot>,
    frames: VecDeque<Arc<Frame>>,
    /// The number of the oldest frame kept.
    first: Seq,
    bytes: usize,
}

impl Ring {
    pub(super) fn new(format: Format) -> Self {
        Self { format, ..Self::default() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How long its oldest frame has been there.
    pub(super) fn age(&self) -> Duration {
        self.frames.front().map_or(Duration::ZERO, |oldest| oldest.arrived.elapsed())
    }

    /// The number that the next frame will get.
    pub(super) fn end(&self) -> Seq {
        self.first + self.frames.len() as u64
    }

    /// Follows one more partition from here. One that is followed already stays as it is where it goes on; where it does
    /// not, what the ring holds does not join what will come. Says whether the log has begun it anew (a topic deleted and
    /// made again): the readers' offsets mean other records then.
    pub(super) fn open(&mut self, opened: &Opened) -> bool {
        let point = Point { next: opened.next, before: opened.before };
        let Some(slot) = self.slot_of(&opened.partition) else {
            let partition = opened.partition.clone();
            self.slots.push(Slot { partition, opened: point, base: point.next, floor: point, tip: point });
            return false;
        };
        let stood_at = self.slots[slot].tip.next;
        if point.next != stood_at {
            self.reopen(slot, point);
        }
        point.next < stood_at
    }

    /// The tail jumped: what the ring holds of the partition does not join what will come. The frames go, and one number is
    /// left out, so that every reader asks the log: also one who has had all of them, and would take the end for its place.
    fn reopen(&mut self, slot: usize, point: Point) {
        while self.evict().is_some() {}
        self.first += 1;
        for slot in &mut self.slots {
            slot.floor = slot.tip;
        }
        let Slot { opened, floor, tip, .. } = &mut self.slots[slot];
        // Who has had nothing of it yet wants all of it, also what was jumped over; unless that is another log's now.
        if point.next < tip.next {
            *opened = point;
        }
        (*floor, *tip) = (point, point);
    }

    /// Takes a record in: a frame, or, without a body, only a move of the tip. Records that the ring has passed already
    /// are dropped.
    pub(super) fn push(&mut self, record: &Record, body: Option<&Body>) {
        let Some(slot) = self.slot_of(&record.partition) else { return };
        if record.offset < self.slots[slot].tip.next {
            return;
        }
        let tip = Point { next: record.offset.after(), before: Some(record.time) };
        let frame = body.map(|body| self.frame(slot, tip, record, body.in_format(self.format)));
        // Together, and nothing can fail in between: a tip without its frame would be an event lost.
        self.slots[slot].tip = tip;
        let Some(frame) = frame else { return };
        self.bytes += frame.bytes();
        self.frames.push_back(Arc::new(frame));
        if self.frames.len() > FRAMES_MAX {
            self.evict();
        }
    }

    /// The record's frame, for when the tip has moved here.
    fn frame(&self, slot: usize, tip: Point, record: &Record, body: Body) -> Frame {
        let tips = self.slots.iter().enumerate().map(|(at, other)| if at == slot { tip } else { other.tip });
        let places: Box<[Point]> = tips.collect();
        let head = Head::new(self.format, || self.bookmark_at(places.iter().copied()), &body);
        Frame::new(head, body, (slot, record.offset, record.time), places)
    }

    /// Drops the oldest frame and moves the floor up; says how many bytes that gave back.
    pub(super) fn evict(&mut self) -> Option<usize> {
        let frame = self.frames.pop_front()?;
        self.first += 1;
        self.slots[frame.slot].floor = Point { next: frame.offset.after(), before: Some(frame.time) };
        let bytes = frame.bytes();
        self.bytes -= bytes;
        Some(bytes)
    }

    /// Where a reader stands that has had everything.
    pub(super) fn tip(&self) -> Bookmark {
        self.bookmark_at(self.slots.iter().map(|slot| slot.tip))
    }

    /// The bookmark of a reader whose last frame was this one.
    pub(super) fn bookmark_of(&self, frame: &Frame) -> Bookmark {
        self.bookmark_at(frame.places.iter().copied())
    }

    /// How many offsets the tail has moved over since the ring began, in all partitions together.
    pub(super) fn moved(&self) -> i64 {
        self.moved_to(self.slots.iter().map(|slot| slot.tip))
    }

    /// The same for a reader at `own`: less, where it is behind.
    pub(super) fn moved_by(&self, own: &Bookmark) -> i64 {
        self.moved_to(self.slots.iter().map(|slot| slot.wanted_by(own)))
    }

    /// The same for a reader whose last frame was this one.
    pub(super) fn moved_at(&self, frame: &Frame) -> i64 {
        let later = self.slots.iter().skip(frame.places.len()).map(|slot| slot.opened);
        self.moved_to(frame.places.iter().copied().chain(later))
    }

    fn moved_to(&self, points: impl Iterator<Item = Point>) -> i64 {
        let moved = |(slot, point): (&Slot, Point)| point.next.0.saturating_sub(slot.base.0);
        self.slots.iter().zip(points).map(moved).fold(0, i64::saturating_add)
    }

    fn bookmark_at(&self, points: impl Iterator<Item = Point>) -> Bookmark {
        let places = self.slots.iter().zip(points);
        Bookmark::new(places.map(|(slot, Point { next, before })| Place {
            partition: slot.partition.clone(),
            next,
            before,
        }))
    }

    /// What comes after frame number `seq − 1`. `None` if that is no longer in the ring: ask by bookmark then.
    pub(super) fn after_seq(&self, seq: Seq, found: &mut Vec<Delivery>) -> Option<After> {
        let start = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        let frames = (seq..).zip(self.frames.iter().skip(start).take(BATCH_FRAMES_MAX));
        found.extend(frames.map(|(seq, frame)| Delivery::Shared { seq, frame: frame.clone() }));
        Some(if found.is_empty() { After::AtTip } else { After::Frames })
    }

    /// What comes after this bookmark. Frames that the bookmark has passed are left out; until it meets the shared one,
    /// a frame carries the bookmark's own id (two servers interleave partitions differently, and the shared id would move
    /// the reader backwards in one of them).
    pub(super) fn after(&self, own: &Bookmark, found: &mut Vec<Delivery>) -> After {
        let wanted: Vec<Point> = self.slots.iter().map(|slot| slot.wanted_by(own)).collect();
        if let Some(gap) = self.gap(&wanted) {
            return After::Behind(gap);
        }
        // Places only grow along the ring, so what the bookmark has passed whole is a prefix.
        let passed = self
            .frames
            .partition_point(|frame| frame.places.iter().zip(&wanted).all(|(place, wanted)| place.next <= wanted.next));
        let mut own = own.clone();
        let mut met = false;
        let frames = (self.first..).zip(&self.frames).skip(passed);
        let news = frames.filter(|(_, frame)| frame.offset >= wanted[frame.slot].next);
        for (seq, frame) in news.take(BATCH_FRAMES_MAX) {
            let partition = &self.slots[frame.slot].partition;
            own.advance(partition, frame.offset.after(), Some(frame.time));
            met = met || self.meets(&own, frame);
            found.push(match met {
                true => Delivery::Shared { seq, frame: frame.clone() },
                false => {
                    let place = (frame.offset, frame.time);
                    Delivery::own(self.format, &own, partition, place, frame.body.clone())
                }
            });
        }
        if found.is_empty() { After::AtTip } else { After::Frames }
    }

    /// The partition below its floor whose reader is furthest back in time.
    fn gap(&self, wanted: &[Point]) -> Option<Gap> {
        let behind = || self.slots.iter().zip(wanted).filter(|(slot, wanted)| wanted.next < slot.floor.next);
        let (slot, point) = behind().min_by_key(|(_, wanted)| wanted.before)?;
        let others = behind().filter(|(other, _)| other.partition != slot.partition);
        Some(Gap {
            partition: slot.partition.clone(),
            from: point.next,
            until: slot.floor.next,
            turn: others.filter_map(|(_, wanted)| wanted.before).min(),
        })
    }

    /// Moves the bookmark of a reader that has had every frame over the records behind them of which no frame was made.
    /// Never back: another server may have brought it further than this one is.
    pub(super) fn catch_up(&self, own: &mut Bookmark) {
        for Slot { partition, tip, .. } in &self.slots {
            if own.get(partition).is_none_or(|place| place.next < tip.next) {
                own.advance(partition, tip.next, tip.before);
            }
        }
    }

    /// The newest frame, if a reader at `own` stands right after it.
    pub(super) fn met_at_tip(&self, own: &Bookmark) -> Option<(Seq, Arc<Frame>)> {
        self.frames.back().filter(|frame| self.meets(own, frame)).map(|frame| (self.end(), frame.clone()))
    }

    /// Whether a reader at `own` stands exactly where a reader of this frame stands.
    pub(super) fn meets(&self, own: &Bookmark, frame: &Frame) -> bool {
        own.places().len() == frame.places.len()
            && self
                .slots
                .iter()
                .zip(&frame.places)
                .all(|(slot, place)| own.get(&slot.partition).is_some_and(|own| own.next == place.next))
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.slots.iter().map(|slot| &slot.partition)
    }

    /// If the ring can tell: the time of the record before this place, which lies between floor and tip. The outer
    /// `None` means that it cannot.
    pub(super) fn time_before(&self, partition: &Partition, at: Offset) -> Option<Option<Timestamp>> {
        let slot_at = self.slot_of(partition)?;
        let slot = &self.slots[slot_at];
        if at == slot.floor.next {
            return Some(slot.floor.before);
        }
        if at == slot.tip.next {
            return Some(slot.tip.before);
        }
        if at < slot.floor.next || at > slot.tip.next {
            return None;
        }
        let reached = |frame: &Arc<Frame>| frame.places.get(slot_at).is_some_and(|place| place.next >= at);
        let frame = self.frames.get(self.frames.partition_point(|frame| !reached(frame)))?;
        (frame.slot == slot_at && frame.offset.after() == at).then_some(Some(frame.time))
    }

    fn slot_of(&self, partition: &Partition) -> Option<usize> {
        self.slots.iter().position(|slot| slot.partition == *partition)
    }
}

impl Slot {
    /// Where a reader wants this partition from. A bookmark without it is older than the partition: it wants all of it.
    fn wanted_by(&self, own: &Bookmark) -> Point {
        own.get(&self.partition).map_or(self.opened, |place| Point { next: place.next, before: place.before })
    }
}
