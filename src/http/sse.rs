//! The bytes of a stream around its frames: greeting, comments, farewell, with or without HTTP chunks.

use std::io::{IoSlice, Write};

use crate::hub::Delivery;

/// The first bytes of every stream.
const OPENING: &[u8] = b":ok\n\n";
/// Alone on a line, without a blank line after it: some clients make an empty event of a blank line.
const HEARTBEAT: &[u8] = b":\n";

/// How the body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// HTTP/1.1: one whole event per chunk.
    Chunked,
    /// HTTP/1.0: until the connection closes.
    Raw,
}

impl Framing {
    pub(super) fn opening(self) -> Vec<u8> {
        self.wrap(OPENING)
    }

    pub(super) fn heartbeat(self) -> Vec<u8> {
        self.wrap(HEARTBEAT)
    }

    /// A comment line that belongs to no block. The text has no line break.
    pub(super) fn comment(self, text: &str) -> Vec<u8> {
        self.wrap(format!(": {text}\n").as_bytes())
    }

    /// Asks for patience and ends the body.
    pub(super) fn farewell(self, retry_ms: u64) -> Vec<u8> {
        let mut bytes = self.wrap(format!("retry: {retry_ms}\n").as_bytes());
        if self == Self::Chunked {
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        bytes
    }

    /// The first event of a stream carries `retry:`, inside its block: elsewhere some clients do not see it.
    pub(super) fn first_event(self, delivery: &Delivery, retry_ms: u64) -> Vec<u8> {
        let head = delivery.head().with_retry(delivery.body(), retry_ms);
        match self {
            Self::Chunked => [head.chunked(), delivery.body().chunked()].concat(),
            Self::Raw => [head.sse(), delivery.body().sse()].concat(),
        }
    }

    /// The whole event in one piece, where it is.
    pub(super) fn joined(self, delivery: &Delivery) -> Option<&[u8]> {
        match self {
            Self::Chunked => delivery.joined(),
            Self::Raw => None,
        }
    }

    /// The two slices of an event, for a vectored write.
    pub(super) fn slices(self, delivery: &Delivery) -> [IoSlice<'_>; 2] {
        let (head, body) = (delivery.head(), delivery.body());
        match self {
            Self::Chunked => [IoSlice::new(head.chunked()), IoSlice::new(body.chunked())],
            Self::Raw => [IoSlice::new(head.sse()), IoSlice::new(body.sse())],
        }
    }

    fn wrap(self, text: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(text.len() + 8);
        match self {
            Self::Raw => bytes.extend_from_slice(text),
            Self::Chunked => {
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

    #[test]
    fn every_piece_is_a_chunk_of_its_own_or_bare() {
        assert_eq!(Framing::Chunked.opening(), b"5\r\n:ok\n\n\r\n");
        assert_eq!(Framing::Raw.opening(), b":ok\n\n");
        assert_eq!(Framing::Chunked.heartbeat(), b"2\r\n:\n\r\n");
        assert_eq!(Framing::Chunked.farewell(3000), b"c\r\nretry: 3000\n\r\n0\r\n\r\n");
        assert_eq!(Framing::Raw.farewell(3000), b"retry: 3000\n");
        assert_eq!(Framing::Raw.comment("x"), b": x\n");
    }
}
