//! What becomes of bodies and events, over a real log.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::log::sqlite::{self, SqliteLog};
use crate::log::{Appended, Block, PartitionEnds, ReadError, Tail};
use crate::model::{CANARY, Offset, Partition, Record, Topic};
use crate::schema;

/// An intake over SQLite.
pub(super) struct World {
    pub(super) intake: Intake,
    pub(super) log: Arc<SqliteLog>,
    folder: tempfile::TempDir,
}

impl World {
    /// With these streams, and these schemas beside `test/event`: a path and its text, each.
    pub(super) fn with(options: Options, catalog: &str, schemas: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bases = folder.path().join("schemas");
        let test_event = ["0.0.2", "0.0.3", "1.0.0"].map(|version| {
            let text = std::fs::read_to_string(format!("{TEST_EVENT}/{version}.yaml")).expect("a schema");
            (format!("test/event/{version}"), text)
        });
        let schemas = schemas.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        for (path, text) in test_event.into_iter().chain(schemas) {
            let file = bases.join(format!("{path}.yaml"));
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            std::fs::write(file, text).expect("a file");
        }
        let options_of_schemas = schema::Options { bases: vec![bases.display().to_string()], ..Default::default() };
        let live = Live::fixed(Catalog::parse(catalog, "test").expect("a catalogue"));
        Self::of(options, live, &options_of_schemas, folder)
    }

    fn of(options: Options, live: Live, schemas: &schema::Options, folder: tempfile::TempDir) -> Self {
        let log = Arc::new(SqliteLog::open(folder.path(), sqlite::Options::default()).expect("a log"));
        let intake = Intake::new(options, live, schemas_of(schemas), log.clone(), Handle::current());
        Self { intake, log, folder }
    }

    pub(super) fn request(body: &Value) -> Request {
        Request::of_ours(body.to_string().into())
    }

    pub(super) fn codes(outcomes: &[Outcome]) -> Vec<&'static str> {
        let code = |outcome: &Outcome| match outcome {
            Outcome::Accepted => "accepted",
            Outcome::Spooled => "spooled",
            Outcome::Refused(refusal) => refusal.code.as_str(),
        };
        outcomes.iter().map(code).collect()
    }

    pub(super) async fn all_accepted(&self, request: Request) {
        let outcomes = self.intake.accept(request).await.expect("a batch");
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Accepted), "{outcomes:?}");
    }

    pub(super) async fn accepted(&self, event: &Value) {
        self.all_accepted(Self::request(event)).await;
    }

    pub(super) async fn refused(&self, event: &Value) -> Refusal {
        match self.intake.accept(Self::request(event)).await.expect("a batch").pop() {
            Some(Outcome::Refused(refusal)) => refusal,
            other => panic!("{event} is {other:?}"),
        }
    }

    /// All that the topic holds.
    pub(super) async fn read(&self, topic: &str) -> Vec<Record> {
        let partition = Partition::new(&Topic::new(topic), 0);
        let block = self.log.read(&partition, Offset(0)..Offset(1_000_000), 64 << 20).await.expect("a block");
        block.records
    }

    /// All that the topic holds as soon as that is so many records.
    pub(super) async fn until_read(&self, topic: &str, records: usize) -> Vec<Record> {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                look.tick().await;
                let found = self.read(topic).await;
                if found.len() >= records {
                    return found;
                }
            }
        })
        .await
        .expect("the records come")
    }

    /// Until nothing is in flight.
    pub(super) async fn until_idle(&self) {
        let shared = &self.intake.shared;
        let mut look = tokio::time::interval(Duration::from_millis(5));
        let idle = async {
            while shared.in_flight.available_permits() < shared.permits as usize {
                look.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), idle).await.expect("it comes to rest");
    }

    pub(super) fn json(record: &Record) -> Value {
        serde_json::from_slice(record.value.as_ref().expect("a value")).expect("JSON")
    }
}

const TEST_EVENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/schema/built_in/test/event");

fn schemas_of(options: &schema::Options) -> Arc<Schemas> {
    let fetcher = crate::fetch::Fetcher::new().expect("a fetcher");
    Arc::new(Schemas::new(options, fetcher, Handle::current()).expect("schemas"))
}

fn intake(options: Options) -> (Intake, Arc<SqliteLog>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let World { intake, log, folder } =
        World::of(options, Live::fixed(Catalog::built_in()), &schema::Options::default(), folder);
    (intake, log, folder)
}

async fn codes(intake: &Intake, body: &str) -> Vec<&'static str> {
    World::codes(&intake.accept(Request::of_ours(Bytes::copy_from_slice(body.as_bytes()))).await.expect("a batch"))
}

async fn error(intake: &Intake, body: &[u8]) -> BodyError {
    intake.accept(Request::of_ours(Bytes::copy_from_slice(body))).await.expect_err("no batch")
}

#[tokio::test(flavor = "multi_thread")]
async fn good_events_are_appended_as_sent_and_bad_ones_refused_alone() {
    let (intake, log, _folder) = intake(Options { max_event_bytes: 200, ..Options::default() });
    let good = r#"{"$schema":"/test/event/1.0.0","test":"","n":1e400,"meta":{"stream":"lie"}, "meta":{"dt":"2020-01-01T00:00:00Z","id":"i","stream":"test.event"}}"#;
    let body = format!(
        r#" [{good}, {{}}, 5, {{"$schema":"/x","meta":{{"stream":"nope"}}}}, {{"$schema":"/x","meta":5}}, {{"$schema":"/test/event/1.0.0","meta":{{"stream":"test.event"}},"p":"{}"}}] "#,
        "x".repeat(200)
    );
    let expected =
        ["accepted", "missing-schema", "not-an-object", "stream-not-configured", "missing-stream", "too-large"];
    assert_eq!(codes(&intake, &body).await, expected);
    let topic = crate::model::Topic::new("test.event");
    let partition = crate::model::Partition::new(&topic, 0);
    let range = crate::model::Offset(0)..crate::model::Offset(10);
    let block = log.read(&partition, range, 1 << 20).await.expect("a block");
    assert_eq!(block.records.len(), 1);
    assert_eq!(block.records[0].value.as_deref(), Some(good.as_bytes()));
    assert_eq!(block.records[0].time, Timestamp(1_577_836_800_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_no_log_takes_is_the_time_of_arrival() {
    let (intake, log, _folder) = intake(Options::default());
    for dt in ["2999-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "2020-19-39T29:59:59Z"] {
        let before = Timestamp::now();
        let body = format!(r#"{{"$schema":"/test/event/1.0.0","meta":{{"stream":"test.event","dt":"{dt}"}}}}"#);
        assert_eq!(codes(&intake, &body).await, ["accepted"]);
        let ends = log.ends(&[crate::model::Topic::new("test.event")]).await.expect("ends");
        let newest = log.before(&ends[0].partition, ends[0].next).await.expect("a record");
        assert!(newest.is_some_and(|(_, time)| (before..=Timestamp::now()).contains(&time)), "{dt}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_batch_is_refused_whole() {
    let (intake, _log, _folder) = intake(Options::default());
    for body in ["", "  ", "[]", "[ ]", "{}", "{ }", "\u{feff}"] {
        assert_eq!(error(&intake, body.as_bytes()).await, BodyError::Empty, "{body}");
    }
    assert_eq!(error(&intake, b"5").await, BodyError::NotEvents);
    assert_eq!(error(&intake, b"{\"a\":\"\xff\"}").await, BodyError::NotUtf8 { at: 6 });
    let broken = error(&intake, b"{\"a\":1,\n \"b\" 2}").await;
    assert!(matches!(broken, BodyError::NotJson { line: 2, column: 6, .. }), "{broken:?}");
    let later = error(&intake, b"\n\n \t{\"a\":}").await;
    assert!(matches!(later, BodyError::NotJson { line: 3, column: 8, .. }), "{later:?}");
    for no_space in ["\u{a0}{}", "{}\u{2028}", "\u{b}{\"a\":1}"] {
        assert!(matches!(error(&intake, no_space.as_bytes()).await, BodyError::NotJson { .. }), "{no_space:?}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(error(&intake, deep.as_bytes()).await, BodyError::TooDeep(128));
    let many = format!("[{}0]", "0,".repeat(100_000));
    assert_eq!(error(&intake, many.as_bytes()).await, BodyError::TooMany(100_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_depth_is_that_of_an_event_in_a_batch_too() {
    let (intake, _log, _folder) = intake(Options::default());
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
        format!(r#"{{"$schema":"/test/event/1.0.0","meta":{{"stream":"test.event"}},"p":{open}{close}}}"#)
    };
    assert_eq!(codes(&intake, &nested(128)).await, ["accepted"]);
    assert_eq!(codes(&intake, &format!("[{}]", nested(128))).await, ["accepted"]);
    for body in [nested(129), format!("[{}]", nested(129))] {
        assert_eq!(error(&intake, body.as_bytes()).await, BodyError::TooDeep(128));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_zero_is_no_limit() {
    let none = Options { max_body_bytes: 0, max_event_bytes: 0, max_inflight_bytes: 0, ..Options::default() };
    let (intake, _log, _folder) = intake(none);
    assert_eq!(intake.options().event_bytes_max(), BYTES_MOST);
    let event =
        format!(r#"{{"$schema":"/test/event/1.0.0","meta":{{"stream":"test.event"}},"p":"{}"}}"#, "x".repeat(5 << 20));
    assert_eq!(codes(&intake, &event).await, ["accepted"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_bound_in_flight_a_body_is_refused_at_once() {
    let (intake, _log, _folder) = intake(Options { max_inflight_bytes: 4096, ..Options::default() });
    let large =
        format!(r#"{{"$schema":"/test/event/1.0.0","meta":{{"stream":"test.event"}},"p":"{}"}}"#, "x".repeat(5000));
    let another = intake.shared.enter(1).expect("a place");
    assert_eq!(error(&intake, large.as_bytes()).await, BodyError::Overloaded);
    assert_eq!(codes(&intake, r#"{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"}}"#).await, ["accepted"]);
    drop(another);
    assert_eq!(codes(&intake, &large).await, ["accepted"], "alone it gets in, although it is larger than the bound");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_log_does_not_acknowledge_in_time_is_unknown() {
    let options = Options { deadline: Duration::from_millis(1), ..Options::default() };
    let schemas = schemas_of(&schema::Options::default());
    let uri = SchemaUri::parse("/test/event/1.0.0").expect("a URI");
    schemas.load(&uri).await.expect("a schema: what is waited for then is the log alone");
    let live = Live::fixed(Catalog::built_in());
    let intake = Intake::new(options, live, schemas, Arc::new(Silent), Handle::current());
    assert_eq!(
        codes(&intake, r#"[{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"}},{}]"#).await,
        ["unknown", "missing-schema"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_nothing_was_decided_of_is_not_accepted() {
    let (uri, stream) = (SchemaUri::parse("/a/1.0.0").expect("a URI"), "a".to_owned());
    let mut batch = Batch::of(Mode::Guaranteed, 2);
    batch.put(1, Err(Stopped::Waits { stream, uri }));
    assert!(batch.records().is_empty());
    batch.answer(Vec::new());
    let outcomes = batch.finish(&[Bytes::from_static(b"{}"), Bytes::from_static(b"{}")]);
    assert_eq!(World::codes(&outcomes), ["unknown", "unknown"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_tells_so_many_violations_and_no_more() {
    let (intake, _log, _folder) = intake(Options::default());
    let wrong = r#"{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event","uri":1,"id":2,"domain":3},"test":4}"#;
    let body = format!("[{}]", vec![wrong; 3_000].join(","));
    let outcomes = intake.accept(Request::of_ours(body.into())).await.expect("a batch");
    let told = |outcome: &Outcome| match outcome {
        Outcome::Refused(refusal) if refusal.code == Code::Invalid => refusal.violations.len(),
        other => panic!("{other:?}"),
    };
    let told: Vec<usize> = outcomes.iter().map(told).collect();
    assert_eq!((told[0], told[2_999]), (4, 1));
}

/// A log that never answers.
struct Silent;

#[async_trait::async_trait]
impl Log for Silent {
    async fn append(&self, _: Vec<NewRecord>) -> Vec<Result<Appended, AppendError>> {
        std::future::pending().await
    }

    async fn read(&self, _: &Partition, _: std::ops::Range<Offset>, _: usize) -> Result<Block, ReadError> {
        std::future::pending().await
    }

    async fn ends(&self, _: &[Topic]) -> Result<Vec<PartitionEnds>, ReadError> {
        std::future::pending().await
    }

    async fn at_time(&self, _: &[(Partition, Timestamp)]) -> Result<Vec<Offset>, ReadError> {
        std::future::pending().await
    }

    async fn before(&self, _: &Partition, _: Offset) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        std::future::pending().await
    }

    async fn tail(&self, _: Vec<Topic>, _: u64) -> Box<dyn Tail> {
        std::future::pending().await
    }

    async fn check(&self) -> Result<(), ReadError> {
        std::future::pending().await
    }

    async fn close(&self) {}

    fn describe(&self) -> String {
        "silent".into()
    }
}

#[tokio::test]
async fn canaries_go_to_their_own_topic_and_who_sends_them_may_send_nothing_else() {
    let prefixed = Options { topic_prefix: Some("x.".into()), ..Options::default() };
    let world = World::with(prefixed, "test.event: {schema_title: test/event, topics: [t]}", &[]);
    let canary = json!({"$schema": "/sluice/canary/1.0.0", "meta": {"stream": CANARY}, "instance": "a", "number": 1});
    let other = json!({"$schema": "/test/event/1.0.0", "meta": {"stream": "test.event"}});
    let wrong = json!({"$schema": "/sluice/canary/1.0.0", "meta": {"stream": CANARY}, "instance": "a", "number": 0});
    let events = json!([canary, other, wrong]);
    let request = Request { grant: Grant::canary(), ..World::request(&events) };
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let counting = metrics::set_default_local_recorder(&recorder);
    let outcomes = world.intake.accept(request).await.expect("a batch");
    drop(counting);
    assert_eq!(World::codes(&outcomes), ["accepted", "forbidden", "invalid"]);
    let text = recorder.handle().render();
    assert!(text.contains("sluice_append_seconds") && !text.contains("sluice_events_"), "counted for nobody: {text}");
    assert_eq!(world.read(CANARY).await.len(), 1);
    let refusal = world.refused(&canary).await;
    assert_eq!(refusal.code, Code::StreamNotConfigured, "{}", refusal.message);
}
