//! A request's events on their way: what has been decided, and what waits for the log.

use bytes::Bytes;

use super::judge::Judged;
use super::{Code, Kind, Mode, Outcome, Refusal, Stopped};
use crate::log::{AppendError, Appended};
use crate::metrics as names;
use crate::model::{NewRecord, Timestamp};

/// The label of events whose stream is not in the catalogue, or was not asked for.
const NO_STREAM: &str = "-";

pub(super) struct Batch<'a> {
    mode: Mode,
    outcomes: Vec<Outcome>,
    /// One for each record, and the record until the log has it.
    waiting: Vec<(Waiting<'a>, NewRecord)>,
    appended: Vec<Waiting<'a>>,
    counted: Vec<Counted<'a>>,
}

/// An event that waits for the log's answer.
struct Waiting<'a> {
    index: usize,
    event: Bytes,
    stream: &'a str,
}

/// Events of one stream that had the same end. `None`: accepted.
struct Counted<'a> {
    stream: &'a str,
    code: Option<Code>,
    events: u64,
}

impl<'a> Batch<'a> {
    pub(super) fn of(mode: Mode, events: usize) -> Self {
        let outcomes = vec![Outcome::Accepted; events];
        Self { mode, outcomes, waiting: Vec::new(), appended: Vec::new(), counted: Vec::new() }
    }

    pub(super) fn put(&mut self, index: usize, judged: Result<Judged<'a>, Stopped<'a>>) {
        match judged {
            Ok(Judged { stream, record }) => {
                let event = record.value.clone().unwrap_or_default();
                self.waiting.push((Waiting { index, event, stream }, record));
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

    /// What the log said of each record.
    pub(super) fn answer(&mut self, answers: Vec<Result<Appended, AppendError>>) {
        for (Waiting { index, event, stream }, answer) in std::mem::take(&mut self.appended).into_iter().zip(answers) {
            let (code, message) = match answer {
                Ok(_) => {
                    self.count(stream, None);
                    continue;
                }
                Err(e @ AppendError::TooLarge(_)) => (Code::TooLarge, e.to_string()),
                Err(e @ AppendError::NotWritten(_)) => (Code::NotWritten, e.to_string()),
                Err(e @ AppendError::Unknown(_)) => (Code::Unknown, e.to_string()),
            };
            self.refuse(stream, Refusal { index, code, message, violations: Vec::new(), event });
        }
    }

    /// The events that their schemas refused.
    pub(super) fn invalid(&self) -> impl Iterator<Item = &Refusal> {
        self.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Refused(refusal) if refusal.code.kind() == Kind::Invalid => Some(refusal),
            _ => None,
        })
    }

    /// Counts, and says what became of each event.
    pub(super) fn finish(self) -> Vec<Outcome> {
        let mode = match self.mode {
            Mode::Guaranteed => "guaranteed",
            Mode::Hasty => "hasty",
            Mode::DryRun => return self.outcomes,
        };
        for Counted { stream, code, events } in self.counted {
            let stream = stream.to_owned();
            match code {
                None => {
                    metrics::gauge!(names::EVENTS_LAST_ACCEPTED).set(Timestamp::now().0 as f64 / 1000.0);
                    metrics::counter!(names::EVENTS_ACCEPTED, "stream" => stream, "mode" => mode)
                }
                Some(code) => {
                    let code = code.as_str();
                    metrics::counter!(names::EVENTS_REFUSED, "code" => code, "stream" => stream, "mode" => mode)
                }
            }
            .increment(events);
        }
        self.outcomes
    }

    fn refuse(&mut self, stream: &'a str, refusal: Refusal) {
        self.count(stream, Some(refusal.code));
        let index = refusal.index;
        self.outcomes[index] = Outcome::Refused(refusal);
    }

    fn count(&mut self, stream: &'a str, code: Option<Code>) {
        match self.counted.iter_mut().find(|counted| counted.stream == stream && counted.code == code) {
            Some(counted) => counted.events += 1,
            None => self.counted.push(Counted { stream, code, events: 1 }),
        }
    }
}
