//! What is remembered of a change that an operator has made: a line in the log, and a count.

use super::access::Operator;
use crate::metrics as names;

/// What was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Ended,
    Denied,
    DenialEnded,
    Limits,
    LogLevel,
    Reload,
    SpoolRetried,
    SpoolDropped,
}

impl What {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "clients_ended",
            Self::Denied => "denied",
            Self::DenialEnded => "denial_ended",
            Self::Limits => "limits",
            Self::LogLevel => "log_level",
            Self::Reload => "reload",
            Self::SpoolRetried => "spool_retried",
            Self::SpoolDropped => "spool_dropped",
        }
    }
}

impl Operator {
    /// Of a change that has been made.
    pub(super) fn did(&self, what: What, to: &str) {
        let (by, name) = (self.peer(), self.name.as_deref().unwrap_or_default());
        tracing::info!(what = what.as_str(), to, by, name, "an operator has made a change");
        metrics::counter!(names::ADMIN_CHANGES, "what" => what.as_str()).increment(1);
    }
}
