//! What operators see of the spool, and do with what was set aside.

use std::sync::Arc;

use super::writer::{Answer, Job};
use super::{Aside, Spool, Status};

/// For operators. Cheap to clone.
#[derive(Clone)]
pub struct Desk(Arc<Spool>);

impl Desk {
    pub(in crate::intake) fn new(spool: Arc<Spool>) -> Self {
        Self(spool)
    }

    #[cfg(test)]
    pub(super) fn into_spool(self) -> Spool {
        Arc::into_inner(self.0).expect("nobody else has it")
    }

    pub fn status(&self) -> Status {
        self.0.status()
    }

    /// The first events that were set aside.
    pub async fn look_aside(&self, events_max: u32) -> Result<Vec<Aside>, String> {
        self.0.shared.ask(|answer| Job::LookAside { events_max, answer }).await
    }

    /// Puts what was set aside behind what waits. How many events.
    pub async fn retry(&self) -> Result<u64, String> {
        self.all_aside(|answer| Job::Retry { answer }).await
    }

    /// Deletes what was set aside. How many events.
    pub async fn drop_aside(&self) -> Result<u64, String> {
        self.all_aside(|answer| Job::Drop { answer }).await
    }

    /// In steps, between which events are taken; about as many as there are now.
    async fn all_aside(&self, step: impl Fn(Answer<u64>) -> Job) -> Result<u64, String> {
        let all = self.status().aside;
        let mut done = 0;
        while done < all {
            match self.0.shared.ask(&step).await? {
                0 => break,
                some => done += some,
            }
        }
        Ok(done)
    }
}
