//! What others feel of two clients that behave as badly as they can: one address opens thousands of connections as fast as
//! it can, another comes back after every refusal without delay.
//!
//! Rounds with and without them lie side by side. The attackers are a process of their own, of the lowest priority: on a
//! machine of their own they would not take the measuring side's CPU either.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;
use std::{cell::RefCell, io};

use hdrhistogram::Histogram;
use rustix::process::setpriority_process;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::process::{Child, Command};
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout_at};

use crate::failure::Failure;
use crate::process;
use crate::producer::{Plan, produce};
use crate::readers::{Readers, histogram};
use crate::report::Report;
use crate::target::{Target, parse_url};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds without the attackers, and as many with them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Of each round.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Events per second, one per request, of those who behave.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Readers that behave.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    readers: u16,
    /// Connections that the one attacker has or wants at any time.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(0..=20_000))]
    connections: u16,
    /// Loops of the other.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(0..=1_000))]
    loops: u16,
    /// Keeps the server on one core, and everybody else on another.
    #[arg(long)]
    pin: bool,
}

/// Where the attackers come from.
const CROWD: Ipv4Addr = Ipv4Addr::new(127, 0, 66, 1);
const LOOPER: Ipv4Addr = Ipv4Addr::new(127, 0, 66, 2);
const LOWEST_PRIORITY: i32 = 19;

/// The latencies of some rounds.
struct Felt {
    post: Histogram<u64>,
    delivery: Histogram<u64>,
}

pub(crate) async fn run(target: &Target, args: &Args) -> Result<Report, Failure> {
    let mut report = Report::new("flood");
    let pid = target.needs_pid()?;
    if args.pin {
        process::pin(pid, 0)?;
        process::pin(std::process::id(), 1)?;
    }
    let (mut quiet, mut flood) = (Felt::new(), Felt::new());
    // The first round warms up, and counts for nobody.
    play(target, args, &mut Felt::new(), &mut report).await?;
    let before = process::memory(pid)?;
    let mut descriptors_most = 0;
    for round in 0..args.rounds {
        play(target, args, &mut quiet, &mut report).await?;
        let attack = Attack::start(target, args)?;
        play(target, args, &mut flood, &mut report).await?;
        descriptors_most = process::descriptors(pid)?.max(descriptors_most);
        println!("round {}: {}", round + 1, attack.end().await?);
    }
    let after = process::memory(pid)?;
    for (name, felt) in [("quiet", &quiet), ("flood", &flood)] {
        report.latency(&format!("{name}_post"), &felt.post);
        report.latency(&format!("{name}_delivery"), &felt.delivery);
    }
    let ratio = |of: fn(&Felt) -> &Histogram<u64>| {
        of(&flood).value_at_quantile(0.99) as f64 / of(&quiet).value_at_quantile(0.99).max(1) as f64
    };
    report.figure("post_p99_ratio", ratio(|felt| &felt.post), "flood / quiet");
    report.figure("delivery_p99_ratio", ratio(|felt| &felt.delivery), "flood / quiet");
    report.count("resident_kib_before", before.resident_kib);
    report.count("resident_kib_after", after.resident_kib);
    report.count("peak_kib", after.peak_kib);
    report.count("descriptors_most", descriptors_most);
    Ok(report)
}

impl Felt {
    fn new() -> Self {
        Self { post: histogram(), delivery: histogram() }
    }
}

/// One round of those who behave.
async fn play(target: &Target, args: &Args, felt: &mut Felt, report: &mut Report) -> Result<(), Failure> {
    let live = Readers::live(target, args.readers.into()).await?;
    let plan = Plan::paced(target, u64::from(args.rate) * u64::from(args.seconds), args.rate.into());
    let sent = produce(target, plan).await?;
    let expected = sent.events * u64::from(args.readers);
    live.wait_for(expected).await;
    // Both resize by themselves.
    let _ = felt.post.add(&sent.latency);
    let _ = felt.delivery.add(live.latency());
    live.check(expected, report).await;
    live.close().await;
    Ok(())
}

/// The attackers' process. Killed when dropped.
struct Attack(Child);

impl Attack {
    fn start(target: &Target, args: &Args) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::Start(format!("the attackers: {error}"));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(["flood-child", "--server", &format!("http://{}", target.http)]);
        command.args(["--connections", &args.connections.to_string(), "--loops", &args.loops.to_string()]);
        command.args(["--seconds", &args.seconds.to_string(), "--stream", &target.stream]);
        command.stdout(Stdio::piped()).kill_on_drop(true);
        command.spawn().map(Self).map_err(failed)
    }

    /// Waits for its end. What it saw.
    async fn end(self) -> Result<String, Failure> {
        let failed = |error: io::Error| Failure::Start(format!("the attackers: {error}"));
        let output = self.0.wait_with_output().await.map_err(failed)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

#[derive(clap::Args)]
pub(crate) struct ChildArgs {
    #[arg(long, value_parser = parse_url)]
    server: SocketAddr,
    #[arg(long)]
    connections: u16,
    #[arg(long)]
    loops: u16,
    #[arg(long)]
    seconds: u64,
}

/// What came of the attackers' connections, by what was answered first.
type Seen = Rc<RefCell<BTreeMap<String, u64>>>;

/// What runs in the child process.
pub(crate) fn child(args: &ChildArgs, stream: &str) -> io::Result<()> {
    // A machine that does not allow it attacks at its own priority.
    let _ = setpriority_process(None, LOWEST_PRIORITY);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let (crowd, looper) = (Seen::default(), Seen::default());
    let local = LocalSet::new();
    for _ in 0..args.connections {
        local.spawn_local(attack(args.server, CROWD, format!("/v2/stream/{stream}"), end, crowd.clone()));
    }
    for _ in 0..args.loops {
        local.spawn_local(attack(args.server, LOOPER, "/v2/stream/nonsense".to_owned(), end, looper.clone()));
    }
    runtime.block_on(local);
    let told = |seen: &Seen| {
        seen.borrow().iter().fold(String::new(), |mut text, (what, count)| {
            let _ = write!(text, " {what}: {count}");
            text
        })
    };
    println!("the crowd's connections:{}; the looper's:{}", told(&crowd), told(&looper));
    Ok(())
}

/// Asks, and asks again at once when it is over.
async fn attack(server: SocketAddr, from: Ipv4Addr, path: String, end: Instant, seen: Seen) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {server}\r\n\r\n");
    while Instant::now() < end {
        let mut first = Vec::new();
        let connection = ask(server, from, request.as_bytes(), &mut first);
        let over = timeout_at(end, connection).await;
        let status = String::from_utf8_lossy(first.get(9..12).unwrap_or_default()).into_owned();
        let what = match over {
            _ if !status.is_empty() => status,
            Ok(Ok(())) => "closed".to_owned(),
            Ok(Err(error)) => error.kind().to_string(),
            Err(_) => "waiting".to_owned(),
        };
        *seen.borrow_mut().entry(what).or_default() += 1;
        // Errors that come at once would keep the others of this thread from running.
        tokio::task::yield_now().await;
    }
}

/// Until the server ends it. The first bytes of what it says are kept.
async fn ask(server: SocketAddr, from: Ipv4Addr, request: &[u8], first: &mut Vec<u8>) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    let mut socket = socket.connect(server).await?;
    socket.write_all(request).await?;
    let mut piece = [0; 4096];
    loop {
        match socket.read(&mut piece).await? {
            0 => return Ok(()),
            bytes if first.len() < 12 => first.extend_from_slice(&piece[..bytes]),
            _ => {}
        }
        // It would wait on a kept connection for ever: a refusal that has come is over.
        if !first.starts_with(b"HTTP/1.1 200") && first.len() >= 12 {
            return Ok(());
        }
    }
}
