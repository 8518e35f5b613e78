//! The oldest records go, by age and by bytes, and their space goes back to the file system.
//!
//! A pass takes many small steps, so that an append never waits longer than one of them: first records are deleted,
//! oldest first over all topics; then the file's free pages are cut off; then the write-ahead log is emptied.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::oneshot;

use super::Options;
use super::heads::Heads;
use super::queue::Batch;
use super::schema::{self, TopicId};
use crate::database::pragma;
use crate::model::{Offset, Timestamp};

/// From the end of a pass to the start of the next, if appends do not call it earlier.
const PASS_EVERY: Duration = Duration::from_secs(60);
/// A pass starts early when this part of `retention_bytes` was appended: the file stays near its limit under load too.
const PASS_EVERY_PART: u64 = 16;
/// A pass starts early after so many bytes in any case: until it, readers who overlap may keep the write-ahead log from
/// starting over, and it grows.
const PASS_EVERY_BYTES: u64 = 256 << 20;
/// Records and bytes deleted in one step: some ten milliseconds.
const STEP_RECORDS_MAX: usize = 1_000;
const STEP_BYTES_MAX: u64 = 8 << 20;
/// What a record takes in the file beside its key and value, at least.
const RECORD_OVERHEAD_BYTES: u64 = 16;
/// Pages moved and cut off in one step.
const STEP_PAGES_MAX: i64 = 1_024;
/// Free pages that stay in the file: the next appends fill them, and cutting off all would write every page twice.
const FREE_PAGES_KEPT: i64 = 256;
const FREE_PAGES_KEPT_PART: i64 = 8;
/// Longest wait for readers to leave the write-ahead log. Appends wait too.
const READERS_WAIT_MAX: Duration = Duration::from_millis(250);
/// A write-ahead log that cannot be emptied is worth a warning from this size on.
const WAL_BYTES_WARN: i64 = 1 << 30;

pub(super) struct Retention {
    age: Option<Duration>,
    bytes: Option<u64>,
    due: Instant,
    bytes_since_pass: u64,
    phase: Option<Phase>,
    waiting: Vec<oneshot::Sender<()>>,
}

enum Phase {
    Begin,
    Delete(Fronts),
    GiveBack,
}

impl Retention {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            age: Some(options.retention_age).filter(|age| !age.is_zero()),
            bytes: Some(options.retention_bytes).filter(|bytes| *bytes > 0),
            due: Instant::now(),
            bytes_since_pass: 0,
            phase: None,
            waiting: Vec::new(),
        }
    }

    /// How long there is nothing to do.
    pub(super) fn wait(&self) -> Duration {
        match self.phase {
            Some(_) => Duration::ZERO,
            None => self.due.saturating_duration_since(Instant::now()),
        }
    }

    /// A pass from its beginning, whatever is under way.
    pub(super) fn begin(&mut self) {
        self.phase = Some(Phase::Begin);
    }

    pub(super) fn ask(&mut self, done: oneshot::Sender<()>) {
        self.waiting.push(done);
        self.begin();
    }

    pub(super) fn appended(&mut self, batches: &[Batch]) {
        self.bytes_since_pass += batches.iter().map(Batch::bytes).sum::<u64>();
        let part = self.bytes.map_or(PASS_EVERY_BYTES, |limit| limit / PASS_EVERY_PART);
        if self.phase.is_none() && self.bytes_since_pass > part.min(PASS_EVERY_BYTES) {
            self.begin();
        }
    }

    /// One step, if there is something to do. A pass that fails is tried again when the next is due.
    pub(super) fn step(&mut self, connection: &mut Connection, heads: &Heads, now: Timestamp) {
        if self.phase.is_none() && self.due <= Instant::now() {
            self.begin();
        }
        let Some(phase) = self.phase.take() else { return };
        let bounds = Bounds { expired_below: self.expired_below(now), bytes: self.bytes };
        match next_phase(phase, connection, heads, &bounds) {
            Ok(Some(next)) => self.phase = Some(next),
            Ok(None) => self.end(),
            Err(error) => {
                tracing::warn!(%error, "old events could not be deleted; tried again in {PASS_EVERY:?}");
                self.end();
            }
        }
    }

    fn expired_below(&self, now: Timestamp) -> Timestamp {
        let ms = |age: Duration| i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        self.age.map_or(Timestamp(i64::MIN), |age| now.minus_ms(ms(age)))
    }

    fn end(&mut self) {
        self.due = Instant::now() + PASS_EVERY;
        self.bytes_since_pass = 0;
        for done in self.waiting.drain(..) {
            let _ = done.send(());
        }
    }
}

struct Bounds {
    expired_below: Timestamp,
    bytes: Option<u64>,
}

fn next_phase(
    phase: Phase,
    connection: &mut Connection,
    heads: &Heads,
    bounds: &Bounds,
) -> rusqlite::Result<Option<Phase>> {
    match phase {
        Phase::Begin => Ok(Some(Phase::Delete(Fronts::load(connection, heads)?))),
        Phase::Delete(mut fronts) => {
            let deleted = delete_step(connection, &mut fronts, bounds)?;
            Ok(Some(if deleted { Phase::Delete(fronts) } else { Phase::GiveBack }))
        }
        Phase::GiveBack => match vacuum_step(connection)? {
            true => Ok(Some(Phase::GiveBack)),
            false => empty_wal(connection).map(|()| None),
        },
    }
}

/// The oldest record of each topic that has any.
struct Fronts(Vec<Front>);

#[derive(Clone, Copy)]
struct Front {
    topic: TopicId,
    appended: Timestamp,
}

impl Fronts {
    fn load(connection: &Connection, heads: &Heads) -> rusqlite::Result<Self> {
        let front = |topic: TopicId| {
            let sql = format!("SELECT appended FROM {} ORDER BY offset LIMIT 1", topic.table());
            let appended = connection.prepare_cached(&sql)?.query_row([], |row| row.get(0)).optional()?;
            Ok(appended.map(|appended| Front { topic, appended: Timestamp(appended) }))
        };
        heads.ids().into_iter().filter_map(|id| front(id).transpose()).collect::<rusqlite::Result<_>>().map(Self)
    }

    /// Takes out the topic with the oldest record.
    fn pop_oldest(&mut self) -> Option<Front> {
        let (at, _) = self.0.iter().enumerate().min_by_key(|(_, front)| front.appended)?;
        Some(self.0.swap_remove(at))
    }

    fn oldest_appended(&self) -> Timestamp {
        self.0.iter().map(|front| front.appended).min().unwrap_or(Timestamp(i64::MAX))
    }
}

/// What one step may still delete.
struct Budget {
    records: usize,
    bytes: u64,
    /// Bytes over the limit: what must go however young it is.
    excess: u64,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.records == 0 || self.bytes == 0
    }

    fn spend(&mut self, bytes: u64) {
        self.records -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.excess = self.excess.saturating_sub(bytes);
    }
}

/// Whether anything was deleted: then there may be more.
fn delete_step(connection: &mut Connection, fronts: &mut Fronts, bounds: &Bounds) -> rusqlite::Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let excess = bytes_in_use(&transaction)?.saturating_sub(bounds.bytes.unwrap_or(u64::MAX));
    let mut budget = Budget { records: STEP_RECORDS_MAX, bytes: STEP_BYTES_MAX, excess };
    let mut deleted = false;
    while !budget.is_spent() {
        let Some(front) = fronts.pop_oldest() else { break };
        if front.appended >= bounds.expired_below && budget.excess == 0 {
            fronts.0.push(front);
            break;
        }
        let younger_than = fronts.oldest_appended();
        fronts.0.extend(delete_run(&transaction, front.topic, younger_than, bounds, &mut budget)?);
        deleted = true;
    }
    transaction.commit()?;
    Ok(deleted)
}

/// Deletes the topic's oldest records, in turn with other topics' where bytes are the reason. Returns its new front.
fn delete_run(
    transaction: &Transaction<'_>,
    topic: TopicId,
    turn_until: Timestamp,
    bounds: &Bounds,
    budget: &mut Budget,
) -> rusqlite::Result<Option<Front>> {
    let table = topic.table();
    let sql = format!(
        "SELECT offset, appended, coalesce(length(key), 0) + coalesce(length(value), 0) FROM {table} ORDER BY offset"
    );
    let mut statement = transaction.prepare_cached(&sql)?;
    let mut rows = statement.query([])?;
    let mut below = Offset(i64::MIN);
    let mut front = None;
    while let Some(row) = rows.next()? {
        let (offset, appended) = (Offset(row.get(0)?), Timestamp(row.get(1)?));
        let must_go = appended < bounds.expired_below || (budget.excess > 0 && appended <= turn_until);
        if !must_go || budget.is_spent() {
            front = Some(Front { topic, appended });
            break;
        }
        budget.spend(u64::from(row.get::<_, u32>(2)?) + RECORD_OVERHEAD_BYTES);
        below = offset.after();
    }
    drop(rows);
    transaction.prepare_cached(&format!("DELETE FROM {table} WHERE offset < ?"))?.execute(params![below.0])?;
    Ok(front)
}

/// Pages in use and not the bytes of the records: it is the disk that an operator has a limit for, and the number is at
/// hand without a count that could drift.
fn bytes_in_use(connection: &Connection) -> rusqlite::Result<u64> {
    let pages = pragma(connection, "page_count")? - pragma(connection, "freelist_count")?;
    let bytes = pages * pragma(connection, "page_size")?;
    Ok(u64::try_from(bytes).unwrap_or_default())
}

/// Cuts off some free pages, if there are more than are kept. The file itself shrinks at the next checkpoint.
fn vacuum_step(connection: &Connection) -> rusqlite::Result<bool> {
    let free = pragma(connection, "freelist_count")?;
    let in_use = pragma(connection, "page_count")? - free;
    let surplus = free - FREE_PAGES_KEPT.max(in_use / FREE_PAGES_KEPT_PART);
    if surplus <= 0 {
        return Ok(false);
    }
    // Every step of the statement cuts off one page: it must be run to its end.
    let sql = format!("PRAGMA incremental_vacuum({})", surplus.min(STEP_PAGES_MAX));
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(true)
}

/// Empties the write-ahead log. Waits a moment for the readers who are in it: new ones find all in the file and are not
/// in the way. If one stays (a shell with an open transaction), the next pass tries again.
fn empty_wal(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(READERS_WAIT_MAX)?;
    let pages = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(1));
    connection.busy_timeout(schema::BUSY_WAIT_MAX)?;
    let bytes = pages? * pragma(connection, "page_size")?;
    if bytes > WAL_BYTES_WARN {
        tracing::warn!(
            bytes,
            "the log's -wal file grows: a program that reads the log keeps a transaction open; end it"
        );
    }
    Ok(())
}
