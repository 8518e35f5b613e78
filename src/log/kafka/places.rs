//! Where a tail stands in each of its partitions: what is taken from the consumer, what is told, what is still missing.
//!
//! Pure bookkeeping. The thread that polls puts every message through [`Places::take`]; the scout finds partitions, moves
//! places and settles what the log held at the start. A place that is being moved takes nothing: what the consumer still
//! brings of it is an echo of the old place.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::still::PAST_THE_END;
use crate::log::Opened;
use crate::model::{Offset, Partition, Timestamp, Topic};

#[derive(Default)]
pub(super) struct Places {
    wanted: HashSet<Topic>,
    topics: HashMap<String, HashMap<i32, Place>>,
    opened: Vec<Opened>,
    /// Places that have not delivered yet all that the log held when the tail was opened.
    missing: usize,
    /// The first look at the log has ended: what is found from now on is new.
    pub(super) looked: bool,
    /// Partitions of the first look whose ends could not be asked yet.
    pub(super) unasked: HashSet<Partition>,
    away: bool,
}

struct Place {
    partition: Partition,
    phase: Phase,
    next: Offset,
    /// What the log held when the tail was opened ends here; none once it has been delivered.
    target: Option<Offset>,
    /// The record that was taken last, or stood before the place; none where the log had nothing before it.
    last: Option<(Offset, Timestamp)>,
    /// Is the topic still the one that it was?
    doubt: Option<Doubt>,
    /// The last time that something happened here.
    touched: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Takes nothing. `opened` says whether it was told already.
    Moving {
        opened: bool,
    },
    /// Read from one record early: that one's time belongs to the opening.
    Opening,
    Following,
}

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Deliver(Partition),
    Drop,
    /// There was a gap where the record one early should have been: the scout looks further back.
    LookBack,
}

/// A place that nothing has happened in for a while, although something should.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Restless {
    Opening,
    /// Is there a record at all between `next` and the target?
    Missing {
        next: Offset,
        target: Offset,
    },
}

/// How the topic was when nobody doubted yet that it is the same: what is taken from then on says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) next: Offset,
    pub(super) last: Option<(Offset, Timestamp)>,
    /// Nothing is taken until it is settled.
    pub(super) held: bool,
    /// Since when the log has been seen to end before it.
    pub(super) past_since: Option<Instant>,
}

impl Places {
    /// Follows these topics from now on. Brings the partitions that are left.
    pub(super) fn follow(&mut self, topics: Vec<Topic>) -> Vec<Partition> {
        self.wanted = topics.into_iter().collect();
        let wanted = &self.wanted;
        let mut left = Vec::new();
        self.topics.retain(|_, places| {
            let keep = places.values().next().is_none_or(|place| wanted.contains(&place.partition.topic));
            if !keep {
                left.extend(places.drain().map(|(_, place)| place));
            }
            keep
        });
        self.missing -= left.iter().filter(|place| place.target.is_some()).count();
        self.unasked.retain(|partition| wanted.contains(&partition.topic));
        self.opened.retain(|opened| wanted.contains(&opened.partition.topic));
        left.into_iter().map(|place| place.partition).collect()
    }

    pub(super) fn wanted(&self) -> Vec<Topic> {
        self.wanted.iter().cloned().collect()
    }

    pub(super) fn has(&self, partition: &Partition) -> bool {
        self.topics.get(partition.topic.as_str()).is_some_and(|places| places.contains_key(&partition.index))
    }

    pub(super) fn take(&mut self, topic: &str, index: i32, offset: Offset, time: Timestamp) -> Taken {
        let Some(place) = self.topics.get_mut(topic).and_then(|places| places.get_mut(&index)) else {
            return Taken::Drop;
        };
        match place.phase {
            Phase::Following if offset >= place.next => {
                place.next = offset.after();
                place.last = Some((offset, time));
                place.touched = Instant::now();
                self.missing -= usize::from(place.reached());
                Taken::Deliver(place.partition.clone())
            }
            Phase::Opening if offset < place.next => {
                place.phase = Phase::Following;
                place.last = Some((offset, time));
                place.touched = Instant::now();
                self.missing -= usize::from(place.reached());
                let (partition, next) = (place.partition.clone(), place.next);
                self.opened.push(Opened { partition, next, before: Some(time) });
                Taken::Drop
            }
            Phase::Opening => {
                place.phase = Phase::Moving { opened: false };
                Taken::LookBack
            }
            Phase::Following | Phase::Moving { .. } => Taken::Drop,
        }
    }

    /// A new place. `early`: the consumer starts one record before `next`, so that its time can be told. Nothing if nobody
    /// wants the topic any more.
    pub(super) fn open(&mut self, partition: &Partition, next: Offset, early: bool, target: Option<Offset>) -> bool {
        if !self.wanted.contains(&partition.topic) || self.has(partition) {
            return false;
        }
        let phase = if early { Phase::Opening } else { Phase::Following };
        let touched = Instant::now();
        let mut place = Place { partition: partition.clone(), phase, next, target, last: None, doubt: None, touched };
        self.missing += usize::from(target.is_some());
        if !early {
            self.missing -= usize::from(place.reached());
            self.opened.push(Opened { partition: partition.clone(), next, before: None });
        }
        self.unasked.remove(partition);
        self.topics.entry(partition.topic.as_str().to_owned()).or_default().insert(partition.index, place);
        true
    }

    /// From now on until [`Places::put`] it takes nothing. Brings where it stood.
    pub(super) fn lift(&mut self, partition: &Partition) -> Option<Offset> {
        let place = self.place(partition)?;
        let opened = matches!(place.phase, Phase::Following | Phase::Moving { opened: true });
        place.phase = Phase::Moving { opened };
        Some(place.next)
    }

    /// Goes on at `next`. A place that was never opened, or that is `anew` the place of other records, is told.
    pub(super) fn put(
        &mut self,
        partition: &Partition,
        next: Offset,
        anew: bool,
        before: Option<(Offset, Timestamp)>,
    ) -> bool {
        let Some(place) = self.place(partition) else { return false };
        let told = place.phase == Phase::Moving { opened: true } && !anew;
        (place.phase, place.next, place.touched) = (Phase::Following, next, Instant::now());
        (place.last, place.doubt) = (before, None);
        let reached = place.reached();
        self.missing -= usize::from(reached);
        if !told {
            let before = before.map(|(_, time)| time);
            self.opened.push(Opened { partition: partition.clone(), next, before });
        }
        true
    }

    /// The topic was not there, or may have been another one meanwhile. Where it is `held`, nothing is taken until that is
    /// settled: what a reader has had of another topic's middle would make its beginning look as if it were known.
    /// Whether it is news.
    pub(super) fn doubt(&mut self, partition: &Partition, held: bool) -> bool {
        let Some(place) = self.place(partition).filter(|place| place.phase == Phase::Following) else { return false };
        let (next, last) = (place.next, place.last);
        let doubt = place.doubt.get_or_insert(Doubt { next, last, held, past_since: None });
        doubt.held |= held;
        if held {
            place.phase = Phase::Moving { opened: true };
            // Nobody waits for what was deleted.
            let waited = place.target.take().is_some();
            self.missing -= usize::from(waited);
        }
        true
    }

    pub(super) fn doubted(&self) -> Vec<(Partition, Doubt)> {
        let places = self.topics.values().flat_map(HashMap::values);
        places.filter_map(|place| Some((place.partition.clone(), place.doubt?))).collect()
    }

    /// What a place is known by now.
    pub(super) fn known(&self, partition: &Partition) -> Option<Doubt> {
        let place = self.topics.get(partition.topic.as_str())?.get(&partition.index)?;
        Some(Doubt { next: place.next, last: place.last, held: false, past_since: None })
    }

    /// The log ends before it, as far as one can see. Whether that has been so for long enough to be believed.
    pub(super) fn is_long_past(&mut self, partition: &Partition, now: Instant) -> bool {
        let doubt = self.place(partition).and_then(|place| place.doubt.as_mut());
        doubt.is_some_and(|doubt| now - *doubt.past_since.get_or_insert(now) >= PAST_THE_END)
    }

    /// It is the same topic. Brings from where it has to be read again, if it was held.
    pub(super) fn trust(&mut self, partition: &Partition) -> Option<Offset> {
        let place = self.place(partition)?;
        let doubt = place.doubt.take()?;
        if !doubt.held {
            return None;
        }
        (place.phase, place.touched) = (Phase::Following, Instant::now());
        Some(place.next)
    }

    /// For a new consumer: where it has to begin in every partition. Places that were being moved go on where they stood.
    pub(super) fn begin_anew(&mut self) -> Vec<(Partition, Offset)> {
        let places = self.topics.values_mut().flat_map(HashMap::values_mut);
        let begun = places.map(|place| {
            let early = place.phase == Phase::Opening && place.next > Offset(0);
            if place.phase == (Phase::Moving { opened: true }) && place.doubt.is_none_or(|doubt| !doubt.held) {
                place.phase = Phase::Following;
            }
            place.touched = Instant::now();
            let from = if early { Offset(place.next.0 - 1) } else { place.next };
            (place.partition.clone(), from)
        });
        begun.collect()
    }

    /// There is no record between its place and here.
    pub(super) fn pass_over(&mut self, partition: &Partition, to: Offset) {
        if let Some(place) = self.place(partition)
            && place.phase == Phase::Following
        {
            place.next = place.next.max(to);
            let reached = place.reached();
            self.missing -= usize::from(reached);
        }
    }

    /// The log was away and is back: caught up is who has what it holds now.
    pub(super) fn aim(&mut self, partition: &Partition, target: Offset) {
        if let Some(place) = self.place(partition) {
            let had = place.target.replace(target).is_some();
            let reached = place.phase == Phase::Following && place.reached();
            self.missing = self.missing + usize::from(!had) - usize::from(reached);
        }
    }

    pub(super) fn restless(&self, patience: Duration) -> Vec<(Partition, Restless)> {
        let places = self.topics.values().flat_map(HashMap::values);
        let restless = places.filter(|place| place.touched.elapsed() >= patience).filter_map(|place| {
            let why = match (place.phase, place.target) {
                (Phase::Opening | Phase::Moving { opened: false }, _) => Restless::Opening,
                (Phase::Following, Some(target)) => Restless::Missing { next: place.next, target },
                _ => return None,
            };
            Some((place.partition.clone(), why))
        });
        restless.collect()
    }

    /// Every place that is followed, and where it stands.
    pub(super) fn followed(&self) -> Vec<(Partition, Offset)> {
        let places = self.topics.values().flat_map(HashMap::values);
        let followed = places.filter(|place| place.phase == Phase::Following);
        followed.map(|place| (place.partition.clone(), place.next)).collect()
    }

    pub(super) fn all(&self) -> Vec<Partition> {
        self.topics.values().flat_map(HashMap::values).map(|place| place.partition.clone()).collect()
    }

    /// Looked at and left as it was: not again at once.
    pub(super) fn touch(&mut self, partition: &Partition) {
        if let Some(place) = self.place(partition) {
            place.touched = Instant::now();
        }
    }

    /// While nobody answers a topic may be made anew.
    pub(super) fn set_away(&mut self, away: bool) {
        if away && !self.away {
            self.followed().into_iter().for_each(|(partition, _)| _ = self.doubt(&partition, false));
        }
        self.away = away;
    }

    pub(super) fn is_away(&self) -> bool {
        self.away
    }

    pub(super) fn caught_up(&self) -> bool {
        self.looked && !self.away && self.missing == 0 && self.unasked.is_empty()
    }

    pub(super) fn take_opened(&mut self) -> Vec<Opened> {
        std::mem::take(&mut self.opened)
    }

    fn place(&mut self, partition: &Partition) -> Option<&mut Place> {
        self.topics.get_mut(partition.topic.as_str())?.get_mut(&partition.index)
    }
}

impl Place {
    /// Whether the target has just been reached.
    fn reached(&mut self) -> bool {
        self.target.take_if(|target| self.next >= *target).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Timestamp = Timestamp(7);

    fn partition() -> Partition {
        Partition::new(&Topic::new("t"), 0)
    }

    fn places() -> Places {
        let mut places = Places { looked: true, ..Places::default() };
        places.follow(vec![Topic::new("t")]);
        places
    }

    fn take(places: &mut Places, offset: i64) -> Taken {
        places.take("t", 0, Offset(offset), TIME)
    }

    #[test]
    fn the_record_one_early_opens_the_place_and_is_not_delivered() {
        let mut places = places();
        assert!(places.open(&partition(), Offset(5), true, Some(Offset(6))));
        assert_eq!(take(&mut places, 4), Taken::Drop);
        assert_eq!(places.take_opened(), [Opened { partition: partition(), next: Offset(5), before: Some(TIME) }]);
        assert!(!places.caught_up());
        assert_eq!(take(&mut places, 5), Taken::Deliver(partition()));
        assert!(places.caught_up());
        assert_eq!(take(&mut places, 5), Taken::Drop, "each record once");
    }

    #[test]
    fn a_gap_one_early_is_looked_into_before_anything_is_delivered() {
        let mut places = places();
        places.open(&partition(), Offset(5), true, None);
        assert_eq!(take(&mut places, 6), Taken::LookBack);
        assert_eq!(take(&mut places, 7), Taken::Drop, "an echo");
        assert!(places.put(&partition(), Offset(5), false, None));
        assert_eq!(places.take_opened(), [Opened { partition: partition(), next: Offset(5), before: None }]);
        assert_eq!(take(&mut places, 6), Taken::Deliver(partition()));
    }

    #[test]
    fn a_gap_at_the_end_is_passed_over_when_it_is_known_to_be_one() {
        let mut places = places();
        places.open(&partition(), Offset(5), false, Some(Offset(8)));
        assert_eq!(take(&mut places, 6), Taken::Deliver(partition()));
        let restless = places.restless(Duration::ZERO);
        assert_eq!(restless, [(partition(), Restless::Missing { next: Offset(7), target: Offset(8) })]);
        places.pass_over(&partition(), Offset(8));
        assert!(places.caught_up() && places.restless(Duration::ZERO).is_empty());
    }

    #[test]
    fn away_is_not_caught_up_and_back_is_what_the_log_holds_now() {
        let mut places = places();
        places.open(&partition(), Offset(0), false, Some(Offset(0)));
        assert!(places.caught_up());
        places.set_away(true);
        assert!(!places.caught_up());
        places.aim(&partition(), Offset(1));
        places.set_away(false);
        assert!(!places.caught_up());
        assert_eq!(take(&mut places, 0), Taken::Deliver(partition()));
        assert!(places.caught_up());
    }

    #[test]
    fn a_topic_left_is_silent_and_no_longer_waited_for() {
        let mut places = places();
        places.open(&partition(), Offset(0), false, Some(Offset(3)));
        assert_eq!(places.follow(vec![]), [partition()]);
        assert_eq!(take(&mut places, 0), Taken::Drop);
        assert!(places.caught_up() && places.take_opened().is_empty());
        assert!(!places.open(&partition(), Offset(0), false, None), "nobody wants it");
    }

    #[test]
    fn a_new_consumer_begins_where_the_places_stand_and_repeats_nothing() {
        let mut places = places();
        places.open(&partition(), Offset(5), true, None);
        assert_eq!(places.begin_anew(), [(partition(), Offset(4))], "one early, for its time");
        take(&mut places, 4);
        take(&mut places, 5);
        assert_eq!(places.begin_anew(), [(partition(), Offset(6))]);
        assert_eq!(take(&mut places, 6), Taken::Deliver(partition()), "the old one's last");
        assert_eq!(take(&mut places, 6), Taken::Drop, "the new one's first");
        places.lift(&partition());
        assert_eq!(places.begin_anew(), [(partition(), Offset(7))]);
        assert_eq!(take(&mut places, 7), Taken::Deliver(partition()));
    }

    #[test]
    fn a_moved_place_is_told_only_if_its_records_are_others() {
        let mut places = places();
        places.open(&partition(), Offset(0), false, None);
        places.take_opened();
        assert_eq!(places.lift(&partition()), Some(Offset(0)));
        places.put(&partition(), Offset(9), false, None);
        assert_eq!(places.take_opened(), []);
        places.lift(&partition());
        places.put(&partition(), Offset(0), true, None);
        assert_eq!(places.take_opened().len(), 1);
        assert_eq!(take(&mut places, 0), Taken::Deliver(partition()));
    }

    #[test]
    fn a_doubted_place_takes_nothing_and_keeps_what_was_known_until_it_is_trusted() {
        let mut places = places();
        places.open(&partition(), Offset(0), false, Some(Offset(9)));
        take(&mut places, 0);
        places.set_away(true);
        assert_eq!(take(&mut places, 1), Taken::Deliver(partition()), "while nobody answers it goes on");
        let known = Doubt { next: Offset(1), last: Some((Offset(0), TIME)), held: false, past_since: None };
        assert_eq!(places.doubted(), [(partition(), known)]);
        assert!(places.doubt(&partition(), true));
        assert_eq!(places.doubted(), [(partition(), Doubt { held: true, ..known })], "the first doubt counts");
        assert_eq!(places.begin_anew(), [(partition(), Offset(2))]);
        assert_eq!(take(&mut places, 2), Taken::Drop, "also of a new consumer");
        places.set_away(false);
        assert!(places.caught_up(), "nobody waits for what was deleted");
        assert_eq!(places.trust(&partition()), Some(Offset(2)));
        assert_eq!(take(&mut places, 2), Taken::Deliver(partition()));
        assert!(places.doubted().is_empty() && places.take_opened().len() == 1, "it was told once");
    }

    #[test]
    fn a_doubted_place_past_the_end_is_given_up_only_after_a_while() {
        let (mut places, start) = (places(), Instant::now());
        places.open(&partition(), Offset(5), false, None);
        assert!(!places.is_long_past(&partition(), start + PAST_THE_END), "nobody doubts it");
        places.doubt(&partition(), true);
        assert!(!places.is_long_past(&partition(), start), "a new leader may not know yet what it has");
        assert!(!places.is_long_past(&partition(), start + PAST_THE_END / 2));
        assert!(places.is_long_past(&partition(), start + PAST_THE_END));
    }
}
