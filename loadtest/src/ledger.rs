//! What one reader has had: tells lost, repeated and disordered events apart.

use std::collections::BTreeSet;

use crate::event::Stamp;

/// Events that came before an earlier one of the same producer. More are counted as lost.
const AHEAD_MAX: usize = 100_000;
/// Producers of one run.
pub(crate) const PRODUCERS_MAX: u32 = 1_024;

#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    producers: Vec<Had>,
}

#[derive(Clone, Debug, Default)]
struct Had {
    /// All below this one have come.
    next: u64,
    /// What has come beyond it.
    ahead: BTreeSet<u64>,
    /// The newest of each partition: the order of a producer's events holds there.
    newest: Vec<(u32, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Fresh,
    /// Fresh, but a later one of the same producer and partition came before it.
    Disordered,
    Repeated,
}

impl Ledger {
    pub(crate) fn enter(&mut self, stamp: Stamp, partition: u32) -> Arrival {
        let producer = stamp.producer.min(PRODUCERS_MAX) as usize;
        if self.producers.len() <= producer {
            self.producers.resize_with(producer + 1, Had::default);
        }
        self.producers[producer].enter(stamp.seq, partition)
    }
}

impl Had {
    fn enter(&mut self, seq: u64, partition: u32) -> Arrival {
        if seq < self.next || self.ahead.contains(&seq) {
            return Arrival::Repeated;
        }
        if seq == self.next {
            self.next += 1;
            while self.ahead.remove(&self.next) {
                self.next += 1;
            }
        } else if self.ahead.len() < AHEAD_MAX {
            self.ahead.insert(seq);
        }
        match self.newest.iter_mut().find(|(of, _)| *of == partition) {
            Some((_, newest)) if *newest > seq => return Arrival::Disordered,
            Some((_, newest)) => *newest = seq,
            None => self.newest.push((partition, seq)),
        }
        Arrival::Fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(ledger: &mut Ledger, producer: u32, seq: u64, partition: u32) -> Arrival {
        ledger.enter(Stamp { run: 0, producer, seq, sent_us: 0 }, partition)
    }

    #[test]
    fn a_repeat_is_told_from_a_late_one() {
        let mut ledger = Ledger::default();
        assert_eq!(enter(&mut ledger, 0, 0, 0), Arrival::Fresh);
        assert_eq!(enter(&mut ledger, 0, 2, 0), Arrival::Fresh);
        assert_eq!(enter(&mut ledger, 0, 1, 0), Arrival::Disordered);
        for seq in 0..3 {
            assert_eq!(enter(&mut ledger, 0, seq, 0), Arrival::Repeated);
        }
    }

    #[test]
    fn producers_and_partitions_have_orders_of_their_own() {
        let mut ledger = Ledger::default();
        assert_eq!(enter(&mut ledger, 1, 5, 0), Arrival::Fresh);
        assert_eq!(enter(&mut ledger, 0, 0, 0), Arrival::Fresh);
        assert_eq!(enter(&mut ledger, 1, 4, 1), Arrival::Fresh);
        assert_eq!(enter(&mut ledger, 1, 5, 1), Arrival::Repeated);
    }
}
