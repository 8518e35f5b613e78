//! `sluice produce` against a server: what it posts, what it says, how it ends.

use std::fs;
use std::net::SocketAddr;
use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::server::{Options, Server, free_address, sluice};
use crate::support::{PATIENCE, eventually};

fn event(number: u64) -> String {
    json!({ "$schema": "/test/event/1.0.0", "meta": { "stream": "test.event" }, "test": "x", "number": number })
        .to_string()
}

fn start(address: SocketAddr, flags: &[&str], token: &str) -> Child {
    let mut command = Command::from(sluice());
    command.arg("produce").args(["--url", &format!("http://{address}")]).args(flags);
    command.env("SLUICE_TOKEN", token).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs")
}

async fn ended(child: Child) -> Output {
    timeout(PATIENCE, child.wait_with_output()).await.expect("it ends by itself").expect("it ran")
}

async fn produce(address: SocketAddr, flags: &[&str], token: &str, lines: &str) -> Output {
    let mut child = start(address, flags, token);
    // It may end before it has read everything.
    let _ = child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).await;
    ended(child).await
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn lines_stand_in_the_log_in_their_order_and_as_they_were_written() {
    let server = Server::start(Options::default()).await;
    let lines: String = (0..250).map(|number| event(number) + "\n").collect();
    let output = produce(server.address, &[], "", &lines).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("250 events: 250 accepted, 0 refused, 0 retried, in "), "{}", stdout(&output));
    let mut stream = server.stream("/v2/stream/test.event?since=0", "").await;
    for number in 0..250 {
        assert_eq!(stream.event().await.json()["number"], number);
    }
}

#[tokio::test]
async fn refused_lines_are_named_with_their_number_and_the_others_are_taken() {
    let server = Server::start(Options::default()).await;
    let unknown = event(1).replace("test.event", "no.such");
    let lines = format!("{}\n\nno JSON\n{unknown}\n{}\n", event(0), event(2));
    let output = produce(server.address, &[], "", &lines).await;
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("sluice: line 3: malformed-json: ") && said.contains("sluice: line 4: "), "{said}");
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(stdout(&output).starts_with("4 events: 2 accepted, 2 refused"), "{}", stdout(&output));
}

#[tokio::test]
async fn events_go_out_while_stdin_stays_open_and_a_signal_ends_it() {
    let server = Server::start(Options::default()).await;
    let mut stream = server.stream("/v2/stream/test.event", "").await;
    let mut child = start(server.address, &[], "");
    let mut stdin = child.stdin.take().expect("a pipe");
    for number in 0..2 {
        stdin.write_all(format!("{}\n", event(number)).as_bytes()).await.expect("it reads");
        assert_eq!(stream.event().await.json()["number"], number);
    }
    let pid = Pid::from_raw(child.id().expect("it runs").try_into().expect("a pid")).expect("a pid");
    kill_process(pid, Signal::INT).expect("it runs");
    let output = ended(child).await;
    assert_eq!(output.status.code(), Some(0), "all that was read is sent: {}", stderr(&output));
    assert!(stdout(&output).starts_with("2 events: 2 accepted"), "{}", stdout(&output));
    drop(stdin);
}

#[tokio::test]
async fn a_server_that_comes_late_gets_everything() {
    let address = free_address();
    let mut child = start(address, &["--retries", "1000"], "");
    child.stdin.take().expect("a pipe").write_all(event(7).as_bytes()).await.expect("it reads");
    let mut complaints = child.stderr.take().expect("a pipe");
    let mut first = [0; 64];
    assert!(complaints.read(&mut first).await.expect("a complaint") > 0, "nobody listens yet");
    let server = Server::start(Options::default().listen(&address.to_string())).await;
    let output = ended(child).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).starts_with("1 events: 1 accepted"), "{}", stdout(&output));
    let event = server.stream("/v2/stream/test.event?since=0", "").await.event().await;
    assert_eq!(event.json()["number"], 7);
}

#[tokio::test]
async fn nobody_there_and_no_patience_is_exit_1_and_says_what_was_not_sent() {
    let lines: String = (0..3).map(|number| event(number) + "\n").collect();
    let output = produce(free_address(), &["--retries", "0"], "", &lines).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("gave up after 0 retries: no-answer: "), "{}", stderr(&output));
    assert!(stdout(&output).contains("not sent: lines 1-3\n"), "{}", stdout(&output));
}

#[tokio::test]
async fn wrong_usage_is_exit_2() {
    for flags in
        [&["--batch", "0"][..], &["--url", "nowhere"], &["--token-file", "/nonexistent"], &["--hasty", "--dry-run"]]
    {
        let mut command = Command::from(sluice());
        let output = command.arg("produce").args(flags).stdin(Stdio::null()).kill_on_drop(true).output();
        let output = timeout(PATIENCE, output).await.expect("it ends by itself").expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", stderr(&output));
    }
}

#[tokio::test]
async fn key_files_that_cannot_be_used_are_exit_2_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, key) = (folder.path().join("sluice.toml"), folder.path().join("key.pem"));
    fs::write(&key, "hush").expect("a file");
    let text = format!("[intake]\nauth = 'jwt'\n[intake.jwt]\nalgorithms = ['RS256']\nkey_file = '{}'", key.display());
    fs::write(&file, text).expect("a file");
    let path = file.to_str().expect("UTF-8");
    for arguments in [&["config", "check", path][..], &["--listen", "127.0.0.1:0", "--config", path]] {
        let mut command = Command::from(sluice());
        let output = command.args(arguments).kill_on_drop(true).output();
        let output = timeout(PATIENCE, output).await.expect("it ends by itself").expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = stderr(&output);
        assert!(
            said.contains("key.pem cannot be used: it is no public key in PEM") && !said.contains("hush"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn off_loopback_the_start_warns_that_posting_is_closed() {
    // All of this machine's addresses: nobody else needs to come by.
    let server = Server::start(Options::default().listen("0.0.0.0:0").unready()).await;
    let warned = eventually(PATIENCE, async || server.stderr().contains("posting is closed")).await;
    assert!(warned, "{}", server.stderr());
    let log = server.stderr();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN") && line.contains("posting")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("set it to tokens or jwt"), "{log}");
}
