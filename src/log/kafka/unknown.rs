//! Topics that the cluster says it has not.
//!
//! One answer proves little: a broker that is just coming back may not know yet what it has. A topic is given up when the
//! cluster has gone on to say so.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::model::Topic;

/// For so long the cluster must have said so.
const LASTING_AFTER: Duration = Duration::from_secs(10);
/// Without another word for so long, the next one is the first.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Topics remembered. One more is not given up: its records wait.
const TOPICS_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct UnknownTopics(HashMap<Topic, Said>);

#[derive(Debug)]
struct Said {
    first: Instant,
    last: Instant,
}

impl UnknownTopics {
    /// The cluster has just said that it has no such topic: whether that is to be believed.
    pub(super) fn is_lasting(&mut self, topic: &Topic, now: Instant) -> bool {
        if self.0.len() >= TOPICS_MAX {
            self.0.retain(|_, said| now - said.last < FORGOTTEN_AFTER);
        }
        let is_full = self.0.len() >= TOPICS_MAX;
        match self.0.get_mut(topic) {
            Some(said) => {
                if now - said.last >= FORGOTTEN_AFTER {
                    said.first = now;
                }
                said.last = now;
                now - said.first >= LASTING_AFTER
            }
            None => {
                if !is_full {
                    self.0.insert(topic.clone(), Said { first: now, last: now });
                }
                false
            }
        }
    }

    pub(super) fn known(&mut self, topic: &Topic) {
        if !self.0.is_empty() {
            self.0.remove(topic);
        }
    }

    /// The cluster was away: who comes back is not to be believed at once.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_given_up_only_after_the_cluster_has_gone_on_to_deny_it() {
        let (mut unknown, topic, start) = (UnknownTopics::default(), Topic::new("t"), Instant::now());
        assert!(!unknown.is_lasting(&topic, start));
        assert!(!unknown.is_lasting(&topic, start + LASTING_AFTER / 2));
        assert!(unknown.is_lasting(&topic, start + LASTING_AFTER));
        unknown.known(&topic);
        assert!(!unknown.is_lasting(&topic, start + LASTING_AFTER));
    }

    #[test]
    fn two_words_far_apart_are_two_first_words_and_so_are_those_before_and_after_an_outage() {
        let (mut unknown, topic, start) = (UnknownTopics::default(), Topic::new("t"), Instant::now());
        unknown.is_lasting(&topic, start);
        assert!(!unknown.is_lasting(&topic, start + FORGOTTEN_AFTER));
        unknown.forget();
        assert!(!unknown.is_lasting(&topic, start + FORGOTTEN_AFTER + LASTING_AFTER));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut unknown, start) = (UnknownTopics::default(), Instant::now());
        for number in 0..TOPICS_MAX + 9 {
            unknown.is_lasting(&Topic::new(&format!("t{number}")), start);
        }
        assert_eq!(unknown.0.len(), TOPICS_MAX);
    }
}
