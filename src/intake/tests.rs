//! What becomes of bodies and events, over a real log.

use std::time::Duration;

use super::*;
use crate::log::sqlite::{self, SqliteLog};
use crate::log::{Block, PartitionEnds, ReadError, Tail};
use crate::model::{Offset, Partition, Topic};

fn schemas() -> Arc<Schemas> {
    let fetcher = crate::fetch::Fetcher::new().expect("a fetcher");
    Arc::new(Schemas::new(&crate::schema::Options::default(), fetcher, Handle::current()).expect("schemas"))
}

fn intake(options: Options) -> (Intake, Arc<SqliteLog>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let log = Arc::new(SqliteLog::open(folder.path(), sqlite::Options::default()).expect("a log"));
    let engine = Handle::current();
    (Intake::new(options, Live::fixed(Catalog::built_in()), schemas(), log.clone(), engine), log, folder)
}

async fn codes(intake: &Intake, body: &str) -> Vec<&'static str> {
    let outcomes = intake.accept(Request::of_ours(Bytes::copy_from_slice(body.as_bytes()))).await.expect("a batch");
    let code = |outcome: &Outcome| match outcome {
        Outcome::Accepted => "accepted",
        Outcome::Refused(refusal) => refusal.code.as_str(),
    };
    outcomes.iter().map(code).collect()
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
    let intake = Intake::new(options, Live::fixed(Catalog::built_in()), schemas(), Arc::new(Silent), Handle::current());
    assert_eq!(
        codes(&intake, r#"[{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"}},{}]"#).await,
        ["unknown", "missing-schema"]
    );
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
