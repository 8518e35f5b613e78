//! A reader's loop on a real socket, over a hub on a log in memory.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, LocalSet};

use super::patience::Patience;
use super::reader::{self, Manners};
use super::sse::{Framing, Wire};
use super::transport::Transport;
use crate::hub::testing::Feeder;
use crate::hub::{From, Options};
use crate::model::Format;
use crate::shutdown::Stage;
use crate::tls::{Tls, testing};

pub(super) const EVENT: &str = r#"{"meta":{"stream":"a"},"x":1}"#;

const CANARY: &str = r#"{"meta":{"stream":"a","domain":"canary"}}"#;

/// Of paused time: longer than anything that a stream waits for.
pub(super) const LONG: Duration = Duration::from_secs(3_600);

pub(super) struct Stream {
    pub(super) client: TcpStream,
    pub(super) reader: JoinHandle<()>,
}

/// A reader of the fed channel, on the other end of a socket.
pub(super) async fn open(host: &Feeder, framing: Framing) -> Stream {
    open_as(host, manners(framing)).await
}

pub(super) fn manners(framing: Framing) -> Manners {
    Manners { wire: Wire { format: Format::Sse, framing }, positions: false }
}

async fn open_as(host: &Feeder, manners: Manners) -> Stream {
    open_from(host, manners, From::Live, &patience(host)).await
}

pub(super) async fn open_from(host: &Feeder, manners: Manners, from: From, patience: &Patience) -> Stream {
    let (client, io) = socket().await;
    let subscription = host.subscribe(from).await;
    let reader = tokio::task::spawn_local(reader::run(io, subscription, None, &host.worker, manners, patience));
    Stream { client, reader }
}

pub(super) fn patience(host: &Feeder) -> Patience {
    Patience::new(host.shutdown.watcher(), 8)
}

/// Its two ends.
pub(super) async fn socket() -> (TcpStream, Transport) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
    let (io, _) = listener.accept().await.expect("a connection");
    // As `conn` sets it: what the kernel keeps back would be kept for hours of paused time.
    io.set_nodelay(true).expect("an option");
    (client, io.into())
}

impl Stream {
    pub(super) async fn expect(&mut self, bytes: &str) {
        let mut read = vec![0; bytes.len()];
        self.client.read_exact(&mut read).await.expect("more bytes");
        assert_eq!(String::from_utf8_lossy(&read), bytes);
    }

    /// What there is now, and at least something.
    pub(super) async fn some(&mut self) -> Vec<u8> {
        let mut read = vec![0; 64 * 1024];
        let bytes = self.client.read(&mut read).await.expect("more bytes");
        assert!(bytes > 0, "the stream goes on");
        read.truncate(bytes);
        read
    }

    pub(super) async fn until(&mut self, text: &str) -> String {
        let mut read = String::new();
        while !read.contains(text) {
            read.push_str(&String::from_utf8(self.some().await).expect("ASCII"));
        }
        read
    }

    pub(super) async fn rest(&mut self) -> String {
        let mut rest = String::new();
        let read = tokio::time::timeout(LONG, self.client.read_to_string(&mut rest)).await;
        read.expect("the stream ends").expect("UTF-8");
        rest
    }
}

pub(super) fn run(test: impl AsyncFnOnce(Feeder)) {
    run_with(Options::default().heartbeat, test);
}

fn run_with(heartbeat: Duration, test: impl AsyncFnOnce(Feeder)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let local = LocalSet::new();
    local.block_on(&runtime.expect("a runtime"), async {
        let options = Options { ring_bytes: Some(1 << 20), heartbeat, ..Options::default() };
        let host = Feeder::start(options).await;
        tokio::task::spawn_local(host.worker.clone().run());
        test(host).await;
    });
}

#[test]
fn an_event_is_one_chunk_and_the_first_one_carries_retry() {
    run(async |host| {
        let mut stream = open(&host, Framing::Chunked).await;
        stream.expect("5\r\n:ok\n\n\r\n").await;
        host.feed(EVENT).await;
        host.feed(EVENT).await;
        let first = read_chunk(&mut stream.client).await;
        let id = r#"id: [{"topic":"a.t","partition":0,"offset":1,"timestamp":1000}]"#;
        let data = r#"data: {"meta":{"stream":"a","topic":"a.t","partition":0,"offset":0},"x":1}"#;
        let (before, after) = first.split_once("retry: ").expect("a retry line");
        assert_eq!(before, format!("event: message\n{id}\n"));
        let (retry, after) = after.split_once('\n').expect("its end");
        assert!((2250..=3750).contains(&retry.parse::<u64>().expect("a number")), "{retry}");
        assert_eq!(after, format!("{data}\n\n"));
        let second = read_chunk(&mut stream.client).await;
        assert!(
            second.starts_with("event: message\nid: [{\"topic\":\"a.t\",\"partition\":0,\"offset\":2,"),
            "{second}"
        );
    });
}

#[test]
fn http_1_0_gets_the_same_bytes_without_chunks() {
    run(async |host| {
        let mut stream = open(&host, Framing::Raw).await;
        stream.expect(":ok\n\n").await;
        host.feed(EVENT).await;
        stream.expect("event: message\nid: [{\"topic\"").await;
        host.shutdown.advance(Stage::EndStreams);
        let rest = stream.rest().await;
        let (_, farewell) = rest.rsplit_once("\n\n").expect("the event's end");
        assert!(farewell.starts_with("retry: ") && farewell.ends_with('\n'), "{farewell}");
    });
}

#[test]
fn to_http_1_0_no_event_has_the_size_of_a_chunk() {
    run(async |host| {
        let mut stream = open(&host, Framing::Raw).await;
        for _ in 0..4 {
            host.feed(EVENT).await;
            tokio::task::yield_now().await;
        }
        host.shutdown.advance(Stage::EndStreams);
        let rest = stream.rest().await;
        assert_eq!(rest.matches("data: ").count(), 4, "{rest}");
        for line in rest.lines().filter(|line| !line.is_empty()) {
            assert!(
                [":ok", "event: ", "id: ", "retry: ", "data: "].iter().any(|start| line.starts_with(start)),
                "{line}"
            );
        }
    });
}

#[test]
fn a_quiet_stream_gets_a_bare_comment_every_ten_seconds() {
    run(async |host| {
        let mut stream = open(&host, Framing::Chunked).await;
        stream.expect("5\r\n:ok\n\n\r\n").await;
        let start = tokio::time::Instant::now();
        for beat in 1..=3 {
            stream.expect("2\r\n:\n\r\n").await;
            let waited = start.elapsed();
            assert!(
                waited > Duration::from_secs(beat * 10 - 2) && waited <= Duration::from_secs(beat * 10 + 1),
                "{waited:?}"
            );
        }
    });
}

#[test]
fn a_quiet_reader_that_takes_positions_is_told_where_it_stands_once_each_time_that_it_moves() {
    run(async |host| {
        let mut stream = open_as(&host, Manners { positions: true, ..manners(Framing::Raw) }).await;
        stream.expect(":ok\n\nid: [{\"topic\":\"a.t\",\"partition\":0,\"offset\":0}]\n\n:\n").await;
        host.feed(CANARY).await;
        stream.expect("id: [{\"topic\":\"a.t\",\"partition\":0,\"offset\":1,\"timestamp\":1000}]\n\n:\n:\n").await;
        host.feed(EVENT).await;
        let rest = "event: message\nid: [{\"topic\":\"a.t\",\"partition\":0,\"offset\":2,\"timestamp\":2000}]\n";
        stream.expect(rest).await;
        stream.expect("retry: ").await;
        host.feed(CANARY).await;
        host.shutdown.advance(Stage::EndStreams);
        assert!(!stream.rest().await.contains("canary"));
    });
}

#[test]
fn nobody_else_gets_an_id_without_an_event() {
    run(async |host| {
        let mut stream = open(&host, Framing::Raw).await;
        stream.expect(":ok\n\n").await;
        host.feed(CANARY).await;
        stream.expect(":\n:\n:\n").await;
    });
}

#[test]
fn an_event_says_where_its_reader_stands_and_is_not_said_again() {
    run(async |host| {
        let mut stream = open_as(&host, Manners { positions: true, ..manners(Framing::Raw) }).await;
        stream.expect(":ok\n\nid: [").await;
        host.feed(EVENT).await;
        host.feed(EVENT).await;
        let mut read = String::new();
        while read.matches("data: ").count() < 2 || !read.ends_with("}\n\n") {
            read.push(char::from(stream.client.read_u8().await.expect("more bytes")));
        }
        stream.expect(":\n:\n").await;
        host.feed(CANARY).await;
        stream.expect("id: [{\"topic\":\"a.t\",\"partition\":0,\"offset\":3,\"timestamp\":3000}]\n\n:\n").await;
    });
}

#[test]
fn streams_end_after_a_whole_event_with_a_farewell() {
    run(async |host| {
        let mut stream = open(&host, Framing::Chunked).await;
        stream.expect("5\r\n:ok\n\n\r\n").await;
        host.shutdown.advance(Stage::EndStreams);
        let rest = stream.rest().await;
        assert!(rest.starts_with("c\r\nretry: ") && rest.ends_with("\n\r\n0\r\n\r\n"), "{rest}");
        stream.reader.await.expect("it ended by itself");
    });
}

#[test]
fn few_readers_end_over_the_whole_spread_as_many_do() {
    const SPREAD: Duration = Duration::from_secs(10);
    run(async |host| {
        let worker = host.hub.worker(SPREAD);
        tokio::task::spawn_local(worker.clone().run());
        let mut streams = Vec::new();
        for _ in 0..20 {
            let ((client, io), subscription) = (socket().await, host.subscribe(From::Live).await);
            let ran = reader::run(io, subscription, None, &worker, manners(Framing::Raw), &patience(&host));
            let mut stream = Stream { client, reader: tokio::task::spawn_local(ran) };
            stream.expect(":ok\n\n").await;
            streams.push(stream);
        }
        host.shutdown.advance(Stage::EndStreams);
        let begun = tokio::time::Instant::now();
        let ends = streams.iter_mut().map(async |stream| {
            stream.rest().await;
            begun.elapsed()
        });
        let ends = futures_util::future::join_all(ends).await;
        assert!(ends.iter().all(|end| *end < SPREAD + Duration::from_secs(1)), "{ends:?}");
        let late = ends.iter().filter(|end| **end > SPREAD / 2).count();
        // Each of them is late or not with the same chance: that all are is a chance of one in a million.
        assert!((1..20).contains(&late), "{ends:?}");
    });
}

#[test]
fn a_partition_that_begins_anew_ends_its_readers() {
    run(async |host| {
        let mut stream = open(&host, Framing::Chunked).await;
        host.feed(EVENT).await;
        host.begin_anew().await;
        let rest = stream.rest().await;
        assert!(rest.contains("event: message") && rest.ends_with("\n\r\n0\r\n\r\n"), "{rest}");
    });
}

#[test]
fn a_stream_with_other_topics_ends_its_readers_also_those_that_come_late() {
    run(async |host| {
        let mut there = open(&host, Framing::Chunked).await;
        host.feed(EVENT).await;
        let (client, io) = socket().await;
        let late = host.subscribe(From::Live).await;
        // None of the streams that the host began with is left.
        host.hub.follow(vec![]).await;
        let rest = there.rest().await;
        assert!(rest.contains("event: message") && rest.ends_with("\n\r\n0\r\n\r\n"), "{rest}");
        let reader = tokio::task::spawn_local(reader::run(
            io,
            late,
            None,
            &host.worker,
            manners(Framing::Chunked),
            &patience(&host),
        ));
        let rest = Stream { client, reader }.rest().await;
        assert!(rest.starts_with("5\r\n:ok\n\n\r\nc\r\nretry: ") && rest.ends_with("\n\r\n0\r\n\r\n"), "{rest}");
    });
}

#[test]
fn who_resolved_its_streams_before_they_changed_is_ended_soon() {
    run(async |host| {
        let mut there = open(&host, Framing::Chunked).await;
        host.hub.follow(vec![]).await;
        there.rest().await;
        let mut late = open(&host, Framing::Chunked).await;
        let rest = late.rest().await;
        assert!(rest.ends_with("\n\r\n0\r\n\r\n"), "{rest}");
    });
}

#[test]
fn a_reader_that_leaves_is_noticed_without_a_write() {
    run(async |host| {
        let stream = open(&host, Framing::Chunked).await;
        assert_eq!(host.hub.registry().open(), 1);
        drop(stream.client);
        stream.reader.await.expect("it ended by itself");
        assert_eq!(host.hub.registry().open(), 0);
    });
}

#[test]
fn a_reader_that_keeps_talking_is_ended() {
    run(async |host| {
        let mut stream = open(&host, Framing::Chunked).await;
        let chatter = vec![b'x'; 200_000];
        let _ = stream.client.write_all(&chatter).await;
        stream.reader.await.expect("it ended by itself");
    });
}

#[test]
fn a_reader_that_stops_until_the_ring_has_moved_past_it_gets_everything() {
    run(async |host| {
        let stream = open(&host, Framing::Raw).await;
        let padding = "x".repeat(10_000);
        let events = 2_000;
        for number in 0..events {
            host.feed(&format!(r#"{{"n":{number},"pad":"{padding}"}}"#)).await;
        }
        let mut lines = BufReader::new(stream.client).lines();
        for number in 0..events {
            let data = loop {
                let line = lines.next_line().await.expect("more lines").expect("the stream goes on");
                if line.starts_with("data: ") {
                    break line;
                }
            };
            assert!(data.starts_with(&format!("data: {{\"n\":{number},")), "{number}: {}", &data[..40]);
        }
    });
}

#[test]
fn the_end_of_an_event_does_not_stay_in_tls_whatever_the_socket_takes_of_it() {
    // Nothing else pushes it out.
    run_with(10 * LONG, async |host| {
        let tls = Tls::new(testing::identity());
        let (acceptor, connector) = (tls.acceptor(), tls.connector().expect("a connector"));
        for kilobytes in (16..512).step_by(8) {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let client = TcpSocket::new_v4().expect("a socket");
            client.set_recv_buffer_size(8 * 1024).expect("a buffer");
            let client = client.connect(listener.local_addr().expect("an address")).await.expect("a connection");
            let (io, _) = listener.accept().await.expect("a connection");
            socket2::SockRef::from(&io).set_send_buffer_size(8 * 1024).expect("a buffer");
            io.set_nodelay(true).expect("an option");
            let name = std::net::IpAddr::from([127, 0, 0, 1]).into();
            let (near, far) = tokio::join!(connector.connect(name, client), acceptor.accept(io));
            let (mut client, io) = (near.expect("TLS"), Transport::Tls(Box::new(far.expect("TLS"))));
            let subscription = host.subscribe(From::Live).await;
            let manners = manners(Framing::Raw);
            let reader = reader::run(io, subscription, None, &host.worker, manners, &patience(&host));
            let reader = tokio::task::spawn_local(reader);
            host.feed(&format!(r#"{{"pad":"{}"}}"#, "x".repeat(kilobytes * 1024))).await;
            // As much as the socket takes, before anybody reads.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            let mut read = Vec::new();
            while !read.ends_with(b"}\n\n") {
                let more = tokio::time::timeout(LONG, client.read_buf(&mut read)).await.expect("all of it");
                assert!(more.is_ok_and(|bytes| bytes > 0), "{kilobytes}");
            }
            reader.abort();
        }
    });
}

async fn read_chunk(client: &mut TcpStream) -> String {
    let mut size = String::new();
    while !size.ends_with("\r\n") {
        size.push(char::from(client.read_u8().await.expect("a size")));
    }
    let bytes = usize::from_str_radix(size.trim_end(), 16).expect("hex");
    let mut chunk = vec![0; bytes + 2];
    client.read_exact(&mut chunk).await.expect("a chunk");
    let text = String::from_utf8(chunk).expect("UTF-8");
    text.strip_suffix("\r\n").expect("its end").to_owned()
}
