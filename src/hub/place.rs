//! Where a reader starts: live, a time, or an id, resolved against the ring where it can be and the log where it must.

use std::collections::HashMap;
use std::fmt::Write;

use super::channel::Channel;
use super::{From, Shared};
use crate::log::{PartitionEnds, ReadError};
use crate::model::{AskedPlace, Bookmark, ClientId, ClientKey, Mark, Offset, Partition, Place, Timestamp};

/// How far before an id's newest time a partition starts that the id does not mention: record times are producers'
/// clocks.
const UNMENTIONED_MARGIN_MS: i64 = 60_000;
/// Longest notice, in bytes: it is a response header too.
const NOTICE_BYTES_MAX: usize = 1024;

/// A reader's place, and what it has to be told about it.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) bookmark: Bookmark,
    pub(super) notice: Option<String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ResolveError {
    #[error("the id names no partition of these streams")]
    ForeignId,
    #[error(transparent)]
    Log(#[from] ReadError),
}

/// Where to start in one partition, before the log has been asked.
enum Start {
    At(Offset),
    Time(Timestamp),
}

/// The place as far as memory alone can tell: the common case of readers that return within the ring, and of live ones.
pub(super) fn from_ring(shared: &Shared, channel: &Channel, from: &From) -> Option<Bookmark> {
    if channel.may_lack_a_topic() {
        return None;
    }
    match from {
        // The log's own end, asked for when it is back, would leave out what came between: a reader that is here already
        // has a right to it.
        From::Live => shared.began().then(|| channel.with_ring(|ring| ring.tip())),
        _ if !shared.caught_up() => None,
        From::Since(time) => (*time >= Timestamp::now()).then(|| channel.with_ring(|ring| ring.tip())),
        From::Id(id) => channel.with_ring(|ring| {
            let asked: HashMap<&Partition, &Mark> = id.places().iter().map(|p| (&p.partition, &p.mark)).collect();
            let place = |partition: &Partition| match asked.get(partition)? {
                Mark::At { next, before } => {
                    let known = ring.time_before(partition, *next)?;
                    (before.is_none() || known == *before).then(|| Place {
                        partition: partition.clone(),
                        next: *next,
                        before: known,
                    })
                }
                _ => None,
            };
            let places: Option<Vec<Place>> = ring.partitions().map(place).collect();
            places.filter(|places| places.len() == asked.len()).map(Bookmark::new)
        }),
    }
}

/// The place as the log tells it.
pub(super) async fn from_log(
    shared: &Shared,
    channel: &Channel,
    from: &From,
    client: &ClientKey,
) -> Result<Resolved, ResolveError> {
    let ends = shared.log.ends(channel.set.topics()).await?;
    let mut resolver = Resolver { shared, channel, client, notice: String::new() };
    let starts = match from {
        From::Live => ends.iter().map(|ends| Start::At(ends.next)).collect(),
        From::Since(time) if *time >= Timestamp::now() => ends.iter().map(|ends| Start::At(ends.next)).collect(),
        From::Since(time) => ends.iter().map(|_| Start::Time(*time)).collect(),
        From::Id(id) => resolver.starts_of(id, &ends).await?,
    };
    let offsets = resolver.offsets(&ends, starts).await?;
    if let From::Since(time) = from {
        resolver.note_if_too_old(*time, &ends, &offsets).await?;
    }
    let mut places = Vec::with_capacity(ends.len());
    for (ends, next) in ends.iter().zip(offsets) {
        let before = resolver.time_before(&ends.partition, next).await?;
        places.push(Place { partition: ends.partition.clone(), next, before });
    }
    let notice = Some(resolver.notice).filter(|notice| !notice.is_empty());
    Ok(Resolved { bookmark: Bookmark::new(places), notice })
}

struct Resolver<'a> {
    shared: &'a Shared,
    channel: &'a Channel,
    /// Whose turn the reads of the log are.
    client: &'a ClientKey,
    notice: String,
}

impl Resolver<'_> {
    /// One start for each partition that the log has, as the id says.
    async fn starts_of(&mut self, id: &ClientId, ends: &[PartitionEnds]) -> Result<Vec<Start>, ResolveError> {
        let asked: HashMap<&Partition, &AskedPlace> =
            id.places().iter().map(|place| (&place.partition, place)).collect();
        self.note_left_out(id, ends)?;
        let newest = id.newest();
        let mut starts = Vec::with_capacity(ends.len());
        for ends in ends {
            let start = match asked.get(&ends.partition).map(|place| &place.mark) {
                Some(Mark::Oldest) => Start::At(ends.first),
                // EventStreams' form holds the time of the last record plus one: one may repeat, none is lost.
                Some(Mark::AfterTime(time)) => Start::Time(time.minus_ms(1)),
                Some(Mark::At { next, before }) => self.checked(ends, *next, *before).await?,
                // A partition that was quiet (`-1`), or that the id does not know.
                Some(Mark::Live) | None => match newest {
                    Some(time) => Start::Time(time.minus_ms(UNMENTIONED_MARGIN_MS)),
                    None => Start::At(ends.next),
                },
            };
            starts.push(start);
        }
        Ok(starts)
    }

    /// An offset is believed if the record before it has the time that the id says, or that time less the one that
    /// EventStreams adds. Another time means another cluster's id, whose offsets are other records.
    async fn checked(
        &mut self,
        ends: &PartitionEnds,
        next: Offset,
        before: Option<Timestamp>,
    ) -> Result<Start, ReadError> {
        let partition = &ends.partition;
        if next < ends.first {
            self.note(format_args!("{partition} asked offset {next}, the oldest kept is {}", ends.first));
            return Ok(Start::At(ends.first));
        }
        if next > ends.next {
            let given = if before.is_some() { "resumed by time" } else { "resumed live" };
            self.note(format_args!("{partition} asked offset {next}, past the end {}: {given}", ends.next));
            return Ok(before.map_or(Start::At(ends.next), Start::Time));
        }
        let Some(said) = before else { return Ok(Start::At(next)) };
        match self.time_before(partition, next).await? {
            Some(time) if time != said && time != said.minus_ms(1) => {
                self.note(format_args!("{partition} offset {next} is another record here: resumed by its time {said}"));
                Ok(Start::Time(said))
            }
            _ => Ok(Start::At(next)),
        }
    }

    async fn offsets(&self, ends: &[PartitionEnds], starts: Vec<Start>) -> Result<Vec<Offset>, ReadError> {
        let by_time = |(ends, start): (&PartitionEnds, &Start)| match start {
            Start::Time(time) => Some((ends.partition.clone(), *time)),
            Start::At(_) => None,
        };
        let asked: Vec<(Partition, Timestamp)> = ends.iter().zip(&starts).filter_map(by_time).collect();
        let found = if asked.is_empty() { Vec::new() } else { self.shared.log.at_time(&asked).await? };
        let mut found = found.into_iter();
        let offset = |(ends, start): (&PartitionEnds, Start)| match start {
            Start::At(offset) => offset,
            Start::Time(_) => found.next().map_or(ends.next, |offset| offset.max(ends.first)),
        };
        Ok(ends.iter().zip(starts).map(offset).collect())
    }

    async fn time_before(&self, partition: &Partition, at: Offset) -> Result<Option<Timestamp>, ReadError> {
        match self.channel.with_ring(|ring| ring.time_before(partition, at)) {
            Some(known) => Ok(known),
            None => self.shared.catchup.time_before(self.client, partition, at).await,
        }
    }

    /// A reader whose entries are all foreign asked for something else than it will get; one that has some of its own
    /// is told what was left out.
    fn note_left_out(&mut self, id: &ClientId, ends: &[PartitionEnds]) -> Result<(), ResolveError> {
        let known = |place: &&AskedPlace| ends.iter().any(|ends| ends.partition == place.partition);
        let in_log =
            ends.iter().any(|ends| id.places().iter().any(|place| place.partition.topic == ends.partition.topic));
        if in_log && !id.places().iter().any(|place| known(&place)) {
            return Err(ResolveError::ForeignId);
        }
        let left_out: Vec<_> = id.places().iter().filter(|place| !known(place)).collect();
        for place in left_out {
            self.note(format_args!("{} is not part of these streams: left out", place.partition));
        }
        Ok(())
    }

    /// `since` before the oldest record of a partition that has lost some: what was asked is not what is given.
    async fn note_if_too_old(
        &mut self,
        asked: Timestamp,
        ends: &[PartitionEnds],
        offsets: &[Offset],
    ) -> Result<(), ReadError> {
        for (ends, offset) in ends.iter().zip(offsets) {
            if *offset != ends.first || ends.first.0 == 0 || ends.first == ends.next {
                continue;
            }
            let block = self.shared.catchup.block(self.client, &ends.partition, ends.first).await;
            let oldest = block.ok().and_then(|block| block.entries_from(ends.first).first().map(|entry| entry.time));
            if let Some(oldest) = oldest.filter(|oldest| *oldest > asked) {
                self.note(format_args!("{} asked since {asked}, the oldest kept is of {oldest}", ends.partition));
            }
        }
        Ok(())
    }

    /// Topic names in notices may come from the client: only printable ASCII goes out.
    fn note(&mut self, text: std::fmt::Arguments<'_>) {
        if self.notice.len() >= NOTICE_BYTES_MAX {
            return;
        }
        let mut line = String::new();
        let _ = write!(line, "{}{text}", if self.notice.is_empty() { "" } else { "; " });
        let printable = line.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' });
        self.notice.extend(printable.take(NOTICE_BYTES_MAX - self.notice.len()));
    }
}
