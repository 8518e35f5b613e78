//! A reader that stops reading until its ring has moved past it, and then goes on.

use serde_json::json;

use crate::engine::{Engine, event_at, on_both_engines};
use crate::raw::{Raw, Stream};
use crate::server::Options;

/// What the kernel may hold for a reader that does not read is far below what is sent: else it would never fall behind.
const RECEIVE_BUFFER_BYTES: u32 = 4_096;
const RING_BYTES: &str = "256KiB";
const EVENTS: i64 = 1_500;
const PADDING_BYTES: usize = 2_000;
/// Far less than the ring: who reads on stays in it.
const BATCH: usize = 10;
const READS: &str = "sluice_catchup_reads_total";

async fn a_reader_that_stops_until_its_ring_has_moved_past_it_gets_everything(engine: Engine) {
    let (server, _topics) = engine.serve(Options::default().env("SLUICE__HUB__RING_BYTES", RING_BYTES)).await;
    let raw = Raw::with_receive_buffer(server.address, Some(RECEIVE_BUFFER_BYTES)).await;
    let mut slow = Stream::open_on(raw, "/v2/stream/eqiad", "").await;
    let mut fast = server.stream("/v2/stream/eqiad", "").await;
    for batch in (0..EVENTS).collect::<Vec<_>>().chunks(BATCH) {
        let events: Vec<_> = batch.iter().copied().map(padded).collect();
        assert_eq!(server.post(&json!(events).to_string()).await.status(), 201);
        assert_eq!(fast.numbers_until(|read| read.len() == BATCH).await, batch);
    }
    let before = server.metric(READS).await;
    assert_eq!(before, 0.0, "the one that reads has had all from the ring, which has long moved on");
    let read = slow.numbers_until(|read| read.last() == Some(&(EVENTS - 1))).await;
    assert_eq!(read, (0..EVENTS).collect::<Vec<_>>());
    assert!(server.metric(READS).await > before, "the one that stopped was served from the log");
}

fn padded(number: i64) -> serde_json::Value {
    let mut event = event_at("eqiad", usize::try_from(number).expect("a number"), number);
    event["padding"] = "x".repeat(PADDING_BYTES).into();
    event
}

on_both_engines!(a_reader_that_stops_until_its_ring_has_moved_past_it_gets_everything);
