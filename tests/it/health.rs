//! The verdict on flow, on a log that is there and on one that is not: each state as it is reached and left.

use serde_json::{Value, json};

use crate::raw::{Raw, Stream};
use crate::server::{Options, Server, free_address};
use crate::support::{PATIENCE, eventually};

const STREAMS: &str = "
    test.event: {schema_title: test/event, topics: [test.event], stream_aliases: [test]}
    other.event: {schema_title: test/event, topics: [other.event]}
    hourly.event: {schema_title: test/event, topics: [hourly.event], sluice: {expect_every: 1h}}
    busy.event: {schema_title: test/event, topics: [busy.event], sluice: {expect_every: 1s}}
";
/// Without the one whose expectation nobody meets.
const CALM: &str = "
    test.event: {schema_title: test/event, topics: [test.event], stream_aliases: [test]}
    other.event: {schema_title: test/event, topics: [other.event]}
";

fn event(stream: &str) -> Value {
    json!({ "$schema": "/test/event/1.0.0", "meta": { "stream": stream }, "test": "x" })
}

async fn health(server: &Server, query: &str) -> (u16, Value) {
    let answer = server.get(&format!("/health{query}")).await;
    (answer.status(), answer.json())
}

/// Waits for this state, and gives what is said then.
async fn until(server: &Server, query: &str, state: &str, status: u16) -> Value {
    let mut said = (0, Value::Null);
    let came = eventually(PATIENCE, async || {
        said = health(server, query).await;
        said.1["state"] == state
    });
    assert!(came.await, "{state}: {said:?}\n{}", server.stderr());
    assert_eq!(said.0, status, "{said:?}");
    said.1
}

#[tokio::test]
async fn a_host_is_quiet_until_somebody_posts_and_flows_then() {
    let server = Server::start(Options::default().streams(CALM).env("SLUICE__HEALTH__CANARY_EVERY", "250ms")).await;
    // Canaries are no events of users, however many have come by.
    let made = async || server.metric("sluice_canary_trips_total{result=\"made\"}").await;
    assert!(eventually(PATIENCE, async || made().await >= 6.0).await, "canaries come by");
    let quiet = until(&server, "", "quiet", 200).await;
    assert!(quiet["canary"]["took_ms"].as_f64().is_some_and(|took| took > 0.0), "{quiet}");
    assert_eq!((&quiet["do"], &quiet["streams"]["states"]), (&json!(""), &json!({ "quiet": 2 })), "{quiet}");
    assert_eq!(quiet["streams"]["newest"]["age_seconds"], Value::Null, "{quiet}");
    server.put(&event("test.event")).await;
    let flowing = until(&server, "", "flowing", 200).await;
    assert_eq!(flowing["streams"]["states"], json!({ "flowing": 1, "quiet": 1 }), "{flowing}");
    assert_eq!(flowing["streams"]["newest"]["stream"], "test.event", "{flowing}");
    assert_eq!(flowing["partitions"], json!({ "first": [], "more": 0 }), "{flowing}");
    assert!(flowing["since"].as_str() >= quiet["since"].as_str(), "{flowing}");
    assert_eq!(health(&server, "?stream=other.event").await.1["state"], "quiet", "one alone");
    assert!(flowing.get("detail").is_none(), "the public listener tells nobody's words: {flowing}");
    assert!(server.ask_admin("GET", "/health", "").await.json()["detail"].is_string());
    assert_eq!(server.stderr().matches("health: flowing").count(), 1, "{}", server.stderr());
    // Without anybody asking.
    assert!(eventually(PATIENCE, async || server.metric("sluice_health_state{state=\"flowing\"}").await == 1.0).await);
    assert_eq!(server.metric("sluice_health_state").await, 1.0, "one state alone holds");
    assert_eq!(server.metric("sluice_health_changes_total{to=\"flowing\"}").await, 1.0);
}

#[tokio::test]
async fn what_was_there_before_the_start_is_no_news() {
    let mut server = Server::start(Options::default().streams(CALM)).await;
    server.put(&event("test.event")).await;
    assert!(server.stop().await.success());
    server.start_again().await;
    until(&server, "", "quiet", 200).await;
    let (status, said) = health(&server, "?stream=test.event").await;
    let stream = &said["streams"][0];
    assert_eq!((status, &stream["state"]), (200, &json!("quiet")), "{said}");
    assert!(stream["last_event"]["dt"].is_string() && stream["last_event"]["came_at"].is_null(), "{said}");
    assert!(said["age_seconds"].as_f64().is_some_and(|age| age < 60.0), "{said}");
}

#[tokio::test]
async fn a_stream_is_asked_for_by_its_names() {
    let server = Server::start(Options::default().streams(STREAMS)).await;
    server.put(&event("test.event")).await;
    let one = until(&server, "?stream=test.event", "flowing", 200).await;
    let stream = &one["streams"][0];
    let partition = json!({ "topic": "test.event", "partition": 0, "lag": 0, "behind_seconds": 0.0 });
    let settled = eventually(PATIENCE, async || {
        health(&server, "?stream=test.event").await.1["streams"][0]["partitions"]["first"][0] == partition
    });
    assert!(settled.await, "{:?}", health(&server, "?stream=test.event").await);
    assert!(one["age_seconds"].as_f64().is_some() && stream["last_event"]["came_at"].is_string(), "{one}");
    let alias = health(&server, "?stream=test").await.1;
    assert_eq!((&alias["state"], &alias["streams"][0]["stream"]), (&json!("flowing"), &json!("test.event")));
    let several = health(&server, "?stream=other.event,test").await.1;
    assert_eq!(several["streams"].as_array().map(Vec::len), Some(2), "{several}");
    assert_eq!(several["state"], "flowing", "an event of one is an event of theirs: {several}");
    let never = health(&server, "?stream=other.event").await.1;
    assert_eq!((&never["state"], &never["age_seconds"]), (&json!("quiet"), &Value::Null), "{never}");
    for (query, status, word) in [
        ("?stream=nope", 404, "no stream named"),
        ("?stream=", 400, "empty"),
        ("?stream=a,", 400, "empty"),
        ("?stream=%ff", 400, "UTF-8"),
        ("?stream=a&stream=b", 400, "more than once"),
        ("?stream=a%20b", 400, "character"),
    ] {
        let answer = server.get(&format!("/health{query}")).await;
        assert_eq!(answer.status(), status, "{query}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{query}");
        assert!(answer.text().contains(word), "{query}: {answer:?}");
    }
}

#[tokio::test]
async fn producers_that_send_less_than_is_expected_are_told_from_a_service_that_is_broken() {
    let server = Server::start(Options::default().streams(STREAMS)).await;
    let host = until(&server, "", "degraded", 200).await;
    assert!(host["cause"].as_str().is_some_and(|cause| cause.contains("busy.event")), "{host}");
    assert_eq!(host["streams"]["unhealthy"]["first"][0]["stream"], "busy.event", "{host}");
    let busy = until(&server, "?stream=busy.event", "stalled", 503).await;
    let cause = busy["cause"].as_str().expect("a cause");
    assert!(cause.contains("canaries flow, and its producers have sent nothing"), "{busy}");
    assert_eq!(busy["streams"][0]["expect_every"], json!({ "seconds": 1.0, "met": false }), "{busy}");
    let hourly = health(&server, "?stream=hourly.event").await;
    assert_eq!((hourly.0, &hourly.1["streams"][0]["expect_every"]["met"]), (200, &json!(true)), "{hourly:?}");
    assert!(server.metric("sluice_expectations_unmet").await >= 1.0);
    // It comes, and is met.
    let met = eventually(PATIENCE, async || {
        server.put(&event("busy.event")).await;
        health(&server, "?stream=busy.event").await.1["state"] == "flowing"
    });
    assert!(met.await, "{:?}", health(&server, "?stream=busy.event").await);
}

#[tokio::test]
async fn a_full_host_says_so_at_once_and_no_longer_when_it_is_not() {
    let server = Server::start(Options::default().streams(CALM).env("SLUICE__LIMITS__STREAMS_TOTAL", "1")).await;
    until(&server, "", "quiet", 200).await;
    let reader = Stream::open_on(Raw::as_somebody_new(server.address).await, "/v2/stream/test.event", "").await;
    let (status, full) = health(&server, "").await;
    assert_eq!((status, &full["state"]), (503, &json!("full")), "{full}");
    assert!(full["do"].as_str().is_some_and(|cure| cure.contains("sluice admin clients")), "{full}");
    drop(reader);
    until(&server, "", "quiet", 200).await;
    assert_eq!(server.stderr().matches("health: full").count(), 1, "{}", server.stderr());
}

#[tokio::test]
async fn a_log_that_was_never_there_is_starting_and_then_unreachable_and_the_instance_is_not_ready() {
    let server = Server::start(Options::default().streams(CALM).kafka(&free_address().to_string()).unready()).await;
    let ready = server.get("/readyz").await;
    assert_eq!((ready.status(), ready.text().contains("has not been read")), (503, true), "{ready:?}");
    let away = until(&server, "", "log_unreachable", 503).await;
    assert!(away["do"].as_str().is_some_and(|cure| cure.contains("brokers")), "{away}");
    assert!(!away.to_string().contains("127.0.0.1"), "no address is told to everybody: {away}");
    let one = health(&server, "?stream=test.event").await;
    assert_eq!((one.0, &one.1["state"]), (503, &json!("log_unreachable")), "{one:?}");
    assert_eq!(server.stderr().matches("health: log_unreachable").count(), 1, "{}", server.stderr());
    assert_eq!(server.get("/healthz").await.status(), 200);
}

#[tokio::test]
async fn an_instance_that_gives_nothing_out_says_so() {
    let server = Server::start(Options::default().streams(CALM).config("[http]\nserve = ['in']\n").unready()).await;
    until(&server, "", "not_exposed", 200).await;
    assert_eq!(health(&server, "?stream=test.event").await.1["state"], "not_exposed");
}

#[tokio::test]
async fn gauges_of_streams_that_are_gone_do_not_stay() {
    let server = Server::start(Options::default().streams(CALM)).await;
    server.put(&event("test.event")).await;
    server.put(&event("other.event")).await;
    let metrics = async || Raw::connect(server.admin).await.get("/metrics", "").await.text();
    let of = |stream: &str| format!("sluice_stream_last_event_seconds{{stream=\"{stream}\"}} ");
    let lag = "sluice_consumer_lag{topic=\"other.event\",partition=\"0\"} 0";
    let there = eventually(PATIENCE, async || {
        let text = metrics().await;
        text.contains(&of("other.event")) && text.contains(&of("test.event")) && text.contains(lag)
    });
    assert!(there.await, "{}", metrics().await);
    server.rewrite("streams.yaml", "test.event: {schema_title: test/event, topics: [test.event]}");
    let reloaded = server.ask_admin("POST", "/reload", "").await;
    assert_eq!(reloaded.status(), 200, "{reloaded:?}");
    let gone = eventually(PATIENCE, async || {
        let text = metrics().await;
        text.contains(&of("test.event")) && !text.contains(&of("other.event")) && !text.contains(lag)
    });
    assert!(gone.await, "{}", metrics().await);
}
