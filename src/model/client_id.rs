//! The places that a reader asks for: every shape of `Last-Event-ID` that sluice or EventStreams has sent.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::bookmark::{COMPACT_PREFIX, topic_hash};
use super::{Offset, Partition, Timestamp, Topic};

/// Longest id that is read. sluice writes at most half of it; an old EventStreams id of all public streams has 4 KB.
const ID_BYTES_READ_MAX: usize = 8192;

/// What an id says of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The next offset wanted, and the time of the record before it.
    At { next: Offset, before: Option<Timestamp> },
    /// EventStreams' form: the time of the last record seen, plus one.
    AfterTime(Timestamp),
    /// EventStreams' `-1`: nothing had been seen of it.
    Live,
    /// EventStreams' `-2`.
    Oldest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedPlace {
    pub partition: Partition,
    pub mark: Mark,
}

/// A parsed id: well-formed, at least one entry, no partition twice. Whether its topics belong to the reader's set
/// is not known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientId {
    places: Vec<AskedPlace>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("the id has {0} bytes, and at most {ID_BYTES_READ_MAX} are read")]
    TooLong(usize),
    #[error("the id is not what a stream has sent: {0}")]
    Malformed(String),
    #[error("the id names no partition")]
    Empty,
    #[error("the id names {0} twice")]
    Twice(Partition),
}

impl ClientId {
    /// `topics` are those whose hashes the compact form may hold.
    pub fn parse<'a>(text: &str, topics: impl IntoIterator<Item = &'a Topic>) -> Result<Self, IdError> {
        if text.len() > ID_BYTES_READ_MAX {
            return Err(IdError::TooLong(text.len()));
        }
        let places = match text.trim().strip_prefix(COMPACT_PREFIX) {
            Some(compact) => read_compact(compact, &Vec::from_iter(topics))
                .ok_or_else(|| malformed("the compact form is damaged"))?,
            None => read_json(text)?,
        };
        if places.is_empty() {
            return Err(IdError::Empty);
        }
        let mut seen: Vec<&Partition> = places.iter().map(|place| &place.partition).collect();
        seen.sort_unstable();
        if let Some(pair) = seen.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(IdError::Twice(pair[0].clone()));
        }
        Ok(Self { places })
    }

    pub fn places(&self) -> &[AskedPlace] {
        &self.places
    }

    /// The newest time that the id mentions.
    pub fn newest(&self) -> Option<Timestamp> {
        self.places
            .iter()
            .filter_map(|place| match place.mark {
                Mark::At { before, .. } => before,
                Mark::AfterTime(time) => Some(time.minus_ms(1)),
                Mark::Live | Mark::Oldest => None,
            })
            .max()
    }
}

fn malformed(what: impl Into<String>) -> IdError {
    IdError::Malformed(what.into())
}

fn read_json(text: &str) -> Result<Vec<AskedPlace>, IdError> {
    let value: Value = serde_json::from_str(text).map_err(|e| malformed(format!("not JSON ({e})")))?;
    let Value::Array(entries) = value else {
        return Err(malformed("not a JSON array of {topic, partition, offset, timestamp}"));
    };
    entries.iter().map(read_entry).collect()
}

fn read_entry(entry: &Value) -> Result<AskedPlace, IdError> {
    let Value::Object(fields) = entry else { return Err(malformed("an entry is not an object")) };
    let Some(Value::String(topic)) = fields.get("topic") else { return Err(malformed("an entry has no topic")) };
    let index = whole(fields.get("partition"), "partition")?.ok_or_else(|| malformed("an entry has no partition"))?;
    let index = i32::try_from(index).ok().filter(|index| *index >= 0);
    let index = index.ok_or_else(|| malformed("a partition is not between 0 and 2147483647"))?;
    let offset = whole(fields.get("offset"), "offset")?;
    let time = whole(fields.get("timestamp"), "timestamp")?;
    if time.is_some_and(|time| time < 0) {
        return Err(malformed("a timestamp is negative"));
    }
    let mark = match (offset, time.map(Timestamp)) {
        (Some(next @ 0..), before) => Mark::At { next: Offset(next), before },
        (None | Some(-1), Some(time)) => Mark::AfterTime(time),
        (Some(-1), None) => Mark::Live,
        (Some(-2), _) => Mark::Oldest,
        (Some(other), _) => return Err(malformed(format!("an offset is {other}"))),
        (None, None) => return Err(malformed("an entry has neither offset nor timestamp")),
    };
    Ok(AskedPlace { partition: Partition::new(&Topic::new(topic), index), mark })
}

/// A whole number of 64 bits. `null` counts as absent.
fn whole(value: Option<&Value>, name: &str) -> Result<Option<i64>, IdError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            value.as_i64().map(Some).ok_or_else(|| malformed(format!("{name} is not a whole number of 64 bits")))
        }
    }
}

/// Entries of topics that are not among `topics` cannot be named; they get their hash as a name, so that the
/// notice can still mention them.
fn read_compact(text: &str, topics: &[&Topic]) -> Option<Vec<AskedPlace>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let mut rest = bytes.as_slice();
    let newest = i64::try_from(varint(&mut rest)?).ok()?;
    let mut places = Vec::new();
    while !rest.is_empty() {
        let hash = u64::from_le_bytes(*rest.split_first_chunk::<8>().map(|(hash, tail)| (rest = tail, hash).1)?);
        let known = topics.iter().find(|topic| topic_hash(topic) == hash);
        let topic = known.map_or_else(|| Topic::new(&format!("topic-{hash:016x}")), |known| (*known).clone());
        for _ in 0..varint(&mut rest)? {
            let index = i32::try_from(varint(&mut rest)?).ok()?;
            let next = Offset(i64::try_from(varint(&mut rest)?).ok()?);
            let age = i64::try_from(varint(&mut rest)?).ok()?;
            let before = match age {
                0 => None,
                // As in the JSON form, no time is negative.
                age => Some(Timestamp(newest.checked_sub(age - 1).filter(|time| *time >= 0)?)),
            };
            places.push(AskedPlace { partition: Partition::new(&topic, index), mark: Mark::At { next, before } });
        }
    }
    Some(places)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Bookmark, ID_BYTES_MAX, Place};

    fn parse(text: &str) -> Result<Vec<Mark>, IdError> {
        ClientId::parse(text, &[]).map(|id| id.places.into_iter().map(|place| place.mark).collect())
    }

    #[test]
    fn every_shape_that_was_ever_sent_is_read() {
        let time = 1_756_449_917_002;
        let shapes = [
            (r#"[{"topic":"t","partition":0,"timestamp":1756449917002}]"#, Mark::AfterTime(Timestamp(time))),
            (r#"[{"topic":"t","partition":0,"offset":-1}]"#, Mark::Live),
            (r#"[{"offset":-1,"partition":0,"topic":"t"}]"#, Mark::Live),
            (r#"[{"topic":"t","partition":0,"offset":-2}]"#, Mark::Oldest),
            (r#"[{"offset":12,"partition":0,"topic":"t"}]"#, Mark::At { next: Offset(12), before: None }),
            (
                r#"[{"topic":"t","partition":0,"offset":12,"timestamp":1756449917002,"more":1}]"#,
                Mark::At { next: Offset(12), before: Some(Timestamp(time)) },
            ),
        ];
        for (text, mark) in shapes {
            assert_eq!(parse(text), Ok(vec![mark]), "{text}");
        }
    }

    #[test]
    fn the_newest_time_of_an_id_is_that_of_a_record() {
        let newest = |text: &str| ClientId::parse(text, []).expect("an id").newest();
        assert_eq!(
            newest(r#"[{"topic":"t","partition":0,"timestamp":9}]"#),
            Some(Timestamp(8)),
            "EventStreams adds one"
        );
        let both =
            r#"[{"topic":"t","partition":0,"timestamp":9},{"topic":"u","partition":0,"offset":1,"timestamp":9}]"#;
        assert_eq!(newest(both), Some(Timestamp(9)));
        assert_eq!(newest(r#"[{"topic":"t","partition":0,"offset":1}]"#), None);
    }

    #[test]
    fn an_id_of_8_kib_is_read_and_a_byte_more_is_not() {
        let one = r#"[{"topic":"t","partition":0,"offset":1}]"#;
        let padded = |bytes: usize| format!("{one}{}", " ".repeat(bytes - one.len()));
        assert!(ClientId::parse(&padded(ID_BYTES_READ_MAX), []).is_ok());
        let over = ID_BYTES_READ_MAX + 1;
        assert_eq!(ClientId::parse(&padded(over), []), Err(IdError::TooLong(over)));
    }

    #[test]
    fn what_no_stream_has_sent_is_refused() {
        let wrong = [
            "",
            "[]",
            "{}",
            "[",
            "null",
            "12",
            "[null]",
            "[[]]",
            "c1.",
            "c1.!",
            "c1.AAA",
            "[1]",
            r#"[{"topic":"t","partition":0}]"#,
            r#"[{"topic":"t","partition":-1,"offset":1}]"#,
            r#"[{"topic":"t","partition":2147483648,"offset":1}]"#,
            r#"[{"topic":"t","partition":0,"offset":-3}]"#,
            r#"[{"topic":"t","partition":0,"offset":1.5}]"#,
            r#"[{"topic":"t","partition":0,"offset":9223372036854775808}]"#,
            r#"[{"topic":"t","partition":0,"offset":"1"}]"#,
            r#"[{"topic":"t","partition":0,"timestamp":-5}]"#,
            r#"[{"topic":1,"partition":0,"offset":1}]"#,
            r#"[{"topic":"t","partition":0,"offset":1},{"topic":"t","partition":0,"offset":2}]"#,
        ];
        for text in wrong {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse(&" ".repeat(9000)), Err(IdError::TooLong(9000)));
    }

    #[test]
    fn a_time_before_1970_is_refused_in_the_compact_form_too() {
        let compact = |age: u8| {
            let id = [[7].as_slice(), &[0; 8], &[1, 0, 1, age]].concat();
            parse(&format!("{COMPACT_PREFIX}{}", URL_SAFE_NO_PAD.encode(id)))
        };
        assert_eq!(compact(8), Ok(vec![Mark::At { next: Offset(1), before: Some(Timestamp(0)) }]));
        assert!(compact(9).is_err());
    }

    #[test]
    fn a_bookmark_comes_back_from_its_id_in_both_forms() {
        let topics = [Topic::new("eqiad.mediawiki.recentchange"), Topic::new("codfw.mediawiki.recentchange")];
        for partitions in [1, 100] {
            let places: Vec<Place> = (0..partitions)
                .flat_map(|index| topics.iter().map(move |topic| Partition::new(topic, index)))
                .enumerate()
                .map(|(at, partition)| Place {
                    partition,
                    next: Offset(6_500_000_000 + at as i64),
                    before: (at % 7 != 0).then_some(Timestamp(1_756_449_917_002 - at as i64 * 977)),
                })
                .collect();
            let bookmark = Bookmark::new(places);
            let mut id = Vec::new();
            bookmark.write_id(&mut id);
            let id = String::from_utf8(id).expect("ASCII");
            assert!(id.is_ascii() && id.len() <= ID_BYTES_MAX, "{}", id.len());
            let read = ClientId::parse(&id, &topics).expect("its own id");
            let places = read.places.iter().map(|asked| match asked.mark {
                Mark::At { next, before } => Place { partition: asked.partition.clone(), next, before },
                _ => panic!("{asked:?}"),
            });
            assert_eq!(Bookmark::new(places), bookmark);
        }
    }
}
