//! Far more producers than fit: some are told to come back, and none is told wrong.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::ledger;
use crate::load::{Fate, Load};
use crate::server::{Options, Server};
use crate::support;

const PARTITIONS: i32 = 3;
const PRODUCERS: usize = 64;
/// So little that one POST fills it: what gets in is then one POST at a time.
const IN_FLIGHT_BYTES: &str = "1KiB";
const ACCEPTED_MIN: usize = 300;

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn of_producers_far_beyond_what_fits_each_is_told_to_come_back_or_finds_its_events_in_the_log() {
    let broker = support::kafka().await;
    let topics = [support::unique("overload")];
    broker.create_topic(&topics[0], PARTITIONS, &[]).await;
    let options = Options::default().kafka(broker.bootstrap());
    let options = options.streams(&format!("{}: {{schema_title: test/event, topics: [{0}]}}", topics[0]));
    let server = Server::start(options.env("SLUICE__INTAKE__MAX_INFLIGHT_BYTES", IN_FLIGHT_BYTES)).await;
    let load = Load::new(&topics, 0);
    let mut producers = JoinSet::new();
    for _ in 0..PRODUCERS {
        producers.spawn(produce(load.clone(), server.address));
    }
    while let Some(ended) = producers.join_next().await {
        ended.unwrap_or_else(|fault| std::panic::resume_unwind(fault.into_panic()));
    }
    load.check_promises(&ledger::records(&broker, &topics, PARTITIONS).await).await;
    assert_ne!(load.told(Fate::NotWritten).await, [0; 0], "there were more than fit");
    assert_eq!(load.told(Fate::Unknown).await, [0; 0], "who does not fit is never handed to the log");
}

/// Comes back at once, which is the worst that a client can do.
async fn produce(load: Arc<Load>, server: std::net::SocketAddr) {
    while load.told(Fate::Accepted).await.len() < ACCEPTED_MIN {
        load.post(server, 2).await;
    }
}
