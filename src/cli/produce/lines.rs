//! Chunks of bytes into events, a line each. Pure.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of a line. What is longer is refused without being held.
pub(super) const LINE_BYTES_MAX: usize = 16 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A line that was not sent yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Its line's number, from 1.
    pub(super) line: u64,
    /// As it was written.
    pub(super) json: Bytes,
    /// Whether it was sent, and nobody knows what became of it.
    pub(super) unsure: bool,
}

/// Why a line is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineError {
    #[error("the line has more than 16 MiB")]
    TooLong,
    #[error("the line is not UTF-8")]
    NotUtf8,
    #[error("the line is not JSON: {0}")]
    NotJson(String),
    #[error("the line is JSON, and no object")]
    NotObject,
}

impl LineError {
    /// The words that the server has for the same.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::TooLong => "too-large",
            Self::NotUtf8 | Self::NotJson(_) => "malformed-json",
            Self::NotObject => "not-an-object",
        }
    }
}

/// A line's number, and what stands in it.
pub(super) type Line = (u64, Result<Event, LineError>);

/// Cuts chunks at line ends. Holds at most one line that is not whole, and the chunks that it was given.
#[derive(Debug, Default)]
pub(super) struct Lines {
    chunks: VecDeque<Bytes>,
    /// The beginning of a line whose end has not come.
    begun: BytesMut,
    /// Whether the line that has begun is too long.
    too_long: bool,
    number: u64,
}

impl Lines {
    pub(super) fn push(&mut self, chunk: Bytes) {
        self.chunks.push_back(chunk);
    }

    /// The next whole line that is not blank.
    pub(super) fn next(&mut self) -> Option<Line> {
        while let Some(chunk) = self.chunks.front_mut() {
            let Some(end) = memchr::memchr(b'\n', chunk) else {
                let rest = self.chunks.pop_front().unwrap_or_default();
                self.begin(&rest);
                continue;
            };
            let end_of_line = chunk.split_to(end);
            chunk.advance(1);
            if let Some(line) = self.complete(end_of_line) {
                return Some(line);
            }
        }
        None
    }

    /// The last line, where no line break ends it. To be asked when the input has ended and `next` has no more.
    pub(super) fn last(&mut self) -> Option<Line> {
        if self.begun.is_empty() && !self.too_long { None } else { self.complete(Bytes::new()) }
    }

    fn begin(&mut self, part: &[u8]) {
        self.too_long |= self.begun.len() + part.len() > LINE_BYTES_MAX;
        if self.too_long {
            self.begun = BytesMut::new();
        } else {
            self.begun.extend_from_slice(part);
        }
    }

    fn complete(&mut self, end: Bytes) -> Option<Line> {
        self.number += 1;
        let line = if self.begun.is_empty() && !self.too_long && end.len() <= LINE_BYTES_MAX {
            end
        } else {
            self.begin(&end);
            std::mem::take(&mut self.begun).freeze()
        };
        if std::mem::take(&mut self.too_long) {
            return Some((self.number, Err(LineError::TooLong)));
        }
        let mut text: &[u8] = &line;
        if self.number == 1 {
            text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        }
        let text = text.trim_ascii();
        let json = || Event { line: self.number, json: line.slice_ref(text), unsure: false };
        (!text.is_empty()).then(|| (self.number, check(text).map(|()| json())))
    }
}

/// What would spoil the whole batch that it is sent in.
fn check(text: &[u8]) -> Result<(), LineError> {
    let text = std::str::from_utf8(text).map_err(|_| LineError::NotUtf8)?;
    let not_json = |e: serde_json::Error| {
        let at = format!(" at line {} column {}", e.line(), e.column());
        LineError::NotJson(format!("{} at column {}", e.to_string().trim_end_matches(&at), e.column()))
    };
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(not_json)?;
    if text.starts_with('{') { Ok(()) } else { Err(LineError::NotObject) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(chunks: &[&[u8]]) -> Vec<(u64, Result<String, LineError>)> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for chunk in chunks {
            lines.push(Bytes::copy_from_slice(chunk));
            found.extend(std::iter::from_fn(|| lines.next()));
        }
        found.extend(lines.last());
        assert_eq!(lines.last(), None);
        let text = |event: Event| String::from_utf8(event.json.to_vec()).expect("UTF-8");
        found.into_iter().map(|(number, read)| (number, read.map(text))).collect()
    }

    #[test]
    fn lines_are_the_same_wherever_the_chunks_are_cut() {
        let text = "\u{feff} {\"a\": 1e400 }\r\n\n  \n{\"b\":\"\u{00e9}\"}\n{\"c\":[]}".as_bytes();
        let expected: Vec<(u64, Result<String, LineError>)> = vec![
            (1, Ok("{\"a\": 1e400 }".into())),
            (4, Ok("{\"b\":\"\u{00e9}\"}".into())),
            (5, Ok("{\"c\":[]}".into())),
        ];
        assert_eq!(all(&[text]), expected);
        for at in 0..text.len() {
            assert_eq!(all(&[&text[..at], &text[at..]]), expected, "cut at {at}");
        }
        assert_eq!(all(&text.chunks(1).collect::<Vec<_>>()), expected);
        assert_eq!(all(&[b"{}\n"]), [(1, Ok("{}".into()))]);
    }

    #[test]
    fn lines_that_are_no_events_are_named_and_spoil_nothing() {
        let lines = all(&[b"{}\n[]\n7\n{\"a\":}\n{\"a\":1} {}\n\xff\n{\"b\":2}\n"]);
        let codes: Vec<_> =
            lines.iter().map(|(number, read)| (*number, read.as_ref().map_err(LineError::code))).collect();
        let (first, last) = ("{}".to_owned(), "{\"b\":2}".to_owned());
        let expected = [
            (1, Ok(&first)),
            (2, Err("not-an-object")),
            (3, Err("not-an-object")),
            (4, Err("malformed-json")),
            (5, Err("malformed-json")),
            (6, Err("malformed-json")),
            (7, Ok(&last)),
        ];
        assert_eq!(codes, expected);
        let why = lines[3].1.clone().expect_err("no JSON").to_string();
        assert_eq!(why, "the line is not JSON: expected value at column 6");
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_and_not_held() {
        let mut lines = Lines::default();
        let part = Bytes::from(vec![b'x'; 1 << 20]);
        for _ in 0..40 {
            lines.push(part.clone());
            assert_eq!(lines.next(), None);
            assert!(lines.begun.capacity() <= 2 * LINE_BYTES_MAX);
        }
        assert_eq!(lines.begun.len(), 0);
        lines.push(Bytes::from_static(b"\n{}\n"));
        assert_eq!(lines.next(), Some((1, Err(LineError::TooLong))));
        assert!(matches!(lines.next(), Some((2, Ok(_)))));
        let most = [b"{\"a\":\"".as_slice(), &vec![b'x'; LINE_BYTES_MAX - 8], b"\"}"].concat();
        assert!(matches!(all(&[&most, b"\n"]).as_slice(), [(1, Ok(_))]));
    }
}
