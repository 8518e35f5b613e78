//! A reader's loop on a real socket, over a hub on a log in memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, LocalSet};

use super::patience::Patience;
use super::reader::{self, Manners};
use super::sse::{Framing, Wire};
use crate::hub::testing::Feeder;
use crate::hub::{From, Options, Reader};
use crate::limits;
use crate::model::{Format, Timestamp};
use crate::shutdown::Stage;

const EVENT: &str = r#"{"meta":{"stream":"a"},"x":1}"#;

const CANARY: &str = r#"{"meta":{"stream":"a","domain":"canary"}}"#;

/// Of paused time: longer than anything that a stream waits for.
const LONG: Duration = Duration::from_secs(3_600);

struct Stream {
    client: TcpStream,
    reader: JoinHandle<()>,
}

/// A reader of the fed channel, on the other end of a socket.
async fn open(host: &Feeder, framing: Framing) -> Stream {
    open_as(host, manners(framing)).await
}

fn manners(framing: Framing) -> Manners {
    Manners { wire: Wire { format: Format::Sse, framing }, positions: false }
}

async fn open_as(host: &Feeder, manners: Manners) -> Stream {
    open_from(host, manners, From::Live, &patience(host)).await
}

async fn open_from(host: &Feeder, manners: Manners, from: From, patience: &Patience) -> Stream {
    let (client, io) = socket().await;
    let subscription = host.subscribe(from).await;
    let reader = tokio::task::spawn_local(reader::run(io, subscription, None, &host.worker, manners, patience));
    Stream { client, reader }
}

fn patience(host: &Feeder) -> Patience {
    Patience::new(host.shutdown.watcher(), 8)
}

/// Its two ends.
async fn socket() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
    let (io, _) = listener.accept().await.expect("a connection");
    // As `conn` sets it: what the kernel keeps back would be kept for hours of paused time.
    io.set_nodelay(true).expect("an option");
    (client, io)
}

impl Stream {
    async fn expect(&mut self, bytes: &str) {
        let mut read = vec![0; bytes.len()];
        self.client.read_exact(&mut read).await.expect("more bytes");
        assert_eq!(String::from_utf8_lossy(&read), bytes);
    }

    /// What there is now, and at least something.
    async fn some(&mut self) -> Vec<u8> {
        let mut read = vec![0; 64 * 1024];
        let bytes = self.client.read(&mut read).await.expect("more bytes");
        assert!(bytes > 0, "the stream goes on");
        read.truncate(bytes);
        read
    }

    async fn until(&mut self, text: &str) -> String {
        let mut read = String::new();
        while !read.contains(text) {
            read.push_str(&String::from_utf8(self.some().await).expect("ASCII"));
        }
        read
    }

    async fn rest(&mut self) -> String {
        let mut rest = String::new();
        let read = tokio::time::timeout(LONG, self.client.read_to_string(&mut rest)).await;
        read.expect("the stream ends").expect("UTF-8");
        rest
    }
}

fn run(test: impl AsyncFnOnce(Feeder)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let local = LocalSet::new();
    local.block_on(&runtime.expect("a runtime"), async {
        let options = Options { ring_bytes: Some(1 << 20), ..Options::default() };
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

/// Feeds until the socket of the only reader is full, and a few events more. Says how many.
async fn feed_until_it_is_stuck(host: &Feeder) -> usize {
    let reader = only(host);
    let mut fed = 0;
    while reader.lag_events() < 3 {
        feed_large(host, fed).await;
        fed += 1;
    }
    fed
}

async fn feed_large(host: &Feeder, number: usize) {
    let padding = "x".repeat(10_000);
    host.feed(&format!(r#"{{"n":{number},"pad":"{padding}"}}"#)).await;
    tokio::task::yield_now().await;
}

fn only(host: &Feeder) -> Arc<Reader> {
    host.hub.registry().readers().pop().expect("a reader")
}

fn set_limits(host: &Feeder, change: impl FnOnce(&mut limits::Options)) {
    let mut options = limits::Options::unlimited();
    change(&mut options);
    host.limits.set(options).expect("limits");
}

/// The stream ends well: after a whole event, with a farewell. Says how many events it had, which are the first ones.
fn events_of_a_clean_end(text: &str) -> usize {
    let (events, farewell) = text.rsplit_once("\n\n").expect("the last event's end");
    assert!(farewell.contains("retry: ") && farewell.ends_with("\n\r\n0\r\n\r\n"), "{farewell}");
    let data: Vec<&str> = events.lines().filter(|line| line.starts_with("data: ")).collect();
    for (number, line) in data.iter().enumerate() {
        assert!(line.starts_with(&format!("data: {{\"n\":{number},")) && line.ends_with("}"), "{number}");
    }
    data.len()
}

#[test]
fn an_operator_ends_whom_he_chooses_once_and_nobody_else() {
    run(async |host| {
        let mut chosen = open(&host, Framing::Chunked).await;
        let id = only(&host).id;
        let mut other = open(&host, Framing::Raw).await;
        host.feed(EVENT).await;
        assert_eq!(host.hub.registry().end(&|reader| reader.id == id), 1);
        assert_eq!(host.hub.registry().end(&|reader| reader.id == id), 0, "it was told already");
        let rest = chosen.rest().await;
        assert!(rest.contains("data: ") && rest.ends_with("\n\r\n0\r\n\r\n"), "{rest}");
        host.feed(EVENT).await;
        other.expect(":ok\n\nevent: message\n").await;
        assert_eq!(host.hub.registry().open(), 1);
    });
}

#[test]
fn an_operator_ends_also_who_waits_for_the_log_and_who_has_not_begun() {
    run(async |host| {
        host.feed(EVENT).await;
        host.take_the_log_away();
        let long_ago = From::Since(Timestamp(0));
        let mut waits = open_from(&host, manners(Framing::Chunked), long_ago, &patience(&host)).await;
        waits.expect("5\r\n:ok\n\n\r\n").await;
        let (client, io) = socket().await;
        let late = host.subscribe(From::Live).await;
        assert_eq!(host.hub.registry().end(&|_| true), 2);
        assert!(waits.rest().await.ends_with("\n\r\n0\r\n\r\n"));
        let patience = patience(&host);
        let reader = reader::run(io, late, None, &host.worker, manners(Framing::Chunked), &patience);
        let rest = Stream { client, reader: tokio::task::spawn_local(reader) }.rest().await;
        assert!(rest.starts_with("5\r\n:ok\n\n\r\nc\r\nretry: "), "{rest}");
    });
}

#[test]
fn an_operator_ends_also_whose_socket_is_full_at_once_and_after_a_whole_event() {
    run(async |host| {
        let mut stream = open(&host, Framing::Chunked).await;
        let fed = feed_until_it_is_stuck(&host).await;
        host.hub.registry().end(&|_| true);
        (&mut stream.reader).await.expect("it ended by itself");
        assert_eq!(host.hub.registry().open(), 0);
        let had = events_of_a_clean_end(&stream.rest().await);
        assert!(had > 0 && had < fed, "{had} of {fed}");
    });
}

#[test]
fn the_lag_of_a_stuck_reader_grows_and_one_that_has_everything_has_none() {
    run(async |host| {
        let mut stream = open(&host, Framing::Raw).await;
        let reader = only(&host);
        host.feed(EVENT).await;
        stream.expect(":ok\n\nevent: message\n").await;
        assert_eq!(reader.lag_events(), 0);
        let fed = feed_until_it_is_stuck(&host).await;
        let (lag, sent) = (reader.lag_events(), reader.sent_bytes());
        assert!(sent > 0);
        for number in fed..fed + 10 {
            feed_large(&host, number).await;
        }
        assert_eq!((reader.lag_events(), reader.sent_bytes()), (lag + 10, sent));
        // It has come to the end when a heartbeat follows.
        stream.until(&format!("\"n\":{},", fed + 9)).await;
        stream.until("\n:\n").await;
        assert_eq!(reader.lag_events(), 0);
        assert!(reader.sent_bytes() > sent + 100_000);
    });
}

#[test]
fn who_is_behind_and_takes_nothing_is_ended_after_a_whole_event_and_its_place_is_free_before_it_reads() {
    run(async |host| {
        let patience = patience(&host);
        let mut stream = open_from(&host, manners(Framing::Chunked), From::Live, &patience).await;
        let fed = feed_until_it_is_stuck(&host).await;
        set_limits(&host, |limits| limits.slow_after = Duration::from_secs(5));
        let start = tokio::time::Instant::now();
        (&mut stream.reader).await.expect("it ended by itself");
        let waited = start.elapsed();
        assert!(waited >= Duration::from_secs(5) && waited <= Duration::from_secs(7), "{waited:?}");
        assert_eq!((host.hub.registry().open(), patience.held()), (0, 1));
        let had = events_of_a_clean_end(&stream.rest().await);
        assert!(had > 0 && had < fed, "{had} of {fed}");
    });
}

#[test]
fn what_a_slow_reader_never_takes_is_not_kept_for_ever() {
    run(async |host| {
        let patience = patience(&host);
        let stream = open_from(&host, manners(Framing::Chunked), From::Live, &patience).await;
        feed_until_it_is_stuck(&host).await;
        set_limits(&host, |limits| limits.slow_after = Duration::from_secs(1));
        stream.reader.await.expect("it ended by itself");
        assert_eq!(patience.held(), 1);
        tokio::time::timeout(Duration::from_secs(31), until(|| patience.held() == 0)).await.expect("it is cut");
    });
}

#[test]
fn who_takes_something_now_and_then_is_not_ended() {
    run(async |host| {
        set_limits(&host, |limits| limits.slow_after = Duration::from_secs(60));
        let mut stream = open(&host, Framing::Chunked).await;
        let reader = only(&host);
        for _ in 0..10 {
            feed_until_it_is_stuck(&host).await;
            tokio::time::sleep(Duration::from_secs(40)).await;
            // The kernel makes room only when much has been read.
            let before = reader.sent_bytes();
            while reader.sent_bytes() == before {
                stream.some().await;
                feed_large(&host, 0).await;
            }
        }
        assert_eq!(host.hub.registry().open(), 1);
        feed_until_it_is_stuck(&host).await;
    });
}

#[test]
fn a_slow_reader_in_shadow_is_counted_and_stays() {
    run(async |host| {
        let stream = open(&host, Framing::Chunked).await;
        feed_until_it_is_stuck(&host).await;
        let shadow = toml::from_str("shadow = ['slow_after']\nslow_after = '5s'").expect("options");
        host.limits.set(shadow).expect("limits");
        let counted = || host.limits.ledger().accounts().iter().map(|of| of.total.would_be_refused).sum::<u64>();
        tokio::time::timeout(LONG, until(|| counted() >= 2)).await.expect("each standstill is counted");
        assert!(!stream.reader.is_finished());
    });
}

#[test]
fn a_paced_reader_gets_all_in_its_time_with_heartbeats_between_and_a_new_rate_holds_for_it() {
    run(async |host| {
        set_limits(&host, |limits| limits.bytes_out_per_second = 1_000);
        let mut stream = open(&host, Framing::Raw).await;
        let start = tokio::time::Instant::now();
        for number in 0..10 {
            feed_large(&host, number).await;
        }
        // What is counted together goes out together.
        let mut read = stream.until("\"n\":9,").await;
        let waited = start.elapsed().as_secs();
        assert!((15..=25).contains(&waited), "{waited} seconds for 20,000 bytes");
        feed_large(&host, 10).await;
        read.push_str(&stream.until("\"n\":10,").await);
        let waited = start.elapsed().as_secs();
        assert!((95..=110).contains(&waited), "{waited} seconds for 100,000 bytes");
        assert!(read.lines().filter(|line| *line == ":").count() >= 7, "heartbeats");
        feed_large(&host, 11).await;
        feed_large(&host, 12).await;
        set_limits(&host, |limits| limits.bytes_out_per_second = 0);
        let changed = tokio::time::Instant::now();
        read.push_str(&stream.until("\"n\":12,").await);
        assert!(changed.elapsed() <= Duration::from_secs(6), "{:?}", changed.elapsed());
        assert_eq!(read.matches("data: ").count(), 13);
    });
}

#[test]
fn a_paced_reader_ends_at_once_when_it_is_to() {
    run(async |host| {
        set_limits(&host, |limits| limits.bytes_out_per_second = 1);
        let mut stream = open(&host, Framing::Chunked).await;
        for number in 0..10 {
            feed_large(&host, number).await;
        }
        let start = tokio::time::Instant::now();
        host.hub.registry().end(&|_| true);
        let had = events_of_a_clean_end(&stream.rest().await);
        assert!(had < 10, "{had}");
        assert!(start.elapsed() < Duration::from_secs(1));
    });
}

/// Waits for what nobody announces.
async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
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
