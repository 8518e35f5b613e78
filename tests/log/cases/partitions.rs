//! Topics with several partitions: for engines that have them.

use std::collections::BTreeSet;

use bytes::Bytes;
use sluice::log::PartitionEnds;
use sluice::model::{NewRecord, Offset, Topic};

use crate::engine::Engine;
use crate::story::*;

const PARTITIONS: i32 = 3;
/// So many that every one of a few partitions gets some.
const KEYS: u32 = 60;

fn keyed(topic: &Topic, numbers: std::ops::Range<u32>) -> Vec<NewRecord> {
    let key = |number: u32| Some(Bytes::from(format!("key {number}")));
    numbers.map(|number| NewRecord { key: key(number), ..record(topic, &number.to_string()) }).collect()
}

async fn several<E: Engine>(engine: &E) -> Topic {
    let topic = engine.unused_topic();
    engine.create(&topic, PARTITIONS).await;
    topic
}

pub(crate) async fn one_key_stays_in_one_partition<E: Engine>(engine: E) {
    let topic = several(&engine).await;

    let first = append_places(&*engine.log(), keyed(&topic, 0..KEYS)).await;
    let second = append_places(&*engine.log(), keyed(&topic, 0..KEYS)).await;

    let indexes =
        |places: &[sluice::log::Appended]| places.iter().map(|place| place.partition.index).collect::<Vec<_>>();
    assert_eq!(indexes(&first), indexes(&second));
    assert_eq!(indexes(&first).into_iter().collect::<BTreeSet<_>>(), (0..PARTITIONS).collect());
}

pub(crate) async fn every_partition_has_its_own_ends<E: Engine>(engine: E) {
    let topic = several(&engine).await;
    let places = append_places(&*engine.log(), keyed(&topic, 0..KEYS)).await;

    let ends = engine.log().ends(std::slice::from_ref(&topic)).await.expect("the log is asked");

    assert_eq!(ends.len(), PARTITIONS.unsigned_abs() as usize);
    for PartitionEnds { partition, first, next } in ends {
        let own = places.iter().filter(|place| place.partition == partition);
        assert_eq!((first, next), (Offset(0), own.map(|place| place.offset.after()).max().unwrap_or_default()));
        let records = read_from(&*engine.log(), &partition, first, BLOCK_BYTES).await;
        assert_eq!(records.len(), places.iter().filter(|place| place.partition == partition).count());
    }
}

pub(crate) async fn a_tail_follows_every_partition<E: Engine>(engine: E) {
    let topic = several(&engine).await;
    append(&*engine.log(), keyed(&topic, 0..KEYS)).await;
    let mut tail = Watched::open(&*engine.log(), &[&topic], 1_000).await;

    tail.until_caught_up().await;
    append(&*engine.log(), keyed(&topic, KEYS..2 * KEYS)).await;
    tail.until_records(2 * KEYS as usize).await;

    assert_eq!(tail.opened.len(), PARTITIONS.unsigned_abs() as usize, "the quiet ones too");
    assert_eq!(tail.values().into_iter().collect::<BTreeSet<_>>().len(), 2 * KEYS as usize);
}

pub(crate) async fn a_partition_added_is_followed_from_its_first_record<E: Engine>(engine: E) {
    let topic = engine.unused_topic();
    engine.create(&topic, 1).await;
    append(&*engine.log(), keyed(&topic, 0..KEYS)).await;
    let mut tail = Watched::open(&*engine.log(), &[&topic], 0).await;
    tail.until_caught_up().await;

    engine.add_partitions(&topic, PARTITIONS).await;
    // Producers learn of new partitions in their own time; every record must come, wherever it went.
    let mut sent = KEYS;
    while tail.opened.len() < PARTITIONS.unsigned_abs() as usize {
        append(&*engine.log(), keyed(&topic, sent..sent + KEYS)).await;
        sent += KEYS;
        tail.until_records((sent - KEYS) as usize).await;
    }

    for opened in tail.opened.iter().filter(|opened| opened.partition.index > 0) {
        assert_eq!((opened.next, opened.before), (Offset(0), None));
    }
    let came: BTreeSet<_> = tail.values().into_iter().collect();
    assert_eq!(came, numbers(KEYS..sent).into_iter().collect());
}
