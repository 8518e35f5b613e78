//! When a consumer is made anew whose thread has failed: at once, and then, if it fails again, after longer and longer. A
//! fault that comes back with the same message would else make consumers without end.

use std::time::{Duration, Instant};

/// From one consumer to the next, where the first one fails at once.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MOST: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Failing {
    /// What has failed since the consumer was made.
    why: Option<&'static str>,
    pause: Duration,
    not_before: Option<Instant>,
}

impl Failing {
    pub(super) fn note(&mut self, why: &'static str) {
        self.why = Some(why);
    }

    /// Whether another consumer is to be made.
    pub(super) fn has_failed(&self) -> bool {
        self.why.is_some()
    }

    /// Another consumer was made.
    pub(super) fn mended(&mut self) {
        self.why = None;
    }

    /// Why another consumer is to be made now.
    pub(super) fn due(&mut self, now: Instant) -> Option<&'static str> {
        let why = self.why.filter(|_| self.not_before.is_none_or(|at| now >= at))?;
        // What has gone well for long is not the same failure any more.
        let goes_on = self.not_before.is_some_and(|at| now < at + PAUSE_MOST);
        self.pause = if goes_on { (self.pause * 2).min(PAUSE_MOST) } else { PAUSE_FIRST };
        self.not_before = Some(now + self.pause);
        Some(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_at_once_is_made_anew_at_once_and_then_ever_more_rarely() {
        let (mut failing, start) = (Failing::default(), Instant::now());
        assert_eq!(failing.due(start), None);
        let mut made_at = vec![];
        for second in 0..600 {
            failing.note("a test");
            if failing.due(start + Duration::from_secs(second)).is_some() {
                made_at.push(second);
                failing.mended();
            }
        }
        assert_eq!(made_at[..8], [0, 1, 3, 7, 15, 31, 63, 123]);
        assert_eq!(made_at.last(), Some(&543), "once a minute");
    }

    #[test]
    fn what_has_gone_well_for_long_is_made_anew_at_once_again() {
        let (mut failing, start) = (Failing::default(), Instant::now());
        for (after, is_due) in [(0, true), (0, false), (1, true), (2, false), (200, true), (200, false), (201, true)] {
            failing.note("a test");
            assert_eq!(failing.due(start + Duration::from_secs(after)).is_some(), is_due, "{after}");
        }
    }
}
