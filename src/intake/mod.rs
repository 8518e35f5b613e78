//! The producers' half: a batch in, one outcome per event out.
//!
//! - this page: [`Intake::accept`], from a request to outcomes; one `append` per batch, good events only
//! - `request` what a producer sends; `body` a request's body, split into events byte for byte
//! - `judge` one event: its schema, its stream, its record; `stamp` what it is given on the way
//! - `batch` a request's events on their way; `outcome` what became of each
//! - `error_event` what the error stream is told of invalid events
//! - `outage` whether the log is known to be away
//! - `spool` what waits on disk for a log that is away
//! - `auth` who may post; `options` limits and times
//!
//! Knows no HTTP and no hub: the two halves meet in the log and nowhere else.

pub mod auth;
mod batch;
mod body;
mod error_event;
mod judge;
mod options;
mod outage;
mod outcome;
mod request;
pub mod spool;
mod stamp;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use self::auth::Grant;
use self::batch::Batch;
use self::judge::{Candidate, Judged};
use self::outage::{Attempt, Outages};
use self::spool::{Fate, Kept, Spool};
use self::stamp::Stamps;
use crate::catalog::{Catalog, Live};
use crate::log::{AppendError, Log};
use crate::metrics as names;
use crate::model::{NewRecord, Timestamp};
use crate::schema::{LoadError, Schema, SchemaUri, Schemas, Violation};

pub use self::body::{BodyError, Nesting};
pub use self::options::{BYTES_MOST, Options};
pub use self::outcome::{Code, Fault, Kind, Outcome, Refusal};
pub use self::request::{Mode, Request};
pub use self::stamp::MetaDt;

/// Bytes that one permit of the in-flight bound stands for.
const PERMIT_BYTES: usize = 1024;
/// What an event in flight weighs beside its bytes.
const EVENT_OVERHEAD_BYTES: usize = 512;
/// Bytes of events after which a worker's other requests and readers get their turn.
const TURN_BYTES: usize = 64 * 1024;
/// The part of the deadline in which schemas and the catalogue may be waited for: the rest is the log's.
const WAIT_SHARE: u32 = 2;

/// Takes events in. Shared by all workers.
pub struct Intake {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    catalog: Live,
    schemas: Arc<Schemas>,
    log: Arc<dyn Log>,
    /// None: what the log does not take is refused.
    spool: Option<Arc<Spool>>,
    outages: Arc<Outages>,
    engine: Handle,
    /// Bytes that wait for the log's answer, and how many may.
    in_flight: Arc<Semaphore>,
    permits: u32,
}

/// The place among the events in flight. Given back when dropped, however the request ended.
type InFlight = OwnedSemaphorePermit;

/// One request's events, their place, and until when they are answered.
struct Work {
    request: Request,
    events: Vec<Bytes>,
    place: InFlight,
    due: Instant,
    /// Whether invalid events are reported to the error stream. Reports are not, or they could go round for ever.
    reported: bool,
}

/// What events are judged by. The first time round it is what is at hand, the second time what was waited for.
struct Known {
    catalog: Arc<Catalog>,
    /// Schemas that had to be looked for.
    loaded: HashMap<SchemaUri, Result<Arc<Schema>, LoadError>>,
    /// Whether a stream that the catalogue does not have is known not to exist, or why not.
    unknown_streams: UnknownStreams,
}

enum UnknownStreams {
    /// Not yet asked.
    Wait,
    NotConfigured,
    Unavailable,
}

/// Why an event is not judged.
enum Stopped<'a> {
    /// With the catalogue's name for its stream, where that is known.
    Refused { stream: Option<&'a str>, refusal: Refusal },
    /// Something has to be waited for.
    Waits { stream: String, uri: SchemaUri },
}

impl Intake {
    /// Without a spool, whatever the options say.
    pub fn new(options: Options, catalog: Live, schemas: Arc<Schemas>, log: Arc<dyn Log>, engine: Handle) -> Self {
        Self::with(options, catalog, schemas, log, None, engine)
    }

    /// With a spool if the options want one, or if events wait in it. Blocks: call it before serving.
    pub fn open(
        options: Options,
        catalog: Live,
        schemas: Arc<Schemas>,
        log: Arc<dyn Log>,
        place: &spool::Place,
        engine: Handle,
    ) -> Result<Self, spool::OpenError> {
        let spool = Spool::open(&options.spool, place, options.deadline, log.clone(), engine.clone())?;
        Ok(Self::with(options, catalog, schemas, log, spool.map(Arc::new), engine))
    }

    fn with(
        options: Options,
        catalog: Live,
        schemas: Arc<Schemas>,
        log: Arc<dyn Log>,
        spool: Option<Arc<Spool>>,
        engine: Handle,
    ) -> Self {
        let permits = u32::try_from(options.in_flight_bytes_max() / PERMIT_BYTES as u64).unwrap_or(u32::MAX).max(1);
        let in_flight = Arc::new(Semaphore::new(permits as usize));
        let outages = Outages::new(options.deadline);
        Self { shared: Arc::new(Shared { options, catalog, schemas, log, spool, outages, engine, in_flight, permits }) }
    }

    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// Judges and appends the events of a body and says what became of each, in their order.
    ///
    /// `Err` means that the body as a whole is no batch of events; nothing of it was appended then. Answers within
    /// the deadline, whatever the log does: what it has not acknowledged by then is `unknown`. A hasty request is
    /// answered with every event accepted as soon as they have a place; a dry run appends nothing.
    pub async fn accept(&self, request: Request) -> Result<Vec<Outcome>, BodyError> {
        let due = request.began + self.shared.options.deadline;
        let events = body::split(&request.body, self.shared.options.max_depth)?;
        let place = self.shared.enter(request.body.len() + events.len() * EVENT_OVERHEAD_BYTES)?;
        let received = events.len();
        let mode = request.mode;
        let taken = self.shared.clone().take(Work { request, events, place, due, reported: true });
        if mode == Mode::Hasty {
            self.shared.engine.spawn(taken);
            return Ok(vec![Outcome::Accepted; received]);
        }
        Ok(taken.await)
    }

    /// How the spool is doing; none where there is none.
    pub fn spool(&self) -> Option<spool::Status> {
        self.shared.spool.as_ref().map(|spool| spool.status())
    }

    /// What operators do with it; none where there is none.
    pub fn spool_desk(&self) -> Option<spool::Desk> {
        self.shared.spool.clone().map(spool::Desk::new)
    }

    /// Ends what goes from the spool to the log, and gives the file back. Before the log is closed.
    pub async fn close(&self) {
        if let Some(spool) = &self.shared.spool {
            spool.close().await;
        }
    }

    /// Until nothing is in flight: no hasty event, no report. For a stop: nothing is let in meanwhile.
    pub async fn drained(&self) {
        // Never closed, so it can only be waited for.
        let _ = self.shared.in_flight.acquire_many(self.shared.permits).await;
    }
}

impl Shared {
    fn enter(&self, bytes: usize) -> Result<InFlight, BodyError> {
        // A body larger than the whole bound gets in when it is alone, rather than never.
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX).min(self.permits);
        self.in_flight.clone().try_acquire_many_owned(permits).map_err(|_| BodyError::Overloaded)
    }

    /// Events are judged with what is at hand; those that need more wait for it together, and are judged then. Only an
    /// event's bytes are kept meanwhile: what it means is several times as large.
    async fn take(self: Arc<Self>, work: Work) -> Vec<Outcome> {
        let Work { mut request, events, place, due, reported } = work;
        let body = std::mem::take(&mut request.body);
        let stamps = Stamps::new(self.options.meta_dt, Timestamp::now(), &request);
        let at_hand = Known::at_hand(self.catalog.now());
        let mut batch = Batch::of(request.mode, events.len());
        if request.grant.is_canary() {
            batch.counts_for_nobody();
        }
        let mut waiting = Vec::new();
        let mut turn = Turn::default();
        for (index, event) in events.iter().enumerate() {
            turn.take(event.len()).await;
            match self.judge_in_time(due, &request, &stamps, &at_hand, index, event) {
                Err(Stopped::Waits { stream, uri }) => waiting.push((index, stream, uri)),
                decided => batch.put(index, decided),
            }
        }
        let known;
        if !waiting.is_empty() {
            known = self.wait_for(&waiting, &request.grant, due - self.options.deadline / WAIT_SHARE).await;
            for (index, ..) in waiting {
                turn.take(events[index].len()).await;
                batch.put(index, self.judge_in_time(due, &request, &stamps, &known, index, &events[index]));
            }
        }
        if request.mode == Mode::DryRun {
            batch.end_dry_run();
            return batch.finish(&events);
        }
        let records = batch.records();
        // What was sent is not needed any more, and is as large as what is sent on. (An answer has its events itself.)
        drop(body);
        let events = if request.mode == Mode::Hasty { Vec::new() } else { events };
        batch.answer(self.append(records, place, due).await);
        if reported && !request.grant.is_canary() {
            self.report(batch.invalid());
        }
        batch.finish(&events)
    }

    /// The producer is answered by then, whatever its events cost.
    fn judge_in_time<'a>(
        &self,
        due: Instant,
        request: &Request,
        stamps: &Stamps<'_>,
        known: &'a Known,
        index: usize,
        event: &Bytes,
    ) -> Result<Judged<'a>, Stopped<'a>> {
        if Instant::now() < due {
            return self.judge(request, stamps, known, index, event);
        }
        let reason = Reason::new(Code::NotWritten, "no time was left to judge the event");
        Err(Stopped::Refused { stream: None, refusal: reason.of(index, event.clone()) })
    }

    /// One event becomes a record, or is refused, or must wait.
    fn judge<'a>(
        &self,
        request: &Request,
        stamps: &Stamps<'_>,
        known: &'a Known,
        index: usize,
        event: &Bytes,
    ) -> Result<Judged<'a>, Stopped<'a>> {
        let refused = |stream, reason: Reason, event| Stopped::Refused { stream, refusal: reason.of(index, event) };
        let read = judge::read(&self.options, request, event);
        let mut candidate = read.map_err(|(reason, event)| refused(None, reason, event))?;
        let waits = |candidate: &Candidate| {
            let Candidate { stream, uri, .. } = candidate;
            Stopped::Waits { stream: stream.clone(), uri: uri.clone() }
        };
        let Some(route) = judge::route(&self.options, &known.catalog, &request.grant, &candidate.stream) else {
            let reason = known.unknown_streams.reason(&candidate).ok_or_else(|| waits(&candidate))?;
            return Err(refused(None, reason, candidate.document.text()));
        };
        let schema = self.schema(known, &candidate.uri).ok_or_else(|| waits(&candidate))?;
        let stream = Some(route.entry);
        judge::judge(stamps, &mut candidate, route, schema)
            .map_err(|reason| refused(stream, reason, candidate.document.text()))
    }

    fn schema(&self, known: &Known, uri: &SchemaUri) -> Option<Result<Arc<Schema>, LoadError>> {
        known.loaded.get(uri).cloned().or_else(|| self.schemas.known(uri))
    }

    /// The catalogue is asked anew for streams that it does not have; schemas are looked for.
    async fn wait_for(&self, waiting: &[(usize, String, SchemaUri)], grant: &Grant, until: Instant) -> Known {
        let mut known = Known::at_hand(self.catalog.now());
        let is_there = |catalog: &Catalog, stream: &str| judge::route(&self.options, catalog, grant, stream).is_some();
        known.unknown_streams = UnknownStreams::NotConfigured;
        if !waiting.iter().all(|(_, stream, _)| is_there(&known.catalog, stream)) {
            match timeout_at(until, self.catalog.look_again()).await {
                Ok(Ok(catalog)) => known.catalog = catalog,
                // The reason is the operator's, who has it in the log: it may quote what the source answers.
                Ok(Err(_)) | Err(_) => known.unknown_streams = UnknownStreams::Unavailable,
            }
        }
        let mut wanted = HashSet::new();
        for (_, stream, uri) in waiting {
            if is_there(&known.catalog, stream) {
                wanted.insert(uri);
            }
        }
        // Also those that are known by now: what is known may be forgotten before the events are judged.
        let looks = wanted.into_iter().map(|uri| async move {
            let found = timeout_at(until, self.schemas.load(uri)).await;
            (uri.clone(), found.unwrap_or_else(|_| Err(late(uri))))
        });
        known.loaded = futures_util::future::join_all(looks).await.into_iter().collect();
        known
    }

    /// What the log is known not to take now is refused at once, unless the spool takes it.
    async fn append(&self, records: Vec<NewRecord>, place: InFlight, due: Instant) -> Vec<Fate> {
        if self.spool.as_ref().is_some_and(|spool| spool.takes()) {
            return self.hand_over(records, None, place, due).await;
        }
        let sorted = self.outages.sort(records, Instant::now());
        let mut fates = self.hand_over(sorted.records, Some(sorted.attempt), place, due).await.into_iter();
        let mut fate = || fates.next().unwrap_or_else(|| Err(AppendError::Unknown("no answer".to_owned())));
        sorted.refused.into_iter().map(|refused| refused.map_or_else(&mut fate, Err)).collect()
    }

    /// Runs on the engine, so that a client that leaves does not take half of its batch with it.
    async fn hand_over(
        &self,
        records: Vec<NewRecord>,
        attempt: Option<Attempt>,
        place: InFlight,
        due: Instant,
    ) -> Vec<Fate> {
        if records.is_empty() {
            return Vec::new();
        }
        let count = records.len();
        if Instant::now() >= due {
            return vec![Err(AppendError::NotWritten("no time was left".into())); count];
        }
        let (log, spool) = (self.log.clone(), self.spool.clone());
        let appending = self.engine.spawn(async move {
            let appending = async {
                if let Some(spool) = spool {
                    return spool.append(records, Arc::new(place), due).await;
                }
                let _place = place;
                let started = Instant::now();
                let answers = log.append(records).await;
                metrics::histogram!(names::APPEND_SECONDS).record(started.elapsed());
                answers.into_iter().map(|answer| answer.map(|_| Kept::Log)).collect()
            };
            match attempt {
                Some(attempt) => attempt.watch(appending, due).await,
                None => appending.await,
            }
        });
        match timeout_at(due, appending).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(_)) | Err(_) => {
                let text = format!("no answer within {:?}", self.options.deadline);
                vec![Err(AppendError::Unknown(text)); count]
            }
        }
    }
}

fn late(uri: &SchemaUri) -> LoadError {
    LoadError::Unavailable { uri: uri.clone(), why: "it could not be looked up in time".into() }
}

impl Known {
    fn at_hand(catalog: Arc<Catalog>) -> Self {
        Self { catalog, loaded: HashMap::new(), unknown_streams: UnknownStreams::Wait }
    }
}

impl UnknownStreams {
    /// `None`: that has to be found out.
    fn reason(&self, candidate: &Candidate) -> Option<Reason> {
        match self {
            Self::Wait => None,
            Self::NotConfigured => {
                let why = format!("{} is not configured.", candidate.stream);
                Some(candidate.not_allowed(Code::StreamNotConfigured, &why))
            }
            Self::Unavailable => {
                let stream = &candidate.stream;
                let text = format!(
                    "It cannot be said whether {stream} is configured: the source of the stream configuration does not answer."
                );
                Some(Reason::new(Code::ConfigUnavailable, text))
            }
        }
    }
}

/// Lets others on the same worker have their turn.
#[derive(Default)]
struct Turn {
    bytes: usize,
}

impl Turn {
    async fn take(&mut self, bytes: usize) {
        self.bytes += bytes + EVENT_OVERHEAD_BYTES;
        if self.bytes >= TURN_BYTES {
            self.bytes = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Why an event is refused, before it is known which one it is.
struct Reason {
    code: Code,
    message: String,
    violations: Vec<Violation>,
}

impl Reason {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), violations: Vec::new() }
    }

    fn invalid(violations: Vec<Violation>) -> Self {
        Self { code: Code::Invalid, message: crate::schema::errors_text(&violations), violations }
    }

    fn of(self, index: usize, event: Bytes) -> Refusal {
        let Self { code, message, violations } = self;
        Refusal { index, code, message, violations, event }
    }
}

#[cfg(test)]
mod error_event_test;
#[cfg(test)]
mod judge_test;
#[cfg(test)]
mod tests;
