//! Batches on their way to the writer, bounded in number, bytes and time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio::sync::oneshot;

use crate::log::{AppendError, Appended};
use crate::model::{NewRecord, Topic};

/// Batches that wait or are being written. When full, appends are refused.
const BATCHES_MAX: usize = 4096;
/// Bytes of those batches. When full, appends are refused; one batch alone may be larger.
const BYTES_MAX: usize = 64 << 20;
/// What a record weighs beside its bytes.
const RECORD_OVERHEAD_BYTES: usize = 128;
/// A record with more is refused for good. SQLite could hold 1 GB; nobody could read it.
pub(super) const RECORD_BYTES_MAX: usize = 64 << 20;
/// Longest wait of a batch for the writer. Past it the batch is refused, and not written later either.
const QUEUE_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest wait for an answer: the queue, and a commit on a slow disk. Past it nobody knows.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(8);

pub(super) type Answers = Vec<Result<Appended, AppendError>>;

pub(super) enum Job {
    Append(Batch),
    /// Answered when the pass is over.
    Retain(oneshot::Sender<()>),
    /// Makes these topics.
    Make(Vec<Topic>, oneshot::Sender<Result<(), AppendError>>),
}

pub(super) struct Batch {
    pub(super) records: Vec<NewRecord>,
    pub(super) answer: oneshot::Sender<Answers>,
    pub(super) start_by: Instant,
    /// Given back with the batch: after the commit.
    _room: Room,
}

impl Batch {
    pub(super) fn bytes(&self) -> u64 {
        self.records.iter().map(|record| weight(record) as u64).sum()
    }

    /// The same answer for all of its records.
    pub(super) fn refuse(self, error: &AppendError) {
        let answers = refuse_all(self.records.len(), error);
        let _ = self.answer.send(answers);
    }
}

/// The appenders' end. The writer stops when it has taken what was queued before `close`.
pub(super) struct Queue {
    jobs: RwLock<Option<SyncSender<Job>>>,
    bytes: Arc<AtomicUsize>,
}

impl Queue {
    pub(super) fn new() -> (Self, Receiver<Job>) {
        let (jobs, writer_end) = sync_channel(BATCHES_MAX);
        (Self { jobs: RwLock::new(Some(jobs)), bytes: Arc::default() }, writer_end)
    }

    /// Too large a record never gets into the queue; the others are answered by the writer.
    pub(super) async fn append(&self, records: Vec<NewRecord>) -> Answers {
        let refused: Vec<Option<AppendError>> = records.iter().map(too_large).collect();
        let fitting = records.into_iter().zip(&refused).filter(|(_, refused)| refused.is_none());
        let mut answers = self.append_fitting(fitting.map(|(record, _)| record).collect()).await.into_iter();
        let mut answer = || answers.next().unwrap_or_else(|| Err(AppendError::Unknown("no answer".to_owned())));
        refused.into_iter().map(|refused| refused.map_or_else(&mut answer, Err)).collect()
    }

    async fn append_fitting(&self, records: Vec<NewRecord>) -> Answers {
        let count = records.len();
        if count == 0 {
            return Vec::new();
        }
        let answer = match self.enqueue(records) {
            Ok(answer) => answer,
            Err(error) => return refuse_all(count, &error),
        };
        match tokio::time::timeout(ANSWER_WAIT_MAX, answer).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(_)) => refuse_all(count, &AppendError::Unknown("the writer has stopped".to_owned())),
            Err(_) => refuse_all(count, &AppendError::Unknown(format!("no answer within {ANSWER_WAIT_MAX:?}"))),
        }
    }

    fn enqueue(&self, records: Vec<NewRecord>) -> Result<oneshot::Receiver<Answers>, AppendError> {
        let bytes = records.iter().map(weight).sum();
        let room = Room::take(&self.bytes, bytes).ok_or_else(full)?;
        let (answer, answered) = oneshot::channel();
        let start_by = Instant::now() + QUEUE_WAIT_MAX;
        self.send(Job::Append(Batch { records, answer, start_by, _room: room }))?;
        Ok(answered)
    }

    fn send(&self, job: Job) -> Result<(), AppendError> {
        let jobs = self.jobs.read();
        let jobs = jobs.as_ref().ok_or_else(|| AppendError::Busy("the log is closed".to_owned()))?;
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => full(),
            TrySendError::Disconnected(_) => AppendError::NotWritten("the writer has stopped".to_owned()),
        })
    }

    pub(super) async fn retain(&self) {
        let (done, over) = oneshot::channel();
        if self.send(Job::Retain(done)).is_ok() {
            let _ = over.await;
        }
    }

    pub(super) async fn make(&self, topics: Vec<Topic>) -> Result<(), AppendError> {
        let (answer, answered) = oneshot::channel();
        self.send(Job::Make(topics, answer))?;
        match tokio::time::timeout(ANSWER_WAIT_MAX, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(AppendError::Unknown("the writer has stopped".to_owned())),
            Err(_) => Err(AppendError::Unknown(format!("no answer within {ANSWER_WAIT_MAX:?}"))),
        }
    }

    /// Batches that have no answer yet, where each has a byte.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.bytes.load(Ordering::Acquire) / RECORD_OVERHEAD_BYTES
    }

    pub(super) fn close(&self) {
        self.jobs.write().take();
    }
}

fn full() -> AppendError {
    AppendError::Busy("too much waits for the disk: the writer's queue is full".to_owned())
}

fn refuse_all(count: usize, error: &AppendError) -> Answers {
    vec![Err(error.clone()); count]
}

fn weight(record: &NewRecord) -> usize {
    record.bytes() + RECORD_OVERHEAD_BYTES
}

fn too_large(record: &NewRecord) -> Option<AppendError> {
    let bytes = record.bytes();
    (bytes > RECORD_BYTES_MAX)
        .then(|| AppendError::TooLarge(format!("{bytes} bytes, and the log takes at most {RECORD_BYTES_MAX}")))
}

/// Bytes of the queue that one batch takes up.
struct Room {
    bytes: usize,
    taken: Arc<AtomicUsize>,
}

impl Room {
    fn take(taken: &Arc<AtomicUsize>, bytes: usize) -> Option<Self> {
        let fits = |taken: usize| (taken == 0 || taken + bytes <= BYTES_MAX).then_some(taken + bytes);
        taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        Some(Self { bytes, taken: taken.clone() })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Timestamp, Topic};

    fn record(bytes: usize) -> NewRecord {
        let value = Some(vec![0; bytes].into());
        NewRecord { topic: Topic::new("t"), time: Timestamp(0), key: None, value }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_batch_that_is_answered_makes_room() {
        let (queue, jobs) = Queue::new();
        let first = queue.enqueue(vec![record(BYTES_MAX - 1000)]).expect("the queue is empty");

        let refused = queue.append(vec![record(1000)]).await;
        assert!(matches!(refused[..], [Err(AppendError::Busy(_))]), "{refused:?}");

        let Ok(Job::Append(batch)) = jobs.recv() else { panic!("a batch was queued") };
        batch.refuse(&full());
        assert!(first.await.is_ok());
        assert!(queue.enqueue(vec![record(1000)]).is_ok());
    }

    #[tokio::test]
    async fn so_many_batches_wait_and_no_more() {
        let (queue, _jobs) = Queue::new();
        let waiting: Vec<_> = (0..BATCHES_MAX).map(|_| queue.enqueue(vec![record(1)])).collect();
        assert!(waiting.iter().all(Result::is_ok));
        assert_eq!(queue.enqueue(vec![record(1)]).err(), Some(full()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_does_not_answer_is_not_waited_for_without_end() {
        let (queue, _jobs) = Queue::new();
        let answers = queue.append(vec![record(1), record(RECORD_BYTES_MAX + 1)]).await;
        assert!(matches!(answers[..], [Err(AppendError::Unknown(_)), Err(AppendError::TooLarge(_))]), "{answers:?}");
    }
}
