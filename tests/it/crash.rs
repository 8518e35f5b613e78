//! SIGKILL in the middle of a flood of POSTs: every event that was answered 201 is in the log.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::engine::{Engine, on_both_engines};
use crate::server::Options;
use crate::support::{PATIENCE, eventually};

const ROUNDS: usize = 20;
const PRODUCERS: usize = 4;
/// Events of one POST: from one producer to the next.
const BATCHES: [usize; PRODUCERS] = [1, 3, 10, 40];
/// A round's kill comes after so many answers, at random.
const ANSWERS_BEFORE_KILL: std::ops::Range<usize> = 5..150;

async fn every_event_that_was_answered_201_survives_20_kills(engine: Engine) {
    let (mut server, _topics) = engine.serve(Options::default()).await;
    let mut accepted = Vec::new();
    for round in 0..ROUNDS {
        let answers = Arc::new(AtomicUsize::new(0));
        let mut flood = JoinSet::new();
        for producer in 0..PRODUCERS {
            flood.spawn(flood_until_it_breaks(server.address, round, producer, answers.clone()));
        }
        let enough = fastrand::usize(ANSWERS_BEFORE_KILL);
        let reached = eventually(PATIENCE, async || answers.load(Ordering::Relaxed) >= enough).await;
        assert!(reached, "the flood dried up; the log:\n{}", server.stderr());
        server.kill().await;
        accepted.extend(flood.join_all().await.into_iter().flatten());
        server.start_again().await;
    }
    server.put(&event("the end")).await;
    let mut log: HashMap<String, usize> = HashMap::new();
    let mut reader = server.stream("/v2/stream/eqiad?since=0", "").await;
    while !log.contains_key("the end") {
        let id = reader.event().await.json()["meta"]["id"].as_str().expect("an id").to_owned();
        *log.entry(id).or_default() += 1;
    }
    let lost: Vec<_> = accepted.iter().filter(|id| !log.contains_key(*id)).collect();
    let twice: Vec<_> = log.iter().filter(|(_, times)| **times > 1).collect();
    eprintln!("{engine:?}: {} answered 201, {} in the log", accepted.len(), log.len() - 1);
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), accepted.len());
    assert!(twice.is_empty(), "{} are there twice, though nobody retried: {twice:?}", twice.len());
}

/// POSTs on one connection until the server is gone. The ids that were answered 201.
async fn flood_until_it_breaks(
    server: SocketAddr,
    round: usize,
    producer: usize,
    answers: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut accepted = Vec::new();
    let Ok(mut io) = TcpStream::connect(server).await else { return accepted };
    for post in 0.. {
        let ids: Vec<String> = (0..BATCHES[producer]).map(|n| format!("{round}-{producer}-{post}-{n}")).collect();
        let events: Vec<_> = ids.iter().map(|id| event(id)).collect();
        match exchange(&mut io, &json!(events).to_string()).await {
            Ok(201) => accepted.extend(ids),
            Ok(other) => panic!("the server answers {other}"),
            Err(_) => break,
        }
        answers.fetch_add(1, Ordering::Relaxed);
    }
    accepted
}

/// One POST and its status. An answer without a body is expected, a cut one is an error.
async fn exchange(io: &mut TcpStream, body: &str) -> io::Result<u16> {
    let head = "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length:";
    io.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if io.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    Ok(answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"))
}

fn event(id: &str) -> serde_json::Value {
    json!({ "$schema": "/test/event/1.0.0", "meta": { "stream": "eqiad", "id": id, "dt": "2026-01-01T00:00:00Z" } })
}

on_both_engines!(every_event_that_was_answered_201_survives_20_kills);
