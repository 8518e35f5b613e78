//! The readers' half: one tail per host, many channels, readers that pull.
//!
//! - `tail` reads the log once for everybody and pushes frames into the channels' rings
//! - `channel` one stream set's live frames; `ring` the newest of them, one question with three answers
//! - `frame` a record encoded for the wire: the channel's head and the record's shared body
//! - `place` where a reader starts: id, time or live, resolved against the ring and the log
//! - `catchup` blocks read from the log for readers behind the ring, shared by all of them
//! - `subscription` one reader's bookmark, and what comes after it
//! - `wake` one wake per worker; each worker wakes its own readers
//! - `registry` all readers of the host
//!
//! Knows no HTTP server, no addresses (a reader's `ClientKey` is opaque), no intake, and no engine: only `dyn Log`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::log::Log;
use crate::model::{ClientId, ClientKey, StreamSet, Timestamp, Topic};
use crate::shutdown::Stop;

/// Limits and times of the readers' half.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Bytes of frames kept in all rings. Sized from the machine's memory if not given.
    #[serde(deserialize_with = "crate::model::units::optional_bytes")]
    pub ring_bytes: Option<u64>,
    /// Silence after which a reader gets a comment line.
    #[serde(deserialize_with = "crate::model::units::duration")]
    pub heartbeat: Duration,
    /// How long readers are asked to wait before they reconnect; jittered.
    #[serde(deserialize_with = "crate::model::units::duration")]
    pub retry: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { ring_bytes: None, heartbeat: Duration::from_secs(10), retry: Duration::from_secs(3) }
    }
}

/// Where a reader wants to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    Live,
    Since(Timestamp),
    Id(ClientId),
}

/// Who reads, for the registry.
#[derive(Clone, Debug)]
pub struct Who {
    pub client: ClientKey,
    pub user_agent: Option<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The client's fault: 400.
    #[error("the id names no partition of these streams")]
    ForeignId,
    /// The client's fault: 400.
    #[error("these streams have {0} partitions together, too many for one id: ask for fewer streams")]
    TooManyPartitions(usize),
    /// 503.
    #[error("too many different stream sets are being read: {0} at most")]
    TooManyChannels(usize),
}

/// The readers' half of the host. Cheap to clone.
#[derive(Clone)]
pub struct Hub {}

impl Hub {
    /// Starts the tail on `engine`. `warm` sets get their rings filled from the log at once.
    pub fn start(
        _options: Options,
        _log: Arc<dyn Log>,
        _topics: Vec<Topic>,
        _warm: Vec<StreamSet>,
        _engine: &tokio::runtime::Handle,
        _stop: Stop,
    ) -> Self {
        unimplemented!()
    }

    /// One reader. Its place may still be unresolved: see [`Subscription::settle`].
    pub fn subscribe(&self, _set: StreamSet, _from: From, _who: Who) -> Result<Subscription, SubscribeError> {
        unimplemented!()
    }

    /// Whether all that was in the log when the tail began has been delivered, and the log answers.
    pub fn caught_up(&self) -> bool {
        unimplemented!()
    }

    /// The part of the hub that lives on one worker thread: made there, and its `run` spawned there.
    pub fn worker(&self) -> Rc<Worker> {
        unimplemented!()
    }
}

/// Wakes the readers of one worker thread.
pub struct Worker {}

impl Worker {
    /// Runs until the stop is over.
    pub async fn run(self: Rc<Self>) {
        unimplemented!()
    }
}

/// One reader's bookmark, and what comes after it.
pub struct Subscription {}

impl Subscription {
    /// Waits, at most this long, until the place is known. What the reader has to be told about it is then in
    /// [`Subscription::notice`]; a place that is resolved later tells it in the stream alone.
    pub async fn settle(&mut self, _at_most: Duration) -> Result<(), SubscribeError> {
        unimplemented!()
    }

    /// What was asked and what is given, where they differ: for the header `Sluice-Notice`. ASCII, one line.
    pub fn notice(&self) -> Option<&str> {
        unimplemented!()
    }
}
