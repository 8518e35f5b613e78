//! Bytes of a stream that are on their way out, and what becomes of them when their reader is ended while its socket is full.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::patience::Held;
use super::sse::Wire;
use super::transport::Transport;
use crate::hub::Delivery;

/// How long a socket that stood still is waited for, so that its stream ends after a whole event. Then it is cut.
const FINISH_AT_MOST: Duration = Duration::from_secs(30);

/// What goes out before anything else: an event is never left half written.
pub(super) struct Rest {
    what: What,
    written: usize,
}

enum What {
    /// A word of ours, such as a heartbeat.
    Word(Vec<u8>),
    /// The first event, with what goes with it.
    First(Vec<u8>),
    /// Pinned, not copied.
    Event(Delivery),
}

impl Rest {
    pub(super) fn word(bytes: Vec<u8>) -> Box<Self> {
        Box::new(Self { what: What::Word(bytes), written: 0 })
    }

    pub(super) fn first(bytes: Vec<u8>) -> Box<Self> {
        Box::new(Self { what: What::First(bytes), written: 0 })
    }

    /// Of which so many bytes are out already.
    pub(super) fn event(delivery: Delivery, written: usize) -> Box<Self> {
        Box::new(Self { what: What::Event(delivery), written })
    }

    pub(super) fn is_event(&self) -> bool {
        !matches!(self.what, What::Word(_))
    }

    pub(super) fn is_begun(&self) -> bool {
        self.written > 0
    }

    /// What the socket takes now. Whether all of it is out, and how many bytes it took.
    pub(super) fn poll_write(
        &mut self,
        io: &mut Transport,
        wire: Wire,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(bool, usize)>> {
        let written = ready!(Pin::new(io).poll_write_vectored(context, &self.slices(wire)))?;
        self.written += written;
        Poll::Ready(Ok((self.is_out(wire), written)))
    }

    fn whole(&self, wire: Wire) -> [IoSlice<'_>; 2] {
        match &self.what {
            What::Word(bytes) | What::First(bytes) => [IoSlice::new(bytes), IoSlice::new(&[])],
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

/// The last of a stream whose reader is gone already: what was begun, and the farewell. `held` is its place among what waits;
/// a stop that begins meanwhile cuts it.
pub(super) async fn finish(mut io: Transport, wire: Wire, last: Vec<Rest>, held: Held) {
    let written = async {
        for mut rest in last {
            while !poll_fn(|context| rest.poll_write(&mut io, wire, context)).await?.0 {}
        }
        io.shutdown().await
    };
    tokio::select! {
        _ = timeout(FINISH_AT_MOST, written) => {}
        () = held.let_go() => {}
    }
}
