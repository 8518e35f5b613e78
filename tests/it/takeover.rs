//! One process takes over from another, and no client notices more than an answer that closes, or a stream that ends.

use std::collections::BTreeMap;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::engine::{Engine, event_at, on_both_engines};
use crate::flow::{Balancer, Flow};
use crate::raw::Raw;
use crate::server::{Options, Server};
use crate::support::{PATIENCE, eventually};

/// One after the other.
const HANDOVERS: usize = 5;
const POSTS_PER_SECOND: usize = 300;
const READERS: usize = 20;
/// Between two handovers.
const EVENTS_BETWEEN: usize = 150;
/// A producer may have to wait for the log to be given back, and a busy machine for all of it.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

async fn handovers_under_load_refuse_and_reset_nobody_and_lose_nothing(engine: Engine) {
    let options = Options::default().hands_over();
    let (mut server, _topics) = engine.serve(options).await;
    let flow = Flow::new(Balancer::to(server.address), &["eqiad".to_owned(), "codfw".to_owned()]);
    let clients = flow.start(POSTS_PER_SECOND, READERS).await;
    for _ in 0..HANDOVERS {
        flow.until_accepted(EVENTS_BETWEEN).await;
        let mut before = server.hand_over().await;
        assert_eq!(before.ended().await.code(), Some(0), "{}", server.stderr());
    }
    flow.until_accepted(EVENTS_BETWEEN).await;
    let summary = flow.finish(clients).await;
    println!("{HANDOVERS} handovers on {engine:?}: {summary:?}");
    assert_eq!(summary.complaints, BTreeMap::new(), "{}", server.stderr());
    assert!(summary.slowest < ANSWERED_WITHIN, "{summary:?}");
    assert!(summary.resumed >= HANDOVERS * READERS, "every reader moved every time: {summary:?}");
}

on_both_engines!(handovers_under_load_refuse_and_reset_nobody_and_lose_nothing);

#[tokio::test]
async fn the_last_of_them_closes_the_port_and_is_as_polite_as_the_first() {
    let mut server = Server::start(Options::default().hands_over()).await;
    assert!(server.hand_over().await.ended().await.success());
    let mut post = server.connect().await;
    let body = event_at("test.event", 0, 0).to_string();
    let head = "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length:";
    post.send(format!("{head} {}\r\n\r\n{}", body.len(), &body[..10])).await;
    server.signal(Signal::TERM);
    let closed = eventually(PATIENCE, async || TcpStream::connect(server.address).await.is_err()).await;
    assert!(closed, "{}", server.stderr());
    post.send(&body[10..]).await;
    assert_eq!(post.answer().await.status(), 201);
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn the_operators_listeners_are_handed_over_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("admin.sock");
    let options = Options::default().hands_over().env("SLUICE__ADMIN__SOCKET", socket.to_str().expect("a path"));
    let mut server = Server::start(options).await;
    let admin = server.admin;
    let mut before = server.hand_over().await;
    assert_eq!(server.admin, admin, "the same port");
    assert!(before.ended().await.success());
    assert_eq!(Raw::connect(admin).await.get("/readyz", "").await.status(), 200);
    let mut over = UnixStream::connect(&socket).expect("it is still there");
    over.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("a server");
    let mut answer = String::new();
    over.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(server.stop().await.success());
    assert!(!socket.exists(), "the last one removes it");
}

#[tokio::test]
async fn a_successor_that_fails_leaves_the_server_as_it_was() {
    let mut server = Server::start(Options::default().hands_over()).await;
    let mut reader = server.stream("/v2/stream/test.event", "").await;
    let mut failing = server.command();
    // Found wrong after the sockets were passed.
    failing.args(["--streams", "/nowhere/streams.yaml"]);
    let output = tokio::process::Command::from(failing).kill_on_drop(true).status();
    let status = tokio::time::timeout(PATIENCE, output).await.expect("it ends").expect("it runs");
    assert!(matches!(status.code(), Some(1 | 2)), "{status:?}");
    let told = eventually(PATIENCE, async || server.stderr().contains("a successor has not taken over")).await;
    assert!(told, "{}", server.stderr());
    server.put(&event_at("test.event", 3, 0)).await;
    assert_eq!(reader.event().await.json()["number"], 3, "nothing has ended");
    assert!(server.hand_over().await.ended().await.success(), "the next one may");
    assert_eq!(server.get("/readyz").await.status(), 200);
}

#[tokio::test]
async fn readers_move_with_their_place_and_see_what_the_one_before_still_took() {
    let mut server = Server::start(Options::default().hands_over()).await;
    server.put(&event_at("test.event", 0, 0)).await;
    // Its body is half there when the other one takes over: the log is not given back before it is in.
    let body = event_at("test.event", 1, 1).to_string();
    let mut slow = server.connect().await;
    let head = "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length:";
    slow.send(format!("{head} {}\r\n\r\n{}", body.len(), &body[..10])).await;
    let mut before = server.hand_over().await;
    let mut reader = server.stream("/v2/stream/test.event?since=0", "").await;
    assert_eq!(reader.event().await.json()["number"], 0, "the log is read before it is given back");
    slow.send(&body[10..]).await;
    assert_eq!(slow.answer().await.status(), 201);
    assert_eq!(reader.event().await.json()["number"], 1, "what the one before appends is seen");
    server.put(&event_at("test.event", 2, 2)).await;
    let last = reader.event().await;
    assert_eq!(last.json()["number"], 2);
    assert_eq!(last.json()["meta"]["offset"], 2, "no offset is taken twice");
    assert!(before.ended().await.success());
}

#[tokio::test]
async fn who_is_offered_nothing_does_not_wait_for_the_folder() {
    let server = Server::start(Options::default().hands_over()).await;
    let mut second = crate::server::sluice();
    second.args(["--listen", "127.0.0.1:0", "--admin", "off", "--data"]).arg(server.data());
    second.env("SLUICE__STOP__HANDOVER_SOCKET", server.data().join("of-nobody.sock"));
    let output = tokio::process::Command::from(second).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output).await.expect("it ends").expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is in use by another sluice"), "{said}");
    assert_eq!(server.get("/readyz").await.status(), 200);
}

/// A connection to the handover socket that has been given the sockets; they wait in it for ever.
async fn prepares(server: &Server) -> UnixStream {
    let mut successor = UnixStream::connect(server.data().with_file_name("handover.sock")).expect("it listens");
    successor.write_all(b"sluice-handover 1 take\n").expect("it reads");
    let prepares = eventually(PATIENCE, async || server.stderr().contains("a successor prepares to take over")).await;
    assert!(prepares, "{}", server.stderr());
    successor
}

#[tokio::test]
async fn a_go_is_not_acted_on_when_its_sender_has_ended_by_then() {
    let mut server = Server::start(Options::default().hands_over()).await;
    let mut successor = prepares(&server).await;
    server.signal(Signal::STOP);
    successor.write_all(b"go public\n").expect("it is buffered");
    drop(successor);
    server.signal(Signal::CONT);
    let told = eventually(PATIENCE, async || server.stderr().contains("a successor has not taken over")).await;
    assert!(told, "{}", server.stderr());
    server.put(&event_at("test.event", 0, 0)).await;
    assert!(server.hand_over().await.ended().await.success(), "the next one may");
}

#[tokio::test]
async fn a_predecessor_that_is_slow_to_go_does_not_end_its_successor_which_offers_once_it_can() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("handover.sock");
    let before = UnixListener::bind(&path).expect("a socket");
    let public = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = public.local_addr().expect("an address");
    let mut command = crate::server::sluice();
    command.args(["--listen", &address.to_string(), "--admin", "off", "--data"]).arg(folder.path().join("data"));
    command.env("SLUICE__STOP__HANDOVER_SOCKET", &path).stdout(Stdio::null()).stderr(Stdio::null());
    let mut successor = tokio::process::Command::from(command).kill_on_drop(true).spawn().expect("it runs");
    let goes = tokio::task::spawn_blocking(move || {
        let (mut stream, _) = before.accept().expect("a successor");
        let mut hello = [0; 23];
        stream.read_exact(&mut hello).expect("a hello");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let passed = [public.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
        let line = [IoSlice::new(b"sluice-handover 1 public\n")];
        rustix::net::sendmsg(&stream, &line, &mut control, SendFlags::empty()).expect("it is sent");
        let mut go = [0; 10];
        stream.read_exact(&mut go).expect("it serves");
        assert_eq!(&go, b"go public\n");
        (stream, before)
    });
    let (stream, before) = goes.await.expect("it was told to go");
    // It says nothing, and listens on: what it offers is asked for once more, to see whether it still does.
    let (before, _) =
        tokio::task::spawn_blocking(move || (before.accept().expect("a look"), before)).await.expect("it looks");
    assert_eq!(Raw::connect(address).await.get("/healthz", "").await.status(), 200);
    drop((stream, before));
    let offers = eventually(PATIENCE, async || UnixStream::connect(&path).is_ok()).await;
    assert!(offers && successor.try_wait().expect("a child").is_none());
}

#[tokio::test]
async fn a_listener_that_a_successor_has_and_does_not_serve_yet_is_not_closed() {
    let mut server = Server::start(Options::default().hands_over()).await;
    let successor = prepares(&server).await;
    assert!(server.stop().await.success());
    assert!(TcpStream::connect(server.address).await.is_ok(), "who comes waits for it");
    drop(successor);
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_listener_that_a_successor_had_and_gave_up_is_closed() {
    let mut server = Server::start(Options::default().hands_over()).await;
    let successor = prepares(&server).await;
    successor.shutdown(std::net::Shutdown::Write).expect("a socket");
    let told = eventually(PATIENCE, async || server.stderr().contains("a successor has not taken over")).await;
    assert!(told, "{}", server.stderr());
    assert!(server.stop().await.success());
    // It still has it.
    assert!(TcpStream::connect(server.address).await.is_err());
    drop(successor);
}

/// The waits that are there for balancers are not for who hands over; and readers may take their time.
#[tokio::test]
async fn the_log_is_given_back_at_once_while_readers_still_leave() {
    let options = Options::default().hands_over().env("SLUICE__STOP__DEADLINE", "1200s");
    let options = options.env("SLUICE__STOP__DRAIN_DELAY", "600s").env("SLUICE__STOP__DRAIN_SPREAD", "600s");
    let mut server = Server::start(options).await;
    let mut readers = Vec::new();
    for _ in 0..10 {
        readers.push(server.stream("/v2/stream/test.event", "").await);
    }
    let mut before = server.hand_over().await;
    server.put(&event_at("test.event", 0, 0)).await;
    assert!(before.runs(), "{}", server.stderr());
}

#[tokio::test]
async fn while_the_one_before_ends_operators_reach_the_new_one_alone() {
    let options = Options::default().hands_over().env("SLUICE__STOP__DEADLINE", "1200s");
    let mut server = Server::start(options.env("SLUICE__STOP__DRAIN_SPREAD", "600s")).await;
    let mut readers = Vec::new();
    for _ in 0..10 {
        readers.push(server.stream("/v2/stream/test.event", "").await);
    }
    let mut before = server.hand_over().await;
    // The log has been given back: the one before has no more to do than to wait for its readers.
    server.put(&event_at("test.event", 0, 0)).await;
    for _ in 0..100 {
        let answer = server.ask_admin("GET", "/readyz", "").await;
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
    assert!(before.runs(), "{}", server.stderr());
}

/// What is at the other end may be anything of the same user.
#[tokio::test]
async fn nonsense_at_the_handover_socket_costs_the_server_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("handover.sock");
    let options = Options::default().env("SLUICE__STOP__HANDOVER_SOCKET", path.to_str().expect("a path"));
    let server = Server::start(options).await;
    for says in ["", "\n", "sluice-handover 2 take\n", "sluice-handover 1 take\nno\n", &"x".repeat(100_000)] {
        let mut other = UnixStream::connect(&path).expect("it listens");
        // It may hang up before it has read all of this.
        let _ = other.write_all(says.as_bytes());
    }
    let mut newer = UnixStream::connect(&path).expect("it listens");
    newer.write_all(b"sluice-handover 2 take\n").expect("it listens");
    let mut answer = String::new();
    newer.read_to_string(&mut answer).expect("it hangs up");
    assert_eq!(answer, "this server speaks sluice-handover 1\n");
    let counted = || server.stderr().matches("a successor has not taken over").count();
    assert!(eventually(PATIENCE, async || counted() == 6).await, "{}", server.stderr());
    assert_eq!(server.get("/readyz").await.status(), 200);
}

#[tokio::test]
async fn a_start_beside_something_that_does_not_hand_over_says_so_and_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("handover.sock");
    let other = UnixListener::bind(&path).expect("a socket");
    let mut command = crate::server::sluice();
    command.args(["--listen", "127.0.0.1:0", "--admin", "off", "--data"]).arg(folder.path().join("data"));
    command.env("SLUICE__STOP__HANDOVER_SOCKET", &path);
    let start = tokio::process::Command::from(command).kill_on_drop(true).output();
    let answers = tokio::task::spawn_blocking(move || {
        let (mut stream, _) = other.accept().expect("somebody");
        let mut hello = [0; 23];
        stream.read_exact(&mut hello).expect("a hello");
        stream.write_all(b"who are you?\n").expect("it listens");
    });
    let output = tokio::time::timeout(PATIENCE, start).await.expect("it ends").expect("it runs");
    answers.await.expect("it was asked");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot take over") && said.contains("who are you?"), "{said}");
}

/// As systemd does it: a socket that somebody else holds, at descriptor 3, for a process that is told its own number.
#[tokio::test]
async fn a_socket_that_systemd_passes_is_served_on_and_refuses_nobody_over_a_restart() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let folder = tempfile::tempdir().expect("a folder");
    let notified = folder.path().join("notify.sock");
    let notifications = std::os::unix::net::UnixDatagram::bind(&notified).expect("a socket");
    notifications.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let start = || {
        // The shell becomes the server, and so knows its number.
        let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\" 3<&0 </dev/null";
        let mut command = Command::new("sh");
        command.stdin(OwnedFd::from(listener.try_clone().expect("a descriptor")));
        let sluice = crate::server::sluice();
        command.args(["-c", script, "sh"]).arg(sluice.get_program());
        command.envs(sluice.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.args(["--admin", "off", "--data"]).arg(folder.path().join("data"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.env("NOTIFY_SOCKET", &notified).env("LISTEN_FDNAMES", "http");
        tokio::process::Command::from(command).kill_on_drop(true).spawn().expect("a shell")
    };
    let hears = |word: &str| {
        let mut said = [0; 256];
        let got = notifications.recv(&mut said).expect("a word in time");
        let said = String::from_utf8_lossy(&said[..got]).into_owned();
        assert!(said.contains(word), "{said}");
    };
    let mut first = start();
    hears("READY=1");
    assert_eq!(Raw::connect(address).await.get("/healthz", "").await.status(), 200);
    let pid = i32::try_from(first.id().expect("it runs")).expect("a process id");
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
    rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
    hears("STOPPING=1");
    assert!(first.wait().await.expect("it ends").success());
    // Nobody serves: who comes now waits for the next one.
    let mut waits = Raw::connect(address).await;
    waits.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let _second = start();
    hears("READY=1");
    assert_eq!(waits.answer().await.status(), 200);
}
