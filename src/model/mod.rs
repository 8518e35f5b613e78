//! The words of the project as types: what can be wrong with them is refused when they are made, and nowhere else.
//!
//! - `position` topic, partition, offset, timestamp
//! - `bookmark` a reader's place in every partition of its set, and the `id:` line that carries it
//! - `client_id` the places a reader asks for: every shape of `Last-Event-ID`
//! - `since` the times a reader asks for
//! - `record` an event in the log
//! - `stream` stream names and stream sets
//! - `client` who is asking
//! - `document` an event's text and value, with what is added to it spliced in
//! - `json` the members of a JSON object, byte for byte
//! - `nearest` the names that somebody may have meant
//! - `printable` strangers' text for a terminal
//! - `units` durations, sizes and lists as config writes them
//!
//! Knows no I/O, no async, no configuration.

mod bookmark;
mod client;
mod client_id;
mod document;
pub mod json;
mod nearest;
mod position;
mod printable;
mod record;
mod since;
mod stream;
pub mod units;

pub use bookmark::{Bookmark, ID_BYTES_MAX, Place};
pub use client::ClientKey;
pub use client_id::{AskedPlace, ClientId, IdError, Mark};
pub use document::{Document, Malformed, Step, steps_of};
pub use nearest::nearest;
pub use position::{Offset, Partition, Timestamp, Topic};
pub use printable::{printable, printable_char};
pub use record::{NewRecord, Record};
pub use since::{SinceError, parse_since};
pub use stream::{CANARY, Format, NameError, StreamName, StreamSet, View, parse_stream_names};
