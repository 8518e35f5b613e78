//! From what is known to what is said of it: pure, and the one place where the rules stand.
//!
//! The worst that holds is said, in this order:
//!
//! 1. `log_unreachable` the log has failed to answer [`IN_A_ROW`] times in a row (or once, and a canary says the same), or has
//!    not answered for `stall_after`, or nobody answers for any of its partitions; and, where canaries were lost meanwhile,
//!    until one comes through, or those that are sent after it are refused
//! 2. `stalled` the log answers, and: [`IN_A_ROW`] canaries in a row were refused on the same host that should take them; or
//!    none has come through for `stall_after`; or the tail has brought nothing for so long while records wait
//! 3. `full` all streams are in use
//! 4. `starting` nothing is proven yet. Not for ever: after `stall_after` it is one of the others
//! 5. `degraded` some partitions are there no more, or have nobody who answers for them, at [`IN_A_ROW`] surveys, or are
//!    `stall_after` behind;
//!    events wait on disk; an expectation is not met
//! 6. `not_exposed` this instance has only half of the way, and that half works
//! 7. `flowing` or `quiet`: canaries make the trip, and in the last `stall_after` a user's event came by, or none did
//!
//! So what is refused speaks within seconds, and what is merely silent after `stall_after`. One canary that is lost changes
//! nothing, nor does one answer of the log that fails: no state comes and goes with either. One canary that comes through
//! is enough to be well again.
//!
//! A cause is read by everybody, and so holds no address and nobody else's words: those are in `detail`, for operators.

use std::time::Duration;

use super::state::State;
use super::trip::{Step, Trip};
use super::trips::Told;
use crate::intake::spool;
use crate::log::Sick;
use crate::model::{Partition, StreamName};

/// Failures after which something is believed to be broken.
pub(super) const IN_A_ROW: u32 = 2;
/// Names that a cause lists.
const NAMED_MAX: usize = 3;

/// What is known at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Whether this instance has streams at all.
    pub(super) gives_out: bool,
    pub(super) running_for: Duration,
    /// How many streams the host may have, where all are in use.
    pub(super) full: Option<usize>,
    pub(super) trips: Told,
    pub(super) log: LogFacts,
    /// What the log held at the start has been read.
    pub(super) has_begun: bool,
    pub(super) partitions: Troubles,
    /// Since a user's event came by.
    pub(super) event_ago: Option<Duration>,
    pub(super) spool: Option<spool::Status>,
    /// Streams whose producers have sent less than is expected.
    pub(super) unmet: Vec<StreamName>,
}

/// How the log answers when it is asked.
#[derive(Clone, Debug, Default)]
pub(super) struct LogFacts {
    pub(super) answered_ago: Option<Duration>,
    pub(super) failed_in_a_row: u32,
    pub(super) why: String,
}

/// What is wrong with partitions.
#[derive(Clone, Debug, Default)]
pub(super) struct Troubles {
    /// Partitions that the log has, or had.
    pub(super) total: usize,
    /// Those that it had.
    pub(super) gone: Vec<Partition>,
    pub(super) sick: Vec<(Partition, Sick)>,
    /// Those that are `stall_after` behind.
    pub(super) late: Vec<Late>,
    /// Since the tail brought a record of any of them.
    pub(super) moved_ago: Option<Duration>,
}

/// A partition whose records wait to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Late {
    pub(super) partition: Partition,
    pub(super) records: u64,
    pub(super) behind: Duration,
}

/// What is said of one stream's part.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamFacts {
    pub(super) partitions: Troubles,
    pub(super) event_ago: Option<Duration>,
    /// What is expected, and how long it has been missed, where it is.
    pub(super) unmet: Option<(Duration, Duration)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) state: State,
    pub(super) cause: String,
    /// What to do; empty where there is nothing to be done.
    pub(super) cure: &'static str,
    /// Others' words, for operators alone; empty where there are none.
    pub(super) detail: String,
}

const CURE_LOG: &str = "see whether the log runs and this host reaches it (Kafka: the brokers of log.kafka.bootstrap_servers; \
                        SQLite: the disk of data_dir). Nothing is to be restarted here: it goes on when the log is back";
const CURE_FULL: &str =
    "look who it is (sluice admin clients), deny them (sluice admin deny add) or raise limits.streams_total";
const CURE_LISTENER: &str =
    "look into the log of this process, and at the load of this machine; restart it if neither says why";
const CURE_APPEND: &str = "look into the log of this process for what the log says; with Kafka see whether the topic \
                           sluice.canary has a leader and enough in-sync replicas, and whether sluice may write to it";
const CURE_TAIL: &str = "look into the log of this process; with Kafka see whether this host reaches the brokers that lead the \
                         partitions. Readers get nothing new here: send them to another instance, and restart this one";
const CURE_PARTITIONS: &str = "with Kafka see that the brokers named run and have leaders for the partitions \
                               (kafka-topics.sh --describe --unavailable-partitions); it goes on by itself then";
const CURE_GONE: &str = "make it again (kafka-topics.sh --create --topic …), or take it out of the catalogue: until then its \
                         events are refused, or wait on disk";
const CURE_LAG: &str =
    "see how loaded this machine and the brokers are; readers of these partitions get their events late";
const CURE_SPOOL: &str =
    "nothing while the number falls. If it does not, see why the log takes no events (the log of this process)";
const CURE_ASIDE: &str = "see in the log of this process why the log refuses these events, and mend it (make the topic, give \
                          sluice the right to write, or raise the topic's max.message.bytes); they are kept on disk";
const CURE_SPOOL_FAULT: &str =
    "see the disk of data_dir, and intake.spool.max_bytes; while the log is away events are refused";
const CURE_EXPECTED: &str =
    "sluice is well: ask those who produce these streams (expect_every stands in the catalogue)";
const CURE_HALF: &str = "nothing, if this instance is meant to have half of the way; else /health on the operators' listener \
                         says what is missing, and what to run";
const CURE_WAIT: &str = "wait some seconds";

impl Judged {
    fn new(state: State, cause: impl Into<String>, cure: &'static str) -> Self {
        Self { state, cause: cause.into(), cure, detail: String::new() }
    }

    fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }
}

/// The host's state.
pub(super) fn of_host(facts: &Facts, stall_after: Duration) -> Judged {
    unreachable(facts, stall_after)
        .or_else(|| refused(&facts.trips))
        .or_else(|| coming_back(&facts.trips, stall_after))
        .or_else(|| silent(facts, stall_after))
        .or_else(|| full(facts))
        .or_else(|| starting(facts, stall_after))
        .or_else(|| in_trouble(&facts.partitions))
        .or_else(|| late(&facts.partitions))
        .or_else(|| begun_in_part(facts))
        .or_else(|| on_disk(facts.spool.as_ref()))
        .or_else(|| unexpected(&facts.unmet))
        .unwrap_or_else(|| well(facts, facts.event_ago, stall_after))
}

/// One stream's, on a host that is well: else it is the host's.
pub(super) fn of_stream(stream: &StreamFacts, facts: &Facts, stall_after: Duration) -> Judged {
    let Troubles { total, sick, gone, .. } = &stream.partitions;
    if let Some(lost) = gone_of(&stream.partitions).filter(|_| sick.len() + gone.len() == *total) {
        return Judged { state: State::Stalled, ..lost };
    }
    if *total > 0 && sick.len() == *total {
        let cause = format!("nobody answers for {}", named(sick, of_sick));
        return Judged::new(State::Stalled, cause, CURE_PARTITIONS).detail(why_sick(sick));
    }
    if stands(&stream.partitions, facts, stall_after) {
        let late = &stream.partitions.late;
        let cause = format!("the tail brings nothing of {}", named(late, of_late));
        return Judged::new(State::Stalled, cause, CURE_TAIL);
    }
    if let Some((every, missed)) = stream.unmet {
        let cause = format!(
            "canaries flow, and its producers have sent nothing for {}: an event is expected every {}",
            rounded(missed),
            rounded(every)
        );
        return Judged::new(State::Stalled, cause, CURE_EXPECTED);
    }
    in_trouble(&stream.partitions)
        .or_else(|| late(&stream.partitions))
        .or_else(|| on_disk(facts.spool.as_ref()))
        .unwrap_or_else(|| well(facts, stream.event_ago, stall_after))
}

fn unreachable(facts: &Facts, stall_after: Duration) -> Option<Judged> {
    let LogFacts { answered_ago, failed_in_a_row, why } = &facts.log;
    let waiting = facts.spool.as_ref().filter(|spool| spool.events > 0);
    let waiting = waiting.map(|spool| format!("; {} events wait on disk", spool.events)).unwrap_or_default();
    let state = |cause: String| Judged::new(State::LogUnreachable, cause + &waiting, CURE_LOG).detail(why);
    let refused = matches!(facts.trips.last, Some(Trip::Failed { at: Step::Append, .. }));
    if *failed_in_a_row >= IN_A_ROW || (*failed_in_a_row > 0 && refused) {
        return Some(state("the log does not answer".into()));
    }
    let silent_for = answered_ago.unwrap_or(facts.running_for);
    if silent_for >= stall_after {
        return Some(state(format!("the log has not answered for {}", rounded(silent_for))));
    }
    let Troubles { total, sick, .. } = &facts.partitions;
    let all_sick = *total > 0 && sick.len() == *total;
    all_sick.then(|| state(format!("nobody answers for any of the log's {total} partitions")).detail(why_sick(sick)))
}

/// Whether the log itself is what is away.
pub(super) fn is_away(facts: &Facts, stall_after: Duration) -> bool {
    unreachable(facts, stall_after).is_some()
}

/// The log answers again, and that is not yet that it takes events: what was lost before that does not say it either.
fn coming_back(trips: &Told, stall_after: Duration) -> Option<Judged> {
    let is_proven = matches!(trips.last, Some(Trip::Made { .. } | Trip::Half { .. }));
    let just_now = trips.away_ago.is_some_and(|ago| ago < stall_after);
    let cause = "the log answers again, and no canary has come through yet";
    (!is_proven && just_now).then(|| Judged::new(State::LogUnreachable, cause, CURE_WAIT))
}

/// What says itself that it is broken.
fn refused(trips: &Told) -> Option<Judged> {
    let Some(Trip::Failed { at, why }) = &trips.last else { return None };
    let believed = trips.failed_in_a_row >= IN_A_ROW && *at != Step::Read;
    believed.then(|| failed(*at).detail(why))
}

fn failed(at: Step) -> Judged {
    let (cause, cure) = match at {
        Step::Connect => ("the public listener takes no connections", CURE_LISTENER),
        Step::Open => ("a stream does not open", CURE_LISTENER),
        Step::Post => ("an event is not taken in", CURE_LISTENER),
        Step::Append => ("the log answers, and does not take events", CURE_APPEND),
        Step::Read => ("what is taken in does not come out", CURE_TAIL),
    };
    Judged::new(State::Stalled, cause, cure)
}

/// What says nothing, for so long that it is broken.
fn silent(facts: &Facts, stall_after: Duration) -> Option<Judged> {
    let Told { last, proven_ago, .. } = &facts.trips;
    let silent_for = proven_ago.unwrap_or(facts.running_for);
    if silent_for >= stall_after {
        let (judged, why) = match last {
            Some(Trip::Failed { at, why }) => (failed(*at), why.clone()),
            _ => (Judged::new(State::Stalled, "nothing is known of it", CURE_LISTENER), String::new()),
        };
        let cause = format!("no canary has come through for {}: {}", rounded(silent_for), judged.cause);
        return Some(Judged { cause, detail: why, ..judged });
    }
    stands(&facts.partitions, facts, stall_after).then(|| {
        let late = &facts.partitions.late;
        let cause = format!("the log answers, and the tail stands still while records wait: {}", named(late, of_late));
        Judged::new(State::Stalled, cause, CURE_TAIL)
    })
}

/// Records wait, and none of any partition has come for as long. Before the begin nobody knows: what the log held at the
/// start may still be coming.
fn stands(partitions: &Troubles, facts: &Facts, stall_after: Duration) -> bool {
    facts.has_begun && !partitions.late.is_empty() && partitions.moved_ago.is_none_or(|ago| ago >= stall_after)
}

fn full(facts: &Facts) -> Option<Judged> {
    facts.full.map(|most| Judged::new(State::Full, format!("all {most} streams are in use"), CURE_FULL))
}

fn starting(facts: &Facts, stall_after: Duration) -> Option<Judged> {
    if facts.trips.proven_ago.is_none() {
        return Some(Judged::new(State::Starting, "no canary has made its trip yet", CURE_WAIT));
    }
    let unread = facts.gives_out && !facts.has_begun && facts.running_for < stall_after;
    unread.then(|| Judged::new(State::Starting, "what the log held at the start is still being read", CURE_WAIT))
}

fn in_trouble(partitions: &Troubles) -> Option<Judged> {
    let sick = &partitions.sick;
    if let Some(gone) = gone_of(partitions) {
        return Some(gone);
    }
    let cause = || format!("nobody answers for {}", named(sick, of_sick));
    (!sick.is_empty()).then(|| Judged::new(State::Degraded, cause(), CURE_PARTITIONS).detail(why_sick(sick)))
}

fn gone_of(partitions: &Troubles) -> Option<Judged> {
    let mut topics: Vec<&str> = partitions.gone.iter().map(|partition| partition.topic.as_str()).collect();
    topics.dedup();
    let cause = || format!("the log has no such topic any more: {}", named(&topics, |topic| (*topic).to_owned()));
    (!topics.is_empty()).then(|| Judged::new(State::Degraded, cause(), CURE_GONE).detail(why_sick(&partitions.sick)))
}

fn late(partitions: &Troubles) -> Option<Judged> {
    let late = &partitions.late;
    let cause = || format!("readers get events late: {}", named(late, of_late));
    (!late.is_empty()).then(|| Judged::new(State::Degraded, cause(), CURE_LAG))
}

fn begun_in_part(facts: &Facts) -> Option<Judged> {
    let cause = "what the log held at the start has not been read whole";
    (facts.gives_out && !facts.has_begun).then(|| Judged::new(State::Degraded, cause, CURE_TAIL))
}

fn on_disk(spool: Option<&spool::Status>) -> Option<Judged> {
    let spool = spool?;
    let state = |cause: String, cure| Some(Judged::new(State::Degraded, cause, cure));
    if let Some(fault) = &spool.fault {
        return state("the spool takes no events".into(), CURE_SPOOL_FAULT).map(|judged| judged.detail(fault));
    }
    if spool.aside > 0 {
        return state(
            format!("the log refuses {} events for good: they are set aside on disk", spool.aside),
            CURE_ASIDE,
        );
    }
    if spool.events > 0 {
        return state(format!("{} events wait on disk for the log", spool.events), CURE_SPOOL);
    }
    None
}

fn unexpected(unmet: &[StreamName]) -> Option<Judged> {
    let cause = || format!("fewer events come than are expected of {}", named(unmet, StreamName::to_string));
    (!unmet.is_empty()).then(|| Judged::new(State::Degraded, cause(), CURE_EXPECTED))
}

fn well(facts: &Facts, event_ago: Option<Duration>, stall_after: Duration) -> Judged {
    if let Some(missing) = &facts.trips.half {
        // What comes after it may be the log's words, or a command with addresses.
        let what = missing.split_once(": ").map_or(missing.as_str(), |(what, _)| what);
        let proven = match facts.gives_out {
            true => "streams open; whether events get through is not proven here",
            false => "the log answers; whether events come out is not proven here",
        };
        return Judged::new(State::NotExposed, format!("{what}: {proven}"), CURE_HALF).detail(missing);
    }
    match event_ago.is_some_and(|ago| ago < stall_after) {
        true => Judged::new(State::Flowing, "events flow", ""),
        false => Judged::new(State::Quiet, "canaries flow, and nobody has posted lately", ""),
    }
}

/// The first of them, and how many more there are.
fn named<T>(all: &[T], name: impl Fn(&T) -> String) -> String {
    let names: Vec<String> = all.iter().take(NAMED_MAX).map(name).collect();
    match all.len().saturating_sub(NAMED_MAX) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn of_sick((partition, sick): &(Partition, Sick)) -> String {
    match sick.broker.as_deref().and_then(broker_id) {
        Some(id) => format!("{partition} (broker {id})"),
        None => partition.to_string(),
    }
}

fn of_late(late: &Late) -> String {
    let Late { partition, records, behind } = late;
    format!("{partition} ({records} records, for {})", rounded(*behind))
}

fn why_sick(sick: &[(Partition, Sick)]) -> String {
    named(sick, |(partition, Sick { broker, why })| match broker {
        Some(broker) => format!("{partition}: broker {broker}: {why}"),
        None => format!("{partition}: {why}"),
    })
}

/// What may be told of a broker to everybody: its number, and not where it is.
pub(super) fn broker_id(broker: &str) -> Option<&str> {
    let end = broker.find(|c: char| !c.is_ascii_digit()).unwrap_or(broker.len());
    let is_number =
        end > 0 && !broker[end..].starts_with(['.', ':', '-']) && !broker[end..].starts_with(char::is_alphanumeric);
    is_number.then(|| &broker[..end])
}

/// For people.
pub(super) fn rounded(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{}ms", time.as_millis()),
        1..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        _ => format!("{}h", seconds / 3_600),
    }
}
