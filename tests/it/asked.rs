//! What a producer asks for, and where: `?hasty`, `?dry_run`, test events, stream configs, and one half of a server.

use serde_json::json;

use crate::raw::Answer;
use crate::server::{Options, Server};

const JSON: &str = "Content-Type: application/json\r\n";
const EVENT: &str = r#"{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"},"test":"asked"}"#;

async fn post(server: &Server, target: &str) -> Answer {
    server.connect().await.post_to(target, JSON, EVENT.as_bytes()).await
}

async fn ask(server: &Server, method: &str, target: &str) -> Answer {
    let mut raw = server.connect().await;
    raw.send(format!("{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")).await;
    if method == "HEAD" { Answer { head: raw.head().await, body: Vec::new() } } else { raw.answer().await }
}

#[tokio::test]
async fn headers_and_the_producers_address_fill_the_fields_that_schemas_have() {
    let streams = "test.event: {schema_title: test/event}\nweb: {schema_title: web, topics: [web]}";
    let folder = tempfile::tempdir().expect("a folder");
    let schema = "title: web\ntype: object\nproperties:\n  http: {type: object, properties: {client_ip: {type: string}}}\n  meta: {type: object, properties: {request_id: {type: string}}}";
    std::fs::create_dir(folder.path().join("web")).expect("a folder");
    std::fs::write(folder.path().join("web/1.0.0.yaml"), schema).expect("a file");
    let bases = folder.path().display().to_string();
    let options = Options::default().streams(streams).env("SLUICE__SCHEMA__BASES", &bases);
    let server = Server::start(options.env("SLUICE__LIMITS__TRUSTED_PROXIES", "127.0.0.1")).await;
    let event = r#"{"$schema":"/web/1.0.0","meta":{"stream":"web"}}"#;
    let table = [
        ("", "127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.1, 198.51.100.7\r\n", "198.51.100.7"),
        ("X-Forwarded-For: 2001:db8::1\r\nX-Client-IP: 192.0.2.1\r\n", "2001:db8::1"),
        ("X-Client-IP: 192.0.2.1\r\n", "127.0.0.1"),
    ];
    for (headers, _) in table {
        let headers = format!("{JSON}X-Request-Id: r-1\r\n{headers}");
        let answer = server.connect().await.post_as(&headers, event.as_bytes()).await;
        assert_eq!(answer.status(), 201, "{answer:?}");
    }
    let mut stream = server.stream("/v2/stream/web?since=0", "").await;
    for (headers, client) in table {
        let event = stream.event().await.json();
        assert_eq!(
            (&event["http"]["client_ip"], &event["meta"]["request_id"]),
            (&json!(client), &json!("r-1")),
            "{headers}"
        );
    }
}

#[tokio::test]
async fn hasty_and_dry_run_are_yes_no_or_a_mistake() {
    let server = Server::start(Options::default()).await;
    let table = [
        ("hasty", 202),
        ("hasty=", 202),
        ("hasty=true", 202),
        ("hasty=1&unknown=x", 202),
        ("hasty=false", 201),
        ("hasty=0", 201),
        ("hasty=no", 201),
        ("Hasty=true", 201),
        ("dry_run", 200),
        ("dry_run=true", 200),
        ("dry_run=1&hasty=1", 200),
        ("dry_run=no", 201),
        ("hasty=maybe", 400),
        ("hasty=yes", 400),
        ("hasty=TRUE", 400),
        ("dry_run=2", 400),
        ("hasty=1&hasty=0", 400),
        ("stream=%ff", 400),
        ("stream=%4", 400),
        ("stream=test.event&schema_uri=/test/event/1.0.0", 201),
        ("stream=&schema_uri=", 201),
    ];
    for (query, status) in table {
        let answer = post(&server, &format!("/v1/events?{query}")).await;
        assert_eq!(answer.status(), status, "{query}: {answer:?}");
        let (sentence, body) = match status {
            200 => ("All 1 out of 1 events were accepted.", r#"{"invalid":[],"error":[]}"#),
            201 => ("All 1 out of 1 events were accepted.", ""),
            202 => ("1 events hastily received.", ""),
            _ => {
                assert_eq!(answer.json()["error"][0]["code"], "bad-query", "{query}");
                continue;
            }
        };
        assert_eq!((answer.head.reason(), answer.header("sluice-message")), (sentence, sentence), "{query}");
        assert_eq!(answer.text(), body, "{query}");
    }
}

#[tokio::test]
async fn test_events_are_posted_by_looking_at_them() {
    let server = Server::start(Options::default()).await;
    let mut reader = server.stream("/v2/stream/test.event", "").await;
    for (method, target, status) in [
        ("GET", "/v1/_test/events", 201),
        ("GET", "/v1/_test/events/?hasty=false", 201),
        ("GET", "//v1/_test/events", 201),
        ("HEAD", "/v1/_test/events", 201),
    ] {
        let answer = ask(&server, method, target).await;
        assert_eq!(answer.status(), status, "{method} {target}: {answer:?}");
        assert_eq!(answer.head.reason(), "All 1 out of 1 events were accepted.");
        let event = reader.event().await.json();
        assert_eq!((&event["meta"]["stream"], &event["$schema"]), (&json!("test.event"), &json!("/test/event/1.0.0")));
    }
    assert_eq!(ask(&server, "GET", "/v1/_test/events?hasty").await.head.reason(), "1 events hastily received.");
    assert_eq!(ask(&server, "GET", "/v1/_test/events?dry_run").await.status(), 200);
    assert_eq!(ask(&server, "GET", "/v1/_test/events?hasty=x").await.status(), 400);
    let posted = ask(&server, "POST", "/v1/_test/events").await;
    assert_eq!((posted.status(), posted.header("allow")), (405, "GET, HEAD"));
}

#[tokio::test]
async fn test_events_can_be_configured() {
    let config = r#"
        [intake]
        test_events = [
            { "$schema" = "/test/event/1.0.0", meta = { stream = "test.event" }, test = "one" },
            { "$schema" = "/test/event/1.0.0", meta = { stream = "no.such" } },
        ]"#;
    let server = Server::start(Options::default().config(config)).await;
    let answer = server.get("/v1/_test/events").await;
    assert_eq!(answer.status(), 207, "{answer:?}");
    assert_eq!(answer.json()["error"][0]["event"]["meta"]["stream"], "no.such");
    let event = server.stream("/v2/stream/test.event?since=0", "").await.event().await;
    assert_eq!(event.json()["test"], "one");
}

#[tokio::test]
async fn stream_configs_are_a_map_of_those_that_are_asked_for() {
    let server = Server::start(Options::default()).await;
    for target in ["", "/", "/test.event", "/test.event,no.such", "/a%7Cb", "/no.such/"] {
        let answer = server.get(&format!("/v1/stream-configs{target}")).await;
        assert_eq!(answer.status(), 200, "{target}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
        assert!(answer.json().is_object(), "{answer:?}");
    }
    assert_eq!(ask(&server, "HEAD", "/v1/stream-configs").await.status(), 200);
    assert_eq!(server.get("/v1/stream-configs/%ff").await.status(), 400);
    assert_eq!(server.get(&format!("/v1/stream-configs/{}", "a,".repeat(9_000))).await.status(), 414);
}

#[tokio::test]
async fn addresses_that_are_put_together_with_a_slash_too_many_are_understood() {
    let server = Server::start(Options::default()).await;
    for target in ["/v1/events", "/v1/events/", "//v1/events", "//v1/events/?hasty=0"] {
        assert_eq!(post(&server, target).await.status(), 201, "{target}");
    }
    for target in ["/v1/event", "/v1/events/x", "///v1/events"] {
        assert_eq!(post(&server, target).await.status(), 404, "{target}");
    }
}

#[tokio::test]
async fn an_instance_that_serves_one_half_says_so_of_the_other() {
    let both = ["/healthz", "/readyz", "/_info", "/robots.txt"];
    let ins = ["/v1/events", "/v1/_test/events", "/v1/stream-configs", "/v1/stream-configs/a"];
    let outs = ["/v2/stream/test.event"];
    let only_in = Server::start(Options::default().env("SLUICE__HTTP__SERVE", "in")).await;
    let only_out = Server::start(Options::default().env("SLUICE__HTTP__SERVE", "out")).await;
    for target in both {
        assert_eq!((only_in.get(target).await.status(), only_out.get(target).await.status()), (200, 200), "{target}");
    }
    for (server, targets, word) in [(&only_in, &outs[..], "in"), (&only_out, &ins[..], "out")] {
        for (target, method) in targets.iter().flat_map(|target| ["GET", "POST", "OPTIONS"].map(|how| (target, how))) {
            let answer = ask(server, method, target).await;
            assert_eq!((answer.status(), answer.header("content-type")), (404, "application/problem+json"), "{target}");
            let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
            assert!(detail.contains(&format!("http.serve is \"{word}\"")), "{detail}");
        }
    }
    assert_eq!(post(&only_in, "/v1/events").await.status(), 201);
    assert_eq!(only_out.stream("/v2/stream/test.event", "").await.head.status(), 200);
}

#[tokio::test]
async fn a_dry_run_appends_nothing_and_a_hasty_post_does() {
    let server = Server::start(Options::default()).await;
    let wrong = r#"{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"},"test":5}"#;
    let both = format!("[{},{wrong}]", EVENT.replace("asked", "dry"));
    let dry = server.connect().await.post_to("/v1/events?dry_run", JSON, both.as_bytes()).await;
    let sentence = "1 out of 2 events were accepted, but 1 failed (1 invalid and 0 errored).";
    assert_eq!((dry.status(), dry.head.reason()), (200, sentence), "{dry:?}");
    let item = &dry.json()["invalid"][0];
    assert_eq!((&item["index"], &item["code"]), (&json!(1), &json!("invalid")), "{item}");
    assert_eq!(item["context"]["errorsText"], "'.test' should be string", "{item}");
    assert_eq!(item["context"]["errors"][0]["dataPath"], ".test", "{item}");
    assert!(item["context"].get("message").is_none(), "{item}");
    assert_eq!(post(&server, "/v1/events?hasty").await.status(), 202);
    let first = server.stream("/v2/stream/test.event?since=0", "").await.event().await;
    assert_eq!(first.json()["test"], "asked", "what was only tried is not there");
}
