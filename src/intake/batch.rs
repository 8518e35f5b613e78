//! A request's events on their way: what has been decided, and what waits for the log.

use bytes::Bytes;

use super::judge::Judged;
use super::spool::{Fate, Kept};
use super::{Code, Kind, Mode, Outcome, Refusal, Stopped};
use crate::log::AppendError;
use crate::metrics::{self as names, NO_STREAM};
use crate::model::{NewRecord, Timestamp};

/// Violations that one answer tells in full. Past it an event's first one stands for all of its.
const VIOLATIONS_TOLD_MAX: usize = 2_000;

pub(super) struct Batch<'a> {
    mode: Mode,
    /// False: no traffic, but sluice's own.
    counts: bool,
    /// None: not yet decided.
    outcomes: Vec<Option<Outcome>>,
    /// Violations that the answer tells so far.
    told: usize,
    /// One for each record, and the record until the log has it.
    waiting: Vec<(Waiting<'a>, NewRecord)>,
    appended: Vec<Waiting<'a>>,
    counted: Vec<Counted<'a>>,
}

/// An event that waits for the log's answer.
struct Waiting<'a> {
    index: usize,
    event: Bytes,
    /// Of its record.
    bytes: u64,
    stream: &'a str,
}

/// Events of one stream that had the same end. `None`: accepted.
struct Counted<'a> {
    stream: &'a str,
    code: Option<Code>,
    events: u64,
    /// Of accepted ones.
    bytes: u64,
}

impl<'a> Batch<'a> {
    pub(super) fn of(mode: Mode, events: usize) -> Self {
        let outcomes = vec![None; events];
        Self { mode, counts: true, outcomes, told: 0, waiting: Vec::new(), appended: Vec::new(), counted: Vec::new() }
    }

    /// Its events stand in no metric.
    pub(super) fn counts_for_nobody(&mut self) {
        self.counts = false;
    }

    pub(super) fn put(&mut self, index: usize, judged: Result<Judged<'a>, Stopped<'a>>) {
        match judged {
            Ok(Judged { stream, record }) => {
                // A hasty event comes back to nobody, and there may be many in flight.
                let kept = record.value.clone().filter(|_| self.mode != Mode::Hasty);
                let event = kept.unwrap_or_default();
                let bytes = record.value.as_ref().map_or(0, Bytes::len) as u64;
                self.waiting.push((Waiting { index, event, bytes, stream }, record));
            }
            Err(Stopped::Refused { stream, refusal }) => self.refuse(stream.unwrap_or(NO_STREAM), refusal),
            Err(Stopped::Waits { .. }) => {}
        }
    }

    /// What is to be appended, in the request's order.
    pub(super) fn records(&mut self) -> Vec<NewRecord> {
        // Events that had to wait for something were put after those that had not.
        self.waiting.sort_by_key(|(waiting, _)| waiting.index);
        let (appended, records) = std::mem::take(&mut self.waiting).into_iter().unzip();
        self.appended = appended;
        records
    }

    /// What became of each record.
    pub(super) fn answer(&mut self, answers: Vec<Fate>) {
        for (Waiting { index, event, bytes, stream }, answer) in
            std::mem::take(&mut self.appended).into_iter().zip(answers)
        {
            let (code, message) = match answer {
                Ok(kept) => {
                    let outcome = if kept == Kept::Spool { Outcome::Spooled } else { Outcome::Accepted };
                    self.accept(stream, index, bytes, outcome);
                    continue;
                }
                Err(e @ AppendError::TooLarge(_)) => (Code::TooLarge, e.to_string()),
                Err(e @ (AppendError::NotWritten(_) | AppendError::Busy(_))) => (Code::NotWritten, e.to_string()),
                Err(e @ AppendError::Refused(_)) => (Code::LogRefused, e.to_string()),
                Err(e @ AppendError::Unknown(_)) => (Code::Unknown, e.to_string()),
            };
            self.refuse(stream, Refusal { index, code, message, violations: Vec::new(), event });
        }
    }

    /// The events that their schemas refused.
    pub(super) fn invalid(&self) -> impl Iterator<Item = &Refusal> {
        self.outcomes.iter().filter_map(|outcome| match outcome {
            Some(Outcome::Refused(refusal)) if refusal.code.kind() == Kind::Invalid => Some(refusal),
            _ => None,
        })
    }

    /// What was judged well counts as accepted, although nothing was appended.
    pub(super) fn end_dry_run(&mut self) {
        for (Waiting { index, stream, bytes, .. }, _) in std::mem::take(&mut self.waiting) {
            self.accept(stream, index, bytes, Outcome::Accepted);
        }
    }

    /// Counts, and says what became of each event.
    pub(super) fn finish(mut self, events: &[Bytes]) -> Vec<Outcome> {
        // Nothing is accepted for want of a decision.
        for index in 0..self.outcomes.len() {
            if self.outcomes[index].is_none() {
                let event = events.get(index).cloned().unwrap_or_default();
                let (code, message) = (Code::Unknown, "what became of the event is not known".to_owned());
                self.refuse(NO_STREAM, Refusal { index, code, message, violations: Vec::new(), event });
            }
        }
        let outcomes = std::mem::take(&mut self.outcomes).into_iter().flatten().collect();
        if !self.counts {
            return outcomes;
        }
        let mode = match self.mode {
            Mode::Guaranteed => "guaranteed",
            Mode::Hasty => "hasty",
            Mode::DryRun => return outcomes,
        };
        for Counted { stream, code, events, bytes } in self.counted {
            let stream = stream.to_owned();
            match code {
                None => {
                    metrics::gauge!(names::EVENTS_LAST_ACCEPTED).set(Timestamp::now().0 as f64 / 1000.0);
                    metrics::counter!(names::EVENTS_ACCEPTED_BYTES, "stream" => stream.clone()).increment(bytes);
                    metrics::counter!(names::EVENTS_ACCEPTED, "stream" => stream, "mode" => mode)
                }
                Some(code) => {
                    let code = code.as_str();
                    metrics::counter!(names::EVENTS_REFUSED, "code" => code, "stream" => stream, "mode" => mode)
                }
            }
            .increment(events);
        }
        outcomes
    }

    fn accept(&mut self, stream: &'a str, index: usize, bytes: u64, outcome: Outcome) {
        self.count(stream, None, bytes);
        self.outcomes[index] = Some(outcome);
    }

    fn refuse(&mut self, stream: &'a str, mut refusal: Refusal) {
        self.count(stream, Some(refusal.code), 0);
        if self.told > VIOLATIONS_TOLD_MAX {
            refusal.violations.truncate(1);
            if !refusal.violations.is_empty() {
                refusal.message = crate::schema::errors_text(&refusal.violations);
            }
        }
        self.told += refusal.violations.len();
        let index = refusal.index;
        self.outcomes[index] = Some(Outcome::Refused(refusal));
    }

    fn count(&mut self, stream: &'a str, code: Option<Code>, bytes: u64) {
        match self.counted.iter_mut().find(|counted| counted.stream == stream && counted.code == code) {
            Some(counted) => {
                counted.events += 1;
                counted.bytes += bytes;
            }
            None => self.counted.push(Counted { stream, code, events: 1, bytes }),
        }
    }
}
