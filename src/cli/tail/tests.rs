//! What no server is needed for.

use std::sync::Arc;

use clap::Parser;
use parking_lot::Mutex;

use super::sink::{Full, Look, Sink};
use super::*;

const CAPTURED: &str = include_str!("../../../tests/data/recentchange_2025-08-29_raw.sse");
const PAGE_CHANGE: &str = r#"{"$schema":"/mediawiki/page/change/1.2.0","meta":{"stream":"mediawiki.page_change.v1","dt":"2026-11-20T08:01:02.345Z"},
    "wiki_id":"cswiki","page_change_kind":"edit","page":{"page_title":"Brno"},"performer":{"user_text":"Ada"},"comment":"typo"}"#;
const PAGE_CREATE: &str = r#"{"meta":{"stream":"mediawiki.page-create","dt":"2026-11-20T23:59:59Z"},"database":"enwiki",
    "page_title":"Q","performer":{"user_text":"B"},"comment":""}"#;
const TEST_EVENT: &str =
    r#"{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event","dt":"2026-11-20T08:01:02Z"},"test":"x","n":1}"#;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

fn args(flags: &[&str]) -> Args {
    Command::try_parse_from([&["tail"], flags].concat()).expect("good flags").args
}

fn asked(flags: &[&str]) -> String {
    address(&args(flags), Timestamp(1_795_252_134_405)).map_or_else(|e| e.to_string(), |url| url.to_string())
}

#[test]
fn the_address_is_made_of_what_people_write() {
    let default = "http://127.0.0.1:8888/v2/stream/recentchange?positions=true";
    assert_eq!(asked(&["recentchange"]), default);
    assert_eq!(asked(&["http://127.0.0.1:8888/", "recentchange"]), default);
    assert_eq!(asked(&["http://127.0.0.1:8888/v2/stream/recentchange/"]), default);
    assert_eq!(asked(&["http://127.0.0.1:8888/v2/stream", "recentchange"]), default);
    assert_eq!(asked(&["http://127.0.0.1:8888/v2/stream/", "recentchange"]), default);
    let several = "https://x.org/base/v2/stream/a,b,c%20d?positions=true&canary=true";
    assert_eq!(asked(&["https://x.org/base", "a,b", "c d", "--canary"]), several);
    let own = ["http://x.org/v2/stream/a?since=1&x=y&positions=no", "--since", "2"];
    assert_eq!(
        asked(&own),
        "http://x.org/v2/stream/a?x=y&positions=true&since=2",
        "a flag counts more than the address"
    );
    assert_eq!(asked(&["localhost:8888", "a"]), "http://localhost:8888/v2/stream/a?positions=true");
    assert!(asked(&["https://x.org"]).contains("no stream is named"));
    assert!(asked(&["ftp://x.org", "a"]).contains("ftp://x.org: it is no http"));
    assert!(asked(&["http://me:secret@x.org", "a"]).contains("password"));
    assert!(Command::try_parse_from(["tail"]).is_err());
    assert!(Command::try_parse_from(["tail", "a", "--count", "0"]).is_err());
    assert!(Command::try_parse_from(["tail", "a", "--stall", "soon"]).is_err());
}

#[test]
fn a_time_may_be_so_long_ago() {
    let since = |text| asked(&["a", "--since", text]).rsplit("since=").next().unwrap_or_default().to_owned();
    assert_eq!(since("10m"), "1795251534405");
    assert_eq!(since("1d"), "1795165734405");
    assert_eq!(since("99999d"), "0");
    assert_eq!(since("2026-11-20T08:00:00+01:00"), "2026-11-20T08%3A00%3A00%2B01%3A00");
    assert_eq!(since("1795251534405"), "1795251534405");
    assert_eq!(since("0"), "0");
}

#[test]
fn what_no_header_can_hold_is_wrong_usage() {
    assert!(matches!(follower(&args(&["a", "--last-event-id", "x\ny"])), Err(UsageError::Id)));
    assert!(matches!(follower(&args(&["a", "--user-agent", "x\ny"])), Err(UsageError::UserAgent)));
    assert!(follower(&args(&["a", "--last-event-id", "[]", "--user-agent", "me"])).is_ok());
}

#[test]
fn an_event_is_a_line_of_what_it_has() {
    let captured = CAPTURED.lines().find_map(|line| line.strip_prefix("data: ")).expect("an event");
    let table = [
        (
            captured,
            "06:45:17 mgwiktionary categorize Sokajy:espaniola Ikotobaity Nampiana tamin'ny sokajy [[:erradiquémosles]]",
        ),
        (PAGE_CHANGE, "08:01:02 cswiki edit Brno Ada typo"),
        (PAGE_CREATE, "23:59:59 enwiki page-create Q B"),
        (TEST_EVENT, r#"08:01:02 test.event {"test":"x","n":1}"#),
        (r#"{"title":5,"meta":[]}"#, r#"--:--:-- {"title":5}"#),
        ("[1]", "--:--:-- [1]"),
        ("no json", "no json"),
        (r#"{"meta":{"dt":"a while ago, or even longer"},"title":"T"}"#, "a while ago, or even T"),
    ];
    for (data, expected) in table {
        assert_eq!(line::of(data.as_bytes(), 200, false), expected);
    }
}

#[test]
fn a_line_is_as_wide_as_the_terminal_at_most() {
    assert_eq!(line::of(PAGE_CHANGE.as_bytes(), 24, false), "08:01:02 cswiki edit Br…");
    let wide = r#"{"title":"編集編集編集","meta":{"dt":"2026-11-20T08:01:02Z"}}"#;
    assert_eq!(line::of(wide.as_bytes(), 20, false), "08:01:02 編集編集編…");
    assert_eq!(line::of(wide.as_bytes(), 21, false), "08:01:02 編集編集編集");
    let zalgo = format!(r#"{{"title":"a{}"}}"#, "\u{301}".repeat(100_000));
    assert!(line::of(zalgo.as_bytes(), 80, false).len() < 1_000);
}

#[test]
fn colours_are_ours_alone() {
    let line = line::of(PAGE_CREATE.as_bytes(), 100, true);
    assert!(line.starts_with("\u{1b}[2m23:59:59\u{1b}[0m \u{1b}[36menwiki\u{1b}[0m "), "{line:?}");
    let hostile = r#"{"title":"\u001b[31mred\u009b2J\r\n\u202egnp","wiki":"\u0007"}"#;
    assert_eq!(line::of(hostile.as_bytes(), 100, false), "--:--:-- ␇ ␛[31mred\u{fffd}2J␍␊\u{fffd}gnp");
    assert_eq!(line::printable("a\u{7f}\t"), "a␡␉");
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn block(wire: &str) -> sse::Block {
    sse::Parser::new(true).next(&mut wire.as_bytes()).expect("a block")
}

async fn shown(look: Look, wire: &[&str]) -> String {
    let kept = Kept::default();
    let mut sink = Sink::new(Box::new(kept.clone()), look, None);
    wire.iter().for_each(|wire| sink.block(&block(wire)).expect("room"));
    assert_eq!(*kept.0.lock(), b"", "nothing goes out by itself");
    sink.flush().await.expect("room");
    let text = kept.0.lock().clone();
    String::from_utf8(text).expect("UTF-8")
}

#[tokio::test]
async fn a_pipe_gets_documents_a_terminal_lines_and_who_wants_it_the_wire() {
    let wire = [":\u{9b}ok\n", "\n", "id: 1\n\n", "id: 2\ndata: {\"a\":\ndata: 1}\n\n"];
    assert_eq!(shown(Look::of(false, false, true), &wire).await, "{\"a\": 1}\n");
    assert_eq!(shown(Look::of(false, true, false), &wire).await, "--:--:-- {\"a\":1}\n");
    assert_eq!(shown(Look::of(true, false, true), &wire).await, wire.concat());
    let shown = shown(Look::of(true, true, true), &wire).await;
    assert_eq!(shown, wire.concat().replace('\u{9b}', "\u{fffd}"), "no escape sequence reaches a terminal");
}

#[tokio::test]
async fn an_error_of_the_stream_is_no_event() {
    let error = "event: error\ndata: {\"message\":\"no broker\"}\n\n";
    let kept = Kept::default();
    let mut sink = Sink::new(Box::new(kept.clone()), Look::Json, Some(1));
    assert_eq!(sink.block(&block(error)), Ok(()), "it does not count");
    assert_eq!(sink.block(&block("data: 1\n\n")), Err(Full::Enough));
    sink.flush().await.expect("room");
    assert_eq!(*kept.0.lock(), b"1\n");
    assert_eq!(shown(Look::of(true, false, false), &[error]).await, error, "and is on the wire");
}

/// Fails in this way at every write.
struct Shut(io::ErrorKind);

impl io::Write for Shut {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn enough_is_enough_and_who_does_not_read_is_told_from_a_disk_that_is_full() {
    let event = block("data: 1\n\n");
    let kept = Kept::default();
    let mut sink = Sink::new(Box::new(kept.clone()), Look::Json, Some(2));
    assert_eq!((sink.block(&event), sink.block(&event)), (Ok(()), Err(Full::Enough)));
    sink.flush().await.expect("room");
    assert_eq!(*kept.0.lock(), b"1\n1\n");
    let full = async |kind| {
        let mut sink = Sink::new(Box::new(Shut(kind)), Look::Json, None);
        sink.block(&event).expect("room");
        sink.flush().await
    };
    assert_eq!(full(io::ErrorKind::BrokenPipe).await, Err(Full::NobodyReads));
    assert!(
        matches!(full(io::ErrorKind::StorageFull).await, Err(Full::Failed(why)) if why.contains("cannot be written"))
    );
}

#[test]
fn colour_is_for_terminals_that_have_it_where_nobody_minds() {
    let colour = |term: Option<&str>, off: Option<&str>| {
        has_colour(|name| if name == "TERM" { term } else { off }.map(OsString::from))
    };
    assert!(colour(Some("xterm"), None) && colour(Some("xterm"), Some("")));
    assert!(!colour(Some("xterm"), Some("1")) && !colour(Some("dumb"), None) && !colour(None, None));
}

#[test]
fn an_id_is_told_as_one_word_of_a_shell() {
    assert_eq!(quoted(r#"[{"topic":"t"}]"#), r#"'[{"topic":"t"}]'"#);
    assert_eq!(quoted("a'b\u{1b}"), r"'a'\''b␛'");
}

/// Nobody listens there.
async fn nowhere() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

#[tokio::test(start_paused = true)]
async fn attempts_become_rare_and_do_not_end() {
    let address = nowhere().await;
    let mut follower = follower(&args(&[&address, "a", "--stall", "0"])).expect("good flags");
    let mut sink = Sink::new(Box::new(Kept::default()), Look::Json, None);
    let hour = Duration::from_secs(3_600);
    assert!(tokio::time::timeout(hour, follower.follow(&mut sink)).await.is_err(), "it does not give up");
    // Waits of 1, 2, … 32 s, and then of 60 s each, or of half of that.
    let attempts = follower.attempts_in_vain();
    assert!((60..=130).contains(&attempts), "{attempts}");
}
