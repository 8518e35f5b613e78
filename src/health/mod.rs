//! Whether the service does for its clients what it is there for, as one of its clients sees it.
//!
//! - this page: [`Health`], the verdict that holds now; looked at every second, whoever asks
//! - `judge` the rules, on one page; `state` what can be said
//! - `canary` an event that makes the whole trip, with places of its own where the host is full; `trip` what became of it,
//!   `trips` of those before it
//! - `survey` asks the log how it is; `lags` how late the tail is in each partition
//! - `seen` all of that at one moment: partitions, and streams over them; `report` what is told of it, `gauges` as numbers
//! - `options` the section
//!
//! Does not know how the server is built: it posts and reads as a client, with the address and the secret that it is given.

mod canary;
mod gauges;
mod judge;
#[cfg(test)]
mod judge_test;
mod lags;
mod options;
mod report;
mod seen;
mod state;
mod survey;
mod trip;
mod trips;
#[cfg(test)]
mod watch_test;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use self::judge::{Facts, Judged};
use self::seen::Seen;
use self::state::Alarm;
use self::survey::Surveys;
use self::trips::Trips;
use crate::catalog::Live;
use crate::hub::Hub;
use crate::intake::Intake;
use crate::limits::Limits;
use crate::log::Log;
use crate::metrics::VERDICT_CHANGES;
use crate::model::Timestamp;
use crate::shutdown::{Stage, Stop};

pub use self::canary::{Canary, Parts, SECRET_HEADER, Secret};
pub use self::options::{CANARY_EVERY_LEAST, Options};
pub use self::report::{CanaryReport, Few, Named, Part, Report, StreamReport, Streams};
pub use self::state::State;
pub use self::trip::{Step, Trip};

/// How often everything is looked at, whether somebody asks or not.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look that is older is not believed: who asks looks himself. Nobody who asks often makes more work than that.
const LOOK_OLD: Duration = Duration::from_secs(5);

/// A state, since when, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub state: State,
    pub since: Timestamp,
    pub cause: String,
    /// What to do; empty where there is nothing to be done.
    pub cure: &'static str,
    /// Others' words, which may name what is internal: for operators. Empty where there are none.
    pub detail: String,
}

/// What is watched.
pub struct Sides {
    pub limits: Limits,
    pub catalog: Live,
    pub hub: Hub,
    pub intake: Arc<Intake>,
    pub log: Arc<dyn Log>,
    /// Whether this instance has streams at all.
    pub gives_out: bool,
}

/// The verdict that holds now. Cheap to clone.
#[derive(Clone)]
pub struct Health(Arc<Shared>);

struct Shared {
    sides: Sides,
    options: Options,
    started_at: Instant,
    trips: Mutex<Trips>,
    surveys: Mutex<Surveys>,
    seen: ArcSwap<Seen>,
    /// Locked before what is judged is looked up (`trips`, `surveys`): judgements stand in the order of their facts.
    last: Mutex<Verdict>,
    /// One look at a time, so that none puts back what a later one has seen.
    looking: Mutex<()>,
    /// A canary has failed: the log is to be asked now.
    doubt: Notify,
    /// The log was away and has come back: a canary is to prove it now.
    back: Notify,
}

impl Health {
    pub fn new(sides: Sides, options: Options) -> Self {
        let started_at = Instant::now();
        let (since, cause) = (Timestamp::now(), "nothing has been looked at yet".to_owned());
        let last = Verdict { state: State::Starting, since, cause, cure: "", detail: String::new() };
        Self(Arc::new(Shared {
            sides,
            options,
            started_at,
            trips: Mutex::default(),
            surveys: Mutex::default(),
            seen: ArcSwap::from_pointee(Seen::nothing(started_at)),
            last: Mutex::new(last),
            looking: Mutex::default(),
            doubt: Notify::new(),
            back: Notify::new(),
        }))
    }

    /// Watches on the engine, until a stop lets nobody in.
    pub fn start(&self, engine: &Handle, stop: &Stop) {
        engine.spawn(survey::run(self.0.clone(), stop.clone()));
        engine.spawn(watch(self.0.clone(), stop.clone()));
    }

    /// A host that is full is full at once; all else is as old as the last look, which is a second.
    pub fn verdict(&self) -> Verdict {
        if self.0.seen.load().at.elapsed() >= LOOK_OLD {
            self.0.look();
        }
        self.0.verdict()
    }

    /// What there is one of for each stream or partition, as Prometheus reads it.
    pub fn gauges(&self) -> String {
        gauges::written(&self.0.seen.load())
    }

    /// Waits until the log was away and has come back.
    async fn log_is_back(&self) {
        self.0.back.notified().await;
    }

    fn note(&self, trip: Trip) {
        if matches!(trip, Trip::Failed { .. }) {
            self.0.doubt.notify_one();
        }
        self.0.trips.lock().note(trip, Instant::now());
        self.0.verdict();
    }
}

async fn watch(shared: Arc<Shared>, mut stop: Stop) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => shared.look(),
            () = stop.reached(Stage::Finishing) => return,
        }
    }
}

impl Shared {
    fn look(&self) {
        let _alone = self.looking.lock();
        let seen = Seen::look(self, &self.seen.load(), Instant::now());
        gauges::set(self, &seen);
        self.seen.store(Arc::new(seen));
        self.verdict();
    }

    fn verdict(&self) -> Verdict {
        let mut last = self.last.lock();
        let now = Instant::now();
        let mut facts = self.facts_of(&self.seen.load(), now);
        let mut trips = self.trips.lock();
        if trips.log_is_away(judge::is_away(&facts, self.options.stall_after), now) {
            self.back.notify_one();
        }
        facts.trips = trips.told(now);
        drop(trips);
        let judged = judge::of_host(&facts, self.options.stall_after);
        let before = last.state;
        let since = if before == judged.state { last.since } else { Timestamp::now() };
        *last = Verdict::of(judged, since);
        let verdict = last.clone();
        // Under the lock, so that two who ask at once tell of a change once, and of changes in their order.
        gauges::say(verdict.state);
        if before != verdict.state {
            tell(before, &verdict);
        }
        verdict
    }

    /// What was seen, and what has become of it until now.
    fn facts_of(&self, seen: &Seen, now: Instant) -> Facts {
        let (in_use, most) = (self.sides.limits.streams_in_use(), self.sides.limits.streams_total());
        Facts {
            gives_out: self.sides.gives_out,
            running_for: now.saturating_duration_since(self.started_at),
            full: (in_use >= most && self.sides.gives_out).then_some(most),
            trips: self.trips.lock().told(now),
            log: self.surveys.lock().facts(now),
            event_ago: seen.event_at.map(|at| now.saturating_duration_since(at)),
            ..seen.facts.clone()
        }
    }
}

impl Verdict {
    fn of(judged: Judged, since: Timestamp) -> Self {
        let Judged { state, cause, cure, detail } = judged;
        Self { state, since, cause, cure, detail }
    }
}

/// Once for each change.
fn tell(before: State, verdict: &Verdict) {
    let Verdict { state, cause, cure, detail, .. } = verdict;
    metrics::counter!(VERDICT_CHANGES, "to" => state.as_str()).increment(1);
    let before = before.as_str();
    let name = state.as_str();
    match state.alarm() {
        Alarm::Error => tracing::error!(before, cause, detail, cure, "health: {name}"),
        Alarm::Warn => tracing::warn!(before, cause, detail, cure, "health: {name}"),
        Alarm::None => tracing::info!(before, cause, "health: {name}"),
    }
}
