//! A connection on which nothing moves is given up, whatever it waits for.
//!
//! actix bounds the wait for a head and for the next request, but not for the rest of a body: neither one that a handler
//! reads nor one that was refused and is only drained.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Longer than any wait of a handler: those have answers of their own.
const QUIET_MAX: Duration = Duration::from_secs(75);

pub(super) struct Quiet {
    moved: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Quiet {
    pub(super) fn new() -> Self {
        Self { moved: Instant::now(), timer: Box::pin(sleep(QUIET_MAX)) }
    }

    /// Bytes have come or gone. The timer is put off only when it fires: this happens at every read and write.
    pub(super) fn moved(&mut self) {
        self.moved = Instant::now();
    }

    /// Ready when nothing has moved for too long.
    pub(super) fn poll_too_long(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            let end = self.moved + QUIET_MAX;
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_only_after_a_whole_time_without_a_move() {
        let start = Instant::now();
        let mut quiet = Quiet::new();
        tokio::time::advance(QUIET_MAX - Duration::from_secs(1)).await;
        quiet.moved();
        poll_fn(|context| quiet.poll_too_long(context)).await;
        let waited = start.elapsed();
        assert!(waited >= 2 * QUIET_MAX - Duration::from_secs(1) && waited < 2 * QUIET_MAX, "{waited:?}");
    }
}
