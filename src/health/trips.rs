//! What became of the canaries so far.

use std::time::{Duration, Instant};

use super::trip::Trip;

/// The last trips, as far as the verdict needs them.
#[derive(Clone, Debug, Default)]
pub(super) struct Trips {
    last: Option<Trip>,
    /// When one last proved what this instance can prove, and how long it took.
    proven: Option<(Instant, Duration)>,
    failed_in_a_row: u32,
}

/// The same at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) last: Option<Trip>,
    pub(super) proven_ago: Option<Duration>,
    pub(super) failed_in_a_row: u32,
}

impl Trips {
    pub(super) fn note(&mut self, trip: Trip, now: Instant) {
        match &trip {
            Trip::Made { took } | Trip::Half { took, .. } => {
                self.proven = Some((now, *took));
                self.failed_in_a_row = 0;
            }
            Trip::Failed { .. } => self.failed_in_a_row = self.failed_in_a_row.saturating_add(1),
        }
        self.last = Some(trip);
    }

    pub(super) fn told(&self, now: Instant) -> Told {
        let proven_ago = self.proven.map(|(at, _)| now.saturating_duration_since(at));
        Told { last: self.last.clone(), proven_ago, failed_in_a_row: self.failed_in_a_row }
    }

    /// How long the last one took that came through.
    pub(super) fn took(&self) -> Option<Duration> {
        self.proven.map(|(_, took)| took)
    }
}
