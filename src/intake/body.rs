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
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim();
    if text.is_empty() {
        return Err(BodyError::Empty);
    }
    if depth(text) > depth_max + usize::from(text.starts_with('[')) {
        return Err(BodyError::TooDeep(depth_max));
    }
    let slice = |raw: &RawValue| body.slice_ref(raw.get().as_bytes());
    let events: Vec<&RawValue> = match text.as_bytes().first() {
        Some(b'[') => parse(text)?,
        Some(b'{') => vec![parse(text)?],
        _ => return Err(parse::<&RawValue>(text).err().unwrap_or(BodyError::NotEvents)),
    };
    match events.as_slice() {
        [] => Err(BodyError::Empty),
        // EventGate's way: `[{}]` is a batch.
        [alone] if text.starts_with('{') && json::members(alone.get()).next().is_none() => Err(BodyError::Empty),
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

/// The deepest nesting of objects and arrays. Before the text is parsed, so that the parser is not asked to go there.
fn depth(text: &str) -> usize {
    let (mut deepest, mut depth, mut in_string, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
