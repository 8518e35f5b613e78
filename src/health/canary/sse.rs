//! Server-Sent Events as a reader reads them: lines, fields, and an event at each empty line.

use std::collections::VecDeque;

use memchr::memchr;

/// Bytes of an event. A canary has some hundreds.
const EVENT_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: Option<String>,
    pub(super) data: String,
}

/// What has come of a stream. Lines end with a line feed, as sluice writes them.
#[derive(Default)]
pub(super) struct Events {
    line: Vec<u8>,
    id: Option<String>,
    data: Option<String>,
    whole: VecDeque<Event>,
    comments: u64,
}

/// An event, or a line, is too long to be any of a canary's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event has more than {EVENT_BYTES_MAX} bytes")]
pub(super) struct TooLong;

impl Events {
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), TooLong> {
        while let Some(end) = memchr(b'\n', bytes) {
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.take_line();
            self.check()?;
        }
        self.line.extend_from_slice(bytes);
        self.check()
    }

    pub(super) fn next(&mut self) -> Option<Event> {
        self.whole.pop_front()
    }

    /// Whether the stream has said anything yet: sluice opens it with a comment.
    pub(super) fn has_begun(&self) -> bool {
        self.comments > 0
    }

    fn take_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            _ if line.is_empty() => {
                let (id, data) = (self.id.take(), self.data.take());
                self.whole.extend(data.map(|data| Event { id, data }));
            }
            "" => self.comments += 1,
            "id" => self.id = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                none => *none = Some(value.to_owned()),
            },
            _ => {}
        }
    }

    fn check(&self) -> Result<(), TooLong> {
        let bytes = self.line.len() + self.data.as_ref().map_or(0, String::len);
        if bytes > EVENT_BYTES_MAX { Err(TooLong) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        ":ok\n\nevent: message\nid: [1]\nretry: 5\ndata: {\"a\":\ndata:1}\n\n:\n\nid: [2]\n\ndata: b\n\n";

    fn all(events: &mut Events) -> Vec<Event> {
        std::iter::from_fn(|| events.next()).collect()
    }

    #[test]
    fn events_are_the_same_wherever_the_stream_is_cut() {
        let event = |id: Option<&str>, data: &str| Event { id: id.map(str::to_owned), data: data.to_owned() };
        let expected = [event(Some("[1]"), "{\"a\":\n1}"), event(None, "b")];
        for cut in 0..=STREAM.len() {
            let mut events = Events::default();
            for piece in [&STREAM[..cut], &STREAM[cut..]] {
                events.push(piece.as_bytes()).expect("short events");
            }
            assert!(events.has_begun());
            assert_eq!(all(&mut events), expected, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_whole_is_no_event_and_nothing_grows_without_end() {
        let mut events = Events::default();
        events.push(b"data: a").expect("short");
        assert!(events.next().is_none() && !events.has_begun());
        let long = "a".repeat(EVENT_BYTES_MAX);
        assert_eq!(events.push(long.as_bytes()), Err(TooLong));
        let lines = "data: 0123456789\n".repeat(EVENT_BYTES_MAX / 10);
        assert_eq!(Events::default().push(lines.as_bytes()), Err(TooLong));
    }
}
