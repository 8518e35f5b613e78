//! One transaction of the writer: everything that waited, or nothing of it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::{Connection, Transaction, TransactionBehavior, ffi, params};

use super::PARTITION;
use super::heads::{Head, Heads};
use super::queue::Answers;
use super::schema::{TopicId, create_records_sql};
use crate::log::{AppendError, Appended};
use crate::model::{NewRecord, Offset, Partition, Timestamp, Topic};

/// Topics in one file; names come from the catalogue, so this is a fuse. Past it records of new topics are refused.
const TOPICS_MAX: usize = 10_000;

pub(super) struct Group<'a> {
    transaction: Transaction<'a>,
    heads: &'a Heads,
    /// The ends as this transaction leaves them. Dropped with it, so that a rollback takes no offset away.
    changed: HashMap<Topic, Head>,
    topics: usize,
    appended: Timestamp,
}

impl<'a> Group<'a> {
    pub(super) fn begin(
        connection: &'a mut Connection,
        heads: &'a Heads,
        appended: Timestamp,
    ) -> rusqlite::Result<Self> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        Ok(Self { transaction, heads, changed: HashMap::new(), topics: heads.count(), appended })
    }

    /// The answers hold once the group is committed. An error spoils the whole group.
    pub(super) fn insert(&mut self, records: &[NewRecord]) -> rusqlite::Result<Answers> {
        records.iter().map(|record| self.insert_one(record)).collect()
    }

    fn insert_one(&mut self, record: &NewRecord) -> rusqlite::Result<Result<Appended, AppendError>> {
        let Some(head) = self.advance(&record.topic, record.time)? else {
            return Ok(Err(AppendError::NotWritten(format!("the log has {TOPICS_MAX} topics and takes no more"))));
        };
        let sql = format!("INSERT INTO {} VALUES (?, ?, ?, ?, ?, ?)", head.id.table());
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let row = params![head.next.0, record.time.0, head.time_max.0, self.appended.0, key, value];
        self.transaction.prepare_cached(&sql)?.execute(row)?;
        Ok(Ok(Appended { partition: Partition::new(&record.topic, PARTITION), offset: head.next }))
    }

    /// Takes one offset of the topic; the head returned is the one before it was taken, with the time counted in.
    fn advance(&mut self, topic: &Topic, time: Timestamp) -> rusqlite::Result<Option<Head>> {
        let head = match self.changed.entry(topic.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => match self.heads.get(topic) {
                Some(head) => vacant.insert(head),
                None if self.topics >= TOPICS_MAX => return Ok(None),
                None => {
                    self.topics += 1;
                    vacant.insert(create(&self.transaction, topic)?)
                }
            },
        };
        head.time_max = head.time_max.max(time);
        let taken = *head;
        head.next = head.next.after();
        Ok(Some(taken))
    }

    /// Durable when this returns `Ok`: the new ends of the topics it touched.
    pub(super) fn commit(self) -> Result<HashMap<Topic, Head>, AppendError> {
        self.store_ends().map_err(|error| not_written(&error))?;
        self.transaction.commit().map_err(|error| not_committed(&error))?;
        Ok(self.changed)
    }

    fn store_ends(&self) -> rusqlite::Result<()> {
        let mut statement = self.transaction.prepare_cached("UPDATE topics SET next = ? WHERE id = ?")?;
        self.changed.values().try_for_each(|head| statement.execute(params![head.next.0, head.id.0]).map(|_| ()))
    }
}

/// Makes the topics that do not exist yet, empty, and brings their ends. Past the most there can be no more are made.
pub(super) fn create_missing(connection: &mut Connection, topics: &[Topic]) -> rusqlite::Result<HashMap<Topic, Head>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let there: i64 = transaction.query_row("SELECT count(*) FROM topics", [], |row| row.get(0))?;
    let room = TOPICS_MAX.saturating_sub(usize::try_from(there).unwrap_or(usize::MAX));
    let mut made = HashMap::new();
    for topic in topics {
        let exists = "SELECT EXISTS (SELECT 1 FROM topics WHERE name = ?)";
        let exists = transaction.query_row(exists, params![topic.as_str()], |row| row.get::<_, bool>(0))?;
        if !exists && made.len() < room {
            made.insert(topic.clone(), create(&transaction, topic)?);
        }
    }
    transaction.commit()?;
    Ok(made)
}

fn create(transaction: &Transaction<'_>, topic: &Topic) -> rusqlite::Result<Head> {
    transaction.execute("INSERT INTO topics (name, next) VALUES (?, 0)", params![topic.as_str()])?;
    let id = TopicId(transaction.last_insert_rowid());
    transaction.execute_batch(&create_records_sql(id))?;
    Ok(Head { id, next: Offset(0), time_max: Timestamp(i64::MIN) })
}

pub(super) fn not_written(error: &rusqlite::Error) -> AppendError {
    AppendError::NotWritten(error.to_string())
}

/// A commit that fails is rolled back, with one exception: when only the fsync failed, the whole transaction may already
/// be in the write-ahead log, commit mark and all. The next commit overwrites it; a crash before that would find it.
fn not_committed(error: &rusqlite::Error) -> AppendError {
    match error.sqlite_error().map(|error| error.extended_code) {
        Some(ffi::SQLITE_IOERR_FSYNC) => AppendError::Unknown(error.to_string()),
        _ => not_written(error),
    }
}
