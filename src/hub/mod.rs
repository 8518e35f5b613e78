//! The readers' half: one tail per host, many channels, readers that pull.
//!
//! - `tail` reads the log once for everybody and pushes records into the channels
//! - `following` what there is to read now
//! - `channels` all channels of the host; `channel` one stream set's live frames
//! - `ring` the newest frames of a channel: one question with three answers
//! - `frame` a record encoded for the wire: the channel's head and the record's shared body
//! - `place` where a reader starts: id, time or live, resolved against the ring and the log
//! - `catchup` blocks read from the log for readers behind the ring, shared by all of them
//! - `subscription` one reader's bookmark, and what comes after it; `delivery` what it is given to write
//! - `wake` one wake per worker; each worker wakes its own readers
//! - `registry` all readers of the host
//!
//! Knows no HTTP server, no addresses (a reader's `ClientKey` is opaque), no intake, and no engine: only `dyn Log`.

mod catchup;
mod channel;
mod channels;
mod delivery;
mod following;
mod frame;
mod options;
mod place;
mod registry;
mod ring;
mod subscription;
mod tail;
mod wake;

#[cfg(test)]
mod anew_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod place_test;
#[cfg(test)]
pub(crate) mod testing;

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use self::catchup::CatchUp;
use self::channel::Channel;
use self::channels::Channels;
use self::following::Following;
use self::place::{ResolveError, Resolved};
use self::wake::Bell;
use crate::limits::{Asker, Limits, Place};
use crate::log::{Log, ReadError};
use crate::model::{ClientId, ClientKey, StreamSet, Timestamp, Topic};
use crate::shutdown::Stop;

pub use self::channels::Tip;
pub use self::delivery::Delivery;
pub use self::frame::{Body, Frame, Head};
pub use self::options::Options;
pub use self::registry::{End, Reader, Registry};
pub use self::ring::BATCH_FRAMES_MAX;
pub use self::subscription::{Next, Subscription};
pub use self::wake::{Turn, Worker};

/// How long a place waits before it asks a log again that did not answer.
const RESOLVE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Where a reader wants to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    Live,
    Since(Timestamp),
    Id(ClientId),
}

/// Who reads, for the registry.
#[derive(Debug)]
pub struct Who {
    pub asker: Asker,
    pub user_agent: Option<Box<str>>,
    /// Given back when the reader has left, however it does.
    pub place: Option<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The client's fault: 400.
    #[error("the id names no partition of these streams")]
    ForeignId,
    /// The client's fault: 400.
    #[error("these streams have {0} partitions together, too many for one id: ask for fewer streams")]
    TooManyPartitions(usize),
    /// The host has so many, and all are read: 429.
    #[error(
        "{0} different sets of streams are being read, and there may be no more: ask for a stream alone, or for a set that \
         others read"
    )]
    TooManyChannels(usize),
}

/// The readers' half of the host. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
    stop: Stop,
}

struct Shared {
    options: Options,
    limits: Limits,
    log: Arc<dyn Log>,
    engine: Handle,
    catchup: Arc<CatchUp>,
    registry: Arc<Registry>,
    channels: Mutex<Channels>,
    /// What has become of the streams since the start; none if nothing has.
    following: watch::Sender<Option<Arc<Following>>>,
    caught_up: AtomicBool,
    /// When it first was: from then on the rings' tips are the live end, also while the log is away.
    began_at: OnceLock<Instant>,
}

impl Hub {
    /// Starts the tail on `engine`. `warm` sets get their rings filled from the log at once.
    pub fn start(
        options: Options,
        limits: Limits,
        log: Arc<dyn Log>,
        topics: Vec<Topic>,
        warm: &[StreamSet],
        engine: &Handle,
        stop: Stop,
    ) -> Result<Self, SubscribeError> {
        let mut channels = Channels::new(options.ring_bytes_or_default());
        for set in warm {
            channels.get_or_open(set, true)?;
        }
        let shared = Arc::new(Shared {
            catchup: CatchUp::new(log.clone(), limits.turns().clone(), engine.clone()),
            options,
            limits,
            log,
            engine: engine.clone(),
            registry: Arc::default(),
            channels: Mutex::new(channels),
            following: watch::Sender::default(),
            caught_up: AtomicBool::new(false),
            began_at: OnceLock::new(),
        });
        engine.spawn(tail::run(shared.clone(), topics, stop.clone()));
        Ok(Self { shared, stop })
    }

    /// The streams have become these, each the set of itself alone. Topics that are new are followed; readers of streams
    /// that are gone, or have other topics now, are ended after a whole event, so that they come back to what there is.
    pub async fn follow(&self, streams: Vec<StreamSet>) {
        let following = Following::of(streams);
        // First, so that a reader who comes back finds them in its place.
        if let Err(error) = self.shared.log.prepare(&following.topics()).await {
            tracing::warn!(%error, "new topics cannot be made yet: each is made with its first record");
        }
        self.shared.following.send_replace(Some(Arc::new(following)));
    }

    /// One reader. Its place may still be unresolved: see [`Subscription::settle`]. An id may choose other topics than the
    /// set's: see [`StreamSet::chosen_by`].
    pub fn subscribe(&self, set: &StreamSet, from: From, who: Who) -> Result<Subscription, SubscribeError> {
        let chosen = if let From::Id(id) = &from { set.chosen_by(id) } else { None };
        let set = chosen.as_ref().unwrap_or(set);
        if let From::Id(id) = &from
            && !id.places().iter().any(|place| set.topics().contains(&place.partition.topic))
        {
            return Err(SubscribeError::ForeignId);
        }
        let channel = self.shared.channels.lock().get_or_open(set, false)?;
        // Before the place is looked for.
        let epoch = channel.epoch();
        let key = who.asker.key.clone();
        let entry = self.shared.registry.enter(&channel, who);
        let shared = self.shared.clone();
        if let Some(bookmark) = place::from_ring(&shared, &channel, &from) {
            if !bookmark.has_an_id() {
                return Err(SubscribeError::TooManyPartitions(bookmark.places().len()));
            }
            return Ok(Subscription::resolved(shared, (channel, epoch), bookmark, entry));
        }
        let resolving = self.shared.engine.spawn(resolve(shared.clone(), channel.clone(), from, key));
        Ok(Subscription::resolving(shared, (channel, epoch), resolving, entry))
    }

    /// Whether all that was in the log when the tail began has been delivered, and the log answers.
    pub fn caught_up(&self) -> bool {
        self.shared.caught_up()
    }

    /// Since when it has been so once: what the log held at the start came before, and is nobody's news.
    pub fn began_at(&self) -> Option<Instant> {
        self.shared.began_at.get().copied()
    }

    /// Where the tail stands in every partition that it follows.
    pub fn tips(&self) -> Vec<Tip> {
        self.shared.channels.lock().tips()
    }

    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// The part of the hub that lives on one worker thread: made there, and its `run` spawned there.
    pub fn worker(&self, end_spread: Duration) -> Rc<Worker> {
        let bell = Arc::<Bell>::default();
        self.shared.registry.hear(bell.clone());
        Worker::new(bell, self.stop.clone(), self.shared.limits.clone(), self.shared.options.heartbeat, end_spread)
    }
}

impl Shared {
    fn caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Acquire)
    }

    fn set_caught_up(&self, caught_up: bool) {
        self.caught_up.store(caught_up, Ordering::Release);
        if caught_up {
            self.began_at.get_or_init(Instant::now);
        }
    }

    fn began(&self) -> bool {
        self.began_at.get().is_some()
    }

    /// How long readers are asked to wait before they reconnect, jittered by a quarter to either side so that those
    /// who were cut together do not come back together.
    fn retry_ms(&self) -> u64 {
        let retry = u64::try_from(self.options.retry.as_millis()).unwrap_or(u64::MAX).clamp(1_000, 48_000);
        fastrand::u64(retry * 3 / 4..=retry * 5 / 4).max(1_000)
    }

    fn ring_bells(&self) {
        self.registry.ring_bells();
    }
}

/// Asks until the log answers: its being away never refuses a reader.
async fn resolve(
    shared: Arc<Shared>,
    channel: Arc<Channel>,
    from: From,
    client: ClientKey,
) -> Result<Resolved, ResolveError> {
    loop {
        match place::from_log(&shared, &channel, &from, &client).await {
            Err(ResolveError::Log(ReadError::Unavailable(_))) => tokio::time::sleep(RESOLVE_AGAIN_AFTER).await,
            // Retention passed the place while it was being asked: ask anew.
            Err(ResolveError::Log(ReadError::Gone { .. })) => {}
            answer => return answer,
        }
    }
}
