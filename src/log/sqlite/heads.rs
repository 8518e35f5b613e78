//! Which topics exist and where they end: what the writer knows and the tails watch.

use std::collections::HashMap;

use parking_lot::RwLock;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::watch;

use super::schema::TopicId;
use crate::model::{Offset, Timestamp, Topic};

/// The end of one topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) id: TopicId,
    /// The offset of the next record.
    pub(super) next: Offset,
    /// The largest time of any record so far.
    pub(super) time_max: Timestamp,
}

/// The committed end of every topic. Only the writer advances it, after a commit, or who waits to
/// be it: what stands here can be read.
pub(super) struct Heads {
    topics: RwLock<HashMap<Topic, Head>>,
    commits: watch::Sender<()>,
}

impl Heads {
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Self { topics: RwLock::new(read(connection)?), commits: watch::Sender::new(()) })
    }

    /// Where another process writes, or has written until now.
    pub(super) fn load_again(&self, connection: &Connection) -> rusqlite::Result<()> {
        self.advance(read(connection)?);
        Ok(())
    }

    pub(super) fn get(&self, topic: &Topic) -> Option<Head> {
        self.topics.read().get(topic).copied()
    }

    pub(super) fn count(&self) -> usize {
        self.topics.read().len()
    }

    pub(super) fn ids(&self) -> Vec<TopicId> {
        self.topics.read().values().map(|head| head.id).collect()
    }

    pub(super) fn advance(&self, changed: HashMap<Topic, Head>) {
        self.topics.write().extend(changed);
        self.commits.send_replace(());
    }

    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.commits.subscribe()
    }
}

fn read(connection: &Connection) -> rusqlite::Result<HashMap<Topic, Head>> {
    let mut statement = connection.prepare("SELECT name, id, next FROM topics")?;
    let rows = statement.query_map([], |row| {
        let name: String = row.get(0)?;
        Ok((Topic::new(&name), TopicId(row.get(1)?), Offset(row.get(2)?)))
    })?;
    let topics = rows.map(|row| {
        let (topic, id, next) = row?;
        Ok((topic, load_head(connection, id, next)?))
    });
    topics.collect()
}

/// A topic without records has forgotten its largest time, and rightly so: it only has to grow over the records that
/// are still there.
fn load_head(connection: &Connection, id: TopicId, next: Offset) -> rusqlite::Result<Head> {
    let sql = format!("SELECT offset, time_max FROM {} ORDER BY offset DESC LIMIT 1", id.table());
    let newest = connection.query_row(&sql, [], |row| Ok((Offset(row.get(0)?), Timestamp(row.get(1)?)))).optional()?;
    Ok(match newest {
        Some((offset, time_max)) => Head { id, next: next.max(offset.after()), time_max },
        None => Head { id, next, time_max: Timestamp(i64::MIN) },
    })
}
