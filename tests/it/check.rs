//! `sluice check` against servers that flow, and against everything else.

use std::process::Output;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

use crate::server::{Options, Server, free_address, sluice};
use crate::support::{PATIENCE, eventually};

const EVENT: &str = r#"{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"},"test":"x"}"#;
const TOKEN: &str = "sixteen-or-more-bytes";
const TOKEN_SHA256: &str = "79dbd73848c608f3f776b7c11d98779f7fab21e0264947572059308a99719dd3";

async fn check(words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::from(sluice());
    command.arg("check").args(words).env_remove("SLUICE_TOKEN").kill_on_drop(true);
    let output: Output = timeout(PATIENCE, command.output()).await.expect("it ends by itself").expect("it runs");
    (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
}

async fn flowing(options: Options) -> (Server, String) {
    let server = Server::start(options).await;
    let url = format!("http://{}", server.address);
    let proven = eventually(PATIENCE, async || server.get("/health").await.status() == 200).await;
    assert!(proven, "{:?}", server.get("/health").await);
    (server, url)
}

/// Answers every request with these bytes, and then says nothing more.
async fn fake(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::runtime::Handle::current().spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = socket.read(&mut request).await;
            let _ = socket.write_all(&answer).await;
            held.push(socket);
        }
    });
    url
}

fn json_answer(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn a_server_that_flows_is_ok_with_performance_data() {
    let (server, url) = flowing(Options::default()).await;
    let (code, line) = check(&[&url]).await;
    assert_eq!(code, Some(0), "{line}");
    assert!(line.starts_with("SLUICE OK - quiet | canary="), "{line}");
    assert_eq!(server.post(EVENT).await.status(), 201);
    let flows = eventually(PATIENCE, async || server.get("/health?stream=test.event").await.text().contains("flowing"));
    assert!(flows.await);
    let (code, line) = check(&[&url, "--stream", "test", "--max-age", "60s", "--post-stream", "test.event"]).await;
    assert_eq!(code, Some(0), "{line}");
    assert!(line.starts_with("SLUICE OK - flowing | ") && line.contains("s;;60;0 trip="), "{line}");
    let (code, line) = check(&[&format!("{url}/"), "--stream", "recentchange", "--max-age", "60s"]).await;
    assert!(code == Some(2) && line.contains("never been an event"), "{line}");
    let (code, line) = check(&[&url, "--stream", "nope"]).await;
    assert!(code == Some(2) && line.contains("no stream named 'nope'"), "{line}");
}

#[tokio::test]
async fn an_event_that_is_too_old_is_critical() {
    let (server, url) = flowing(Options::default()).await;
    assert_eq!(server.post(EVENT).await.status(), 201);
    let late = eventually(PATIENCE, async || {
        let (code, line) = check(&[&url, "--stream", "test.event", "--max-age", "1s"]).await;
        code == Some(2) && line.contains("may be 1s old") && line.contains(";;1;0")
    });
    assert!(late.await);
}

#[tokio::test]
async fn what_is_degraded_is_a_warning() {
    let streams = "test.event: {schema_title: test/event, topics: [test.event], sluice: {expect_every: 1s}}";
    let (server, url) = flowing(Options::default().streams(streams)).await;
    let degraded = eventually(PATIENCE, async || server.get("/health").await.text().contains("degraded")).await;
    assert!(degraded, "{:?}", server.get("/health").await);
    let (code, line) = check(&[&url]).await;
    assert!(code == Some(1) && line.starts_with("SLUICE WARNING - degraded: "), "{line}");
    let (code, line) = check(&[&url, "--stream", "test.event"]).await;
    assert!(code == Some(2) && line.starts_with("SLUICE CRITICAL - stalled: "), "{line}");
}

#[tokio::test]
async fn posting_needs_a_token_where_the_server_does() {
    let config = format!("[intake]\nauth = 'tokens'\ntokens = [{{name = 'x', sha256 = '{TOKEN_SHA256}'}}]");
    let (_server, url) = flowing(Options::default().config(&config)).await;
    let (code, line) = check(&[&url, "--post-stream", "test.event"]).await;
    assert!(code == Some(2) && line.contains("401"), "{line}");
    let (code, line) = check(&[&url, "--token", TOKEN]).await;
    assert!(code == Some(0) && line.contains(" trip="), "{line}");
    let (code, line) = check(&[&url, "--token", "a b"]).await;
    assert!(code == Some(2) && line.contains("no bearer token"), "{line}");
}

#[tokio::test]
async fn whatever_else_is_there_is_critical_and_never_unknown() {
    let nobody = format!("http://{}", free_address());
    let healthy =
        r#"{"state":"flowing","cause":"","do":"","canary":{},"streams":{"newest":{"stream":"a","age_seconds":1}}}"#;
    let fakes = [
        (b"\x1b[2J|perf=1\r\n\r\n".to_vec(), ""),
        (b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), "/health has not answered within 1s"),
        (json_answer("200 OK", "not JSON \x1b[2J"), "no verdict of sluice"),
        (json_answer("200 OK", r#"{"state":"stalled"}"#), "no verdict of sluice"),
        (json_answer("503 Service Unavailable", r#"{"state":"\u001b[2J|x=1\n","cause":"c|d"}"#), ""),
        (json_answer("404 Not Found", r#"{"detail":"nothing | here"}"#), "404 Not Found: nothing / here"),
        (json_answer("200 OK", &" ".repeat(300_000)), "longer than"),
        // It says that all is well, and its stream is no stream.
        (json_answer("200 OK\r\nConnection: close", healthy), "is none: it is ''"),
        (json_answer("302 Found\r\nLocation: http://127.0.0.1:1/", ""), "302"),
    ];
    let mut cases = vec![(nobody, ""), ("ftp://x".to_owned(), "the address"), ("http://u:p@x".to_owned(), "password")];
    cases.push((format!("https://{}", free_address()), ""));
    for (answer, word) in fakes {
        cases.push((fake(answer).await, word));
    }
    cases.push((fake(Vec::new()).await, "within 1s"));
    for (url, word) in cases {
        let (code, line) = check(&[&url, "--timeout", "1s", "--post-stream", "a"]).await;
        assert_eq!(code, Some(2), "{url}: {line}");
        let first = line.lines().next().unwrap_or_default();
        assert!(first.starts_with("SLUICE CRITICAL - ") && first.contains(word), "{url}: {line}");
        let (text, _) = first.split_once(" | ").unwrap_or((first, ""));
        assert!(!text.contains('|') && !line.contains('\u{1b}') && line.lines().count() <= 2, "{url}: {line}");
    }
    assert_eq!(check(&["--nope"]).await.0, Some(2), "wrong usage");
    assert_eq!(check(&["--timeout", "0"]).await.0, Some(2), "wrong usage");
}

#[tokio::test]
async fn a_server_that_speaks_another_protocol_is_no_reason_to_wait() {
    let (server, _) = flowing(Options::default()).await;
    let begun = std::time::Instant::now();
    let (code, line) = check(&[&format!("https://{}", server.address)]).await;
    assert!(code == Some(2) && begun.elapsed() < Duration::from_secs(10), "{line}");
}
