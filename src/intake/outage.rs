//! Whether the log is known to be away, topic by topic: what comes then is refused at once, and not at its deadline.
//!
//! Known is only what appends have shown: for a while all of them ended for the log's sake, and none was acknowledged. A
//! stall that ends within the deadline ends nothing, so it refuses nobody. From then on one append at a time is let
//! through as a trial, a real request that gets its honest answer; the first acknowledgement, of whatever was under way,
//! opens the topic. One that ends a known outage opens every topic: it may have been the whole log, and who is still away
//! shows it again.
//!
//! The spool's gate has a suspicion of its own, an append that is merely slow: to keep an event costs nothing, to refuse
//! one loses it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::log::AppendError;
use crate::model::{CANARY, NewRecord, Topic};

/// For so long there must have been nothing but failures.
const PROVEN_AFTER: Duration = Duration::from_secs(1);
/// From one trial of a topic to the next, at least.
const TRIAL_EVERY: Duration = Duration::from_secs(1);
/// For so long a failure speaks of what comes next. Past it a trial does, when it has waited for [`PROVEN_AFTER`]: after a
/// quiet time nobody is refused by what was.
const FRESH: Duration = Duration::from_secs(2);
/// Topics that are remembered. Events of one more wait until their deadline.
const TOPICS_MAX: usize = 4_096;

pub(super) struct Outages {
    state: Mutex<State>,
    /// Without another failure for so long, and without a trial, a topic's failures are forgotten.
    keep: Duration,
}

#[derive(Default)]
struct State {
    failing: HashMap<Topic, Failing>,
    /// When the last known outage ended. What began before and fails later says nothing new.
    opened: Option<Instant>,
}

/// A topic of which nothing has been acknowledged since the first failure.
struct Failing {
    first: Instant,
    last: Instant,
    /// What the log said last.
    why: String,
    /// When the last trial began. It is under way as long as its append holds its end.
    trial: Option<(Instant, Weak<()>)>,
}

enum Way {
    Pass,
    Trial,
    Refused(String),
}

/// A request's records, sorted.
pub(super) struct Sorted {
    pub(super) attempt: Attempt,
    /// Those that the log is asked for.
    pub(super) records: Vec<NewRecord>,
    /// For each that came: why the log is not asked for it.
    pub(super) refused: Vec<Option<AppendError>>,
}

/// An append under way. Dropped without an end it says nothing, and lets another trial begin.
pub(super) struct Attempt {
    outages: Arc<Outages>,
    topics: Vec<Topic>,
    /// Of each record that the log is asked for: which topic is its.
    topic_of: Vec<usize>,
    began: Instant,
    is_late: bool,
    trial: Option<Arc<()>>,
}

impl Outages {
    /// No append is without an answer for longer than this deadline.
    pub(super) fn new(deadline: Duration) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), keep: deadline + FRESH })
    }

    pub(super) fn sort(self: &Arc<Self>, records: Vec<NewRecord>, now: Instant) -> Sorted {
        let mut attempt = Attempt {
            outages: self.clone(),
            topics: Vec::new(),
            topic_of: Vec::with_capacity(records.len()),
            began: now,
            is_late: false,
            trial: None,
        };
        let mut ways: HashMap<Topic, Result<usize, String>> = HashMap::new();
        let (mut asked, mut refused) = (Vec::with_capacity(records.len()), Vec::with_capacity(records.len()));
        let mut state = self.state.lock();
        for record in records {
            if !ways.contains_key(&record.topic) {
                let way = state.way_in(&mut attempt, &record.topic, self.keep);
                ways.insert(record.topic.clone(), way);
            }
            match &ways[&record.topic] {
                Ok(topic) => {
                    attempt.topic_of.push(*topic);
                    asked.push(record);
                    refused.push(None);
                }
                Err(why) => refused.push(Some(AppendError::NotWritten(why.clone()))),
            }
        }
        drop(state);
        Sorted { attempt, records: asked, refused }
    }
}

impl State {
    fn way_in(&mut self, attempt: &mut Attempt, topic: &Topic, keep: Duration) -> Result<usize, String> {
        match self.way(topic, attempt.began, keep) {
            Way::Refused(why) => return Err(why),
            Way::Pass => {}
            Way::Trial => {
                let end = attempt.trial.get_or_insert_default();
                if let Some(failing) = self.failing.get_mut(topic) {
                    failing.trial = Some((attempt.began, Arc::downgrade(end)));
                }
            }
        }
        attempt.topics.push(topic.clone());
        Ok(attempt.topics.len() - 1)
    }

    fn way(&mut self, topic: &Topic, now: Instant, keep: Duration) -> Way {
        // Sluice's own canary is to find out how the log is.
        if topic.as_str() == CANARY {
            return Way::Pass;
        }
        let Some(failing) = self.failing.get(topic) else { return Way::Pass };
        if failing.is_forgotten(now, keep) {
            self.failing.remove(topic);
            return Way::Pass;
        }
        let (trial, under_way) = (failing.trial.as_ref(), failing.is_tried());
        let tried_for = trial.map(|(began, _)| now.saturating_duration_since(*began));
        if !failing.is_proven() {
            Way::Pass
        } else if !under_way && tried_for.is_none_or(|ago| ago >= TRIAL_EVERY) {
            Way::Trial
        } else if failing.quiet(now) < FRESH || (under_way && tried_for.is_some_and(|since| since >= PROVEN_AFTER)) {
            let (since, why) = (now.saturating_duration_since(failing.first).as_secs(), &failing.why);
            Way::Refused(format!(
                "it has taken nothing of topic {topic} for {since} s ({why}), so events are refused at once until it takes one; send them again later"
            ))
        } else {
            Way::Pass
        }
    }

    fn failed(&mut self, topic: &Topic, why: &str, began: Instant, now: Instant, keep: Duration) {
        if self.opened.is_some_and(|opened| opened >= began) {
            return;
        }
        if let Some(failing) = self.failing.get_mut(topic) {
            failing.last = now;
            why.clone_into(&mut failing.why);
            return;
        }
        if self.failing.len() >= TOPICS_MAX {
            self.failing.retain(|_, failing| !failing.is_forgotten(now, keep));
        }
        if self.failing.len() < TOPICS_MAX {
            let failing = Failing { first: now, last: now, why: why.to_owned(), trial: None };
            self.failing.insert(topic.clone(), failing);
        }
    }

    fn acknowledged(&mut self, topic: &Topic, now: Instant) {
        if self.failing.remove(topic).is_some_and(|failing| failing.is_proven()) {
            self.failing.clear();
            self.opened = Some(now);
        }
    }
}

impl Failing {
    fn is_proven(&self) -> bool {
        self.last.saturating_duration_since(self.first) >= PROVEN_AFTER
    }

    fn is_tried(&self) -> bool {
        self.trial.as_ref().is_some_and(|(_, end)| end.strong_count() > 0)
    }

    fn is_forgotten(&self, now: Instant, keep: Duration) -> bool {
        self.quiet(now) > keep && !self.is_tried()
    }

    /// Since the last failure.
    fn quiet(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last)
    }
}

impl Attempt {
    /// What its append answers, noted. `due`: past it nobody waits for that any more.
    pub(super) async fn watch<T>(
        mut self,
        appending: impl Future<Output = Vec<Result<T, AppendError>>>,
        due: Instant,
    ) -> Vec<Result<T, AppendError>> {
        tokio::pin!(appending);
        let answers = match timeout_at(due, &mut appending).await {
            Ok(answers) => answers,
            Err(_) => {
                self.is_late(Instant::now());
                appending.await
            }
        };
        self.ended(&answers, Instant::now());
        answers
    }

    /// The deadline has come without an answer. An acknowledgement is heard all the same.
    fn is_late(&mut self, now: Instant) {
        (self.is_late, self.trial) = (true, None);
        let mut state = self.outages.state.lock();
        for topic in &self.topics {
            state.failed(topic, "it does not answer", self.began, now, self.outages.keep);
        }
    }

    /// The answers of the records that the log was asked for, in their order.
    fn ended<T>(self, answers: &[Result<T, AppendError>], now: Instant) {
        let mut ends: Vec<Option<Result<(), &str>>> = vec![None; self.topics.len()];
        for (topic, answer) in self.topic_of.iter().zip(answers) {
            match answer {
                Ok(_) => ends[*topic] = Some(Ok(())),
                Err(AppendError::NotWritten(why) | AppendError::Unknown(why)) => {
                    ends[*topic].get_or_insert(Err(why));
                }
                // Of the record, of the topic's settings, or of this server: the log is not away for it.
                Err(AppendError::TooLarge(_) | AppendError::Refused(_) | AppendError::Busy(_)) => {}
            }
        }
        let mut state = self.outages.state.lock();
        for (topic, end) in self.topics.iter().zip(ends) {
            match end {
                Some(Ok(())) => state.acknowledged(topic, now),
                Some(Err(why)) if !self.is_late => state.failed(topic, why, self.began, now, self.outages.keep),
                Some(Err(_)) | None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    const DEADLINE: Duration = Duration::from_secs(9);
    const MS: Duration = Duration::from_millis(1);
    const S: Duration = Duration::from_secs(1);

    struct World {
        outages: Arc<Outages>,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            Self { outages: Outages::new(DEADLINE), now: Instant::now() }
        }

        fn away(topics: &[&str]) -> Self {
            let mut world = Self::new();
            world.goes_away(topics);
            world
        }

        /// Two failures, [`PROVEN_AFTER`] apart.
        fn goes_away(&mut self, topics: &[&str]) {
            for _ in 0..2 {
                self.now += PROVEN_AFTER;
                topics.iter().for_each(|topic| self.fails(topic));
            }
        }

        fn begin(&self, topics: &[&str]) -> Sorted {
            let record = |topic: &&str| NewRecord {
                topic: Topic::new(topic),
                time: Timestamp(1),
                key: None,
                value: Some("x".into()),
            };
            self.outages.sort(topics.iter().map(record).collect(), self.now)
        }

        /// None: it is refused.
        fn attempt(&self, topic: &str) -> Option<Attempt> {
            let Sorted { attempt, refused, .. } = self.begin(&[topic]);
            refused[0].is_none().then_some(attempt)
        }

        fn fails(&self, topic: &str) {
            self.end(self.attempt(topic).expect("it is let in"), not_written());
        }

        fn end(&self, attempt: Attempt, answer: Result<(), AppendError>) {
            attempt.ended(&[answer], self.now);
        }

        fn is_open(&self, topic: &str) -> bool {
            // More than one: a trial alone is no open topic.
            let attempts = [self.attempt(topic), self.attempt(topic)];
            attempts.iter().all(Option::is_some)
        }
    }

    fn not_written() -> Result<(), AppendError> {
        Err(AppendError::NotWritten("no broker answers".into()))
    }

    #[test]
    fn failures_for_a_second_and_nothing_else_refuse_what_comes_but_for_one_trial() {
        let mut world = World::new();
        world.fails("a");
        world.now += PROVEN_AFTER - MS;
        world.fails("a");
        assert!(world.is_open("a"), "not long enough");
        world.now += MS;
        world.fails("a");
        let trial = world.attempt("a");
        assert!(trial.is_some() && !world.is_open("a"));
        let said = world.begin(&["a"]).refused.remove(0).map(|error| error.to_string());
        let expected = "the log cannot take the record now: it has taken nothing of topic a for 1 s (no broker answers), so events are refused at once until it takes one; send them again later";
        assert_eq!(said.as_deref(), Some(expected));
    }

    #[test]
    fn failures_with_an_acknowledgement_between_them_refuse_nobody() {
        let mut world = World::new();
        for _ in 0..20 {
            world.fails("a");
            world.now += PROVEN_AFTER - MS;
            world.fails("a");
            world.end(world.attempt("a").expect("an append"), Ok(()));
            world.now += S;
        }
        assert!(world.is_open("a"));
    }

    #[test]
    fn a_stall_is_no_outage_however_many_wait_and_one_failed_append_is_none() {
        let mut world = World::new();
        let waiting: Vec<Attempt> = (0..100).map(|_| world.attempt("a").expect("it is let in")).collect();
        world.now += DEADLINE - MS;
        assert!(world.is_open("a"));
        let mut late = world.attempt("a").expect("it is let in");
        waiting.into_iter().for_each(|attempt| world.end(attempt, not_written()));
        late.is_late(world.now);
        world.now += PROVEN_AFTER;
        world.end(late, not_written());
        assert!(world.is_open("a"), "one append has one end");
    }

    #[test]
    fn the_trial_of_a_topic_is_one_at_a_time_and_one_a_second() {
        let mut world = World::away(&["a"]);
        let trial = world.attempt("a").expect("a trial");
        for _ in 0..80 {
            world.now += MS * 100;
            assert!(world.attempt("a").is_none());
        }
        world.end(trial, not_written());
        world.fails("a");
        assert!(world.attempt("a").is_none(), "the last one has just begun");
        world.now += TRIAL_EVERY;
        let mut late = world.attempt("a").expect("a trial");
        world.now += DEADLINE;
        late.is_late(world.now);
        assert!(world.attempt("a").is_some(), "what never ends is not waited for");
    }

    #[test]
    fn a_trial_that_has_no_end_is_followed_by_another() {
        let mut world = World::away(&["a"]);
        drop(world.attempt("a").expect("a trial"));
        world.now += TRIAL_EVERY;
        assert!(world.attempt("a").is_some());
    }

    #[test]
    fn the_first_acknowledgement_ends_a_known_outage_for_all_topics() {
        for first in ["a", CANARY] {
            let mut world = World::new();
            let under_way = world.attempt(first).expect("it is let in");
            world.goes_away(&["a", "b", CANARY]);
            let trial = world.attempt("b").expect("a trial");
            assert!(!world.is_open("a") && !world.is_open("b"));
            world.end(under_way, Ok(()));
            assert!(world.is_open("a") && world.is_open("b"));
            world.end(trial, not_written());
            assert!(world.outages.state.lock().failing.is_empty(), "it began before");
        }
    }

    #[test]
    fn a_sick_topic_refuses_no_other_and_others_do_not_open_it() {
        let world = World::away(&["sick"]);
        let _trial = world.attempt("sick").expect("a trial");
        assert!(world.is_open("well"));
        world.end(world.attempt("well").expect("an append"), Ok(()));
        world.end(world.attempt(CANARY).expect("an append"), Ok(()));
        let Sorted { records, refused, attempt } = world.begin(&["well", "sick", "well"]);
        assert!(refused[0].is_none() && refused[1].is_some() && refused[2].is_none());
        assert_eq!((records.len(), attempt.topic_of), (2, vec![0, 0]));
    }

    #[test]
    fn an_acknowledgement_that_ends_no_known_outage_opens_no_other_topic() {
        let world = World::away(&["sick"]);
        let _trial = world.attempt("sick").expect("a trial");
        world.fails("stumbles");
        world.end(world.attempt("stumbles").expect("an append"), Ok(()));
        assert!(world.is_open("stumbles") && world.attempt("sick").is_none());
    }

    #[test]
    fn slow_failures_one_after_the_other_are_an_outage() {
        let mut world = World::new();
        world.fails("a");
        world.now += FRESH + MS;
        let slow = world.attempt("a").expect("it is let in");
        world.now += DEADLINE - MS;
        world.end(slow, Err(AppendError::Unknown("it hangs".into())));
        let _trial = world.attempt("a").expect("a trial");
        let said = world.begin(&["a"]).refused.remove(0).expect("it is refused").to_string();
        assert!(said.contains("(it hangs)"), "what it said last: {said}");
    }

    #[test]
    fn an_outage_is_not_forgotten_while_it_is_tried() {
        let mut world = World::away(&["a"]);
        world.now += DEADLINE + FRESH;
        let trial = world.attempt("a").expect("a trial");
        world.now += PROVEN_AFTER;
        assert!(world.attempt("a").is_none());
        drop(trial);
        assert!(world.is_open("a"));
    }

    #[test]
    fn the_canary_is_never_refused() {
        assert!(World::away(&[CANARY]).is_open(CANARY));
    }

    #[test]
    fn a_topic_of_which_some_is_acknowledged_is_not_away() {
        let mut world = World::new();
        for _ in 0..9 {
            world.begin(&["a", "a"]).attempt.ended(&[Ok(()), not_written()], world.now);
            world.now += PROVEN_AFTER;
        }
        assert!(world.is_open("a"));
    }

    #[test]
    fn what_is_not_for_the_logs_sake_refuses_nobody() {
        let mut world = World::new();
        for _ in 0..9 {
            for error in [AppendError::TooLarge, AppendError::Refused, AppendError::Busy] {
                world.end(world.attempt("a").expect("it is let in"), Err(error("so".into())));
                world.now += PROVEN_AFTER;
            }
        }
        assert!(world.is_open("a"));
    }

    #[test]
    fn after_a_quiet_time_a_trial_must_wait_in_vain_before_others_are_refused() {
        let mut world = World::away(&["a"]);
        world.now += FRESH;
        let trial = world.attempt("a").expect("a trial");
        assert!(world.is_open("a"), "the last failure is no news");
        world.now += PROVEN_AFTER;
        assert!(world.attempt("a").is_none());
        drop(trial);
        world.now += DEADLINE + FRESH;
        world.fails("a");
        assert!(world.is_open("a"), "it was forgotten, and has failed once");
    }

    #[tokio::test(start_paused = true)]
    async fn an_append_without_an_answer_has_failed_at_its_deadline_and_is_heard_when_it_answers() {
        let outages = Outages::new(DEADLINE);
        let mut world = World { outages: outages.clone(), now: Instant::now() };
        let due = world.now + DEADLINE;
        let answers = async {
            tokio::time::sleep_until(due + S).await;
            let failing = outages.state.lock().failing.get(&Topic::new("a")).map(|failing| failing.last);
            assert!(failing.is_some_and(|last| last.saturating_duration_since(due) < MS * 5), "{failing:?}");
            vec![Ok(())]
        };
        let watched = world.attempt("a").expect("it is let in").watch(answers, due).await;
        assert!(matches!(watched[..], [Ok(())]) && outages.state.lock().failing.is_empty());
        world.now = Instant::now();
        assert!(world.is_open("a"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut world = World::new();
        let many: Vec<String> = (0..TOPICS_MAX + 9).map(|number| format!("t{number}")).collect();
        many.iter().for_each(|topic| world.fails(topic));
        assert_eq!(world.outages.state.lock().failing.len(), TOPICS_MAX);
        world.now += DEADLINE + FRESH + MS;
        world.fails("another");
        assert_eq!(world.outages.state.lock().failing.len(), 1);
    }
}
