//! What browsers ask first, and what they must be told so that a page may read an answer.

use crate::raw::Answer;
use crate::server::{Options, Server};

async fn ask(server: &Server, method: &str, target: &str, headers: &str) -> Answer {
    let mut raw = server.connect().await;
    raw.send(format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
    raw.answer().await
}

/// As the Fetch standard reads a list: names without regard to case.
fn lists(answer: &Answer, header: &str, name: &str) -> bool {
    answer.header(header).split(',').any(|own| own.trim().eq_ignore_ascii_case(name))
}

#[tokio::test]
async fn every_preflight_that_a_browser_sends_is_answered_with_yes() {
    let server = Server::start(Options::default()).await;
    let table: [(&str, &str, &[&str], &str); 7] = [
        // fetch() with JSON; an uploader of reports; a client with a token; a reader that resumes.
        ("/v1/events", "POST", &["content-type"], "POST"),
        ("/v1/events?stream=a&schema_uri=/b/1.0.0", "POST", &["content-type", "content-encoding"], "POST"),
        ("//v1/events/", "POST", &["authorization", "content-type", "x-request-id", "x-requested-with"], "POST"),
        ("/v2/stream/test.event", "GET", &["last-event-id", "cache-control", "accept"], "GET, HEAD"),
        ("//v2/stream/a,b/", "GET", &["content-type", "x-requested-with", "api-user-agent"], "GET, HEAD"),
        ("/v1/stream-configs/a", "GET", &["authorization"], "GET, HEAD"),
        ("/v1/_test/events", "GET", &["authorization"], "GET, HEAD"),
    ];
    for (target, method, headers, allowed) in table {
        let asks = format!(
            "Origin: https://wiki.example\r\nAccess-Control-Request-Method: {method}\r\nAccess-Control-Request-Headers: {}\r\n",
            headers.join(", ")
        );
        let answer = ask(&server, "OPTIONS", target, &asks).await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, ""), "{target}: {answer:?}");
        assert_eq!((answer.header("access-control-allow-origin"), answer.header("allow")), ("*", allowed), "{target}");
        assert!(lists(&answer, "access-control-allow-methods", method), "{answer:?}");
        for header in headers {
            assert!(lists(&answer, "access-control-allow-headers", header), "{header}: {answer:?}");
        }
        assert_eq!(answer.header("access-control-max-age"), "86400");
    }
}

#[tokio::test]
async fn every_answer_may_be_read_by_any_page_refusals_too() {
    let server = Server::start(Options::default()).await;
    let event = r#"{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"}}"#;
    let json = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{event}", event.len());
    let table = [
        ("POST", "/v1/events", json.as_str(), 201),
        ("POST", "/v1/events?hasty=x", "Content-Length: 0\r\n", 400),
        ("POST", "/v1/events", "Content-Length: 0\r\n", 415),
        ("POST", "/v1/events", "Content-Type: text/plain\r\nContent-Length: 99999999999\r\n", 413),
        ("GET", "/v1/events", "", 405),
        ("PATCH", "/v1/events", "", 405),
        ("GET", "/v1/stream-configs", "", 200),
        ("GET", "/nothing", "", 404),
        ("OPTIONS", "/nothing", "", 404),
        ("GET", "/v2/stream/nope", "", 404),
        ("GET", "/healthz", "", 200),
    ];
    for (method, target, headers, status) in table {
        let answer = ask(&server, method, target, headers).await;
        assert_eq!(answer.status(), status, "{method} {target}: {answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{method} {target}");
        for exposed in ["Sluice-Message", "Sluice-Notice", "Retry-After", "ETag"] {
            assert!(lists(&answer, "access-control-expose-headers", exposed), "{method} {target}: {answer:?}");
        }
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("x-frame-options"), "SAMEORIGIN");
        assert!(answer.header("content-security-policy").starts_with("default-src 'none'"));
    }
}

#[tokio::test]
async fn a_beacon_needs_no_preflight() {
    let server = Server::start(Options::default()).await;
    let event = r#"[{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"}}]"#;
    let headers = "Content-Type: text/plain;charset=UTF-8\r\nOrigin: https://wiki.example\r\n";
    let answer = server.connect().await.post_to("/v1/events?hasty=true", headers, event.as_bytes()).await;
    assert_eq!((answer.status(), answer.head.reason()), (202, "1 events hastily received."));
}
