//! Bytes out per time: all streams of a client share one measure, and wait where it is full.

use std::time::{Duration, Instant};

use dashmap::DashMap;

use crate::model::ClientKey;

/// Clients that are remembered. Beyond it those who owe nothing any more are forgotten, and then nobody new is paced.
const CLIENTS_MAX: usize = 65_536;
/// What may be sent at once after a silence.
const BURST: Duration = Duration::from_secs(1);
/// Longest wait: the rate may be raised meanwhile.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// For each client the time at which all that it was sent would have been sent at its rate.
#[derive(Debug, Default)]
pub(super) struct Pace(DashMap<ClientKey, Instant>);

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
            self.0.retain(|_, paid| *paid > now);
            if self.0.len() >= CLIENTS_MAX {
                return None;
            }
        }
        let cost = Duration::from_secs_f64(bytes as f64 / f64::from(bytes_per_second)).min(WAIT_MAX);
        let mut paid = self.0.entry(client.clone()).or_insert(now);
        // Not further into the future than the longest wait: whoever was sent much under another rate begins anew.
        *paid = ((*paid).max(now) + cost).min(now + BURST + WAIT_MAX);
        let wait = paid.duration_since(now).saturating_sub(BURST);
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
        assert_eq!(pace.wait_at(at(0), &other, 1, 1 << 40), Some(WAIT_MAX), "never longer");
    }
}
