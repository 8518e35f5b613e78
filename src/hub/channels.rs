//! All channels of the host, the partitions that the tail has opened, and the bytes that the rings hold together.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SubscribeError;
use super::channel::Channel;
use super::following::Following;
use super::frame::Body;
use crate::log::{Opened, TailBatch};
use crate::metrics as names;
use crate::model::{CANARY, Offset, Partition, Record, StreamName, StreamSet, Timestamp, Topic};

/// Stream sets that are read at once, beside the catalogue's own streams.
const CHANNELS_MAX: usize = 1024;
/// So long after a change of the streams a partition that the tail has not opened is looked for in the log.
const SETTLING: Duration = Duration::from_secs(30);
/// How long a channel without readers is kept, so that they find their frames when they return.
const UNREAD_MAX: Duration = Duration::from_secs(60);
/// One ring's share of what all rings may hold.
const RING_SHARE: usize = 4;

/// Where the tail stands in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tip {
    pub partition: Partition,
    /// The offset that it wants next.
    pub next: Offset,
    /// The time of the newest record that it has seen, or that was there before it began.
    pub newest: Option<Timestamp>,
    /// When it last brought a record; none if it has brought none yet.
    pub moved_at: Option<Instant>,
}

pub(super) struct Channels {
    by_set: HashMap<StreamSet, Kept>,
    by_topic: HashMap<Topic, Vec<Arc<Channel>>>,
    /// Where the tail stands in every partition that it has opened.
    tips: BTreeMap<Partition, Tip>,
    /// None until the streams change.
    following: Option<Arc<Following>>,
    /// From then on the tail has opened what the last change has brought.
    settled_at: Option<Instant>,
    bytes: usize,
    bytes_max: usize,
}

struct Kept {
    channel: Arc<Channel>,
    /// Kept for the life of the process, read or not: its ring is warm when readers come back.
    always: bool,
    unread_since: Option<Instant>,
}

impl Channels {
    pub(super) fn new(bytes_max: usize) -> Self {
        let (by_set, by_topic, tips) = (HashMap::new(), HashMap::new(), BTreeMap::new());
        Self { by_set, by_topic, tips, following: None, settled_at: None, bytes: 0, bytes_max }
    }

    /// The set's channel; a new one begins where the tail stands.
    pub(super) fn get_or_open(&mut self, set: &StreamSet, always: bool) -> Result<Arc<Channel>, SubscribeError> {
        if let Some(kept) = self.by_set.get_mut(set) {
            kept.unread_since = None;
            kept.always |= always;
            return Ok(kept.channel.clone());
        }
        if !always && self.asked_for() >= CHANNELS_MAX && !self.give_back_one() {
            return Err(SubscribeError::TooManyChannels(CHANNELS_MAX));
        }
        let of_set = self.tips.values().filter(|tip| set.topics().contains(&tip.partition.topic));
        let channel = Arc::new(Channel::new(set.clone(), of_set.map(Tip::opened), self.settled_at));
        for topic in set.topics() {
            self.by_topic.entry(topic.clone()).or_default().push(channel.clone());
        }
        self.by_set.insert(set.clone(), Kept { channel: channel.clone(), always, unread_since: None });
        Ok(channel)
    }

    /// The streams have changed.
    pub(super) fn follow(&mut self, following: Arc<Following>) {
        self.tips.retain(|partition, _| following.has(&partition.topic));
        self.following = Some(following.clone());
        self.settled_at = Some(Instant::now() + SETTLING);
        self.close_the_gone();
        for set in following.sets() {
            // A channel that is kept always is not one too many.
            let _ = self.get_or_open(set, true);
        }
    }

    /// Closes the channels of sets that are no longer what the streams say: their readers end. Looked for again later, as
    /// a reader may have resolved its streams before they changed and have come here after it.
    fn close_the_gone(&mut self) {
        let Some(following) = &self.following else { return };
        let gone: Vec<StreamSet> = self.by_set.keys().filter(|set| !following.defines(set)).cloned().collect();
        for set in gone {
            if let Some(kept) = self.by_set.get(&set) {
                kept.channel.close();
            }
            self.drop_channel(&set);
        }
    }

    /// Takes in what the tail brings. Bodies are made here for topics that have a channel, once for all of them.
    pub(super) fn push(&mut self, batch: &TailBatch) {
        let followed = self.following.clone();
        let followed = |topic| followed.as_ref().is_none_or(|following| following.has(topic));
        // What was on its way when its topic was left is nobody's.
        for opened in batch.opened.iter().filter(|opened| followed(&opened.partition.topic)) {
            let moved_at = self.tips.get(&opened.partition).and_then(|tip| tip.moved_at);
            let Opened { partition, next, before } = opened.clone();
            self.tips.insert(partition.clone(), Tip { partition, next, newest: before, moved_at });
            for channel in self.by_topic.get(&opened.partition.topic).into_iter().flatten() {
                self.bytes = self.bytes.saturating_sub(channel.open(opened));
            }
        }
        let now = Instant::now();
        for record in &batch.records {
            self.push_record(record, now);
        }
        self.shrink_to_fit();
        metrics::gauge!(names::RING_BYTES).set(self.bytes as f64);
    }

    fn push_record(&mut self, record: &Record, now: Instant) {
        let Some(tip) = self.tips.get_mut(&record.partition) else { return };
        tip.next = record.offset.after();
        tip.newest = Some(record.time);
        tip.moved_at = Some(now);
        let Some(channels) = self.by_topic.get(&record.partition.topic) else { return };
        let body = Body::encode(record);
        if body.is_none() {
            metrics::counter!(names::RECORDS_SKIPPED).increment(1);
        }
        for channel in channels {
            let grown = channel.push(record, body.as_ref(), self.bytes_max / RING_SHARE);
            self.bytes = self.bytes.saturating_add_signed(grown);
        }
    }

    pub(super) fn tips(&self) -> Vec<Tip> {
        self.tips.values().cloned().collect()
    }

    /// What the sum says, and what the rings say.
    #[cfg(test)]
    pub(super) fn counted_and_held(&self) -> (usize, usize) {
        (self.bytes, self.by_set.values().map(|kept| kept.channel.with_ring(|ring| ring.bytes())).sum())
    }

    /// The largest ring gives back first.
    fn shrink_to_fit(&mut self) {
        while self.bytes > self.bytes_max {
            let channels = self.by_set.values().map(|kept| &kept.channel);
            let Some(largest) = channels.max_by_key(|channel| channel.with_ring(|ring| ring.bytes())) else { return };
            let given_back = largest.shrink(self.bytes - self.bytes_max);
            self.bytes = self.bytes.saturating_sub(given_back);
            if given_back == 0 {
                return;
            }
        }
    }

    /// Channels that are there because somebody asked for their set.
    fn asked_for(&self) -> usize {
        self.by_set.values().filter(|kept| !kept.always).count()
    }

    /// Makes room: the channel that has been unread for longest goes before its time. False if all are read.
    fn give_back_one(&mut self) -> bool {
        let unread = self.by_set.iter().filter(|(set, kept)| kept.is_unread(set));
        let oldest = unread.min_by_key(|(_, kept)| kept.unread_since.unwrap_or_else(Instant::now));
        match oldest.map(|(set, _)| set.clone()) {
            Some(set) => {
                self.drop_channel(&set);
                true
            }
            None => false,
        }
    }

    /// Gives back the channels that nobody has read for a while.
    pub(super) fn sweep(&mut self) {
        self.close_the_gone();
        let mut gone = Vec::new();
        for (set, kept) in &mut self.by_set {
            let since = kept.is_unread(set).then(|| kept.unread_since.unwrap_or_else(Instant::now));
            kept.unread_since = since;
            if since.is_some_and(|since| since.elapsed() >= UNREAD_MAX) {
                gone.push(set.clone());
            }
        }
        gone.iter().for_each(|set| self.drop_channel(set));
        metrics::gauge!(names::CHANNELS).set(self.by_set.len() as f64);
        self.tell_ages();
    }

    /// Of the catalogue's streams: other sets come and go with those who ask for them.
    fn tell_ages(&self) {
        for (set, kept) in self.by_set.iter().filter(|(_, kept)| kept.always) {
            if let [stream] = set.streams() {
                let age = kept.channel.with_ring(|ring| ring.age());
                tell_age(stream, age);
            }
        }
    }

    fn drop_channel(&mut self, set: &StreamSet) {
        let Some(kept) = self.by_set.remove(set) else { return };
        if let ([stream], true) = (set.streams(), kept.always) {
            tell_age(stream, Duration::ZERO);
        }
        self.bytes = self.bytes.saturating_sub(kept.channel.with_ring(|ring| ring.bytes()));
        for channels in self.by_topic.values_mut() {
            channels.retain(|channel| !Arc::ptr_eq(channel, &kept.channel));
        }
        self.by_topic.retain(|_, channels| !channels.is_empty());
    }
}

/// That of the canaries is nobody's.
fn tell_age(stream: &StreamName, age: Duration) {
    if stream.as_str() == CANARY {
        return;
    }
    metrics::gauge!(names::RING_AGE_SECONDS, "stream" => stream.as_str().to_owned()).set(age.as_secs_f64());
}

impl Tip {
    fn opened(&self) -> Opened {
        Opened { partition: self.partition.clone(), next: self.next, before: self.newest }
    }
}

impl Kept {
    /// Nobody holds it but the two maps.
    fn is_unread(&self, set: &StreamSet) -> bool {
        !self.always && Arc::strong_count(&self.channel) == 1 + set.topics().len()
    }
}
