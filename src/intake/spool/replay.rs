//! What was spooled goes to the log when that answers: each topic on its own, in order, one batch at a time. The first after
//! a failure is one event: that is how the log is asked whether it is back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::gate::{Replayed, Turn};
use super::store::{Settled, Waiting, weight};
use super::writer::Job;
use super::{Shared, Status};
use crate::log::AppendError;
use crate::metrics as names;
use crate::model::{Timestamp, Topic};

/// How often the metrics are brought up to date while events wait.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks for what is due, where nothing else wakes us.
const LOOK_EVERY_LEAST: Duration = Duration::from_millis(10);

/// Until the spool is closed; what is under way then is finished.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut replays = JoinSet::new();
    let (mut events_waited, mut look_at) = (false, None);
    loop {
        let stopping = shared.stopping.load(Ordering::Acquire);
        while !stopping && let Some(turn) = next(&shared) {
            replays.spawn_on(replay(shared.clone(), turn), &shared.engine);
        }
        events_waited = tell(&shared.status(), events_waited);
        if stopping && replays.is_empty() {
            return;
        }
        let now = Instant::now();
        let tick = events_waited.then_some(now + TICK);
        let due = shared.gate.lock().next_at().filter(|_| !stopping).map(|at| at.max(now + LOOK_EVERY_LEAST));
        look_at = look(&shared, look_at, now);
        let wake = tick.into_iter().chain(due).chain(look_at).min();
        tokio::select! {
            Some(_) = replays.join_next() => {}
            () = shared.work.notified() => {}
            () = async { sleep_until(wake.unwrap_or(now)).await }, if wake.is_some() => {}
        }
    }
}

fn next(shared: &Shared) -> Option<Turn> {
    shared.gate.lock().turn(Instant::now())
}

/// Has a fault of the disk looked at when it is time, so that it ends although nothing is to be kept. When next.
fn look(shared: &Shared, at: Option<Instant>, now: Instant) -> Option<Instant> {
    let every = shared.gate.lock().looks_every()?;
    match at {
        Some(at) if at > now => return Some(at),
        // A writer with too much to do sees it for itself.
        Some(_) => drop(shared.give(Job::Look)),
        None => {}
    }
    Some(now + every)
}

/// Metrics, and a word to the operator when it begins and when it is over.
fn tell(status: &Status, waited: bool) -> bool {
    let age = status.oldest.map_or(0, |oldest| Timestamp::now().0.saturating_sub(oldest.0).max(0));
    metrics::gauge!(names::SPOOL_EVENTS).set(status.events as f64);
    metrics::gauge!(names::SPOOL_BYTES).set(status.bytes as f64);
    if status.bytes_max > 0 {
        metrics::gauge!(names::SPOOL_MAX_BYTES).set(status.bytes_max as f64);
    }
    metrics::gauge!(names::SPOOL_OLDEST_SECONDS).set(age as f64 / 1000.0);
    metrics::gauge!(names::SPOOL_ASIDE).set(status.aside as f64);
    match (waited, status.events > 0) {
        (false, true) => tracing::warn!("the log does not take every event: they wait in the spool"),
        (true, false) => tracing::info!("the spool is empty: events go to the log again"),
        _ => {}
    }
    status.events > 0
}

/// Gives the turn back, however it ended.
struct Ending {
    shared: Arc<Shared>,
    topic: Topic,
    how: Replayed,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.gate.lock().replayed(&self.topic, &self.how, Instant::now());
        self.shared.changed.notify_waiters();
    }
}

async fn replay(shared: Arc<Shared>, turn: Turn) {
    let Turn { topic, events_max, condemned } = turn;
    let mut ending = Ending { shared: shared.clone(), topic: topic.clone(), how: Replayed::Failed };
    let asked = (topic.clone(), events_max);
    let found = shared.ask(|answer| Job::Oldest { topic: asked.0, events_max: asked.1, answer }).await;
    let Ok(waiting) = found else { return };
    if let Some(why) = condemned {
        set_all_aside(&shared, &topic, &waiting, &why).await;
        ending.how = Replayed::SetAside;
        return;
    }
    let records = waiting.iter().map(|waiting| waiting.record.clone()).collect();
    let answers = shared.log.append(records).await;
    let mut settled = Settled::default();
    let (mut failed, mut refused) = (false, None);
    for (Waiting { seq, record }, answer) in waiting.iter().zip(answers) {
        match answer {
            Ok(_) => settled.appended.push((*seq, weight(record))),
            Err(e @ AppendError::TooLarge(_)) => settled.refused.push((*seq, weight(record), e.to_string())),
            Err(e @ AppendError::Refused(_)) => refused = Some(e.to_string()),
            Err(AppendError::NotWritten(_) | AppendError::Busy(_) | AppendError::Unknown(_)) => failed = true,
        }
    }
    if !settle(&shared, &topic, settled).await {
        return;
    }
    if let Some(why) = &refused {
        give_up(&shared, &topic, why).await;
    }
    ending.how = match refused {
        Some(_) => Replayed::Refused,
        None if failed => Replayed::Failed,
        None => Replayed::All,
    };
}

/// Where a topic was refused for long enough, its events are set aside from now on.
async fn give_up(shared: &Shared, topic: &Topic, why: &str) {
    let answers = shared.log.check().await.is_ok();
    let mut gate = shared.gate.lock();
    if gate.is_refused_for_good(topic, answers, Instant::now()) {
        gate.condemn(topic, why);
        drop(gate);
        tracing::error!(
            %topic, why,
            "the log refuses a topic for good: its events are set aside; when that is mended, `sluice admin spool retry`"
        );
    }
}

async fn set_all_aside(shared: &Shared, topic: &Topic, waiting: &[Waiting], why: &str) {
    let refused = waiting.iter().map(|Waiting { seq, record }| (*seq, weight(record), why.to_owned()));
    settle(shared, topic, Settled { appended: Vec::new(), refused: refused.collect() }).await;
}

/// Writes down what the log said, until that is done: what it has must not be sent to it again. False: not done, because
/// the spool is closed; the next start sends it again.
async fn settle(shared: &Shared, topic: &Topic, settled: Settled) -> bool {
    if settled == Settled::default() {
        return true;
    }
    if let Some((_, _, why)) = settled.refused.first() {
        tracing::warn!(%topic, events = settled.refused.len(), why, "events are set aside");
    }
    let again = shared.gate.lock().pace.again_most;
    loop {
        let (topic, settled) = (topic.clone(), settled.clone());
        match shared.ask(|answer| Job::Settle { topic, settled, answer }).await {
            Ok(()) => return true,
            Err(why) if shared.stopping.load(Ordering::Acquire) => {
                tracing::warn!(why, "what the log has could not be taken out of the spool: it is sent again");
                return false;
            }
            Err(_) => sleep(again).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn what_is_in_the_spool_is_told_as_metrics() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let oldest = Some(Timestamp(Timestamp::now().0 - 60_000));
        let status = Status { events: 1, bytes: 2, bytes_max: 3, oldest, aside: 4, fault: None };
        assert!(metrics::with_local_recorder(&recorder, || tell(&status, false)));
        let text = recorder.handle().render();
        let told = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|number| number.parse::<f64>().ok())
        };
        let names = [names::SPOOL_EVENTS, names::SPOOL_BYTES, names::SPOOL_MAX_BYTES, names::SPOOL_ASIDE];
        assert_eq!(names.map(told), [Some(1.0), Some(2.0), Some(3.0), Some(4.0)], "{text}");
        assert!(told(names::SPOOL_OLDEST_SECONDS).is_some_and(|age| (60.0..90.0).contains(&age)), "{text}");
    }
}
