//! How it ends.

use std::time::{Duration, Instant};

use crate::server::Server;

const STREAM: &str = "GET /v2/stream/test.event HTTP/1.1\r\nhost: x\r\n\r\n";
const EVENT: &str = r#"{"meta":{"stream":"test.event"},"test":"hello"}"#;

#[tokio::test]
async fn readers_end_after_a_whole_event_with_the_farewell() {
    let server = Server::start(&[]).await;
    let mut readers = Vec::new();
    for _ in 0..20 {
        let mut reader = server.send(STREAM).await;
        reader.until(":ok\n\n").await;
        readers.push(reader);
    }
    assert!(server.post(EVENT).await.contains("201"));
    for reader in &mut readers {
        reader.until(r#""test":"hello"}"#).await;
    }
    server.signal();
    for reader in readers {
        let seen = reader.to_the_end().await;
        let (_, farewell) = seen.rsplit_once("\n\n\r\n").expect("a whole event");
        assert!(farewell.contains("retry: ") && farewell.ends_with("\r\n0\r\n\r\n"), "{farewell:?}");
    }
    assert!(server.ended().await.0.success());
}

#[tokio::test]
async fn a_connection_that_is_kept_for_another_request_does_not_hold_it_up() {
    let server = Server::start(&[]).await;
    let mut idle = server.send("GET /_info HTTP/1.1\r\nhost: x\r\n\r\n").await;
    idle.until("sluice").await;
    let asked = Instant::now();
    server.signal();
    assert!(server.ended().await.0.success());
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let server = Server::start(&[]).await;
    assert!(server.post(EVENT).await.contains("201"));
    server.signal();
    let (status, folder) = server.ended().await;
    assert!(status.success());
    let server = Server::start_in(folder, &[]).await;
    let mut reader = server.send("GET /v2/stream/test.event?since=2020-01-01 HTTP/1.1\r\nhost: x\r\n\r\n").await;
    reader.until(r#""test":"hello"}"#).await;
}

#[tokio::test]
async fn a_request_that_never_comes_whole_is_cut_at_the_deadline() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sluice.toml");
    std::fs::write(&file, "[stop]\ndeadline = '2s'").expect("a file");
    let server = Server::start(&["--config", file.to_str().expect("a path")]).await;
    let head = "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";
    let half = server.send(head).await;
    let asked = Instant::now();
    server.signal();
    assert!(server.ended().await.0.success());
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    drop(half);
}
