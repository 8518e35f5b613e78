//! Asks the source again: on a timer, and for somebody who misses a stream. One attempt at a time, which all who wait
//! share. An answer that is not taken changes nothing but what is counted.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, Shared};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use super::answer::{self, Refused};
use super::copy::{Copy, Kept};
use super::options::REFRESH_DEFAULT;
use super::source::Source;
use super::{Catalog, OpenError, Options, Unavailable, of_service};
use crate::metrics as names;
use crate::model::Timestamp;

/// After an attempt, what it said holds for so long for whoever misses a stream (or until the next refresh, where
/// that comes sooner).
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Longest wait of somebody who misses a stream.
const LOOK_AGAIN_AT_MOST: Duration = Duration::from_secs(3);
/// Longest wait of an operator who has it asked.
const ASK_NOW_AT_MOST: Duration = Duration::from_secs(20);
/// Attempts at the start, the wait after the first of them (it doubles), and the time for all of them.
const START_ATTEMPTS: u32 = 3;
const START_WAIT: Duration = Duration::from_millis(500);
const START_AT_MOST: Duration = Duration::from_secs(30);
/// How often the copy on disk is written anew although the streams are the same: its age is the catalogue's after a start.
const COPY_EVERY: Duration = Duration::from_secs(600);
/// How often the age is told.
const AGE_EVERY: Duration = Duration::from_secs(5);
/// Faults that one log line names, and characters of each.
const FAULTS_TOLD_MAX: usize = 20;
const FAULT_CHARS_MAX: usize = 200;

type Attempt = Shared<BoxFuture<'static, Result<(), Unavailable>>>;

#[derive(Debug)]
pub(super) struct Refresher {
    now: Arc<watch::Sender<Arc<Catalog>>>,
    source: Source,
    copy: Copy,
    engine: Handle,
    every: Duration,
    shrink_max_percent: u8,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    under_way: Option<Attempt>,
    last: Option<(Instant, Result<(), Unavailable>)>,
    /// When the source gave what holds now.
    good_at: Option<Timestamp>,
    /// The source has answered since the start.
    answered: bool,
    copied_at: Option<Instant>,
    /// What the operator has been told of entries that cannot be used.
    left_out: Vec<String>,
}

impl Refresher {
    /// With a catalogue: the source's, or the copy's while the source does not answer.
    pub(super) async fn start(
        source: Source,
        copy: Copy,
        options: &Options,
        engine: &Handle,
    ) -> Result<Arc<Self>, OpenError> {
        let reading = copy.clone();
        let kept = engine.spawn_blocking(move || reading.read()).await.unwrap_or_default();
        let good_at = kept.as_ref().map(Kept::fetched_at);
        let streams = kept.map(|kept| of_service(kept.streams, source.service())).unwrap_or_default();
        let (catalog, _) = Catalog::of_entries(streams, None);
        let refresher = Arc::new(Self {
            now: Arc::new(watch::Sender::new(Arc::new(catalog))),
            source,
            copy,
            engine: engine.clone(),
            every: options.refresh,
            shrink_max_percent: options.shrink_max_percent,
            state: Mutex::new(State { good_at, ..State::default() }),
        });
        refresher.first().await?;
        engine.spawn(keep_fresh(Arc::downgrade(&refresher)));
        engine.spawn(tell_the_age(Arc::downgrade(&refresher)));
        Ok(refresher)
    }

    pub(super) fn now(&self) -> Arc<watch::Sender<Arc<Catalog>>> {
        self.now.clone()
    }

    /// `Ok` if the catalogue of now can be believed about what it does not have.
    pub(super) async fn look_again(self: &Arc<Self>) -> Result<(), Unavailable> {
        let attempt = {
            let mut state = self.state.lock();
            // Asked once for good, and it has answered.
            if self.every.is_zero() && state.answered {
                return Ok(());
            }
            if let Some(said) = state.said_within(ASK_AGAIN_AFTER.min(self.pause())) {
                return said;
            }
            self.attempt(&mut state)
        };
        let late = || Unavailable(format!("its source takes longer than {LOOK_AGAIN_AT_MOST:?}"));
        tokio::time::timeout(LOOK_AGAIN_AT_MOST, attempt).await.unwrap_or_else(|_| Err(late()))
    }

    /// An attempt that begins now: the one under way may have been answered before the change that is looked for.
    pub(super) async fn ask_now(self: &Arc<Self>) -> Result<(), Unavailable> {
        let under_way = self.state.lock().under_way.clone();
        let ask = async {
            if let Some(under_way) = under_way {
                // What it says is told where it is found out.
                let _ = under_way.await;
            }
            self.refresh().await
        };
        let late = || Unavailable(format!("it takes longer than {ASK_NOW_AT_MOST:?}"));
        tokio::time::timeout(ASK_NOW_AT_MOST, ask).await.unwrap_or_else(|_| Err(late()))
    }

    async fn first(self: &Arc<Self>) -> Result<(), OpenError> {
        let over_at = Instant::now() + START_AT_MOST;
        let late = || Unavailable(format!("it takes longer than {START_AT_MOST:?}"));
        let mut wait = START_WAIT;
        for attempt in 1..=START_ATTEMPTS {
            let answered = tokio::time::timeout_at(over_at, self.refresh()).await.unwrap_or_else(|_| Err(late()));
            let Err(Unavailable(why)) = answered else { return Ok(()) };
            if attempt < START_ATTEMPTS {
                tokio::time::sleep(wait).await;
                wait *= 2;
            } else if self.now.borrow().count() == 0 {
                return Err(OpenError::Away { address: self.source.shown(), why });
            }
        }
        tracing::warn!(
            age_seconds = self.age_seconds(),
            "the catalogue is the copy of an earlier run, and may be out of date"
        );
        self.tell_size();
        Ok(())
    }

    fn refresh(self: &Arc<Self>) -> Attempt {
        self.attempt(&mut self.state.lock())
    }

    /// The one under way, or a new one. On the engine: a caller that leaves ends nothing.
    fn attempt(self: &Arc<Self>, state: &mut State) -> Attempt {
        if let Some(under_way) = &state.under_way
            && under_way.peek().is_none()
        {
            return under_way.clone();
        }
        let this = self.clone();
        let task = self.engine.spawn(async move { this.run().await });
        let attempt = task.map(|ended| ended.unwrap_or_else(|e| Err(Unavailable(e.to_string()))));
        let attempt = attempt.boxed().shared();
        state.under_way = Some(attempt.clone());
        attempt
    }

    async fn run(&self) -> Result<(), Unavailable> {
        let outcome = self.source.fetch().await.and_then(|entries| self.take(entries));
        let label = outcome.as_ref().map_or_else(Refused::label, |()| "ok");
        metrics::counter!(names::CATALOG_REFRESHES, "result" => label).increment(1);
        if outcome.is_ok() {
            self.keep_a_copy().await;
        }
        let outcome = outcome.map_err(|refused| Unavailable(refused.to_string()));
        let mut state = self.state.lock();
        self.tell_operator(state.last.as_ref().and_then(|(_, last)| last.as_ref().err()), &outcome);
        state.last = Some((Instant::now(), outcome.clone()));
        state.under_way = None;
        drop(state);
        self.tell_age();
        outcome
    }

    /// Swaps the catalogue, or refuses the answer whole. Entries that cannot be used hold up no others.
    fn take(&self, entries: Map<String, Value>) -> Result<(), Refused> {
        let before = self.now.borrow().clone();
        let (catalog, faults) = Catalog::of_entries(of_service(entries, self.source.service()), Some(&before));
        answer::check_size(before.count(), catalog.count(), self.shrink_max_percent)?;
        let mut state = self.state.lock();
        state.good_at = Some(Timestamp::now());
        state.answered = true;
        if faults != state.left_out {
            tell_faults(&faults);
            state.left_out = faults;
        }
        if !catalog.is_made_of_the_same(&before) {
            state.copied_at = None;
            self.now.send_replace(Arc::new(catalog));
        }
        drop(state);
        self.tell_size();
        Ok(())
    }

    async fn keep_a_copy(&self) {
        let fetched_at = {
            let mut state = self.state.lock();
            if state.copied_at.is_some_and(|at| at.elapsed() < COPY_EVERY) {
                return;
            }
            state.copied_at = Some(Instant::now());
            state.good_at.unwrap_or_else(Timestamp::now)
        };
        let (copy, catalog) = (self.copy.clone(), self.now.borrow().clone());
        let written = self.engine.spawn_blocking(move || copy.write(catalog.entries.clone(), fetched_at)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the copy of the catalogue cannot be written: a start needs its source then");
        }
    }

    /// Until the next attempt of the timer.
    fn pause(&self) -> Duration {
        if self.every.is_zero() { REFRESH_DEFAULT } else { self.every }
    }

    fn age_seconds(&self) -> f64 {
        let good_at = self.state.lock().good_at;
        let ms = good_at.map_or(0, |good_at| Timestamp::now().0.saturating_sub(good_at.0).max(0));
        ms as f64 / 1_000.0
    }

    fn tell_age(&self) {
        metrics::gauge!(names::CATALOG_AGE_SECONDS).set(self.age_seconds());
    }

    fn tell_size(&self) {
        metrics::gauge!(names::CATALOG_STREAMS).set(self.now.borrow().count() as f64);
        metrics::gauge!(names::CATALOG_STREAMS_LEFT_OUT).set(self.state.lock().left_out.len() as f64);
    }

    /// Once when it begins, once for every other cause, and once when it is over.
    fn tell_operator(&self, before: Option<&Unavailable>, outcome: &Result<(), Unavailable>) {
        let address = self.source.shown();
        match (before, outcome) {
            (None, Err(why)) => tracing::warn!(%address, "the catalogue stays as it is: {}", why.0),
            (Some(before), Err(why)) if before != why => {
                tracing::warn!(%address, "the catalogue stays as it is: {}", why.0);
            }
            (Some(_), Ok(())) => tracing::info!(%address, "the catalogue is up to date again"),
            _ => {}
        }
    }
}

impl State {
    /// What the last attempt said, if it is not longer ago.
    fn said_within(&self, within: Duration) -> Option<Result<(), Unavailable>> {
        let (at, said) = self.last.as_ref()?;
        (at.elapsed() < within).then(|| said.clone())
    }
}

/// On a timer, a little irregular so that servers started together do not all ask at once. Ends with who needs it, or
/// with the first answer where one is all that is wanted.
async fn keep_fresh(refresher: Weak<Refresher>) {
    loop {
        let Some(pause) = refresher.upgrade().map(|refresher| refresher.pause()) else { return };
        tokio::time::sleep(pause.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
        let Some(refresher) = refresher.upgrade() else { return };
        if refresher.every.is_zero() && refresher.state.lock().answered {
            return;
        }
        // What it says is told where it is found out.
        let _ = refresher.refresh().await;
    }
}

/// It grows also while nothing is asked.
async fn tell_the_age(refresher: Weak<Refresher>) {
    while let Some(alive) = refresher.upgrade() {
        alive.tell_age();
        drop(alive);
        tokio::time::sleep(AGE_EVERY).await;
    }
}

fn tell_faults(faults: &[String]) {
    if faults.is_empty() {
        return tracing::info!("every stream of the catalogue can be used again");
    }
    let short = |fault: &String| fault.chars().take(FAULT_CHARS_MAX).collect::<String>();
    let told: Vec<String> = faults.iter().take(FAULTS_TOLD_MAX).map(short).collect();
    tracing::warn!(
        count = faults.len(),
        "streams whose settings make no sense are left out, or keep what they had: {}",
        told.join("; ")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_an_attempt_said_holds_for_a_while() {
        let last = Some((Instant::now(), Err(Unavailable("away".into()))));
        let state = State { last, ..State::default() };
        assert_eq!(State::default().said_within(ASK_AGAIN_AFTER), None);
        tokio::time::advance(ASK_AGAIN_AFTER - Duration::from_millis(1)).await;
        assert!(state.said_within(ASK_AGAIN_AFTER).is_some_and(|said| said.is_err()));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(state.said_within(ASK_AGAIN_AFTER), None);
    }
}
