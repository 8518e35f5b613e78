//! How far the tail is behind the log in each partition, in time: not how many records wait, but since when.
//!
//! The log's end is noted now and then as a [`Mark`]; the tail is as late as the oldest mark is that it has not passed.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::model::{Offset, Partition};

/// Ends of a partition that are remembered. More would tell the lag more exactly, and nobody asks for that.
const MARKS_MAX: u32 = 16;

/// Then the log's end was here.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    next: Offset,
}

#[derive(Debug, Default)]
struct Kept {
    marks: VecDeque<Mark>,
    /// Below it there is nothing more to come, wherever the tail stands: offsets have gaps.
    empty_below: Offset,
}

#[derive(Debug, Default)]
pub(super) struct Lags(BTreeMap<Partition, Kept>);

impl Lags {
    /// The log's end is here now, and the tail there.
    pub(super) fn note(
        &mut self,
        partition: &Partition,
        end: Offset,
        tail: Offset,
        now: Instant,
        stall_after: Duration,
    ) {
        let kept = self.0.entry(partition.clone()).or_default();
        kept.passed(tail);
        let spaced =
            kept.marks.back().is_none_or(|last| now.saturating_duration_since(last.at) >= stall_after / MARKS_MAX);
        // Where the tail stands still the newest marks say nothing that the oldest does not.
        if end > tail.max(kept.empty_below) && spaced && kept.marks.len() < MARKS_MAX as usize {
            kept.marks.push_back(Mark { at: now, next: end });
        }
    }

    /// For how long records have waited.
    pub(super) fn behind(&mut self, partition: &Partition, tail: Offset, now: Instant) -> Option<Duration> {
        let kept = self.0.get_mut(partition)?;
        kept.passed(tail);
        kept.marks.front().map(|mark| now.saturating_duration_since(mark.at))
    }

    /// Up to where records should have come whose tail is that late: what is there has to be looked at.
    pub(super) fn wanted(&self, partition: &Partition) -> Option<Offset> {
        self.0.get(partition)?.marks.front().map(|mark| mark.next)
    }

    /// Somebody has looked: there is nothing.
    pub(super) fn is_empty_below(&mut self, partition: &Partition, offset: Offset) {
        if let Some(kept) = self.0.get_mut(partition) {
            kept.empty_below = offset.max(kept.empty_below);
            kept.passed(offset);
        }
    }

    /// Where the tail stands, gaps passed.
    pub(super) fn over_gaps(&self, partition: &Partition, tail: Offset) -> Offset {
        self.0.get(partition).map_or(tail, |kept| tail.max(kept.empty_below))
    }

    /// The others are gone.
    pub(super) fn keep(&mut self, is_there: impl Fn(&Partition) -> bool) {
        self.0.retain(|partition, _| is_there(partition));
    }
}

impl Kept {
    fn passed(&mut self, tail: Offset) {
        while self.marks.front().is_some_and(|mark| mark.next <= tail.max(self.empty_below)) {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Topic;

    const STALL: Duration = Duration::from_secs(30);

    fn after(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    #[test]
    fn a_tail_is_as_late_as_the_oldest_end_that_it_has_not_passed() {
        let (mut lags, begin) = (Lags::default(), Instant::now());
        let partition = Partition::new(&Topic::new("t"), 0);
        // Ten records a second, and the tail reads them twenty seconds late.
        for second in 0..300_i64 {
            let now = after(begin, second.unsigned_abs());
            let tail = Offset((second - 20).max(0) * 10);
            lags.note(&partition, Offset(second * 10), tail, now, STALL);
            let behind = lags.behind(&partition, tail, now).unwrap_or_default();
            if second > 40 {
                assert!((Duration::from_secs(17)..=Duration::from_secs(21)).contains(&behind), "{second}: {behind:?}");
            }
        }
        let now = after(begin, 300);
        assert_eq!(lags.behind(&partition, Offset(2990), now), None, "it has caught up");
    }

    #[test]
    fn a_tail_that_stands_gets_later_and_its_marks_are_bounded() {
        let (mut lags, begin) = (Lags::default(), Instant::now());
        let partition = Partition::new(&Topic::new("t"), 0);
        for second in 0..1_000 {
            lags.note(&partition, Offset(1), Offset(0), after(begin, second), STALL);
        }
        assert_eq!(lags.behind(&partition, Offset(0), after(begin, 1_000)), Some(Duration::from_secs(1_000)));
        assert!(lags.0[&partition].marks.len() <= MARKS_MAX as usize);
        lags.keep(|_| false);
        assert_eq!(lags.behind(&partition, Offset(0), begin), None);
    }

    #[test]
    fn a_gap_is_nothing_that_anybody_waits_for() {
        let (mut lags, begin) = (Lags::default(), Instant::now());
        let partition = Partition::new(&Topic::new("t"), 0);
        lags.note(&partition, Offset(5), Offset(3), begin, STALL);
        assert_eq!(lags.wanted(&partition), Some(Offset(5)));
        lags.is_empty_below(&partition, Offset(5));
        let later = after(begin, 60);
        lags.note(&partition, Offset(5), Offset(3), later, STALL);
        assert_eq!(
            (lags.behind(&partition, Offset(3), later), lags.over_gaps(&partition, Offset(3))),
            (None, Offset(5))
        );
        lags.note(&partition, Offset(6), Offset(3), later, STALL);
        assert_eq!(lags.behind(&partition, Offset(3), later), Some(Duration::ZERO), "and what comes after it is");
    }
}
