//! The bytes of a stream around its frames: greeting, comments, positions, farewell, with or without HTTP chunks, as
//! Server-Sent Events or as newline-delimited JSON.

use std::io::{IoSlice, Write};

use crate::hub::Delivery;
use crate::model::Format;

/// The first bytes of every stream.
const OPENING: &[u8] = b":ok\n\n";
/// Alone on a line, without a blank line after it: some clients make an empty event of a blank line.
const HEARTBEAT: &[u8] = b":\n";
/// Of newline-delimited JSON, which has no comments: what opens it, and what says that it is still there.
const BLANK_LINE: &[u8] = b"\n";

/// How the body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// HTTP/1.1: one whole event per chunk.
    Chunked,
    /// HTTP/1.0: until the connection closes.
    Raw,
}

/// What one reader's bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wire {
    pub(super) format: Format,
    pub(super) framing: Framing,
}

impl Wire {
    pub(super) fn opening(self) -> Vec<u8> {
        match self.format {
            Format::Sse => self.wrap(OPENING),
            Format::Ndjson => self.wrap(BLANK_LINE),
        }
    }

    pub(super) fn heartbeat(self) -> Vec<u8> {
        match self.format {
            Format::Sse => self.wrap(HEARTBEAT),
            Format::Ndjson => self.wrap(BLANK_LINE),
        }
    }

    /// A comment line that belongs to no block. The text has no line break. Nothing where there are no comments.
    pub(super) fn comment(self, text: &str) -> Vec<u8> {
        match self.format {
            Format::Sse => self.wrap(format!(": {text}\n").as_bytes()),
            Format::Ndjson => Vec::new(),
        }
    }

    /// A block that moves the reader's place and brings no event. Only for who is known to take it so.
    pub(super) fn position(self, id: &[u8]) -> Vec<u8> {
        match self.format {
            Format::Sse => self.wrap(&[b"id: ", id, b"\n\n"].concat()),
            Format::Ndjson => Vec::new(),
        }
    }

    /// Asks for patience and ends the body.
    pub(super) fn farewell(self, retry_ms: u64) -> Vec<u8> {
        let mut bytes = match self.format {
            Format::Sse => self.wrap(format!("retry: {retry_ms}\n").as_bytes()),
            Format::Ndjson => Vec::new(),
        };
        if self.framing == Framing::Chunked {
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        bytes
    }

    /// The first event of a stream carries `retry:`, inside its block: elsewhere some clients do not see it.
    pub(super) fn first_event(self, delivery: &Delivery, retry_ms: u64) -> Vec<u8> {
        let with_retry;
        let head = match self.format {
            Format::Ndjson => delivery.head(),
            Format::Sse => {
                with_retry = delivery.head().with_retry(delivery.body(), retry_ms);
                &with_retry
            }
        };
        match self.framing {
            Framing::Chunked => [head.chunked(), delivery.body().chunked()].concat(),
            Framing::Raw => [head.raw(), delivery.body().raw()].concat(),
        }
    }

    /// The whole event in one piece, where it is.
    pub(super) fn joined(self, delivery: &Delivery) -> Option<&[u8]> {
        match self.framing {
            Framing::Chunked => delivery.joined(),
            Framing::Raw => None,
        }
    }

    /// The two slices of an event, for a vectored write.
    pub(super) fn slices(self, delivery: &Delivery) -> [IoSlice<'_>; 2] {
        let (head, body) = (delivery.head(), delivery.body());
        match self.framing {
            Framing::Chunked => [IoSlice::new(head.chunked()), IoSlice::new(body.chunked())],
            Framing::Raw => [IoSlice::new(head.raw()), IoSlice::new(body.raw())],
        }
    }

    /// `text` is not empty: an empty chunk would be the last.
    fn wrap(self, text: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(text.len() + 8);
        match self.framing {
            Framing::Raw => bytes.extend_from_slice(text),
            Framing::Chunked => {
                let _ = write!(bytes, "{:x}\r\n", text.len());
                bytes.extend_from_slice(text);
                bytes.extend_from_slice(b"\r\n");
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSE: Wire = Wire { format: Format::Sse, framing: Framing::Chunked };
    const SSE_RAW: Wire = Wire { format: Format::Sse, framing: Framing::Raw };
    const NDJSON: Wire = Wire { format: Format::Ndjson, framing: Framing::Chunked };

    #[test]
    fn every_piece_is_a_chunk_of_its_own_or_bare() {
        assert_eq!(SSE.opening(), b"5\r\n:ok\n\n\r\n");
        assert_eq!(SSE_RAW.opening(), b":ok\n\n");
        assert_eq!(SSE.heartbeat(), b"2\r\n:\n\r\n");
        assert_eq!(SSE.farewell(3000), b"c\r\nretry: 3000\n\r\n0\r\n\r\n");
        assert_eq!(SSE_RAW.farewell(3000), b"retry: 3000\n");
        assert_eq!(SSE_RAW.comment("x"), b": x\n");
        assert_eq!(SSE_RAW.position(b"[]"), b"id: []\n\n");
    }

    #[test]
    fn ndjson_has_blank_lines_and_no_word_of_ours() {
        assert_eq!(NDJSON.opening(), b"1\r\n\n\r\n");
        assert_eq!(NDJSON.heartbeat(), b"1\r\n\n\r\n");
        assert_eq!(NDJSON.farewell(3000), b"0\r\n\r\n");
        assert_eq!([NDJSON.comment("x"), NDJSON.position(b"[]")], [b"", b""]);
    }
}
