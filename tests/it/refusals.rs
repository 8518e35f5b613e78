//! What is no stream: every refusal of the edge, by table.

use serde_json::json;

use crate::engine::{DAWN_MS, event_at};
use crate::raw::{Answer, Raw};
use crate::server::{Options, Server};

async fn ask(server: &Server, method: &str, target: &str, headers: impl AsRef<[u8]>) -> Answer {
    // Somebody new each time: who is refused too often waits for it.
    let mut raw = Raw::as_somebody_new(server.address).await;
    raw.send([format!("{method} {target} HTTP/1.1\r\nHost: x\r\n").as_bytes(), headers.as_ref(), b"\r\n"].concat())
        .await;
    raw.answer().await
}

fn assert_problem(answer: &Answer, method: &str, target: &str, status: u16, kind: &str) {
    let request = format!("{method} {target}");
    assert_eq!(answer.status(), status, "{request}: {answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{request}: {answer:?}");
    let problem = answer.json();
    for (name, value) in
        [("type", json!(kind)), ("status", json!(status)), ("method", json!(method)), ("uri", json!(target))]
    {
        assert_eq!(problem[name], value, "{request}: {problem}");
    }
    for name in ["title", "detail"] {
        assert!(problem[name].as_str().is_some_and(|text| !text.is_empty()), "{request}: {name} of {problem}");
    }
    assert_eq!(answer.header("access-control-allow-origin"), "*", "{request}");
}

#[tokio::test]
async fn every_refusal_is_problem_json_with_its_status() {
    let server = Server::start(Options::default()).await;
    let long = format!("/v2/stream/{}", "a".repeat(250));
    let table = [
        ("GET", "/nope", 404, "not_found"),
        ("POST", "/v1/nope", 404, "not_found"),
        ("GET", "/v2/stream", 400, "bad_request"),
        ("GET", "/v2/stream/", 400, "bad_request"),
        ("GET", "//v2/stream/", 400, "bad_request"),
        ("GET", "/v2/stream//", 400, "bad_request"),
        ("GET", "//v2/stream/nope", 404, "not_found"),
        ("GET", "/v2/stream/nope", 404, "not_found"),
        ("GET", "/v2/stream/test.event,nope", 404, "not_found"),
        ("GET", "/v2/stream/Test.Event", 404, "not_found"),
        ("DELETE", "/v2/stream/test.event", 405, "method_not_allowed"),
        ("POST", "/v2/stream/nope", 405, "method_not_allowed"),
        ("GET", "/v1/events", 405, "method_not_allowed"),
        ("PUT", "/_info", 405, "method_not_allowed"),
        ("GET", "/v2/stream/test.event,", 400, "bad_request"),
        ("GET", "/v2/stream/,test.event", 400, "bad_request"),
        ("GET", "/v2/stream/test%00event", 400, "bad_request"),
        ("GET", "/v2/stream/test%ffevent", 400, "bad_request"),
        ("GET", "/v2/stream/%ZZ", 400, "bad_request"),
        ("GET", "/v2/stream/a%20b", 400, "bad_request"),
        ("GET", "/v2/stream/%0d%0aX-Evil:%201", 400, "bad_request"),
        ("GET", long.as_str(), 400, "bad_request"),
        ("GET", "/v2/stream/test.event?since=yesterday", 400, "invalid_timestamp"),
        ("GET", "/v2/stream/test.event?since=-1", 400, "invalid_timestamp"),
        ("GET", "/v2/stream/test.event?since=0&since=0", 400, "invalid_timestamp"),
        ("GET", "/v2/stream/test.event?lastEventId=x", 400, "invalid_id"),
    ];
    for (method, target, status, kind) in table {
        let answer = ask(&server, method, target, "").await;
        assert_problem(&answer, method, target, status, kind);
    }
    assert_eq!(server.metric("sluice_streams_open").await, 0.0);
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let server = Server::start(Options::default()).await;
    let table = [
        ("/v2/stream/test.event", "GET, HEAD"),
        ("//v2/stream/a%2Cb/", "GET, HEAD"),
        ("/v2/stream", "GET, HEAD"),
        ("/v1/events", "POST"),
        ("/_info", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
    ];
    for (target, allow) in table {
        assert_eq!(ask(&server, "DELETE", target, "").await.header("allow"), allow, "{target}");
        let options = ask(&server, "OPTIONS", target, "").await;
        assert_eq!((options.status(), options.header("allow")), (200, allow), "{target}");
    }
}

#[tokio::test]
async fn an_unknown_stream_is_offered_the_nearest_names() {
    let server = Server::start(Options::default()).await;
    let problem = ask(&server, "GET", "/v2/stream/recentchanges", "").await.json();
    assert_eq!(problem["nearest"][0], "recentchange", "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("'recentchanges'")), "{problem}");
}

#[tokio::test]
async fn ids_that_no_stream_has_sent_are_refused() {
    let server = Server::start(Options::default()).await;
    server.put(&event_at("test.event", 0, 0)).await;
    let own = r#"{"topic":"test.event","partition":0,"offset":0}"#;
    let huge = format!("[{}]", [own; 200].join(","));
    let twice = format!("[{own},{own}]");
    let ids = [
        "x",
        "{}",
        "[]",
        "12",
        "null",
        r#""test.event""#,
        "[1]",
        r#"[{"topic":"test.event","partition":0}]"#,
        r#"[{"topic":"test.event","partition":0,"offset":-3}]"#,
        r#"[{"topic":"test.event","partition":-1,"offset":0}]"#,
        r#"[{"topic":"test.event","partition":0,"offset":0.5}]"#,
        r#"[{"topic":"test.event","partition":0,"offset":9223372036854775808}]"#,
        r#"[{"topic":"test.event","partition":2147483648,"offset":0}]"#,
        r#"[{"topic":"test.event","partition":0,"timestamp":-1}]"#,
        r#"[{"topic":"test.event","partition":7,"offset":0}]"#,
        r#"[{"topic":"elsewhere","partition":0,"offset":0}]"#,
        r#"[{"topic":"eqiad.mediawiki.recentchange","partition":0,"offset":0}]"#,
        &twice,
        &huge,
    ];
    let target = "/v2/stream/test.event";
    for id in ids {
        let answer = ask(&server, "GET", target, format!("Last-Event-ID: {id}\r\n")).await;
        assert_eq!(answer.status(), 400, "{id}: {answer:?}");
        assert_problem(&answer, "GET", target, 400, "invalid_id");
    }
    let answer = ask(&server, "GET", target, b"Last-Event-ID: [\xc3\xa9]\r\n").await;
    assert_problem(&answer, "GET", target, 400, "invalid_id");
}

#[tokio::test]
async fn a_wrong_since_is_refused_beside_a_good_id_and_a_wrong_header_beside_a_good_query() {
    let server = Server::start(Options::default()).await;
    server.put(&event_at("test.event", 0, 0)).await;
    let id = format!(r#"[{{"topic":"test.event","partition":0,"offset":1,"timestamp":{DAWN_MS}}}]"#);
    let escaped: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
    let (since, query) = ("/v2/stream/test.event?since=soon", format!("/v2/stream/test.event?lastEventId={escaped}"));
    let answer = ask(&server, "GET", since, format!("Last-Event-ID: {id}\r\n")).await;
    assert_problem(&answer, "GET", since, 400, "invalid_timestamp");
    let answer = ask(&server, "GET", &query, "Last-Event-ID: []\r\n").await;
    assert_problem(&answer, "GET", &query, 400, "invalid_id");
}

#[tokio::test]
async fn no_cache_keeps_a_refusal_of_a_stream_and_whoever_names_none_is_told_to() {
    let server = Server::start(Options::default()).await;
    for (method, target) in [
        ("GET", "/v2/stream/nope"),
        ("GET", "/v2/stream/test.event?since=x"),
        ("GET", "//v2/stream"),
        ("DELETE", "/v2/stream/test.event"),
    ] {
        let answer = ask(&server, method, target, "").await;
        assert_eq!((answer.header("cache-control"), answer.header("vary")), ("no-store", "Accept"), "{target}");
    }
    let problem = ask(&server, "GET", "/v2/stream/", "").await.json();
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("name at least one")), "{problem}");
}

#[tokio::test]
async fn head_is_refused_as_get_is_without_a_body() {
    let server = Server::start(Options::default()).await;
    for (target, status) in [
        ("/v2/stream/nope", 404),
        ("/v2/stream", 400),
        ("//v2/stream/test.event", 200),
        ("/v2/stream/test.event%2Ctest.event/", 200),
        ("/v2/stream/test.event?lastEventId=x", 400),
    ] {
        let mut raw = Raw::as_somebody_new(server.address).await;
        raw.send(format!("HEAD {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(raw.head().await.status(), status, "{target}");
        assert_eq!(raw.rest().await, b"", "{target}");
    }
}

#[tokio::test]
async fn a_problem_does_not_repeat_all_of_a_long_path() {
    let server = Server::start(Options::default()).await;
    let answer = ask(&server, "GET", &format!("/v2/stream/{}", "a".repeat(60_000)), "").await;
    assert_eq!(answer.status(), 400);
    assert!(answer.body.len() < 2_000, "{}", answer.body.len());
}
