//! The floor: what a delivery costs a process that only calls `write()` on each socket, in a plain loop.
//!
//! The loop runs in a child process, so that its CPU is not mixed with the readers'. The readers are the same as
//! everywhere. Protocol: the child prints its port, accepts all, waits for a line, writes, prints a line, waits for the end.

use std::io::{self, BufRead, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::event::{self, Stamp};
use crate::failure::Failure;
use crate::process;
use crate::readers::Readers;
use crate::report::Report;
use crate::scenario::cpu::Round;
use crate::target::Target;

#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=19_000))]
    pub(crate) readers: u16,
    /// Events per second.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rate: u32,
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// Bytes of an event on the wire.
    #[arg(long, default_value_t = 1_500, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    pub(crate) frame_bytes: u32,
    /// Keeps the loop on the first core and the readers on the second.
    #[arg(long)]
    pub(crate) pin: bool,
}

/// With `--pin`: where what is measured runs, and where the readers do.
pub(crate) const MEASURED_CORE: usize = 0;
pub(crate) const READERS_CORE: usize = 1;

pub(crate) async fn run(args: &Args) -> Result<Report, Failure> {
    let mut report = Report::new("write-loop");
    let round = round(*args, &mut report).await?;
    report.count("deliveries", round.deliveries);
    report.figure("floor_us_per_delivery", round.us_per_delivery(), "us");
    Ok(report)
}

/// One round of the loop with readers of its own.
pub(crate) async fn round(args: Args, report: &mut Report) -> Result<Round, Failure> {
    let run = fastrand::u32(..);
    let mut floor = Floor::start(args, run).await?;
    if args.pin {
        process::pin(std::process::id(), READERS_CORE)?;
        process::pin(floor.pid, MEASURED_CORE)?;
    }
    let target = Target::new(floor.address, "mediawiki.recentchange".to_owned()).with_run(run);
    let readers = Readers::live(&target, args.readers.into()).await?;
    let before = process::cpu(floor.pid)?;
    floor.write().await?;
    let cpu = process::cpu(floor.pid)?.saturating_sub(before);
    let deliveries = u64::from(args.readers) * u64::from(args.rate) * u64::from(args.seconds);
    readers.wait_for(deliveries).await;
    readers.check(deliveries, report).await;
    let count = readers.count();
    readers.close().await;
    Ok(Round { deliveries: count.delivered, bytes: count.bytes, cpu })
}

/// The child process; killed when dropped.
struct Floor {
    _child: Child,
    stdin: ChildStdin,
    stdout: tokio::io::Lines<BufReader<ChildStdout>>,
    pid: u32,
    address: SocketAddr,
}

impl Floor {
    async fn start(args: Args, run: u32) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::Start(format!("the write loop: {error}"));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("write-loop-child").arg("--run").arg(run.to_string());
        command.arg("--readers").arg(args.readers.to_string()).arg("--rate").arg(args.rate.to_string());
        command.arg("--seconds").arg(args.seconds.to_string()).arg("--frame-bytes").arg(args.frame_bytes.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let gone = || Failure::Start("the write loop ended at once".to_owned());
        let (stdin, stdout) = (child.stdin.take().ok_or_else(gone)?, child.stdout.take().ok_or_else(gone)?);
        let mut stdout = BufReader::new(stdout).lines();
        let line = stdout.next_line().await.map_err(failed)?.ok_or_else(gone)?;
        let address = line.parse().map_err(|_| Failure::Start(format!("the write loop said `{line}`")))?;
        Ok(Self { pid: child.id().ok_or_else(gone)?, _child: child, stdin, stdout, address })
    }

    /// Lets it write all its events; returns when it has.
    async fn write(&mut self) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::Start(format!("the write loop: {error}"));
        self.stdin.write_all(b"go\n").await.map_err(failed)?;
        self.stdout.next_line().await.map_err(failed)?;
        Ok(())
    }
}

#[derive(clap::Args)]
pub(crate) struct ChildArgs {
    #[command(flatten)]
    loop_: Args,
    #[arg(long)]
    run: u32,
}

/// What runs in the child process.
pub(crate) fn child(args: &ChildArgs) -> io::Result<()> {
    let ChildArgs { loop_: Args { readers, rate, seconds, frame_bytes, .. }, run } = *args;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let sockets: Vec<TcpStream> = (0..readers).map(|_| accept(&listener)).collect::<io::Result<_>>()?;
    let mut stdin = io::stdin().lock();
    stdin.read_line(&mut String::new())?;
    let start = Instant::now();
    for seq in 0..u64::from(rate) * u64::from(seconds) {
        sleep_until(start + Duration::from_secs(1).mul_f64(seq as f64 / f64::from(rate)));
        let stamp = Stamp { run, producer: 0, seq, sent_us: event::now_us() };
        let frame = event::frame(frame_bytes as usize, stamp);
        for mut socket in &sockets {
            // Full, or partly written: the readers' own check tells that something was lost.
            let _ = socket.write(&frame);
        }
    }
    println!("done");
    stdin.read_line(&mut String::new())?;
    Ok(())
}

fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n:ok\n\n\r\n";
    let mut socket = listener.accept()?.0;
    socket.set_nodelay(true)?;
    socket.write_all(HEAD)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[expect(clippy::disallowed_methods, reason = "the floor is one thread and a plain loop: nothing else could wake it")]
fn sleep_until(then: Instant) {
    std::thread::sleep(then.saturating_duration_since(Instant::now()));
}
