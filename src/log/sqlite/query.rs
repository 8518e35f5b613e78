//! What is asked of the log, each in one snapshot.

use std::ops::Range;

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};

use super::PARTITION;
use super::schema::TopicId;
use crate::log::{Block, PartitionEnds, ReadError};
use crate::model::{Offset, Partition, Record, Timestamp, Topic};

/// Records in one block: with tiny ones, bytes alone would not bound the time it takes.
const BLOCK_RECORDS_MAX: usize = 20_000;

/// A topic as a snapshot has it: its records are in `first..next`.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub(super) id: TopicId,
    pub(super) first: Offset,
    pub(super) next: Offset,
}

pub(super) fn check(connection: &Connection) -> Result<(), ReadError> {
    Ok(connection.query_row("SELECT count(*) FROM topics", [], |_| Ok(()))?)
}

pub(super) fn read(
    connection: &Connection,
    partition: &Partition,
    range: Range<Offset>,
    bytes_max: usize,
) -> Result<Block, ReadError> {
    match find(connection, partition)? {
        None => Ok(Block { records: Vec::new(), next: range.start }),
        Some(ends) if range.start < ends.first => Err(ReadError::Gone { first: ends.first }),
        Some(ends) => Ok(read_block(connection, &ends, partition, range, bytes_max)?),
    }
}

pub(super) fn ends(connection: &Connection, topics: &[Topic]) -> Result<Vec<PartitionEnds>, ReadError> {
    let mut found = Vec::new();
    for topic in topics {
        let partition = Partition::new(topic, PARTITION);
        if let Some(Ends { first, next, .. }) = find(connection, &partition)? {
            found.push(PartitionEnds { partition, first, next });
        }
    }
    Ok(found)
}

pub(super) fn at_time(connection: &Connection, wanted: &[(Partition, Timestamp)]) -> Result<Vec<Offset>, ReadError> {
    let place = |(partition, time): &(Partition, Timestamp)| match find(connection, partition)? {
        None => Ok(Offset(0)),
        Some(ends) => Ok(first_at(connection, &ends, *time)?),
    };
    wanted.iter().map(place).collect()
}

pub(super) fn before(
    connection: &Connection,
    partition: &Partition,
    at: Offset,
) -> Result<Option<(Offset, Timestamp)>, ReadError> {
    match find(connection, partition)? {
        None => Ok(None),
        Some(ends) => Ok(newest_below(connection, ends.id, at)?),
    }
}

fn find(connection: &Connection, partition: &Partition) -> rusqlite::Result<Option<Ends>> {
    if partition.index != PARTITION {
        return Ok(None);
    }
    let mut statement = connection.prepare_cached("SELECT id, next FROM topics WHERE name = ?")?;
    let topic = statement.query_row([partition.topic.as_str()], |row| Ok((TopicId(row.get(0)?), Offset(row.get(1)?))));
    topic.optional()?.map(|(id, next)| ends_of(connection, id, next)).transpose()
}

/// An empty topic begins where it ends.
pub(super) fn ends_of(connection: &Connection, id: TopicId, next: Offset) -> rusqlite::Result<Ends> {
    let sql = format!("SELECT min(offset) FROM {}", id.table());
    let first: Option<i64> = connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
    Ok(Ends { id, first: first.map_or(next, Offset), next })
}

pub(super) fn newest_below(
    connection: &Connection,
    id: TopicId,
    at: Offset,
) -> rusqlite::Result<Option<(Offset, Timestamp)>> {
    let sql = format!("SELECT offset, time FROM {} WHERE offset < ? ORDER BY offset DESC LIMIT 1", id.table());
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_row([at.0], |row| Ok((Offset(row.get(0)?), Timestamp(row.get(1)?)))).optional()
}

/// From `range.start` on, which retention has not passed.
pub(super) fn read_block(
    connection: &Connection,
    ends: &Ends,
    partition: &Partition,
    range: Range<Offset>,
    bytes_max: usize,
) -> rusqlite::Result<Block> {
    let table = ends.id.table();
    let sql = format!("SELECT offset, time, key, value FROM {table} WHERE offset >= ? AND offset < ? ORDER BY offset");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![range.start.0, range.end.0])?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let record = to_record(row, partition)?;
        let next = record.offset.after();
        bytes += record.bytes();
        records.push(record);
        if bytes >= bytes_max || records.len() >= BLOCK_RECORDS_MAX {
            return Ok(Block { records, next });
        }
    }
    // Nothing more in the range: its end, or the partition's.
    Ok(Block { records, next: range.end.min(ends.next).max(range.start) })
}

fn to_record(row: &Row<'_>, partition: &Partition) -> rusqlite::Result<Record> {
    Ok(Record {
        partition: partition.clone(),
        offset: Offset(row.get(0)?),
        time: Timestamp(row.get(1)?),
        key: to_bytes(row.get_ref(2)?)?,
        value: to_bytes(row.get_ref(3)?)?,
    })
}

fn to_bytes(value: ValueRef<'_>) -> rusqlite::Result<Option<Bytes>> {
    Ok(value.as_blob_or_null()?.map(Bytes::copy_from_slice))
}

/// Binary search for the first record whose `time_max` is at or after the time; it is the first whose `time` is, as
/// `time_max` takes a step only at a record that is itself as late. Where retention took that record, the oldest that is
/// left is found instead: earlier than needed, never later.
fn first_at(connection: &Connection, ends: &Ends, time: Timestamp) -> rusqlite::Result<Offset> {
    let sql = format!("SELECT offset, time_max FROM {} WHERE offset >= ? ORDER BY offset LIMIT 1", ends.id.table());
    let mut probe = connection.prepare_cached(&sql)?;
    let (mut low, mut high) = (ends.first, ends.next);
    while low < high {
        let middle = Offset(low.0 + (high.0 - low.0) / 2);
        match probe_at(&mut probe, middle)? {
            Some((found, time_max)) if time_max < time => low = found.after(),
            Some(_) | None => high = middle,
        }
    }
    Ok(probe_at(&mut probe, low)?.map_or(ends.next, |(found, _)| found))
}

fn probe_at(probe: &mut CachedStatement<'_>, from: Offset) -> rusqlite::Result<Option<(Offset, Timestamp)>> {
    probe.query_row([from.0], |row| Ok((Offset(row.get(0)?), Timestamp(row.get(1)?)))).optional()
}
