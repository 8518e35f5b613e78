//! What is told of all that: the host's verdict with its evidence, and a stream's. How it is written is `http`'s.

use std::time::{Duration, Instant};

use super::judge::{self, Facts};
use super::seen::{Last, Seat, Seen, StreamSeen, age};
use super::state::State;
use super::trip::{Step, Trip};
use super::{Health, Verdict};
use crate::catalog::Stream;
use crate::intake::spool;
use crate::log::Sick;
use crate::model::{Partition, StreamName, Timestamp};

/// Partitions and streams that one answer lists.
const LISTED_MAX: usize = 20;

/// The host's verdict, and what it rests on.
#[derive(Clone, Debug)]
pub struct Report {
    pub verdict: Verdict,
    pub canary: CanaryReport,
    pub streams: Streams,
    /// Those that are sick or behind.
    pub partitions: Few<Part>,
    pub spool: Option<spool::Status>,
}

/// The first of many, and how many more there are.
#[derive(Clone, Debug, Default)]
pub struct Few<T> {
    pub first: Vec<T>,
    pub more: usize,
}

#[derive(Clone, Debug)]
pub struct CanaryReport {
    /// Of the last trip that came through.
    pub took: Option<Duration>,
    pub age: Option<Duration>,
    /// Where the last one was lost, if it was, and why: others' words.
    pub failed: Option<(Step, String)>,
}

#[derive(Clone, Debug)]
pub struct Streams {
    /// How many there are of each state that there is.
    pub states: Vec<(State, usize)>,
    /// Those that are not well on a host that is.
    pub unhealthy: Few<Named>,
    /// The one whose event came last; the first one if none came. None where nothing is given out.
    pub newest: Option<(StreamName, Option<Duration>)>,
}

#[derive(Clone, Debug)]
pub struct Named {
    pub name: StreamName,
    pub verdict: Verdict,
}

/// One partition.
#[derive(Clone, Debug)]
pub struct Part {
    pub partition: Partition,
    pub lag: Option<u64>,
    /// For how long records have waited.
    pub behind: Option<Duration>,
    pub sick: Option<Sick>,
}

/// One stream's verdict, and what it rests on.
#[derive(Clone, Debug)]
pub struct StreamReport {
    pub name: StreamName,
    pub verdict: Verdict,
    /// The time of its newest record.
    pub last_event: Option<Timestamp>,
    /// When an event came by, if one has since the start.
    pub came_at: Option<Timestamp>,
    pub age: Option<Duration>,
    /// What is expected, and whether it is met.
    pub expected: Option<(Duration, bool)>,
    pub partitions: Few<Part>,
}

impl Health {
    pub fn report(&self) -> Report {
        let verdict = self.verdict();
        let now = Instant::now();
        let (seen, trips) = (self.0.seen.load_full(), self.0.trips.lock().clone());
        let told = trips.told(now);
        let failed = match told.last {
            Some(Trip::Failed { at, why }) => Some((at, why)),
            Some(Trip::Made { .. } | Trip::Half { .. }) | None => None,
        };
        let troubled = |(_, seat): &(&Partition, &Seat)| seat.sick.is_some() || seat.behind.is_some();
        // The worst first: those of which nobody can say anything, and then the latest.
        let mut partitions: Vec<(&Partition, &Seat)> = seen.partitions.iter().filter(troubled).collect();
        partitions.sort_by_key(|(_, seat)| (seat.sick.is_none(), std::cmp::Reverse(seat.behind)));
        Report {
            streams: streams(&seen, &verdict, now),
            verdict,
            canary: CanaryReport { took: trips.took(), age: told.proven_ago, failed },
            partitions: Few::of(partitions.into_iter().map(part)),
            spool: seen.facts.spool.clone(),
        }
    }

    /// Of these streams, as the catalogue has them; the verdict that holds of all of them together, and each one's own.
    pub fn of_streams(&self, streams: &[&Stream]) -> (Verdict, Vec<StreamReport>) {
        let host = self.verdict();
        let now = Instant::now();
        let seen = self.0.seen.load_full();
        let facts = self.0.facts_of(&seen, now);
        let told: Vec<StreamReport> =
            streams.iter().map(|stream| self.of_stream(stream, &seen, &facts, &host, now)).collect();
        (together(&told).unwrap_or(host), told)
    }

    fn of_stream(&self, stream: &Stream, seen: &Seen, facts: &Facts, host: &Verdict, now: Instant) -> StreamReport {
        let stall_after = self.0.options.stall_after;
        let before = seen.streams.iter().find(|before| before.name == stream.name);
        let known_at = before.map_or(now, |before| before.known_at);
        let (of_stream, last) = seen.of_stream(stream, known_at, stall_after, now);
        let judged = judge::of_stream(&of_stream, facts, stall_after);
        let same = before.filter(|before| before.judged.state == judged.state);
        let since = same.map_or_else(Timestamp::now, |before| before.since);
        StreamReport {
            name: stream.name.clone(),
            verdict: if host.state.is_healthy() { Verdict::of(judged, since) } else { host.clone() },
            last_event: last.time,
            came_at: last.came_at.map(|at| on_the_clock(at, now)),
            age: age_of(last, now),
            expected: stream.settings.expect_every.map(|every| (every, of_stream.unmet.is_none())),
            partitions: Few::of(seen.seats_of(&stream.topics).map(part)),
        }
    }
}

/// The worst of them; of those that are well the best, as an event of any is an event of theirs.
fn together(told: &[StreamReport]) -> Option<Verdict> {
    let worst = told.iter().max_by_key(|stream| stream.verdict.state)?;
    let flows = told.iter().find(|stream| stream.verdict.state == State::Flowing);
    let one = if worst.verdict.state == State::Quiet { flows.unwrap_or(worst) } else { worst };
    let mut verdict = one.verdict.clone();
    if !one.verdict.state.is_healthy() && told.iter().any(|stream| stream.verdict.state != verdict.state) {
        verdict.cause = format!("{}: {}", one.name, verdict.cause);
    }
    Some(verdict)
}

fn streams(seen: &Seen, host: &Verdict, now: Instant) -> Streams {
    // Where the host is not well, no stream is.
    let is_well = host.state.is_healthy();
    let of = |stream: &StreamSeen| if is_well { stream.judged.state } else { host.state };
    let count = |state| seen.streams.iter().filter(|stream| of(stream) == state).count();
    let states = State::ALL.into_iter().map(|state| (state, count(state))).filter(|(_, count)| *count > 0);
    let unhealthy = seen.streams.iter().filter(|stream| {
        let state = stream.judged.state;
        is_well && !matches!(state, State::Flowing | State::Quiet | State::NotExposed)
    });
    let named = unhealthy.map(|stream| {
        let verdict = Verdict::of(stream.judged.clone(), stream.since);
        Named { name: stream.name.clone(), verdict }
    });
    let newest = seen.streams.iter().max_by_key(|stream| (stream.last.came_at, std::cmp::Reverse(&stream.name)));
    let newest = newest.filter(|_| seen.facts.gives_out);
    let newest = newest.map(|stream| (stream.name.clone(), age_of(stream.last, now)));
    Streams { states: states.collect(), unhealthy: Few::of(named), newest }
}

/// Since it came by; as its record says, if that was before the start.
fn age_of(last: Last, now: Instant) -> Option<Duration> {
    let came = last.came_at.map(|at| now.saturating_duration_since(at));
    came.or_else(|| last.time.map(|time| age(time, Timestamp::now())))
}

pub(super) fn on_the_clock(at: Instant, now: Instant) -> Timestamp {
    let ago = now.saturating_duration_since(at).as_millis();
    Timestamp::now().minus_ms(i64::try_from(ago).unwrap_or(i64::MAX))
}

fn part((partition, seat): (&Partition, &Seat)) -> Part {
    Part { partition: partition.clone(), lag: seat.lag, behind: seat.behind, sick: seat.sick.clone() }
}

impl Part {
    /// What may be told to everybody of the broker that should answer: its number.
    pub fn broker_id(&self) -> Option<&str> {
        self.sick.as_ref()?.broker.as_deref().and_then(judge::broker_id)
    }
}

impl<T> Few<T> {
    fn of(all: impl Iterator<Item = T>) -> Self {
        let mut few = Self { first: Vec::new(), more: 0 };
        for one in all {
            if few.first.len() < LISTED_MAX { few.first.push(one) } else { few.more += 1 }
        }
        few
    }
}
