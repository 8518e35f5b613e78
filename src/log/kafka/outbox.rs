//! Which way a batch goes to Kafka, and how much may be under way.
//!
//! Alone, a record is sent at once; in company, librdkafka collects for a moment, per partition, so that a request's cost is
//! shared. Neither is right for both: sending at once costs three times the CPU per record under load, collecting costs a lone
//! client most of its latency. So there are two producers, and what is in flight chooses: nothing, then at once; else in
//! company. (Rejected: one producer that sends at once, and collecting here. librdkafka starts to send on the first record of
//! a batch that is handed to it, so the batch leaves in pieces.)

use std::collections::VecDeque;
use std::sync::Arc;

use super::batch::{Batch, Load};
use super::lane::LaneKind;
use super::producer::limits;

#[derive(Default)]
pub(super) struct Outbox {
    /// Only while no broker answers.
    waiting: VecDeque<Arc<Batch>>,
    /// Waiting and in flight.
    held: Load,
    in_flight: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Open,
    /// No broker answers. What is kept here until the deadline can be said to be not written; handed over, it could not.
    Away,
    /// The clients are being changed for others: what comes waits for these.
    Moving,
    Closed,
}

/// What to do with a batch that was let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    HandOver(LaneKind),
    /// It waits for a broker.
    Wait,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("overloaded: {0} records wait for their acknowledgement")]
    Records(usize),
    #[error("overloaded: {0} bytes wait for their acknowledgement")]
    Bytes(usize),
    #[error("the log is closed")]
    Closed,
}

impl Outbox {
    pub(super) fn admit(&mut self, batch: &Arc<Batch>) -> Result<Next, Refusal> {
        if self.state == State::Closed {
            return Err(Refusal::Closed);
        }
        // A batch that is over a limit by itself is let in when nothing else is held.
        if self.held.records > 0 && self.held.records + batch.load.records > limits::RECORDS_HELD_MAX {
            return Err(Refusal::Records(self.held.records));
        }
        if self.held.bytes > 0 && self.held.bytes + batch.load.bytes > limits::BYTES_HELD_MAX {
            return Err(Refusal::Bytes(self.held.bytes));
        }
        self.held += batch.load;
        if matches!(self.state, State::Away | State::Moving) {
            self.waiting.push_back(batch.clone());
            return Ok(Next::Wait);
        }
        let lane = if self.in_flight == 0 { LaneKind::AtOnce } else { LaneKind::Together };
        self.in_flight += batch.load.records;
        Ok(Next::HandOver(lane))
    }

    /// One record in flight has its fate.
    pub(super) fn settle(&mut self, bytes: usize) {
        self.in_flight -= 1;
        self.held -= Load { records: 1, bytes };
    }

    /// This batch's deadline came before it was handed over. Its load is given back by [`Outbox::withdraw`].
    pub(super) fn not_handed_over(&mut self, load: Load) {
        self.in_flight -= load.records;
    }

    /// This batch's deadline has come and it was never handed over: its place is free.
    pub(super) fn withdraw(&mut self, batch: &Arc<Batch>) {
        self.held -= batch.load;
        // Deadlines end in the order of their beginnings, so it stands near the front.
        if let Some(at) = self.waiting.iter().position(|one| Arc::ptr_eq(one, batch)) {
            self.waiting.remove(at);
        }
    }

    /// The clients have been changed. Whether a broker answers these is yet to be seen.
    pub(super) fn moved(&mut self) {
        if self.state == State::Moving {
            self.state = State::Away;
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Closed is for good, and what clients say that are being changed for others is not heard. Brings what may go now.
    pub(super) fn set_state(&mut self, state: State) -> Vec<Arc<Batch>> {
        if self.state != State::Closed && (self.state != State::Moving || state == State::Closed) {
            self.state = state;
        }
        if self.state != State::Open {
            return Vec::new();
        }
        self.in_flight += self.waiting.iter().map(|batch| batch.load.records).sum::<usize>();
        self.waiting.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{NewRecord, Timestamp, Topic};

    const AT_ONCE: Result<Next, Refusal> = Ok(Next::HandOver(LaneKind::AtOnce));
    const TOGETHER: Result<Next, Refusal> = Ok(Next::HandOver(LaneKind::Together));

    fn batch(records: usize, bytes_each: usize) -> Arc<Batch> {
        let value = Some(Bytes::from(vec![0; bytes_each]));
        let record = NewRecord { topic: Topic::new("t"), time: Timestamp(1), key: None, value };
        Batch::new(vec![record; records]).0
    }

    #[test]
    fn alone_goes_at_once_and_company_goes_together() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.admit(&batch(1, 10)), AT_ONCE);
        assert_eq!(outbox.admit(&batch(1, 10)), TOGETHER);
        outbox.settle(10);
        assert_eq!(outbox.admit(&batch(1, 10)), TOGETHER);
        outbox.settle(10);
        outbox.settle(10);
        assert_eq!(outbox.admit(&batch(1, 10)), AT_ONCE);
    }

    #[test]
    fn what_is_held_is_bounded_and_a_place_is_given_back() {
        let mut outbox = Outbox::default();
        let half = limits::BYTES_HELD_MAX / 2;
        assert_eq!(outbox.admit(&batch(1, half)), AT_ONCE);
        assert_eq!(outbox.admit(&batch(1, half)), TOGETHER);
        assert_eq!(outbox.admit(&batch(1, 1)), Err(Refusal::Bytes(limits::BYTES_HELD_MAX)));
        outbox.settle(half);
        assert_eq!(outbox.admit(&batch(1, 1)), TOGETHER);
        assert_eq!(outbox.admit(&batch(limits::RECORDS_HELD_MAX, 0)), Err(Refusal::Records(2)));
    }

    #[test]
    fn while_no_broker_answers_nothing_goes_and_what_is_withdrawn_never_will() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.set_state(State::Away).len(), 0);
        let (one, two) = (batch(2, 10), batch(1, 10));
        assert_eq!(outbox.admit(&one), Ok(Next::Wait));
        assert_eq!(outbox.admit(&two), Ok(Next::Wait));
        outbox.withdraw(&one);
        let back = outbox.set_state(State::Open);
        assert!(back.len() == 1 && Arc::ptr_eq(&back[0], &two));
        outbox.settle(10);
        assert_eq!((outbox.held, outbox.in_flight), (Load::default(), 0));
    }

    #[test]
    fn while_clients_are_changed_what_comes_waits_whatever_the_old_ones_say() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.admit(&batch(1, 10)), AT_ONCE);
        outbox.set_state(State::Moving);
        assert_eq!(outbox.admit(&batch(1, 10)), Ok(Next::Wait));
        assert!(outbox.set_state(State::Open).is_empty() && outbox.set_state(State::Away).is_empty());
        assert_eq!(outbox.admit(&batch(1, 10)), Ok(Next::Wait));
        outbox.moved();
        assert_eq!(outbox.set_state(State::Open).len(), 2);
    }

    #[test]
    fn closed_is_for_good() {
        let mut outbox = Outbox::default();
        outbox.set_state(State::Closed);
        outbox.set_state(State::Open);
        assert_eq!(outbox.admit(&batch(1, 1)), Err(Refusal::Closed));
    }
}
