//! What the hub, the log and the intake say at one moment, put together: partitions, and streams over them.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::Shared;
use super::judge::{self, Facts, Judged, Late, StreamFacts, Troubles};
use super::survey::{Part, Surveys};
use crate::catalog::{Catalog, Stream};
use crate::hub::Tip;
use crate::log::Sick;
use crate::model::{Offset, Partition, StreamName, Timestamp, Topic};

/// One look at everything.
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) partitions: BTreeMap<Partition, Seat>,
    /// Of the whole host. What can change between two looks is filled in when somebody asks.
    pub(super) facts: Facts,
    /// When a user's event came by last.
    pub(super) event_at: Option<Instant>,
    pub(super) streams: Vec<StreamSeen>,
}

/// One partition: what the log says of it, and where the tail stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Seat {
    /// Whether a stream of the catalogue has it: the canary's is nobody's.
    pub(super) is_public: bool,
    pub(super) next: Option<Offset>,
    /// The time of the newest record.
    pub(super) newest: Option<Timestamp>,
    /// When a record came that is news.
    pub(super) came_at: Option<Instant>,
    /// Records that wait, where the log says where it ends.
    pub(super) lag: Option<u64>,
    /// For how long they have waited.
    pub(super) behind: Option<Duration>,
    pub(super) sick: Option<Sick>,
    /// And that is because the log does not have it any more.
    pub(super) is_gone: bool,
}

/// One stream of the catalogue, and the last that was said of it.
pub(super) struct StreamSeen {
    pub(super) name: StreamName,
    pub(super) last: Last,
    /// As it is on a host that is well.
    pub(super) judged: Judged,
    pub(super) since: Timestamp,
    /// Since when it has been watched.
    pub(super) known_at: Instant,
}

/// A stream's newest event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Last {
    /// Its record's time.
    pub(super) time: Option<Timestamp>,
    /// When it came by; none if it was there before the start.
    pub(super) came_at: Option<Instant>,
}

impl Seen {
    /// Before there is anything to be seen.
    pub(super) fn nothing(now: Instant) -> Self {
        let (partitions, facts, streams) = (BTreeMap::new(), Facts::default(), Vec::new());
        Self { at: now, partitions, facts, event_at: None, streams }
    }

    pub(super) fn look(shared: &Shared, before: &Self, now: Instant) -> Self {
        let catalog = shared.sides.catalog.now();
        let partitions = seats(shared, &catalog, now);
        let stall_after = shared.options.stall_after;
        let public = partitions.values().filter(|seat| seat.is_public);
        let event_at = public.filter_map(|seat| seat.came_at).max();
        let facts = Facts {
            gives_out: shared.sides.gives_out,
            has_begun: shared.sides.hub.began_at().is_some(),
            partitions: troubles(partitions.iter(), now, stall_after),
            spool: shared.sides.intake.spool(),
            ..Facts::default()
        };
        let mut seen = Self { at: now, partitions, facts, event_at, streams: Vec::new() };
        let earlier: HashMap<&StreamName, &StreamSeen> =
            before.streams.iter().map(|stream| (&stream.name, stream)).collect();
        // Those of the first look have been there since the start.
        let new_at = if before.streams.is_empty() { shared.started_at } else { now };
        let known_at = |name: &StreamName| earlier.get(name).map_or(new_at, |stream| stream.known_at);
        let streams: Vec<&Stream> = catalog.streams().collect();
        let known = |stream: &&Stream| seen.of_stream(stream, known_at(&stream.name), stall_after, now);
        let of_streams: Vec<(StreamFacts, Last)> = streams.iter().map(known).collect();
        let unmet = streams.iter().zip(&of_streams).filter(|(_, (facts, _))| facts.unmet.is_some());
        let unmet = unmet.map(|(stream, _)| stream.name.clone()).collect();
        seen.facts.unmet = unmet;
        let facts = shared.facts_of(&seen, now);
        let said = streams.into_iter().zip(of_streams).map(|(stream, (of_stream, last))| {
            let judged = judge::of_stream(&of_stream, &facts, stall_after);
            let same = earlier.get(&stream.name).filter(|earlier| earlier.judged.state == judged.state);
            let since = same.map_or_else(Timestamp::now, |earlier| earlier.since);
            StreamSeen { name: stream.name.clone(), last, judged, since, known_at: known_at(&stream.name) }
        });
        seen.streams = said.collect();
        seen
    }

    /// What is known of one stream.
    pub(super) fn of_stream(
        &self,
        stream: &Stream,
        known_at: Instant,
        stall_after: Duration,
        now: Instant,
    ) -> (StreamFacts, Last) {
        let seats = || self.seats_of(&stream.topics);
        let last = Last {
            time: seats().filter_map(|(_, seat)| seat.newest).max(),
            came_at: seats().filter_map(|(_, seat)| seat.came_at).max(),
        };
        let expected = stream.settings.expect_every.filter(|_| self.facts.has_begun && self.facts.gives_out);
        let unmet = expected.and_then(|every| {
            let missed = missed(last, known_at, now, Timestamp::now());
            (missed > every).then_some((every, missed))
        });
        let event_ago = last.came_at.map(|at| now.saturating_duration_since(at));
        (StreamFacts { partitions: troubles(seats(), now, stall_after), event_ago, unmet }, last)
    }

    pub(super) fn seats_of<'a>(&'a self, topics: &'a [Topic]) -> impl Iterator<Item = (&'a Partition, &'a Seat)> {
        topics.iter().flat_map(|topic| {
            let all = Partition::new(topic, 0)..=Partition::new(topic, i32::MAX);
            self.partitions.range(all)
        })
    }
}

/// How long there has been no event. What was there before anybody watched is as old as its record says, and as the watch
/// is at least.
fn missed(last: Last, known_at: Instant, now: Instant, clock: Timestamp) -> Duration {
    let known_for = now.saturating_duration_since(known_at);
    match last {
        Last { came_at: Some(at), .. } => now.saturating_duration_since(at),
        Last { time: Some(time), .. } => age(time, clock).max(known_for),
        Last { .. } => known_for,
    }
}

/// Nothing for what a producer's clock puts into the future.
pub(super) fn age(time: Timestamp, clock: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(clock.0.saturating_sub(time.0)).unwrap_or(0))
}

fn seats(shared: &Shared, catalog: &Catalog, now: Instant) -> BTreeMap<Partition, Seat> {
    let tips = shared.sides.hub.tips();
    let began_at = shared.sides.hub.began_at();
    let mut surveys = shared.surveys.lock();
    let mut seats = of_log(&surveys);
    for Tip { partition, next, newest, moved_at } in tips {
        let seat = seats.entry(partition.clone()).or_default();
        (seat.next, seat.newest) = (Some(next), newest);
        seat.came_at = moved_at.filter(|at| began_at.is_some_and(|began| *at > began));
    }
    let gives_out = shared.sides.gives_out;
    for (partition, seat) in seats.iter_mut().filter(|_| gives_out) {
        let Some(Ok(ends)) = surveys.partitions.get(partition).map(|part| part.ends.clone()) else { continue };
        let tail = seat.next.unwrap_or(ends.start);
        seat.behind = surveys.lags.behind(partition, tail, now);
        let tail = surveys.lags.over_gaps(partition, tail);
        seat.lag = Some(u64::try_from(ends.end.0.saturating_sub(tail.0)).unwrap_or(0));
    }
    drop(surveys);
    let topics = catalog.topics();
    for (partition, seat) in &mut seats {
        seat.is_public = topics.binary_search(&partition.topic).is_ok();
    }
    seats
}

fn of_log(surveys: &Surveys) -> BTreeMap<Partition, Seat> {
    let seat = |part: &Part| Seat { sick: part.sick().cloned(), is_gone: part.is_gone(), ..Seat::default() };
    surveys.partitions.iter().map(|(partition, part)| (partition.clone(), seat(part))).collect()
}

fn troubles<'a>(
    seats: impl Iterator<Item = (&'a Partition, &'a Seat)>,
    now: Instant,
    stall_after: Duration,
) -> Troubles {
    let mut troubles = Troubles::default();
    let mut moved_at: Option<Instant> = None;
    for (partition, seat) in seats {
        troubles.total += 1;
        moved_at = moved_at.max(seat.came_at);
        if seat.is_gone {
            troubles.gone.push(partition.clone());
        } else if let Some(sick) = &seat.sick {
            troubles.sick.push((partition.clone(), sick.clone()));
        } else if let Some(behind) = seat.behind.filter(|behind| *behind >= stall_after) {
            let records = seat.lag.unwrap_or(0);
            troubles.late.push(Late { partition: partition.clone(), records, behind });
        }
    }
    troubles.moved_ago = moved_at.map(|at| now.saturating_duration_since(at));
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expectation_counts_from_the_event_that_came_last_or_was_there_or_from_the_start() {
        let seconds = Duration::from_secs;
        let (now, clock) = (Instant::now() + seconds(1_000), Timestamp(10_000_000));
        let table = [
            (Last { time: Some(Timestamp(0)), came_at: Some(now - seconds(7)) }, 7),
            (Last { time: Some(Timestamp(9_400_000)), came_at: None }, 600),
            // Neither a producer's clock nor a restart makes an event that never came.
            (Last { time: Some(Timestamp(99_000_000)), came_at: None }, 90),
            (Last { time: Some(Timestamp(9_990_000)), came_at: None }, 90),
            (Last::default(), 90),
        ];
        for (last, expected) in table {
            assert_eq!(missed(last, now - seconds(90), now, clock), seconds(expected), "{last:?}");
        }
    }

    #[test]
    fn nothing_is_expected_before_the_past_is_read_nor_where_nothing_is_given_out() {
        let catalog = Catalog::parse("a: {topics: [a.t], sluice: {expect_every: 1s}}", "test").expect("a catalogue");
        let stream = catalog.streams().next().expect("a stream");
        let (known_at, now) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        for (has_begun, gives_out, is_unmet) in
            [(true, true, true), (false, true, false), (true, false, false), (false, false, false)]
        {
            let facts = Facts { has_begun, gives_out, ..Facts::default() };
            let seen = Seen { facts, ..Seen::nothing(known_at) };
            let (of_stream, _) = seen.of_stream(stream, known_at, Duration::from_secs(30), now);
            assert_eq!(of_stream.unmet.is_some(), is_unmet, "begun: {has_begun}, gives out: {gives_out}");
        }
    }
}
