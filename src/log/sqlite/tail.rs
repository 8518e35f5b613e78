//! A following read of many topics, woken by commits and never polling.
//!
//! What to read is decided against the heads in memory; the reading happens on a blocking thread with a connection of the
//! tail's own, so that readers who catch up cannot hold it up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::heads::Heads;
use super::schema::{self, TopicId};
use super::{PARTITION, query};
use crate::log::{Opened, ReadError, Tail, TailBatch};
use crate::model::{Offset, Partition, Record, Topic};

/// Bytes of one batch, shared by the topics that have something new; the rest comes with the next.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// The least a topic gets of a batch, however many there are.
const SHARE_BYTES_MIN: usize = 64 << 10;
/// Wait before a topic that could not be read is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

pub(super) struct SqliteTail {
    heads: Arc<Heads>,
    commits: watch::Receiver<()>,
    topics: BTreeMap<Topic, Followed>,
    /// At rest, or away with a read. A read under way outlives a cancelled `next`.
    reader: Reader,
    /// Who comes first in the next batch: everybody in turn.
    turn: usize,
    caught_up: bool,
    file: PathBuf,
}

enum Reader {
    Resting(Option<Connection>),
    Reading(JoinHandle<(Option<Connection>, Vec<Answer>)>),
}

#[derive(Clone, Copy)]
struct Followed {
    place: Place,
    /// Where the log ended when it was joined or re-joined, until that is reached.
    goal: Option<Offset>,
    retry_at: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Place {
    /// To be opened at this offset, or at the first that is still kept.
    Unopened(Offset),
    At(Offset),
}

/// What one read brings of one topic.
struct Answer {
    topic: Topic,
    brought: Result<Brought, ReadError>,
}

impl Answer {
    fn failure(&self) -> Option<(&Topic, &ReadError)> {
        self.brought.as_ref().err().map(|error| (&self.topic, error))
    }
}

struct Brought {
    opened: Option<Opened>,
    records: Vec<Record>,
    next: Offset,
}

struct Ask {
    topic: Topic,
    id: TopicId,
    place: Place,
    end: Offset,
}

impl SqliteTail {
    pub(super) fn open(file: &Path, heads: Arc<Heads>, topics: Vec<Topic>, warm: u64) -> Self {
        let commits = heads.watch();
        let warm = i64::try_from(warm).unwrap_or(i64::MAX);
        let join = |topic: Topic| {
            let end = heads.get(&topic).map(|head| head.next);
            let start = end.map_or(0, |end| end.0.saturating_sub(warm).max(0));
            (topic, Followed { place: Place::Unopened(Offset(start)), goal: end, retry_at: None })
        };
        let topics = topics.into_iter().map(join).collect();
        let reader = Reader::Resting(None);
        Self { heads, commits, topics, reader, turn: 0, caught_up: false, file: file.to_owned() }
    }

    /// The topics that have something to bring, the next in turn first.
    fn asks(&mut self) -> Vec<Ask> {
        let now = Instant::now();
        let ready = self.topics.iter().filter(|(_, followed)| followed.retry_at.is_none_or(|at| at <= now));
        let mut asks: Vec<Ask> = ready.filter_map(|(topic, followed)| followed.ask(topic, &self.heads)).collect();
        if !asks.is_empty() {
            self.turn = (self.turn + 1) % asks.len();
            asks.rotate_left(self.turn);
        }
        asks
    }

    fn start(&mut self, connection: Option<Connection>, asks: Vec<Ask>) {
        let file = self.file.clone();
        self.reader = Reader::Reading(tokio::task::spawn_blocking(move || bring_all(connection, &file, asks)));
    }

    /// Until something may be new: a commit, or the time to try a sick topic again.
    async fn wait(&mut self) {
        let retry_at = self.topics.values().filter_map(|followed| followed.retry_at).min();
        let retry = async {
            match retry_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.commits.changed() => {}
            () = retry => {}
        }
    }

    fn take(&mut self, answers: Vec<Answer>) -> TailBatch {
        self.tell_operator(&answers);
        let mut batch = TailBatch::default();
        for Answer { topic, brought } in answers {
            // Followed no longer, since the read began.
            let Some(followed) = self.topics.get_mut(&topic) else { continue };
            match brought {
                Ok(brought) => followed.take(brought, &mut batch),
                Err(_) => followed.fail(&topic, &self.heads),
            }
        }
        batch
    }

    /// Once for a whole outage, not for every topic and try.
    fn tell_operator(&self, answers: &[Answer]) {
        let known = self.topics.values().any(|followed| followed.retry_at.is_some());
        if let Some((topic, error)) = answers.iter().find_map(Answer::failure).filter(|_| !known) {
            tracing::error!(%topic, %error, "the log cannot be read; tried again every {RETRY_AFTER:?}");
        }
    }

    /// The batch with what is to be said beside it, or nothing if there is nothing to say.
    fn finish(&mut self, batch: TailBatch) -> Option<TailBatch> {
        let caught_up = self.topics.values().all(|followed| followed.goal.is_none());
        let changed = caught_up != std::mem::replace(&mut self.caught_up, caught_up);
        let batch = TailBatch { caught_up, ..batch };
        (changed || !batch.opened.is_empty() || !batch.records.is_empty()).then_some(batch)
    }
}

#[async_trait]
impl Tail for SqliteTail {
    /// Between an await and the next nothing is half done: a read that was begun is kept in `reader` and its answers are
    /// taken and returned without a wait in between.
    async fn next(&mut self) -> TailBatch {
        loop {
            let answers = match &mut self.reader {
                Reader::Reading(read) => {
                    let (connection, answers) = read.await.unwrap_or_default();
                    self.reader = Reader::Resting(connection);
                    answers
                }
                Reader::Resting(connection) => {
                    let connection = connection.take();
                    // Before the heads are looked at: a commit after that look wakes the wait below.
                    self.commits.mark_unchanged();
                    let asks = self.asks();
                    if !asks.is_empty() {
                        self.start(connection, asks);
                        continue;
                    }
                    self.reader = Reader::Resting(connection);
                    Vec::new()
                }
            };
            let idle = answers.is_empty();
            let batch = self.take(answers);
            if let Some(batch) = self.finish(batch) {
                return batch;
            }
            if idle {
                self.wait().await;
            }
        }
    }

    fn follow(&mut self, topics: Vec<Topic>) {
        let mut before = std::mem::take(&mut self.topics);
        let new = Followed { place: Place::Unopened(Offset(0)), goal: None, retry_at: None };
        let keep = |topic: Topic| {
            let followed = before.remove(&topic).unwrap_or(new);
            (topic, followed)
        };
        self.topics = topics.into_iter().map(keep).collect();
    }
}

impl Followed {
    fn ask(&self, topic: &Topic, heads: &Heads) -> Option<Ask> {
        let head = heads.get(topic)?;
        let something = match self.place {
            Place::Unopened(_) => true,
            Place::At(at) => at < head.next,
        };
        something.then(|| Ask { topic: topic.clone(), id: head.id, place: self.place, end: head.next })
    }

    fn take(&mut self, brought: Brought, batch: &mut TailBatch) {
        batch.opened.extend(brought.opened);
        batch.records.extend(brought.records);
        self.place = Place::At(brought.next);
        self.goal = self.goal.filter(|goal| brought.next < *goal);
        self.retry_at = None;
    }

    fn fail(&mut self, topic: &Topic, heads: &Heads) {
        self.retry_at = Some(Instant::now() + RETRY_AFTER);
        self.goal = heads.get(topic).map(|head| head.next);
    }
}

/// On a blocking thread. Each topic fails alone; a connection that failed is not used again.
fn bring_all(connection: Option<Connection>, file: &Path, asks: Vec<Ask>) -> (Option<Connection>, Vec<Answer>) {
    let connection = match connection.map_or_else(|| schema::open_reader(file), Ok) {
        Ok(connection) => connection,
        Err(error) => return (None, fail_all(asks, &error.into())),
    };
    let mut answers = Vec::with_capacity(asks.len());
    let share = (BATCH_BYTES_MAX / asks.len().max(1)).max(SHARE_BYTES_MIN);
    let mut bytes_left = BATCH_BYTES_MAX;
    for ask in asks {
        if bytes_left == 0 {
            break;
        }
        let brought = bring(&connection, &ask, share.min(bytes_left)).map_err(ReadError::from);
        let bytes = brought.iter().flat_map(|brought| &brought.records).map(Record::bytes).sum();
        bytes_left = bytes_left.saturating_sub(bytes);
        answers.push(Answer { topic: ask.topic, brought });
    }
    let sound = answers.iter().all(|answer| answer.brought.is_ok());
    (sound.then_some(connection), answers)
}

fn fail_all(asks: Vec<Ask>, error: &ReadError) -> Vec<Answer> {
    asks.into_iter().map(|ask| Answer { topic: ask.topic, brought: Err(error.clone()) }).collect()
}

fn bring(connection: &Connection, ask: &Ask, bytes_max: usize) -> rusqlite::Result<Brought> {
    let snapshot = connection.unchecked_transaction()?;
    let ends = query::ends_of(&snapshot, ask.id, ask.end)?;
    let partition = Partition::new(&ask.topic, PARTITION);
    let (start, opened) = match ask.place {
        Place::At(at) => (at.max(ends.first), None),
        Place::Unopened(from) => {
            let next = from.max(ends.first);
            let before = query::newest_below(&snapshot, ask.id, next)?.map(|(_, time)| time);
            (next, Some(Opened { partition: partition.clone(), next, before }))
        }
    };
    let block = query::read_block(&snapshot, &ends, &partition, start..ask.end, bytes_max)?;
    Ok(Brought { opened, records: block.records, next: block.next })
}
