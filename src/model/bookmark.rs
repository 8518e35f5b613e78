//! A reader's place in every partition of its set, and the text of the SSE `id` that carries it.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Offset, Partition, Timestamp, Topic};

/// Longest id that sluice writes: proxies answer 400 to request headers above about 8 KiB.
pub const ID_BYTES_MAX: usize = 4096;

/// Marks the compact form of an id, in which sets too large for the JSON form are written.
pub(super) const COMPACT_PREFIX: &str = "c1.";

/// A reader's place in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub partition: Partition,
    /// The next offset wanted.
    pub next: Offset,
    /// The time of the record before that offset in the log, where there is one.
    pub before: Option<Timestamp>,
}

/// The places of one reader, each partition once, sorted by partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bookmark {
    places: Vec<Place>,
}

impl Bookmark {
    /// Where a partition is given twice, the later one counts.
    pub fn new(places: impl IntoIterator<Item = Place>) -> Self {
        let mut bookmark = Self::default();
        for place in places {
            bookmark.set(place);
        }
        bookmark
    }

    pub fn places(&self) -> &[Place] {
        &self.places
    }

    pub fn get(&self, partition: &Partition) -> Option<&Place> {
        self.find(partition).ok().map(|at| &self.places[at])
    }

    pub fn set(&mut self, place: Place) {
        match self.find(&place.partition) {
            Ok(at) => self.places[at] = place,
            Err(at) => self.places.insert(at, place),
        }
    }

    /// Moves one partition on. `before` replaces the known time only if given: a move over a gap leaves it.
    pub fn advance(&mut self, partition: &Partition, next: Offset, before: Option<Timestamp>) {
        match self.find(partition) {
            Ok(at) => {
                let place = &mut self.places[at];
                place.next = next;
                place.before = before.or(place.before);
            }
            Err(at) => self.places.insert(at, Place { partition: partition.clone(), next, before }),
        }
    }

    /// The id: JSON where it fits into [`ID_BYTES_MAX`], else the compact form. ASCII, no line break.
    pub fn write_id(&self, out: &mut Vec<u8>) {
        let start = out.len();
        self.write_json(out);
        if out.len() - start > ID_BYTES_MAX {
            out.truncate(start);
            out.extend_from_slice(self.compact().as_bytes());
        }
    }

    /// Whether the id of this bookmark can be written at all within [`ID_BYTES_MAX`].
    pub fn has_an_id(&self) -> bool {
        let mut id = Vec::new();
        self.write_id(&mut id);
        id.len() <= ID_BYTES_MAX
    }

    fn find(&self, partition: &Partition) -> Result<usize, usize> {
        self.places.binary_search_by(|place| place.partition.cmp(partition))
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (at, place) in self.places.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            let Place { partition: Partition { topic, index }, next, .. } = place;
            // Topic names are letters, digits and . _ - (Kafka's rule, and the catalogue's): nothing to escape.
            let _ = write!(out, r#"{{"topic":"{topic}","partition":{index},"offset":{next}"#);
            if let Some(Timestamp(ms)) = place.before {
                let _ = write!(out, r#","timestamp":{ms}"#);
            }
            out.push(b'}');
        }
        out.push(b']');
    }

    /// `c1.` and, in base64url, per topic: the topic's hash, the number of its places, and per place three varints:
    /// partition, offset, and zigzag of the time less the newest time (0 = none, so shifted by one).
    fn compact(&self) -> String {
        let newest = self.places.iter().filter_map(|place| place.before).max().map_or(0, |time| time.0);
        let mut bytes = Vec::new();
        varint(&mut bytes, newest.unsigned_abs());
        for of_topic in self.places.chunk_by(|a, b| a.partition.topic == b.partition.topic) {
            bytes.extend_from_slice(&topic_hash(&of_topic[0].partition.topic).to_le_bytes());
            varint(&mut bytes, of_topic.len() as u64);
            for place in of_topic {
                varint(&mut bytes, u64::from(place.partition.index.unsigned_abs()));
                varint(&mut bytes, place.next.0.unsigned_abs());
                varint(&mut bytes, place.before.map_or(0, |time| (newest - time.0).unsigned_abs() + 1));
            }
        }
        format!("{COMPACT_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// FNV-1a, 64 bits: stable over versions and servers, which std's hasher does not promise.
pub(super) fn topic_hash(topic: &Topic) -> u64 {
    topic
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// LEB128.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}
