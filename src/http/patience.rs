//! Whose refusals are held, and how many at once.
//!
//! Several clients answer a refusal with the next request, thousands of times a second, and none of them honours
//! `Retry-After`. So a client that keeps being refused waits for its refusals; the first few are answered at once, so
//! that a person with a typo waits for nothing. What waiting is stands in `held`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::Quota;
use governor::clock::DefaultClock;
use tokio_util::sync::CancellationToken;

use crate::limits::{Concurrency, Keyed, Place};
use crate::metrics as names;
use crate::model::ClientKey;
use crate::shutdown::{Stage, Stop};

/// Refusals that a client may have at once before it counts as a repeat offender.
const BURST: NonZeroU32 = NonZeroU32::new(10).expect("more than none");
/// It is forgiven one of them this often.
const FORGIVEN_EVERY: Duration = Duration::from_secs(10);

/// Answers of one client that are held at once: as many as it may have connections, where the configuration does not say
/// otherwise, so that who comes back at once waits with all of them. Beyond it, and beyond what the host can hold, they go
/// out at once, and end their connections.
const HELD_PER_CLIENT_MAX: usize = 2_048;

/// The host's patience. Cheap to clone.
#[derive(Clone)]
pub struct Patience(Arc<Shared>);

struct Shared {
    /// Where nobody new is remembered, everybody counts as one: so many at once are a storm.
    offenders: Keyed,
    held: Concurrency,
    held_max: usize,
    stop: Stop,
    hurry: CancellationToken,
}

impl Patience {
    /// `held_max`: answers that may be held at once on the host.
    pub fn new(stop: Stop, held_max: usize) -> Self {
        let offenders = Keyed::new(forgiveness(), DefaultClock::default());
        let hurry = CancellationToken::new();
        Self(Arc::new(Shared { offenders, held: Concurrency::default(), held_max, stop, hurry }))
    }

    /// Answers that have not gone out yet: a stop waits for them.
    pub fn held(&self) -> usize {
        self.0.held.in_use()
    }

    /// From now on nothing is held any more: the streams have ended, and the process is about to.
    pub fn hurry(&self) {
        self.0.hurry.cancel();
    }

    /// Whether streams are ending, so that none may begin.
    pub(super) fn is_stopping(&self) -> bool {
        self.0.stop.stage() >= Stage::EndStreams
    }

    /// One more refusal: whether this client has had too many.
    pub(super) fn is_tried_by(&self, client: &ClientKey) -> bool {
        self.0.offenders.is_full() || self.0.offenders.spend(client, NonZeroU32::MIN).is_err()
    }

    /// A place among the held; none where all are taken, or where nothing is held any more.
    pub(super) fn hold(&self, client: &ClientKey) -> Option<Held> {
        let shared = &self.0;
        if shared.hurry.is_cancelled() {
            return None;
        }
        let place = shared.held.enter(client, HELD_PER_CLIENT_MAX, shared.held_max).ok()?;
        metrics::gauge!(names::REFUSALS_HELD).increment(1);
        Some(Held { patience: self.clone(), _place: place, connection: None })
    }
}

/// A place among the held answers. Given back when dropped.
pub(super) struct Held {
    patience: Patience,
    _place: Place,
    connection: Option<Place>,
}

impl Held {
    /// While it waits it is one of its client's connections.
    pub(super) fn on(mut self, connection: Option<Place>) -> Self {
        self.connection = connection;
        self
    }

    /// Waits until a stop wants the answer out: when it begins, or, where it had begun before the wait, when all streams
    /// have ended.
    pub(super) async fn let_go(&self) {
        match self.patience.is_stopping() {
            false => self.patience.0.stop.clone().reached(Stage::EndStreams).await,
            true => self.patience.0.hurry.cancelled().await,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        metrics::gauge!(names::REFUSALS_HELD).decrement(1);
    }
}

fn forgiveness() -> Quota {
    Quota::with_period(FORGIVEN_EVERY).expect("longer than nothing").allow_burst(BURST)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::task::{Context, Waker};

    use governor::clock::FakeRelativeClock;

    use super::*;
    use crate::shutdown::Shutdown;

    fn client(number: u32) -> ClientKey {
        ClientKey::of(Ipv4Addr::from_bits(number).into(), 32, 64)
    }

    const HELD_MAX: usize = 4_096;

    fn patience() -> (Patience, Shutdown) {
        let shutdown = Shutdown::default();
        (Patience::new(shutdown.watcher(), HELD_MAX), shutdown)
    }

    #[test]
    fn ten_refusals_are_free_then_one_every_ten_seconds_and_each_client_has_its_own() {
        let clock = FakeRelativeClock::default();
        let offenders = Keyed::new(forgiveness(), clock.clone());
        let tries = |times: usize, number| {
            (0..times).map(|_| offenders.spend(&client(number), NonZeroU32::MIN).is_err()).collect::<Vec<_>>()
        };
        assert_eq!(tries(12, 1), [[false; 10].as_slice(), &[true; 2]].concat());
        assert_eq!(tries(1, 2), [false]);
        clock.advance(FORGIVEN_EVERY);
        assert_eq!(tries(2, 1), [false, true]);
        clock.advance(100 * FORGIVEN_EVERY);
        assert_eq!(tries(11, 1), [[false; 10].as_slice(), &[true]].concat());
    }

    #[test]
    fn places_are_bounded_for_one_client_and_for_all_and_given_back() {
        let (patience, _shutdown) = patience();
        let mut held: Vec<Held> = std::iter::from_fn(|| patience.hold(&client(1))).take(HELD_MAX).collect();
        assert_eq!((held.len(), patience.held()), (HELD_PER_CLIENT_MAX, HELD_PER_CLIENT_MAX));
        held.extend((2..).map_while(|number| patience.hold(&client(number))).take(HELD_MAX));
        assert_eq!((held.len(), patience.held()), (HELD_MAX, HELD_MAX));
        held.truncate(1);
        assert_eq!(patience.held(), 1);
        held.clear();
        assert_eq!(patience.held(), 0);
        assert!(patience.hold(&client(1)).is_some());
    }

    #[tokio::test]
    async fn a_stop_lets_go_what_was_held_before_it_and_the_last_stream_what_came_after() {
        let (patience, shutdown) = patience();
        let mut context = Context::from_waker(Waker::noop());
        let before = patience.hold(&client(1)).expect("a place");
        let mut waits = Box::pin(before.let_go());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        shutdown.advance(Stage::EndStreams);
        waits.await;
        let after = patience.hold(&client(1)).expect("a place");
        let mut waits = Box::pin(after.let_go());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        patience.hurry();
        waits.await;
        assert!(patience.hold(&client(1)).is_none());
    }
}
