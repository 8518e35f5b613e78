//! CPU of the server per delivery, beside the floor of a bare `write()` loop, in alternating rounds.

use std::time::Duration;

use tokio::time::sleep;

use crate::failure::Failure;
use crate::process;
use crate::producer::{Plan, produce};
use crate::readers::Readers;
use crate::report::Report;
use crate::scenario::write_loop;
use crate::target::Target;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=19_000))]
    readers: u16,
    /// Events per second, one per request.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
    /// Of each round.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Pairs of rounds: server, then floor.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
    /// Keeps the server, and the floor, on the first core and the readers on the second.
    #[arg(long)]
    pin: bool,
}

/// What one round cost.
pub(crate) struct Round {
    pub(crate) deliveries: u64,
    pub(crate) bytes: u64,
    pub(crate) cpu: Duration,
}

impl Round {
    pub(crate) fn us_per_delivery(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.deliveries.max(1) as f64
    }

    /// On the wire: the block that was read, the blank line that ended it, and the chunk around it.
    fn frame_bytes(&self) -> u32 {
        const AROUND: u64 = "\n\n".len() as u64 + "5be\r\n\r\n".len() as u64;
        u32::try_from(self.bytes / self.deliveries.max(1) + AROUND).unwrap_or(u32::MAX)
    }
}

/// Connections are made and gone outside of what is measured.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) async fn run(target: &Target, args: &Args) -> Result<Report, Failure> {
    let mut report = Report::new("cpu");
    if args.pin {
        process::pin(std::process::id(), write_loop::READERS_CORE)?;
        process::pin(target.needs_pid()?, write_loop::MEASURED_CORE)?;
    }
    let intake = intake_round(target, args).await?;
    let (mut server_all, mut floor_all, mut delivery_all) = (0.0, 0.0, 0.0);
    for round in 1..=args.rounds {
        let server = server_round(target, args, &mut report).await?;
        let frame_bytes = server.frame_bytes();
        let Args { readers, rate, seconds, pin, .. } = *args;
        let floor = write_loop::Args { readers, rate, seconds, frame_bytes, pin };
        let floor = write_loop::round(floor, &mut report).await?.us_per_delivery();
        let delivery = server.cpu.saturating_sub(intake).as_secs_f64() * 1e6 / server.deliveries.max(1) as f64;
        let server = server.us_per_delivery();
        report.figure(format!("server_us_{round}"), server, "us/delivery");
        report.figure(format!("floor_us_{round}"), floor, "us/delivery");
        report.figure(format!("ratio_{round}"), server / floor, "");
        (server_all, floor_all, delivery_all) = (server_all + server, floor_all + floor, delivery_all + delivery);
        report.count(format!("frame_bytes_{round}"), frame_bytes.into());
    }
    report.count("readers", args.readers.into());
    report.count("rate", args.rate.into());
    report.figure("ratio", server_all / floor_all, "server / floor");
    // What taking the same events in costs without any reader; the floor has no intake.
    report.figure("ratio_without_intake", delivery_all / floor_all, "server less intake / floor");
    let events = f64::from(args.rate) * f64::from(args.seconds);
    report.figure("intake_us", intake.as_secs_f64() * 1e6 / events, "us/event");
    Ok(report)
}

/// The same events with no reader: intake, log and tail.
async fn intake_round(target: &Target, args: &Args) -> Result<Duration, Failure> {
    let pid = target.needs_pid()?;
    let before = process::cpu(pid)?;
    produce(target, plan(target, args)).await?;
    Ok(process::cpu(pid)?.saturating_sub(before))
}

async fn server_round(target: &Target, args: &Args, report: &mut Report) -> Result<Round, Failure> {
    let pid = target.needs_pid()?;
    let readers = Readers::live(target, args.readers.into()).await?;
    sleep(SETTLE).await;
    let before = process::cpu(pid)?;
    let sent = produce(target, plan(target, args)).await?;
    let deliveries = sent.events * u64::from(args.readers);
    readers.wait_for(deliveries).await;
    let cpu = process::cpu(pid)?.saturating_sub(before);
    readers.check(deliveries, report).await;
    let count = readers.count();
    readers.close().await;
    sleep(SETTLE).await;
    Ok(Round { deliveries: count.delivered, bytes: count.bytes, cpu })
}

fn plan(target: &Target, args: &Args) -> Plan {
    Plan::paced(target, u64::from(args.rate) * u64::from(args.seconds), args.rate.into())
}
