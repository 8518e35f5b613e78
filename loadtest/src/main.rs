//! Plays readers and producers against a sluice, and checks that nothing is lost.
//!
//! `cargo run --release -p loadtest -- SCENARIO [--url URL | --start target/release/sluice] …`
//!
//! - `smoke` live and resuming readers, three producers, some seconds; everything checked
//! - `catchup` events per second of one reader that reads what it missed
//! - `latency` p50 and p99 from the POST being sent to a live reader having the event
//! - `memory` resident KiB of the server per reader: idle, and after a burst
//! - `cpu` CPU of the server per delivery, beside the floor of a bare `write()` loop, in alternating rounds
//! - `write-loop` that floor alone
//! - `return` a thousand readers come back from about the same place; how often the log was read for them
//! - `posts` events per second taken in, and how fast the answers come
//! - `intake` the whole path of intake beside a bare Kafka client and, if there is one, a peer: events per second, p50,
//!   p99, CPU per event
//! - `paused` the same while the broker stands still, and when it is back
//! - `outage` the broker goes away under a steady load, with a spool or without: nothing accepted is lost or out of order
//! - `kafka` runs a Kafka and nothing else
//! - `flood` what readers and producers feel of two clients that behave as badly as they can
//! - `scrapes` what producers feel of fifty scrapes a second and one scraper who never reads
//! - `hop` one reader hops between servers that share a log: every event exactly once
//!
//! Every event carries its producer, a number and the time it was sent; every reader keeps a ledger of them. So every
//! scenario tells lost, repeated and disordered events, and exits 1 if there are any. (`intake` only looks at the answers.) Load goes to loopback addresses
//! only, is bounded in count and time, and ends by itself.
//!
//! - `scenario` one file each
//! - `readers` a crowd that checks; `ledger` what one of them had; `stream` its connection; `wire` the bytes
//! - `producer` sends; `drive` sends as cheaply as can be; `http` their connections; `event` what they send
//! - `target` where to; `server` one of our own, `broker` its log where that is a Kafka; `process` what it costs
//! - `report` figures and faults; `failure` why there are none

mod broker;
mod drive;
mod event;
mod failure;
mod http;
mod ledger;
mod process;
mod producer;
mod readers;
mod report;
mod scenario;
mod server;
mod stream;
#[cfg(test)]
mod stub;
#[path = "../../tests/support/mod.rs"]
mod support;
mod target;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::broker::Kafka;
use crate::failure::Failure;
use crate::report::Report;
use crate::scenario::{
    catchup, comeback, cpu, flood, hop, intake, kafka, latency, memory, outage, paused, posts, scrapes, smoke,
    write_loop,
};
use crate::server::{Given, Server};
use crate::target::{Target, parse_url};

#[derive(Parser)]
#[command(about = "Plays readers and producers against a sluice, and checks that nothing is lost")]
struct Command {
    #[command(subcommand)]
    scenario: Scenario,
    #[command(flatten)]
    aim: Aim,
    /// Ends the scenario as failed.
    #[arg(long, global = true, default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=7_200))]
    seconds_max: u64,
}

/// Which server.
#[derive(clap::Args)]
struct Aim {
    /// The server's public listener; loopback only.
    #[arg(long, global = true, default_value = "http://127.0.0.1:8888", value_parser = parse_url)]
    url: SocketAddr,
    /// The server's admin listener, for its counters.
    #[arg(long, global = true, value_parser = parse_url)]
    admin: Option<SocketAddr>,
    /// The server's process, to be measured.
    #[arg(long, global = true)]
    pid: Option<u32>,
    /// Start this program instead, on free ports with a log in a temporary folder, and stop it afterwards.
    #[arg(long, global = true, value_name = "PROGRAM")]
    start: Option<PathBuf>,
    /// A configuration file for it. The environment is passed on, too.
    #[arg(long, global = true, requires = "start")]
    config: Option<PathBuf>,
    /// The server that is started has this Kafka as its log; without an address one is started for it, as tests do.
    #[arg(long, global = true, value_name = "HOST:PORT", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    kafka: Option<String>,
    /// The stream to post to and to read.
    #[arg(long, global = true, default_value = "mediawiki.recentchange")]
    stream: String,
}

#[derive(Subcommand)]
enum Scenario {
    /// Some seconds: a few producers, live and resuming readers, everything checked.
    Smoke(smoke::Args),
    /// Events per second of one reader that reads what it missed.
    Catchup(catchup::Args),
    /// Milliseconds from the POST being sent to a live reader having the event.
    Latency(latency::Args),
    /// Resident KiB of the server per reader.
    Memory(memory::Args),
    /// CPU of the server per delivery, beside a bare `write()` loop.
    Cpu(cpu::Args),
    /// The bare `write()` loop alone.
    WriteLoop(write_loop::Args),
    /// Many readers come back from about the same place.
    Return(comeback::Args),
    /// Events per second taken in.
    Posts(posts::Args),
    /// The whole path of intake: events per second, latency, CPU per event.
    Intake(intake::Args),
    /// The broker stands still for a while: how hasty and guaranteed POSTs are answered, and how soon all is well again.
    Paused(paused::Args),
    /// The broker goes away for a while under a steady load: what was accepted is in the log, in order.
    Outage(outage::Args),
    /// Runs a Kafka for servers that are started by hand.
    Kafka(kafka::Args),
    /// One address opens connections as fast as it can, another comes back after every refusal: what others feel of it.
    Flood(flood::Args),
    /// What producers feel of those who look at metrics.
    Scrapes(scrapes::Args),
    /// One reader hops between servers that share a log.
    Hop(hop::Args),
    #[command(hide = true)]
    WriteLoopChild(write_loop::ChildArgs),
    #[command(hide = true)]
    FloodChild(flood::ChildArgs),
}

fn main() -> ExitCode {
    let command = Command::parse();
    let open_files = process::raise_open_files();
    if let Scenario::WriteLoopChild(args) = &command.scenario {
        return write_loop::child(args).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if let Scenario::FloodChild(args) = &command.scenario {
        return flood::child(args, &command.aim.stream).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    println!("load average {}, open files {open_files}", process::load_average());
    match play(&command) {
        Ok(report) => {
            let code = if report.ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            report.print();
            code
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn play(command: &Command) -> Result<Report, Failure> {
    let aim = &command.aim;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Start(format!("no runtime: {error}")))?;
    let kafka = aim.kafka.as_deref().map(|address| runtime.block_on(Kafka::at(address))).transpose()?;
    let bootstrap = kafka.as_ref().map(|kafka| kafka.bootstrap.as_str());
    // All that is played comes from a few addresses.
    let limited = aim.config.is_some() || matches!(command.scenario, Scenario::Flood(_));
    let catalog = matches!(command.scenario, Scenario::Scrapes(_)).then(|| scrapes::catalog(&aim.stream));
    let given = Given { config: aim.config.as_deref(), kafka: bootstrap, catalog: catalog.as_deref(), limited };
    let server = aim.start.as_deref().map(|program| Server::start(program, given));
    let server = server.transpose()?;
    let mut target = aim.target(server.as_ref());
    target.kafka = kafka.clone();
    let time_max = Duration::from_secs(command.seconds_max);
    runtime.block_on(async {
        let played = tokio::time::timeout(time_max, command.scenario.run(&target)).await;
        played.unwrap_or(Err(Failure::Time(command.seconds_max)))
    })
}

impl Aim {
    fn target(&self, server: Option<&Server>) -> Target {
        let mut target = Target::new(server.map_or(self.url, |server| server.http), self.stream.clone());
        target.admin = server.map_or(self.admin, |server| server.admin);
        target.pid = server.map_or(self.pid, |server| Some(server.pid()));
        target
    }
}

impl Scenario {
    async fn run(&self, target: &Target) -> Result<Report, Failure> {
        match self {
            Scenario::Smoke(args) => smoke::run(target, args).await,
            Scenario::Catchup(args) => catchup::run(target, args).await,
            Scenario::Latency(args) => latency::run(target, args).await,
            Scenario::Memory(args) => memory::run(target, args).await,
            Scenario::Cpu(args) => cpu::run(target, args).await,
            Scenario::WriteLoop(args) => write_loop::run(args).await,
            Scenario::Return(args) => comeback::run(target, args).await,
            Scenario::Posts(args) => posts::run(target, args).await,
            Scenario::Intake(args) => intake::run(target, args).await,
            Scenario::Paused(args) => paused::run(target, args).await,
            Scenario::Outage(args) => outage::run(target, args).await,
            Scenario::Kafka(args) => kafka::run(target, args).await,
            Scenario::Hop(args) => hop::run(target, args).await,
            Scenario::Scrapes(args) => scrapes::run(target, args).await,
            Scenario::Flood(args) => flood::run(target, args).await,
            Scenario::WriteLoopChild(_) | Scenario::FloodChild(_) => unreachable!("the child has no runtime"),
        }
    }
}
