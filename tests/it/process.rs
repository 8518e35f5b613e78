//! Starting and stopping: signals, exit codes, and what is said.

use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::engine::event_at;
use crate::raw::Raw;
use crate::server::{Options, Server, free_address, sluice};
use crate::support::{PATIENCE, eventually};

/// Runs what must end by itself.
async fn run(command: Command) -> Output {
    let output = tokio::process::Command::from(command).kill_on_drop(true).output();
    timeout(PATIENCE, output).await.expect("it ends by itself").expect("it runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_signal_ends_every_stream_after_a_whole_event_and_the_exit_code_is_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(Options::default()).await;
        let mut greeted = server.stream("/v2/stream/test.event", "").await;
        server.put(&event_at("test.event", 0, 0)).await;
        greeted.event().await;
        let quiet = server.stream("/v2/stream/recentchange", "").await;
        server.signal(signal);
        for mut stream in [greeted, quiet] {
            let farewell = String::from_utf8(stream.raw.chunk().await).expect("UTF-8");
            let retry = farewell.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix('\n')?.parse::<u64>().ok());
            assert!(retry.is_some_and(|ms| (1_000..=60_000).contains(&ms)), "{farewell:?}");
            assert_eq!(stream.raw.rest().await, b"0\r\n\r\n");
        }
        assert_eq!(server.ended().await.code(), Some(0), "{}", server.stderr());
    }
}

/// The connection that its client keeps for another request.
#[tokio::test]
async fn an_idle_connection_does_not_delay_the_stop() {
    let mut server = Server::start(Options::default()).await;
    let mut idle = server.connect().await;
    assert_eq!(idle.get("/readyz", "").await.status(), 200);
    let asked = Instant::now();
    assert!(server.stop().await.success());
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_request_that_never_comes_whole_is_cut_at_the_deadline() {
    let mut server = Server::start(Options::default().env("SLUICE__STOP__DEADLINE", "2s")).await;
    let mut half = server.connect().await;
    half.send("POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{")
        .await;
    let asked = Instant::now();
    assert!(server.stop().await.success());
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn an_open_stream_is_told_to_end_also_when_other_connections_are_idle() {
    let mut server = Server::start(Options::default()).await;
    let mut idle = server.connect().await;
    assert_eq!(idle.get("/readyz", "").await.status(), 200);
    let mut stream = server.stream("/v2/stream/test.event", "").await;
    server.signal(Signal::TERM);
    assert!(stream.raw.rest().await.ends_with(b"\n\r\n0\r\n\r\n"));
    drop(idle);
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn a_post_that_was_under_way_is_answered_before_the_end() {
    let mut server = Server::start(Options::default()).await;
    let mut stream = server.stream("/v2/stream/recentchange", "").await;
    let mut post = server.connect().await;
    let body = event_at("test.event", 7, 0).to_string();
    let head = "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length:";
    let (begun, rest) = body.split_at(10);
    post.send(format!("{head} {}\r\n\r\n{begun}", body.len())).await;
    server.signal(Signal::TERM);
    // The stop is under way when nobody new is let in.
    assert!(eventually(PATIENCE, async || TcpStream::connect(server.address).await.is_err()).await);
    post.send(rest).await;
    let answer = post.answer().await;
    assert_eq!(answer.status(), 201, "{answer:?}");
    // Readers end after the last event that was accepted.
    stream.raw.rest().await;
    assert!(server.ended().await.success());
    server.start_again().await;
    assert_eq!(server.stream("/v2/stream/test.event?since=0", "").await.event().await.json()["number"], 7);
}

#[tokio::test]
async fn an_absent_broker_leaves_the_server_unready_and_its_readers_connected() {
    let nobody = free_address().to_string();
    let mut server = Server::start(Options::default().kafka(&nobody).unready()).await;
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status(), server.get("/healthz").await.status()), (503, 200), "{answer:?}");
    let mut stream = server.stream("/v2/stream/test.event", "").await;
    assert!(server.stop().await.success(), "{}", server.stderr());
    assert!(stream.raw.rest().await.ends_with(b"\n\r\n0\r\n\r\n"));
}

/// It never left for a broker: a producer may send it again without a repeat.
#[tokio::test]
async fn without_a_broker_an_event_is_not_written_rather_than_unknown() {
    let options = Options::default().kafka(&free_address().to_string()).unready();
    let server = Server::start(options.env("SLUICE__INTAKE__DEADLINE", "2s")).await;
    let asked = Instant::now();
    let answer = server.post(r#"{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"}}"#).await;
    assert_eq!(answer.status(), 503, "{answer:?}");
    assert_eq!(answer.json()["error"][0]["code"], "not-written", "{answer:?}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn what_was_in_the_log_is_there_after_a_restart() {
    let mut server = Server::start(Options::default()).await;
    server.put(&event_at("test.event", 0, 0)).await;
    assert!(server.stop().await.success());
    server.start_again().await;
    server.put(&event_at("test.event", 1, 1)).await;
    let mut stream = server.stream("/v2/stream/test.event?since=0", "").await;
    assert_eq!(stream.event().await.json()["number"], 0);
    assert_eq!(stream.event().await.json()["number"], 1);
}

#[tokio::test]
async fn port_0_picks_a_free_one_and_the_admin_line_comes_first() {
    let server = Server::start(Options::default().listen("127.0.0.1:0")).await;
    let stdout = server.stdout();
    let at = |line: &str| stdout.lines().position(|own| own.starts_with(line)).unwrap_or_else(|| panic!("{stdout}"));
    assert!(at("sluice admin on http://127.0.0.1:") < at("sluice listening on http://127.0.0.1:"));
    assert_ne!(server.address.port(), 0);
    assert_eq!(stdout.lines().last(), Some(format!("sluice listening on http://{}", server.address).as_str()));
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_is_refused() {
    let server = Server::start(Options::default()).await;
    let mut second = sluice();
    second.args(["--listen", "127.0.0.1:0", "--admin", "off", "--data"]).arg(server.data());
    let output = run(second).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let by = format!("is in use by another sluice (process {})", server.pid());
    assert!(said(&output).contains("is in use by another sluice"), "{by}: {}", said(&output));
    assert!(said(&output).contains(&server.pid().to_string()), "it names the process: {}", said(&output));
    assert_eq!(server.get("/readyz").await.status(), 200);
}

#[tokio::test]
async fn a_taken_port_that_somebody_named_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let _holder = TcpListener::bind(taken).expect("the port again");
    let (taken, free) = (taken.to_string(), free_address().to_string());
    for (listen, admin, flag) in [(&taken, &free, "--listen"), (&free, &taken, "--admin")] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = sluice();
        command.args(["--listen", listen, "--admin", admin, "--data"]).arg(folder.path());
        let output = run(command).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = said(&output);
        assert!(said.contains(&format!("cannot listen on {taken}")) && said.contains(flag), "{said}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "nothing is promised");
    }
}

#[tokio::test]
async fn a_taken_default_admin_port_is_no_reason_not_to_start() {
    // Whoever holds it: this test, or somebody else.
    let _holder = TcpListener::bind("127.0.0.1:9102");
    let server = Server::start(Options::default().default_admin()).await;
    assert_ne!(server.admin.port(), 9102);
    assert!(server.stderr().contains("127.0.0.1:9102 is taken"), "{}", server.stderr());
    let metrics = Raw::connect(server.admin).await.get("/metrics", "").await;
    assert!(metrics.text().contains("# TYPE "), "{}", metrics.text());
}

#[tokio::test]
async fn every_fault_of_a_configuration_is_told_at_once_with_exit_code_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sluice.toml");
    std::fs::write(&file, "nope = 1\n[http]\nlisten = 5\n[hub]\nheartbeat = 'soon'\n").expect("a file");
    let mut check = sluice();
    check.args(["config", "check"]).arg(&file);
    let mut serve = sluice();
    serve.arg("--config").arg(&file).env("SLUICE__INTAKE__MAX_DEPTH", "900");
    for (command, faults) in [
        (check, vec!["nope", "http.listen", "hub.heartbeat"]),
        (serve, vec!["nope", "http.listen", "hub.heartbeat", "max_depth"]),
    ] {
        let output = run(command).await;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        for fault in faults {
            assert!(said(&output).contains(fault), "{fault} in {}", said(&output));
        }
    }
}

#[tokio::test]
async fn wrong_usage_and_a_wrong_catalogue_are_exit_code_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let streams = folder.path().join("streams.yaml");
    std::fs::write(&streams, "a: {topics: 5}\nb: {topics: ['x y']}\n").expect("a file");
    let mut usage = sluice();
    usage.arg("--nope");
    let mut catalogue = sluice();
    catalogue.args(["--listen", "127.0.0.1:0", "--admin", "off", "--data"]).arg(folder.path());
    catalogue.arg("--streams").arg(&streams);
    for (command, words) in [(usage, vec!["--nope"]), (catalogue, vec!["a: ", "b: ", "x y"])] {
        let output = run(command).await;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        for word in words {
            assert!(said(&output).contains(word), "{word} in {}", said(&output));
        }
    }
}

#[tokio::test]
async fn a_check_reads_a_catalogue_file_and_asks_no_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("streams.yaml"), "a: {topics: 5}\n").expect("a file");
    let file = format!("[catalog]\nsource = '{}'\n", path("streams.yaml").display());
    let address = format!("[catalog]\nsource = 'http://{}/'\n", free_address());
    for (config, code, word) in [(file, 2, "a: topics"), (address, 0, "it was not asked")] {
        std::fs::write(path("sluice.toml"), config).expect("a file");
        let mut check = sluice();
        check.args(["config", "check"]).arg(path("sluice.toml"));
        let output = run(check).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let both = format!("{}{}", String::from_utf8_lossy(&output.stdout), said(&output));
        assert!(both.contains(word), "{word} in {both}");
    }
}

#[tokio::test]
async fn what_holds_is_shown_without_secrets() {
    let mut show = sluice();
    show.args(["config", "show", "--listen", "127.0.0.1:1"]);
    show.env("SLUICE__LOG__KAFKA__PROPERTIES__SASL_PASSWORD", "hush");
    let output = run(show).await;
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert!(shown.contains("http.listen = \"127.0.0.1:1\"  # flag --listen\n"), "{shown}");
    assert!(shown.contains("sasl.password") && !shown.contains("hush"), "{shown}");
}

/// Where it is the first process of a container, a signal that nobody listens to does nothing.
#[tokio::test]
async fn a_signal_during_the_start_ends_it_and_the_exit_code_is_0() {
    let catalog = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = sluice();
    let source = format!("http://{}", catalog.local_addr().expect("an address"));
    command.args(["--listen", "127.0.0.1:0", "--admin", "off", "--streams", &source]).arg("--data").arg(folder.path());
    let mut process = tokio::process::Command::from(command).kill_on_drop(true).spawn().expect("it runs");
    let asked = timeout(PATIENCE, catalog.accept()).await.expect("it asks for its catalogue").expect("a connection");
    let pid = process.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())).expect("it runs");
    rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
    let ended = timeout(PATIENCE, process.wait()).await.expect("it ends by itself").expect("a child");
    assert_eq!(ended.code(), Some(0));
    drop(asked);
}
