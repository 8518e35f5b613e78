//! What came lately. Servers whose ids are times send some of it again after a reconnect.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;

/// Partitions whose newest event is remembered. Of more than these repeats are let through.
const PARTITIONS_MAX: usize = 10_000;
/// Kafka's own limit. A longer name is nobody's topic.
const TOPIC_BYTES_MAX: usize = 249;

/// Remembers the newest event of each partition. Events that do not say where they stand are all new.
#[derive(Debug, Default)]
pub(super) struct Recent {
    topics: HashMap<String, HashMap<i32, Newest>>,
    partitions: usize,
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    offset: i64,
    /// The latest of all that came: times within a partition go back and forth.
    ms: Option<i64>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    meta: Meta<'a>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    partition: i32,
    offset: i64,
    #[serde(borrow)]
    dt: Option<Cow<'a, str>>,
}

impl Recent {
    /// Whether the event was there already. It is from now on. With ids that hold the next offset nothing comes twice.
    pub(super) fn is_again(&mut self, id: Option<&[u8]>, data: &[u8]) -> bool {
        if id.is_some_and(is_exact) {
            return false;
        }
        let Ok(Event { meta }) = serde_json::from_slice(data) else { return false };
        let ms = meta.dt.and_then(|dt| dt.parse::<jiff::Timestamp>().ok()).map(jiff::Timestamp::as_millisecond);
        let now = Newest { offset: meta.offset, ms };
        match self.topics.get_mut(&*meta.topic).and_then(|partitions| partitions.get_mut(&meta.partition)) {
            Some(newest) if now.offset > newest.offset => {
                *newest = Newest { ms: ms.max(newest.ms), ..now };
                false
            }
            // What was seen cannot be later than all that was seen: this is another log (a topic made anew, another
            // cluster behind the same name), and by offsets alone nothing of it would be shown for a long time.
            Some(newest) if ms > newest.ms => {
                *newest = now;
                false
            }
            Some(_) => true,
            None => {
                if self.partitions < PARTITIONS_MAX && meta.topic.len() <= TOPIC_BYTES_MAX {
                    self.topics.entry(meta.topic.into_owned()).or_default().insert(meta.partition, now);
                    self.partitions += 1;
                }
                false
            }
        }
    }
}

/// Whether the id holds an offset of every partition, as sluice's do.
fn is_exact(id: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Entry {
        offset: Option<i64>,
    }
    let entries: Result<Vec<Entry>, _> = serde_json::from_slice(id);
    let has_all = |entries: Vec<Entry>| entries.iter().all(|entry| entry.offset.is_some_and(|offset| offset >= 0));
    id.starts_with(b"c1.") || entries.is_ok_and(has_all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn again(recent: &mut Recent, topic: &str, partition: i32, offset: i64, second: u8) -> bool {
        let dt = format!("2026-11-20T08:00:{second:02}Z");
        let meta = json!({ "topic": topic, "partition": partition, "offset": offset, "dt": dt });
        let id = format!(
            r#"[{{"topic":"{topic}","partition":{partition},"timestamp":1}},{{"topic":"x","partition":0,"offset":-1}}]"#
        );
        recent.is_again(Some(id.as_bytes()), json!({ "a": 1, "meta": meta }).to_string().as_bytes())
    }

    #[test]
    fn what_came_before_is_known_again_by_its_partition_and_offset() {
        let mut recent = Recent::default();
        for (topic, partition, offset, second, expected) in [
            ("t", 0, 5, 10, false),
            ("t", 0, 6, 8, false),
            ("t", 0, 5, 10, true),
            ("t", 0, 6, 8, true),
            ("t", 0, 9, 9, false),
            ("t", 0, 4, 10, true),
            ("t", 1, 5, 10, false),
            ("u", 0, 5, 10, false),
            ("t", 0, 10, 10, false),
        ] {
            assert_eq!(again(&mut recent, topic, partition, offset, second), expected, "{topic} {partition} {offset}");
        }
    }

    #[test]
    fn a_log_that_begins_anew_is_shown_from_its_beginning() {
        let mut recent = Recent::default();
        assert!(!again(&mut recent, "t", 0, 1_000, 10));
        for (offset, second, expected) in [(0, 11, false), (1, 11, false), (0, 11, true), (2, 12, false)] {
            assert_eq!(again(&mut recent, "t", 0, offset, second), expected, "{offset}");
        }
    }

    #[test]
    fn events_that_do_not_say_where_they_stand_are_all_new() {
        let mut recent = Recent::default();
        for data in ["", "no JSON", "{}", "[1]", r#"{"meta":{"topic":"t","partition":0}}"#, r#"{"meta":7}"#] {
            let mut again = || recent.is_again(None, data.as_bytes());
            assert!(!again() && !again(), "{data}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = Recent::default();
        assert!(!again(&mut recent, &"t".repeat(TOPIC_BYTES_MAX + 1), 0, 0, 0));
        assert_eq!(recent.partitions, 0);
        for partition in 0..i32::try_from(PARTITIONS_MAX).expect("a number") + 5 {
            assert!(!again(&mut recent, "t", partition, 0, 0));
        }
        assert_eq!((recent.partitions, recent.topics["t"].len()), (PARTITIONS_MAX, PARTITIONS_MAX));
        assert!(again(&mut recent, "t", 0, 0, 0), "the first ones stay");
    }

    /// A topic made anew begins at 0, whatever the times of its events are.
    #[test]
    fn with_ids_that_hold_offsets_nothing_is_taken_for_a_repeat() {
        let mut recent = Recent::default();
        let event = br#"{"meta":{"topic":"t","partition":0,"offset":0}}"#;
        for id in [&br#"[{"topic":"t","partition":0,"offset":1,"timestamp":5}]"#[..], b"c1.AAAA"] {
            assert!(!recent.is_again(Some(id), event) && !recent.is_again(Some(id), event));
        }
        let by_time = br#"[{"topic":"t","partition":0,"timestamp":5},{"topic":"u","partition":0,"offset":3}]"#;
        assert!(!recent.is_again(Some(by_time), event) && recent.is_again(Some(by_time), event));
    }
}
