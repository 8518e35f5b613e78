//! Reads the log once for everybody, and rings the workers' bells.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::Shared;
use crate::metrics as names;
use crate::model::Topic;
use crate::shutdown::{Stage, Stop};

/// Records of each partition that fill the rings at the start, so that readers returning after a restart are served
/// from memory.
const WARM_RECORDS: u64 = 1_000;
/// How often unread channels and idle blocks are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// How long the log is left alone after a fault of ours, before it is read again.
pub(super) const REBUILD_AFTER: Duration = Duration::from_secs(1);

/// Reads until the stop is over. A fault of ours ends what reads, and no more: it is made anew, at the log's end. Where that
/// is further than a ring has come, the ring has a jump, as after a retention: its readers ask the log for what lies between,
/// so nobody loses or repeats an event.
pub(super) async fn run(shared: Arc<Shared>, topics: Vec<Topic>, mut stop: Stop) {
    let mut begin = Begin { topics: topics.clone(), warm_records: WARM_RECORDS };
    loop {
        let ended = shared.engine.spawn(read(shared.clone(), begin, stop.clone())).await;
        // Else it has ended as it should, or the engine is going away.
        if !ended.is_err_and(|error| error.is_panic()) {
            return;
        }
        tracing::error!("the reading of the log has failed by a fault in sluice, and begins anew; report it");
        metrics::counter!(names::TAIL_RESTARTS).increment(1);
        shared.set_caught_up(false);
        tokio::select! {
            () = tokio::time::sleep(REBUILD_AFTER) => {}
            () = stop.reached(Stage::Over) => return,
        }
        let following = shared.following.borrow().as_ref().map(|now| now.topics());
        let topics_now = following.unwrap_or_else(|| topics.clone());
        // Without the past: the rings have been further than that already.
        begin = Begin { topics: topics_now, warm_records: 0 };
    }
}

/// Where a tail begins.
struct Begin {
    topics: Vec<Topic>,
    warm_records: u64,
}

async fn read(shared: Arc<Shared>, begin: Begin, mut stop: Stop) {
    let mut following = shared.following.subscribe();
    // What has become of the streams is taken over again: the tail before this one may have failed over it.
    following.mark_changed();
    let mut tail = shared.log.tail(begin.topics, begin.warm_records).await;
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            batch = tail.next() => {
                batch.opened.iter().for_each(|opened| shared.catchup.forget(&opened.partition));
                shared.channels.lock().push(&batch);
                // After the push: a reader that is told "caught up" must find what it is told about.
                shared.set_caught_up(batch.caught_up);
                shared.ring_bells();
            }
            _ = following.changed() => {
                let now = following.borrow_and_update().clone();
                if let Some(now) = now {
                    tail.follow(now.topics());
                    shared.channels.lock().follow(now);
                    shared.ring_bells();
                }
            }
            _ = sweep.tick() => {
                shared.channels.lock().sweep();
                shared.catchup.sweep();
                // Channels that were closed have readers to be ended.
                shared.ring_bells();
            }
            () = stop.reached(Stage::Over) => return,
        }
    }
}
