//! The socket leaves actix once the response head is out.
//!
//! Inside actix's body path a reader costs two private 8 KiB buffers and a copy of every event. Handed over, it is a task
//! of ours that writes ring entries straight to the socket. This is the only file that knows how:
//!
//! - the handler answers with a [`HandoverBody`], whose first poll (actix polls a body only after it has queued the head)
//!   puts the closure into the connection's [`Handover`];
//! - actix flushes its buffer, and calls [`Conn`]'s `poll_flush` when it is empty, that is when the head is out;
//! - there the socket is taken from the transport and given to the closure, and the error that is returned ends actix's
//!   part of the connection, which drops its buffers.
//!
//! A whole answer that is to wait (a [`HandoverBody::kept`]) leaves in the same way, only that [`Conn`] keeps what actix
//! writes from the body's first poll on, and gives it to the closure together with the socket: nothing of it is out yet.
//!
//! It leans on that order inside actix-http's dispatcher. Where a release changed it no event would arrive at all:
//! every stream test fails then.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client_ip::Told;
use super::quiet::{Busy, Quiet};
use super::transport::Transport;
use crate::limits::Place;
use crate::shutdown::{Stage, Stop};

/// What is kept of one connection. An answer that does not fit (because of others before it, which actix has not sent
/// yet) is not kept: it goes out at once, and the closure gets an empty list.
pub(super) const KEPT_BYTES_MAX: usize = 8 * 1024;

/// Gets the socket, the connection's place, and the bytes that were kept.
type Then = Box<dyn FnOnce(Transport, Option<Place>, Vec<u8>)>;

/// Where a connection's socket goes once the head is out. One per connection, in its data.
#[derive(Clone, Default)]
pub(super) struct Handover(Rc<Leaving>);

#[derive(Default)]
struct Leaving {
    then: Cell<Option<Then>>,
    /// What actix has written and the socket has not; `None` while nothing is to be kept.
    kept: RefCell<Option<Vec<u8>>>,
}

impl Leaving {
    /// Whether these bytes are kept.
    fn keep(&self, bytes: &[u8]) -> bool {
        let mut keeping = self.kept.borrow_mut();
        let Some(kept) = keeping.as_mut() else { return false };
        let fits = kept.len() + bytes.len() <= KEPT_BYTES_MAX;
        match fits {
            true => kept.extend_from_slice(bytes),
            // Nothing was kept so far: actix writes its buffer in one piece where the transport takes it.
            false => *keeping = None,
        }
        fits
    }
}

/// A socket that actix reads requests from and writes heads to, until it is handed over.
pub(super) struct Conn {
    io: Option<Transport>,
    handover: Handover,
    quiet: Quiet,
    told: Option<Told>,
    /// Goes with the socket: a stream, which is counted as such, gives it back, and who only waits for an answer keeps it.
    place: Option<Place>,
    stop: Stop,
}

impl Conn {
    /// `told`: whom a proxy has named as its client; `quiet` says when it is given up, `stop` when it closes while it is idle.
    pub(super) fn new(io: Transport, quiet: Quiet, told: Option<Told>, place: Place, stop: Stop) -> Self {
        Self { io: Some(io), handover: Handover::default(), quiet, told, place: Some(place), stop }
    }

    pub(super) fn handover(&self) -> Handover {
        self.handover.clone()
    }

    pub(super) fn busy(&self) -> Busy {
        self.quiet.busy()
    }

    pub(super) fn told(&self) -> Option<Told> {
        self.told
    }

    fn with<T>(&mut self, poll: impl FnOnce(Pin<&mut Transport>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Err(gone())) };
        let polled = poll(Pin::new(io));
        if polled.is_ready() {
            self.quiet.moved();
        }
        polled
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket was handed over")
}

impl AsyncRead for Conn {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = self.with(|io| io.poll_read(cx, buf));
        match polled {
            Poll::Ready(_) => self.quiet.came(),
            Poll::Pending if self.quiet.poll_too_long(cx).is_ready() => {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            // What has come is answered first: only a connection with nothing in it ends here.
            Poll::Pending if self.stop.stage() >= Stage::Finishing && self.quiet.is_idle() => {
                return Poll::Ready(Ok(()));
            }
            Poll::Pending => {}
        }
        polled
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.handover.0.keep(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        self.with(|io| io.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.handover.0.then.take() {
            Some(then) => {
                let kept = self.handover.0.kept.take().unwrap_or_default();
                let place = self.place.take();
                if let Some(io) = self.io.take() {
                    then(io, place, kept);
                }
                Poll::Ready(Err(gone()))
            }
            None => self.with(|io| io.poll_flush(cx)),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|io| io.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty());
        if let Some(first) = first
            && self.handover.0.keep(first)
        {
            return Poll::Ready(Ok(first.len()));
        }
        self.with(|io| io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

/// The body of a response whose socket leaves. Dropped before the socket has left, it takes the closure and all that the
/// closure owns with it.
pub(super) struct HandoverBody {
    to: Handover,
    then: Option<Then>,
    /// The body of an answer that is kept.
    whole: Option<Bytes>,
}

impl HandoverBody {
    /// Never brings a byte of its own: the closure writes the body.
    pub(super) fn new(to: Handover, then: impl FnOnce(Transport, Option<Place>) + 'static) -> Self {
        Self { to, then: Some(Box::new(|io, place, _| then(io, place))), whole: None }
    }

    /// Head and body go to the closure instead of the socket.
    pub(super) fn kept(
        to: Handover,
        body: Bytes,
        then: impl FnOnce(Transport, Option<Place>, Vec<u8>) + 'static,
    ) -> Self {
        Self { to, then: Some(Box::new(then)), whole: Some(body) }
    }
}

impl MessageBody for HandoverBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        match &self.whole {
            Some(body) => BodySize::Sized(body.len() as u64),
            None => BodySize::Stream,
        }
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let leaving = self.to.0.clone();
        if let Some(then) = self.then.take() {
            leaving.then.set(Some(then));
        }
        match self.whole.take() {
            Some(body) => {
                leaving.kept.replace(Some(Vec::new()));
                Poll::Ready(Some(Ok(body)))
            }
            // Not the end: at that actix would begin the next request of the connection before it flushes.
            None => Poll::Pending,
        }
    }
}
