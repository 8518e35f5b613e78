//! Whether the service does for its clients what it is there for, as one of its clients sees it.
//!
//! - this page: [`Health`], the verdict that holds now, and [`State`], what it can be
//! - `canary` an event that makes the whole trip, with places of its own where the host is full; `trip` what became of it
//! - `options` the section
//!
//! Does not know how the server is built: it posts and reads as a client, with the address and the secret that it is given.

mod canary;
mod options;
mod trip;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::limits::Limits;
use crate::metrics as names;
use crate::model::Timestamp;

pub use self::canary::{Canary, Parts, SECRET_HEADER, Secret};
pub use self::options::{CANARY_EVERY_LEAST, Options};
pub use self::trip::{Step, Trip};

/// What can be said. There is no "unknown": what cannot be proven is unhealthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Streams open.
    Quiet,
    /// This instance gives nothing out, so that there is nothing to be probed.
    NotExposed,
    /// Nothing is known yet.
    Starting,
    /// Every stream that the host may have is in use: nobody else gets in.
    Full,
    /// A stream does not open.
    Stalled,
}

impl State {
    const ALL: [Self; 5] = [Self::Quiet, Self::NotExposed, Self::Starting, Self::Full, Self::Stalled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::NotExposed => "not_exposed",
            Self::Starting => "starting",
            Self::Full => "full",
            Self::Stalled => "stalled",
        }
    }

    pub fn is_healthy(self) -> bool {
        matches!(self, Self::Quiet | Self::NotExposed)
    }

    /// What an operator does about it.
    fn cure(self) -> &'static str {
        match self {
            Self::Quiet | Self::NotExposed => "",
            Self::Starting => "wait some seconds",
            Self::Full => {
                "look who it is (sluice admin clients), deny them (sluice admin deny add) or raise limits.streams_total"
            }
            Self::Stalled => "look into the log of this process; restart it if it says nothing",
        }
    }
}

/// A state, since when, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub state: State,
    pub since: Timestamp,
    pub cause: String,
    /// What to do; empty where there is nothing to be done.
    pub cure: &'static str,
    /// How long the last stream that was tried took to open.
    pub probe_took: Option<Duration>,
}

/// The verdict that holds now. Cheap to clone.
#[derive(Clone)]
pub struct Health(Arc<Shared>);

struct Shared {
    limits: Limits,
    /// Whether this instance has streams at all.
    gives_out: bool,
    last: Mutex<Verdict>,
    last_trip: Mutex<Option<Trip>>,
}

impl Health {
    pub fn new(limits: Limits, gives_out: bool) -> Self {
        let (since, cause) = (Timestamp::now(), String::new());
        let last = Verdict { state: State::Starting, since, cause, cure: "", probe_took: None };
        Self(Arc::new(Shared { limits, gives_out, last: Mutex::new(last), last_trip: Mutex::default() }))
    }

    /// Looked at anew each time that somebody asks: a host that is full is full at once.
    pub fn verdict(&self) -> Verdict {
        let trip = self.0.last_trip.lock().clone();
        let (state, cause) = self.judge(trip.as_ref());
        let probe_took = match trip {
            Some(Trip::Made { took } | Trip::Half { took, .. }) => Some(took),
            Some(Trip::Failed { .. }) | None => None,
        };
        let mut last = self.0.last.lock();
        let since = if last.state == state { last.since } else { Timestamp::now() };
        let verdict = Verdict { state, since, cause, cure: state.cure(), probe_took };
        let before = std::mem::replace(&mut *last, verdict.clone()).state;
        drop(last);
        if before != state {
            tell(before, &verdict);
        }
        verdict
    }

    fn judge(&self, trip: Option<&Trip>) -> (State, String) {
        let (in_use, most) = (self.0.limits.streams_in_use(), self.0.limits.streams_total());
        match trip {
            _ if !self.0.gives_out => (State::NotExposed, "http.serve has no \"out\": nothing is read here".to_owned()),
            Some(Trip::Failed { why, .. }) => (State::Stalled, format!("a canary was lost on its way: {why}")),
            _ if in_use >= most => (State::Full, format!("all {most} streams are in use")),
            Some(Trip::Made { .. } | Trip::Half { .. }) => {
                (State::Quiet, format!("streams open; {in_use} of {most} are in use"))
            }
            None => (State::Starting, "no stream has been tried yet".to_owned()),
        }
    }

    fn note(&self, trip: Trip) {
        *self.0.last_trip.lock() = Some(trip);
        self.verdict();
    }
}

/// Once for each change.
fn tell(before: State, verdict: &Verdict) {
    let Verdict { state, cause, cure, .. } = verdict;
    metrics::counter!(names::VERDICT_CHANGES, "to" => state.as_str()).increment(1);
    for other in State::ALL {
        metrics::gauge!(names::VERDICT, "state" => other.as_str()).set(if other == *state { 1.0 } else { 0.0 });
    }
    let (before, state) = (before.as_str(), state.as_str());
    match verdict.state {
        State::Full | State::Stalled => tracing::error!(before, cause, cure, "health: {state}"),
        State::Starting | State::Quiet | State::NotExposed => tracing::info!(before, cause, "health: {state}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Options;

    #[test]
    fn a_full_host_says_so_at_once_and_no_longer_when_it_is_not() {
        let limits = Limits::none();
        limits.set(Options { streams_total: Some(1), ..Options::unlimited() }).expect("limits");
        let health = Health::new(limits.clone(), true);
        assert_eq!(health.verdict().state, State::Starting);
        health.note(Trip::Made { took: Duration::from_millis(3) });
        let before = health.verdict();
        assert_eq!((before.state, before.probe_took), (State::Quiet, Some(Duration::from_millis(3))));
        let place = limits.enter(&limits.asker([192, 0, 2, 1].into(), None), false).expect("a place");
        let full = health.verdict();
        assert_eq!(full.state, State::Full);
        assert!(full.cure.contains("sluice admin clients") && !full.state.is_healthy());
        health.note(Trip::Failed { at: Step::Open, why: "refused".into() });
        assert_eq!(health.verdict().state, State::Stalled, "what does not open is worse than full");
        drop(place);
        health.note(Trip::Made { took: Duration::ZERO });
        assert_eq!(health.verdict().state, State::Quiet);
    }

    #[test]
    fn an_instance_that_gives_nothing_out_is_not_called_broken() {
        assert_eq!(Health::new(Limits::none(), false).verdict().state, State::NotExposed);
    }
}
