//! One reader's bookmark, and what comes after it.
//!
//! Always the same question to the ring. `Behind` is answered from the log, up to the floor, and asked again; a reader
//! that fell off the ring while it was slow is `Behind` too. So there is one loop and no hand-over.

use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::catchup::Block;
use super::channel::Channel;
use super::delivery::Delivery;
use super::frame::{Frame, id_of};
use super::place::{ResolveError, Resolved};
use super::registry::{End, Entry};
use super::ring::{After, BATCH_FRAMES_MAX, Gap, Ring, Seq};
use super::wake::{Turn, Worker};
use super::{Shared, SubscribeError};
use crate::log::ReadError;
use crate::model::{Bookmark, ClientKey, Place, View};
#[cfg(test)]
use crate::model::{Offset, Partition};

/// How long a reader waits before it asks a log again that could not be read.
const RETRY_READ_AFTER: Duration = Duration::from_secs(1);

/// One reader. Its bookmark moves only with [`Subscription::accept`]: what was not accepted is given again.
pub struct Subscription {
    shared: Arc<Shared>,
    channel: Arc<Channel>,
    state: State,
    entry: Entry,
    told: Told,
    /// The channel's when the place began to be looked for: offsets that are known since then mean its records.
    epoch: u16,
    said: Said,
}

/// Where operators believe that the reader stands. Said again only when it is no longer true, so that a live reader with a
/// socket that takes everything says it once: it stands elsewhere in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    /// Wherever the channel moves.
    AtTip,
    /// At its bookmark.
    Here,
    /// At a bookmark that has moved on since.
    Before,
}

/// What the reader knows of its place: a digest of the newest position, or that an event has carried one. In four bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Told(u32);

impl Told {
    const NOTHING: Self = Self(0);
    const EVENT: Self = Self(1);

    fn position(digest: u32) -> Self {
        Self(digest.max(2))
    }
}

type Reading = Pin<Box<dyn Future<Output = Result<Arc<Block>, ReadError>> + Send>>;

enum State {
    /// The place is being asked of the log.
    Resolving(Resolving),
    /// The reader's place is its own: it has not met the channel's yet, or is behind the ring.
    Own(Box<Bookmark>),
    /// The same, and a block of the log is under way.
    Behind(Box<(Bookmark, Gap, Reading)>),
    /// The reader stands where the channel stood after this frame.
    Shared { next: Seq, last: Arc<Frame> },
}

/// What a poll brings.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Deliveries were put into the list.
    Frames,
    /// The place is known now, and differs from what was asked: the text of a comment.
    Notice(Box<str>),
    /// The reader has had everything; its worker will wake it.
    AtTip,
    /// Its place is no longer the channel's: the turn is over.
    Over,
}

impl Subscription {
    pub(super) fn resolved(
        shared: Arc<Shared>,
        (channel, epoch): (Arc<Channel>, u16),
        bookmark: Bookmark,
        entry: Entry,
    ) -> Self {
        let state = State::Own(Box::new(bookmark));
        Self { shared, channel, state, entry, told: Told::NOTHING, epoch, said: Said::AtTip }
    }

    pub(super) fn resolving(
        shared: Arc<Shared>,
        (channel, epoch): (Arc<Channel>, u16),
        resolved: JoinHandle<Result<Resolved, ResolveError>>,
        entry: Entry,
    ) -> Self {
        let state = State::Resolving(Resolving(resolved));
        Self { shared, channel, state, entry, told: Told::NOTHING, epoch, said: Said::AtTip }
    }

    /// Waits, at most this long, until the place is known. Says what was asked and what is given, where they differ: for
    /// the header `Sluice-Notice`; ASCII, one line. A place that is resolved later tells it in the stream alone.
    pub async fn settle(&mut self, at_most: Duration) -> Result<Option<Box<str>>, SubscribeError> {
        let State::Resolving(resolving) = &mut self.state else { return Ok(None) };
        match tokio::time::timeout(at_most, &mut resolving.0).await {
            Ok(Ok(Ok(resolved))) => self.settled(resolved),
            Ok(Ok(Err(ResolveError::ForeignId))) => Err(SubscribeError::ForeignId),
            Ok(failed) => Ok(self.resolved_late(failed)),
            Err(_) => Ok(None),
        }
    }

    fn settled(&mut self, resolved: Resolved) -> Result<Option<Box<str>>, SubscribeError> {
        if !resolved.bookmark.has_an_id() {
            return Err(SubscribeError::TooManyPartitions(resolved.bookmark.places().len()));
        }
        self.state = State::Own(Box::new(resolved.bookmark));
        Ok(resolved.notice.map(String::into_boxed_str))
    }

    /// The reader's part of its worker's round.
    pub fn enter(&self, worker: &Rc<Worker>) -> Turn {
        worker.enter(&self.channel, self.entry.reader().clone())
    }

    /// What comes after the bookmark. Waits only for the log; at the tip it says so, and `turn` will wake the reader.
    pub fn poll_next(&mut self, context: &mut Context<'_>, turn: &Turn, found: &mut Vec<Delivery>) -> Poll<Next> {
        loop {
            match &mut self.state {
                State::Resolving(resolving) => match Pin::new(&mut resolving.0).poll(context) {
                    Poll::Ready(resolved) => {
                        if let Some(notice) = self.resolved_late(resolved) {
                            return Poll::Ready(Next::Notice(notice));
                        }
                    }
                    Poll::Pending => return wait_for_the_log(context, turn),
                },
                State::Behind(behind) => {
                    let Poll::Ready(read) = behind.2.as_mut().poll(context) else {
                        return wait_for_the_log(context, turn);
                    };
                    if self.channel.epoch() != self.epoch {
                        return over(turn);
                    }
                    if let Some(next) = self.read(read, found) {
                        return Poll::Ready(next);
                    }
                }
                State::Shared { next, last } => {
                    // A partition begun anew leaves a number out.
                    let after = |ring: &Ring| ring.after_seq(*next, found).ok_or_else(|| ring.bookmark_of(last));
                    match self.channel.with_ring(after) {
                        Ok(After::AtTip) => return self.at_tip(context, turn),
                        Ok(_) => return Poll::Ready(Next::Frames),
                        Err(bookmark) => self.state = State::Own(Box::new(bookmark)),
                    }
                }
                State::Own(own) => match self.channel.with_ring_of(self.epoch, |ring| after_own(ring, own, found)) {
                    None => return over(turn),
                    Some((After::AtTip, met)) => {
                        if let Some(met) = met {
                            self.state = met;
                        }
                        return self.at_tip(context, turn);
                    }
                    Some((After::Frames, _)) => return Poll::Ready(Next::Frames),
                    Some((After::Behind(gap), _)) => {
                        if let Some(next) = self.fill(gap, found) {
                            return Poll::Ready(next);
                        }
                    }
                },
            }
        }
    }

    /// Takes over the first of these deliveries: the bookmark stands after the last of them.
    pub fn accept(&mut self, deliveries: &[Delivery]) {
        let Some(last) = deliveries.last() else { return };
        self.told = Told::EVENT;
        self.moved_on();
        if let Delivery::Shared { seq, frame } = last {
            self.state = State::Shared { next: seq + 1, last: frame.clone() };
            return;
        }
        let State::Own(own) = &mut self.state else { return };
        for delivery in deliveries {
            if let Delivery::Own(record) = delivery {
                own.advance(&record.partition, record.offset.after(), Some(record.time));
            }
        }
    }

    /// The id of the reader's place, where it is known and the reader has not been told of it.
    pub fn position(&mut self) -> Option<Vec<u8>> {
        let bookmark = match &self.state {
            State::Resolving(_) => return None,
            State::Own(own) => (**own).clone(),
            State::Behind(behind) => behind.0.clone(),
            State::Shared { next, last } => {
                let place = self.channel.with_ring(|ring| {
                    let at_tip = ring.end() == *next;
                    let place = if at_tip { ring.tip() } else { ring.bookmark_of(last) };
                    // The event that it had last said so.
                    (self.told != Told::EVENT || !ring.meets(&place, last)).then_some(place)
                })?;
                // It stands there from now on: what is told is never taken back.
                self.state = State::Own(Box::new(place.clone()));
                place
            }
        };
        // An id that names nothing would be refused when it comes back.
        if bookmark.places().is_empty() {
            return None;
        }
        let id = id_of(&bookmark);
        let mut digest = DefaultHasher::new();
        id.hash(&mut digest);
        // Half of it is enough: a place that is not told by mistake is told with the next event.
        let told = Told::position(u32::try_from(digest.finish() >> 32).unwrap_or_default());
        let news = self.told != told;
        self.told = told;
        news.then_some(id)
    }

    /// Whether the reader's place is the channel's: less than a full list is then all that there is.
    pub fn is_live(&self) -> bool {
        matches!(self.state, State::Shared { .. })
    }

    /// How long this reader is asked to wait before it reconnects: jittered, so another one each time.
    pub fn retry_ms(&self) -> u64 {
        self.shared.retry_ms()
    }

    /// Where a reader with a place of its own stands.
    #[cfg(test)]
    pub(super) fn places(&self) -> std::collections::BTreeMap<Partition, Offset> {
        let State::Own(own) = &self.state else { panic!("the place is not resolved, or is the channel's") };
        own.places().iter().map(|place| (place.partition.clone(), place.next)).collect()
    }

    /// Counts what was written to the reader. How long it waits before it is sent more, where its client has had more than
    /// its rate.
    pub fn sent(&mut self, bytes: u64) -> Option<Duration> {
        self.entry.sent(bytes);
        if self.said == Said::Before {
            self.stands_here();
        }
        self.pace(bytes)
    }

    /// Whether the wait goes on: the other streams of its client have been sent something meanwhile, or the rate has
    /// changed.
    pub fn still_paced(&self) -> Option<Duration> {
        self.pace(0)
    }

    fn pace(&self, bytes: u64) -> Option<Duration> {
        self.shared.limits.pace(&self.entry.reader().asker, bytes)
    }

    /// The reader cannot go on at once: operators are told its place, so that they see it fall behind.
    pub fn stands_here(&mut self) {
        if self.said == Said::Here {
            return;
        }
        let moved = self.channel.with_ring(|ring| match &self.state {
            State::Resolving(_) => None,
            State::Own(own) => Some(ring.moved_by(own)),
            State::Behind(behind) => Some(ring.moved_by(&behind.0)),
            State::Shared { last, .. } => Some(ring.moved_at(last)),
        });
        if let Some(moved) = moved {
            self.said = Said::Here;
            self.entry.stands_at(moved);
        }
    }

    /// Whether there is something that the reader has not had.
    pub fn is_behind(&self) -> bool {
        match &self.state {
            State::Resolving(_) => false,
            State::Own(own) => self.channel.with_ring(|ring| ring.moved_by(own) < ring.moved()),
            State::Behind(_) => true,
            State::Shared { next, .. } => self.channel.end() != *next,
        }
    }

    /// It is behind, and its socket stands still: whether it is ended. If not, that is counted all the same.
    pub fn is_too_slow(&self) -> bool {
        self.shared.limits.slow(&self.entry.reader().asker)
    }

    /// Who reads.
    pub fn client(&self) -> &ClientKey {
        &self.entry.reader().asker.key
    }

    /// Why the stream, about to be dropped, ends.
    pub fn ends(&self, why: End) {
        self.entry.ends(why);
    }

    /// The reader has had all that it was told of: it is woken when its channel moves on, or something else is due. One that
    /// got less than a full list needs not ask again first: a move since then is one that its worker has not seen.
    pub fn wait_at_tip(&mut self, context: &Context<'_>, turn: &Turn) {
        if self.said != Said::AtTip {
            self.said = Said::AtTip;
            self.entry.stands_at_tip();
        }
        turn.wait(context, true);
    }

    fn moved_on(&mut self) {
        if self.said == Said::Here {
            self.said = Said::Before;
        }
    }

    fn at_tip(&mut self, context: &Context<'_>, turn: &Turn) -> Poll<Next> {
        self.wait_at_tip(context, turn);
        Poll::Ready(Next::AtTip)
    }

    fn resolved_late(
        &mut self,
        resolved: Result<Result<Resolved, ResolveError>, tokio::task::JoinError>,
    ) -> Option<Box<str>> {
        // The head is out, so a place that cannot be given is a live one, and the reader is told.
        let live = |why: String| (self.channel.with_ring(|ring| ring.tip()), Some(format!("{why}: live")));
        let (bookmark, notice) = match resolved {
            Ok(Ok(resolved)) if resolved.bookmark.has_an_id() => (resolved.bookmark, resolved.notice),
            Ok(Ok(resolved)) => live(SubscribeError::TooManyPartitions(resolved.bookmark.places().len()).to_string()),
            Ok(Err(refused)) => live(refused.to_string()),
            Err(failed) => live(format!("the place could not be found ({failed})")),
        };
        self.state = State::Own(Box::new(bookmark));
        notice.map(String::into_boxed_str)
    }

    /// Fills the list from the block that is at hand, or begins to read it.
    fn fill(&mut self, gap: Gap, found: &mut Vec<Delivery>) -> Option<Next> {
        let State::Own(own) = &mut self.state else { return None };
        if let Some(block) = self.shared.catchup.cached(&gap.partition, gap.from) {
            return deliver(self.channel.set.view(), own, &gap, &block, found);
        }
        let (catchup, engine) = (self.shared.catchup.clone(), self.shared.engine.clone());
        let (partition, from) = (gap.partition.clone(), gap.from);
        let reader = self.entry.reader().clone();
        let read = async move {
            let read = catchup.block(&reader.asker.key, &partition, from).await;
            // The tail has been further than a log that has nothing here: a new leader, perhaps, that does not know yet
            // what it has. To jump would be to lose what it will find.
            let nothing = read.as_ref().is_ok_and(|block| block.next <= from);
            if nothing || matches!(read, Err(ReadError::Unavailable(_))) {
                // Not a timer of the worker's: readers that wait for a log that is away are woken by the engine.
                let _ = engine.spawn(tokio::time::sleep(RETRY_READ_AFTER)).await;
            }
            read
        };
        self.state = State::Behind(Box::new((std::mem::take(&mut **own), gap, Box::pin(read))));
        self.moved_on();
        self.stands_here();
        None
    }

    /// Takes over what was read: deliveries, a jump over what is no longer kept, or another try.
    fn read(&mut self, read: Result<Arc<Block>, ReadError>, found: &mut Vec<Delivery>) -> Option<Next> {
        let State::Behind(behind) = &mut self.state else { return None };
        let (mut own, gap) = (std::mem::take(&mut behind.0), &behind.1);
        let next = match read {
            Ok(block) => deliver(self.channel.set.view(), &mut own, gap, &block, found),
            Err(ReadError::Gone { first }) => {
                let (partition, from) = (&gap.partition, gap.from);
                // From the floor on the ring has it, whatever the log has lost; and never back.
                let first = first.min(gap.until).max(from);
                own.set(Place { partition: partition.clone(), next: first, before: None });
                let text =
                    format!("{partition} was at offset {from}, the oldest kept is {first}: what lies between is lost");
                Some(Next::Notice(text.into()))
            }
            Err(ReadError::Unavailable(_)) => None,
        };
        self.state = State::Own(Box::new(own));
        next
    }
}

/// What comes after a place of the reader's own. At the tip it may turn out to be the channel's: a waiting reader needs
/// no bookmark of its own where the newest frame has the same.
fn after_own(ring: &Ring, own: &mut Bookmark, found: &mut Vec<Delivery>) -> (After, Option<State>) {
    let after = ring.after(own, found);
    if after != After::AtTip {
        return (after, None);
    }
    let met = ring.met_at_tip(own).map(|(next, last)| State::Shared { next, last });
    if met.is_none() {
        ring.catch_up(own);
    }
    (after, met)
}

/// Puts the block's records below the floor into the list. Moves the bookmark only over what is not delivered.
fn deliver(view: View, own: &mut Bookmark, gap: &Gap, block: &Block, found: &mut Vec<Delivery>) -> Option<Next> {
    let mut at = own.clone();
    for entry in block.entries_from(gap.from).iter().take_while(|entry| entry.offset < gap.until) {
        at.advance(&gap.partition, entry.offset.after(), Some(entry.time));
        match entry.body.as_ref().filter(|body| body.is_shown(view)) {
            Some(body) => {
                let (place, body) = ((entry.offset, entry.time), body.in_format(view.format));
                found.push(Delivery::own(view.format, &at, &gap.partition, place, body));
            }
            None if found.is_empty() => own.advance(&gap.partition, entry.offset.after(), Some(entry.time)),
            None => {}
        }
        let others_turn = gap.turn.is_some_and(|turn| entry.time > turn);
        if found.len() == BATCH_FRAMES_MAX || (others_turn && !found.is_empty()) {
            break;
        }
    }
    if found.is_empty() {
        own.advance(&gap.partition, block.next.min(gap.until).max(gap.from), None);
        return None;
    }
    Some(Next::Frames)
}

/// The reader comes back with its id, whose offsets are then held against the records that are there now.
fn over(turn: &Turn) -> Poll<Next> {
    turn.end(End::Changed);
    Poll::Ready(Next::Over)
}

fn wait_for_the_log(context: &Context<'_>, turn: &Turn) -> Poll<Next> {
    turn.wait(context, false);
    Poll::Pending
}

/// A place under way. Given up when dropped.
struct Resolving(JoinHandle<Result<Resolved, ResolveError>>);

impl Drop for Resolving {
    fn drop(&mut self) {
        self.0.abort();
    }
}
