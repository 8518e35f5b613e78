//! Appends: batches through the outbox into librdkafka, and their fates back to who waits.
//!
//! Two lanes. All records go together; one that comes back as too large may only have been in too large company (a topic's
//! limit is for what is sent at once), so it is sent again alone, and only what fails alone is too large. Its topic keeps
//! to that lane for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Message};
use tokio::runtime::Handle;

use super::OpenError;
use super::batch::{Answer, Batch, Ticket, fate, is_too_large, refused, weight};
use super::clients::Clients;
use super::context::Trouble;
use super::lane::{Lane, LaneKind, Outgoing};
use super::outbox::{Next, Outbox, State};
use crate::log::{AppendError, Appended};
use crate::model::{NewRecord, Offset, Partition, Topic};

pub(super) mod limits {
    use std::time::Duration;

    /// Records and bytes that wait for Kafka, in whatever place. Beyond them appends are refused.
    pub(in crate::log::kafka) const RECORDS_HELD_MAX: usize = 200_000;
    pub(in crate::log::kafka) const BYTES_HELD_MAX: usize = 256 << 20;
    /// Longest that a record waits for company.
    pub(in crate::log::kafka) const HOLD: Duration = Duration::from_millis(1);
    /// What has collected to this size fills a request and waits no longer.
    pub(in crate::log::kafka) const TOGETHER_BYTES_MAX: usize = 1_000_000;
}

/// How long a topic that takes less than a batch gets its records one by one before batches are tried again.
const ALONE_FOR: Duration = Duration::from_secs(60);

/// The writing half of the engine. Its threads end when it is dropped.
pub(super) struct Producer {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    outbox: Mutex<Outbox>,
    together: Lane,
    alone: Lane,
    alone_until: Mutex<HashMap<Topic, Instant>>,
    deadline: Duration,
    engine: Handle,
}

impl Producer {
    pub(super) fn start(clients: &Clients, engine: Handle) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared {
            outbox: Mutex::default(),
            together: Lane::new(LaneKind::Together, clients.producer()),
            alone: Lane::new(LaneKind::Alone, clients.producer_of_single_records()),
            alone_until: Mutex::default(),
            deadline: clients.deadline(),
            engine,
        });
        // The other lane starts when it is needed: most clusters never do.
        shared.together.start(&shared)?;
        Ok(Self { shared })
    }

    pub(super) async fn append(&self, records: Vec<NewRecord>) -> Vec<Answer> {
        if records.is_empty() {
            return Vec::new();
        }
        let (batch, answered) = Batch::new(records);
        if let Err(refusal) = self.shared.submit(&batch) {
            return batch.take_answers(&AppendError::NotWritten(refusal.to_string()));
        }
        let _ = tokio::time::timeout(self.shared.deadline, answered).await;
        self.shared.answers(&batch)
    }

    /// Waits for what was handed over; what was not is refused.
    pub(super) async fn close(&self) {
        self.shared.outbox.lock().set_state(State::Closed);
        let remaining = self.shared.outbox.lock().hold_over();
        let shared = self.shared.clone();
        let flushed = self.shared.engine.spawn_blocking(move || {
            shared.pump(remaining);
            shared.together.finish(shared.deadline);
            shared.alone.finish(shared.deadline);
        });
        let _ = flushed.await;
    }
}

impl Shared {
    fn submit(self: &Arc<Self>, batch: &Arc<Batch>) -> Result<(), super::outbox::Refusal> {
        let next = self.outbox.lock().admit(batch)?;
        match next {
            Next::HandOver(batches) => self.pump(batches),
            Next::ComeBack => self.come_back_after_the_hold(),
            Next::Wait => {}
        }
        Ok(())
    }

    fn come_back_after_the_hold(self: &Arc<Self>) {
        let this = Arc::downgrade(self);
        self.engine.spawn(async move {
            tokio::time::sleep(limits::HOLD).await;
            if let Some(this) = this.upgrade() {
                let batches = this.outbox.lock().hold_over();
                this.pump(batches);
            }
        });
    }

    /// All answers are there, or the deadline has come.
    fn answers(&self, batch: &Arc<Batch>) -> Vec<Answer> {
        let never_handed_over = batch.take_records().is_some();
        if !never_handed_over {
            let late = format!("no acknowledgement within {:?}", self.deadline);
            return batch.take_answers(&AppendError::Unknown(late));
        }
        let mut outbox = self.outbox.lock();
        outbox.withdraw(batch);
        let why = if outbox.state() == State::Away { "no broker answers" } else { "overloaded" };
        drop(outbox);
        batch.take_answers(&AppendError::NotWritten(why.to_owned()))
    }

    /// Hands batches over until none is due: what is refused at once may make way for the next.
    fn pump(self: &Arc<Self>, mut due: Vec<Arc<Batch>>) {
        while !due.is_empty() {
            for batch in due {
                self.hand_over(&batch);
            }
            due = self.outbox.lock().idle();
        }
    }

    fn hand_over(self: &Arc<Self>, batch: &Arc<Batch>) {
        let Some(records) = batch.take_records() else {
            return self.outbox.lock().not_handed_over(batch.load);
        };
        for (index, record) in records.into_iter().enumerate() {
            let bytes = weight(&record);
            let ticket = Ticket { batch: batch.clone(), index, topic: record.topic.clone(), bytes };
            let lane = if self.goes_alone(&ticket.topic) { &self.alone } else { &self.together };
            let outgoing = Outgoing {
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                time: record.time,
                partition: None,
            };
            self.send(lane, ticket, &outgoing);
        }
    }

    fn send(self: &Arc<Self>, lane: &Lane, ticket: Ticket, outgoing: &Outgoing<'_>) {
        if let Err((error, ticket)) = lane.send(self, ticket, outgoing) {
            ticket.answer(Err(refused(&error, ticket.bytes)));
            // Not pumped from here: whoever hands over looks again when it is through.
            self.outbox.lock().settle(ticket.bytes);
        }
    }

    fn goes_alone(&self, topic: &Topic) -> bool {
        let mut topics = self.alone_until.lock();
        match topics.get(topic) {
            None => false,
            Some(until) if *until > Instant::now() => true,
            Some(_) => topics.remove(topic).is_none(),
        }
    }

    /// A record's fate, on the lane's thread.
    pub(super) fn delivered(self: &Arc<Self>, lane: LaneKind, ticket: Ticket, result: &DeliveryResult<'_>) {
        let answer = match result {
            Ok(message) => {
                if lane == LaneKind::Alone {
                    self.keep_alone(&ticket.topic);
                }
                Ok(appended(&ticket, message))
            }
            Err((error, message)) if lane == LaneKind::Together && is_too_large(error) => {
                return self.send_alone(ticket, message);
            }
            Err((error, message)) => Err(fate(error, message.partition() >= 0, ticket.bytes)),
        };
        ticket.answer(answer);
        let mut outbox = self.outbox.lock();
        outbox.settle(ticket.bytes);
        let due = outbox.idle();
        drop(outbox);
        self.pump(due);
    }

    /// In the partition that was chosen: the order within it is kept among those that come back together.
    fn send_alone(self: &Arc<Self>, ticket: Ticket, message: &BorrowedMessage<'_>) {
        let outgoing = Outgoing {
            key: message.key(),
            value: message.payload(),
            time: crate::model::Timestamp(message.timestamp().to_millis().unwrap_or_default()),
            partition: Some(message.partition()),
        };
        self.send(&self.alone, ticket, &outgoing);
        let due = self.outbox.lock().idle();
        self.pump(due);
    }

    /// Only a record that failed in company and was taken alone proves that the topic is like that.
    fn keep_alone(&self, topic: &Topic) {
        let mut topics = self.alone_until.lock();
        if !topics.contains_key(topic) {
            tracing::warn!(%topic, "the topic takes single records only: its max.message.bytes is below a batch");
            topics.insert(topic.clone(), Instant::now() + ALONE_FOR);
        }
    }

    pub(super) fn on_trouble(&self, lane: LaneKind, trouble: Trouble) {
        if lane == LaneKind::Together && trouble == Trouble::Away {
            self.outbox.lock().set_state(State::Away);
        }
    }

    pub(super) fn is_away(&self) -> bool {
        self.outbox.lock().state() == State::Away
    }

    pub(super) fn is_back(self: &Arc<Self>) {
        let due = self.outbox.lock().set_state(State::Open);
        self.pump(due);
    }

    pub(super) fn lane(&self, kind: LaneKind) -> &Lane {
        match kind {
            LaneKind::Together => &self.together,
            LaneKind::Alone => &self.alone,
        }
    }
}

fn appended(ticket: &Ticket, message: &BorrowedMessage<'_>) -> Appended {
    let partition = Partition::new(&ticket.topic, message.partition());
    Appended { partition, offset: Offset(message.offset()) }
}
