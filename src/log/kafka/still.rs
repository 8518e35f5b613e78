//! Which places stand still although the log has more for them, and which stand where the log has not come. Pure
//! bookkeeping over what the scout sees.
//!
//! One look proves nothing: a record may be on its way, and a broker that has just been made leader may not know yet how far
//! its partition goes. What has been so for a while, and at every look in between, is so.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::model::{Offset, Partition};

/// A place that has not moved for so long, with records past it, stands still.
pub(super) const STANDS_STILL: Duration = Duration::from_secs(10);
/// A consumer that was made anew and stands still, too, is given longer, up to this: it is the broker's doing.
const STANDS_STILL_MAX: Duration = Duration::from_secs(60);
/// A place past the end for so long is that of another topic of the same name.
pub(super) const PAST_THE_END: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Still {
    seen: HashMap<Partition, Seen>,
    /// Where those stood that were behind when the consumer was made anew. While one of them has not moved, that has not
    /// helped.
    stuck: HashMap<Partition, Offset>,
    patience: Duration,
}

#[derive(Debug)]
struct Seen {
    odd: Odd,
    next: Offset,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Odd {
    /// The log has more, or a gap, up to here.
    Behind { end: Offset },
    /// The log ends before it.
    Past { end: Offset },
}

impl Default for Still {
    fn default() -> Self {
        Self { seen: HashMap::new(), stuck: HashMap::new(), patience: STANDS_STILL }
    }
}

impl Still {
    /// `stood` is where the places stood before the ends were asked for. Brings what has been odd for too long. A partition
    /// that nobody could be asked about begins anew: it is not the tail that stands still there.
    pub(super) fn look(
        &mut self,
        stood: &BTreeMap<Partition, Offset>,
        ends: &BTreeMap<Partition, Offset>,
        now: Instant,
    ) -> Vec<(Partition, Offset, Odd)> {
        let mut seen = HashMap::new();
        for (partition, end) in ends {
            let Some((next, odd)) = stood.get(partition).and_then(|next| Some((*next, odd(*next, *end)?))) else {
                continue;
            };
            let before = self.seen.get(partition).filter(|before| before.next == next && before.odd.is_like(odd));
            let since = before.map_or(now, |before| before.since);
            seen.insert(partition.clone(), Seen { odd, next, since });
        }
        self.seen = seen;
        self.stuck.retain(|partition, next| stood.get(partition) == Some(next));
        if self.stuck.is_empty() {
            self.patience = STANDS_STILL;
        }
        let due = self.seen.iter().filter(|(_, seen)| now - seen.since >= self.patience_with(seen.odd));
        due.map(|(partition, seen)| (partition.clone(), seen.next, seen.odd)).collect()
    }

    /// Nothing can be said of what was seen: the tail was held up, or moved by us.
    pub(super) fn forget(&mut self) {
        self.seen.clear();
    }

    /// All begins anew with another consumer, and that is given longer.
    pub(super) fn rebuilt(&mut self) {
        let behind = self.seen.drain().filter(|(_, seen)| matches!(seen.odd, Odd::Behind { .. }));
        self.stuck = behind.map(|(partition, seen)| (partition, seen.next)).collect();
        self.patience = (self.patience * 2).min(STANDS_STILL_MAX);
    }

    fn patience_with(&self, odd: Odd) -> Duration {
        match odd {
            Odd::Behind { .. } => self.patience,
            Odd::Past { .. } => PAST_THE_END,
        }
    }
}

impl Odd {
    fn is_like(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

fn odd(next: Offset, end: Offset) -> Option<Odd> {
    match next.cmp(&end) {
        std::cmp::Ordering::Less => Some(Odd::Behind { end }),
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(Odd::Past { end }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Topic;

    fn at(offset: i64) -> BTreeMap<Partition, Offset> {
        [(Partition::new(&Topic::new("t"), 0), Offset(offset))].into()
    }

    fn odds(still: &mut Still, next: i64, end: i64, now: Instant) -> Vec<Odd> {
        still.look(&at(next), &at(end), now).into_iter().map(|(.., odd)| odd).collect()
    }

    #[test]
    fn a_place_that_does_not_move_while_the_log_grows_stands_still_after_a_while() {
        let (mut still, start) = (Still::default(), Instant::now());
        assert_eq!(odds(&mut still, 5, 6, start), []);
        assert_eq!(odds(&mut still, 5, 9, start + STANDS_STILL / 2), []);
        assert_eq!(odds(&mut still, 5, 9, start + STANDS_STILL), [Odd::Behind { end: Offset(9) }]);
    }

    #[test]
    fn a_place_that_moves_or_that_has_all_does_not_stand_still() {
        let (mut still, start) = (Still::default(), Instant::now());
        odds(&mut still, 5, 6, start);
        assert_eq!(odds(&mut still, 6, 9, start + STANDS_STILL), []);
        assert_eq!(odds(&mut still, 9, 9, start + 2 * STANDS_STILL), []);
        assert_eq!(odds(&mut still, 9, 10, start + 3 * STANDS_STILL), []);
    }

    #[test]
    fn a_broker_that_does_not_answer_is_not_a_tail_that_stands_still() {
        let (mut still, start) = (Still::default(), Instant::now());
        odds(&mut still, 5, 6, start);
        assert!(still.look(&at(5), &BTreeMap::new(), start + STANDS_STILL).is_empty());
        assert_eq!(odds(&mut still, 5, 6, start + 2 * STANDS_STILL), []);
    }

    #[test]
    fn a_consumer_made_anew_in_vain_is_given_longer_until_all_is_well() {
        let (mut still, start) = (Still::default(), Instant::now());
        odds(&mut still, 5, 6, start);
        still.rebuilt();
        odds(&mut still, 5, 6, start + STANDS_STILL);
        assert_eq!(odds(&mut still, 5, 6, start + 2 * STANDS_STILL), []);
        assert_eq!(odds(&mut still, 5, 6, start + 3 * STANDS_STILL).len(), 1);
        odds(&mut still, 6, 6, start + 3 * STANDS_STILL);
        odds(&mut still, 6, 7, start + 3 * STANDS_STILL);
        assert_eq!(odds(&mut still, 6, 7, start + 4 * STANDS_STILL).len(), 1);
    }

    #[test]
    fn a_place_past_the_end_is_believed_only_after_a_while() {
        let (mut still, start) = (Still::default(), Instant::now());
        assert_eq!(odds(&mut still, 5, 2, start), []);
        assert_eq!(odds(&mut still, 5, 6, start + PAST_THE_END / 2), [], "a new leader has learned what it has");
        assert_eq!(odds(&mut still, 5, 2, start + PAST_THE_END), []);
        assert_eq!(odds(&mut still, 5, 3, start + 2 * PAST_THE_END), [Odd::Past { end: Offset(3) }]);
    }
}
