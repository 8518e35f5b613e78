//! The POSTs that have no answer yet: a stop waits for them before it ends anything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Those of all workers. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Posts(Arc<AtomicUsize>);

/// One of them, until it is dropped.
pub(super) struct Post(Arc<AtomicUsize>);

impl Posts {
    pub fn under_way(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn begin(&self) -> Post {
        self.0.fetch_add(1, Ordering::AcqRel);
        Post(self.0.clone())
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_post_is_under_way_until_it_is_dropped() {
        let posts = Posts::default();
        let (one, other) = (posts.begin(), posts.clone().begin());
        assert_eq!(posts.under_way(), 2);
        drop(one);
        assert_eq!(posts.under_way(), 1);
        drop(other);
        assert_eq!(posts.under_way(), 0);
    }
}
