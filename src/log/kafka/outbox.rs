//! Which batches go to Kafka when: at once if nothing is under way, else together.
//!
//! Nagle's rule. A lone appender finds nothing in flight and never waits; under load what comes while a request is under
//! way collects and goes as one when that returns, so that a request's cost is shared. The wait for it is bounded by
//! [`limits::HOLD`]: one partition that does not answer must not hold up the others.

use std::collections::VecDeque;
use std::sync::Arc;

use super::batch::{Batch, Load};
use super::producer::limits;

#[derive(Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Arc<Batch>>,
    waiting_load: Load,
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
    Closed,
}

/// What to do with a batch that was let in.
pub(super) enum Next {
    /// Hand these over now.
    HandOver(Vec<Arc<Batch>>),
    /// It waits, as the first: come back with [`Outbox::hold_over`] after the hold.
    ComeBack,
    /// It waits with others.
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
        self.waiting_load += batch.load;
        self.waiting.push_back(batch.clone());
        Ok(self.next())
    }

    fn next(&mut self) -> Next {
        let full = self.waiting_load.bytes >= limits::TOGETHER_BYTES_MAX;
        match self.state {
            State::Open if self.in_flight == 0 || full => Next::HandOver(self.take_waiting()),
            State::Open if self.waiting.len() == 1 => Next::ComeBack,
            _ => Next::Wait,
        }
    }

    /// The hold is over: what waits goes, whatever is still in flight.
    pub(super) fn hold_over(&mut self) -> Vec<Arc<Batch>> {
        if self.state == State::Away { Vec::new() } else { self.take_waiting() }
    }

    /// One record in flight has its fate. [`Outbox::idle`] says what may go now.
    pub(super) fn settle(&mut self, bytes: usize) {
        self.in_flight -= 1;
        self.held -= Load { records: 1, bytes };
    }

    /// This batch was taken, but its deadline came before it was handed over.
    pub(super) fn not_handed_over(&mut self, load: Load) {
        self.in_flight -= load.records;
    }

    /// This batch's deadline has come and it was never handed over: its place is free.
    pub(super) fn withdraw(&mut self, batch: &Arc<Batch>) {
        self.held -= batch.load;
        // Deadlines end in the order of their beginnings, so it stands near the front.
        if let Some(at) = self.waiting.iter().position(|one| Arc::ptr_eq(one, batch)) {
            self.waiting.remove(at);
            self.waiting_load -= batch.load;
        }
    }

    /// What waits, if nothing is in flight.
    pub(super) fn idle(&mut self) -> Vec<Arc<Batch>> {
        if self.in_flight == 0 && self.state == State::Open { self.take_waiting() } else { Vec::new() }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Closed is for good. Brings what may go now.
    pub(super) fn set_state(&mut self, state: State) -> Vec<Arc<Batch>> {
        if self.state != State::Closed {
            self.state = state;
        }
        if self.state == State::Open { self.take_waiting() } else { Vec::new() }
    }

    fn take_waiting(&mut self) -> Vec<Arc<Batch>> {
        self.in_flight += self.waiting_load.records;
        self.waiting_load = Load::default();
        self.waiting.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{NewRecord, Timestamp, Topic};

    fn batch(records: usize, bytes_each: usize) -> Arc<Batch> {
        let value = Some(Bytes::from(vec![0; bytes_each]));
        let record = NewRecord { topic: Topic::new("t"), time: Timestamp(1), key: None, value };
        Batch::new(vec![record; records]).0
    }

    fn settled(outbox: &mut Outbox, bytes: usize) -> usize {
        outbox.settle(bytes);
        outbox.idle().len()
    }

    fn goes(next: Result<Next, Refusal>) -> usize {
        match next {
            Ok(Next::HandOver(batches)) => batches.len(),
            _ => 0,
        }
    }

    #[test]
    fn alone_goes_at_once_and_company_collects_until_the_first_returns() {
        let mut outbox = Outbox::default();
        assert_eq!(goes(outbox.admit(&batch(1, 10))), 1);
        assert!(matches!(outbox.admit(&batch(1, 10)), Ok(Next::ComeBack)));
        assert!(matches!(outbox.admit(&batch(1, 10)), Ok(Next::Wait)));
        assert_eq!(settled(&mut outbox, 10), 2);
        assert_eq!(settled(&mut outbox, 10), 0);
    }

    #[test]
    fn a_partition_that_does_not_answer_holds_up_the_others_only_for_the_hold() {
        let mut outbox = Outbox::default();
        assert_eq!(goes(outbox.admit(&batch(1, 10))), 1);
        assert!(matches!(outbox.admit(&batch(1, 10)), Ok(Next::ComeBack)));
        assert_eq!(outbox.hold_over().len(), 1);
        assert!(matches!(outbox.admit(&batch(1, 10)), Ok(Next::ComeBack)), "the next one is held anew");
    }

    #[test]
    fn a_full_request_does_not_wait() {
        let mut outbox = Outbox::default();
        assert_eq!(goes(outbox.admit(&batch(1, 10))), 1);
        assert_eq!(goes(outbox.admit(&batch(1, limits::TOGETHER_BYTES_MAX))), 1);
    }

    #[test]
    fn what_is_held_is_bounded_and_a_place_is_given_back() {
        let mut outbox = Outbox::default();
        let (half, other) = (batch(1, limits::BYTES_HELD_MAX / 2), batch(1, limits::BYTES_HELD_MAX / 2));
        assert_eq!(goes(outbox.admit(&half)), 1);
        assert_eq!(goes(outbox.admit(&other)), 1);
        assert_eq!(outbox.admit(&batch(1, 1)).err(), Some(Refusal::Bytes(limits::BYTES_HELD_MAX)));
        outbox.settle(half.load.bytes);
        assert!(outbox.admit(&batch(1, 1)).is_ok());
        assert!(matches!(outbox.admit(&batch(limits::RECORDS_HELD_MAX, 0)), Err(Refusal::Records(_))));
    }

    #[test]
    fn while_no_broker_answers_nothing_goes_and_what_is_withdrawn_never_will() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.set_state(State::Away).len(), 0);
        let (one, two) = (batch(2, 10), batch(1, 10));
        assert!(matches!(outbox.admit(&one), Ok(Next::Wait)));
        assert!(matches!(outbox.admit(&two), Ok(Next::Wait)));
        assert_eq!(outbox.hold_over().len(), 0);
        outbox.withdraw(&one);
        let back = outbox.set_state(State::Open);
        assert!(back.len() == 1 && Arc::ptr_eq(&back[0], &two));
        outbox.settle(10);
        assert_eq!((outbox.held, outbox.in_flight), (Load::default(), 0));
    }
}
