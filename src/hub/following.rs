//! What there is to read now, as whoever knows the streams says it.

use std::collections::{BTreeSet, HashMap};

use crate::model::{StreamName, StreamSet, Topic};

/// Every stream, as the set of itself alone.
#[derive(Debug)]
pub(super) struct Following {
    streams: HashMap<StreamName, StreamSet>,
    topics: BTreeSet<Topic>,
}

impl Following {
    pub(super) fn of(streams: Vec<StreamSet>) -> Self {
        let topics = streams.iter().flat_map(|set| set.topics().iter().cloned()).collect();
        let named = |set: StreamSet| Some((set.streams().first()?.clone(), set));
        Self { streams: streams.into_iter().filter_map(named).collect(), topics }
    }

    pub(super) fn topics(&self) -> Vec<Topic> {
        self.topics.iter().cloned().collect()
    }

    pub(super) fn has(&self, topic: &Topic) -> bool {
        self.topics.contains(topic)
    }

    pub(super) fn sets(&self) -> impl Iterator<Item = &StreamSet> {
        self.streams.values()
    }

    /// Whether these streams are there, and have these topics together.
    pub(super) fn defines(&self, set: &StreamSet) -> bool {
        let streams: Option<Vec<_>> = set.streams().iter().map(|name| self.streams.get(name)).collect();
        let topics = streams.map(|streams| streams.into_iter().flat_map(StreamSet::topics).collect::<BTreeSet<_>>());
        topics.is_some_and(|topics| topics.into_iter().eq(set.topics()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(streams: &[&str], topics: &[&str]) -> StreamSet {
        let streams = streams.iter().map(|name| StreamName::parse(name).expect("a name")).collect();
        StreamSet::new(streams, topics.iter().map(|name| Topic::new(name)).collect(), vec![])
    }

    #[test]
    fn a_set_is_defined_by_the_topics_of_all_its_streams() {
        let following = Following::of(vec![set(&["a"], &["x", "y"]), set(&["b"], &["y", "z"])]);
        assert!(following.defines(&set(&["a"], &["x", "y"])));
        assert!(following.defines(&set(&["a", "b"], &["x", "y", "z"])));
        assert!(!following.defines(&set(&["a"], &["x"])));
        assert!(!following.defines(&set(&["a"], &["x", "y", "z"])));
        assert!(!following.defines(&set(&["c"], &["x"])));
        assert_eq!(following.topics(), ["x", "y", "z"].map(Topic::new));
    }
}
