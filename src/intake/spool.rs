//! What waits on disk for a log that is away.

use crate::model::Timestamp;

/// How the spool is doing, for metrics and the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Events that wait for the log.
    pub events: u64,
    pub bytes: u64,
    pub bytes_max: u64,
    /// When the oldest of them was accepted.
    pub oldest: Option<Timestamp>,
    /// Events that the log refuses for good.
    pub aside: u64,
    /// Why it takes no events now.
    pub fault: Option<String>,
}
