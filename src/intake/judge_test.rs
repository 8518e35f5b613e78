//! What becomes of single events: every rule of streams, schemas, stamps and keys, over a real log.

use serde_json::{Value, json};

use super::tests::World;
use super::*;

const CATALOG: &str = r#"
test.event: {schema_title: test/event, topics: [test.event]}
keyed: {schema_title: test/event, topics: [keyed], message_key_fields: {b: meta.stream, a: n.deep}}
bare: {}
untitled: {topics: [untitled]}
other: {schema_title: other/title, topics: [other]}
small: {schema_title: small, topics: [small]}
headers:
  schema_title: stamped
  topics: [headers]
  producers: {eventgate: {enrich_fields_from_http_headers: {http.agent: User-Agent, meta.request_id: false}}}
legacy: {schema_title: analytics/legacy/x, topics: [legacy]}
"/^job\\..+/": {schema_title: test/event, topic_prefixes: null}
"#;
const LEGACY: &str = "
title: analytics/legacy/x
type: object
properties: {dt: {type: string}, meta: {type: object, properties: {dt: {type: string}}}}
";
const STAMPED: &str = "
title: stamped
type: object
properties:
  meta: {type: object, properties: {id: {type: string}, dt: {type: string}, request_id: {type: string}}}
  http: {type: object, properties: {client_ip: {type: string}, agent: {type: string}}}
";
const SMALL: &str = "
title: small
type: object
additionalProperties: false
properties:
  $schema: {type: string}
  n: {type: integer}
  meta: {type: object, additionalProperties: false, properties: {stream: {type: string}}}
";

fn world(options: Options) -> World {
    World::with(
        options,
        CATALOG,
        &[
            ("stamped/1.0.0", STAMPED),
            ("legacy/1.0.0", LEGACY),
            ("small/1.0.0", SMALL),
            ("untitled/1.0.0", "type: object"),
        ],
    )
}

fn event(stream: &str, more: Value) -> Value {
    let mut event = json!({ "$schema": "/test/event/1.0.0", "meta": { "stream": stream, "id": "i1" } });
    merge(&mut event, more);
    event
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            more.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, more) => *into = more,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_does_not_say_where_it_belongs_is_told_what_is_missing() {
    let world = world(Options::default());
    let stream = "Field(s) meta.stream were missing from event and could not be extracted.";
    let schema = "Field(s) $schema were missing from event and could not be extracted.";
    let absolute = "Absolute schema URIs are not allowed but event schema_uri is http://x/y/1.0.0";
    let table = [
        (json!({ "a": 1 }), "missing-schema", schema),
        (json!({ "$schema": null }), "bad-field", "The field $schema must be a text that is not empty."),
        (json!({ "$schema": "" }), "bad-field", "The field $schema must be a text that is not empty."),
        (json!({ "$schema": 5 }), "bad-field", "The field $schema must be a text that is not empty."),
        (json!({ "$schema": "http://x/y/1.0.0" }), "bad-schema-uri", absolute),
        (json!({ "$schema": "/test/event/1.0.0" }), "missing-stream", stream),
        (json!({ "$schema": "/test/event/1.0.0", "meta": 5 }), "missing-stream", stream),
        (
            json!({ "$schema": "/test/event/1.0.0", "meta": { "stream": [] } }),
            "bad-field",
            "The field meta.stream must be a text that is not empty.",
        ),
    ];
    for (event, code, message) in table {
        let refused = world.refused(&event).await;
        assert_eq!((refused.code.as_str(), refused.message.as_str()), (code, message), "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rule_of_streams_has_its_words() {
    let world = world(Options::default());
    let at = "event i1 of schema at /test/event/1.0.0 destined to stream";
    let table = [
        (event("nope", json!({})), "stream-not-configured", format!("{at} nope is not allowed in stream; nope is not configured.")),
        (
            event("bare", json!({})),
            "stream-without-settings",
            format!("{at} bare is not allowed in stream; bare is configured but does not have any settings."),
        ),
        (
            event("untitled", json!({})),
            "stream-without-schema-title",
            format!("{at} untitled is not allowed in stream; untitled does not have a schema_title setting."),
        ),
        (
            event("other", json!({})),
            "schema-title",
            format!("{at} other is not allowed in stream; schema title must be other/title."),
        ),
        (
            event("other", json!({ "$schema": "/untitled/1.0.0" })),
            "schema-title",
            "event i1 of schema at /untitled/1.0.0 destined to stream other is not allowed in stream; Schema at /untitled/1.0.0 must define a 'title' field.".into(),
        ),
        (event("other", json!({ "$schema": "/no/1.0.0" })), "schema-unknown", "Failed loading schema at /no/1.0.0".into()),
    ];
    for (event, code, message) in table {
        let refused = world.refused(&event).await;
        assert_eq!((refused.code.as_str(), refused.message), (code, message), "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_a_pattern_has_a_topic_of_its_own() {
    let world = world(Options::default());
    world.accepted(&event("job.x", json!({}))).await;
    assert_eq!(world.read("job.x").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn id_time_and_request_are_filled_in_where_they_are_missing() {
    let world = world(Options::default());
    let before = Timestamp::now();
    let mut request = World::request(&json!({ "$schema": "/test/event/1.0.0", "meta": { "stream": "test.event" } }));
    request.headers = vec![("x-request-id".into(), "é".repeat(500))];
    world.all_accepted(request).await;
    let record = &world.read("test.event").await[0];
    let event = World::json(record);
    let id: uuid::Uuid = event["meta"]["id"].as_str().and_then(|id| id.parse().ok()).expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(event["meta"]["request_id"], "é".repeat(400));
    assert_eq!(event["test"], "default value");
    let dt = event["meta"]["dt"].as_str().expect("a time");
    assert!(dt.len() == "2020-01-01T00:00:00.000Z".len() && dt.ends_with('Z'), "{dt}");
    assert!((before..=Timestamp::now()).contains(&record.time));
    assert_eq!(dt, stamp::rfc3339(record.time), "the record's time is the event's");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_from_before_meta_dt_get_the_time_of_their_arrival_where_they_have_none() {
    let world = world(Options::default());
    world.accepted(&event("legacy", json!({ "$schema": "/legacy/1.0.0" }))).await;
    world.accepted(&event("legacy", json!({ "$schema": "/legacy/1.0.0", "dt": "own" }))).await;
    let events: Vec<Value> = world.read("legacy").await.iter().map(World::json).collect();
    assert_eq!(events[0]["dt"], events[0]["meta"]["dt"]);
    assert_eq!(events[1]["dt"], "own");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_event_says_itself_stays() {
    let world = world(Options::default());
    let own = event("test.event", json!({ "test": "", "meta": { "dt": "2020-01-01T00:00:00Z", "request_id": "r" } }));
    let mut request = World::request(&own);
    request.headers = vec![("x-request-id".into(), "other".into())];
    request.client = Some([192, 0, 2, 1].into());
    world.all_accepted(request).await;
    assert_eq!(world.read("test.event").await[0].value.as_deref(), Some(own.to_string().as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_is_always_that_of_arrival_replaces_the_events() {
    let world = world(Options { meta_dt: MetaDt::Always, ..Options::default() });
    let before = Timestamp::now();
    world.accepted(&event("test.event", json!({ "meta": { "dt": "2020-01-01T00:00:00Z" } }))).await;
    let record = &world.read("test.event").await[0];
    assert!(record.time >= before);
    assert_eq!(World::json(record)["meta"]["dt"], stamp::rfc3339(record.time));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_fields_that_the_schema_has_are_filled_in() {
    let world = world(Options::default());
    let small = r#"{"$schema":"/small/1.0.0","n":1.0,"meta":{"stream":"small"}}"#;
    let mut request = Request::of_ours(Bytes::from_static(small.as_bytes()));
    request.headers = vec![("x-request-id".into(), "r".into())];
    request.client = Some([192, 0, 2, 1].into());
    world.all_accepted(request).await;
    assert_eq!(world.read("small").await[0].value.as_deref(), Some(small.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_go_where_the_streams_settings_say() {
    let world = world(Options::default());
    let mut request = World::request(&event("headers", json!({ "$schema": "/stamped/1.0.0" })));
    request.headers = vec![("user-agent".into(), "curl".into()), ("x-request-id".into(), "r".into())];
    request.client = Some("::ffff:192.0.2.1".parse().expect("an address"));
    world.all_accepted(request).await;
    let event = World::json(&world.read("headers").await[0]);
    assert_eq!(event["http"], json!({ "agent": "curl", "client_ip": "192.0.2.1" }));
    assert_eq!(event["meta"].get("request_id"), None, "switched off for this stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_says_what_the_event_does_not() {
    let world = world(Options::default());
    let mut request = Request::of_ours(r#"[{"n":1},{"meta":{"stream":"other"},"$schema":"/no/1"}]"#.into());
    request.stream = Some("test.event".into());
    request.schema_uri = Some("/test/event/1.0.0".into());
    let outcomes = world.intake.accept(request).await.expect("a batch");
    assert_eq!(World::codes(&outcomes), ["accepted", "schema-unknown"]);
    let event = World::json(&world.read("test.event").await[0]);
    assert_eq!((&event["$schema"], &event["meta"]["stream"]), (&json!("/test/event/1.0.0"), &json!("test.event")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_may_stand_in_other_fields_of_which_the_first_that_is_there_counts() {
    let fields = vec!["$schema".into(), "meta.schema_uri".into()];
    let world = world(Options { schema_uri_field: fields, ..Options::default() });
    let meta = json!({ "stream": "headers", "schema_uri": "/stamped/1.0.0" });
    world.accepted(&json!({ "meta": meta })).await;
    let refused = world.refused(&json!({ "meta": meta, "$schema": "/no/1.0.0" })).await;
    assert_eq!(refused.code, Code::SchemaUnknown);
    let refused = world.refused(&json!({ "meta": {} })).await;
    let text = "Field(s) $schema,meta.schema_uri were missing from event and could not be extracted.";
    assert_eq!(refused.message, text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_a_compact_object_in_the_order_of_the_settings() {
    let world = world(Options::default());
    world.accepted(&event("keyed", json!({ "n": { "deep": [1, "x"] } }))).await;
    world.accepted(&event("keyed", json!({ "n": { "deep": null } }))).await;
    let large = "123456789012345678901234567890";
    for number in [large, "1e400", "1E2", "-0.5", "9007199254740993"] {
        let event = event("keyed", json!({ "n": { "deep": 7 } })).to_string().replace("7}", &format!("{number}}}"));
        world.all_accepted(Request::of_ours(event.into())).await;
    }
    let keys: Vec<_> = world.read("keyed").await.into_iter().map(|record| record.key.expect("a key")).collect();
    let key = |value: &str| format!(r#"{{"b":"keyed","a":{value}}}"#);
    let expected = [r#"[1,"x"]"#, "null", large, "1e400", "100", "-0.5", "9007199254740993"].map(key);
    assert_eq!(keys, expected);
    let refused = world.refused(&event("keyed", json!({}))).await;
    assert_eq!(refused.code, Code::MissingKeyField);
    assert_eq!(refused.message, "Failed extracting n.deep from event, field is not defined.");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_event_comes_back_filled_in_with_all_that_is_wrong() {
    let world = world(Options::default());
    let sent = event("test.event", json!({ "test_map": { "k": 1 }, "meta": { "dt": "yesterday", "uri": 5 } }));
    let refused = world.refused(&sent).await;
    assert_eq!(refused.code, Code::Invalid);
    let mut paths: Vec<_> = refused.violations.iter().map(|violation| violation.data_path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, [".meta.dt", ".meta.uri", ".test_map['k']"]);
    assert_eq!(refused.message, crate::schema::errors_text(&refused.violations));
    let returned: Value = serde_json::from_slice(&refused.event).expect("JSON");
    assert_eq!(returned["test"], "default value");
    assert!(world.read("test.event").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_means_nothing_is_refused_alone_with_its_place() {
    let world = world(Options::default());
    let good = event("test.event", json!({}));
    let half = r#"{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"},"test":"\ud800"}"#;
    let body = Bytes::from(format!("[{good},{half}]"));
    let outcomes = world.intake.accept(Request::of_ours(body)).await.expect("a batch");
    assert_eq!(World::codes(&outcomes), ["accepted", "malformed"]);
    let Outcome::Refused(refusal) = &outcomes[1] else { panic!("it is refused") };
    assert_eq!(
        refusal.message,
        "The event is not JSON: half of a surrogate pair (\\ud800 to \\udfff) stands alone and is no character, at line 1, column 77 of the event."
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_wait_for_a_schema_keep_their_place_in_the_batch() {
    let world = world(Options::default());
    world.accepted(&event("test.event", json!({ "test": "first" }))).await;
    let batch: Vec<Value> = ["1.0.0", "0.0.3", "1.0.0", "0.0.2", "latest", "1.0.0"]
        .iter()
        .enumerate()
        .map(|(at, version)| {
            let meta = json!({ "id": uuid::Uuid::now_v7(), "dt": "2026-01-01T00:00:00Z", "domain": "x" });
            let more = json!({ "$schema": format!("/test/event/{version}"), "test": format!("{at}"), "meta": meta });
            event("test.event", more)
        })
        .collect();
    world.all_accepted(World::request(&json!(batch))).await;
    let tests: Vec<Value> =
        world.read("test.event").await.iter().map(|record| World::json(record)["test"].clone()).collect();
    assert_eq!(tests, ["first", "0", "1", "2", "3", "4", "5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_the_same_and_appends_nothing() {
    let world = world(Options::default());
    let batch =
        json!([event("test.event", json!({})), event("nope", json!({})), event("test.event", json!({ "test": 5 }))]);
    let request = World::request(&batch);
    let dry = world.intake.accept(Request { mode: Mode::DryRun, ..request.clone() }).await.expect("a batch");
    assert_eq!(World::codes(&dry), ["accepted", "stream-not-configured", "invalid"]);
    assert!(world.read("test.event").await.is_empty());
    let real = world.intake.accept(request).await.expect("a batch");
    assert_eq!(World::codes(&real), World::codes(&dry));
}
