//! A record encoded for the wire: the body, made once per record and shared by every channel, and the frame, which is
//! one channel's head before it.
//!
//! On the wire (HTTP/1.1) a frame is one chunk that holds one whole event:
//!
//! ```text
//! 5be\r\n                                  head: chunk size   (left out for HTTP/1.0)
//! event: message\nid: [{…}]\n              head: the channel's
//! data: {…}\n\n                            body: the record's
//! \r\n                                     body: chunk end    (left out for HTTP/1.0)
//! ```
//!
//! As newline-delimited JSON the head is the chunk size alone, and the body the document and one line end.
//!
//! Head and body are slices, so that large bodies are shared by all channels. A small frame holds its own copy of the
//! body right behind the head: one `send` of 1.4 KB costs the kernel a fifth less than a `writev` of its two parts, and
//! that is paid once per reader, the copy once per channel.

use bytes::{Bytes, BytesMut};
use std::io::Write;
use std::time::Instant;

use super::ring::Point;
use crate::model::json::{self, Member};
use crate::model::{Bookmark, Format, Offset, Record, Timestamp, View};

const CHUNK_END: &[u8] = b"\r\n";
/// What stands around the document in an SSE body.
const DATA: &[u8] = b"data: ";
const DATA_END: &[u8] = b"\n\n\r\n";
/// The `meta.domain` of events that monitoring puts into a stream.
const CANARY_NAME: &str = "canary";
const CANARY: &str = "\"canary\"";
/// Bodies up to this size are copied behind their head.
const JOINED_BYTES_MAX: usize = 16 * 1024;

/// What follows a frame's head: `data: …`, the blank line, and the end of its HTTP chunk.
#[derive(Debug, Clone)]
pub struct Body {
    bytes: Bytes,
    canary: bool,
}

impl Body {
    /// Encodes a record's value, with `meta.topic`, `meta.partition`, `meta.offset` (and `meta.key` where there is a key)
    /// spliced in. `None` if the value is not a JSON object: such a record is skipped.
    pub(crate) fn encode(record: &Record) -> Option<Self> {
        let text = std::str::from_utf8(record.value.as_deref()?).ok()?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if !json::is_object(text) {
            return None;
        }
        let mut out = BytesMut::with_capacity(text.len() + 256);
        out.extend_from_slice(DATA);
        let canary = splice_meta(&mut out, text.trim(), record);
        out.extend_from_slice(DATA_END);
        Some(Self { bytes: out.freeze(), canary })
    }

    /// Whether somebody who reads in this way gets to see it.
    pub(super) fn is_shown(&self, view: View) -> bool {
        view.canaries || !self.canary
    }

    /// The body in this format, made of one that was encoded. A copy for who does not read SSE: they are few.
    pub(super) fn in_format(&self, format: Format) -> Self {
        match format {
            Format::Sse => self.clone(),
            Format::Ndjson => {
                let document = &self.bytes[DATA.len()..self.bytes.len() - DATA_END.len()];
                Self { bytes: [document, b"\n", CHUNK_END].concat().into(), canary: self.canary }
            }
        }
    }

    /// With the end of the chunk.
    pub fn chunked(&self) -> &[u8] {
        &self.bytes
    }

    /// Without it.
    pub fn raw(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - CHUNK_END.len()]
    }
}

/// `event:` and `id:`, behind the size of the chunk that they open.
#[derive(Debug)]
pub struct Head {
    bytes: Bytes,
    /// Where the chunk size ends.
    raw_from: usize,
}

impl Head {
    /// The head before `body`, a body in this format; it carries the bookmark as its id where the format has ids.
    pub(super) fn new(format: Format, bookmark: impl FnOnce() -> Bookmark, body: &Body) -> Self {
        match format {
            Format::Sse => {
                let id = id_of(&bookmark());
                Self::wrap(&[b"event: message\nid: ", id.as_slice(), b"\n"].concat(), body)
            }
            Format::Ndjson => Self::wrap(b"", body),
        }
    }

    /// The same head with a `retry:` line at its end.
    pub fn with_retry(&self, body: &Body, retry_ms: u64) -> Self {
        let mut raw = self.raw().to_vec();
        let _ = writeln!(raw, "retry: {retry_ms}");
        Self::wrap(&raw, body)
    }

    fn wrap(raw: &[u8], body: &Body) -> Self {
        let mut bytes = Vec::with_capacity(raw.len() + 8);
        let _ = write!(bytes, "{:x}\r\n", raw.len() + body.raw().len());
        let raw_from = bytes.len();
        bytes.extend_from_slice(raw);
        Self { bytes: bytes.into(), raw_from }
    }

    pub fn chunked(&self) -> &[u8] {
        &self.bytes
    }

    /// Without the size of the chunk.
    pub fn raw(&self) -> &[u8] {
        &self.bytes[self.raw_from..]
    }
}

/// One record in one channel's ring.
#[derive(Debug)]
pub struct Frame {
    pub(super) head: Head,
    pub(super) body: Body,
    /// Head and body in one piece, where they are.
    pub(super) joined: Option<Bytes>,
    /// The record's partition, as the channel numbers them.
    pub(super) slot: usize,
    pub(super) offset: Offset,
    pub(super) time: Timestamp,
    /// The channel's place after this frame, by slot: what `id` says.
    pub(super) places: Box<[Point]>,
    /// When the tail brought it.
    pub(super) arrived: Instant,
}

impl Frame {
    pub(super) fn new(
        head: Head,
        body: Body,
        (slot, offset, time): (usize, Offset, Timestamp),
        places: Box<[Point]>,
    ) -> Self {
        let arrived = Instant::now();
        if body.bytes.len() > JOINED_BYTES_MAX {
            return Self { head, body, joined: None, slot, offset, time, places, arrived };
        }
        let joined = Bytes::from([head.chunked(), body.chunked()].concat());
        let body_from = head.bytes.len();
        let head = Head { bytes: joined.slice(..body_from), raw_from: head.raw_from };
        let body = Body { bytes: joined.slice(body_from..), canary: body.canary };
        Self { head, body, joined: Some(joined), slot, offset, time, places, arrived }
    }

    /// What the frame weighs in the ring. The body counts in every channel, which errs on the safe side.
    pub(super) fn bytes(&self) -> usize {
        const OVERHEAD: usize = 176;
        OVERHEAD + self.head.bytes.len() + self.body.bytes.len() + size_of_val(&*self.places)
    }
}

/// The id line of a bookmark, as bytes.
pub(super) fn id_of(bookmark: &Bookmark) -> Vec<u8> {
    let mut id = Vec::with_capacity(256);
    bookmark.write_id(&mut id);
    id
}

/// Writes the object with the log's truth in its last `meta` that is an object; makes one if there is none. Says whether
/// it is a canary.
fn splice_meta(out: &mut BytesMut, object: &str, record: &Record) -> bool {
    match json::last_member(object, "meta").filter(|meta| meta.value.starts_with('{')) {
        Some(meta) => {
            push_clean(out, &object[..meta.value_range.start]);
            push_meta(out, meta.value, record);
            push_clean(out, &object[meta.value_range.end..]);
            json::last_member(meta.value, "domain").is_some_and(|domain| says_canary(domain.value))
        }
        None => {
            let inner = object[1..object.len() - 1].trim_end();
            out.extend_from_slice(b"{");
            push_clean(out, inner);
            out.extend_from_slice(if inner.trim().is_empty() { b"\"meta\":" } else { b",\"meta\":" });
            push_meta(out, "{}", record);
            out.extend_from_slice(b"}");
            false
        }
    }
}

fn says_canary(value: &str) -> bool {
    // Nearly always without an escape, and then it needs no reading.
    value == CANARY
        || (value.contains('\\') && serde_json::from_str(value).is_ok_and(|said: String| said == CANARY_NAME))
}

/// The members that the producer gave, less those that the log knows better, and then the log's.
fn push_meta(out: &mut BytesMut, meta: &str, record: &Record) {
    let ours = |member: &Member| {
        member.is("topic")
            || member.is("partition")
            || member.is("offset")
            || (record.key.is_some() && member.is("key"))
    };
    out.extend_from_slice(b"{");
    for member in json::members(meta).filter(|member| !ours(member)) {
        push_clean(out, &meta[member.range]);
        out.extend_from_slice(b",");
    }
    let partition = &record.partition;
    let place = format!(r#""topic":"{}","partition":{},"offset":{}"#, partition.topic, partition.index, record.offset);
    out.extend_from_slice(place.as_bytes());
    if let Some(key) = &record.key {
        out.extend_from_slice(b",\"key\":");
        push_key(out, key);
    }
    out.extend_from_slice(b"}");
}

/// A key that is JSON as JSON, any other as a string; bytes that are not UTF-8 become U+FFFD.
fn push_key(out: &mut BytesMut, key: &[u8]) {
    let text = String::from_utf8_lossy(key);
    match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Ok(_) => push_clean(out, text.trim()),
        Err(_) => push_clean(out, &serde_json::Value::from(text.as_ref()).to_string()),
    }
}

/// Copies JSON text so that it stays on one `data:` line in every client: line ends between tokens are dropped (inside
/// strings there are none), and the three code points that some clients take for line ends are written as escapes.
fn push_clean(out: &mut BytesMut, text: &str) {
    let bytes = text.as_bytes();
    let mut copied = 0;
    let mut at = 0;
    while at < bytes.len() {
        let (replaced, by): (usize, &[u8]) = match bytes[at] {
            b'\n' | b'\r' => (1, b""),
            0xc2 if bytes[at..].starts_with(&[0xc2, 0x85]) => (2, b"\\u0085"),
            0xe2 if bytes[at..].starts_with(&[0xe2, 0x80, 0xa8]) => (3, b"\\u2028"),
            0xe2 if bytes[at..].starts_with(&[0xe2, 0x80, 0xa9]) => (3, b"\\u2029"),
            _ => {
                at += 1;
                continue;
            }
        };
        out.extend_from_slice(&bytes[copied..at]);
        out.extend_from_slice(by);
        at += replaced;
        copied = at;
    }
    out.extend_from_slice(&bytes[copied..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Partition, Topic};

    fn record(value: &str, key: Option<&[u8]>) -> Record {
        Record {
            partition: Partition::new(&Topic::new("t"), 3),
            offset: Offset(7),
            time: Timestamp(0),
            key: key.map(Bytes::copy_from_slice),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
        }
    }

    fn encoded(value: &str, key: Option<&[u8]>) -> Option<String> {
        let body = Body::encode(&record(value, key))?;
        let text = std::str::from_utf8(body.raw()).expect("UTF-8");
        Some(text.strip_prefix("data: ").and_then(|text| text.strip_suffix("\n\n")).expect("a data line").to_owned())
    }

    const PLACE: &str = r#""topic":"t","partition":3,"offset":7"#;

    #[test]
    fn the_place_is_spliced_into_meta_and_nothing_else_changes() {
        let sent =
            r#"{"z":1e400,"meta":{"dt":"x","offset":"lie","b":{"topic":1}},"n":9007199254740993,"z":-0,"a":1.0}"#;
        let want = format!(
            r#"{{"z":1e400,"meta":{{"dt":"x","b":{{"topic":1}},{PLACE}}},"n":9007199254740993,"z":-0,"a":1.0}}"#
        );
        assert_eq!(encoded(sent, None), Some(want));
    }

    #[test]
    fn meta_is_made_where_absent_and_the_last_one_counts() {
        assert_eq!(encoded("{}", None), Some(format!(r#"{{"meta":{{{PLACE}}}}}"#)));
        assert_eq!(encoded(r#"{"a":1}"#, None), Some(format!(r#"{{"a":1,"meta":{{{PLACE}}}}}"#)));
        assert_eq!(encoded(r#"{"meta":5}"#, None), Some(format!(r#"{{"meta":5,"meta":{{{PLACE}}}}}"#)));
        let twice = r#"{"meta":{"topic":"a"},"m\u0065ta":{"t\u006fpic":"b","x":1}}"#;
        let want = format!(r#"{{"meta":{{"topic":"a"}},"m\u0065ta":{{"x":1,{PLACE}}}}}"#);
        assert_eq!(encoded(twice, None), Some(want));
    }

    #[test]
    fn a_key_is_json_where_it_is_json() {
        let with = |key: &[u8]| encoded("{}", Some(key)).expect("an object");
        assert!(with(br#"{"wiki":"x"}"#).contains(r#""offset":7,"key":{"wiki":"x"}}"#));
        assert!(with(b"plain\n").contains(r#""key":"plain\n""#));
        assert!(with(&[0xff]).contains("\"key\":\"\u{fffd}\""));
    }

    #[test]
    fn one_event_is_one_line_in_every_client() {
        let sent = "\u{feff} {\r\n \"a\" : \"x\u{2028}y\u{2029}z\u{85}é–\" }\n";
        let want = format!(r#"{{ "a" : "x\u2028y\u2029z\u0085é–","meta":{{{PLACE}}}}}"#);
        assert_eq!(encoded(sent, None), Some(want));
    }

    #[test]
    fn what_is_not_an_object_is_skipped() {
        for value in ["[1]", "null", "", "{", "{\"a\":}", "x"] {
            assert_eq!(encoded(value, None), None, "{value}");
        }
        let mut bad = record("{}", None);
        bad.value = Some(Bytes::from_static(&[b'{', b'"', 0xff, b'"', b':', b'1', b'}']));
        assert!(Body::encode(&bad).is_none());
        bad.value = None;
        assert!(Body::encode(&bad).is_none());
    }

    #[test]
    fn a_frame_is_one_chunk() {
        let body = Body::encode(&record("{}", None)).expect("an object");
        let head = Head::new(Format::Sse, Bookmark::default, &body);
        let size = usize::from_str_radix(&String::from_utf8_lossy(&head.chunked()[..2]), 16).expect("hex");
        assert_eq!(size, head.raw().len() + body.raw().len());
        let first = head.with_retry(&body, 3000);
        assert_eq!(first.raw(), b"event: message\nid: []\nretry: 3000\n");
        assert!(body.chunked().ends_with(b"\n\n\r\n"));
    }

    #[test]
    fn as_ndjson_a_frame_is_a_line_in_a_chunk_whatever_its_size() {
        for bytes in [1, 2 * JOINED_BYTES_MAX] {
            let sent = format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes));
            let body = Body::encode(&record(&sent, None)).expect("an object").in_format(Format::Ndjson);
            let head = Head::new(Format::Ndjson, || panic!("there are no ids"), &body);
            let frame = Frame::new(head, body, (0, Offset(7), Timestamp(0)), Box::default());
            let line = format!("{},\"meta\":{{{PLACE}}}}}\n", &sent[..sent.len() - 1]);
            let chunk = [frame.head.chunked(), frame.body.chunked()].concat();
            assert_eq!(String::from_utf8_lossy(&chunk), format!("{:x}\r\n{line}\r\n", line.len()));
            assert!(frame.joined.is_none_or(|joined| joined == chunk));
        }
    }

    #[test]
    fn a_canary_is_known_by_the_last_domain_of_the_last_meta() {
        let canary = |value: &str| !Body::encode(&record(value, None)).expect("an object").is_shown(View::default());
        assert!(canary(r#"{"meta":{"domain":"canary"}}"#));
        assert!(canary(r#"{"meta":{"domain":"x"},"meta":{"domain":"y", "d\u006fmain" : "canary" }}"#));
        assert!(canary(r#"{"meta":{"domain":"c\u0061nary"}}"#));
        assert!(!canary(r#"{"meta":{"domain":"canary\u0020"}}"#));
        assert!(!canary(r#"{"meta":{"domain":"canary","domain":"en.wikipedia.org"}}"#));
        assert!(!canary(r#"{"domain":"canary","meta":{"domain":["canary"],"x":{"domain":"canary"}}}"#));
        let all = View { canaries: true, ..View::default() };
        assert!(Body::encode(&record(r#"{"meta":{"domain":"canary"}}"#, None)).expect("one").is_shown(all));
    }
}
