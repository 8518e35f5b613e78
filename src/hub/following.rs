//! What there is to read now, as whoever knows the streams says it.

use std::collections::{BTreeSet, HashMap};

use crate::model::{StreamName, StreamSet, Topic};

/// Every stream, as the set of itself alone.
#[derive(Debug)]
pub(super) struct Following {
    streams: HashMap<StreamName, StreamSet>,
    /// Also those that are only allowed: a reader may choose them at any time.
    topics: BTreeSet<Topic>,
}

impl Following {
    pub(super) fn of(streams: Vec<StreamSet>) -> Self {
        let topics = streams.iter().flat_map(|set| set.topics_nameable().cloned()).collect();
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

    /// Whether these streams are there, and have these topics together; or, where an id has chosen them, still allow the
    /// choice. One that has become the streams' own topics is none any more.
    pub(super) fn defines(&self, set: &StreamSet) -> bool {
        let streams: Option<Vec<_>> = set.streams().iter().map(|name| self.streams.get(name)).collect();
        let Some(streams) = streams else { return false };
        let own: BTreeSet<&Topic> = streams.iter().flat_map(|stream| stream.topics()).collect();
        if !set.is_chosen() {
            return own.into_iter().eq(set.topics());
        }
        let allowed: BTreeSet<&Topic> = streams.iter().flat_map(|stream| stream.topics_allowed()).collect();
        let mut others = set.topics().iter().filter(|topic| !own.contains(topic)).peekable();
        others.peek().is_some() && others.all(|topic| allowed.contains(topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ClientId;

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

    #[test]
    fn a_chosen_set_is_defined_while_its_streams_allow_it() {
        let named = |name: &str| StreamName::parse(name).expect("a name");
        let topics = |names: &[&str]| names.iter().map(|name| Topic::new(name)).collect::<Vec<_>>();
        let double = |own: &[&str], allowed: &[&str]| StreamSet::new(vec![named("a")], topics(own), topics(allowed));
        let id = r#"[{"topic":"y","partition":0,"offset":1}]"#;
        let id = ClientId::parse(id, []).expect("well-formed");
        let chosen = double(&["x"], &["y"]).chosen_by(&id).expect("a choice");
        let defined = |own: &[&str], allowed: &[&str]| Following::of(vec![double(own, allowed)]).defines(&chosen);
        assert!(defined(&["x"], &["y"]));
        assert!(defined(&["x", "z"], &["w", "y"]));
        assert!(!defined(&["x"], &["z"]), "no longer allowed");
        assert!(!defined(&["x", "y"], &[]), "its streams' own now: the reader gets the others too");
        assert!(!defined(&["y"], &["x"]), "and here it is just what everybody gets");
        assert_eq!(Following::of(vec![double(&["x"], &["y"])]).topics(), topics(&["x", "y"]), "the tail follows both");
    }
}
