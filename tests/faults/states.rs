//! Every state of `GET /health` as a real fault reaches it and its end leaves it, with the default of `health.canary_every`
//! and, unless said otherwise, of `health.stall_after`. Each test prints the table of all that have ended.

use std::future::ready;
use std::net::SocketAddr;
use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::json;

use crate::forwarder::Forwarder;
use crate::raw::{Raw, Stream};
use crate::server::Options;
use crate::stage::Stage;
use crate::support::{self, KafkaNode, PATIENCE, eventually};

const CANARY: &str = "sluice.canary";
/// Three canaries, which is the least that can be set.
const SHORT_STALL: &str = "15s";
/// More than is asked while it is refused.
const MANY: usize = 10_000;
/// So slow that nobody waits for it.
const SLOW: Duration = Duration::from_secs(20);

type Mock = MockCluster<'static, DefaultProducerContext>;

fn streams(names: &[&str]) -> String {
    names.iter().map(|name| format!("{name}: {{schema_title: test/event, topics: [{name}]}}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_broker_that_stands_still_stops_dies_or_moves_is_said_to_be_away_until_it_is_back() {
    let forwarder = Forwarder::start().await;
    let node = KafkaNode::start_behind(forwarder.address.port()).await;
    forwarder.point_to(Some(address_of(&node)));
    let topic = support::unique("states");
    node.broker().create_topic(&topic, 3, &[]).await;
    let options = Options::default().kafka(&forwarder.address.to_string()).streams(&streams(&[&topic]));

    node.pause().await;
    let mut stage = Stage::start(options).await;
    stage.says("starting", "at the start the broker stands still", ready(())).await;
    stage.is_not_ready().await;
    stage.leaves(node.resume()).await;
    stage.is_ready().await;

    assert!(stage.server.stop().await.success());
    node.stop().await;
    stage.server.start_again().await;
    stage.says("starting", "at the start no broker is there", ready(())).await;
    stage.says("log_unreachable", "at the start no broker is there", ready(())).await;
    stage.is_not_ready().await;
    stage.leaves_by(&["starting"], node.start_again()).await;
    stage.is_ready().await;

    let lost = stage.canaries_lost().await;
    stage.says("log_unreachable", "the broker stands still (SIGSTOP)", node.pause()).await;
    stage.is_ready().await;
    let (status, one) = stage.health(&format!("?stream={topic}")).await;
    assert_eq!((status, &one["state"]), (503, &json!("log_unreachable")), "{one}");
    // So long that canaries have been lost one after the other.
    let many = eventually(PATIENCE, async || stage.canaries_lost().await >= lost + 3.0).await;
    assert!(many, "canaries go on; the log:\n{}", stage.server.stderr());
    stage.leaves(node.resume()).await;

    stage.says("log_unreachable", "the broker stops (SIGTERM)", node.stop()).await;
    stage.is_ready().await;
    stage.leaves(node.start_again()).await;

    stage.says("log_unreachable", "the broker dies (SIGKILL)", node.kill()).await;
    let told = stage.told_to_operators().await;
    assert!(told["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{told}");
    stage.leaves(node.start_again()).await;

    let moves = async {
        forwarder.point_to(None);
        node.restart_at_new_address().await;
    };
    stage.says("log_unreachable", "the broker moves to another address behind its name", moves).await;
    stage.is_ready().await;
    stage.leaves(async { forwarder.point_to(Some(address_of(&node))) }).await;
    assert_eq!(stage.poster().post(&topic, "after all that").await, 201);
    stage.end();
}

fn spooling(bootstrap: &str) -> Options {
    let options = Options::default().kafka(bootstrap).env("SLUICE__INTAKE__SPOOL__ENABLED", "true");
    options.env("SLUICE__INTAKE__DEADLINE", "3s")
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn events_that_the_log_refuses_for_good_degrade_until_an_operator_has_seen_to_them() {
    let node = KafkaNode::start().await;
    let [large, small] = ["states-large", "states-small"].map(support::unique);
    node.broker().create_topic(&large, 1, &[]).await;
    node.broker().create_topic(&small, 1, &[("max.message.bytes", "2000")]).await;
    let mut stage = Stage::start(spooling(&node.bootstrap()).streams(&streams(&[&large, &small]))).await;
    stage.says("quiet", "a spool that is empty", ready(())).await;

    let poster = stage.poster();
    let told = stage
        // Events may wait before the log has failed to answer twice.
        .says_by(&["degraded"], "log_unreachable", "the broker stops (SIGTERM), and events are spooled", async {
            node.stop().await;
            // Of random letters: it is compressed before it is weighed.
            let text: String = std::iter::repeat_with(fastrand::alphanumeric).take(10_000).collect();
            for topic in [&large, &small] {
                assert_eq!(poster.post(topic, &text).await, 202);
            }
        })
        .await;
    assert!(told["cause"].as_str().is_some_and(|cause| cause.contains("2 events wait on disk")), "{told}");
    stage.says("degraded", "it is back, and an event is set aside as too large", node.start_again()).await;
    let is_sent = eventually(PATIENCE, async || stage.health("").await.1["spool"]["events"] == 0).await;
    let (_, told) = stage.health("").await;
    assert!(is_sent && told["spool"]["aside"] == 1 && told["state"] == "degraded", "{told}");
    assert!(told["cause"].as_str().is_some_and(|cause| cause.contains("refuses 1 events for good")), "{told}");
    let admin = stage.server.admin;
    let drop_it = async {
        let mut raw = Raw::connect(admin).await;
        raw.send("DELETE /spool/aside HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(raw.answer().await.status(), 200);
    };
    stage.leaves(drop_it).await;
    stage.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_wait_on_disk_degrade_until_they_are_in_the_log() {
    let cluster = cluster("states");
    let mut stage = Stage::start(spooling(&cluster.bootstrap_servers()).streams(&streams(&["states"]))).await;
    stage.says("quiet", "a spool that is empty", ready(())).await;
    let poster = stage.poster();
    let told = stage
        .says("degraded", "events wait on disk for a topic that is away", async {
            let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
            cluster.topic_error("states", unknown).expect("it is away");
            while poster.post("states", "it waits").await != 202 {}
        })
        .await;
    assert!(told["cause"].as_str().is_some_and(|cause| cause.ends_with("events wait on disk for the log")), "{told}");
    assert!(told["spool"]["events"].as_u64() >= Some(1), "{told}");
    let back = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    let told = stage.leaves(async { cluster.topic_error("states", back).expect("it is back") }).await;
    assert_eq!(told["spool"]["events"], 0, "{told}");
    stage.end();
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_host_flows_is_quiet_or_full_and_misses_producers_of_whom_more_is_expected() {
    let broker = support::kafka().await;
    let [one, expected] = ["states", "states-expected"].map(support::unique);
    for topic in [&one, &expected] {
        broker.create_topic(topic, 1, &[]).await;
    }
    let options = Options::default().kafka(broker.bootstrap()).streams(&streams(&[&one]));
    let options = options.env("SLUICE__HEALTH__STALL_AFTER", SHORT_STALL).env("SLUICE__LIMITS__STREAMS_TOTAL", "2");
    let mut stage = Stage::start(options).await;
    stage.says("quiet", "nobody has posted since the start", ready(())).await;
    let poster = stage.poster();
    stage.says("flowing", "an event is posted", async { assert_eq!(poster.post(&one, "x").await, 201) }).await;
    stage.says("quiet", "nobody posts for stall_after (15 s)", ready(())).await;

    let mut readers = Vec::new();
    let (address, target) = (stage.server.address, format!("/v2/stream/{one}"));
    let come = async {
        for _ in 0..2 {
            readers.push(Stream::open_on(Raw::as_somebody_new(address).await, &target, "").await);
        }
    };
    stage.says("full", "limits.streams_total readers are there", come).await;
    stage.is_ready().await;
    stage.leaves(async { readers.clear() }).await;

    // Its producer is to send every ten seconds, and does not.
    let settings =
        format!("{expected}: {{schema_title: test/event, topics: [{expected}], sluice: {{expect_every: 10s}}}}");
    stage.server.rewrite("streams.yaml", &(streams(&[&one]) + &settings));
    assert_eq!(stage.server.ask_admin("POST", "/reload", "").await.status(), 200);
    let told = stage.says("degraded", "a producer is silent for expect_every (10 s)", ready(())).await;
    assert!(told["cause"].as_str().is_some_and(|cause| cause.contains(&expected)), "{told}");
    let (status, told) = stage.health(&format!("?stream={expected}")).await;
    assert_eq!((status, &told["state"]), (503, &json!("stalled")), "{told}");
    assert_eq!(stage.health(&format!("?stream={one}")).await.0, 200, "the other one is well");
    stage.leaves(async { assert_eq!(poster.post(&expected, "x").await, 201) }).await;
    assert_eq!(stage.health(&format!("?stream={expected}")).await.0, 200);
    stage.end();
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn half_of_the_way_is_said_to_be_half_until_the_other_half_is_there() {
    let broker = support::kafka().await;
    let topic = support::unique("states");
    broker.create_topic(&topic, 1, &[]).await;
    let halves = [
        ("in", "http.serve has no \"out\"", "whether events come out is not proven here"),
        ("out", "http.serve has no \"in\"", "whether events get through is not proven here"),
    ];
    for (half, fault, proves) in halves {
        let config = format!("[http]\nserve = ['{half}']\n");
        let options = Options::default().kafka(broker.bootstrap()).streams(&streams(&[&topic])).config(&config);
        let mut stage = Stage::start(options).await;
        let told = stage.says("not_exposed", fault, ready(())).await;
        assert!(told["cause"].as_str().is_some_and(|cause| cause.contains(proves)), "{told}");
        assert_eq!(stage.health(&format!("?stream={topic}")).await.1["state"], "not_exposed");
        let is_ready = eventually(PATIENCE, async || stage.server.get("/readyz").await.status() == 200).await;
        assert!(is_ready, "{:?}", stage.server.get("/readyz").await);
        assert!(stage.server.stop().await.success());
        stage.server.rewrite("sluice.toml", "[http]\nserve = ['in', 'out']\n");
        stage.server.start_again().await;
        stage.leaves(ready(())).await;
        stage.end();
    }
}

/// Two brokers, with a partition each of this topic; the first one leads the canaries' topic.
fn cluster(topic: &str) -> Mock {
    let cluster: Mock = MockCluster::new(2).expect("a mock cluster");
    // The mock looks for the new leader of a partition, to tell it to clients of later versions, also where there is none.
    for (request, newest) in [(RDKafkaApiKey::Fetch, 11), (RDKafkaApiKey::Produce, 9)] {
        cluster.apiversion(request, Some(0), Some(newest)).expect("a version");
    }
    for (topic, partitions) in [(topic, 2), (CANARY, 1)] {
        cluster.create_topic(topic, partitions, 1).expect("a topic");
        (0..partitions).for_each(|index| cluster.partition_leader(topic, index, Some(index + 1)).expect("a leader"));
    }
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_nobody_answers_for_degrade_and_a_log_that_may_not_be_written_to_proves_half() {
    let cluster = cluster("states");
    let options = Options::default().kafka(&cluster.bootstrap_servers()).streams(&streams(&["states"]));
    let mut stage = Stage::start(options).await;
    stage.says("quiet", "a cluster of two brokers", ready(())).await;

    let told = stage
        .says("degraded", "a partition has no leader", async {
            cluster.partition_leader("states", 1, None).expect("no leader");
        })
        .await;
    let cause = told["cause"].as_str().expect("a cause");
    assert!(cause.contains("states/1") && !cause.contains("states/0"), "{told}");
    let part = &told["partitions"]["first"][0];
    assert_eq!((&part["topic"], &part["partition"], &part["sick"]), (&json!("states"), &json!(1), &json!(true)));
    stage.is_ready().await;
    stage.leaves(async { cluster.partition_leader("states", 1, Some(2)).expect("a leader") }).await;

    let told = stage
        .says("degraded", "one of two brokers is not there", async { cluster.broker_down(2).expect("it goes") })
        .await;
    let cause = told["cause"].as_str().expect("a cause");
    assert!(cause.contains("states/1 (broker 2)"), "{told}");
    assert_eq!(told["partitions"]["first"][0]["broker"], "2", "{told}");
    let part = stage.told_to_operators().await["partitions"]["first"][0].clone();
    assert!(part["broker"].as_str().is_some_and(|broker| broker.starts_with("2 (127.0.0.1:")), "{part}");
    stage.leaves(async { cluster.broker_up(2).expect("it is back") }).await;

    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    let told = stage
        .says("not_exposed", "no right to write (TOPIC_AUTHORIZATION_FAILED)", async {
            cluster.request_errors(RDKafkaApiKey::Produce, &vec![denied; MANY]);
        })
        .await;
    let cause = told["cause"].as_str().expect("a cause");
    assert!(cause.contains("may not write") && cause.contains("streams open"), "{told}");
    stage.leaves(async { cluster.clear_request_errors(RDKafkaApiKey::Produce) }).await;
    stage.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_answers_and_lets_no_event_through_stalls() {
    let cluster = cluster("states");
    let options = Options::default().kafka(&cluster.bootstrap_servers()).streams(&streams(&["states"]));
    let mut stage = Stage::start(options).await;
    stage.says("quiet", "a cluster of two brokers", ready(())).await;

    let few = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
    let told = stage
        .says("stalled", "the log takes no records (NOT_ENOUGH_REPLICAS)", async {
            cluster.request_errors(RDKafkaApiKey::Produce, &vec![few; MANY]);
        })
        .await;
    assert_eq!(told["canary"]["failed_at"], "append", "{told}");
    stage.is_ready().await;
    stage.leaves(async { cluster.clear_request_errors(RDKafkaApiKey::Produce) }).await;

    let told = stage
        .says("stalled", "the log gives no records (every fetch fails)", async {
            cluster.request_errors(RDKafkaApiKey::Fetch, &vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN; MANY]);
        })
        .await;
    assert_eq!(told["canary"]["failed_at"], "read", "{told}");
    stage.leaves(async { cluster.clear_request_errors(RDKafkaApiKey::Fetch) }).await;

    let told = stage
        // Its partition is named before two canaries are lost.
        .says_by(&["degraded"], "stalled", "the broker that leads the canaries' topic takes 20 s", async {
            cluster.partition_leader(CANARY, 0, Some(2)).expect("a leader");
            cluster.broker_round_trip_time(2, SLOW).expect("it is slow");
        })
        .await;
    assert_eq!(told["canary"]["failed_at"], "append", "{told}");
    stage.leaves(async { cluster.broker_round_trip_time(2, Duration::ZERO).expect("it is fast") }).await;
    stage.end();
}

fn address_of(node: &KafkaNode) -> SocketAddr {
    node.bootstrap().parse().expect("an address")
}
