//! Appends: batches through the outbox into librdkafka, and their fates back to who waits.
//!
//! A record that comes back as too large may only have been in too large company (a topic's limit is for what is sent in one
//! piece), so it is sent again alone, and only what fails alone is too large. Its topic keeps to that lane for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Message};
use tokio::runtime::Handle;

use super::OpenError;
use super::batch::{Answer, Batch, Ticket, fate, is_too_large, is_unknown_topic, refused};
use super::clients::Clients;
use super::context::Trouble;
use super::lane::{Lane, LaneKind, Outgoing};
use super::outbox::{Next, Outbox, Refusal, State};
use super::unknown::UnknownTopics;
use crate::log::{AppendError, Appended};
use crate::model::{NewRecord, Offset, Partition, Topic};

pub(super) mod limits {
    use std::time::Duration;

    /// How long records wait for company when there is any: bounds what a lone client loses beside a busy one.
    pub(in crate::log::kafka) const HOLD: Duration = Duration::from_millis(1);
    /// Records and bytes that wait for Kafka, in whatever place. Beyond them appends are refused.
    pub(in crate::log::kafka) const RECORDS_HELD_MAX: usize = 200_000;
    pub(in crate::log::kafka) const BYTES_HELD_MAX: usize = 256 << 20;
}

/// How long a topic that takes less than a batch gets its records one by one before batches are tried again.
const ALONE_FOR: Duration = Duration::from_secs(60);

/// How long what is under way is waited for when the clients are changed. Old brokers that are still there need less, and
/// what comes meanwhile waits, too.
const SETTLED_WITHIN: Duration = Duration::from_secs(2);

/// The writing half of the engine. Its threads end when it is dropped.
pub(super) struct Producer {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    outbox: Mutex<Outbox>,
    at_once: Lane,
    together: Lane,
    alone: Lane,
    alone_until: Mutex<HashMap<Topic, Instant>>,
    unknown: Mutex<UnknownTopics>,
    deadline: Duration,
    engine: Handle,
}

impl Producer {
    pub(super) fn start(clients: &Clients, engine: Handle) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared {
            outbox: Mutex::default(),
            at_once: Lane::new(LaneKind::AtOnce, clients),
            together: Lane::new(LaneKind::Together, clients),
            alone: Lane::new(LaneKind::Alone, clients),
            alone_until: Mutex::default(),
            unknown: Mutex::default(),
            deadline: clients.deadline(),
            engine,
        });
        // The others start when they are needed.
        shared.at_once.start(&shared)?;
        Ok(Self { shared })
    }

    pub(super) async fn append(&self, records: Vec<NewRecord>) -> Vec<Answer> {
        if records.is_empty() {
            return Vec::new();
        }
        let (batch, answered) = Batch::new(records);
        if let Err(refusal) = self.shared.submit(&batch) {
            return batch.take_answers(&AppendError::Busy(refusal.to_string()));
        }
        let _ = tokio::time::timeout(self.shared.deadline, answered).await;
        self.shared.answers(&batch)
    }

    /// Goes on with clients that begin at the addresses that hold now. What is under way is settled first, or told that
    /// nobody knows; what comes meanwhile waits.
    pub(super) async fn move_on(&self) {
        self.shared.outbox.lock().set_state(State::Moving);
        let shared = self.shared.clone();
        let moved = self.shared.engine.spawn_blocking(move || {
            let until = Instant::now() + SETTLED_WITHIN.min(shared.deadline);
            LaneKind::ALL.iter().for_each(|kind| shared.lane(*kind).move_on(&shared, until));
        });
        let _ = moved.await;
        self.shared.outbox.lock().moved();
    }

    /// Waits for what was handed over; what was not is refused.
    pub(super) async fn close(&self) {
        self.shared.outbox.lock().set_state(State::Closed);
        let shared = self.shared.clone();
        let flushed = self.shared.engine.spawn_blocking(move || {
            LaneKind::ALL.iter().for_each(|kind| shared.lane(*kind).finish(shared.deadline));
        });
        let _ = flushed.await;
    }
}

impl Shared {
    fn submit(self: &Arc<Self>, batch: &Arc<Batch>) -> Result<(), Refusal> {
        let next = self.outbox.lock().admit(batch)?;
        if let Next::HandOver(lane) = next {
            self.hand_over(batch, lane);
        }
        Ok(())
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
        let is_closed = outbox.state() == State::Closed;
        drop(outbox);
        batch.take_answers(&match is_closed {
            true => AppendError::Busy("the log is closed".to_owned()),
            false => AppendError::NotWritten("no broker answers".to_owned()),
        })
    }

    fn hand_over(self: &Arc<Self>, batch: &Arc<Batch>, lane: LaneKind) {
        let Some(records) = batch.take_records() else {
            return self.outbox.lock().not_handed_over(batch.load);
        };
        for (index, record) in records.into_iter().enumerate() {
            let bytes = record.bytes();
            let ticket = Ticket { batch: batch.clone(), index, topic: record.topic.clone(), bytes };
            let lane = if self.goes_alone(&ticket.topic) { LaneKind::Alone } else { lane };
            let outgoing = Outgoing {
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                time: record.time,
                partition: None,
            };
            self.send(self.lane(lane), ticket, &outgoing);
        }
    }

    fn send(self: &Arc<Self>, lane: &Lane, ticket: Ticket, outgoing: &Outgoing<'_>) {
        if let Err((error, ticket)) = lane.send(self, ticket, outgoing) {
            let answer = match is_unknown_topic(&error) {
                true => self.of_unknown_topic(&ticket.topic, &error),
                false => refused(&error, ticket.bytes),
            };
            ticket.answer(Err(answer));
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
                self.unknown.lock().known(&ticket.topic);
                Ok(appended(&ticket, message))
            }
            Err((error, message)) if lane != LaneKind::Alone && is_too_large(error) => {
                return self.send_alone(ticket, message);
            }
            Err((error, _)) if is_unknown_topic(error) => Err(self.of_unknown_topic(&ticket.topic, error)),
            Err((error, message)) => Err(fate(error, message.partition() >= 0, ticket.bytes)),
        };
        ticket.answer(answer);
        self.outbox.lock().settle(ticket.bytes);
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
    }

    /// Only a record that failed in company and was taken alone proves that the topic is like that.
    fn keep_alone(&self, topic: &Topic) {
        let mut topics = self.alone_until.lock();
        if !topics.contains_key(topic) {
            tracing::warn!(%topic, "the topic takes single records only: its max.message.bytes is below a batch");
            topics.insert(topic.clone(), Instant::now() + ALONE_FOR);
        }
    }

    /// It is not written in any case; whether another time is better shows only when the cluster goes on to say so.
    fn of_unknown_topic(&self, topic: &Topic, error: &KafkaError) -> AppendError {
        match self.unknown.lock().is_lasting(topic, Instant::now()) {
            true => AppendError::Refused(format!("the topic {topic} is not there, and nobody makes it ({error})")),
            false => AppendError::NotWritten(error.to_string()),
        }
    }

    pub(super) fn on_trouble(&self, lane: LaneKind, trouble: Trouble) {
        // The lane that is always there speaks for all.
        if lane == LaneKind::AtOnce && trouble == Trouble::Away {
            self.unknown.lock().forget();
            self.outbox.lock().set_state(State::Away);
        }
    }

    pub(super) fn is_away(&self) -> bool {
        self.outbox.lock().state() == State::Away
    }

    pub(super) fn is_back(self: &Arc<Self>) {
        let due = self.outbox.lock().set_state(State::Open);
        due.iter().for_each(|batch| self.hand_over(batch, LaneKind::Together));
    }

    pub(super) fn lane(&self, kind: LaneKind) -> &Lane {
        match kind {
            LaneKind::AtOnce => &self.at_once,
            LaneKind::Together => &self.together,
            LaneKind::Alone => &self.alone,
        }
    }
}

fn appended(ticket: &Ticket, message: &BorrowedMessage<'_>) -> Appended {
    let partition = Partition::new(&ticket.topic, message.partition());
    Appended { partition, offset: Offset(message.offset()) }
}
