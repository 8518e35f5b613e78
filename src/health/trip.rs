//! What became of one canary.

use std::time::Duration;

/// How far a canary has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trip {
    /// In by the public listener, through intake and the log, and out again as readers get it.
    Made {
        took: Duration,
    },
    /// The half of the way that this instance has: it gives nothing out, or takes nothing in, or may not write.
    Half {
        took: Duration,
        missing: String,
    },
    Failed {
        at: Step,
        why: String,
    },
}

/// The part of the way on which a canary was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The public listener does not take the connection.
    Connect,
    /// The stream does not open.
    Open,
    /// The event is not taken in.
    Post,
    /// The log does not take it.
    Append,
    /// It was taken in, and does not come out.
    Read,
}
