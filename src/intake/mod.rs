//! The producers' half: a batch in, one outcome per event out.
//!
//! - this page: [`Intake::accept`], which decides; one `append` per batch, good events only
//! - `body` a request's body, split into events byte for byte
//! - `outcome` what became of an event, and why
//! - `options` limits and times
//!
//! Knows no HTTP and no hub: the two halves meet in the log and nowhere else.

pub mod auth;
mod body;
mod options;
mod outcome;
mod request;

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::catalog::{Catalog, Live};
use crate::log::{AppendError, Appended, Log};
use crate::metrics as names;
use crate::model::{NewRecord, Timestamp};
use crate::schema::Schemas;

pub use self::body::BodyError;
pub use self::options::{BYTES_MOST, Options};
pub use self::outcome::{Code, Fault, Kind, Outcome, Refusal};
pub use self::request::{Mode, Request};

/// Bytes that one permit of the in-flight bound stands for.
const PERMIT_BYTES: usize = 1024;

/// Takes events in. Shared by all workers.
pub struct Intake {
    options: Options,
    catalog: Live,
    schemas: Arc<Schemas>,
    log: Arc<dyn Log>,
    engine: Handle,
    /// Bytes that wait for the log's answer, and how many may.
    in_flight: Arc<Semaphore>,
    permits: usize,
}

/// The catalogue's name for an event's stream.
type Stream<'a> = &'a str;

/// The place among the events in flight. Given back when dropped, however the request ended.
type InFlight = OwnedSemaphorePermit;

impl Intake {
    pub fn new(options: Options, catalog: Live, schemas: Arc<Schemas>, log: Arc<dyn Log>, engine: Handle) -> Self {
        let permits = usize::try_from(options.in_flight_bytes_max()).unwrap_or(usize::MAX) / PERMIT_BYTES;
        let permits = permits.clamp(1, Semaphore::MAX_PERMITS);
        Self { options, catalog, schemas, log, engine, in_flight: Arc::new(Semaphore::new(permits)), permits }
    }

    /// Whether any stream has a field that is filled from this header, whose name is in lower case.
    pub fn wants_header(&self, name: &str) -> bool {
        name == "x-request-id"
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Appends the events of a body and says what became of each, in their order.
    ///
    /// `Err` means that the body as a whole is no batch of events; nothing of it was appended then. Answers within
    /// the deadline, whatever the log does: what it has not acknowledged by then is `unknown`.
    pub async fn accept(&self, request: Request) -> Result<Vec<Outcome>, BodyError> {
        let catalog = self.catalog.now();
        let events = body::split(&request.body, self.options.max_depth)?;
        let place = self.enter(request.body.len())?;
        let mut batch = Batch::default();
        for (index, event) in events.into_iter().enumerate() {
            match self.judge(&catalog, &event) {
                Ok((stream, record)) => batch.add(Waiting { index, event, stream }, record),
                Err(refusal) => batch.refuse(refusal.of(index, event)),
            }
        }
        let records = std::mem::take(&mut batch.records);
        batch.answer(self.append(records, place).await);
        Ok(batch.outcomes)
    }

    fn enter(&self, bytes: usize) -> Result<InFlight, BodyError> {
        // A body larger than the whole bound gets in when it is alone, rather than never.
        let permits = bytes.div_ceil(PERMIT_BYTES).min(self.permits);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        self.in_flight.clone().try_acquire_many_owned(permits).map_err(|_| BodyError::Overloaded)
    }

    /// One event becomes a record, or is refused. Pure.
    fn judge<'a>(&self, catalog: &'a Catalog, event: &Bytes) -> Result<(Stream<'a>, NewRecord), Reason> {
        let bytes_max = self.options.event_bytes_max();
        if event.len() as u64 > bytes_max {
            let text = format!("The event has {} bytes, at most {bytes_max} are taken.", event.len());
            return Err(Reason::new(Code::TooLarge, text));
        }
        let meta = body::meta_of(event).ok_or_else(|| Reason::new(Code::NotAnObject, "An event is a JSON object."))?;
        let stream = meta.stream.ok_or_else(|| {
            let text = "Field(s) meta.stream were missing from event and could not be extracted.";
            Reason::new(Code::MissingStream, text)
        })?;
        let route = catalog.route(&stream, self.options.topic_prefix.as_deref()).ok_or_else(|| {
            let text = format!(
                "event {} destined to stream {stream} is not allowed in stream; {stream} is not configured.",
                meta.id
            );
            Reason::new(Code::StreamNotConfigured, text)
        })?;
        Ok((
            route.entry,
            NewRecord { topic: route.topic, time: time_of(meta.time), key: None, value: Some(event.clone()) },
        ))
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

/// Its own time. A log refuses records of the future, and Kafka those from before 1970, so those have the time of their
/// arrival; the event's own field stays.
fn time_of(own: Option<Timestamp>) -> Timestamp {
    let now = Timestamp::now();
    match own {
        Some(time) if time > now => {
            metrics::counter!(names::EVENTS_OF_THE_FUTURE).increment(1);
            now
        }
        Some(time) if time >= Timestamp(0) => time,
        _ => now,
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
        Refusal { index, code: self.code, message: self.message, event, violations: Vec::new() }
    }
}

/// A request's events on their way: what has been decided, and what waits for the log.
#[derive(Default)]
struct Batch<'a> {
    outcomes: Vec<Outcome>,
    records: Vec<NewRecord>,
    /// One for each record.
    waiting: Vec<Waiting<'a>>,
}

/// An event that waits for the log's answer.
struct Waiting<'a> {
    index: usize,
    event: Bytes,
    stream: Stream<'a>,
}

impl<'a> Batch<'a> {
    fn add(&mut self, waiting: Waiting<'a>, record: NewRecord) {
        self.outcomes.push(Outcome::Accepted);
        self.waiting.push(waiting);
        self.records.push(record);
    }

    fn refuse(&mut self, refusal: Refusal) {
        metrics::counter!(names::EVENTS_REFUSED, "code" => refusal.code.as_str()).increment(1);
        self.outcomes.push(Outcome::Refused(refusal));
    }

    fn answer(&mut self, answers: Vec<Result<Appended, AppendError>>) {
        for (Waiting { index, event, stream }, answer) in self.waiting.drain(..).zip(answers) {
            let (code, message) = match answer {
                Ok(_) => {
                    metrics::counter!(names::EVENTS_ACCEPTED, "stream" => stream.to_owned()).increment(1);
                    continue;
                }
                Err(e @ AppendError::TooLarge(_)) => (Code::TooLarge, e.to_string()),
                Err(e @ AppendError::NotWritten(_)) => (Code::NotWritten, e.to_string()),
                Err(e @ AppendError::Unknown(_)) => (Code::Unknown, e.to_string()),
            };
            metrics::counter!(names::EVENTS_REFUSED, "code" => code.as_str()).increment(1);
            self.outcomes[index] = Outcome::Refused(Refusal { index, code, message, event, violations: Vec::new() });
        }
    }
}

#[cfg(test)]
mod tests;
