//! What is printed, and exit codes.

use std::process::Output;

use tokio::time::timeout;

use crate::server::{PATIENCE, Server, sluice};

async fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        timeout(PATIENCE, sluice(arguments).output()).await.expect("it ends").expect("the program");
    (status.code(), [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat())
}

#[tokio::test]
async fn what_is_posted_is_read_back_as_it_was_sent() {
    let server = Server::start(&[]).await;
    let event = r#"{"n":1.0e400,"meta":{"stream":"test.event","id":"x"},"n":"\ud83d"}"#;
    let answer = server.post(event).await;
    assert!(answer.starts_with("HTTP/1.1 201 All 1 out of 1 events were accepted.\r\n"), "{answer}");
    let mut reader = server.send("GET /v2/stream/test.event?since=2020-01-01 HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let spliced = r#""id":"x","topic":"test.event","partition":0,"offset":0},"n":"\ud83d"}"#;
    reader.until(&format!(r#"data: {{"n":1.0e400,"meta":{{"stream":"test.event",{spliced}"#)).await;
}

#[tokio::test]
async fn a_demo_shows_life() {
    let server = Server::start(&["--demo"]).await;
    let mut reader = server.send("GET /v2/stream/recentchange HTTP/1.1\r\nhost: x\r\n\r\n").await;
    reader.until(r#""offset":3}"#).await;
}

#[tokio::test]
async fn wrong_usage_and_wrong_configuration_are_exit_code_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("wrong.toml");
    std::fs::write(&file, "[http]\nlisten = 5\n[hub]\nheartbeat = 'soon'").expect("a file");
    let file = file.to_str().expect("a path");
    for arguments in [&["--config", file][..], &["config", "check", file], &["config", "show", "--config", file]] {
        let (code, said) = run(arguments).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("http.listen") && said.contains("hub.heartbeat"), "all at once: {said}");
    }
    for arguments in [&["--nope"][..], &["--listen", "nowhere"], &["--streams", "https://example.org/streams"]] {
        assert_eq!(run(arguments).await.0, Some(2), "{arguments:?}");
    }
    assert_eq!(run(&["version"]).await, (Some(0), format!("sluice {}\n", env!("CARGO_PKG_VERSION"))));
    assert_eq!(run(&["config", "check", "config/sluice.toml"]).await.0, Some(0));
}

#[tokio::test]
async fn what_was_found_rather_than_asked_for_is_exit_code_1() {
    let server = Server::start(&[]).await;
    let (taken, taken_admin) = (server.public.to_string(), server.admin.to_string());
    let folder = tempfile::tempdir().expect("a folder");
    let free = folder.path().to_str().expect("a path");
    let in_use = server.folder.path().to_str().expect("a path");
    for (arguments, cause) in [
        (["--listen", &taken, "--admin", "off", "--data", free], "--listen"),
        (["--listen", "127.0.0.1:0", "--admin", &taken_admin, "--data", free], "--admin"),
        (["--listen", "127.0.0.1:0", "--admin", "off", "--data", in_use], "in use by another sluice"),
    ] {
        let (code, said) = run(&arguments).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(cause), "{said}");
    }
}
