//! Reads the log once for everybody, and rings the workers' bells.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::Shared;
use crate::model::Topic;
use crate::shutdown::{Stage, Stop};

/// Records of each partition that fill the rings at the start, so that readers returning after a restart are served
/// from memory.
const WARM_RECORDS: u64 = 1_000;
/// How often unread channels and idle blocks are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

pub(super) async fn run(shared: Arc<Shared>, topics: Vec<Topic>, mut stop: Stop) {
    let mut following = shared.following.subscribe();
    let mut tail = shared.log.tail(topics, WARM_RECORDS).await;
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
