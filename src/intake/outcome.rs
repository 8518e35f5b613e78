//! What became of an event, and why.

use bytes::Bytes;

use crate::schema::Violation;

/// What became of one event.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// In the log: acknowledged.
    Accepted,
    Refused(Refusal),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The event's place in the request, from 0.
    pub index: usize,
    pub code: Code,
    pub message: String,
    /// The event as it was sent.
    pub event: Bytes,
    /// What its schema says against it; empty where it was refused for something else.
    pub violations: Vec<Violation>,
}

/// Why an event was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    NotAnObject,
    MissingStream,
    StreamNotConfigured,
    /// Its schema says so.
    Invalid,
    /// The producer may not post to its stream.
    Forbidden,
    TooLarge,
    /// Not in the log, and never will be.
    NotWritten,
    /// Handed to the log and not acknowledged: it may yet appear.
    Unknown,
}

/// Whose fault a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Client,
    Ours,
}

/// The list of the answer that an item stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Schema validation.
    Invalid,
    /// All else.
    Error,
}

impl Code {
    /// The word in answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAnObject => "not-an-object",
            Self::MissingStream => "missing-stream",
            Self::StreamNotConfigured => "stream-not-configured",
            Self::Invalid => "invalid",
            Self::Forbidden => "forbidden",
            Self::TooLarge => "too-large",
            Self::NotWritten => "not-written",
            Self::Unknown => "unknown",
        }
    }

    pub fn fault(self) -> Fault {
        match self {
            Self::NotAnObject
            | Self::MissingStream
            | Self::StreamNotConfigured
            | Self::Invalid
            | Self::Forbidden
            | Self::TooLarge => Fault::Client,
            Self::NotWritten | Self::Unknown => Fault::Ours,
        }
    }

    pub fn kind(self) -> Kind {
        match self {
            Self::Invalid => Kind::Invalid,
            _ => Kind::Error,
        }
    }
}
