//! What a reader is given to write: frames of the ring, or a record's body behind an id line of the reader's own.

use std::sync::Arc;
use std::time::Duration;

use super::frame::{Body, Frame, Head};
use super::ring::Seq;
use crate::model::{Bookmark, Format, Offset, Partition, Timestamp};

#[derive(Debug)]
pub enum Delivery {
    /// The reader stands where the channel stands: the head is everybody's.
    Shared { seq: Seq, frame: Arc<Frame> },
    /// The reader's place is its own, and so is the id.
    Own(Box<Own>),
}

#[derive(Debug)]
pub struct Own {
    head: Head,
    body: Body,
    pub(super) partition: Partition,
    pub(super) offset: Offset,
    pub(super) time: Timestamp,
}

impl Delivery {
    /// `bookmark` is the reader's after this record, `body` in this format.
    pub(super) fn own(
        format: Format,
        bookmark: &Bookmark,
        partition: &Partition,
        (offset, time): (Offset, Timestamp),
        body: Body,
    ) -> Self {
        let head = Head::new(format, || bookmark.clone(), &body);
        Self::Own(Box::new(Own { head, body, partition: partition.clone(), offset, time }))
    }

    pub fn head(&self) -> &Head {
        match self {
            Self::Shared { frame, .. } => &frame.head,
            Self::Own(own) => &own.head,
        }
    }

    /// Head and body with their chunk in one piece, where they are.
    pub fn joined(&self) -> Option<&[u8]> {
        match self {
            Self::Shared { frame, .. } => frame.joined.as_deref(),
            Self::Own(_) => None,
        }
    }

    /// Since the tail brought it. None of what comes from the log again.
    pub fn age(&self) -> Option<Duration> {
        match self {
            Self::Shared { frame, .. } => Some(frame.arrived.elapsed()),
            Self::Own(_) => None,
        }
    }

    pub fn body(&self) -> &Body {
        match self {
            Self::Shared { frame, .. } => &frame.body,
            Self::Own(own) => &own.body,
        }
    }
}
