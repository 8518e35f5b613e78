//! A reader's loop, on a socket that has left actix: ring entries straight into the socket, no queue, no copy, no
//! buffer. What a slow reader has not taken is a bookmark, and at most one event pinned.

use std::future::Future;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::patience::Patience;
use super::rest::{self, Rest};
use super::sse::Wire;
use super::transport::Transport;
use crate::hub::{BATCH_FRAMES_MAX, Delivery, End, Next, Subscription, Turn, Worker};

/// Rounds of write after which a fast reader lets the others of its worker run.
const ROUNDS_MAX: usize = 16;
/// What a reader may send after its request before it counts as broken.
const STRAY_BYTES_MAX: u16 = u16::MAX;
/// A reader adds its bytes up by itself, and has them counted when they are this many more: the count stands elsewhere
/// in memory, and to touch it at every event would cost a cache miss each.
const COUNTED_EVERY: u16 = 16 * 1024;

/// Writes the stream until the reader leaves, its socket fails, or the stream is to end. Nothing of it is left then, but for
/// the last bytes of one whose socket is full: they wait with a task of their own (see `rest`).
pub(super) fn run(
    io: Transport,
    mut subscription: Subscription,
    notice: Option<&str>,
    worker: &Rc<Worker>,
    manners: Manners,
    patience: &Patience,
) -> impl Future<Output = ()> + use<> {
    let turn = subscription.enter(worker);
    let Manners { wire, positions } = manners;
    let mut opening = wire.opening();
    if let Some(notice) = notice {
        opening.extend(wire.comment(notice));
    }
    // Who leaves before anything comes knows where it was, too.
    if let Some(id) = subscription.position().filter(|_| positions) {
        opening.extend(wire.position(&id));
    }
    let reader = Reader {
        io,
        subscription,
        turn,
        manners,
        rest: Some(Rest::word(opening)),
        pause: None,
        patience: patience.clone(),
        phase: Phase::Greeting,
        stray_bytes: 0,
        uncounted_bytes: 0,
    };
    Task(Some(reader))
}

/// What one reader is sent besides events, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    pub(super) wire: Wire,
    /// It takes blocks that bring an id and no event.
    pub(super) positions: bool,
}

/// `None`: it is over.
struct Task(Option<Reader>);

struct Reader {
    io: Transport,
    subscription: Subscription,
    turn: Turn,
    manners: Manners,
    rest: Option<Box<Rest>>,
    /// Its client has had more than its rate: no events until then.
    pause: Option<Pin<Box<Sleep>>>,
    patience: Patience,
    phase: Phase,
    stray_bytes: u16,
    /// Written, and not yet counted where operators see it.
    uncounted_bytes: u16,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The first event, which carries `retry:`, is still to come.
    Greeting,
    Events,
    /// `rest` is the last of the stream.
    Ending,
}

/// The stream is over.
struct Over {
    why: End,
    /// Its socket is full: the last bytes wait for it elsewhere.
    full: bool,
}

impl Over {
    const FAILED: Self = Self::by(End::Failed);

    const fn by(why: End) -> Self {
        Self { why, full: false }
    }
}

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let task = self.get_mut();
        if let Some(reader) = &mut task.0 {
            let Over { why, full } = ready!(reader.poll_over(context));
            reader.subscription.ends(why);
            if let Some(reader) = task.0.take_if(|_| full) {
                reader.leave();
            }
            task.0 = None;
        }
        Poll::Ready(())
    }
}

impl Reader {
    fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<Over> {
        for _ in 0..ROUNDS_MAX {
            match self.step(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(over)) => return Poll::Ready(over),
                Poll::Pending => return self.watch_peer(context),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// One round: finish what was begun, else what is due, else what comes next.
    fn step(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Over>> {
        if let Err(over) = ready!(self.poll_rest(context)) {
            return Poll::Ready(Err(over));
        }
        if self.turn.is_over().is_some() {
            self.phase = Phase::Ending;
            self.rest = Some(self.farewell());
            return Poll::Ready(Ok(()));
        }
        if self.poll_pause(context).is_pending() {
            self.subscription.stands_here();
            self.turn.wait_for_heartbeats(context);
            return self.poll_heartbeat();
        }
        // Lent for the length of a poll: a reader owns no list.
        let mut found = self.turn.take_found();
        let round = self.next(context, &mut found);
        self.turn.give_found(found);
        round
    }

    fn next(&mut self, context: &mut Context<'_>, found: &mut Vec<Delivery>) -> Poll<Result<(), Over>> {
        match self.subscription.poll_next(context, &self.turn, found) {
            Poll::Ready(Next::Frames) if self.phase == Phase::Greeting => Poll::Ready(self.greet(&found[..1])),
            Poll::Ready(Next::Frames) => self.write(context, found),
            Poll::Ready(Next::Notice(text)) => {
                self.rest = Some(Rest::word(self.manners.wire.comment(&text)));
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Next::Over) => Poll::Ready(Ok(())),
            Poll::Ready(Next::AtTip) | Poll::Pending => self.poll_heartbeat(),
        }
    }

    fn poll_heartbeat(&mut self) -> Poll<Result<(), Over>> {
        if !self.turn.take_heartbeat() {
            return Poll::Pending;
        }
        self.count();
        self.rest = Some(Rest::word(self.heartbeat()));
        Poll::Ready(Ok(()))
    }

    /// A sign of life, which brings the place where it has moved.
    fn heartbeat(&mut self) -> Vec<u8> {
        let Manners { wire, positions } = self.manners;
        match if positions { self.subscription.position() } else { None } {
            Some(id) => wire.position(&id),
            None => wire.heartbeat(),
        }
    }

    fn farewell(&self) -> Box<Rest> {
        Rest::word(self.manners.wire.farewell(self.subscription.retry_ms()))
    }

    /// The first event goes out alone, with its `retry:`.
    fn greet(&mut self, first: &[Delivery]) -> Result<(), Over> {
        self.phase = Phase::Events;
        let bytes = self.manners.wire.first_event(&first[0], self.subscription.retry_ms());
        self.rest = Some(Rest::first(bytes));
        self.accept(first);
        Ok(())
    }

    /// As much as the socket takes, in one write. An event that went out in part is the reader's; what comes after it
    /// stays with the ring.
    fn write(&mut self, context: &mut Context<'_>, found: &mut Vec<Delivery>) -> Poll<Result<(), Over>> {
        let io = Pin::new(&mut self.io);
        let written = match found.as_slice() {
            // Nearly always: a live reader gets events one by one.
            [one] => match self.manners.wire.joined(one) {
                Some(event) => io.poll_write(context, event),
                None => io.poll_write_vectored(context, &self.manners.wire.slices(one)),
            },
            several => {
                let mut slices = [IoSlice::new(&[]); 2 * BATCH_FRAMES_MAX];
                for (pair, delivery) in slices.chunks_exact_mut(2).zip(several) {
                    pair.copy_from_slice(&self.manners.wire.slices(delivery));
                }
                io.poll_write_vectored(context, &slices[..2 * several.len().min(BATCH_FRAMES_MAX)])
            }
        };
        let written = match written {
            Poll::Ready(Ok(written)) => written,
            Poll::Pending => 0,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Over::FAILED)),
        };
        self.sent(written);
        self.take_over(found, written);
        if self.rest.is_none() && self.subscription.is_live() && found.len() < BATCH_FRAMES_MAX {
            self.subscription.wait_at_tip(context, &self.turn);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn take_over(&mut self, found: &mut Vec<Delivery>, written: usize) {
        let mut left = written;
        let mut taken = 0;
        for delivery in found.iter() {
            let bytes: usize = self.manners.wire.slices(delivery).iter().map(|slice| slice.len()).sum();
            if left < bytes {
                break;
            }
            left -= bytes;
            taken += 1;
        }
        // The first one that did not go out whole: begun, or refused by a full socket, which is then waited for.
        let begun = taken < found.len();
        self.accept(&found[..taken + usize::from(begun)]);
        if begun {
            self.rest = Some(Rest::event(found.swap_remove(taken), left));
        }
    }

    /// They are the reader's: written, or begun.
    fn accept(&mut self, deliveries: &[Delivery]) {
        self.turn.accepted(deliveries);
        self.subscription.accept(deliveries);
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Over>> {
        while let Some(rest) = &mut self.rest {
            match rest.poll_write(&mut self.io, self.manners.wire, context) {
                Poll::Ready(Ok((is_out, written))) => {
                    if is_out {
                        self.rest = None;
                    }
                    self.sent(written);
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Over::FAILED)),
                Poll::Pending => return self.stand_still(context),
            }
        }
        let is_over = self.phase == Phase::Ending;
        let out = match is_over {
            true => self.io.poll_farewell(context),
            false => Pin::new(&mut self.io).poll_flush(context),
        };
        match out {
            Poll::Pending => self.stand_still(context),
            Poll::Ready(_) if is_over => Poll::Ready(Err(Over::by(self.turn.is_over().unwrap_or(End::Stop)))),
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Over::FAILED)),
        }
    }

    /// The socket is full. Waits for it, unless it is given up.
    fn stand_still(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Over>> {
        self.turn.wait_for_the_socket(context);
        self.count();
        self.subscription.stands_here();
        if self.turn.is_over() == Some(End::Operator) {
            return Poll::Ready(Err(Over { why: End::Operator, full: true }));
        }
        let is_behind = self.rest.as_ref().is_some_and(|rest| rest.is_event()) || self.subscription.is_behind();
        // In this order: a standstill without anything to bring is none, and its time begins anew.
        if self.turn.take_standstill() && is_behind && self.subscription.is_too_slow() {
            return Poll::Ready(Err(Over { why: End::Slow, full: true }));
        }
        Poll::Pending
    }

    /// Ends now, although the socket is full: what was begun and the farewell wait for it elsewhere. Where no more can wait,
    /// the stream is cut.
    fn leave(mut self) {
        let Some(held) = self.patience.hold(self.subscription.client()) else { return };
        let mut last: Vec<Rest> = self.rest.take().into_iter().map(|rest| *rest).collect();
        if self.phase != Phase::Ending {
            last.retain(|rest| rest.is_begun());
            last.push(*self.farewell());
        }
        drop(actix_rt::spawn(rest::finish(self.io, self.manners.wire, last, held)));
    }

    /// No events while its client has had more than its rate. The other streams of it may have been sent something meanwhile,
    /// or the rate has changed: it is asked again.
    fn poll_pause(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = self.subscription.still_paced().map(|wait| Box::pin(sleep(wait)));
        }
        Poll::Ready(())
    }

    fn sent(&mut self, bytes: usize) {
        if bytes > 0 {
            self.turn.sent(bytes);
            let bytes = usize::from(self.uncounted_bytes) + bytes;
            match u16::try_from(bytes).ok().filter(|bytes| *bytes < COUNTED_EVERY) {
                Some(few) => self.uncounted_bytes = few,
                None => self.count_with(bytes),
            }
        }
    }

    fn count(&mut self) {
        if self.uncounted_bytes > 0 {
            self.count_with(self.uncounted_bytes.into());
        }
    }

    fn count_with(&mut self, bytes: usize) {
        self.uncounted_bytes = 0;
        // One that waits already asks again after it.
        if let Some(wait) = self.subscription.sent(bytes as u64)
            && self.pause.is_none()
        {
            self.pause = Some(Box::pin(sleep(wait)));
        }
    }

    /// Waits for the peer to leave, also while nothing is sent to it. Not `readable()`: that would leave actix's read
    /// waker in place, and with it the memory of its finished task.
    fn watch_peer(&mut self, context: &mut Context<'_>) -> Poll<Over> {
        let mut stray = [0; 512];
        loop {
            let mut read = ReadBuf::new(&mut stray);
            if ready!(Pin::new(&mut self.io).poll_read(context, &mut read)).is_err() {
                return Poll::Ready(Over::FAILED);
            }
            match u16::try_from(read.filled().len()).unwrap_or(STRAY_BYTES_MAX) {
                0 => return Poll::Ready(Over::by(End::Left)),
                bytes => self.stray_bytes = self.stray_bytes.saturating_add(bytes),
            }
            if self.stray_bytes == STRAY_BYTES_MAX {
                return Poll::Ready(Over::FAILED);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Task;

    /// With what tokio adds, a reader's task takes two groups of 128 bytes; one byte more makes it three.
    #[test]
    fn a_readers_task_fits_into_256_bytes() {
        const OF_TOKIO: usize = 32 + 16 + 8 + 48;
        assert!(size_of::<Task>() + OF_TOKIO <= 256, "{}", size_of::<Task>());
    }
}
