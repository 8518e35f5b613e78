//! A connection on which nothing moves is given up, whatever it waits for; and so is one whose next request comes drop by
//! drop.
//!
//! actix bounds the wait for the first head and for the next request to begin, but not for the rest of that one's head, nor
//! for the rest of a body: neither one that a handler reads nor one that was refused and is only drained.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Longer than any wait of a handler: those have answers of their own.
const QUIET_MAX: Duration = Duration::from_secs(75);

pub(super) struct Quiet {
    moved: Instant,
    busy: Busy,
    /// What may pass from the first byte of a request, or of what is left of the one before, until it can be answered.
    coming_max: Duration,
    timer: Pin<Box<Sleep>>,
}

/// Whether a request of the connection is being answered. In the connection's data.
#[derive(Clone, Default)]
pub(super) struct Busy(Rc<Cell<Phase>>);

#[derive(Clone, Copy, Default)]
enum Phase {
    #[default]
    Idle,
    /// Bytes have come, the first of them then, and are no request yet.
    Coming(Instant),
    Answering,
}

/// A request is being answered until this is dropped.
pub(super) struct Answering(Busy);

impl Busy {
    pub(super) fn begin(&self) -> Answering {
        self.0.set(Phase::Answering);
        Answering(self.clone())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.set(Phase::Idle);
    }
}

impl Quiet {
    pub(super) fn new(coming_max: Duration) -> Self {
        Self { moved: Instant::now(), busy: Busy::default(), coming_max, timer: Box::pin(sleep(QUIET_MAX)) }
    }

    pub(super) fn busy(&self) -> Busy {
        self.busy.clone()
    }

    /// Whether it waits for its next request, of which nothing has come.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.busy.0.get(), Phase::Idle)
    }

    /// Bytes have come or gone. The timer is put off only when it fires: this happens at every read and write.
    pub(super) fn moved(&mut self) {
        self.moved = Instant::now();
    }

    /// Bytes have come.
    pub(super) fn came(&mut self) {
        self.moved();
        if let Phase::Idle = self.busy.0.get() {
            self.busy.0.set(Phase::Coming(self.moved));
            let end = self.end();
            self.timer.as_mut().reset(end);
        }
    }

    fn end(&self) -> Instant {
        let quiet = self.moved + QUIET_MAX;
        match self.busy.0.get() {
            Phase::Coming(since) => quiet.min(since + self.coming_max),
            Phase::Idle | Phase::Answering => quiet,
        }
    }

    /// Ready when nothing has moved for too long, or a request has not become whole.
    pub(super) fn poll_too_long(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            let end = self.end();
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

    const COMING_MAX: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_ends_only_after_a_whole_time_without_a_move() {
        let start = Instant::now();
        let mut quiet = Quiet::new(COMING_MAX);
        tokio::time::advance(QUIET_MAX - SECOND).await;
        quiet.moved();
        poll_fn(|context| quiet.poll_too_long(context)).await;
        let waited = start.elapsed();
        assert!(waited >= 2 * QUIET_MAX - SECOND && waited < 2 * QUIET_MAX, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_comes_drop_by_drop_is_waited_for_only_so_long() {
        let start = Instant::now();
        let mut quiet = Quiet::new(COMING_MAX);
        let mut drops = tokio::time::interval(SECOND);
        loop {
            tokio::select! {
                _ = drops.tick() => quiet.came(),
                () = poll_fn(|context| quiet.poll_too_long(context)) => break,
            }
        }
        let waited = start.elapsed();
        assert!(waited >= COMING_MAX && waited < COMING_MAX + SECOND, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_while_an_answer_is_made_has_all_its_time_and_what_comes_after_it_has_its_own() {
        let mut quiet = Quiet::new(COMING_MAX);
        quiet.came();
        tokio::time::advance(COMING_MAX - SECOND).await;
        let answering = quiet.busy().begin();
        for _ in 0..10 {
            tokio::time::advance(COMING_MAX / 2).await;
            quiet.came();
            assert!(poll_fn(|context| Poll::Ready(quiet.poll_too_long(context))).await.is_pending());
        }
        drop(answering);
        let answered = Instant::now();
        quiet.came();
        poll_fn(|context| quiet.poll_too_long(context)).await;
        assert!(answered.elapsed() >= COMING_MAX, "{:?}", answered.elapsed());
    }
}
