//! What became of an event, and why.

use bytes::Bytes;

use crate::schema::Violation;

/// What became of one event.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// In the log: acknowledged. (Of a hasty request: received. Of a dry run: valid.)
    Accepted,
    /// On disk here, and sent on when the log is back.
    Spooled,
    Refused(Refusal),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The event's place in the request, from 0.
    pub index: usize,
    pub code: Code,
    pub message: String,
    /// What its schema says against it, where that is the reason.
    pub violations: Vec<Violation>,
    /// The event as far as it was processed: as it was sent, or with what was filled in.
    pub event: Bytes,
}

/// Why an event was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Malformed,
    NotAnObject,
    /// A field that says where the event belongs is no text.
    BadField,
    MissingSchema,
    BadSchemaUri,
    MissingStream,
    /// The producer's token does not cover the stream.
    Forbidden,
    TooLarge,
    StreamNotConfigured,
    StreamWithoutSettings,
    StreamWithoutTitle,
    /// Not the title that the stream's schemas have.
    SchemaTitle,
    SchemaUnknown,
    /// It is there, and no event can be judged by it.
    SchemaRefused,
    /// Refused by its schema.
    Invalid,
    MissingKeyField,
    /// Whether there is such a stream cannot be said now.
    ConfigUnavailable,
    SchemaUnavailable,
    /// Not in the log, and never will be.
    NotWritten,
    /// Not in the log, which will not take it until an operator has done something.
    LogRefused,
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
            Self::Malformed => "malformed",
            Self::NotAnObject => "not-an-object",
            Self::BadField => "bad-field",
            Self::MissingSchema => "missing-schema",
            Self::BadSchemaUri => "bad-schema-uri",
            Self::MissingStream => "missing-stream",
            Self::Forbidden => "forbidden",
            Self::TooLarge => "too-large",
            Self::StreamNotConfigured => "stream-not-configured",
            Self::StreamWithoutSettings => "stream-without-settings",
            Self::StreamWithoutTitle => "stream-without-schema-title",
            Self::SchemaTitle => "schema-title",
            Self::SchemaUnknown => "schema-unknown",
            Self::SchemaRefused => "schema-refused",
            Self::Invalid => "invalid",
            Self::MissingKeyField => "missing-key-field",
            Self::ConfigUnavailable => "config-unavailable",
            Self::SchemaUnavailable => "schema-unavailable",
            Self::NotWritten => "not-written",
            Self::LogRefused => "log-refused",
            Self::Unknown => "unknown",
        }
    }

    pub fn fault(self) -> Fault {
        match self {
            Self::ConfigUnavailable | Self::SchemaUnavailable | Self::NotWritten | Self::LogRefused | Self::Unknown => {
                Fault::Ours
            }
            _ => Fault::Client,
        }
    }

    pub fn kind(self) -> Kind {
        if self == Self::Invalid { Kind::Invalid } else { Kind::Error }
    }
}
