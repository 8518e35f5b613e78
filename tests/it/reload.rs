//! Another configuration while the server serves: whole or not at all, and nobody notices who is not meant.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use crate::raw::{Answer, Raw, Stream};
use crate::server::{Options, Server};
use crate::stream_configs::{Api, Fault, many, name};
use crate::support::{PATIENCE, eventually};

const RELOADS: &str = "sluice_reloads_total";
const READERS: usize = 4;
const PRODUCERS: usize = 2;
/// Reloads under load: good and broken ones in turn.
const ROUNDS: usize = 40;
const STEADY: &str = "steady";

/// One whole configuration: a token, a stream and a limit that the others have not.
fn config(version: usize) -> String {
    let token = |name: &str| {
        let hash: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{{name = '{name}', sha256 = '{hash}'}}")
    };
    let tokens = [token(STEADY), token(&format!("v{version}"))].join(", ");
    // The first half; what is broken is added at the end.
    format!("[limits]\ncatchup_reads = {}\n[intake]\nauth = 'tokens'\ntokens = [{tokens}]\n", 100 + version)
}

fn streams(version: usize) -> String {
    format!(
        "load: {{schema_title: test/event, topics: [load]}}\nonly.v{version}: {{schema_title: test/event, topics: [v{version}]}}\n"
    )
}

fn event(number: usize) -> Value {
    json!({"$schema": "/test/event/1.0.0", "meta": {"stream": "load"}, "test": "reload", "number": number})
}

async fn post_as(raw: &mut Raw, token: &str, target: &str, body: &str) -> Answer {
    let headers = format!("Content-Type: application/json\r\nAuthorization: Bearer {token}\r\n");
    raw.post_to(target, &headers, body.as_bytes()).await
}

async fn reload(server: &Server) -> Answer {
    server.ask_admin("POST", "/reload", "").await
}

/// The version of each part that runs: limits, tokens, catalogue.
async fn running(server: &Server, versions: usize) -> (usize, Vec<usize>, Vec<usize>) {
    let limits = server.ask_admin("GET", "/limits", "").await.json();
    let limit = limits["catchup_reads"].as_u64().and_then(|reads| usize::try_from(reads).ok()).expect("a number") - 100;
    let mut tokens = Vec::new();
    let mut raw = server.connect().await;
    for version in 0..versions {
        let answer = post_as(&mut raw, &format!("v{version}"), "/v1/events?dry_run=true", &event(0).to_string()).await;
        match answer.status() {
            200 => tokens.push(version),
            401 => {}
            _ => panic!("{answer:?}"),
        }
    }
    let known = server.get("/v1/stream-configs").await.json();
    let streams = (0..versions).filter(|version| known.get(format!("only.v{version}")).is_some()).collect();
    (limit, tokens, streams)
}

/// Posts numbers of its own until it is told to stop; every one must be taken.
async fn produce(mut raw: Raw, producer: usize, stop: Arc<AtomicBool>) -> Vec<usize> {
    let mut posted = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = posted.len() * PRODUCERS + producer;
        let answer = post_as(&mut raw, STEADY, "/v1/events", &event(number).to_string()).await;
        assert_eq!(answer.status(), 201, "{answer:?}");
        posted.push(number);
    }
    posted
}

/// On its first connection, up to the event that says that it is over.
async fn read(mut stream: Stream) -> Vec<usize> {
    let mut numbers = Vec::new();
    loop {
        let event = stream.event().await.json();
        match event["number"].as_u64() {
            Some(number) => numbers.push(usize::try_from(number).expect("a number")),
            None => return numbers,
        }
    }
}

/// Files that are right at first and then are not, and what must be said of each.
fn break_it(server: &Server, round: usize) -> &'static str {
    let next = 2;
    let (mut toml, mut yaml) = (config(next), streams(next));
    let why = match round % 5 {
        0 => {
            toml += "[http]\nworkerz = 1\n";
            "workerz"
        }
        1 => {
            toml += "[hub\n";
            "is not TOML"
        }
        2 => {
            yaml += "broken: {topics: 5}\n";
            "broken"
        }
        3 => {
            toml = toml.replace("[limits]\n", "[limits]\nstreams_total = 999999999\n");
            "limits.streams_total"
        }
        _ => {
            toml += "jwt.key_file = '/nonexistent/key.pem'\njwt.algorithms = ['RS256']\n";
            toml = toml.replace("auth = 'tokens'", "auth = 'jwt'");
            "/nonexistent/key.pem"
        }
    };
    server.rewrite("sluice.toml", &toml);
    server.rewrite("streams.yaml", &yaml);
    why
}

/// By a signal or a request. Whether it was taken, and what was said of it.
async fn ask(server: &Server, by_signal: bool) -> (bool, String) {
    if !by_signal {
        let answer = reload(server).await;
        return (answer.status() == 200, answer.text());
    }
    let before = (server.metric(RELOADS).await, server.stderr().len());
    server.signal(Signal::HUP);
    let done = eventually(PATIENCE, async || server.metric(RELOADS).await > before.0).await;
    assert!(done, "nothing happens at SIGHUP; its log:\n{}", server.stderr());
    let refused = |log: &str| log.contains("refused, and nothing has changed");
    let told = eventually(PATIENCE, async || {
        let log = server.stderr();
        refused(&log[before.1..]) || log[before.1..].contains("the configuration was read again\"")
    });
    assert!(told.await, "{}", server.stderr());
    let log = server.stderr()[before.1..].to_owned();
    (!refused(&log), log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn under_load_good_files_are_taken_whole_broken_ones_change_nothing_and_nobody_is_dropped() {
    let server = Server::start(Options::default().config(&config(0)).streams(&streams(0))).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (mut readers, mut producers) = (JoinSet::new(), JoinSet::new());
    for _ in 0..READERS {
        readers.spawn(read(server.stream("/v2/stream/load?since=0", "").await));
    }
    for producer in 0..PRODUCERS {
        producers.spawn(produce(server.connect().await, producer, stop.clone()));
    }
    let mut version = 0;
    for round in 0..ROUNDS {
        let by_signal = round % 4 < 2;
        if round % 2 == 0 {
            let why = break_it(&server, round / 2);
            let (taken, said) = ask(&server, by_signal).await;
            assert!(!taken && said.contains(why), "round {round}: {said}");
        } else {
            version = 1 - version;
            server.rewrite("sluice.toml", &config(version));
            server.rewrite("streams.yaml", &streams(version));
            let (taken, said) = ask(&server, by_signal).await;
            assert!(taken && said.contains("limits.catchup_reads") && said.contains("intake.tokens"), "{said}");
        }
        assert_eq!(running(&server, 3).await, (version, vec![version], vec![version]), "round {round}");
    }
    stop.store(true, Ordering::Relaxed);
    let mut posted: Vec<usize> = producers.join_all().await.concat();
    posted.sort_unstable();
    let mut end = event(0);
    end["number"] = Value::Null;
    let end = json!({"$schema": end["$schema"], "meta": end["meta"], "test": "the end"});
    assert_eq!(post_as(&mut server.connect().await, STEADY, "/v1/events", &end.to_string()).await.status(), 201);
    for mut read in readers.join_all().await {
        read.sort_unstable();
        assert_eq!(read, posted, "every reader has had every event, once");
    }
    assert!(posted.len() > ROUNDS, "that was no load: {}", posted.len());
}

#[tokio::test]
async fn what_waits_for_a_restart_is_named_and_what_was_set_meanwhile_gives_way_to_the_file() {
    let server = Server::start(Options::default().config(&config(0)).streams(&streams(0))).await;
    let nothing = json!({"changed": [], "needs_restart": [], "catalog": "unchanged"});
    assert_eq!(reload(&server).await.json(), nothing);
    assert_eq!(server.ask_admin("PUT", "/limits", r#"{"posts_per_second": 7}"#).await.status(), 200);
    server.rewrite("sluice.toml", &format!("{}[hub]\nheartbeat = '7s'\n[http]\nworkers = 3\n", config(0)));
    let expected = json!({
        "changed": ["limits.posts_per_second"], "needs_restart": ["http.workers", "hub.heartbeat"], "catalog": "unchanged",
    });
    assert_eq!(reload(&server).await.json(), expected);
    let expected = json!({"changed": [], "needs_restart": ["http.workers", "hub.heartbeat"], "catalog": "unchanged"});
    assert_eq!(reload(&server).await.json(), expected, "they still wait");
    server.rewrite("streams.yaml", &streams(1));
    server.rewrite("sluice.toml", &config(0));
    let expected = json!({"changed": [], "needs_restart": [], "catalog": "reread"});
    assert_eq!(reload(&server).await.json(), expected, "taken back, there is nothing to restart for");
    assert!(server.stderr().contains("need a restart"), "{}", server.stderr());
    assert_eq!(server.ask_admin("GET", "/reload", "").await.status(), 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn reloads_at_once_come_one_after_the_other() {
    let server = Server::start(Options::default().config(&config(0)).streams(&streams(0))).await;
    server.rewrite("sluice.toml", &config(1));
    let asked = futures_util::future::join_all((0..8).map(|_| reload(&server))).await;
    let changes = asked.iter().filter(|answer| answer.json()["changed"] != json!([])).count();
    assert_eq!(changes, 1, "{asked:?}");
}

#[tokio::test]
async fn readers_of_a_stream_that_has_other_topics_now_are_ended_and_the_others_stay() {
    let options =
        Options::default().streams("a: {schema_title: test/event, topics: [a]}\nload: {schema_title: test/event}");
    let server = Server::start(options).await;
    let mut moved = server.stream("/v2/stream/a", "").await;
    let mut stays = server.stream("/v2/stream/load", "").await;
    server.rewrite("streams.yaml", "a: {schema_title: test/event, topics: [b]}\nload: {schema_title: test/event}");
    assert_eq!(reload(&server).await.json()["catalog"], "reread");
    let farewell = String::from_utf8(moved.raw.rest().await).expect("UTF-8");
    assert!(farewell.contains("retry: ") && farewell.ends_with("0\r\n\r\n"), "{farewell:?}");
    server.put(&event(5)).await;
    assert_eq!(stays.event().await.json()["number"], 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_address_is_asked_at_once_and_its_being_away_holds_up_nothing_else() {
    let api = Api::start(many(3)).await;
    let settings = |reads: usize| {
        let url = api.url();
        format!("[catalog]\nsource = '{url}'\nrefresh = '1h'\n[limits]\ncatchup_reads = {reads}\n")
    };
    let server = Server::start(Options::default().config(&settings(8))).await;
    api.set(many(4));
    let expected = json!({"changed": [], "needs_restart": [], "catalog": "refreshed"});
    assert_eq!(reload(&server).await.json(), expected);
    assert!(server.get("/v1/stream-configs").await.json().get(name(3)).is_some());
    api.fail(Some(Fault::Status(500)));
    server.rewrite("sluice.toml", &settings(9));
    let answer = reload(&server).await.json();
    assert_eq!((&answer["changed"], &answer["catalog"]), (&json!(["limits.catchup_reads"]), &json!("unchanged")));
    assert!(answer["catalog_fault"].as_str().is_some_and(|why| why.contains("500")), "{answer}");
    assert!(server.get("/v1/stream-configs").await.json().get(name(3)).is_some(), "the old one stays");
    api.fail(None);
    server.rewrite("sluice.toml", "[catalog]\nsource = '/nonexistent/streams.yaml'\n");
    let answer = reload(&server).await;
    assert_eq!(answer.status(), 422, "a restart would fail at it: {answer:?}");
    assert!(answer.json()["errors"][0].as_str().is_some_and(|why| why.contains("/nonexistent/streams.yaml")));
}
