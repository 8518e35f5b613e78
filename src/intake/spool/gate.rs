//! Which way a record goes: to the log, or into the spool. One answer per topic, under one lock.
//!
//! A topic has a lane as long as anything of it is in the spool or on its way there, and what is new goes behind it: a
//! record that was answered is in the log before one that came after it. When little is left the lane closes: what is new
//! waits for its end, and goes to the log then. Otherwise a busy topic would never come out of its spool again.
//!
//! Pure: it is told the time, and waits for nothing.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::fault::{Fault, Of};
use super::store::Load;
use crate::model::{Timestamp, Topic};

/// A lane with no more events than this closes.
const CLOSING_EVENTS_MAX: u64 = 1_000;
/// Events replayed at once: one after a failure, so that a log that takes and does not say so has few of them twice.
const BATCH_MOST: usize = 2_000;
const BATCH_GROWS: usize = 4;
/// Topics replayed at the same time, and of these, those that failed last time: what hangs does not hold up the others.
const REPLAYS_MAX: usize = 16;
const REPLAYS_FAILING_MAX: usize = 8;
/// Times that a topic must have been refused before its events are set aside.
const REFUSALS_MIN: u32 = 3;

/// How long things take. Tests have less time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// An append without an answer for so long sends what is new to the spool.
    pub(super) suspect: Duration,
    /// Longest time for which what is new waits for the end of a lane; then it goes into the spool after all.
    pub(super) closing: Duration,
    /// From a failed replay to the next: the first time, and at most.
    pub(super) again: Duration,
    pub(super) again_most: Duration,
    /// A topic that the log refuses for so long is set aside.
    pub(super) refused: Duration,
    /// From one look at a fault of the disk to the next.
    pub(super) look: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            suspect: Duration::from_secs(2),
            closing: Duration::from_secs(1),
            again: Duration::from_millis(100),
            again_most: Duration::from_secs(1),
            refused: Duration::from_secs(30),
            look: Duration::from_secs(5),
        }
    }
}

#[derive(Debug)]
pub(super) struct Gate {
    pub(super) pace: Pace,
    /// Whether what is new may go into the spool at all.
    takes: bool,
    /// Why nobody knows what is in the spool. None: it is open.
    shut: Option<String>,
    lanes: HashMap<Topic, Lane>,
    /// When the appends began that have no answer.
    under_way: BTreeMap<u64, Instant>,
    next_ticket: u64,
    /// When the log last took anything.
    last_taken: Option<Instant>,
    pub(super) waiting: Load,
    pub(super) aside: Load,
    pub(super) oldest: Option<Timestamp>,
    /// Why the spool takes nothing.
    pub(super) fault: Option<Fault>,
}

/// A topic that is in the spool.
#[derive(Debug)]
struct Lane {
    events: u64,
    /// Writes that are under way.
    coming: usize,
    closing_until: Option<Instant>,
    replayed: bool,
    batch: usize,
    failures: u32,
    not_before: Instant,
    /// Since when the log refuses the topic, and how often it has.
    refused: Option<(Instant, u32)>,
    /// The log refuses the topic for good: why.
    condemned: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    Log,
    Spool,
    /// Neither takes it.
    Nowhere(String),
}

/// Every topic can be told its way only later.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// Past it the answer is another one in any case.
    pub(super) until: Option<Instant>,
    pub(super) why: String,
}

/// What to replay next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) topic: Topic,
    pub(super) events_max: usize,
    /// The log is not asked again: these are set aside.
    pub(super) condemned: Option<String>,
}

/// How a replay ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Replayed {
    All,
    /// The log refuses the topic.
    Refused,
    Failed,
    /// The log was not asked.
    SetAside,
}

impl Gate {
    pub(super) fn new(pace: Pace, takes: bool) -> Self {
        Self {
            pace,
            takes,
            shut: Some("the spool is not open yet".to_owned()),
            lanes: HashMap::new(),
            under_way: BTreeMap::new(),
            next_ticket: 0,
            last_taken: None,
            waiting: Load::default(),
            aside: Load::default(),
            oldest: None,
            fault: None,
        }
    }

    /// Nobody knows what is in the spool, so nothing may overtake it.
    pub(super) fn shut(&mut self, why: String) {
        self.fault = Some(Fault { of: Of::Opening, why: why.clone() });
        self.shut = Some(why);
    }

    /// With what it held.
    pub(super) fn open(&mut self, waiting: Vec<(Topic, Load)>, aside: Load, oldest: Option<Timestamp>, now: Instant) {
        (self.shut, self.fault) = (None, None);
        (self.aside, self.oldest) = (aside, oldest);
        for (topic, load) in waiting {
            self.added(&topic, load, now);
        }
    }

    pub(super) fn takes(&self) -> bool {
        self.takes
    }

    /// Where records of each of these topics go now; with a ticket if any goes to the log. Who goes into the spool is
    /// expected there: see [`Gate::came`].
    pub(super) fn decide(&mut self, topics: &[Topic], now: Instant) -> Result<(Vec<Way>, Option<u64>), Wait> {
        if let Some(why) = &self.shut {
            return Err(Wait { until: None, why: why.clone() });
        }
        let suspect = self.takes && self.is_suspect(now);
        let ways = topics.iter().map(|topic| self.way(topic, suspect, now)).collect::<Result<Vec<Way>, Wait>>()?;
        for (topic, _) in topics.iter().zip(&ways).filter(|(_, way)| **way == Way::Spool) {
            self.expect(topic, now);
        }
        let ticket = ways.contains(&Way::Log).then(|| {
            self.next_ticket += 1;
            self.under_way.insert(self.next_ticket, now);
            self.next_ticket
        });
        Ok((ways, ticket))
    }

    fn way(&mut self, topic: &Topic, suspect: bool, now: Instant) -> Result<Way, Wait> {
        let Some(lane) = self.lanes.get_mut(topic) else {
            return Ok(if suspect { Way::Spool } else { Way::Log });
        };
        if let Some(why) = &lane.condemned {
            return Ok(Way::Nowhere(why.clone()));
        }
        if !self.takes {
            let why = format!("events of topic {topic} that were spooled earlier wait for the log");
            return Err(Wait { until: None, why });
        }
        match lane.closing_until {
            Some(until) if until > now => {
                let why = format!("the last spooled events of topic {topic} are on their way to the log");
                Err(Wait { until: Some(until), why })
            }
            _ => {
                lane.closing_until = None;
                Ok(Way::Spool)
            }
        }
    }

    fn is_suspect(&self, now: Instant) -> bool {
        let oldest = self.under_way.first_key_value();
        oldest.is_some_and(|(_, began)| now.saturating_duration_since(*began) >= self.pace.suspect)
    }

    /// A write into the spool begins.
    pub(super) fn expect(&mut self, topic: &Topic, now: Instant) {
        self.lane(topic, now).coming += 1;
    }

    /// It has ended, well or not.
    pub(super) fn came(&mut self, topic: &Topic) {
        if let Some(lane) = self.lanes.get_mut(topic) {
            lane.coming -= 1;
        }
        self.end_if_empty(topic);
    }

    /// The append of this ticket has ended.
    pub(super) fn answered(&mut self, ticket: u64, taken: bool, now: Instant) {
        self.under_way.remove(&ticket);
        if taken {
            self.last_taken = Some(now);
        }
    }

    /// These are on disk.
    pub(super) fn added(&mut self, topic: &Topic, load: Load, now: Instant) {
        self.lane(topic, now).events += load.events;
        self.waiting.events += load.events;
        self.waiting.bytes += load.bytes;
    }

    /// These are not on disk any more.
    pub(super) fn removed(&mut self, topic: &Topic, load: Load) {
        if let Some(lane) = self.lanes.get_mut(topic) {
            lane.events = lane.events.saturating_sub(load.events);
        }
        self.waiting.events = self.waiting.events.saturating_sub(load.events);
        self.waiting.bytes = self.waiting.bytes.saturating_sub(load.bytes);
    }

    /// The next topic to replay, which is then under way; None: nothing can be done before [`Gate::next_at`].
    pub(super) fn turn(&mut self, now: Instant) -> Option<Turn> {
        let busy = self.lanes.values().filter(|lane| lane.replayed);
        let (all, failing) =
            busy.fold((0, 0), |(all, failing), lane| (all + 1, failing + usize::from(lane.failures > 0)));
        if all >= REPLAYS_MAX {
            return None;
        }
        let due = self.lanes.iter_mut().filter(|(_, lane)| lane.is_due(now));
        let due = due.filter(|(_, lane)| lane.failures == 0 || failing < REPLAYS_FAILING_MAX);
        // Who has waited longest, of those that failed least.
        let (topic, lane) = due.min_by_key(|(_, lane)| (lane.failures.min(1), lane.not_before))?;
        lane.replayed = true;
        Some(Turn { topic: topic.clone(), events_max: lane.batch, condemned: lane.condemned.clone() })
    }

    /// When a topic may be replayed that may not now.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.lanes.values().filter(|lane| lane.events > 0 && !lane.replayed).map(|lane| lane.not_before).min()
    }

    /// How often it is to be looked whether the fault is over. None: there is none, or what is done anyway ends it.
    pub(super) fn looks_every(&self) -> Option<Duration> {
        let fault = self.fault.as_ref()?;
        fault.of.is_of_the_disk().then_some(self.pace.look)
    }

    /// What was [`Gate::turn`]ed to has been tried.
    pub(super) fn replayed(&mut self, topic: &Topic, how: &Replayed, now: Instant) {
        let pace = self.pace;
        if *how == Replayed::All {
            self.last_taken = Some(now);
        }
        let Some(lane) = self.lanes.get_mut(topic) else { return };
        lane.replayed = false;
        match how {
            Replayed::All => {
                (lane.failures, lane.refused, lane.not_before) = (0, None, now);
                lane.batch = (lane.batch * BATCH_GROWS).min(BATCH_MOST);
                if lane.events <= CLOSING_EVENTS_MAX && lane.closing_until.is_none() {
                    lane.closing_until = Some(now + pace.closing);
                }
            }
            // One is not refused more slowly than it is taken; and nothing speaks against the next.
            Replayed::SetAside => {
                (lane.failures, lane.not_before) = (0, now);
                lane.batch = (lane.batch * BATCH_GROWS).min(BATCH_MOST);
            }
            Replayed::Refused | Replayed::Failed => {
                lane.closing_until = None;
                lane.batch = 1;
                lane.not_before = now + (pace.again * 2_u32.saturating_pow(lane.failures.min(8))).min(pace.again_most);
                lane.failures = lane.failures.saturating_add(1);
                let (since, times) = lane.refused.unwrap_or((now, 0));
                lane.refused = (*how == Replayed::Refused).then_some((since, times + 1));
            }
        }
        self.end_if_empty(topic);
    }

    /// Whether the log has refused this topic long enough. `answers`: it is there, as far as one can tell without an append.
    pub(super) fn is_refused_for_good(&self, topic: &Topic, answers: bool, now: Instant) -> bool {
        let refused = self.lanes.get(topic).and_then(|lane| lane.refused);
        refused.is_some_and(|(since, times)| {
            let others_pass = self.last_taken.is_some_and(|taken| taken > since) || answers;
            others_pass && times >= REFUSALS_MIN && now.saturating_duration_since(since) >= self.pace.refused
        })
    }

    pub(super) fn condemn(&mut self, topic: &Topic, why: &str) {
        if let Some(lane) = self.lanes.get_mut(topic) {
            lane.condemned = Some(why.to_owned());
        }
    }

    fn lane(&mut self, topic: &Topic, now: Instant) -> &mut Lane {
        self.lanes.entry(topic.clone()).or_insert_with(|| Lane::new(now))
    }

    fn end_if_empty(&mut self, topic: &Topic) {
        if self.lanes.get(topic).is_some_and(|lane| lane.events == 0 && lane.coming == 0 && !lane.replayed) {
            self.lanes.remove(topic);
        }
    }
}

impl Lane {
    fn new(now: Instant) -> Self {
        Self {
            events: 0,
            coming: 0,
            closing_until: None,
            replayed: false,
            batch: 1,
            failures: 0,
            not_before: now,
            refused: None,
            condemned: None,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.events > 0 && !self.replayed && self.not_before <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(events: u64) -> Load {
        Load { events, bytes: events }
    }

    fn gate(takes: bool) -> (Gate, Instant) {
        let mut gate = Gate::new(Pace::default(), takes);
        let now = Instant::now();
        gate.open(Vec::new(), Load::default(), None, now);
        (gate, now)
    }

    fn way(gate: &mut Gate, topic: &Topic, now: Instant) -> Result<Way, Wait> {
        let (ways, ticket) = gate.decide(std::slice::from_ref(topic), now)?;
        ticket.into_iter().for_each(|ticket| gate.answered(ticket, false, now));
        Ok(ways[0].clone())
    }

    fn went_in(gate: &mut Gate, topic: &Topic, events: u64, now: Instant) {
        gate.expect(topic, now);
        gate.added(topic, load(events), now);
        gate.came(topic);
    }

    #[test]
    fn a_topic_goes_behind_what_it_has_in_the_spool_and_others_to_the_log() {
        let (mut gate, now) = gate(true);
        let (a, b) = (Topic::new("a"), Topic::new("b"));
        assert_eq!(way(&mut gate, &a, now), Ok(Way::Log));
        went_in(&mut gate, &a, 5, now);
        assert_eq!(gate.decide(&[a.clone(), b.clone()], now).map(|(ways, _)| ways), Ok(vec![Way::Spool, Way::Log]));
    }

    #[test]
    fn a_lane_that_is_nearly_empty_closes_and_ends_when_the_log_has_it_all() {
        let (mut gate, now) = gate(true);
        let a = Topic::new("a");
        went_in(&mut gate, &a, 2, now);
        assert_eq!(gate.turn(now).map(|turn| turn.events_max), Some(1), "the first is a probe");
        assert_eq!(gate.turn(now), None, "one replay of a topic at a time");
        gate.removed(&a, load(1));
        gate.replayed(&a, &Replayed::All, now);
        let wait = way(&mut gate, &a, now).expect_err("what is new waits");
        assert!(wait.until.is_some());
        assert_eq!(gate.turn(now).map(|turn| turn.events_max), Some(BATCH_GROWS));
        gate.removed(&a, load(1));
        gate.replayed(&a, &Replayed::All, now);
        assert_eq!(way(&mut gate, &a, now), Ok(Way::Log));
    }

    #[test]
    fn a_lane_that_does_not_end_in_time_or_fails_takes_what_is_new() {
        let (mut gate, now) = gate(true);
        let a = Topic::new("a");
        for late in [true, false] {
            went_in(&mut gate, &a, 2, now);
            gate.turn(now).expect("a turn");
            gate.removed(&a, load(1));
            gate.replayed(&a, &Replayed::All, now);
            let then = now + gate.pace.closing;
            if !late {
                gate.turn(now).expect("a turn");
                gate.replayed(&a, &Replayed::Failed, now);
            }
            assert_eq!(way(&mut gate, &a, if late { then } else { now }), Ok(Way::Spool), "late: {late}");
            gate.came(&a);
            gate.lanes.clear();
        }
    }

    #[test]
    fn what_is_being_written_keeps_its_lane_open() {
        let (mut gate, now) = gate(true);
        let a = Topic::new("a");
        went_in(&mut gate, &a, 1, now);
        assert_eq!(way(&mut gate, &a, now), Ok(Way::Spool), "its write begins");
        gate.turn(now).expect("a turn");
        gate.removed(&a, load(1));
        gate.replayed(&a, &Replayed::All, now);
        assert!(way(&mut gate, &a, now).is_err(), "nothing is in the spool, and something will be");
        gate.came(&a);
        assert_eq!(way(&mut gate, &a, now), Ok(Way::Log));
    }

    #[test]
    fn an_append_without_an_answer_sends_what_is_new_into_the_spool() {
        let (mut gate, now) = gate(true);
        let (a, b) = (Topic::new("a"), Topic::new("b"));
        let (_, ticket) = gate.decide(std::slice::from_ref(&a), now).expect("a way");
        let then = now + gate.pace.suspect;
        assert_eq!(way(&mut gate, &b, now), Ok(Way::Log));
        assert_eq!(way(&mut gate, &b, then), Ok(Way::Spool));
        gate.came(&b);
        gate.answered(ticket.expect("a ticket"), true, then);
        assert_eq!(way(&mut gate, &b, then), Ok(Way::Log), "the log has answered, and nothing was spooled");
    }

    #[test]
    fn a_spool_that_takes_nothing_lets_nothing_pass_what_it_holds() {
        let (mut gate, now) = gate(false);
        let a = Topic::new("a");
        gate.added(&a, load(1), now);
        assert!(matches!(way(&mut gate, &a, now), Err(Wait { until: None, .. })));
        gate.turn(now).expect("a turn");
        gate.removed(&a, load(1));
        gate.replayed(&a, &Replayed::All, now);
        assert_eq!(way(&mut gate, &a, now), Ok(Way::Log));
    }

    #[test]
    fn a_topic_is_given_up_only_if_it_was_refused_for_long_and_the_log_is_there() {
        let (mut gate, now) = gate(true);
        let a = Topic::new("a");
        went_in(&mut gate, &a, 9, now);
        let mut then = now;
        for _ in 0..REFUSALS_MIN {
            then += gate.pace.again_most;
            gate.turn(then).expect("a turn");
            gate.replayed(&a, &Replayed::Refused, then);
        }
        assert!(!gate.is_refused_for_good(&a, true, then), "not long enough");
        then += gate.pace.refused;
        assert!(!gate.is_refused_for_good(&a, false, then), "nothing shows that the log is there");
        assert!(gate.is_refused_for_good(&a, true, then));
        gate.answered(0, true, then);
        assert!(gate.is_refused_for_good(&a, false, then), "it has taken something else");
        gate.condemn(&a, "gone");
        assert_eq!(way(&mut gate, &a, then), Ok(Way::Nowhere("gone".into())));
        assert_eq!(gate.turn(then).and_then(|turn| turn.condemned), Some("gone".into()));
    }

    #[test]
    fn a_topic_that_was_refused_once_long_ago_is_not_given_up() {
        let (mut gate, now) = gate(true);
        let a = Topic::new("a");
        went_in(&mut gate, &a, 1, now);
        for times in 1..=REFUSALS_MIN {
            let then = now + gate.pace.refused * times;
            gate.turn(then).expect("a turn");
            gate.replayed(&a, &Replayed::Refused, then);
            let later = then + gate.pace.refused;
            assert_eq!(gate.is_refused_for_good(&a, true, later), times == REFUSALS_MIN, "{times} times");
        }
    }

    #[test]
    fn what_is_given_up_waits_after_a_failure_and_is_set_aside_in_growing_batches() {
        let (mut gate, now) = gate(true);
        let a = Topic::new("a");
        went_in(&mut gate, &a, 9, now);
        gate.condemn(&a, "gone");
        gate.turn(now).expect("a turn");
        gate.replayed(&a, &Replayed::Failed, now);
        assert_eq!(gate.turn(now), None, "the disk that has just failed is not asked at once");
        let then = gate.next_at().expect("a time");
        assert!(then > now);
        assert_eq!(gate.turn(then).map(|turn| turn.events_max), Some(1));
        gate.removed(&a, load(1));
        gate.replayed(&a, &Replayed::SetAside, then);
        assert_eq!(gate.turn(then).map(|turn| turn.events_max), Some(BATCH_GROWS));
    }

    #[test]
    fn after_a_failure_the_next_batch_is_one_event() {
        let (mut gate, now) = gate(true);
        let a = Topic::new("a");
        went_in(&mut gate, &a, 9_000, now);
        gate.turn(now).expect("a turn");
        gate.replayed(&a, &Replayed::All, now);
        assert_eq!(gate.turn(now).map(|turn| turn.events_max), Some(BATCH_GROWS));
        gate.replayed(&a, &Replayed::Failed, now);
        assert_eq!(gate.turn(now + gate.pace.again_most).map(|turn| turn.events_max), Some(1));
    }

    #[test]
    fn the_append_that_has_waited_longest_makes_the_log_suspect_whatever_comes_after_it() {
        let (mut gate, now) = gate(true);
        let a = Topic::new("a");
        gate.decide(std::slice::from_ref(&a), now).expect("a way");
        let mut then = now;
        while then < now + gate.pace.suspect {
            assert_eq!(way(&mut gate, &a, then), Ok(Way::Log));
            then += gate.pace.suspect / 4;
            // Young ones are always under way.
            gate.decide(std::slice::from_ref(&a), then - gate.pace.suspect / 8).expect("a way");
        }
        assert_eq!(way(&mut gate, &a, then), Ok(Way::Spool));
    }

    #[test]
    fn topics_that_fail_leave_room_for_those_that_do_not() {
        let (mut gate, now) = gate(true);
        for failing in 0..REPLAYS_MAX {
            let topic = Topic::new(&format!("failing {failing}"));
            went_in(&mut gate, &topic, 1, now);
            gate.turn(now).expect("a turn");
            gate.replayed(&topic, &Replayed::Failed, now);
        }
        let then = now + gate.pace.again_most;
        let first = std::iter::from_fn(|| gate.turn(then)).count();
        assert_eq!(first, REPLAYS_FAILING_MAX);
        went_in(&mut gate, &Topic::new("good"), 1, then);
        assert_eq!(gate.turn(then).map(|turn| turn.topic), Some(Topic::new("good")));
    }
}
