//! The stop: what ends, in which order, and how long it is waited for.
//!
//! 1. leaving: `/readyz` says 503, answers say `Connection: close`, and all is served on for `stop.drain_delay`
//! 2. closing: no new connections; those that wait are accepted, and their first request is waited for a moment
//! 3. finishing: idle connections close, POSTs are answered, and what was accepted gets to the log
//! 4. the streams end after a whole event, spread over `stop.drain_spread`; and the answers that are held
//! 5. the server's workers end, and the log is closed
//!
//! A second signal ends the waits that are there for politeness alone (the delay, the spread), and a third one cuts. The
//! deadline cuts, too, whatever hangs. Where a successor has the sockets, there is no delay, and they are not closed.

use std::io;
use std::time::Duration;

use actix_server::ServerHandle;
use futures_util::future::join;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Running;
use super::handover::{Name, Offer};
use super::sockets::Bound;
use crate::config;
use crate::http::{Patience, Posts};
use crate::hub::Hub;
use crate::intake::Intake;
use crate::log::Log;
use crate::shutdown::{Shutdown, Stage};

/// How often is looked whether something has ended.
const POLL: Duration = Duration::from_millis(20);
/// How long who has just connected is waited for: until its handshake is over, and its first request is there. A way
/// there and back on the longest lines is less.
const SETTLE: Duration = Duration::from_millis(300);
/// The same with TLS: version 1.2 goes there and back twice more.
const SETTLE_TLS: Duration = Duration::from_millis(900);
/// Longest wait for the queue of a listener that nobody joins any more.
const QUEUE_EMPTY_WITHIN: Duration = Duration::from_secs(2);
/// What of a stop's deadline is kept for the log, so that it can finish what was appended: a fifth, this at most.
const CLOSE_RESERVE_MOST: Duration = Duration::from_secs(5);
/// Longest wait for the operators' listener, which has nothing to finish.
const OPERATORS_END_WITHIN: Duration = Duration::from_secs(1);

/// How the server has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// What was accepted is in the log, or its producer was told otherwise.
    Clean,
    /// The log was not closed in time: what it had not acknowledged may be lost.
    Unfinished,
}

/// What asks the process to stop. Where nobody listens, a signal kills it; but not the first process of a container.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// Times of a stop, made to fit its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    delay: Duration,
    pub(super) spread: Duration,
    settle: Duration,
    /// After so much of it what is left is cut, and the log is closed.
    cut_after: Duration,
    deadline: Duration,
}

impl Times {
    /// The delay takes half of the deadline at most, and the spread three quarters of what is left until the cut.
    pub(super) fn of(options: &config::Stop, with_tls: bool) -> Self {
        let deadline = options.deadline;
        let cut_after = deadline - (deadline / 5).min(CLOSE_RESERVE_MOST);
        let delay = options.drain_delay.min(deadline / 2);
        let left = cut_after.saturating_sub(delay);
        let settle = if with_tls { SETTLE_TLS } else { SETTLE }.min(left / 2);
        let left = left - settle;
        Self { delay, spread: options.drain_spread.min(left * 3 / 4), settle, cut_after, deadline }
    }
}

impl Signals {
    pub fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl Running {
    /// Serves until a signal, or until a successor serves in its place; and then stops.
    pub async fn until_stopped(mut self) -> Ended {
        let succeeded = async {
            match &mut self.offer {
                Some(offer) => offer.taken().await,
                None => std::future::pending().await,
            }
        };
        let taken = tokio::select! {
            () = self.signals.next() => None,
            taken = succeeded => Some(taken),
        };
        self.public_socket.set_shared(self.is_shared());
        if let Some(taken) = &taken {
            self.hand_over(&taken.names).await;
        }
        // What is left of the successor's connection is closed after it.
        self.stop_in_order().await
    }

    /// Whether another process accepts connections on the public socket, or is about to: systemd, the server before this
    /// one, or a successor that has been given it and does not serve yet.
    fn is_shared(&self) -> bool {
        let with_another = match &self.before {
            Some(before) => !before.is_over(),
            None => self.public_socket.is_shared(),
        };
        with_another || self.offer.as_ref().is_some_and(Offer::is_given)
    }

    /// What the successor serves on is its own now.
    async fn hand_over(&mut self, taken: &[Name]) {
        tracing::info!("a successor serves: this server hands over to it");
        // Where it listens elsewhere, whoever comes here has to learn that first.
        let is_there = taken.contains(&Name::Public);
        self.public_socket.set_shared(is_there);
        if is_there {
            self.times.delay = Duration::ZERO;
        }
        if let Some(operators) = &self.operators {
            if taken.contains(&Name::Admin) {
                operators.handle.pause().await;
            }
            if let Some(socket) = operators.socket.as_ref().filter(|_| taken.contains(&Name::Operators)) {
                socket.give_away();
            }
        }
    }

    async fn stop_in_order(mut self) -> Ended {
        let begun = Instant::now();
        tell_systemd(&[NotifyState::Stopping]);
        tracing::info!(streams = self.hub.registry().open(), "stopping");
        let hurry = CancellationToken::new();
        let asked_again = async {
            self.signals.next().await;
            tracing::info!("a second signal: the stop hurries");
            hurry.cancel();
            self.signals.next().await;
        };
        let steps = Steps {
            public: &self.public,
            socket: &self.public_socket,
            hub: &self.hub,
            patience: &self.patience,
            posts: &self.posts,
            intake: &self.intake,
            store: self.store.as_ref(),
            shutdown: &self.shutdown,
        };
        tokio::select! {
            () = steps.all(self.times, &hurry) => {}
            () = sleep_until(begun + self.times.cut_after) => {
                tracing::warn!(streams = self.hub.registry().open(), "the deadline has come: what is left is cut");
            }
            () = asked_again => tracing::info!("a third signal: what is left is cut"),
        }
        self.shutdown.advance(Stage::Over);
        let closed = join(self.intake.close(), self.store.close());
        let closed = timeout_at(begun + self.times.deadline, closed).await;
        if let Some(operators) = self.operators {
            let _ = timeout(OPERATORS_END_WITHIN, operators.handle.stop(false)).await;
        }
        if closed.is_err() {
            tracing::error!("the log could not be closed in time: what it has not acknowledged may be lost");
            return Ended::Unfinished;
        }
        tracing::info!("stopped");
        Ended::Clean
    }
}

/// What the steps of a stop need.
struct Steps<'a> {
    public: &'a ServerHandle,
    socket: &'a Bound,
    hub: &'a Hub,
    patience: &'a Patience,
    posts: &'a Posts,
    intake: &'a Intake,
    store: &'a dyn Log,
    shutdown: &'a Shutdown,
}

impl Steps<'_> {
    async fn all(&self, Times { delay, settle, .. }: Times, hurry: &CancellationToken) {
        self.shutdown.advance(Stage::Leaving);
        tokio::select! {
            () = sleep(delay) => {}
            () = hurry.cancelled() => {}
        }
        self.close_the_door(settle).await;
        self.finish().await;
        self.end_streams(hurry).await;
        self.public.stop(true).await;
        // A POST that came on the last of the old connections was refused by the log, and its reports with it.
        self.intake.drained().await;
    }

    async fn close_the_door(&self, settle: Duration) {
        if self.socket.is_shared() {
            self.public.pause().await;
            sleep(settle).await;
            return;
        }
        self.socket.refuse_new();
        sleep(settle).await;
        let empty_by = Instant::now() + QUEUE_EMPTY_WITHIN;
        while self.socket.has_waiting() && Instant::now() < empty_by {
            sleep(POLL).await;
        }
        self.public.pause().await;
        // The server only notes that it is to pause: closed before it has, it would find a listener that is none.
        sleep(POLL).await;
        self.socket.close();
    }

    /// Hasty events were answered before they were judged, and reports are nobody's request.
    async fn finish(&self) {
        self.shutdown.advance(Stage::Finishing);
        // Idle connections see it first: what has come by then is a POST that counts.
        sleep(POLL).await;
        while self.posts.under_way() > 0 {
            sleep(POLL).await;
        }
        self.intake.drained().await;
        // Together: what goes from the spool to a log that is away ends with the log. A successor may have both files now.
        join(self.intake.close(), self.store.finish()).await;
    }

    /// Readers, and those who wait for a refusal: their tasks live on the server's workers, and would be cut with them.
    async fn end_streams(&self, hurry: &CancellationToken) {
        self.shutdown.advance(Stage::EndStreams);
        let ended = async {
            while self.hub.registry().open() > 0 {
                sleep(POLL).await;
            }
        };
        let hurried = async {
            hurry.cancelled().await;
            self.shutdown.advance(Stage::EndAtOnce);
            std::future::pending().await
        };
        tokio::select! {
            () = ended => {}
            () = hurried => {}
        }
        self.patience.hurry();
        while self.patience.held() > 0 {
            sleep(POLL).await;
        }
    }
}

/// Where it has started this process, and wants to know.
pub(super) fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told how this server is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(delay: u64, spread: u64, deadline: u64) -> Times {
        times_of(delay, spread, deadline, false)
    }

    fn times_of(delay: u64, spread: u64, deadline: u64, with_tls: bool) -> Times {
        let [drain_delay, drain_spread, deadline] = [delay, spread, deadline].map(Duration::from_secs);
        Times::of(&config::Stop { drain_delay, drain_spread, deadline, handover_socket: None }, with_tls)
    }

    #[test]
    fn all_waits_of_a_stop_fit_its_deadline() {
        let usual = times(5, 10, 30);
        assert_eq!((usual.delay.as_secs(), usual.spread.as_secs()), (5, 10), "as they are where they fit");
        let long = times(60, 60, 30);
        assert_eq!(
            (long.delay.as_millis(), long.spread.as_millis()),
            (15_000, 7_275),
            "half, and 3/4 of 25 - 15 - 0.3"
        );
        for (delay, spread, deadline) in [(5, 10, 30), (5, 10, 2), (60, 60, 30), (0, 60, 5), (9, 9, 0), (0, 0, 1)] {
            for with_tls in [false, true] {
                let times = times_of(delay, spread, deadline, with_tls);
                let polite = times.delay + times.settle + times.spread;
                assert!(polite <= times.cut_after, "{times:?}");
                assert!(times.cut_after <= times.deadline, "{times:?}");
            }
        }
    }
}
