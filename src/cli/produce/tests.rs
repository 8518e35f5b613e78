//! Against a server that answers from a script.

use std::io::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::report::Tally;
use super::*;

/// What is printed.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).expect("UTF-8")
    }
}

/// A whole answer, or none: the connection ends.
type Scripted = Option<(u16, &'static str, Value)>;

const TAKEN: Scripted = Some((201, "", Value::Null));

fn lists(items: &[(usize, &str)]) -> Value {
    let item = |(index, code): &(usize, &str)| json!({ "index": index, "code": code, "context": { "message": "why" } });
    json!({ "invalid": [], "error": items.iter().map(item).collect::<Vec<_>>() })
}

struct Ran {
    tally: Tally,
    /// Of each request the events, `n` of each.
    requests: Vec<Vec<u64>>,
    summary: String,
    complaints: String,
}

/// Feeds the lines to the script's server. `stop_at`: signals bring the stop this far while this request, from 0, is in
/// flight.
async fn run(lines: &str, batch: usize, retries: u32, script: Vec<Scripted>, stop_at: Option<(usize, Stage)>) -> Ran {
    let shutdown = Arc::new(Shutdown::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = Url::parse(&format!("http://{}/v1/events", listener.local_addr().expect("an address"))).expect("a URL");
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (seen, signal, stop) = (requests.clone(), shutdown.clone(), shutdown.watcher());
    let server = tokio::runtime::Handle::current().spawn(async move {
        for (index, answer) in script.into_iter().enumerate() {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let body = request(&mut socket).await;
            seen.lock().push(body);
            if let Some((_, stage)) = stop_at.filter(|(at, _)| *at == index) {
                signal.advance(stage);
            }
            if stop_at == Some((index, Stage::Over)) {
                // The second signal is for a server that does not answer.
                std::future::pending::<()>().await;
            }
            if let Some((status, headers, body)) = answer {
                let body = if body.is_null() { String::new() } else { body.to_string() };
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status} X\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n");
                socket.write_all(format!("{head}{body}").as_bytes()).await.expect("it is read");
            }
        }
    });
    let (out, complaints) = (Page::default(), Page::default());
    let mut report = Report::new(Box::new(out.clone()), Box::new(complaints.clone()), false);
    let patience =
        Patience { retries, back_off: BackOff { first: Duration::from_millis(1), most: Duration::from_millis(2) } };
    let http = fetch::client_builder().no_proxy().redirect(Policy::none()).build().expect("a client");
    let poster = Poster { http, url, dry_run: false, patience };
    let input = Input::of(io::Cursor::new(lines.to_owned()));
    produce(input, &poster, batch, stop, &mut report).await;
    report.summary();
    server.abort();
    let requests = requests.lock().clone();
    Ran { tally: report.tally.clone(), requests, summary: out.text(), complaints: complaints.text() }
}

async fn request(socket: &mut TcpStream) -> Vec<u64> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
            if body.len() == length.parse::<usize>().expect("a number") {
                assert!(head.contains("content-type: application/json"), "{head}");
                let events: Vec<Value> = serde_json::from_str(body).expect("an array");
                return events.iter().map(|event| event["n"].as_u64().expect("a number")).collect();
            }
        }
        assert!(socket.read_buf(&mut bytes).await.expect("bytes") > 0, "the request is cut");
    }
}

fn numbered(count: u64) -> String {
    (1..=count).map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

#[tokio::test]
async fn lines_go_out_in_order_and_in_batches() {
    let ran = run(&numbered(5), 2, 0, vec![TAKEN, TAKEN, TAKEN], None).await;
    assert_eq!(ran.requests, [vec![1, 2], vec![3, 4], vec![5]]);
    assert_eq!(ran.tally, Tally { accepted: 5, ..Tally::default() });
    assert!(ran.tally.is_clean());
    assert!(ran.summary.starts_with("5 events: 5 accepted, 0 refused, 0 retried, in "), "{}", ran.summary);
    assert_eq!((ran.summary.lines().count(), ran.complaints.as_str()), (1, ""));
}

#[tokio::test]
async fn what_the_server_could_not_do_is_sent_again_and_nothing_else() {
    let busy = Some((503, "retry-after: 0\r\n", Value::Null));
    let some = Some((207, "", lists(&[(0, "not-written"), (1, "missing-stream"), (2, "unknown")])));
    let ran = run(&numbered(4), 10, 2, vec![busy.clone(), some, busy, TAKEN], None).await;
    assert_eq!(ran.requests, [vec![1, 2, 3, 4], vec![1, 2, 3, 4], vec![1, 3], vec![1, 3]], "progress renews patience");
    assert_eq!(ran.tally, Tally { accepted: 3, refused: 1, retried: 8, doubled: 1, ..Tally::default() });
    assert!(ran.complaints.contains("sluice: line 2: missing-stream: why\n"), "{}", ran.complaints);
    assert!(ran.summary.contains("1 of the accepted may be in the log twice"), "{}", ran.summary);
    assert!(!ran.tally.is_clean());
}

#[tokio::test]
async fn a_connection_that_ends_without_an_answer_is_tried_again_and_told() {
    let ran = run(&numbered(2), 10, 3, vec![None, TAKEN], None).await;
    assert_eq!(ran.requests, [[1, 2], [1, 2]]);
    assert_eq!(ran.tally, Tally { accepted: 2, retried: 2, doubled: 2, ..Tally::default() });
}

#[tokio::test]
async fn patience_ends_and_what_was_not_sent_is_said() {
    let unknown = Some((503, "", lists(&[(1, "unknown")])));
    let busy = || Some((429, "", Value::Null));
    let ran = run(&numbered(5), 3, 2, vec![unknown, busy(), busy()], None).await;
    assert_eq!(ran.requests, [vec![1, 2, 3], vec![2], vec![2]]);
    let unsent = Tally {
        accepted: 2,
        retried: 2,
        unsent: vec![(2, 2)],
        unknown: 1,
        untried: Some(4),
        cut: true,
        ..Tally::default()
    };
    assert_eq!(ran.tally, unsent);
    assert!(ran.complaints.contains("gave up after 2 retries: 429"), "{}", ran.complaints);
    assert!(ran.summary.contains("not sent: lines 2, from 4 on\n"), "{}", ran.summary);
    assert!(ran.summary.contains("1 of the lines not sent may be in the log"), "{}", ran.summary);
}

#[tokio::test]
async fn a_server_that_is_not_there_gives_up_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = Url::parse(&format!("http://{}/", listener.local_addr().expect("an address"))).expect("a URL");
    drop(listener);
    let patience =
        Patience { retries: 2, back_off: BackOff { first: Duration::from_millis(1), most: Duration::from_millis(1) } };
    let http = fetch::client_builder().no_proxy().build().expect("a client");
    let poster = Poster { http, url, dry_run: false, patience };
    let mut report = Report::new(Box::new(Page::default()), Box::new(Page::default()), false);
    let shutdown = Shutdown::default();
    let input = Input::of(io::Cursor::new(numbered(2)));
    produce(input, &poster, 10, shutdown.watcher(), &mut report).await;
    let unsent = Tally { retried: 4, unsent: vec![(1, 2)], cut: true, ..Tally::default() };
    assert_eq!(report.tally, unsent, "and it is sure that nothing was taken");
}

#[tokio::test]
async fn one_event_that_spoils_a_batch_is_found_by_halves() {
    let spoilt = || {
        Some((
            400,
            "",
            json!({ "invalid": [], "error": [{ "code": "malformed-json", "context": { "message": "deep" } }] }),
        ))
    };
    let script = vec![spoilt(), TAKEN, spoilt(), spoilt(), TAKEN];
    let ran = run(&numbered(4), 10, 0, script, None).await;
    assert_eq!(ran.requests, [vec![1, 2, 3, 4], vec![1, 2], vec![3, 4], vec![3], vec![4]]);
    assert_eq!(ran.tally, Tally { accepted: 3, refused: 1, ..Tally::default() });
    assert_eq!(ran.complaints, "sluice: line 3: malformed-json: deep\n");
}

#[tokio::test]
async fn lines_that_are_no_events_are_refused_here() {
    let ran = run("{\"n\":1}\n\nnope\n[]\n{\"n\":2}", 10, 0, vec![TAKEN], None).await;
    assert_eq!(ran.requests, [[1, 2]]);
    assert_eq!(ran.tally, Tally { accepted: 2, refused: 2, ..Tally::default() });
    let starts = ["sluice: line 3: malformed-json: the line is not JSON", "sluice: line 4: not-an-object: "];
    let said = ran.complaints.lines().zip(starts).all(|(line, start)| line.starts_with(start));
    assert!(said && ran.complaints.lines().count() == 2, "{}", ran.complaints);
}

#[tokio::test]
async fn a_server_that_does_not_let_us_post_is_asked_once() {
    let closed = Some((403, "", json!({ "title": "Forbidden", "detail": "posting is closed here" })));
    let ran = run(&numbered(3), 2, 5, vec![closed], None).await;
    assert_eq!(ran.requests, [[1, 2]]);
    let unsent = Tally { unsent: vec![(1, 2)], untried: Some(3), cut: true, ..Tally::default() };
    assert_eq!(ran.tally, unsent);
    assert_eq!(ran.complaints, "sluice: posting is closed here (403)\n");
}

#[tokio::test]
async fn a_signal_lets_the_request_in_flight_finish_and_sends_no_more() {
    let ran = run(&numbered(3), 2, 5, vec![TAKEN], Some((0, Stage::EndStreams))).await;
    assert_eq!(ran.tally, Tally { accepted: 2, untried: Some(3), ..Tally::default() });
    assert!(!ran.tally.is_clean() && ran.summary.contains("not sent: lines from 3 on\n"), "{}", ran.summary);
    let ran = run(&numbered(2), 2, 5, vec![Some((503, "", Value::Null))], Some((0, Stage::EndStreams))).await;
    assert_eq!(ran.tally, Tally { unsent: vec![(1, 2)], cut: true, ..Tally::default() }, "nothing is tried again");
    let ran = run(&numbered(2), 2, 5, vec![TAKEN], Some((0, Stage::EndStreams))).await;
    assert!(ran.tally.is_clean(), "all that was read is sent");
}

#[tokio::test]
async fn a_second_signal_cuts_the_request_in_flight_and_says_what_is_not_known() {
    let ran = run(&numbered(3), 2, 5, vec![TAKEN], Some((0, Stage::Over))).await;
    let unsent = Tally { unsent: vec![(1, 2)], unknown: 2, untried: Some(3), cut: true, ..Tally::default() };
    assert_eq!(ran.tally, unsent);
    assert!(ran.summary.contains("2 of the lines not sent may be in the log all the same"), "{}", ran.summary);
}

#[tokio::test(start_paused = true)]
async fn a_partial_batch_is_sent_when_stdin_pauses() {
    let (source, mut pipe) = io::pipe().expect("a pipe");
    let mut input = Input::of(source);
    let mut report = Report::new(Box::new(Page::default()), Box::new(Page::default()), false);
    let shutdown = Shutdown::default();
    let mut stop = shutdown.watcher();
    for n in 1..=2 {
        pipe.write_all(format!("{{\"n\":{n}}}\n{{\"n\":").as_bytes()).expect("it is read");
        let batch = input.batch(100, &mut stop, &mut report).await;
        assert_eq!(batch.len(), 1, "the pipe is open, and half a line waits in it");
        pipe.write_all(b"0}\n").expect("it is read");
        assert_eq!(input.batch(1, &mut stop, &mut report).await.len(), 1);
    }
    shutdown.advance(Stage::EndStreams);
    assert_eq!(input.batch(100, &mut stop, &mut report).await, [], "and a signal is heard while nothing comes");
}

#[tokio::test]
async fn batches_are_bounded_by_bytes_and_a_large_event_goes_alone() {
    let event = |bytes: usize| format!("{{\"n\":\"{}\"}}\n", "x".repeat(bytes));
    let text = [400_000, 400_000, 400_000, 3_000_000, 10].map(event).concat();
    let mut input = Input::of(io::Cursor::new(text));
    let mut report = Report::new(Box::new(Page::default()), Box::new(Page::default()), false);
    let shutdown = Shutdown::default();
    let mut lines = Vec::new();
    loop {
        let batch = input.batch(100, &mut shutdown.watcher(), &mut report).await;
        if batch.is_empty() {
            break;
        }
        lines.push(batch.iter().map(|event| event.line).collect::<Vec<_>>());
    }
    assert_eq!(lines, [vec![1, 2], vec![3], vec![4], vec![5]]);
}

#[test]
fn waits_double_within_bounds_and_never_undercut_the_server() {
    let patience = Patience {
        retries: 10,
        back_off: BackOff { first: Duration::from_millis(250), most: Duration::from_secs(30) },
    };
    for (retry, full_ms) in [(0, 250), (1, 500), (4, 4_000), (7, 30_000), (4_000_000_000, 30_000)] {
        let wait = patience.back_off.wait(retry, None);
        assert!(
            wait >= Duration::from_millis(full_ms / 2) && wait <= Duration::from_millis(full_ms),
            "{retry}: {wait:?}"
        );
    }
    let asked = |seconds| patience.back_off.wait(0, Some(Duration::from_secs(seconds))).as_secs();
    assert_eq!((asked(7), asked(1_000_000)), (7, 300));
}

#[derive(Debug, clap::Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

fn url_of(flags: &[&str]) -> Result<String, String> {
    let command =
        <Command as clap::Parser>::try_parse_from([&["produce"], flags].concat()).map_err(|e| e.to_string())?;
    address(&command.args).map(|url| url.to_string()).map_err(|e| e.to_string())
}

#[test]
fn the_address_may_be_a_base_or_whole() {
    for (flags, expected) in [
        (&[][..], "http://127.0.0.1:8888/v1/events"),
        (&["--url", "https://x.org/"], "https://x.org/v1/events"),
        (&["--url", "https://x.org/v1/events/"], "https://x.org/v1/events"),
        (&["--url", "http://x.org:1/intake?a=1#b", "--hasty"], "http://x.org:1/intake/v1/events?a=1&hasty=true"),
        (
            &["--stream", "test.event", "--schema-uri", "/a/1.0.0", "--dry-run"],
            "http://127.0.0.1:8888/v1/events?stream=test.event&schema_uri=%2Fa%2F1.0.0&dry_run=true",
        ),
    ] {
        assert_eq!(url_of(flags).as_deref(), Ok(expected));
    }
    for flags in [
        &["--url", "localhost:8888"][..],
        &["--url", "ftp://x.org"],
        &["--url", "http://"],
        &["--url", ""],
        &["--batch", "0"],
        &["--batch", "10001"],
        &["--hasty", "--dry-run"],
    ] {
        assert!(url_of(flags).is_err(), "{flags:?}");
    }
    let refused = url_of(&["--url", "http://me:hush@x.org"]).expect_err("a password");
    assert!(refused.contains("--token-file") && !refused.contains("hush"), "{refused}");
}

#[test]
fn a_token_is_one_word_and_does_not_show() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    for (text, legal) in
        [("abc.DEF-1_~+/=\n", true), ("", false), ("\n", false), ("a b", false), ("a\nb", false), ("ü", false)]
    {
        std::fs::write(&path, text).expect("a file");
        let token = token(Some(&path));
        assert_eq!(token.is_ok(), legal, "{text:?}");
        assert!(!format!("{token:?}").contains("abc"), "{token:?}");
    }
    let of = |length| remote::bearer(&"x".repeat(length));
    assert!(of(TOKEN_BYTES_MAX).is_some() && of(TOKEN_BYTES_MAX + 1).is_none());
    let missing = token(Some(Path::new("/nonexistent/token"))).expect_err("no file").to_string();
    assert!(missing.starts_with("--token-file /nonexistent/token: it cannot be read"), "{missing}");
}
