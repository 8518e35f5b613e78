//! Asks the log how it is, again and again, on the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::Shared;
use super::judge::{IN_A_ROW, LogFacts};
use super::lags::Lags;
use crate::hub::Tip;
use crate::log::{ReadError, Sick, Surveyed};
use crate::model::{Offset, Partition, Topic};
use crate::shutdown::{Stage, Stop};

/// How often the log is asked, and how soon again where it has not answered.
const EVERY: Duration = Duration::from_secs(3);
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long it may take to answer.
const AT_MOST: Duration = Duration::from_secs(5);
/// Partitions of which a round finds out whether records wait there, or a gap. The others wait for the next one.
const LOOKED_AT_MAX: usize = 8;
const LOOK_AT_MOST: Duration = Duration::from_secs(3);

/// What the log has answered.
#[derive(Default)]
pub(super) struct Surveys {
    answered_at: Option<Instant>,
    failed_in_a_row: u32,
    why: String,
    /// As it said last.
    pub(super) partitions: BTreeMap<Partition, Part>,
    pub(super) lags: Lags,
}

pub(super) struct Part {
    pub(super) ends: Result<Range<Offset>, Sick>,
    /// The tail follows it, and the log has no such topic any more.
    is_gone: bool,
    /// Surveys in a row that have found it sick.
    sick_in_a_row: u32,
}

impl Part {
    /// What is wrong with it, when that has been said often enough: leaders change, and that takes a moment.
    pub(super) fn sick(&self) -> Option<&Sick> {
        self.ends.as_ref().err().filter(|_| self.sick_in_a_row >= IN_A_ROW)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone && self.sick().is_some()
    }
}

impl Surveys {
    pub(super) fn facts(&self, now: Instant) -> LogFacts {
        LogFacts {
            answered_ago: self.answered_at.map(|at| now.saturating_duration_since(at)),
            failed_in_a_row: self.failed_in_a_row,
            why: self.why.clone(),
        }
    }

    fn note(&mut self, answer: Result<Vec<Surveyed>, String>, tips: &[Tip], now: Instant, stall_after: Duration) {
        let surveyed = match answer {
            Ok(surveyed) => surveyed,
            Err(why) => {
                (self.failed_in_a_row, self.why) = (self.failed_in_a_row.saturating_add(1), why);
                return;
            }
        };
        (self.answered_at, self.failed_in_a_row, self.why) = (Some(now), 0, String::new());
        let tips: BTreeMap<&Partition, Offset> = tips.iter().map(|tip| (&tip.partition, tip.next)).collect();
        let before = std::mem::take(&mut self.partitions);
        let sick_before = |partition: &Partition| before.get(partition).map_or(0, |part| part.sick_in_a_row);
        let there: BTreeSet<Topic> = surveyed.iter().map(|one| one.partition.topic.clone()).collect();
        for Surveyed { partition, ends } in surveyed {
            if let Ok(ends) = &ends {
                // One that the tail has not opened is to be read from its beginning.
                let tail = tips.get(&partition).copied().unwrap_or(ends.start);
                self.lags.note(&partition, ends.end, tail, now, stall_after);
            }
            let sick_in_a_row = if ends.is_err() { sick_before(&partition).saturating_add(1) } else { 0 };
            self.partitions.insert(partition, Part { ends, is_gone: false, sick_in_a_row });
        }
        let partitions = &self.partitions;
        self.lags.keep(|partition| partitions.contains_key(partition));
        // A topic that never was is nobody's trouble: a catalogue lists those of other sites, too.
        for partition in tips.into_keys().filter(|partition| !there.contains(&partition.topic)) {
            let sick_in_a_row = sick_before(partition).saturating_add(1);
            let ends = Err(Sick { broker: None, why: "the log has no such topic any more".to_owned() });
            self.partitions.insert(partition.clone(), Part { ends, is_gone: true, sick_in_a_row });
        }
    }

    /// Where records seem to wait: the partition, where the tail stands, and where the log has been.
    fn doubtful(&mut self, tips: &[Tip], now: Instant, stall_after: Duration) -> Vec<(Partition, Range<Offset>)> {
        let late = tips.iter().filter_map(|tip| {
            let behind = self.lags.behind(&tip.partition, tip.next, now)?;
            let wanted = self.lags.wanted(&tip.partition)?;
            (behind >= stall_after / 2).then(|| (behind, tip.partition.clone(), tip.next..wanted))
        });
        let mut late: Vec<_> = late.collect();
        // In turn, so that those which are late for good do not keep the others waiting.
        fastrand::shuffle(&mut late);
        late.into_iter().take(LOOKED_AT_MAX).map(|(_, partition, range)| (partition, range)).collect()
    }
}

/// Until a stop lets nobody in.
pub(super) async fn run(shared: Arc<Shared>, mut stop: Stop) {
    loop {
        let answered = ask(&shared).await;
        tokio::select! {
            () = tokio::time::sleep(if answered { EVERY } else { AGAIN_AFTER }) => {}
            // A canary has failed: is it the log?
            () = shared.doubt.notified() => {}
            () = stop.reached(Stage::Finishing) => return,
        }
    }
}

/// One survey. True: the log has answered.
pub(super) async fn ask(shared: &Shared) -> bool {
    let sides = &shared.sides;
    let mut topics: BTreeSet<Topic> = sides.catalog.now().topics().into_iter().collect();
    topics.extend(sides.hub.tips().into_iter().map(|tip| tip.partition.topic));
    let topics: Vec<Topic> = topics.into_iter().collect();
    let answer = match timeout(AT_MOST, sides.log.survey(&topics)).await {
        Ok(answer) => answer.map_err(|error: ReadError| error.to_string()),
        Err(_) => Err(format!("no answer within {AT_MOST:?}")),
    };
    let answered = answer.is_ok();
    // After the answer: a tail that has passed these ends meanwhile is not behind them.
    let tips = sides.hub.tips();
    let stall_after = shared.options.stall_after;
    let late = {
        let mut surveys = shared.surveys.lock();
        surveys.note(answer, &tips, Instant::now(), stall_after);
        surveys.doubtful(&tips, Instant::now(), stall_after)
    };
    shared.look();
    if !late.is_empty() {
        // What has not been found out by then is asked again.
        let _ = timeout(LOOK_AT_MOST, find_gaps(shared, late)).await;
    }
    answered
}

/// Offsets have gaps, also at the end of a partition: nobody waits for what is not there.
async fn find_gaps(shared: &Shared, late: Vec<(Partition, Range<Offset>)>) {
    for (partition, range) in late {
        let end = range.end;
        if let Ok(block) = shared.sides.log.read(&partition, range, 1).await
            && block.records.is_empty()
            && block.next >= end
        {
            shared.surveys.lock().lags.is_empty_below(&partition, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_of_partitions_that_the_log_has_no_more() {
        let (mut surveys, now) = (Surveys::default(), Instant::now());
        let partition = Partition::new(&Topic::new("t"), 0);
        let surveyed = Surveyed { partition: partition.clone(), ends: Ok(Offset(0)..Offset(5)) };
        surveys.note(Ok(vec![surveyed]), &[], now, EVERY);
        assert_eq!(surveys.lags.wanted(&partition), Some(Offset(5)));
        surveys.note(Err("no answer".into()), &[], now, EVERY);
        assert_eq!(surveys.lags.wanted(&partition), Some(Offset(5)), "no answer says nothing of it");
        surveys.note(Ok(vec![]), &[], now, EVERY);
        assert_eq!(surveys.lags.wanted(&partition), None);
    }
}
