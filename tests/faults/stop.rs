//! SIGTERM under load, in turn on two servers of one Kafka: nobody's request is lost, and readers go on at the other one.
//!
//! `SLUICE_TEST_STOP=3000,1000,10` (posts a second, readers, stops) is the size that the README speaks of; it wants a
//! release build.

use std::collections::BTreeMap;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::flow::{Balancer, Flow};
use crate::server::{Options, Server};
use crate::support::{self, unique};

const SIZE_VARIABLE: &str = "SLUICE_TEST_STOP";
/// Posts a second, readers, stops.
const SIZE: [usize; 3] = [300, 100, 3];
/// Events a second of one stream: a reader of all of them would measure this test.
const OF_ONE_STREAM: usize = 100;
/// Ten times what the balancer here needs to notice.
const DRAIN_DELAY: &str = "1s";
const DRAIN_SPREAD: &str = "2s";

fn size() -> [usize; 3] {
    let Ok(given) = std::env::var(SIZE_VARIABLE) else { return SIZE };
    let numbers: Vec<usize> = given.split(',').filter_map(|number| number.parse().ok()).collect();
    numbers.try_into().unwrap_or_else(|_| panic!("{SIZE_VARIABLE}={given}, and not POSTS,READERS,STOPS"))
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_sigterm_under_load_resets_nobody_loses_nothing_and_its_readers_go_on_elsewhere() {
    let [posts, readers, stops] = size();
    let broker = support::kafka().await;
    let streams: Vec<String> =
        (0..posts.div_ceil(OF_ONE_STREAM)).map(|number| unique(&format!("stop{number}"))).collect();
    let mut catalogue = String::new();
    for stream in &streams {
        broker.create_topic(stream, 1, &[]).await;
        catalogue.push_str(&format!("{stream}: {{schema_title: test/event, topics: [{stream}]}}\n"));
    }
    let options = Options::default().kafka(broker.bootstrap()).streams(&catalogue);
    let options = options.env("SLUICE__STOP__DRAIN_DELAY", DRAIN_DELAY).env("SLUICE__STOP__DRAIN_SPREAD", DRAIN_SPREAD);
    let mut servers = [Server::start(options.clone()).await, Server::start(options).await];
    let (balancer, _asking) = Balancer::between(&[servers[0].address, servers[1].address]);
    let flow = Flow::new(balancer, &streams);
    let clients = flow.start(posts, readers).await;
    for stop in 0..stops {
        flow.until_accepted(posts).await;
        let server = &mut servers[stop % 2];
        let asked = Instant::now();
        server.signal(Signal::TERM);
        assert_eq!(server.ended().await.code(), Some(0), "{}", server.stderr());
        println!("stop {stop}: over after {:?}", asked.elapsed());
        server.start_again().await;
    }
    flow.until_accepted(posts).await;
    let summary = flow.finish(clients).await;
    println!("{stops} stops under {posts} posts/s and {readers} readers: {summary:?}");
    assert_eq!(summary.complaints, BTreeMap::new());
    assert!(summary.resumed >= readers, "readers moved: {summary:?}");
}
