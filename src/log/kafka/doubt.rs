//! Is a topic still the one that it was? One that was deleted and made again under the same name begins at zero, and may
//! have grown past the place by the time that somebody looks: then offsets alone say nothing.
//!
//! What says it is the record before the place: the same topic has it, with the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::places::Doubt;
use super::reader::{Cluster, Reader, Until};
use super::scout::{ANSWER_WITHIN, LOOKED_INTO_MAX, Scout, YOUNG_FOR};
use super::still::Odd;
use crate::log::{PartitionEnds, ReadError};
use crate::model::{Offset, Partition, Timestamp};

#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Same,
    /// It begins here.
    Another(Offset),
    /// The log ends before the place: it has grown less than the old one, or its leader does not know yet what it has.
    Past(Offset),
}

impl Scout {
    /// What is followed and is not there is doubted from now on, and what is there again is settled.
    pub(super) fn doubt_and_settle(&mut self, cluster: &Cluster) {
        let leaders: BTreeMap<&Partition, Option<i32>> =
            cluster.led.iter().map(|led| (&led.partition, led.leader)).collect();
        let doubted = {
            let mut places = self.state.places.lock();
            for (partition, _) in places.followed() {
                if !leaders.contains_key(&partition) && places.doubt(&partition, true) {
                    self.young_until = Instant::now() + YOUNG_FOR;
                    tracing::warn!(%partition, "the log does not have it any more: it is followed again when it is there");
                }
            }
            places.doubted()
        };
        let mut there: Vec<(Partition, Doubt)> =
            doubted.into_iter().filter(|(partition, _)| leaders.contains_key(partition)).collect();
        if !there.is_empty() {
            self.young_until = Instant::now() + YOUNG_FOR;
        }
        // In turn, so that those of which nothing can be found out do not keep the others waiting; first those held.
        fastrand::shuffle(&mut there);
        there.sort_by_key(|(_, doubt)| !doubt.held);
        let mut silent = BTreeSet::new();
        for (partition, doubt) in there.into_iter().take(LOOKED_INTO_MAX) {
            let leader = leaders.get(&partition).copied().flatten();
            if silent.contains(&leader) {
                continue;
            }
            match find(&self.reader, &partition, &doubt) {
                Ok(finding) => self.settle(&partition, &finding),
                Err(fault) => {
                    silent.insert(leader);
                    tracing::debug!(%partition, "nobody says whether it is the topic that it was: {fault}");
                }
            }
        }
    }

    fn settle(&self, partition: &Partition, finding: &Finding) {
        match finding {
            Finding::Same => {
                let mut places = self.state.places.lock();
                let Some(next) = places.trust(partition) else { return };
                drop(places);
                self.unassign(std::slice::from_ref(partition));
                self.assign_one(partition, next);
            }
            Finding::Another(first) => self.follow_from_the_first(partition, *first),
            Finding::Past(first) => {
                let is_long_past = self.state.places.lock().is_long_past(partition, Instant::now());
                if is_long_past {
                    self.follow_from_the_first(partition, *first);
                }
            }
        }
    }

    /// A tail that stands still may stand in a topic that is not there any more. Brings the others.
    pub(super) fn leave_other_topics(&self, odd: Vec<(Partition, Offset, Odd)>) -> Vec<(Partition, Offset, Odd)> {
        let mut left = LOOKED_INTO_MAX;
        let mut is_another = |(partition, _, odd): &(Partition, Offset, Odd)| {
            let known = self.state.places.lock().known(partition);
            let Some(known) = known.filter(|_| left > 0 && matches!(odd, Odd::Behind { .. })) else { return false };
            left -= 1;
            let Ok(Finding::Another(first)) = find(&self.reader, partition, &known) else { return false };
            self.follow_from_the_first(partition, first);
            true
        };
        odd.into_iter().filter(|one| !is_another(one)).collect()
    }

    fn follow_from_the_first(&self, partition: &Partition, first: Offset) {
        tracing::warn!(%partition, goes_on_at = %first, "the topic was made anew: followed from its first record");
        self.put_at(partition, first, true);
    }
}

fn find(reader: &Reader, partition: &Partition, known: &Doubt) -> Result<Finding, ReadError> {
    let until = Until::after(ANSWER_WITHIN);
    // In this order: a topic that fills up meanwhile would have no record before the place, and yet reach beyond it.
    let ends = reader.ends(std::slice::from_ref(partition), until)?;
    let Some(PartitionEnds { first, next: end, .. }) = ends.first() else { return Ok(Finding::Same) };
    let found = reader.before(partition, known.next, until)?;
    Ok(compare(known, found, *first, *end))
}

fn compare(known: &Doubt, found: Option<(Offset, Timestamp)>, first: Offset, end: Offset) -> Finding {
    if end < known.next {
        return Finding::Past(first);
    }
    let another = match (known.last, found) {
        // Nothing is there that could be missed: retention was faster, or there are only gaps.
        (_, None) => false,
        // Where there was nothing.
        (None, Some(_)) => true,
        (Some((last, time)), Some((at, found))) => match at.cmp(&last) {
            std::cmp::Ordering::Equal => found != time,
            std::cmp::Ordering::Greater => true,
            // Compaction may have taken the last one; but what was before it was not written later.
            std::cmp::Ordering::Less => found > time,
        },
    };
    if another { Finding::Another(first) } else { Finding::Same }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64, time: i64) -> Option<(Offset, Timestamp)> {
        Some((Offset(offset), Timestamp(time)))
    }

    #[test]
    fn the_record_before_the_place_says_whether_it_is_the_same_topic() {
        let (first, another) = (Offset(0), Finding::Another(Offset(0)));
        let table = [
            (at(6, 100), at(6, 100), 7, Finding::Same, "it is there"),
            (at(6, 100), at(6, 200), 10, another, "another record is there"),
            (at(6, 100), at(2, 200), 10, Finding::Another(first), "a marker is there, and what is before it is later"),
            (at(6, 100), at(2, 90), 10, Finding::Same, "compaction took it"),
            (at(6, 100), None, 10, Finding::Same, "retention took all"),
            (at(3, 100), at(5, 200), 10, Finding::Another(first), "a record where there was a gap"),
            (None, at(3, 200), 10, Finding::Another(first), "a record where there was none"),
            (None, None, 7, Finding::Same, "still none"),
            (at(6, 100), at(4, 200), 5, Finding::Past(first), "not yet as far, or a new leader"),
        ];
        for (last, found, end, expected, what) in table {
            let known = Doubt { next: Offset(7), last, held: true, past_since: None };
            assert_eq!(compare(&known, found, first, Offset(end)), expected, "{what}");
        }
    }
}
