//! The stop as it is seen from outside: what ends when, and what a second signal and the deadline do to it.

use std::io::Write;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::engine::event_at;
use crate::raw::{Raw, Stream};
use crate::server::{Options, Server};
use crate::support::{PATIENCE, eventually};

/// A wait that no test sits out.
const FOR_EVER: &str = "600s";
const POST: &str = "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length:";

fn patient() -> Options {
    Options::default().env("SLUICE__STOP__DEADLINE", "1200s")
}

async fn until_leaving(server: &Server) {
    let leaves = eventually(PATIENCE, async || {
        Raw::connect(server.admin).await.get("/readyz", "").await.text() == "not ready: it is stopping\n"
    });
    assert!(leaves.await, "{}", server.stderr());
}

async fn until_nobody_listens(server: &Server) {
    assert!(eventually(PATIENCE, async || TcpStream::connect(server.address).await.is_err()).await);
}

fn is_farewell(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    text.starts_with("retry: ") && text.ends_with('\n')
}

#[tokio::test]
async fn while_it_leaves_all_is_served_and_connections_are_asked_to_go_elsewhere() {
    let mut server = Server::start(patient().env("SLUICE__STOP__DRAIN_DELAY", FOR_EVER)).await;
    let mut reader = server.stream("/v2/stream/test.event", "").await;
    let mut kept = server.connect().await;
    let before = kept.post(&event_at("test.event", 0, 0).to_string()).await;
    assert_eq!((before.status(), before.header("connection")), (201, ""));
    assert_eq!(reader.event().await.json()["number"], 0);
    server.signal(Signal::TERM);
    until_leaving(&server).await;
    let answer = kept.post(&event_at("test.event", 1, 1).to_string()).await;
    assert_eq!((answer.status(), answer.header("connection")), (201, "close"), "{answer:?}");
    assert!(kept.is_closed().await);
    assert_eq!(reader.event().await.json()["number"], 1);
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status(), answer.header("connection")), (503, "close"), "{answer:?}");
    assert_eq!(server.get("/healthz").await.status(), 200);
    let mut newcomer = server.stream("/v2/stream/test.event", "").await;
    // The second signal ends the wait that is there for politeness, and the spread is none here.
    server.signal(Signal::TERM);
    assert!(is_farewell(&newcomer.raw.chunk().await));
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn nobody_new_is_let_in_while_posts_are_answered_and_readers_end_after_them() {
    let mut server = Server::start(patient()).await;
    let mut idle = server.connect().await;
    assert_eq!(idle.get("/healthz", "").await.status(), 200);
    let mut post = server.connect().await;
    let body = event_at("test.event", 0, 0).to_string();
    post.send(format!("{POST} {}\r\n\r\n{}", body.len(), &body[..10])).await;
    let mut reader = server.stream("/v2/stream/test.event", "").await;
    server.signal(Signal::TERM);
    until_nobody_listens(&server).await;
    assert!(idle.is_closed().await, "it waits for nothing");
    post.send(&body[10..]).await;
    let answer = post.answer().await;
    assert_eq!((answer.status(), answer.header("connection")), (201, "close"), "{answer:?}");
    assert_eq!(reader.event().await.json()["number"], 0, "readers end after what was accepted");
    assert!(is_farewell(&reader.raw.chunk().await));
    assert!(server.ended().await.success());
}

/// Its schema is still being looked up when the server is told to stop.
#[tokio::test]
async fn an_event_that_was_taken_in_haste_is_judged_and_written_before_readers_end() {
    let schemas = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", schemas.local_addr().expect("an address"));
    let options = patient().env("SLUICE__SCHEMA__BASES", &base).env("SLUICE__INTAKE__DEADLINE", "300s");
    let mut server = Server::start(options).await;
    let mut idle = server.connect().await;
    assert_eq!(idle.get("/healthz", "").await.status(), 200);
    let mut reader = server.stream("/v2/stream/test.event", "").await;
    let body = event_at("test.event", 0, 0).to_string();
    let json = "Content-Type: application/json\r\n";
    let answer = server.connect().await.post_to("/v1/events?hasty", json, body.as_bytes()).await;
    assert_eq!(answer.status(), 202, "{answer:?}");
    let (mut asked, _) = schemas.accept().await.expect("somebody who looks for the schema");
    assert!(asked.read(&mut [0; 1024]).await.is_ok_and(|bytes| bytes > 0));

    server.signal(Signal::TERM);
    assert!(idle.is_closed().await, "what is under way is being finished");
    // Longer than a stop that does not wait for it takes to get to its readers.
    for _ in 0..200 {
        assert_eq!(server.ask_admin("GET", "/healthz", "").await.status(), 200, "{}", server.stderr());
    }
    let schema = r#"{"title":"test/event","type":"object"}"#;
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{schema}", schema.len());
    asked.write_all(answer.as_bytes()).await.expect("written");
    assert_eq!(reader.event().await.json()["number"], 0);
    assert!(is_farewell(&reader.raw.chunk().await));
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn who_has_just_connected_is_answered() {
    let mut server = Server::start(patient()).await;
    let mut just = server.connect().await;
    server.signal(Signal::TERM);
    until_leaving(&server).await;
    assert_eq!(just.post(&event_at("test.event", 0, 0).to_string()).await.status(), 201);
    assert!(server.ended().await.success());
}

/// Let in, they would wait in a queue that nobody empties any more, and be reset with it.
#[tokio::test]
async fn who_comes_while_the_port_closes_hears_nothing_until_it_is_refused() {
    let mut server = Server::start(patient()).await;
    server.signal(Signal::TERM);
    let (waited, error) = loop {
        let asked = Instant::now();
        if let Err(error) = TcpStream::connect(server.address).await {
            break (asked.elapsed(), error);
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(waited > Duration::from_millis(500), "its system tried once more: {waited:?}");
    assert!(server.ended().await.success());
}

/// It has connected while the server had no descriptor left, and nobody has accepted it yet.
#[tokio::test]
async fn who_waits_to_be_accepted_when_the_port_closes_is_answered() {
    let mut server = Server::start(patient()).await;
    let had = server.limit_descriptors(None);
    let mut others = Vec::new();
    let none_is_left = eventually(PATIENCE, async || {
        others.push(server.connect().await);
        server.stderr().contains("Too many open files")
    });
    assert!(none_is_left.await, "{}", server.stderr());
    let mut waits = server.connect().await;
    let body = event_at("test.event", 0, 0).to_string();
    waits.send(format!("{POST} {}\r\n\r\n{body}", body.len())).await;
    server.signal(Signal::TERM);
    // Nobody new is let in for longer than who has just connected is waited for.
    let a_while = Duration::from_millis(400);
    while let Ok(Ok(_)) = tokio::time::timeout(a_while, TcpStream::connect(server.address)).await {}
    server.limit_descriptors(Some(had));
    assert_eq!(waits.answer().await.status(), 201);
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn a_second_signal_ends_the_spread_and_every_reader_hears_when_to_come_back() {
    let mut server = Server::start(patient().env("SLUICE__STOP__DRAIN_SPREAD", FOR_EVER)).await;
    let mut readers: Vec<Stream> = Vec::new();
    for _ in 0..20 {
        readers.push(server.stream("/v2/stream/test.event", "").await);
    }
    server.put(&event_at("test.event", 7, 0)).await;
    server.signal(Signal::TERM);
    until_nobody_listens(&server).await;
    server.signal(Signal::TERM);
    let mut waits = Vec::new();
    for reader in &mut readers {
        assert_eq!(reader.event().await.json()["number"], 7);
        let farewell = String::from_utf8(reader.raw.chunk().await).expect("UTF-8");
        waits.push(farewell.strip_prefix("retry: ").and_then(|rest| rest.trim_end().parse::<u64>().ok()));
        assert_eq!(reader.raw.rest().await, b"0\r\n\r\n");
    }
    assert!(waits.iter().all(|wait| wait.is_some_and(|ms| (1_000..=60_000).contains(&ms))), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait != waits[0]), "they differ: {waits:?}");
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn a_third_signal_cuts_what_hangs_and_the_exit_code_is_0() {
    let options = patient().env("SLUICE__INTAKE__DEADLINE", FOR_EVER).env("SLUICE__STOP__DRAIN_DELAY", FOR_EVER);
    let mut server = Server::start(options).await;
    let mut hangs = server.connect().await;
    hangs.send(format!("{POST} 99\r\n\r\n{{")).await;
    server.signal(Signal::TERM);
    until_leaving(&server).await;
    server.signal(Signal::INT);
    until_nobody_listens(&server).await;
    server.signal(Signal::INT);
    assert_eq!(server.ended().await.code(), Some(0), "{}", server.stderr());
    assert!(server.stderr().contains("a third signal"), "{}", server.stderr());
}

#[tokio::test]
async fn the_deadline_holds_whatever_hangs() {
    let options = Options::default().env("SLUICE__INTAKE__DEADLINE", FOR_EVER);
    let options = options.env("SLUICE__STOP__DEADLINE", "3s").env("SLUICE__STOP__DRAIN_DELAY", FOR_EVER);
    let mut server = Server::start(options.env("SLUICE__STOP__DRAIN_SPREAD", FOR_EVER)).await;
    let mut hangs = server.connect().await;
    hangs.send(format!("{POST} 99\r\n\r\n{{")).await;
    let _reader = server.stream("/v2/stream/test.event", "").await;
    let asked = Instant::now();
    assert_eq!(server.stop().await.code(), Some(0), "{}", server.stderr());
    let took = asked.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(6)).contains(&took), "{took:?}");
    assert!(server.stderr().contains("the deadline has come"), "{}", server.stderr());
}

/// A listener that is open before all is right would take connections that nobody answers.
#[tokio::test]
async fn the_port_is_closed_until_all_is_right() {
    let catalogue = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = crate::server::free_address();
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = crate::server::sluice();
    command.args(["--listen", &address.to_string(), "--admin", "off", "--data"]).arg(folder.path());
    command.args(["--streams", &format!("http://{}/", catalogue.local_addr().expect("an address"))]);
    let mut command = tokio::process::Command::from(command);
    let starts = command.stderr(std::process::Stdio::piped()).kill_on_drop(true).spawn().expect("it runs");
    // It asks for its streams, and waits for the answer: its port is its own by then, and closed.
    let (asked, _) = tokio::time::timeout(PATIENCE, catalogue.accept()).await.expect("in time").expect("it asks");
    assert!(TcpStream::connect(address).await.is_err(), "nobody is let in");
    let mut asked = asked.into_std().expect("a socket");
    asked.set_nonblocking(false).expect("a socket");
    asked.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnope").expect("it reads");
    let output = starts.wait_with_output().await.expect("it ends");
    assert_ne!(output.status.code(), Some(0));
    assert!(TcpStream::connect(address).await.is_err());
}
