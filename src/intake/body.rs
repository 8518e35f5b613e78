//! A request's body, split into events. Nothing is re-written: an event is a slice of what was sent.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::{Malformed, json};

/// Events of one request. A body of the largest size could hold a hundred times as many that are nothing, and the
/// answer has an item for each of them.
const EVENTS_MAX: usize = 100_000;

/// Why a body is no batch of events. The client's fault, but for the last.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("Request body was empty. Must provide JSON encoded events.")]
    Empty,
    #[error("The body is not UTF-8: byte {at} does not belong there.")]
    NotUtf8 { at: usize },
    #[error("The body is not JSON: {message}, at line {line}, column {column}.")]
    NotJson { message: String, line: usize, column: usize },
    #[error("The body must be one JSON object or an array of them.")]
    NotEvents,
    #[error("The body is nested deeper than {0} levels.")]
    TooDeep(usize),
    #[error("The body has more than {0} events.")]
    TooMany(usize),
    #[error("Too many events are waiting for the log.")]
    Overloaded,
}

/// The events of a body, which may be nested this deep each: its elements if it is an array, else itself.
pub(super) fn split(body: &Bytes, depth_max: usize) -> Result<Vec<Bytes>, BodyError> {
    let text = std::str::from_utf8(body).map_err(|e| BodyError::NotUtf8 { at: e.valid_up_to() })?;
    // Not without the white space in front: line and column are those of what was sent.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // Before the text is parsed, so that the parser is not asked to go there.
    Nesting::new(depth_max).take(text.as_bytes())?;
    let first = text.bytes().find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    let slice = |raw: &RawValue| body.slice_ref(raw.get().as_bytes());
    let events: Vec<&RawValue> = match first {
        None => return Err(BodyError::Empty),
        Some(b'[') => parse(text)?,
        Some(b'{') => vec![parse(text)?],
        _ => return Err(parse::<&RawValue>(text).err().unwrap_or(BodyError::NotEvents)),
    };
    match events.as_slice() {
        [] => Err(BodyError::Empty),
        // EventGate's way: `[{}]` is a batch.
        [alone] if first == Some(b'{') && json::members(alone.get()).next().is_none() => Err(BodyError::Empty),
        many if many.len() > EVENTS_MAX => Err(BodyError::TooMany(EVENTS_MAX)),
        events => Ok(events.iter().map(|event| slice(event)).collect()),
    }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, BodyError> {
    serde_json::from_str(text).map_err(|error| not_json(&error))
}

fn not_json(error: &serde_json::Error) -> BodyError {
    let Malformed { message, line, column } = error.into();
    BodyError::NotJson { message, line, column }
}

/// How deep a text goes, whatever pieces it comes in. The array around a batch does not count.
#[derive(Debug)]
pub struct Nesting {
    depth_max: usize,
    depth: usize,
    in_batch: bool,
    begun: bool,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    pub fn new(depth_max: usize) -> Self {
        Self { depth_max, depth: 0, in_batch: false, begun: false, in_string: false, escaped: false }
    }

    /// The next piece. `Err`: too deep, whatever may follow.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), BodyError> {
        let mut rest = piece;
        while let Some((&byte, behind)) = rest.split_first() {
            rest = behind;
            if self.escaped {
                self.escaped = false;
            } else if self.in_string {
                match byte {
                    b'"' => self.in_string = false,
                    b'\\' => self.escaped = true,
                    // Most of a body is text, of which only its end matters.
                    _ => rest = &rest[memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len())..],
                }
            } else {
                self.take_outside(byte)?;
            }
        }
        Ok(())
    }

    fn take_outside(&mut self, byte: u8) -> Result<(), BodyError> {
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => {
                self.in_batch |= byte == b'[' && !self.begun;
                self.depth += 1;
                if self.depth > self.depth_max + usize::from(self.in_batch) {
                    return Err(BodyError::TooDeep(self.depth_max));
                }
            }
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b' ' | b'\t' | b'\n' | b'\r' | 0xef | 0xbb | 0xbf => return Ok(()),
            _ => {}
        }
        self.begun = true;
        Ok(())
    }
}
