//! Whose refusals are held, and how many at once.
//!
//! Several clients answer a refusal with the next request, thousands of times a second, and none of them honours
//! `Retry-After`. So a client that keeps being refused waits for its refusals; the first few are answered at once, so
//! that a person with a typo waits for nothing. What waiting is stands in `held`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use governor::clock::{Clock, DefaultClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::metrics as names;
use crate::model::ClientKey;
use crate::shutdown::{Stage, Stop};

/// Refusals that a client may have at once before it counts as a repeat offender.
const BURST: NonZeroU32 = NonZeroU32::new(10).expect("more than none");
/// It is forgiven one of them this often.
const FORGIVEN_EVERY: Duration = Duration::from_secs(10);
/// Clients whose refusals are remembered. Beyond it nobody new is: all of them are held, for so many at once are a storm.
const CLIENTS_MAX: usize = 65_536;
/// How often those who are forgiven altogether are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Answers that are held at once on the host. Beyond it they go out at once, and end their connections.
const HELD_MAX: usize = 4_096;
/// The same for one client.
const HELD_PER_CLIENT_MAX: usize = 64;

/// The host's patience. Cheap to clone.
#[derive(Clone)]
pub struct Patience(Arc<Shared>);

struct Shared {
    offenders: Offenders<DefaultClock>,
    held: AtomicUsize,
    held_of: DashMap<ClientKey, usize>,
    stop: Stop,
    hurry: CancellationToken,
}

impl Patience {
    pub fn new(stop: Stop) -> Self {
        Self(Arc::new(Shared {
            offenders: Offenders::new(DefaultClock::default()),
            held: AtomicUsize::new(0),
            held_of: DashMap::new(),
            stop,
            hurry: CancellationToken::new(),
        }))
    }

    /// Answers that have not gone out yet: a stop waits for them.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Acquire)
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
    pub(super) fn is_tried_by(&self, client: ClientKey) -> bool {
        self.0.offenders.is_one_more_too_many(client)
    }

    /// A place among the held; none where all are taken, or where nothing is held any more.
    pub(super) fn hold(&self, client: ClientKey) -> Option<Held> {
        let shared = &self.0;
        if shared.hurry.is_cancelled() {
            return None;
        }
        let one_more = |held: usize| (held < HELD_MAX).then_some(held + 1);
        shared.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        *shared.held_of.entry(client).or_default() += 1;
        metrics::gauge!(names::REFUSALS_HELD).increment(1);
        // Made before the client's own limit is looked at: dropped, it gives back what was taken so far.
        let held = Held { patience: self.clone(), client };
        let of_client = shared.held_of.get(&client).map_or(0, |held| *held);
        (of_client <= HELD_PER_CLIENT_MAX).then_some(held)
    }
}

/// A place among the held answers. Given back when dropped.
pub(super) struct Held {
    patience: Patience,
    client: ClientKey,
}

impl Held {
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
        let shared = &self.patience.0;
        if let dashmap::Entry::Occupied(mut held) = shared.held_of.entry(self.client) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
        metrics::gauge!(names::REFUSALS_HELD).decrement(1);
        shared.held.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Who was refused lately, and how often.
struct Offenders<C: Clock> {
    clock: C,
    refusals: RateLimiter<ClientKey, DashMapStateStore<ClientKey>, C, NoOpMiddleware<C::Instant>>,
    swept: Mutex<C::Instant>,
}

impl<C: Clock + Clone> Offenders<C> {
    fn new(clock: C) -> Self {
        let quota = Quota::with_period(FORGIVEN_EVERY).expect("longer than nothing").allow_burst(BURST);
        let swept = Mutex::new(clock.now());
        Self { refusals: RateLimiter::dashmap_with_clock(quota, clock.clone()), clock, swept }
    }

    fn is_one_more_too_many(&self, client: ClientKey) -> bool {
        self.sweep();
        self.refusals.len() >= CLIENTS_MAX || self.refusals.check_key(&client).is_err()
    }

    /// At a refusal and not by a timer: where nobody is refused there is nothing to forget.
    fn sweep(&self) {
        let now = self.clock.now();
        // Whoever does not get the lock leaves it to the one who has it.
        if let Some(mut swept) = self.swept.try_lock()
            && now.duration_since(*swept) >= SWEEP_EVERY.into()
        {
            *swept = now;
            self.refusals.retain_recent();
        }
    }
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

    fn patience() -> (Patience, Shutdown) {
        let shutdown = Shutdown::default();
        (Patience::new(shutdown.watcher()), shutdown)
    }

    #[test]
    fn ten_refusals_are_free_then_one_every_ten_seconds_and_each_client_has_its_own() {
        let clock = FakeRelativeClock::default();
        let offenders = Offenders::new(clock.clone());
        let tries = |times: usize, number| {
            (0..times).map(|_| offenders.is_one_more_too_many(client(number))).collect::<Vec<_>>()
        };
        assert_eq!(tries(12, 1), [[false; 10].as_slice(), &[true; 2]].concat());
        assert_eq!(tries(1, 2), [false]);
        clock.advance(FORGIVEN_EVERY);
        assert_eq!(tries(2, 1), [false, true]);
        clock.advance(100 * FORGIVEN_EVERY);
        assert_eq!(tries(11, 1), [[false; 10].as_slice(), &[true]].concat());
    }

    #[test]
    fn those_who_are_forgiven_are_forgotten_and_beyond_the_limit_everybody_is_held() {
        let clock = FakeRelativeClock::default();
        let offenders = Offenders::new(clock.clone());
        let limit = u32::try_from(CLIENTS_MAX).expect("a small number");
        assert!((0..limit).all(|number| !offenders.is_one_more_too_many(client(number))));
        assert!(offenders.is_one_more_too_many(client(limit)));
        assert_eq!(offenders.refusals.len(), CLIENTS_MAX);
        clock.advance(2 * FORGIVEN_EVERY);
        assert!(!offenders.is_one_more_too_many(client(limit)));
        assert_eq!(offenders.refusals.len(), 1);
    }

    #[test]
    fn places_are_bounded_for_one_client_and_for_all_and_given_back() {
        let (patience, _shutdown) = patience();
        let mut held: Vec<Held> = std::iter::from_fn(|| patience.hold(client(1))).take(HELD_MAX).collect();
        assert_eq!((held.len(), patience.held()), (HELD_PER_CLIENT_MAX, HELD_PER_CLIENT_MAX));
        held.extend((2..).map_while(|number| patience.hold(client(number))).take(HELD_MAX));
        assert_eq!((held.len(), patience.held()), (HELD_MAX, HELD_MAX));
        held.truncate(1);
        assert_eq!((patience.held(), patience.0.held_of.len()), (1, 1));
        held.clear();
        assert_eq!((patience.held(), patience.0.held_of.len()), (0, 0));
        assert!(patience.hold(client(1)).is_some());
    }

    #[tokio::test]
    async fn a_stop_lets_go_what_was_held_before_it_and_the_last_stream_what_came_after() {
        let (patience, shutdown) = patience();
        let mut context = Context::from_waker(Waker::noop());
        let before = patience.hold(client(1)).expect("a place");
        let mut waits = Box::pin(before.let_go());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        shutdown.advance(Stage::EndStreams);
        waits.await;
        let after = patience.hold(client(1)).expect("a place");
        let mut waits = Box::pin(after.let_go());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        patience.hurry();
        waits.await;
        assert!(patience.hold(client(1)).is_none());
    }
}
