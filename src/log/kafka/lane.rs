//! One librdkafka producer and the thread that polls it; made anew when it has failed for good.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::statistics::Statistics;

use super::batch::Ticket;
use super::clients::{Clients, make};
use super::context::Context;
use super::producer::Shared;
use super::{OpenError, PROBE_TOPIC};
use crate::metrics::PRODUCERS_REBUILT;
use crate::model::Timestamp;

/// One turn of the thread. Acknowledgements wake it within; only trouble waits for the turn's end.
const TURN: Duration = Duration::from_millis(100);
/// What makes one producer fail at once makes the next one fail too.
const REPLACE_EVERY: Duration = Duration::from_secs(1);
/// How long the thread asks whether a broker is back, with acknowledgements waiting meanwhile.
const PROBE_WITHIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneKind {
    /// Sends what it gets as soon as it gets it.
    AtOnce,
    /// Collects for a moment.
    Together,
    /// One record per request.
    Alone,
}

impl LaneKind {
    pub(super) const ALL: [Self; 3] = [Self::AtOnce, Self::Together, Self::Alone];

    fn name(self) -> &'static str {
        match self {
            Self::AtOnce => "kafka-producer",
            Self::Together => "kafka-batches",
            Self::Alone => "kafka-single",
        }
    }
}

pub(super) struct Lane {
    kind: LaneKind,
    clients: Clients,
    current: Mutex<Current>,
}

enum Current {
    NotStarted,
    Running(Arc<Client>),
    Finished,
}

type Client = BaseProducer<Fates>;

/// A record as librdkafka copies it.
pub(super) struct Outgoing<'a> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) time: Timestamp,
    pub(super) partition: Option<i32>,
}

impl Lane {
    pub(super) fn new(kind: LaneKind, clients: &Clients) -> Self {
        Self { kind, clients: clients.clone(), current: Mutex::new(Current::NotStarted) }
    }

    pub(super) fn start(&self, owner: &Arc<Shared>) -> Result<(), OpenError> {
        self.running(owner).map(drop)
    }

    /// Copies the record into librdkafka's queue; never blocks.
    pub(super) fn send(
        &self,
        owner: &Arc<Shared>,
        ticket: Ticket,
        outgoing: &Outgoing<'_>,
    ) -> Result<(), (KafkaError, Box<Ticket>)> {
        let ticket = Box::new(ticket);
        let client = match self.running(owner) {
            Ok(client) => client,
            Err(fault) => return Err((KafkaError::ClientCreation(fault.to_string()), ticket)),
        };
        let topic = ticket.topic.clone();
        let record = BaseRecord::<[u8], [u8], Box<Ticket>> {
            topic: topic.as_str(),
            partition: outgoing.partition,
            payload: outgoing.value,
            key: outgoing.key,
            // Zero would mean "now".
            timestamp: Some(outgoing.time.0.max(1)),
            headers: None,
            delivery_opaque: ticket,
        };
        client.send(record).map_err(|(error, record)| (error, record.delivery_opaque))
    }

    /// Waits for what is under way, at most so long, and ends the thread. Blocks.
    pub(super) fn finish(&self, within: Duration) {
        let last = std::mem::replace(&mut *self.current.lock(), Current::Finished);
        if let Current::Running(client) = last
            && let Err(fault) = client.flush(within)
        {
            tracing::warn!(client = self.kind.name(), "records were not acknowledged before the stop: {fault}");
        }
    }

    fn running(&self, owner: &Arc<Shared>) -> Result<Arc<Client>, OpenError> {
        let mut current = self.current.lock();
        match &*current {
            Current::Running(client) => Ok(client.clone()),
            Current::Finished => Err(OpenError::Client("the log is closed".to_owned())),
            Current::NotStarted => {
                let client = self.make(owner)?;
                let (owner, kind) = (Arc::downgrade(owner), self.kind);
                std::thread::Builder::new()
                    .name(kind.name().to_owned())
                    .spawn(move || run(&owner, kind))
                    .map_err(|fault| OpenError::Client(fault.to_string()))?;
                *current = Current::Running(client.clone());
                Ok(client)
            }
        }
    }

    fn current(&self) -> Option<Arc<Client>> {
        match &*self.current.lock() {
            Current::Running(client) => Some(client.clone()),
            _ => None,
        }
    }

    fn make(&self, owner: &Arc<Shared>) -> Result<Arc<Client>, OpenError> {
        let (owner, kind) = (Arc::downgrade(owner), self.kind);
        let troubled = owner.clone();
        let context = Context::new(kind.name(), move |trouble| {
            if let Some(owner) = troubled.upgrade() {
                owner.on_trouble(kind, trouble);
            }
        });
        make(&self.config(), Fates { context, owner, kind }).map(Arc::new)
    }

    fn config(&self) -> ClientConfig {
        match self.kind {
            LaneKind::AtOnce => self.clients.producer_at_once(),
            LaneKind::Together => self.clients.producer_together(),
            LaneKind::Alone => self.clients.producer_of_single_records(),
        }
    }

    /// Waits for what is under way, at most until then, and goes on with a client that begins at the addresses that hold
    /// now. What had no answer by then is told so: queued is not written, sent is unknown. Blocks.
    pub(super) fn move_on(&self, owner: &Arc<Shared>, until: Instant) {
        let Some(old) = self.current() else { return };
        if let Err(fault) = old.flush(until.saturating_duration_since(Instant::now())) {
            tracing::warn!(
                client = self.kind.name(),
                "records were not acknowledged before the addresses changed: {fault}"
            );
        }
        drop(old);
        if let Err(fault) = self.swap(owner) {
            tracing::error!(client = self.kind.name(), "the producer stays where it was: {fault}");
        }
    }

    /// What the old client still held comes back as purged when it is dropped: queued is not written, sent is unknown.
    fn swap(&self, owner: &Arc<Shared>) -> Result<(), OpenError> {
        let made = self.make(owner)?;
        let mut current = self.current.lock();
        let Current::Running(old) = &mut *current else { return Ok(()) };
        let old = std::mem::replace(old, made);
        drop(current);
        drop(old);
        Ok(())
    }

    fn replace(&self, owner: &Arc<Shared>, why: &str) {
        if let Err(fault) = self.swap(owner) {
            return tracing::error!(client = self.kind.name(), "no new producer: {fault}");
        }
        tracing::warn!(client = self.kind.name(), why, "the producer failed for good and was made anew");
        metrics::counter!(PRODUCERS_REBUILT).increment(1);
    }
}

/// Ends when the lane is finished, or nobody owns it any more.
fn run(owner: &Weak<Shared>, kind: LaneKind) {
    let mut replaced: Option<Instant> = None;
    while let Some(client) = owner.upgrade().and_then(|owner| owner.lane(kind).current()) {
        // Were it to fail, nobody would ever be told the fate of a record again.
        let _ = catch_unwind(AssertUnwindSafe(|| client.poll(TURN)));
        let Some(owner) = owner.upgrade() else { return };
        // Asked for, not waited for: an error event of the client does not say that it was the last.
        let fatal = client.client().fatal_error();
        if let Some((code, why)) = fatal {
            if replaced.is_none_or(|at| at.elapsed() >= REPLACE_EVERY) {
                owner.lane(kind).replace(&owner, &format!("{code}: {why}"));
                replaced = Some(Instant::now());
            }
        } else if kind == LaneKind::AtOnce
            && owner.is_away()
            && client.client().fetch_metadata(Some(PROBE_TOPIC), PROBE_WITHIN).is_ok()
        {
            owner.is_back();
        }
    }
}

/// Brings the fates of records home.
struct Fates {
    context: Context,
    owner: Weak<Shared>,
    kind: LaneKind,
}

impl ProducerContext for Fates {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        if let Some(owner) = self.owner.upgrade() {
            owner.delivered(self.kind, *ticket, result);
        }
    }
}

impl ClientContext for Fates {
    fn log(&self, level: RDKafkaLogLevel, kind: &str, line: &str) {
        self.context.log(level, kind, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }

    fn stats(&self, _: Statistics) {}
    fn stats_raw(&self, _: &[u8]) {}
}
