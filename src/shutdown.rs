//! A staged stop, as a value that everybody watches: running → leaving → finishing → ending streams → over.

use tokio::sync::watch;

/// How far the stop has come. Stages only advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Running,
    /// No new traffic is wanted (`/readyz` says so); what comes is still served.
    Leaving,
    /// Nothing new comes in: requests under way are finished, and idle connections close.
    Finishing,
    /// Readers end after a whole event, spread over time.
    EndStreams,
    /// Those that are left end now, after a whole event.
    EndAtOnce,
    /// The deadline has come: whatever is left is cut.
    Over,
}

/// The side that stops the process.
#[derive(Debug)]
pub struct Shutdown(watch::Sender<Stage>);

/// The side that is stopped. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Stage>);

impl Default for Shutdown {
    fn default() -> Self {
        Self(watch::Sender::new(Stage::Running))
    }
}

impl Shutdown {
    pub fn advance(&self, to: Stage) {
        self.0.send_if_modified(|stage| {
            let advanced = to > *stage;
            *stage = to.max(*stage);
            advanced
        });
    }

    pub fn watcher(&self) -> Stop {
        Stop(self.0.subscribe())
    }
}

impl Stop {
    pub fn stage(&self) -> Stage {
        *self.0.borrow()
    }

    /// Waits until the stop has come at least this far.
    pub async fn reached(&mut self, stage: Stage) {
        // A sender that is gone counts as a stop: nobody is left to say otherwise.
        let _ = self.0.wait_for(|now| *now >= stage).await;
    }
}
