//! A log for tests: it does as it is told, or as it likes.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fastrand::Rng;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::gate::Pace;
use crate::log::{AppendError, Appended, Block, Log, PartitionEnds, ReadError, Tail};
use crate::model::{NewRecord, Offset, Partition, Timestamp, Topic};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Mood {
    Takes,
    /// Nothing is written, and it says so.
    Away,
    /// Answers when the mood changes, and then does not know.
    Hangs,
    /// Does not have this topic.
    Lacks(Topic),
    /// Refuses everything from what it last knew, and cannot be asked.
    CutOff,
    /// Something else each time, from this seed on.
    Wild,
}

/// A log that remembers what it took, in order.
pub(super) struct Fake {
    mood: watch::Sender<Mood>,
    pub(super) taken: Mutex<Vec<NewRecord>>,
    /// Those of which it said that it does not know.
    pub(super) unsure: Mutex<HashSet<Bytes>>,
    wild: Mutex<(Rng, u32, u8)>,
    pub(super) asked: Mutex<usize>,
}

impl Fake {
    pub(super) fn new(mood: Mood) -> Arc<Self> {
        Self::seeded(mood, 0)
    }

    pub(super) fn seeded(mood: Mood, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            mood: watch::Sender::new(mood),
            taken: Mutex::default(),
            unsure: Mutex::default(),
            wild: Mutex::new((Rng::with_seed(seed), 0, 0)),
            asked: Mutex::default(),
        })
    }

    pub(super) fn is(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    pub(super) fn values(&self) -> Vec<String> {
        self.taken.lock().iter().map(text).collect()
    }

    fn take(&self, record: NewRecord) -> Result<Appended, AppendError> {
        let large = record.value.as_ref().is_some_and(|value| value.starts_with(b"large"));
        if large {
            return Err(AppendError::TooLarge("it is large".into()));
        }
        let partition = Partition::new(&record.topic, 0);
        self.taken.lock().push(record);
        Ok(Appended { partition, offset: Offset(0) })
    }

    /// As real logs fail: of each topic it takes what comes first, then some of which it does not say so, then nothing.
    fn take_some(&self, records: Vec<NewRecord>) -> Vec<Result<Appended, AppendError>> {
        let mut how: HashMap<Topic, u8> = HashMap::new();
        let mut answer = |record: NewRecord| {
            let mut wild = self.wild.lock();
            let (worse, silent) = (wild.0.u8(..3) == 0, wild.0.bool());
            drop(wild);
            let how = how.entry(record.topic.clone()).or_default();
            *how += u8::from(worse);
            match how {
                0 => self.take(record),
                1 => {
                    self.unsure.lock().extend(record.value.clone());
                    self.take(record).and_then(|_| Err(AppendError::Unknown("taken, and not said".into())))
                }
                _ if silent => Err(AppendError::Unknown("not taken, and not said".into())),
                _ => Err(AppendError::NotWritten("down".into())),
            }
        };
        records.into_iter().map(&mut answer).collect()
    }

    /// Whether this call meets a log that is there; outages last for some calls.
    fn outage(&self) -> u8 {
        let mut wild = self.wild.lock();
        let (rng, left, kind) = &mut *wild;
        if *left == 0 && rng.u8(..6) == 0 {
            (*left, *kind) = (rng.u32(1..30), rng.u8(1..4));
        }
        *left = left.saturating_sub(1);
        if *left == 0 { 0 } else { *kind }
    }
}

#[async_trait]
impl Log for Fake {
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Appended, AppendError>> {
        *self.asked.lock() += 1;
        let mood = self.mood.borrow().clone();
        let not_written = || Err(AppendError::NotWritten("down".into()));
        match mood {
            Mood::Takes => records.into_iter().map(|record| self.take(record)).collect(),
            Mood::Away => records.iter().map(|_| not_written()).collect(),
            Mood::CutOff => records.iter().map(|_| Err(AppendError::Refused("no such topic".into()))).collect(),
            Mood::Hangs => {
                let _ = self.mood.subscribe().wait_for(|mood| *mood != Mood::Hangs).await;
                records.iter().map(|_| Err(AppendError::Unknown("late".into()))).collect()
            }
            Mood::Lacks(topic) => {
                let refused = || Err(AppendError::Refused("no such topic".into()));
                let answer = |record: NewRecord| if record.topic == topic { refused() } else { self.take(record) };
                records.into_iter().map(answer).collect()
            }
            Mood::Wild => match self.outage() {
                0 => {
                    tokio::task::yield_now().await;
                    records.into_iter().map(|record| self.take(record)).collect()
                }
                1 => records.iter().map(|_| not_written()).collect(),
                2 => self.take_some(records),
                _ => {
                    // Longer than what makes it suspect.
                    let _ = tokio::time::timeout(pace().suspect * 2, std::future::pending::<()>()).await;
                    self.take_some(records)
                }
            },
        }
    }

    async fn read(&self, _: &Partition, _: Range<Offset>, _: usize) -> Result<Block, ReadError> {
        Ok(Block::default())
    }

    async fn ends(&self, _: &[Topic]) -> Result<Vec<PartitionEnds>, ReadError> {
        Ok(Vec::new())
    }

    async fn at_time(&self, _: &[(Partition, Timestamp)]) -> Result<Vec<Offset>, ReadError> {
        Ok(Vec::new())
    }

    async fn before(&self, _: &Partition, _: Offset) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        Ok(None)
    }

    async fn tail(&self, _: Vec<Topic>, _: u64) -> Box<dyn Tail> {
        std::future::pending().await
    }

    async fn check(&self) -> Result<(), ReadError> {
        match *self.mood.borrow() {
            Mood::CutOff => Err(ReadError::Unavailable("cut off".into())),
            _ => Ok(()),
        }
    }

    async fn close(&self) {}

    fn describe(&self) -> String {
        "fake".into()
    }
}

pub(super) fn pace() -> Pace {
    let ms = Duration::from_millis;
    Pace { suspect: ms(20), closing: ms(50), again: ms(2), again_most: ms(10), refused: ms(100), look: ms(10) }
}

pub(super) fn text(record: &NewRecord) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}
