//! The catalogue from an address: what is loaded, what is not believed, and what a change does to producers and readers.

use std::cell::Cell;
use std::time::Duration;

use serde_json::{Value, json};
use sluice::catalog::{Live, Options as Catalog};
use sluice::fetch::Fetcher;
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::engine::{Engine, on_both_engines};
use crate::raw::{Event, Stream};
use crate::server::{Options, Server, sluice};
use crate::stream_configs::{Api, Fault, many, name};
use crate::support::{PATIENCE, eventually, unique};

async fn open(url: &str, refresh_ms: u64) -> (Live, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let live = open_in(&folder, url, refresh_ms).await.expect("a catalogue");
    (live, folder)
}

async fn open_in(folder: &TempDir, url: &str, refresh_ms: u64) -> Result<Live, sluice::catalog::OpenError> {
    let refresh = Duration::from_millis(refresh_ms);
    let options = Catalog { source: Some(url.to_owned()), refresh, ..Catalog::default() };
    Live::open(&options, folder.path(), Fetcher::new().expect("a fetcher"), &Handle::current()).await
}

fn options(api: &Api, refresh: &str) -> Options {
    Options::default().env("SLUICE__CATALOG__SOURCE", &api.url()).env("SLUICE__CATALOG__REFRESH", refresh)
}

fn event(stream: &str, number: usize) -> Value {
    let meta = json!({"stream": stream, "id": format!("e{number}"), "dt": "2026-01-01T00:00:00.000Z"});
    json!({"$schema": "/test/event/1.0.0", "meta": meta, "test": number.to_string()})
}

fn number(event: &Event) -> usize {
    event.json()["test"].as_str().and_then(|text| text.parse().ok()).expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn lists_of_every_length_load_whole() {
    for count in [1, 51, 123, 1_000, 5_000] {
        let api = Api::start(many(count)).await;
        let (whole, _folder) = open(&api.url(), 0).await;
        assert_eq!(whole.now().count(), count);

        let names: Vec<String> = (0..count).map(name).collect();
        let (named, _folder) = open(&api.url_of(&names), 0).await;
        assert_eq!(named.now().count(), count, "asked for by name, {count} at once");

        api.in_parts_of(50);
        let (parts, _folder) = open(&api.url(), 0).await;
        assert_eq!(parts.now().count(), count, "in parts");
        assert!(parts.now().route(&name(count - 1), None).is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_in_doubt_leaves_the_old_catalogue_as_it_is() {
    let api = Api::start(many(100)).await;
    let (live, _folder) = open(&api.url(), 20).await;
    let before = live.now();
    let faults = [
        Fault::Status(500),
        Fault::Status(404),
        Fault::Cut,
        Fault::HalfJson,
        Fault::Html,
        Fault::Error,
        Fault::Warnings,
        Fault::NoStreams,
        Fault::EmptyMap,
        Fault::Shrunk(79),
        Fault::Endless,
        Fault::Hang,
    ];
    for fault in faults {
        api.fail(Some(fault));
        let doubted = eventually(PATIENCE, async || live.look_again().await.is_err()).await;
        assert!(doubted, "{fault:?} is believed");
        assert!(std::sync::Arc::ptr_eq(&before, &live.now()), "{fault:?} has changed the catalogue");
        api.fail(None);
        let believed = eventually(PATIENCE, async || live.look_again().await.is_ok()).await;
        assert!(believed, "after {fault:?} nothing is believed any more");
    }
    api.set(many(80));
    assert!(eventually(PATIENCE, async || live.now().count() == 80).await, "a fifth may go");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_that_is_not_there_is_the_clients_fault_and_one_that_nobody_knows_of_is_ours() {
    let api = Api::start(many(3)).await;
    // Without the refresh of the timer: what is asked is asked for the event.
    let url = format!("{}&token=hush", api.url());
    let options = Options::default().env("SLUICE__CATALOG__SOURCE", &url).env("SLUICE__CATALOG__REFRESH", "100ms");
    let server = Server::start(options).await;
    let post = async || server.post(&event("nope", 0).to_string()).await;
    let code = |answer: &crate::raw::Answer| answer.json()["error"][0]["code"].as_str().map(str::to_owned);
    let told = eventually(PATIENCE, async || code(&post().await).as_deref() == Some("stream-not-configured")).await;
    assert!(told, "{:?}", post().await);
    assert_eq!(post().await.status(), 400);
    for fault in [Fault::Warnings, Fault::Hang, Fault::Status(500)] {
        api.fail(Some(fault));
        let told = eventually(PATIENCE, async || code(&post().await).as_deref() == Some("config-unavailable")).await;
        let answer = post().await;
        assert!(told, "{fault:?}: {answer:?}");
        assert_eq!((answer.status(), answer.header("retry-after")), (503, "1"), "{fault:?}");
        for secret in ["hush", "127.0.0.1", "warnings"] {
            assert!(!answer.text().contains(secret), "{fault:?}: {}", answer.text());
        }
        assert_eq!(server.post(&event(&name(0), 0).to_string()).await.status(), 201, "those that are known go on");
    }
    assert!(!server.stderr().contains("hush"), "{}", server.stderr());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whoever_misses_a_stream_asks_once_and_shares_the_answer() {
    let api = Api::start(many(3)).await;
    let (live, _folder) = open(&api.url(), 3_600_000).await;
    let asked = api.asked();
    for _ in 0..100 {
        let now = live.look_again().await.expect("just asked");
        assert!(now.route("nope", None).is_none());
    }
    assert_eq!(api.asked(), asked, "the start has asked just now");

    let (live, _folder) = open(&api.url(), 50).await;
    api.set(many(4));
    let found = eventually(PATIENCE, async || {
        let looks = futures_util::future::join_all((0..20).map(|_| live.look_again())).await;
        looks.into_iter().all(|look| look.is_ok_and(|now| now.route(&name(3), None).is_some()))
    });
    assert!(found.await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_catalogue_that_is_asked_for_once_is_believed_for_good() {
    let api = Api::start(many(3)).await;
    let (live, _folder) = open(&api.url(), 0).await;
    let asked = api.asked();
    api.fail(Some(Fault::Status(500)));
    assert!(live.look_again().await.is_ok());
    assert_eq!(api.asked(), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_with_a_fault_holds_up_no_other_and_keeps_what_it_had() {
    let api = Api::start(many(2)).await;
    let (live, _folder) = open(&api.url(), 20).await;
    api.set(json!({
        name(0): {"topics": 5}, name(1): {"topics": ["other"]}, "bad name": {}, "/[/": {}, "new": {"topics": ["new"]},
    }));
    assert!(eventually(PATIENCE, async || live.now().route("new", None).is_some()).await);
    let now = live.now();
    let topic = |stream: &str| now.route(stream, None).map(|route| route.topic.to_string());
    assert_eq!((topic(&name(0)), topic(&name(1))), (Some(name(0)), Some("other".to_owned())));
    assert_eq!(now.count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_start_without_the_api_has_the_copy_of_the_same_source_and_says_so() {
    let api = Api::start(many(60)).await;
    let folder = tempfile::tempdir().expect("a folder");
    drop(open_in(&folder, &api.url(), 20).await.expect("a catalogue"));
    api.fail(Some(Fault::Shrunk(10)));
    let live = open_in(&folder, &api.url(), 20).await.expect("the copy");
    assert_eq!(live.now().count(), 60);
    let other = format!("{}&other", api.url());
    let live_of_other = open_in(&folder, &other, 20).await.expect("it has no copy to compare with");
    assert_eq!(live_of_other.now().count(), 10);
    api.fail(None);
    assert!(eventually(PATIENCE, async || live.look_again().await.is_ok()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_services_streams_are_asked_for_where_one_is_named() {
    let mut streams = many(4);
    streams[name(1)]["destination_event_service"] = json!("main");
    streams[name(2)]["destination_event_service"] = json!("other");
    let api = Api::start(streams).await;
    let folder = tempfile::tempdir().expect("a folder");
    let service = Some("main".to_owned());
    let options = Catalog { source: Some(api.url()), destination_event_service: service, ..Catalog::default() };
    let fetcher = Fetcher::new().expect("a fetcher");
    let live = Live::open(&options, folder.path(), fetcher, &Handle::current()).await.expect("a catalogue");
    assert_eq!(live.now().count(), 1);
    assert!(live.now().route(&name(1), None).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn under_constant_refresh_and_failure_no_configured_stream_is_ever_unknown() {
    const STREAMS: usize = 20;
    let api = Api::start(many(STREAMS)).await;
    let server = Server::start(options(&api, "20ms")).await;
    api.flap(&[Fault::Status(500), Fault::Error, Fault::Cut, Fault::EmptyMap, Fault::Shrunk(1), Fault::Warnings]);
    let (start, mut posted) = (api.asked(), 0);
    let mut raw = server.connect().await;
    while posted < 500 || api.asked() < start + 60 {
        let batch: Vec<Value> = (0..STREAMS).map(|at| event(&name(at), posted)).collect();
        let answer = raw.post(&Value::from(batch).to_string()).await;
        assert_eq!(answer.status(), 201, "{answer:?}");
        // Every other one is another catalogue, swapped in.
        let mut streams = many(STREAMS);
        streams[name(0)]["description"] = json!(posted);
        api.set(streams);
        posted += 1;
    }
    assert!(server.metric("sluice_catalog_refreshes_total").await >= 50.0);
    assert_eq!(server.metric("sluice_catalog_streams").await, STREAMS as f64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_restart_while_the_api_is_away_serves_from_the_copy_and_its_age_grows() {
    let api = Api::start(many(2)).await;
    let mut server = Server::start(options(&api, "50ms")).await;
    server.kill().await;
    api.fail(Some(Fault::Status(503)));
    server.start_again().await;
    server.put(&event(&name(1), 0)).await;
    assert!(server.stderr().contains("the copy of an earlier run"), "{}", server.stderr());
    let age = server.metric("sluice_catalog_age_seconds").await;
    let grows = eventually(PATIENCE, async || server.metric("sluice_catalog_age_seconds").await > age).await;
    assert!(grows, "the age stays at {age}");
    api.fail(None);
    let young = eventually(PATIENCE, async || server.metric("sluice_catalog_age_seconds").await < age).await;
    assert!(young, "the age is still over {age}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn with_neither_the_api_nor_a_copy_the_start_fails_and_names_the_address() {
    let api = Api::start(many(2)).await;
    api.fail(Some(Fault::Error));
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = tokio::process::Command::from(sluice());
    command.args(["--listen", "127.0.0.1:0", "--admin", "off", "--streams", &api.url(), "--data"]).arg(folder.path());
    let output = command.kill_on_drop(true).output().await.expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("http://{}/w/api.php cannot be had", api.address)), "{said}");
    assert!(said.contains("internal_api_error"), "{said}");
}

/// A stream of these topics.
fn stream(topics: &[&str]) -> Value {
    json!({"topics": topics, "schema_title": "test/event"})
}

async fn a_stream_that_is_added_takes_events_and_has_readers_at_once(engine: Engine) {
    let [old, new] = ["old", "new"].map(unique);
    let api = Api::start(json!({"old": stream(&[&old])})).await;
    let server = Server::start(engine.options(options(&api, "20ms"), &[&old, &new]).await).await;
    api.set(json!({"old": stream(&[&old]), "new": stream(&[&new])}));
    let known = eventually(PATIENCE, async || server.post(&event("new", 0).to_string()).await.status() == 201).await;
    assert!(known, "{}", server.stderr());
    let mut all = server.stream("/v2/stream/new?since=0", "").await;
    assert_eq!(number(&all.event().await), 0);
    let mut live = server.stream("/v2/stream/new", "").await;
    server.put(&event("new", 1)).await;
    assert_eq!(number(&live.event_where(|event| number(event) == 1).await), 1);
    assert_eq!(number(&all.event().await), 1);
}

/// What the reader gets before its stream is ended, with its last id.
async fn until_ended(stream: &mut Stream, mut last: Event) -> (Vec<usize>, Event) {
    let mut numbers = Vec::new();
    loop {
        let text = String::from_utf8(stream.raw.chunk().await).expect("UTF-8");
        if text.starts_with(':') {
            continue;
        }
        if let Some(retry) = text.strip_prefix("retry: ") {
            let retry = retry.strip_suffix('\n').and_then(|ms| ms.parse::<u64>().ok());
            assert!(retry.is_some_and(|ms| (1_000..=60_000).contains(&ms)), "{text:?}");
            assert_eq!(stream.raw.rest().await, b"0\r\n\r\n");
            return (numbers, last);
        }
        last = Event::parse(&text);
        numbers.push(number(&last));
    }
}

/// Posts events of `s`, one after the other, until it is told to stop; brings the number of the last.
async fn post_until(server: &Server, ended: &Cell<bool>) -> usize {
    let mut raw = server.connect().await;
    let mut posted = 0;
    while !ended.get() {
        posted += 1;
        let answer = raw.post(&event("s", posted).to_string()).await;
        assert_eq!(answer.status(), 201, "{answer:?}");
    }
    posted
}

async fn readers_of_a_stream_with_other_topics_are_ended_and_resume_without_loss(engine: Engine) {
    let [one, two, three] = ["one", "two", "three"].map(unique);
    let quiet = stream(&[&three]);
    let api = Api::start(json!({"s": stream(&[&one]), "quiet": quiet})).await;
    let server = Server::start(engine.options(options(&api, "20ms"), &[&one, &two, &three]).await).await;
    let mut reader = server.stream("/v2/stream/s", "").await;
    let mut both = server.stream("/v2/stream/s,quiet", "").await;
    let mut alone = server.stream("/v2/stream/quiet", "").await;
    server.put(&event("s", 0)).await;
    let (first, first_of_both) = (reader.event().await, both.event().await);

    // The new topic takes what comes from now on: some of it before the readers are ended, some after it.
    let other = stream(&[&two, &one]);
    api.set(json!({"s": other, "quiet": quiet}));
    let ended = Cell::new(false);
    let read = async {
        let read = until_ended(&mut reader, first).await;
        ended.set(true);
        read
    };
    let ((mut numbers, last), posted) = tokio::join!(read, post_until(&server, &ended));
    let mut resumed = server.stream("/v2/stream/s", &format!("Last-Event-ID: {}\r\n", last.id)).await;
    server.put(&event("s", posted + 1)).await;
    let mut id = last.id;
    while numbers.len() <= posted {
        let event = resumed.event().await;
        numbers.push(number(&event));
        id = event.id;
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=posted + 1).collect::<Vec<_>>());
    assert!(id.contains(&one) && id.contains(&two), "{id}");

    until_ended(&mut both, first_of_both).await;
    api.set(json!({"s": other}));
    assert!(alone.raw.rest().await.ends_with(b"\n\r\n0\r\n\r\n"), "a stream that is gone has no readers");
    assert_eq!(server.get("/v2/stream/quiet").await.status(), 404);
}

on_both_engines!(
    a_stream_that_is_added_takes_events_and_has_readers_at_once,
    readers_of_a_stream_with_other_topics_are_ended_and_resume_without_loss,
);
