//! A reader's loop, on a socket that has left actix: ring entries straight into the socket, no queue, no copy, no
//! buffer. What a slow reader has not taken is a bookmark, and at most one event pinned.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;

use super::sse::Wire;
use crate::hub::{BATCH_FRAMES_MAX, Delivery, Next, Subscription, Turn, Worker};

/// Rounds of write after which a fast reader lets the others of its worker run.
const ROUNDS_MAX: usize = 16;
/// What a reader may send after its request before it counts as broken.
const STRAY_BYTES_MAX: u32 = 64 * 1024;
/// A reader adds its bytes up by itself, and has them counted when they are this many more: the count stands elsewhere
/// in memory, and to touch it at every event would cost a cache miss each.
const COUNTED_EVERY: u32 = 16 * 1024;

/// Writes the stream until the reader leaves, its socket fails, or streams are to end. Nothing of it is left then.
pub(super) fn run(
    io: TcpStream,
    mut subscription: Subscription,
    notice: Option<&str>,
    worker: &Rc<Worker>,
    manners: Manners,
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
    let rest = Some(Box::new(Rest::bytes(opening)));
    Reader { io, subscription, turn, manners, rest, greeted: false, ending: false, stray_bytes: 0, uncounted_bytes: 0 }
}

/// What one reader is sent besides events, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    pub(super) wire: Wire,
    /// It takes blocks that bring an id and no event.
    pub(super) positions: bool,
}

struct Reader {
    io: TcpStream,
    subscription: Subscription,
    turn: Turn,
    manners: Manners,
    /// What must go out before anything else: an event is never left half written.
    rest: Option<Box<Rest>>,
    /// The first event, which carries `retry:`, has been taken.
    greeted: bool,
    /// `rest` is the last of the stream.
    ending: bool,
    stray_bytes: u32,
    /// Written, and not yet counted where operators see it.
    uncounted_bytes: u32,
}

/// The stream is over: why matters to nobody but the socket.
struct Over;

impl Future for Reader {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let reader = self.get_mut();
        for _ in 0..ROUNDS_MAX {
            match reader.step(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Over)) => return Poll::Ready(()),
                Poll::Pending => return reader.watch_peer(context),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Reader {
    /// One round: finish what was begun, else what is due, else what comes next.
    fn step(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Over>> {
        if let Err(Over) = ready!(self.poll_rest(context)) {
            return Poll::Ready(Err(Over));
        }
        if self.turn.is_over().is_some() {
            self.ending = true;
            self.rest = Some(Box::new(Rest::bytes(self.manners.wire.farewell(self.subscription.retry_ms()))));
            return Poll::Ready(Ok(()));
        }
        // Lent for the length of a poll: a reader owns no list.
        let mut found = self.turn.take_found();
        let round = self.next(context, &mut found);
        self.turn.give_found(found);
        round
    }

    fn next(&mut self, context: &mut Context<'_>, found: &mut Vec<Delivery>) -> Poll<Result<(), Over>> {
        match self.subscription.poll_next(context, &self.turn, found) {
            Poll::Ready(Next::Frames) if !self.greeted => Poll::Ready(self.greet(&found[..1])),
            Poll::Ready(Next::Frames) => self.write(context, found),
            Poll::Ready(Next::Notice(text)) => {
                self.rest = Some(Box::new(Rest::bytes(self.manners.wire.comment(&text))));
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Next::AtTip) | Poll::Pending if self.turn.take_heartbeat() => {
                self.rest = Some(Box::new(Rest::bytes(self.heartbeat())));
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Next::AtTip) | Poll::Pending => Poll::Pending,
        }
    }

    /// A sign of life, which brings the place where it has moved.
    fn heartbeat(&mut self) -> Vec<u8> {
        let Manners { wire, positions } = self.manners;
        match if positions { self.subscription.position() } else { None } {
            Some(id) => wire.position(&id),
            None => wire.heartbeat(),
        }
    }

    /// The first event goes out alone, with its `retry:`.
    fn greet(&mut self, first: &[Delivery]) -> Result<(), Over> {
        self.greeted = true;
        let bytes = self.manners.wire.first_event(&first[0], self.subscription.retry_ms());
        self.rest = Some(Box::new(Rest::bytes(bytes)));
        self.subscription.accept(first);
        Ok(())
    }

    /// As much as the socket takes, in one write. An event that went out in part is the reader's; what comes after it
    /// stays with the ring.
    fn write(&mut self, context: &mut Context<'_>, found: &mut Vec<Delivery>) -> Poll<Result<(), Over>> {
        let written = match found.as_slice() {
            // Nearly always: a live reader gets events one by one.
            [one] => match self.manners.wire.joined(one) {
                Some(event) => self.io.try_write(event),
                None => self.io.try_write_vectored(&self.manners.wire.slices(one)),
            },
            several => {
                let mut slices = [IoSlice::new(&[]); 2 * BATCH_FRAMES_MAX];
                for (pair, delivery) in slices.chunks_exact_mut(2).zip(several) {
                    pair.copy_from_slice(&self.manners.wire.slices(delivery));
                }
                self.io.try_write_vectored(&slices[..2 * several.len().min(BATCH_FRAMES_MAX)])
            }
        };
        let written = match written {
            Ok(written) => written,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Poll::Ready(Err(Over)),
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
        self.subscription.accept(&found[..taken + usize::from(begun)]);
        if begun {
            self.rest = Some(Box::new(Rest { what: What::Event(found.swap_remove(taken)), written: left }));
        }
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Over>> {
        while let Some(rest) = &mut self.rest {
            match self.io.try_write_vectored(&rest.slices(self.manners.wire)) {
                Ok(written) => {
                    rest.written += written;
                    let whole = rest.is_out(self.manners.wire);
                    self.sent(written);
                    if whole {
                        self.rest = None;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.turn.wait_for_the_socket(context);
                    if ready!(self.io.poll_write_ready(context)).is_err() {
                        return Poll::Ready(Err(Over));
                    }
                }
                Err(_) => return Poll::Ready(Err(Over)),
            }
        }
        Poll::Ready(if self.ending { Err(Over) } else { Ok(()) })
    }

    fn sent(&mut self, bytes: usize) {
        if bytes > 0 {
            self.turn.sent();
            self.uncounted_bytes = added(self.uncounted_bytes, bytes);
            if self.uncounted_bytes >= COUNTED_EVERY {
                let _ = self.subscription.sent(std::mem::take(&mut self.uncounted_bytes).into());
            }
        }
    }

    /// Waits for the peer to leave, also while nothing is sent to it. Not `readable()`: that would leave actix's read
    /// waker in place, and with it the memory of its finished task.
    fn watch_peer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut stray = [0; 512];
        loop {
            match ready!(self.io.poll_read_ready(context)).and_then(|()| self.io.try_read(&mut stray)) {
                Ok(0) => return Poll::Ready(()),
                Ok(bytes) => self.stray_bytes = added(self.stray_bytes, bytes),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(()),
            }
            if self.stray_bytes > STRAY_BYTES_MAX {
                return Poll::Ready(());
            }
        }
    }
}

fn added(sum: u32, bytes: usize) -> u32 {
    sum.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX))
}

/// Bytes that are on their way out.
struct Rest {
    what: What,
    written: usize,
}

enum What {
    Bytes(Vec<u8>),
    Event(Delivery),
}

impl Rest {
    fn bytes(bytes: Vec<u8>) -> Self {
        Self { what: What::Bytes(bytes), written: 0 }
    }

    fn whole(&self, wire: Wire) -> [IoSlice<'_>; 2] {
        match &self.what {
            What::Bytes(bytes) => [IoSlice::new(bytes), IoSlice::new(&[])],
            What::Event(delivery) => wire.slices(delivery),
        }
    }

    /// What has not gone out yet.
    fn slices(&self, wire: Wire) -> [IoSlice<'_>; 2] {
        let mut slices = self.whole(wire);
        let first = self.written.min(slices[0].len());
        slices[0].advance(first);
        slices[1].advance(self.written - first);
        slices
    }

    fn is_out(&self, wire: Wire) -> bool {
        self.written >= self.whole(wire).iter().map(|slice| slice.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::Reader;

    /// With what tokio adds, a reader's task takes two groups of 128 bytes; one byte more makes it three.
    #[test]
    fn a_readers_task_fits_into_256_bytes() {
        const OF_TOKIO: usize = 32 + 16 + 8 + 48;
        assert!(size_of::<Reader>() + OF_TOKIO <= 256, "{}", size_of::<Reader>());
    }
}
