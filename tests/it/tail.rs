//! `sluice tail` against a server, and against what no server of ours would send.

use std::net::SocketAddr;
use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::engine::event_at;
use crate::server::{Options, Server, free_address, sluice};
use crate::support::{PATIENCE, eventually};

/// A running `sluice tail`, and what it prints.
struct Tail {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tail {
    fn start(address: SocketAddr, stream: &str, flags: &[&str]) -> Self {
        let mut command = Command::from(sluice());
        command.arg("tail").arg(format!("http://{address}")).arg(stream).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the binary runs");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("a line in time");
        line.expect("UTF-8").expect("one more line")
    }

    async fn number(&mut self) -> u64 {
        let line = self.line().await;
        let event: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        event["number"].as_u64().unwrap_or_else(|| panic!("no number: {line}"))
    }

    /// Waits for its end; what it printed besides the lines that were read.
    async fn ended(mut self) -> (Output, Vec<String>) {
        let mut rest = Vec::new();
        let read = async {
            while let Some(line) = self.lines.next_line().await.expect("UTF-8") {
                rest.push(line);
            }
        };
        timeout(PATIENCE, read).await.expect("it ends by itself");
        drop(self.lines);
        (self.child.wait_with_output().await.expect("it ran"), rest)
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().expect("it runs")).expect("a small number");
        kill_process(Pid::from_raw(pid).expect("a process"), signal).expect("it runs");
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn put(server: &Server, numbers: std::ops::Range<usize>) {
    for number in numbers {
        server.put(&event_at("test.event", number, i64::try_from(number).expect("small"))).await;
    }
}

#[tokio::test]
async fn in_a_pipe_it_prints_what_the_server_sends_as_documents() {
    let server = Server::start(Options::default()).await;
    put(&server, 0..20).await;
    let tail = Tail::start(server.address, "test.event", &["--since", "0", "--count", "20"]);
    let (output, lines) = tail.ended().await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(said(&output), "");
    let mut stream = server.stream("/v2/stream/test.event?since=0", "").await;
    for line in &lines {
        assert_eq!(*line, stream.event().await.data);
    }
    assert_eq!(lines.len(), 20);
}

#[tokio::test]
async fn over_a_stop_and_a_kill_of_the_server_it_prints_every_event_once() {
    let mut server = Server::start(Options::default().env("SLUICE__HUB__RETRY", "1s")).await;
    let mut tail = Tail::start(server.address, "test.event", &["--since", "0"]);
    put(&server, 0..10).await;
    for number in 0..10 {
        assert_eq!(tail.number().await, number);
    }
    assert!(server.stop().await.success());
    server.start_again().await;
    put(&server, 10..20).await;
    for number in 10..20 {
        assert_eq!(tail.number().await, number);
    }
    server.kill().await;
    server.start_again().await;
    put(&server, 20..30).await;
    for number in 20..30 {
        assert_eq!(tail.number().await, number);
    }
    tail.signal(Signal::INT);
    let (output, rest) = tail.ended().await;
    assert_eq!((output.status.code(), rest.len()), (Some(0), 0), "{}", said(&output));
}

/// Nothing came, and then the server was away while something did.
#[tokio::test]
async fn who_never_saw_an_event_comes_back_to_where_it_was() {
    let mut server = Server::start(Options::default()).await;
    put(&server, 0..1).await;
    let mut tail = Tail::start(server.address, "test.event", &["--raw"]);
    while !tail.line().await.starts_with("id: ") {}
    let address = server.address;
    server.kill().await;
    server.start_again().await;
    // The reader is not back yet, or it is: in both cases this comes after its place.
    assert_eq!(server.address, address);
    put(&server, 1..2).await;
    let data = loop {
        let line = tail.line().await;
        if let Some(data) = line.strip_prefix("data: ") {
            break data.to_owned();
        }
    };
    assert!(data.contains("\"number\":1"), "{data}");
}

#[tokio::test]
async fn an_id_is_where_it_begins_and_the_last_one_is_told() {
    let server = Server::start(Options::default()).await;
    put(&server, 0..5).await;
    let (output, lines) =
        Tail::start(server.address, "test.event", &["--since", "0", "--count", "2", "--ids"]).ended().await;
    assert_eq!(lines.len(), 2);
    let said = said(&output);
    let id = said.split('\'').nth(1).unwrap_or_else(|| panic!("{said}"));
    assert!(id.contains("\"offset\":2"), "{id}");
    let mut tail = Tail::start(server.address, "test.event", &["--last-event-id", id]);
    assert_eq!(tail.number().await, 2);
    tail.signal(Signal::TERM);
    assert_eq!(tail.ended().await.0.status.code(), Some(0));
}

#[tokio::test]
async fn what_the_server_has_to_say_is_said_once() {
    let server = Server::start(Options::default()).await;
    put(&server, 0..1).await;
    let past = r#"[{"topic":"test.event","partition":0,"offset":99,"timestamp":1}]"#;
    let flags = ["--last-event-id", past, "--count", "1"];
    let (output, lines) = Tail::start(server.address, "test.event", &flags).ended().await;
    assert_eq!((output.status.code(), lines.len()), (Some(0), 1));
    let told = "the server says: test.event/0 asked offset 99, past the end 1: resumed by time";
    assert_eq!(said(&output).matches(told).count(), 1, "{}", said(&output));
}

#[tokio::test]
async fn raw_is_the_wire_as_it_is() {
    let server = Server::start(Options::default()).await;
    put(&server, 0..2).await;
    let (_, lines) =
        Tail::start(server.address, "test.event", &["--raw", "--since", "0", "--count", "1"]).ended().await;
    assert_eq!(lines[0], ":ok");
    assert!(lines.iter().any(|line| line.starts_with("id: [")) && lines.iter().any(|line| line.starts_with("retry: ")));
    assert_eq!(lines.iter().filter(|line| line.starts_with("data: ")).count(), 1, "{lines:?}");
}

#[tokio::test]
async fn canaries_are_shown_to_who_asks() {
    let server = Server::start(Options::default()).await;
    let mut canary = event_at("test.event", 0, 0);
    canary["meta"]["domain"] = "canary".into();
    server.put(&canary).await;
    put(&server, 1..2).await;
    assert_eq!(Tail::start(server.address, "test.event", &["--since", "0"]).number().await, 1);
    assert_eq!(Tail::start(server.address, "test.event", &["--since", "0", "--canary"]).number().await, 0);
}

#[tokio::test]
async fn an_output_that_cannot_be_written_is_a_failure() {
    let server = Server::start(Options::default()).await;
    put(&server, 0..1).await;
    let mut command = Command::from(sluice());
    command.args(["tail", &format!("http://{}", server.address), "test.event", "--since", "0"]).kill_on_drop(true);
    let full = std::fs::File::options().write(true).open("/dev/full").expect("a disk that is full");
    let output = command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()).spawn().expect("it runs");
    let output = timeout(PATIENCE, output.wait_with_output()).await.expect("it ends by itself").expect("it ran");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("the output cannot be written: "), "{}", said(&output));
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_ends_it_quietly() {
    let server = Server::start(Options::default()).await;
    let mut tail = Tail::start(server.address, "test.event", &["--since", "0"]);
    put(&server, 0..1).await;
    tail.line().await;
    let Tail { mut child, lines } = tail;
    drop(lines);
    // The stream is quiet: it is seen all the same.
    let gone = eventually(PATIENCE, async || child.try_wait().expect("a child").is_some());
    assert!(gone.await, "it goes on");
    let output = child.wait_with_output().await.expect("it ran");
    assert_eq!((output.status.code(), said(&output).as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_signal_is_heard_while_nobody_reads() {
    let server = Server::start(Options::default()).await;
    put(&server, 0..200).await;
    let mut tail = Tail::start(server.address, "test.event", &["--since", "0", "--ids"]);
    tail.line().await;
    // More than a pipe holds, and all that it has read ahead.
    let mut event = event_at("test.event", 200, 200);
    event["test"] = "x".repeat(300_000).into();
    for _ in 0..8 {
        server.put(&event).await;
    }
    let blocked = eventually(PATIENCE, async || server.metric("sluice_streams_open").await == 1.0);
    assert!(blocked.await);
    tail.signal(Signal::INT);
    let status = timeout(PATIENCE, tail.child.wait()).await.expect("it hears").expect("it ran");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn an_unknown_stream_is_the_end_and_wrong_usage_is_the_users() {
    let server = Server::start(Options::default()).await;
    let (output, _) = Tail::start(server.address, "recentchanges", &[]).ended().await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("404") && said(&output).contains("'recentchange'"), "{}", said(&output));
    let (output, _) = Tail::start(server.address, "test.event", &["--nope"]).ended().await;
    assert_eq!(output.status.code(), Some(2));
    let (output, _) = Tail::start(server.address, "test.event", &["--since", "soon"]).ended().await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("'soon'"), "{}", said(&output));
}

const TRIES: u32 = 30;

#[tokio::test]
async fn it_waits_for_a_server_that_is_not_there_yet() {
    let address = free_address();
    let mut tail = Tail::start(address, "test.event", &["--since", "0"]);
    let server = Server::start(Options::default().listen(&address.to_string())).await;
    put(&server, 0..1).await;
    assert_eq!(tail.number().await, 0);
    let mut stuck = Tail::start(free_address(), "test.event", &[]);
    let mut ended = None;
    // One that comes just before it listens may be heard by nobody.
    for _ in 0..TRIES {
        stuck.signal(Signal::INT);
        ended = timeout(PATIENCE / TRIES, stuck.child.wait()).await.ok();
        if ended.is_some() {
            break;
        }
    }
    let status = ended.expect("it ends").expect("a child");
    // And one that comes before that kills it, as everybody's does.
    assert!(matches!(status.code(), Some(0) | None), "{status:?}");
}

const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

/// A server that has one answer for each connection, closes after it, and tells the requests.
async fn scripted(address: SocketAddr, answers: Vec<impl AsRef<[u8]>>) -> Vec<String> {
    let listener = TcpListener::bind(address).await.expect("the port is free");
    let mut requests = Vec::new();
    for answer in answers {
        let (mut io, _) = timeout(PATIENCE, listener.accept()).await.expect("it comes").expect("a connection");
        requests.push(head(&mut io).await);
        io.write_all(answer.as_ref()).await.expect("it reads");
        let _ = io.shutdown().await;
    }
    requests
}

async fn head(io: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, io.read_u8()).await.expect("in time").expect("a whole head"));
    }
    String::from_utf8_lossy(&head).to_ascii_lowercase()
}

#[tokio::test]
async fn cuts_refusals_and_garbage_are_outlived_and_no_event_comes_twice() {
    let address = free_address();
    let place = |number: u64| format!(r#"{{"topic":"t","partition":0,"offset":{number}}}"#);
    let event = |number: u64| format!("id: p{number}\ndata: {{\"number\":{number},\"meta\":{}}}\n\n", place(number));
    let answers = vec![
        "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_owned(),
        format!("{STREAM}:ok\n\nretry: 10\n{}{}id: p3\ndata: {{\"num", event(1), event(2)),
        "HTTP/1.1 429 Slow\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "no HTTP at all\r\n\r\n".to_owned(),
        // As EventStreams does with events of the same millisecond.
        format!("{STREAM}:ok\n\n{}{}\u{1}\u{2}: \n\n{}", event(2), event(3), event(4)),
    ];
    let mut tail = Tail::start(address, "a", &[]);
    let requests = scripted(address, answers).await;
    for number in 1..=4 {
        assert_eq!(tail.number().await, number);
    }
    let places: Vec<bool> = requests.iter().map(|request| request.contains("last-event-id: p2\r\n")).collect();
    assert_eq!(places, [false, false, true, true, true], "{requests:#?}");
    assert!(requests[0].starts_with("get /v2/stream/a?positions=true http/1.1\r\n"), "{}", requests[0]);
    assert!(requests[0].contains("accept: text/event-stream\r\n") && requests[0].contains("user-agent: sluice/"));
    assert!(!requests[0].contains("accept-encoding"), "{}", requests[0]);
}

#[tokio::test]
async fn each_trouble_is_told_once_and_that_it_goes_on() {
    let address = free_address();
    let busy = || "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n".to_owned();
    // The last is how a server with too many readers asks them to come later.
    let empty = format!("{STREAM}: too many\nretry: 100\n");
    let event = format!("{STREAM}event: error\ndata: no \u{1b}broker\n\ndata: 1\n\n");
    let mut tail = Tail::start(address, "a", &["--count", "1"]);
    scripted(address, vec![busy(), busy(), empty, event]).await;
    assert_eq!(tail.line().await, "1", "an error is no event");
    let (output, _) = tail.ended().await;
    let said = said(&output);
    // It may have come before the port was open.
    let told: Vec<&str> = said.lines().filter(|line| !line.contains("refused")).collect();
    let expected = [
        "sluice: 503 Service Unavailable; trying again until it goes on",
        "sluice: the server says: too many",
        "sluice: the stream ended before it brought anything; trying again until it goes on",
        "sluice: it goes on",
        "sluice: the server says: no ␛broker",
    ];
    assert_eq!((output.status.code(), told.as_slice()), (Some(0), expected.as_slice()), "{said}");
}

#[tokio::test]
async fn raw_has_no_half_block_where_the_stream_was_cut() {
    let address = free_address();
    let first = format!("{STREAM}:ok\n\nid: 1\ndata: 1\n\nid: 2\ndata: 2 and no en");
    let second = format!("{STREAM}:ok\n\nid: 2\ndata: 2\n\n");
    let tail = Tail::start(address, "a", &["--raw", "--count", "2"]);
    let (_, (_, lines)) = tokio::join!(scripted(address, vec![first, second]), tail.ended());
    let expected = [":ok", "", "id: 1", "data: 1", "", ":ok", "", "id: 2", "data: 2", ""];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn ids_are_sent_back_byte_for_byte_and_one_that_no_header_can_hold_changes_nothing() {
    let address = free_address();
    let answer = |block: &[u8]| [STREAM.as_bytes(), b"retry: 100\n", block].concat();
    let long = format!("id: {}\ndata: 3\n\n", "x".repeat(17 << 10));
    let answers = vec![
        answer("id: caf\u{e9}\ndata: 1\n\n".as_bytes()),
        answer(b"id: \x1b[2J\ndata: 2\n\n"),
        answer(long.as_bytes()),
        answer(b"data: 4\n\n"),
    ];
    let tail = Tail::start(address, "a", &["--count", "4"]);
    let (requests, (_, lines)) = tokio::join!(scripted(address, answers), tail.ended());
    assert_eq!(lines, ["1", "2", "3", "4"]);
    let places: Vec<bool> = requests.iter().map(|request| request.contains("last-event-id: caf\u{e9}\r\n")).collect();
    assert_eq!(places, [false, true, true, true], "{requests:#?}");
}

/// EventStreams says nothing of a place before the first event.
#[tokio::test]
async fn who_has_no_place_yet_comes_back_to_the_time_at_which_it_began() {
    let address = free_address();
    let quiet = STREAM.replace("\r\n\r\n", "\r\nDate: Fri, 20 Nov 2026 08:00:00 GMT\r\n\r\n:ok\n\n");
    let tail = Tail::start(address, "a", &["--count", "1"]);
    let answers = vec![quiet.clone(), quiet, format!("{STREAM}data: 1\n\n")];
    let (requests, _) = tokio::join!(scripted(address, answers), tail.ended());
    let asked: Vec<&str> = requests.iter().filter_map(|request| request.lines().next()).collect();
    let since = "get /v2/stream/a?positions=true&since=1795161600000 http/1.1";
    assert_eq!(asked, ["get /v2/stream/a?positions=true http/1.1", since, since]);
}

#[tokio::test]
async fn a_connection_on_which_nothing_comes_is_opened_anew() {
    let address = free_address();
    let listener = TcpListener::bind(address).await.expect("the port is free");
    let mut tail = Tail::start(address, "a", &["--stall", "1s"]);
    let (mut silent, _) = listener.accept().await.expect("a connection");
    head(&mut silent).await;
    silent.write_all(format!("{STREAM}:ok\n\n").as_bytes()).await.expect("it reads");
    let (mut other, _) = timeout(PATIENCE, listener.accept()).await.expect("it comes again").expect("a connection");
    head(&mut other).await;
    other.write_all(format!("{STREAM}data: {{\"number\":7}}\n\n").as_bytes()).await.expect("it reads");
    assert_eq!(tail.number().await, 7);
}

#[tokio::test]
async fn what_is_no_stream_is_said_and_is_the_end() {
    let address = free_address();
    let tail = Tail::start(address, "a", &[]);
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi".to_owned();
    scripted(address, vec![page]).await;
    let (output, lines) = tail.ended().await;
    assert_eq!((output.status.code(), lines.len()), (Some(1), 0));
    assert!(said(&output).contains("no event stream but 'text/html'"), "{}", said(&output));
    let address = free_address();
    let tail = Tail::start(address, "a", &[]);
    let hostile = r#"{"detail":"\u001b[31mno\r\n"}"#;
    let length = hostile.len();
    scripted(address, vec![format!("HTTP/1.1 404 No\r\nContent-Length: {length}\r\n\r\n{hostile}")]).await;
    let (output, _) = tail.ended().await;
    assert!(said(&output).contains("404 Not Found: ␛[31mno␍␊"), "{:?}", said(&output));
    let address = free_address();
    let tail = Tail::start(address, "a", &[]);
    let packed = STREAM.replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n");
    scripted(address, vec![packed]).await;
    let (output, _) = tail.ended().await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("encoded as gzip, which nobody asked for"), "{}", said(&output));
}
