//! The producers' half: a batch in, one outcome per event out.
//!
//! - this page: [`Intake::accept`], which decides; one `append` per batch, good events only
//! - `body` a request's body, split into events byte for byte
//! - `outcome` what became of an event, and why
//! - `options` limits and times
//!
//! Knows no HTTP and no hub: the two halves meet in the log and nowhere else.

mod body;
mod options;
mod outcome;

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::catalog::Catalog;
use crate::log::{AppendError, Appended, Log};
use crate::metrics as names;
use crate::model::{NewRecord, Timestamp};

pub use self::body::BodyError;
pub use self::options::Options;
pub use self::outcome::{Code, Fault, Kind, Outcome, Refusal};

/// Bytes that one permit of the in-flight bound stands for.
const PERMIT_BYTES: usize = 1024;

/// Takes events in. Shared by all workers.
pub struct Intake {
    options: Options,
    catalog: Arc<Catalog>,
    log: Arc<dyn Log>,
    engine: Handle,
    /// Bytes that wait for the log's answer.
    in_flight: Arc<Semaphore>,
}

/// The place among the events in flight. Given back when dropped, however the request ended.
type InFlight = OwnedSemaphorePermit;

impl Intake {
    pub fn new(options: Options, catalog: Arc<Catalog>, log: Arc<dyn Log>, engine: Handle) -> Self {
        let permits = usize::try_from(options.max_inflight_bytes).unwrap_or(usize::MAX) / PERMIT_BYTES;
        let in_flight = Arc::new(Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS)));
        Self { options, catalog, log, engine, in_flight }
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Appends the events of a body and says what became of each, in their order.
    ///
    /// `Err` means that the body as a whole is no batch of events; nothing of it was appended then. Answers within
    /// the deadline, whatever the log does: what it has not acknowledged by then is `unknown`.
    pub async fn accept(&self, body: Bytes) -> Result<Vec<Outcome>, BodyError> {
        let events = body::split(&body, self.options.max_depth)?;
        let place = self.enter(body.len())?;
        let mut batch = Batch::default();
        for (index, event) in events.into_iter().enumerate() {
            match self.judge(&event) {
                Ok(record) => batch.add(index, event, record),
                Err(refusal) => batch.refuse(refusal.of(index, event)),
            }
        }
        batch.answer(self.append(batch.records.clone(), place).await);
        Ok(batch.outcomes)
    }

    fn enter(&self, bytes: usize) -> Result<InFlight, BodyError> {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        self.in_flight.clone().try_acquire_many_owned(permits).map_err(|_| BodyError::Overloaded)
    }

    /// One event becomes a record, or is refused. Pure.
    fn judge(&self, event: &Bytes) -> Result<NewRecord, Reason> {
        if event.len() as u64 > self.options.max_event_bytes {
            let text =
                format!("The event has {} bytes, at most {} are taken.", event.len(), self.options.max_event_bytes);
            return Err(Reason::new(Code::TooLarge, text));
        }
        let meta = body::meta_of(event).ok_or_else(|| Reason::new(Code::NotAnObject, "An event is a JSON object."))?;
        let stream = meta.stream.ok_or_else(|| {
            let text = "Field(s) meta.stream were missing from event and could not be extracted.";
            Reason::new(Code::MissingStream, text)
        })?;
        let topic = self.catalog.topic_for(&stream, self.options.topic_prefix.as_deref()).ok_or_else(|| {
            let text = format!(
                "event {} destined to stream {stream} is not allowed in stream; {stream} is not configured.",
                meta.id
            );
            Reason::new(Code::StreamNotConfigured, text)
        })?;
        // The log would refuse a record of the future, so its time is the time of its arrival. The event's own field stays.
        let now = Timestamp::now();
        let time = meta.time.filter(|time| *time <= now).unwrap_or(now);
        Ok(NewRecord { topic, time, key: None, value: Some(event.clone()) })
    }

    /// Runs on the engine, so that a client that leaves does not take half of its batch with it.
    async fn append(&self, records: Vec<NewRecord>, place: InFlight) -> Vec<Result<Appended, AppendError>> {
        if records.is_empty() {
            return Vec::new();
        }
        let count = records.len();
        let log = self.log.clone();
        let appending = self.engine.spawn(async move {
            let _place = place;
            let started = tokio::time::Instant::now();
            let answers = log.append(records).await;
            metrics::histogram!(names::APPEND_SECONDS).record(started.elapsed());
            answers
        });
        match tokio::time::timeout(self.options.deadline, appending).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(_)) | Err(_) => {
                let text = format!("no answer within {:?}", self.options.deadline);
                vec![Err(AppendError::Unknown(text)); count]
            }
        }
    }
}

/// Why an event is refused, before it is known which one it is.
struct Reason {
    code: Code,
    message: String,
}

impl Reason {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn of(self, index: usize, event: Bytes) -> Refusal {
        Refusal { index, code: self.code, message: self.message, event }
    }
}

/// A request's events on their way: what has been decided, and what waits for the log.
#[derive(Default)]
struct Batch {
    outcomes: Vec<Outcome>,
    records: Vec<NewRecord>,
    /// The index and the bytes of each record's event.
    events: Vec<(usize, Bytes)>,
}

impl Batch {
    fn add(&mut self, index: usize, event: Bytes, record: NewRecord) {
        self.outcomes.push(Outcome::Accepted);
        self.events.push((index, event));
        self.records.push(record);
    }

    fn refuse(&mut self, refusal: Refusal) {
        metrics::counter!(names::EVENTS_REFUSED, "code" => refusal.code.as_str()).increment(1);
        self.outcomes.push(Outcome::Refused(refusal));
    }

    fn answer(&mut self, answers: Vec<Result<Appended, AppendError>>) {
        for ((index, event), answer) in self.events.drain(..).zip(answers) {
            let (code, message) = match answer {
                Ok(_) => {
                    metrics::counter!(names::EVENTS_ACCEPTED).increment(1);
                    continue;
                }
                Err(e @ AppendError::TooLarge(_)) => (Code::TooLarge, e.to_string()),
                Err(e @ AppendError::NotWritten(_)) => (Code::NotWritten, e.to_string()),
                Err(e @ AppendError::Unknown(_)) => (Code::Unknown, e.to_string()),
            };
            metrics::counter!(names::EVENTS_REFUSED, "code" => code.as_str()).increment(1);
            self.outcomes[index] = Outcome::Refused(Refusal { index, code, message, event });
        }
    }
}

#[cfg(test)]
mod tests;
