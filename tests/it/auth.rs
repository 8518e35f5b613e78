//! Who may post, as a client sees it.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::raw::Answer;
use crate::server::{Options, Server};

const EVENT: &str = r#"{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"},"test":"auth"}"#;
const OTHER: &str = r#"{"$schema":"/test/event/1.0.0","meta":{"stream":"other"},"test":"auth"}"#;
const STREAMS: &str =
    "test.event: {schema_title: test/event, topics: [a]}\nother: {schema_title: test/event, topics: [b]}";

async fn post(server: &Server, authorization: &str, body: &str) -> Answer {
    let headers = match authorization {
        "" => "Content-Type: application/json\r\n".to_owned(),
        value => format!("Content-Type: application/json\r\nAuthorization: {value}\r\n"),
    };
    server.connect().await.post_as(&headers, body.as_bytes()).await
}

fn assert_problem(answer: &Answer, status: u16, challenge: Option<&str>, cure: &str) {
    assert_eq!(answer.status(), status, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{answer:?}");
    assert_eq!(answer.head.header("www-authenticate"), challenge, "{answer:?}");
    let problem: Value = answer.json();
    assert_eq!(problem["status"], status, "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(cure)), "{problem}");
}

fn tokens() -> Options {
    let hash = Sha256::digest(b"secret").iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let token = format!("{{name = 'ours', sha256 = '{hash}', streams = ['/^test\\./']}}");
    Options::default().streams(STREAMS).config(&format!("[intake]\nauth = 'tokens'\ntokens = [{token}]"))
}

#[tokio::test]
async fn off_loopback_posting_is_closed_until_somebody_opens_it() {
    let server = Server::start(Options::default().listen("0.0.0.0:0").unready()).await;
    let told = server.stderr();
    assert_eq!(told.matches("posting is closed").count(), 1, "{told}");
    assert!(told.contains("intake.auth"), "{told}");
    assert_problem(&post(&server, "", EVENT).await, 403, None, "set intake.auth");
    // Read whole, so that the client sees the answer and may go on.
    let mut raw = server.connect().await;
    let large = EVENT.replace("auth", &"x".repeat(200_000));
    assert_problem(&raw.post(&large).await, 403, None, "set intake.auth");
    assert_eq!(raw.post(EVENT).await.status(), 403);
    let test_events = server.get("/v1/_test/events").await;
    assert_problem(&test_events, 403, None, "set intake.auth");
    let open =
        Server::start(Options::default().listen("0.0.0.0:0").unready().env("SLUICE__INTAKE__AUTH", "open")).await;
    assert_eq!(post(&open, "", EVENT).await.status(), 201);
}

#[tokio::test]
async fn a_token_is_asked_for_checked_and_opens_its_streams_alone() {
    let server = Server::start(tokens()).await;
    let (ask, again) = (r#"Bearer realm="sluice""#, r#"Bearer realm="sluice", error="invalid_token""#);
    assert_problem(&post(&server, "", EVENT).await, 401, Some(ask), "a bearer token is needed");
    assert_problem(&post(&server, "Basic c2VjcmV0", EVENT).await, 401, Some(ask), "a bearer token is needed");
    for wrong in ["Bearer Secret", "Bearer secret2", "Bearer secre", "bearer x"] {
        let answer = post(&server, wrong, EVENT).await;
        assert_problem(&answer, 401, Some(again), "intake.tokens");
        assert!(!answer.text().contains("ecre"), "what was sent is not told: {answer:?}");
    }
    assert_eq!(post(&server, "Bearer secret", EVENT).await.status(), 201);
    assert_eq!(post(&server, "bearer  secret ", EVENT).await.status(), 201);
    assert_problem(&post(&server, "Bearer secret", OTHER).await, 403, None, "other");
    let some = post(&server, "Bearer secret", &format!("[{EVENT},{OTHER}]")).await;
    assert_eq!((some.status(), &some.json()["error"][0]["code"]), (207, &Value::from("forbidden")), "{some:?}");
    let counted = async |name| server.metric(name).await;
    assert_eq!(
        (counted("sluice_events_accepted_total").await, counted("sluice_events_refused_total").await),
        (3.0, 2.0)
    );
    assert!(counted("sluice_events_last_accepted_seconds").await > 1.7e9);
    assert_eq!(server.metric(r#"sluice_posts_denied_total{cause="no-token"}"#).await, 2.0);
    assert_eq!(server.metric(r#"sluice_posts_denied_total{cause="bad-token"}"#).await, 4.0);
}

#[tokio::test]
async fn hasty_events_under_way_at_a_stop_are_in_the_log_after_it() {
    let mut server = Server::start(Options::default()).await;
    let mut raw = server.connect().await;
    let batch = format!("[{}]", vec![EVENT; 500].join(","));
    for _ in 0..20 {
        let answer = raw.post_to("/v1/events?hasty=true", "Content-Type: application/json\r\n", batch.as_bytes()).await;
        assert_eq!(answer.status(), 202, "{answer:?}");
    }
    assert!(server.stop().await.success(), "{}", server.stderr());
    server.start_again().await;
    let mut stream = server.stream("/v2/stream/test.event?since=0", "").await;
    for _ in 0..10_000 {
        stream.event().await;
    }
}
