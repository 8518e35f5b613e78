//! A partition that the log begins anew under its readers, on a log in memory.

use std::task::Poll;
use std::time::Duration;

use super::place_test::host;
use super::testing::who;
use super::{End, From, Next};
use crate::log::TailBatch;
use crate::model::{ClientId, Offset, Timestamp};

#[tokio::test(start_paused = true)]
async fn a_partition_begun_anew_gives_its_bytes_back() {
    let host = host();
    let _reader = host.hub.subscribe(&host.set, From::Live, who()).expect("the channel opens with its first reader");
    let opened = vec![host.log.opened(&host.a, Offset(0))];
    let records = host.log.records(&host.a, Offset(0)..Offset(10));
    host.feed(TailBatch { opened, records, caught_up: true }).await;
    assert!(host.hub.shared.channels.lock().counted_and_held().0 > 0);
    let opened = vec![host.log.opened(&host.a, Offset(0))];
    host.feed(TailBatch { opened, records: vec![], caught_up: false }).await;
    assert_eq!(host.hub.shared.channels.lock().counted_and_held(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_place_that_was_known_before_its_partition_was_begun_anew_gives_nothing_of_what_is_there_now() {
    let host = host();
    let at_id = |a: i64, time: i64| {
        let id = format!(
            r#"[{{"topic":"a.t","partition":0,"offset":{a},"timestamp":{time}}},{{"topic":"b.t","partition":0,"offset":1,"timestamp":1005000}}]"#
        );
        From::Id(ClientId::parse(&id, host.set.topics()).expect("well-formed"))
    };
    let _reader = host.hub.subscribe(&host.set, From::Live, who()).expect("the channel opens with its first reader");
    let opened = vec![host.log.opened(&host.a, Offset(5)), host.log.opened(&host.b, Offset(1))];
    let records = host.log.records(&host.a, Offset(5)..Offset(10));
    host.feed(TailBatch { opened, records, caught_up: true }).await;
    let worker = host.hub.worker(Duration::ZERO);
    let mut found = Vec::new();

    // One that has had nothing yet, one that stands where the ring does, one that reads the log, and one whose place is still
    // asked of it.
    let mut behind = host.subscribe(at_id(7, 1_006_000)).await.expect("a place");
    let mut live = host.subscribe(at_id(9, 1_008_000)).await.expect("a place");
    let turn = live.enter(&worker);
    let next = std::future::poll_fn(|context| live.poll_next(context, &turn, &mut found)).await;
    assert_eq!((next, found.len()), (Next::Frames, 1));
    live.accept(&found);
    let mut reading = host.subscribe(at_id(2, 1_001_000)).await.expect("a place");
    host.hub.shared.catchup.forget(&host.a);
    let reads = reading.enter(&worker);
    let polled = std::future::poll_fn(|context| Poll::Ready(reading.poll_next(context, &reads, &mut found))).await;
    assert!(polled.is_pending(), "a block is under way");
    drop(reads);
    let mut asked = host.hub.subscribe(&host.set, at_id(2, 1_001_000), who()).expect("a reader");
    drop(turn);

    // Made again, and grown past all of them before anybody looked.
    host.log.add_partition(&host.a);
    (0..20).for_each(|at| host.log.put(&host.a, 0, 2_000_000 + at, Some("{}")));
    let opened = vec![host.log.opened(&host.a, Offset(0))];
    let records = host.log.records(&host.a, Offset(0)..Offset(20));
    host.feed(TailBatch { opened, records, caught_up: false }).await;
    asked.settle(Duration::from_secs(2)).await.expect("a place");
    for (name, reader) in
        [("behind", &mut behind), ("live", &mut live), ("reading", &mut reading), ("asked", &mut asked)]
    {
        found.clear();
        // Also of a worker that has seen nothing of it.
        let turn = reader.enter(&worker);
        let next = std::future::poll_fn(|context| reader.poll_next(context, &turn, &mut found)).await;
        assert_eq!((next, found.len(), turn.is_over()), (Next::Over, 0, Some(End::Changed)), "{name}");
    }
    let places = host.places_and_notice(at_id(10, 1_009_000)).await;
    assert_eq!((places.0, places.1), (0, 1), "it comes back, and gets all of it: {:?}", places.2);
}

#[tokio::test(start_paused = true)]
async fn a_block_of_a_partition_that_was_begun_anew_is_not_given_out_any_more() {
    let host = host();
    let time_of_the_first = async || {
        let block = host.hub.shared.catchup.block(&who().asker.key, &host.a, Offset(0)).await.expect("a block");
        block.entries_from(Offset(0))[0].time
    };
    assert_eq!(time_of_the_first().await, Timestamp(1_000_000));
    host.log.add_partition(&host.a);
    (0..10).for_each(|at| host.log.put(&host.a, 0, 2_000_000 + at, Some("{}")));
    assert_eq!(time_of_the_first().await, Timestamp(1_000_000), "it is still at hand");
    let opened = vec![host.log.opened(&host.a, Offset(0))];
    host.feed(TailBatch { opened, records: vec![], caught_up: true }).await;
    assert_eq!(time_of_the_first().await, Timestamp(2_000_000));
}
