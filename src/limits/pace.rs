//! Bytes out per time: all streams of a client share one measure, and wait where it is full.

use std::time::Duration;

use dashmap::DashMap;
use tokio::time::Instant;

use crate::model::ClientKey;

/// Clients that are remembered. Beyond it those who owe nothing any more are forgotten, and then nobody new is paced.
const CLIENTS_MAX: usize = 65_536;
/// What may be sent at once after a silence.
const BURST: Duration = Duration::from_secs(1);
/// Longest wait: the rate may be raised meanwhile. Who has waited asks again.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Most that a client owes, as time: it has sent its streams so much at once only by having very many of them.
const OWED_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub(super) struct Pace(DashMap<ClientKey, Owed>);

#[derive(Debug)]
struct Owed {
    /// When all that the client was sent would have been sent at its rate.
    paid: Instant,
    bytes_per_second: u32,
}

impl Pace {
    /// Counts these bytes, which were sent. How long to wait before more.
    pub(super) fn wait(&self, client: &ClientKey, bytes_per_second: u32, bytes: u64) -> Option<Duration> {
        self.wait_at(Instant::now(), client, bytes_per_second, bytes)
    }

    fn wait_at(&self, now: Instant, client: &ClientKey, bytes_per_second: u32, bytes: u64) -> Option<Duration> {
        if bytes_per_second == 0 {
            return None;
        }
        if self.0.len() >= CLIENTS_MAX && !self.0.contains_key(client) {
            self.0.retain(|_, owed| owed.paid > now);
            if self.0.len() >= CLIENTS_MAX {
                return None;
            }
        }
        let mut owed = self.0.entry(client.clone()).or_insert(Owed { paid: now, bytes_per_second });
        // The same bytes, at the rate of today.
        let of_before = owed.paid.saturating_duration_since(now).as_secs_f64() * f64::from(owed.bytes_per_second);
        let seconds = (of_before + bytes as f64) / f64::from(bytes_per_second);
        let time = Duration::try_from_secs_f64(seconds).unwrap_or(OWED_MAX).min(OWED_MAX);
        *owed = Owed { paid: now + time, bytes_per_second };
        let wait = time.saturating_sub(BURST).min(WAIT_MAX);
        (!wait.is_zero()).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_free_and_then_it_is_the_rate_for_all_streams_together() {
        let (pace, start) = (Pace::default(), Instant::now());
        let client = ClientKey::of([192, 0, 2, 1].into(), 32, 64);
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(pace.wait_at(at(0), &client, 0, 1 << 30), None, "not paced");
        assert_eq!(pace.wait_at(at(0), &client, 1_000, 1_000), None);
        assert_eq!(pace.wait_at(at(0), &client, 1_000, 500), Some(Duration::from_millis(500)));
        assert_eq!(pace.wait_at(at(0), &client, 1_000, 500), Some(Duration::from_millis(1_000)));
        assert_eq!(pace.wait_at(at(1_000), &client, 1_000, 0), None);
        let other = ClientKey::of([192, 0, 2, 2].into(), 32, 64);
        assert_eq!(pace.wait_at(at(0), &other, 1_000, 1_000), None);
        assert_eq!(pace.wait_at(at(0), &other, 1, 1 << 40), Some(WAIT_MAX), "never longer at once");
    }

    #[test]
    fn what_is_owed_is_waited_for_in_several_waits_and_at_the_rate_of_today() {
        let (pace, start) = (Pace::default(), Instant::now());
        let client = ClientKey::of([192, 0, 2, 1].into(), 32, 64);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(pace.wait_at(at(0), &client, 1_000, 61_000), Some(WAIT_MAX));
        assert_eq!(pace.wait_at(at(30), &client, 1_000, 0), Some(WAIT_MAX));
        assert_eq!(pace.wait_at(at(58), &client, 1_000, 0), Some(Duration::from_secs(2)));
        assert_eq!(pace.wait_at(at(58), &client, 2_000, 0), Some(Duration::from_millis(500)));
        assert_eq!(pace.wait_at(at(60), &client, 2_000, 0), None);
    }
}
