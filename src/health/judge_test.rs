//! The rules, state by state.

use std::time::Duration;

use super::judge::{Facts, Late, LogFacts, StreamFacts, Troubles, broker_id, of_host, of_stream, rounded};
use super::state::State;
use super::trip::{Step, Trip};
use super::trips::Told;
use crate::intake::spool;
use crate::log::Sick;
use crate::model::{Partition, StreamName, Topic};

const STALL: Duration = Duration::from_secs(30);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An hour after its start, with a canary that came through three seconds ago.
fn well() -> Facts {
    Facts {
        gives_out: true,
        running_for: seconds(3_600),
        full: None,
        trips: Told {
            last: Some(made()),
            proven_ago: Some(seconds(3)),
            half: None,
            failed_in_a_row: 0,
            away_ago: None,
        },
        log: LogFacts { answered_ago: Some(seconds(2)), ..LogFacts::default() },
        has_begun: true,
        partitions: Troubles { total: 4, moved_ago: Some(seconds(3)), ..Troubles::default() },
        event_ago: Some(seconds(1)),
        spool: None,
        unmet: vec![],
    }
}

fn made() -> Trip {
    Trip::Made { took: Duration::from_millis(12) }
}

/// The last canary has proven half of the way.
fn half(missing: &str) -> Told {
    let last = Some(Trip::Half { took: seconds(0), missing: missing.into() });
    Told { last, half: Some(missing.into()), ..well().trips }
}

const MAY_NOT_WRITE: &str =
    "this instance may not write to the log: secret.internal says no; run: kafka-topics.sh --create";

/// The canaries that came last were lost there, and one came through so many seconds ago.
fn lost(times: u32, at: Step, proven_ago: Option<u64>) -> Told {
    let why = "secret.internal says no".to_owned();
    let (last, proven_ago) = (Some(Trip::Failed { at, why }), proven_ago.map(seconds));
    Told { last, proven_ago, half: None, failed_in_a_row: times, away_ago: None }
}

fn log(answered_ago: Option<u64>, failed_in_a_row: u32) -> LogFacts {
    LogFacts { answered_ago: answered_ago.map(seconds), failed_in_a_row, why: "secret.internal is gone".into() }
}

fn partition(name: &str, index: i32) -> Partition {
    Partition::new(&Topic::new(name), index)
}

fn sick(indices: std::ops::Range<i32>) -> Troubles {
    let sick = |index| {
        let broker = Some("3 (secret.internal:9092)".to_owned());
        (partition("a", index), Sick { broker, why: "secret.internal has no leader".into() })
    };
    Troubles { sick: indices.map(sick).collect(), ..well().partitions }
}

fn late(moved_ago: u64) -> Troubles {
    let late = Late { partition: partition("a", 1), records: 70, behind: seconds(31) };
    Troubles { late: vec![late], moved_ago: Some(seconds(moved_ago)), ..well().partitions }
}

fn spool(events: u64, aside: u64, fault: Option<&str>) -> Option<spool::Status> {
    let fault = fault.map(str::to_owned);
    Some(spool::Status { events, bytes: 1, bytes_max: 9, oldest: None, aside, fault })
}

/// A name for the case, what is known, and what is said: the state, and a word of its cause.
type Case = (&'static str, Facts, State, &'static str);

fn check(cases: Vec<Case>) {
    for (name, facts, state, word) in cases {
        let judged = of_host(&facts, STALL);
        assert_eq!(judged.state, state, "{name}: {judged:?}");
        assert!(judged.cause.contains(word), "{name}: {judged:?}");
        assert!(!judged.cause.contains("secret") && !judged.cure.contains("secret"), "{name}: {judged:?}");
        let needs_a_cure = !matches!(state, State::Flowing | State::Quiet);
        assert_eq!(!judged.cure.is_empty(), needs_a_cure, "{name}: {judged:?}");
    }
}

#[test]
fn what_flows_is_flowing_and_what_nobody_posts_to_is_quiet() {
    let at_the_start = Facts { running_for: seconds(1), ..well() };
    check(vec![
        ("flowing", well(), State::Flowing, "flow"),
        ("flowing soon after the start", at_the_start, State::Flowing, "flow"),
        ("nobody posts", Facts { event_ago: Some(seconds(30)), ..well() }, State::Quiet, "nobody has posted"),
        ("nobody ever has", Facts { event_ago: None, ..well() }, State::Quiet, "nobody has posted"),
    ]);
}

#[test]
fn a_topic_that_is_gone_stalls_what_has_no_other_and_is_said_before_what_comes_of_it() {
    let gone = |names: &[&str]| Troubles { gone: names.iter().map(|name| partition(name, 0)).collect(), ..sick(0..0) };
    let (of_all, of_one) = (Troubles { total: 2, ..gone(&["a", "b"]) }, gone(&["a"]));
    let in_parts = gone(&["a", "a", "b"]);
    let waits = Facts { partitions: of_one.clone(), spool: spool(3, 0, None), ..well() };
    let unmet = Some((seconds(60), seconds(90)));
    check(vec![
        ("some", Facts { partitions: of_one.clone(), ..well() }, State::Degraded, "no such topic any more: a"),
        ("all, and the log answers", Facts { partitions: of_all.clone(), ..well() }, State::Degraded, "more: a, b"),
        ("each is named once", Facts { partitions: in_parts, ..well() }, State::Degraded, "more: a, b"),
        ("its events wait", waits.clone(), State::Degraded, "no such topic any more"),
    ]);
    for (name, partitions, state) in [("all", of_all, State::Stalled), ("one of two", of_one, State::Degraded)] {
        let expected = unmet.filter(|_| state == State::Stalled);
        let stream = StreamFacts { partitions, event_ago: None, unmet: expected };
        let judged = of_stream(&stream, &waits, STALL);
        assert_eq!(judged.state, state, "{name}: {judged:?}");
        assert!(judged.cause.contains("no such topic any more") && judged.cure.contains("--create"), "{judged:?}");
    }
}

#[test]
fn one_failure_changes_nothing_and_the_second_one_does() {
    let once = |at| Facts { trips: lost(1, at, Some(9)), ..well() };
    let twice = |at| Facts { trips: lost(2, at, Some(9)), ..well() };
    check(vec![
        ("one is refused", once(Step::Append), State::Flowing, ""),
        ("one does not open", once(Step::Open), State::Flowing, ""),
        ("one is lost", once(Step::Read), State::Flowing, ""),
        ("two are lost, which is silence", twice(Step::Read), State::Flowing, ""),
        ("no connection", twice(Step::Connect), State::Stalled, "takes no connections"),
        ("no stream", twice(Step::Open), State::Stalled, "does not open"),
        ("not taken in", twice(Step::Post), State::Stalled, "not taken in"),
        ("not appended, and the log answers", twice(Step::Append), State::Stalled, "does not take events"),
        ("one survey fails", Facts { log: log(Some(4), 1), ..well() }, State::Flowing, ""),
        ("two do", Facts { log: log(Some(8), 2), ..well() }, State::LogUnreachable, "does not answer"),
        (
            "a survey and a canary",
            Facts { log: log(Some(4), 1), ..once(Step::Append) },
            State::LogUnreachable,
            "does not answer",
        ),
    ]);
}

#[test]
fn silence_speaks_after_a_while() {
    let silent = |ago, at| Facts { trips: lost(6, at, Some(ago)), ..well() };
    let nobody_tries = Told { proven_ago: Some(seconds(31)), ..well().trips };
    check(vec![
        ("29 s", silent(29, Step::Read), State::Flowing, ""),
        ("30 s", silent(30, Step::Read), State::Stalled, "for 30s: what is taken in does not come out"),
        ("no canary is sent any more", Facts { trips: nobody_tries, ..well() }, State::Stalled, "nothing is known"),
        ("the log says nothing", Facts { log: log(Some(30), 0), ..well() }, State::LogUnreachable, "for 30s"),
        (
            "the log comes first",
            Facts { log: log(Some(30), 0), ..silent(40, Step::Read) },
            State::LogUnreachable,
            "log",
        ),
        (
            "the tail",
            Facts { partitions: late(30), ..well() },
            State::Stalled,
            "stands still while records wait: a/1 (70",
        ),
        (
            "the tail, from the start",
            Facts { partitions: Troubles { moved_ago: None, ..late(30) }, ..well() },
            State::Stalled,
            "stands still",
        ),
    ]);
}

#[test]
fn a_start_is_a_start_until_it_should_be_over() {
    let begins = |running_for| Facts {
        running_for: seconds(running_for),
        trips: Told::default(),
        log: log(None, 0),
        has_begun: false,
        ..well()
    };
    let unread = |running_for| Facts { has_begun: false, running_for: seconds(running_for), ..well() };
    check(vec![
        ("nothing yet", begins(0), State::Starting, "no canary"),
        ("nothing for long", begins(29), State::Starting, "no canary"),
        ("nothing for too long", begins(30), State::LogUnreachable, "for 30s"),
        ("and the log is there", Facts { log: log(Some(1), 0), ..begins(30) }, State::Stalled, "no canary"),
        ("the log is away", Facts { log: log(None, 2), ..begins(3) }, State::LogUnreachable, "does not answer"),
        ("not read yet", unread(29), State::Starting, "still being read"),
        (
            "still being read for long",
            Facts { partitions: Troubles { moved_ago: None, ..late(30) }, ..unread(30) },
            State::Degraded,
            "events late",
        ),
        ("never read whole", unread(30), State::Degraded, "not been read whole"),
    ]);
}

#[test]
fn a_full_host_is_full_unless_something_is_worse() {
    let full = Facts { full: Some(60), ..well() };
    check(vec![
        ("full", full.clone(), State::Full, "all 60 streams"),
        (
            "full at the start",
            Facts { trips: Told::default(), running_for: seconds(1), ..full.clone() },
            State::Full,
            "60",
        ),
        ("nothing opens", Facts { trips: lost(2, Step::Open, None), ..full.clone() }, State::Stalled, "open"),
        ("no log", Facts { log: log(None, 2), ..full }, State::LogUnreachable, "log"),
    ]);
}

#[test]
fn what_is_wrong_in_part_is_degraded_and_says_where() {
    let names = ["a", "b", "c", "d", "e"].map(|name| StreamName::parse(name).expect("a name"));
    let waits = spool(7, 0, None);
    check(vec![
        ("one is sick", Facts { partitions: sick(0..1), ..well() }, State::Degraded, "for a/0 (broker 3)"),
        ("all are", Facts { partitions: sick(0..4), ..well() }, State::LogUnreachable, "log's 4 partitions"),
        ("one is late", Facts { partitions: late(3), ..well() }, State::Degraded, "a/1 (70 records, for 31s)"),
        ("some wait on disk", Facts { spool: waits.clone(), ..well() }, State::Degraded, "7 events wait"),
        ("some are set aside", Facts { spool: spool(7, 2, None), ..well() }, State::Degraded, "refuses 2"),
        ("the disk fails", Facts { spool: spool(0, 0, Some("secret")), ..well() }, State::Degraded, "takes no"),
        ("nothing waits", Facts { spool: spool(0, 0, None), ..well() }, State::Flowing, ""),
        (
            "no log, and some wait",
            Facts { log: log(None, 2), spool: waits, ..well() },
            State::LogUnreachable,
            "7 events",
        ),
        ("unmet", Facts { unmet: names.to_vec(), ..well() }, State::Degraded, "of a, b, c and 2 more"),
    ]);
}

#[test]
fn a_log_that_has_come_back_is_proven_by_a_canary_and_not_doubted_for_those_that_were_lost_before() {
    let since = |times, away_ago| {
        let trips = Told { away_ago: Some(seconds(away_ago)), ..lost(times, Step::Append, Some(90)) };
        Facts { trips, ..well() }
    };
    let none_lost = Told { away_ago: Some(seconds(1)), ..well().trips };
    check(vec![
        ("it answers again", since(0, 1), State::LogUnreachable, "answers again"),
        ("one was under way", since(1, 5), State::LogUnreachable, "answers again"),
        ("two are refused", since(2, 9), State::Stalled, "does not take events"),
        ("nothing comes of it", since(0, 30), State::Stalled, "for 90s"),
        ("none was lost", Facts { trips: none_lost, ..well() }, State::Flowing, ""),
    ]);
}

#[test]
fn an_instance_with_half_of_the_way_says_what_it_can_prove() {
    let of_half = Facts { trips: half(MAY_NOT_WRITE), ..well() };
    let back = Told { away_ago: Some(seconds(1)), ..half(MAY_NOT_WRITE) };
    let missing = "http.serve has no \"out\": events get into the log; whether they come out is not proven here";
    let in_only = Facts { gives_out: false, has_begun: false, trips: half(missing), event_ago: None, ..well() };
    // One that is lost after that changes nothing: what is not proven stays so.
    let once = |facts: &Facts| {
        let trips = Told { half: facts.trips.half.clone(), ..lost(1, Step::Append, Some(9)) };
        Facts { trips, ..facts.clone() }
    };
    let untried = Facts { trips: Told::default(), running_for: seconds(1), ..in_only.clone() };
    check(vec![
        ("half", of_half.clone(), State::NotExposed, "may not write to the log"),
        ("half, and a canary is lost", once(&of_half), State::NotExposed, "may not write to the log"),
        ("nothing is given out, and a canary is lost", once(&in_only), State::NotExposed, "no \"out\""),
        ("half, and the log was away", Facts { trips: back, ..of_half.clone() }, State::NotExposed, "may not write"),
        ("half, and one is sick", Facts { partitions: sick(0..1), ..of_half }, State::Degraded, "a/0"),
        ("nothing is given out", in_only.clone(), State::NotExposed, "no \"out\""),
        ("and the log answers, and nobody has tried to write", untried.clone(), State::Starting, "no canary"),
        ("for long", Facts { running_for: STALL, ..untried }, State::Stalled, "nothing is known"),
        ("or is away", Facts { log: log(None, 2), ..in_only.clone() }, State::LogUnreachable, "log"),
        ("or takes nothing", Facts { trips: lost(2, Step::Append, None), ..in_only }, State::Stalled, "take"),
    ]);
    let judged = of_host(&Facts { trips: half(MAY_NOT_WRITE), ..well() }, STALL);
    assert!(judged.detail.contains("run: kafka-topics.sh"), "operators are told what to do: {judged:?}");
}

#[test]
fn a_stream_is_judged_by_its_own_partitions_and_producers() {
    let host = well();
    let quiet = StreamFacts { partitions: Troubles { total: 2, ..Troubles::default() }, ..StreamFacts::default() };
    let of = |stream: &StreamFacts, facts: &Facts| of_stream(stream, facts, STALL);
    let unmet = Some((seconds(300), seconds(720)));
    let all_sick = Troubles { total: 2, ..sick(0..2) };
    let stands = Troubles { total: 2, ..late(31) };
    let from_the_start = Troubles { moved_ago: None, ..stands.clone() };
    let begins = Facts { has_begun: false, ..well() };
    let degraded = Facts { unmet: vec![StreamName::parse("b").expect("a name")], ..well() };
    for (stream, facts, state, word) in [
        (quiet.clone(), &host, State::Quiet, "nobody"),
        (StreamFacts { event_ago: Some(seconds(2)), ..quiet.clone() }, &host, State::Flowing, "flow"),
        (
            StreamFacts { unmet, ..quiet.clone() },
            &host,
            State::Stalled,
            "nothing for 12m: an event is expected every 5m",
        ),
        (StreamFacts { partitions: sick(0..1), ..quiet.clone() }, &host, State::Degraded, "a/0 (broker 3)"),
        (StreamFacts { partitions: all_sick, ..quiet.clone() }, &host, State::Stalled, "a/1"),
        (StreamFacts { partitions: late(2), ..quiet.clone() }, &host, State::Degraded, "late"),
        (StreamFacts { partitions: stands, ..quiet.clone() }, &host, State::Stalled, "brings nothing of a/1"),
        (StreamFacts { partitions: from_the_start, ..quiet.clone() }, &begins, State::Degraded, "late"),
        (quiet, &degraded, State::Quiet, "nobody"),
    ] {
        let judged = of(&stream, facts);
        assert!(judged.state == state && judged.cause.contains(word), "{stream:?}: {judged:?}");
        assert!(!judged.cause.contains("secret"), "{judged:?}");
    }
}

#[test]
fn a_brokers_number_is_told_and_its_address_is_not() {
    for (broker, id) in [("3", Some("3")), ("3 (a.internal:9092)", Some("3")), ("12/x:1", Some("12"))] {
        assert_eq!(broker_id(broker), id, "{broker}");
    }
    for broker in ["", "10.0.0.1:9092", "9092:x", "1a.internal", "a.internal:9092/3", "7-kafka.internal"] {
        assert_eq!(broker_id(broker), None, "{broker}");
    }
}

#[test]
fn times_are_short() {
    let of = |ms| rounded(Duration::from_millis(ms));
    assert_eq!([of(7), of(31_900), of(720_000), of(9_000_000)], ["7ms", "31s", "12m", "2h"]);
}
