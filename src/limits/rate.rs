//! What comes per time, of each client.

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::{DashMapStateStore, ShrinkableKeyedStateStore};
use governor::{Quota, RateLimiter};
use parking_lot::{Mutex, RwLock};

use crate::model::ClientKey;

/// Clients that are remembered. Beyond it nobody new is; those who are known are counted on.
const CLIENTS_MAX: usize = 65_536;
/// How often those are forgotten who have all of their quota again.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Quotas that are in use at once: that of everybody, and those of overrides. The oldest go first.
const QUOTAS_MAX: usize = 1_024;

/// One quota for each of many clients, in bounded memory.
#[derive(Debug)]
pub struct Keyed<C: Clock = DefaultClock> {
    clock: C,
    limiter: RateLimiter<ClientKey, Known, C, NoOpMiddleware<C::Instant>>,
    swept: Mutex<C::Instant>,
}

/// What the clients that are known have left. Somebody new, where there are too many of them, always has all.
#[derive(Debug, Default)]
struct Known(DashMapStateStore<ClientKey>);

impl StateStore for Known {
    type Key = ClientKey;

    fn measure_and_replace<T, F, E>(&self, key: &ClientKey, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        match self.0.len() >= CLIENTS_MAX && !self.0.contains_key(key) {
            true => f(None).map(|(answer, _)| answer),
            false => self.0.measure_and_replace(key, f),
        }
    }
}

impl ShrinkableKeyedStateStore<ClientKey> for Known {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.retain_recent(drop_below);
    }

    fn shrink_to_fit(&self) {
        self.0.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<C: Clock + Clone> Keyed<C> {
    pub fn new(quota: Quota, clock: C) -> Self {
        let swept = Mutex::new(clock.now());
        Self { limiter: RateLimiter::new(quota, Known::default(), clock.clone()), clock, swept }
    }

    /// Takes so many of what the client has; more than a whole burst counts as one. `Err`: when there is enough.
    pub fn spend(&self, client: &ClientKey, cells: NonZeroU32) -> Result<(), Duration> {
        self.sweep();
        match self.limiter.check_key_n(client, cells) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(not_until.wait_time_from(self.clock.now())),
            Err(burst) => NonZeroU32::new(burst.0).map_or(Ok(()), |burst| self.spend(client, burst)),
        }
    }

    /// Whether nobody new is remembered.
    pub fn is_full(&self) -> bool {
        self.limiter.len() >= CLIENTS_MAX
    }

    /// When somebody comes, and not by a timer: where nobody does there is nothing to forget.
    fn sweep(&self) {
        let now = self.clock.now();
        // Whoever does not get the lock leaves it to the one who has it.
        if let Some(mut swept) = self.swept.try_lock()
            && now.duration_since(*swept) >= SWEEP_EVERY.into()
        {
            *swept = now;
            self.limiter.retain_recent();
        }
    }
}

/// One kind of rate, with the quotas that clients have of it.
#[derive(Debug)]
pub(super) struct Rates {
    per: Duration,
    /// How many times a quota may come at once.
    burst: NonZeroU32,
    of_quota: RwLock<Vec<(NonZeroU32, Arc<Keyed>)>>,
}

impl Rates {
    pub(super) fn new(per: Duration, burst: NonZeroU32) -> Self {
        Self { per, burst, of_quota: RwLock::default() }
    }

    /// Takes the rest of what one thing costs: up to the end of `cells`, where those before their start have been taken.
    /// It costs a burst at most, in however many steps. `Err`: when there is enough for all of it, anew.
    pub(super) fn spend(&self, client: &ClientKey, quota: NonZeroU32, cells: Range<u64>) -> Result<(), Duration> {
        let burst = quota.saturating_mul(self.burst);
        let within = |cells: u64| u32::try_from(cells).unwrap_or(u32::MAX).min(burst.get());
        let taken = within(cells.start);
        let Some(rest) = NonZeroU32::new(within(cells.end).saturating_sub(taken)) else { return Ok(()) };
        // Where so many come at once that nobody new is remembered, the limits of the host hold. And: it will have to take
        // again what it has taken for nothing.
        let again = self.per.mul_f64(f64::from(taken) / f64::from(quota.get()));
        self.of(quota).spend(client, rest).map_err(|wait| wait + again)
    }

    fn of(&self, quota: NonZeroU32) -> Arc<Keyed> {
        let found = |rates: &[(NonZeroU32, Arc<Keyed>)]| {
            rates.iter().find(|(of, _)| *of == quota).map(|(_, keyed)| keyed.clone())
        };
        if let Some(keyed) = found(&self.of_quota.read()) {
            return keyed;
        }
        let mut rates = self.of_quota.write();
        if let Some(keyed) = found(&rates) {
            return keyed;
        }
        if rates.len() == QUOTAS_MAX {
            rates.remove(0);
        }
        let every = (self.per / quota.get()).max(Duration::from_nanos(1));
        let of = Quota::with_period(every).unwrap_or(Quota::per_second(quota));
        let keyed = Arc::new(Keyed::new(of.allow_burst(quota.saturating_mul(self.burst)), DefaultClock::default()));
        rates.push((quota, keyed.clone()));
        keyed
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn client(number: u32) -> ClientKey {
        ClientKey::of(std::net::Ipv4Addr::from_bits(number).into(), 32, 64)
    }

    const ONE: NonZeroU32 = NonZeroU32::MIN;

    #[test]
    fn a_client_has_its_quota_at_once_and_then_as_time_brings_it() {
        let clock = FakeRelativeClock::default();
        let of = |number| NonZeroU32::new(number).expect("more than none");
        let quota = Quota::with_period(Duration::from_millis(500)).expect("longer than nothing").allow_burst(of(120));
        let keyed = Keyed::new(quota, clock.clone());
        let opened = (0..200).filter(|_| keyed.spend(&client(1), ONE).is_ok()).count();
        assert_eq!(opened, 120);
        assert_eq!(keyed.spend(&client(1), ONE), Err(Duration::from_millis(500)));
        assert_eq!(keyed.spend(&client(2), ONE), Ok(()), "another has its own");
        clock.advance(Duration::from_millis(500));
        assert_eq!(keyed.spend(&client(1), ONE), Ok(()));
        assert!(keyed.spend(&client(1), ONE).is_err());
    }

    #[test]
    fn what_is_larger_than_a_burst_costs_a_burst() {
        let clock = FakeRelativeClock::default();
        let burst = NonZeroU32::new(10).expect("more than none");
        let keyed = Keyed::new(Quota::per_second(ONE).allow_burst(burst), clock.clone());
        let large = NonZeroU32::new(1 << 30).expect("more than none");
        assert_eq!(keyed.spend(&client(1), large), Ok(()));
        assert_eq!(keyed.spend(&client(1), large), Err(Duration::from_secs(10)));
    }

    #[test]
    fn those_who_have_all_again_are_forgotten_and_beyond_the_limit_only_those_who_are_known_are_counted() {
        let clock = FakeRelativeClock::default();
        let keyed = Keyed::new(Quota::per_second(ONE), clock.clone());
        let limit = u32::try_from(CLIENTS_MAX).expect("a small number");
        assert!((0..limit).all(|number| keyed.spend(&client(number), ONE).is_ok()));
        assert!(keyed.is_full());
        assert!((0..3).all(|_| keyed.spend(&client(limit), ONE).is_ok()), "somebody new");
        assert!(keyed.spend(&client(0), ONE).is_err(), "somebody known");
        assert_eq!(keyed.limiter.len(), CLIENTS_MAX);
        clock.advance(SWEEP_EVERY);
        assert_eq!(keyed.spend(&client(limit), ONE), Ok(()));
        assert_eq!(keyed.limiter.len(), 1);
    }

    #[test]
    fn quotas_come_and_go_in_bounded_memory() {
        let rates = Rates::new(Duration::from_secs(1), ONE);
        for quota in 1..2_000 {
            let quota = NonZeroU32::new(quota).expect("more than none");
            assert!(rates.spend(&client(1), quota, 0..1).is_ok());
        }
        assert_eq!(rates.of_quota.read().len(), QUOTAS_MAX);
        let newest = NonZeroU32::new(1_999).expect("more than none");
        assert!(rates.of_quota.read().iter().any(|(quota, _)| *quota == newest), "the oldest have gone");
    }

    #[test]
    fn what_is_counted_in_steps_costs_a_burst_at_most_and_is_told_to_wait_for_all_of_it() {
        let of = |number| NonZeroU32::new(number).expect("more than none");
        let rates = Rates::new(Duration::from_secs(1_000), of(10));
        let spend = |number, cells| rates.spend(&client(number), of(100), cells);
        assert_eq!((spend(1, 0..400), spend(1, 400..5_000)), (Ok(()), Ok(())));
        assert_eq!(spend(1, 5_000..9_000), Ok(()), "it has cost a burst");
        assert_eq!((spend(2, 0..300), spend(2, 0..400)), (Ok(()), Ok(())));
        // 300 are left. 600 more are 300 too many, and 400 are to be taken anew: at ten seconds each.
        let wait = spend(2, 400..1_000).expect_err("a wait").as_secs_f64();
        assert!((6_990.0..=7_001.0).contains(&wait), "{wait}");
    }
}
