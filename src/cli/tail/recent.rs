//! What came lately. Servers whose ids are times send some of it again after a reconnect.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Events that are remembered: more than come within one millisecond, which is what such ids cannot tell apart.
const REMEMBERED_MAX: usize = 4_096;

/// Remembers events by a digest of all that was sent: their offsets are in it, so no two events are alike.
#[derive(Debug, Default)]
pub(super) struct Recent {
    digests: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Recent {
    /// Whether the event was there already. It is from now on.
    pub(super) fn is_again(&mut self, data: &[u8]) -> bool {
        let mut digest = DefaultHasher::new();
        data.hash(&mut digest);
        let digest = digest.finish();
        if !self.digests.insert(digest) {
            return true;
        }
        self.order.push_back(digest);
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.digests.remove(&oldest);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_comes_once_and_what_is_remembered_is_bounded() {
        let mut recent = Recent::default();
        assert!(!recent.is_again(b"a"));
        assert!(recent.is_again(b"a"));
        for number in 0..REMEMBERED_MAX {
            assert!(!recent.is_again(number.to_string().as_bytes()));
        }
        assert!(!recent.is_again(b"a"), "it was long ago");
        assert_eq!((recent.digests.len(), recent.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
    }
}
