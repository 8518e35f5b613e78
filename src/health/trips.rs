//! What became of the canaries so far.

use std::time::{Duration, Instant};

use super::trip::Trip;

/// The last trips, as far as the verdict needs them.
#[derive(Clone, Debug, Default)]
pub(super) struct Trips {
    last: Option<Trip>,
    /// When one last proved what this instance can prove, and how long it took.
    proven: Option<(Instant, Duration)>,
    /// What that one left unproven, where it had only half of the way.
    half: Option<String>,
    failed_in_a_row: u32,
    /// When the log was last away, until one has proven again what this instance can prove.
    away_at: Option<Instant>,
    is_away: bool,
}

/// The same at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) last: Option<Trip>,
    pub(super) proven_ago: Option<Duration>,
    /// What the last proof left unproven, whatever was lost after it.
    pub(super) half: Option<String>,
    pub(super) failed_in_a_row: u32,
    /// Since the log was away, where nothing has been proven after that.
    pub(super) away_ago: Option<Duration>,
}

impl Trips {
    pub(super) fn note(&mut self, trip: Trip, now: Instant) {
        match &trip {
            Trip::Made { took } | Trip::Half { took, .. } => {
                self.proven = Some((now, *took));
                self.half = match &trip {
                    Trip::Half { missing, .. } => Some(missing.clone()),
                    _ => None,
                };
                self.failed_in_a_row = 0;
                self.away_at = None;
            }
            Trip::Failed { .. } => self.failed_in_a_row = self.failed_in_a_row.saturating_add(1),
        }
        self.last = Some(trip);
    }

    /// Whether the log is away now. What was lost meanwhile says nothing of the time after. True: it has just come back.
    pub(super) fn log_is_away(&mut self, is_away: bool, now: Instant) -> bool {
        if is_away {
            (self.away_at, self.failed_in_a_row) = (Some(now), 0);
        }
        std::mem::replace(&mut self.is_away, is_away) && !is_away
    }

    pub(super) fn told(&self, now: Instant) -> Told {
        let proven_ago = self.proven.map(|(at, _)| now.saturating_duration_since(at));
        let away_ago = self.away_at.map(|at| now.saturating_duration_since(at));
        let (last, half) = (self.last.clone(), self.half.clone());
        Told { last, proven_ago, half, failed_in_a_row: self.failed_in_a_row, away_ago }
    }

    /// How long the last one took that came through.
    pub(super) fn took(&self) -> Option<Duration> {
        self.proven.map(|(_, took)| took)
    }
}
