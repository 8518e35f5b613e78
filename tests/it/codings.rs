//! Compressed bodies: good, damaged, and made to cost more than they weigh.

use async_compression::Level;
use async_compression::tokio::write::{BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use tokio::io::AsyncWriteExt;

use crate::raw::Answer;
use crate::server::{Options, Server};

const EVENT: &str = r#"{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"},"test":"squeezed"}"#;
const DAMAGED: &str = "The body is not what its Content-Encoding says: it is damaged, cut short, or goes on, or its window is over 8 MiB.";
const TOO_LARGE: &str = "The body is larger than 10485760 bytes.";
const MIB: usize = 1 << 20;
/// What a bomb may cost at most: the limit's worth of body, which grows by doubling, and a decoder.
const BOMB_COST_MAX: usize = 64 * MIB;

macro_rules! encoded {
    ($encoder:ident, $bytes:expr) => {{
        let mut encoder = $encoder::with_quality(Vec::new(), Level::Fastest);
        encoder.write_all($bytes).await.expect("encodes");
        encoder.shutdown().await.expect("encodes");
        encoder.into_inner()
    }};
}

async fn every_coding(bytes: &[u8]) -> [(&'static str, Vec<u8>); 6] {
    [
        ("gzip", encoded!(GzipEncoder, bytes)),
        ("x-gzip", encoded!(GzipEncoder, bytes)),
        ("deflate", encoded!(ZlibEncoder, bytes)),
        ("deflate", encoded!(DeflateEncoder, bytes)),
        ("br", encoded!(BrotliEncoder, bytes)),
        ("zstd", encoded!(ZstdEncoder, bytes)),
    ]
}

async fn post(server: &Server, coding: &str, body: &[u8]) -> Answer {
    let headers = format!("Content-Type: application/json\r\nContent-Encoding: {coding}\r\n");
    server.connect().await.post_as(&headers, body).await
}

fn assert_refused(answer: &Answer, status: u16, sentence: &str, code: &str) {
    let said = (answer.status(), answer.header("sluice-message"));
    assert_eq!(said, (status, sentence), "{answer:?}");
    assert_eq!(answer.json()["error"][0]["code"], code, "{answer:?}");
}

#[tokio::test]
async fn every_coding_is_taken_alone_and_two_deep() {
    let server = Server::start(Options::default()).await;
    for (coding, body) in every_coding(EVENT.as_bytes()).await {
        assert_eq!(post(&server, coding, &body).await.status(), 201, "{coding}");
        for (outer, body) in every_coding(&body).await {
            let both = format!("{coding}, {outer}");
            assert_eq!(post(&server, &both, &body).await.status(), 201, "{both}");
        }
    }
    assert_eq!(post(&server, "identity", EVENT.as_bytes()).await.status(), 201);
    let read = server.stream("/v2/stream/test.event?since=0", "").await.event().await;
    assert_eq!(read.json()["test"], "squeezed");
}

#[tokio::test]
async fn a_compressed_body_may_come_byte_by_byte() {
    let server = Server::start(Options::default()).await;
    for (coding, body) in every_coding(EVENT.as_bytes()).await {
        let mut raw = server.connect().await;
        let head = "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n";
        raw.send(format!("{head}Content-Encoding: {coding}\r\n\r\n")).await;
        for byte in body {
            raw.send([b"1\r\n", &[byte][..], b"\r\n"].concat()).await;
        }
        raw.send("0\r\n\r\n").await;
        assert_eq!(raw.answer().await.status(), 201, "{coding}");
    }
}

#[tokio::test]
async fn a_damaged_body_is_400_and_a_coding_that_is_not_known_415_with_those_that_are() {
    let server = Server::start(Options::default()).await;
    for (coding, body) in every_coding(EVENT.as_bytes()).await {
        let damaged =
            [&body[..body.len() / 2], &body[..body.len() - 1], &[&body[..], b"more"].concat(), EVENT.as_bytes()];
        for body in damaged {
            assert_refused(&post(&server, coding, body).await, 400, DAMAGED, "bad-encoding");
        }
    }
    for coding in ["compress", "snappy", "gzip, gzip, gzip"] {
        let answer = post(&server, coding, EVENT.as_bytes()).await;
        let sentence = "The Content-Encoding must be one of gzip, deflate, br, zstd, or two of them.";
        assert_refused(&answer, 415, sentence, "unsupported-media-type");
        assert_eq!(answer.header("accept-encoding"), "gzip, deflate, br, zstd");
    }
    let charset = "Content-Type: application/json; charset=latin1\r\n";
    let answer = server.connect().await.post_as(charset, EVENT.as_bytes()).await;
    assert_refused(&answer, 415, "The charset must be UTF-8.", "unsupported-media-type");
    assert!(server.metric("sluice_posts_refused_total").await >= 28.0, "they are counted");
}

/// A gibibyte of white space, as little as each coding makes of it.
async fn bombs() -> [(&'static str, Vec<u8>); 5] {
    let blank = vec![b' '; MIB];
    let inner = encoded!(GzipEncoder, &blank).repeat(1024);
    [
        ("gzip, gzip", encoded!(GzipEncoder, &inner)),
        ("gzip", inner),
        ("zstd", encoded!(ZstdEncoder, &blank).repeat(1024)),
        ("br", repeated_in_brotli(&blank, 1024).await),
        ("deflate", encoded!(ZlibEncoder, &blank.repeat(32))),
    ]
}

/// One stream: what the encoder makes of the piece once it has seen it stands there again and again.
async fn repeated_in_brotli(piece: &[u8], times: usize) -> Vec<u8> {
    let mut encoder = BrotliEncoder::with_quality(Vec::new(), Level::Fastest);
    let mut ends = Vec::new();
    for _ in 0..3 {
        encoder.write_all(piece).await.expect("encodes");
        encoder.flush().await.expect("encodes");
        ends.push(encoder.get_ref().len());
    }
    encoder.shutdown().await.expect("encodes");
    let whole = encoder.into_inner();
    [&whole[..ends[1]], &whole[ends[1]..ends[2]].repeat(times - 2), &whole[ends[2]..]].concat()
}

#[tokio::test]
async fn a_bomb_is_413_and_costs_no_more_than_the_limit() {
    let server = Server::start(Options::default()).await;
    let bombs = bombs().await;
    let before = peak_memory(&server);
    for _ in 0..3 {
        for (coding, bomb) in &bombs {
            let answer = post(&server, coding, bomb).await;
            assert_refused(&answer, 413, TOO_LARGE, "too-large");
        }
    }
    let cost = peak_memory(&server) - before;
    assert!(cost < BOMB_COST_MAX, "{} MiB", cost / MIB);
    assert_eq!(post(&server, "gzip", &encoded!(GzipEncoder, EVENT.as_bytes())).await.status(), 201);
}

#[tokio::test]
async fn the_limit_counts_what_comes_out_to_the_byte() {
    let server = Server::start(Options::default().env("SLUICE__INTAKE__MAX_BODY_BYTES", "50000")).await;
    let padded = |bytes: usize| format!("{EVENT}{}", " ".repeat(bytes - EVENT.len()));
    for (coding, body) in every_coding(padded(50_000).as_bytes()).await {
        assert_eq!(post(&server, coding, &body).await.status(), 201, "{coding}");
    }
    for (coding, body) in every_coding(padded(50_001).as_bytes()).await {
        assert_refused(&post(&server, coding, &body).await, 413, "The body is larger than 50000 bytes.", "too-large");
    }
}

/// Bytes of memory that the server has had at most.
fn peak_memory(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let kib: usize = line.trim().trim_end_matches(" kB").trim().parse().expect("a number");
    kib * 1024
}
