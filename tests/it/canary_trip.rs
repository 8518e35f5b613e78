//! The canary that sluice sends on the whole way, whatever stands in it, and that nobody else gets to see.

use serde_json::{Value, json};

use crate::admin::see;
use crate::engine::{Engine, on_both_engines};
use crate::raw::Raw;
use crate::server::{Options, Server, sluice};
use crate::support::{PATIENCE, eventually, unique};

const CANARY: &str = "sluice.canary";
/// As long, as like it, and of no meaning.
const STRANGER: &str = "sluice.canarx";
/// Trips that are waited for.
const SOME: f64 = 3.0;

/// Canaries come often, so that tests need not wait for them.
fn often() -> Options {
    Options::default().env("SLUICE__HEALTH__CANARY_EVERY", "250ms")
}

async fn trips(server: &Server, result: &str) -> f64 {
    let metrics = Raw::connect(server.admin).await.get("/metrics", "").await.text();
    let name = format!("sluice_canary_trips_total{{result=\"{result}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
    value.map_or(0.0, |value| value.parse().expect("a number"))
}

/// Waits for some more trips with this result.
async fn until(server: &Server, result: &str) {
    let before = trips(server, result).await;
    let come = eventually(PATIENCE, async || trips(server, result).await >= before + SOME).await;
    assert!(come, "no more {result}; the log:\n{}", server.stderr());
}

async fn canaries_make_the_trip_on(engine: Engine) {
    let server = Server::start(engine.options(often(), &[]).await).await;
    until(&server, "made").await;
    assert!(server.metric("sluice_canary_seconds_count").await >= SOME);
    // What is read back is what was written: a stop, and a start on the same log, change nothing of it.
    let mut server = server;
    server.stop().await;
    server.start_again().await;
    until(&server, "made").await;
}

mod trips_of {
    use super::*;

    async fn canaries_make_the_trip(engine: Engine) {
        canaries_make_the_trip_on(engine).await;
    }

    on_both_engines!(canaries_make_the_trip);
}

#[tokio::test]
async fn to_everybody_else_the_canaries_stream_is_one_that_is_not_there() {
    let server = Server::start(often()).await;
    until(&server, "made").await;
    // Of two names that nobody has, one cannot be told from the other.
    let paths = ["/v2/stream/%", "/v2/stream/test.event,%", "/v1/stream-configs/%", "/v1/stream-configs?streams=%"];
    for path in paths {
        for headers in ["", "Sluice-Probe: 0\r\n", "Accept: application/json\r\n"] {
            let answer = async |name: &str| {
                let answer = server.connect().await.get(&path.replace('%', name), headers).await;
                (answer.status(), answer.text().replace(name, "%"))
            };
            assert_eq!(answer(CANARY).await, answer(STRANGER).await, "{path}");
        }
    }
    let event = |name: &str| {
        let meta = json!({ "stream": name, "id": "x", "dt": "2026-11-21T00:00:00Z" });
        json!({ "$schema": "/sluice/canary/1.0.0", "meta": meta, "instance": "x", "number": 1 }).to_string()
    };
    for query in ["", "?dry_run=true", "?hasty=true"] {
        let answer = async |name: &str| {
            let target = format!("/v1/events{query}");
            let headers = "Content-Type: application/json\r\n";
            let answer = server.connect().await.post_to(&target, headers, event(name).as_bytes()).await;
            (answer.status(), answer.text().replace(name, "%"))
        };
        assert_eq!(answer(CANARY).await, answer(STRANGER).await, "{query}");
    }
    // And it stands nowhere.
    let unknown = server.get("/v2/stream/sluice.canar").await;
    assert!(unknown.status() == 404 && !unknown.text().contains(CANARY), "{unknown:?}");
    for path in ["/?spec", "/?doc", "/v2/ui", "/openapi.json", "/v1/stream-configs", "/_info", "/health", "/readyz"] {
        let text = server.get(path).await.text();
        assert!(!text.contains(CANARY), "{path}: {text}");
    }
    for path in ["/clients", "/traffic", "/limits", "/deny", "/metrics", "/health"] {
        let text = server.ask_admin("GET", path, "").await.text();
        assert!(!text.contains(CANARY), "{path}: {text}");
    }
    assert_eq!(see(&server, "/clients").await["clients"], json!([]));
    let traffic = see(&server, "/traffic").await;
    let canaries = |list: &Value| list.to_string().contains("\"sluice\"");
    assert!(!canaries(&traffic["posting"]) && !canaries(&traffic["reading"]), "{traffic}");
    for nobodys in ["sluice_events_accepted_total", "sluice_streams_open", "sluice_streams_opened_total"] {
        assert_eq!(server.metric(nobodys).await, 0.0, "{nobodys}");
    }
}

#[tokio::test]
async fn patterns_do_not_match_the_canaries_stream() {
    let streams = "
        '/.*/': {schema_title: test/event, topic_prefixes: null}
        '/^can/': {schema_title: test/event, topic_prefixes: ['sluice.']}";
    let server = Server::start(often().streams(streams)).await;
    let event = |stream: &str| json!({ "$schema": "/test/event/1.0.0", "meta": { "stream": stream } }).to_string();
    assert_eq!(server.post(&event(STRANGER)).await.status(), 201);
    let answer = server.post(&event(CANARY)).await;
    assert_eq!((answer.status(), answer.json()["error"][0]["code"].as_str()), (400, Some("stream-not-configured")));
    let configs = server.get(&format!("/v1/stream-configs/{CANARY},{STRANGER}")).await.text();
    assert!(configs.contains(STRANGER) && !configs.contains(CANARY), "{configs}");
    assert_eq!(trips(&server, "failed").await, 0.0);
    until(&server, "made").await;
}

#[tokio::test]
async fn a_catalogue_that_takes_the_canaries_name_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let streams = folder.path().join("streams.yaml");
    for entry in ["sluice.canary: {}", "a: {stream_aliases: [sluice.canary]}", "a: {topics: [sluice.canary]}"] {
        std::fs::write(&streams, entry).expect("a file");
        let mut command = sluice();
        command.args(["--listen", "127.0.0.1:0", "--admin", "off", "--data"]).arg(folder.path());
        command.arg("--streams").arg(&streams);
        let output = tokio::process::Command::from(command).output();
        let output = tokio::time::timeout(PATIENCE, output).await.expect("an end").expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains("'sluice.canary' is reserved"), "{entry}: {said}");
    }
}

#[tokio::test]
async fn readers_see_nothing_of_canaries_in_their_events_or_ids() {
    let server = Server::start(often()).await;
    let mut stream = server.stream("/v2/stream/test.event?since=2020-01-01", "").await;
    until(&server, "made").await;
    server.put(&json!({ "$schema": "/test/event/1.0.0", "meta": { "stream": "test.event" }, "test": "own" })).await;
    let event = stream.event().await;
    assert_eq!(event.json()["test"], "own", "it is the first of all");
    assert!(event.id.contains("test.event") && !event.id.contains(CANARY), "{event:?}");
    let foreign = format!(
        "/v2/stream/test.event?lastEventId=%5B%7B%22topic%22:%22{CANARY}%22,%22partition%22:0,%22offset%22:1%7D%5D"
    );
    assert_eq!(server.get(&foreign).await.status(), 400);
}

#[tokio::test]
async fn canaries_get_in_where_nobody_may_post_and_this_machine_is_denied() {
    let server = Server::start(often().env("SLUICE__INTAKE__AUTH", "closed")).await;
    assert_eq!(server.post("{}").await.status(), 403);
    let denied = server.ask_admin("PUT", "/deny/127.0.0.0%2F8", &json!({ "reason": "a test" }).to_string()).await;
    assert_eq!(denied.status(), 200, "{denied:?}");
    assert_eq!(denied.json()["ended"], 0, "nobody reads");
    assert_eq!(server.get("/v2/stream/test.event").await.status(), 403);
    until(&server, "made").await;
    assert_eq!(trips(&server, "failed").await, 0.0);
}

#[tokio::test]
async fn canaries_make_the_trip_where_everybody_else_is_over_every_limit() {
    let options = [
        "STREAMS_TOTAL",
        "STREAMS_PER_CLIENT",
        "POSTS_PER_SECOND",
        "NEW_STREAMS_PER_MINUTE",
        "CATCHUP_READS_PER_CLIENT",
    ];
    let options = options.into_iter().fold(often(), |set, limit| set.env(&format!("SLUICE__LIMITS__{limit}"), "1"));
    let options =
        options.env("SLUICE__LIMITS__POST_BYTES_PER_SECOND", "1").env("SLUICE__LIMITS__BYTES_OUT_PER_SECOND", "1");
    let server = Server::start(options).await;
    let _open = server.stream("/v2/stream/test.event", "").await;
    until(&server, "made").await;
    assert_eq!(trips(&server, "failed").await, 0.0);
    let health = server.get("/health").await;
    assert_eq!((health.status(), health.json()["state"].as_str()), (503, Some("full")), "{health:?}");
    assert_eq!(server.metric("sluice_limited_total").await, 0.0, "nothing of it is counted");
}

#[tokio::test]
async fn canaries_speak_as_the_proxy_does_that_this_machine_is() {
    // Nobody else asks: what is logged once would be logged of them.
    for header in ["proxy-protocol", "x-forwarded-for", "forwarded", "x-client-ip"] {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let trusted = often().env("SLUICE__LIMITS__TRUSTED_PROXIES", "127.0.0.0/8").listen(address).unready();
            let options = trusted
                .env("SLUICE__LIMITS__CLIENT_IP_HEADER", header)
                .env("SLUICE__LIMITS__CONNECTIONS_PER_CLIENT", "1")
                .env("SLUICE__INTAKE__AUTH", "closed");
            let server = Server::start(options).await;
            until(&server, "made").await;
            let log = server.stderr();
            let warned = ["without a PROXY header", "who is asking"].into_iter().any(|words| log.contains(words));
            assert!(!warned && trips(&server, "failed").await == 0.0, "{header} on {address}: {log}");
        }
    }
}

#[tokio::test]
async fn canaries_find_a_listener_of_the_other_family() {
    let server = Server::start(often().listen("[::]:0").env("SLUICE__INTAKE__AUTH", "closed").unready()).await;
    until(&server, "made").await;
}

#[tokio::test]
async fn half_an_instance_tries_the_half_that_it_has() {
    for half in ["in", "out"] {
        let server = Server::start(often().env("SLUICE__HTTP__SERVE", half).unready()).await;
        until(&server, "half").await;
        assert_eq!((trips(&server, "made").await, trips(&server, "failed").await), (0.0, 0.0), "{half}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn instances_on_one_kafka_do_not_take_each_others_canaries_for_their_own() {
    let server = async || {
        let group = unique("canaries");
        Server::start(Engine::Kafka.options(often(), &[]).await.env("SLUICE__LOG__KAFKA__GROUP_ID", &group)).await
    };
    let (one, two) = tokio::join!(server(), server());
    until(&one, "made").await;
    until(&two, "made").await;
    // One that only gives out has the others' canaries for a proof that records come.
    let out = Engine::Kafka.options(often(), &[]).await.env("SLUICE__HTTP__SERVE", "out").unready();
    let out = Server::start(out).await;
    until(&out, "half").await;
    assert_eq!(trips(&out, "failed").await, 0.0);
}
