//! What the error stream is told, and that it is never told of itself.

use serde_json::{Value, json};

use super::tests::World;
use super::*;

const CATALOG: &str = "
test.event: {schema_title: test/event, topics: [test.event]}
errors: {schema_title: error, topics: [errors]}
wrong: {schema_title: test/event, topics: [wrong]}
";

fn world(error_stream: &str) -> World {
    let options = Options { error_stream: Some(error_stream.into()), max_event_bytes: 100_000, ..Options::default() };
    World::with(options, CATALOG, &[])
}

fn invalid(more: Value) -> Value {
    let mut event = json!({ "$schema": "/test/event/1.0.0", "meta": { "stream": "test.event", "dt": "2026-01-01T00:00:00Z" }, "test": 5 });
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        event["meta"][key] = value;
    }
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_event_makes_an_error_event() {
    let world = world("errors");
    let meta = json!({ "id": "i", "uri": "https://x/y", "domain": "x", "request_id": "r" });
    let refused = world.refused(&invalid(meta)).await;
    let report = World::json(&world.until_read("errors", 1).await[0]);
    let expected = json!({
        "$schema": "/error/2.1.0",
        "meta": {
            "stream": "errors", "id": report["meta"]["id"], "dt": report["dt"],
            "uri": "https://x/y", "domain": "x", "request_id": "r",
        },
        "dt": report["dt"],
        "emitter_id": "sluice",
        "raw_event": String::from_utf8_lossy(&refused.event),
        "message": "'.test' should be string",
        "error_type": "ValidationError",
        "errored_schema_uri": "/test/event/1.0.0",
        "errored_stream_name": "test.event",
    });
    assert_eq!(report, expected);
    assert!(report["meta"]["id"].as_str().is_some_and(|id| id.len() == 36), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_event_does_not_say_is_unknown_and_so_is_what_no_error_event_may_say() {
    let world = world("errors");
    world.refused(&invalid(json!({ "uri": 5, "domain": "", "request_id": null }))).await;
    world.refused(&invalid(json!({ "uri": "not a reference" }))).await;
    for record in world.until_read("errors", 2).await {
        let meta = &World::json(&record)["meta"];
        for field in ["uri", "domain", "request_id"] {
            assert_eq!(meta[field], "unknown", "{field} of {meta}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_event_is_cut_to_fit() {
    let world = world("errors");
    let mut large = invalid(json!({}));
    large["pad"] = json!("\"é".repeat(20_000));
    world.refused(&large).await;
    let record = world.until_read("errors", 1).await.remove(0);
    assert!(record.value.as_ref().is_some_and(|value| value.len() < 100_000));
    let report = World::json(&record);
    let raw = report["raw_event"].as_str().expect("text");
    assert!(raw.len() > 20_000 && raw.starts_with(r#"{"$schema""#), "{} bytes", raw.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_event_that_is_refused_makes_no_other() {
    let options = Options { error_stream: Some("errors".into()), ..Options::default() };
    let world = World::with(options, CATALOG, &[("error/2.1.0", "title: error\ntype: object\nrequired: [never]")]);
    world.refused(&invalid(json!({}))).await;
    // A report of a report would have its place before the report gives back its own: there would always be one.
    world.until_idle().await;
    assert!(world.read("errors").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_event_in_the_error_stream_is_reported_once() {
    let world = world("errors");
    let bad = json!({ "$schema": "/error/2.1.0", "meta": { "stream": "errors" }, "dt": "x", "emitter_id": "e", "message": "m" });
    world.refused(&bad).await;
    let report = World::json(&world.until_read("errors", 1).await[0]);
    assert_eq!(report["errored_stream_name"], "errors");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hasty_event_is_received_at_once_and_reported_if_it_is_invalid() {
    let world = world("errors");
    let good = json!({ "$schema": "/test/event/1.0.0", "meta": { "stream": "test.event" } });
    let request = Request { mode: Mode::Hasty, ..World::request(&json!([good, invalid(json!({}))])) };
    let outcomes = world.intake.accept(request).await.expect("a batch");
    assert_eq!(World::codes(&outcomes), ["accepted", "accepted"]);
    assert_eq!(world.until_read("test.event", 1).await.len(), 1);
    assert_eq!(world.until_read("errors", 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_reports_nothing() {
    let world = world("errors");
    let request = Request { mode: Mode::DryRun, ..World::request(&invalid(json!({}))) };
    assert_eq!(World::codes(&world.intake.accept(request).await.expect("a batch")), ["invalid"]);
    world.refused(&invalid(json!({ "id": "the second" }))).await;
    let report = World::json(&world.until_read("errors", 1).await[0]);
    assert!(report["raw_event"].as_str().is_some_and(|raw| raw.contains("the second")), "{report}");
}
