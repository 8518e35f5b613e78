//! Resident memory of the server per reader: idle, and after a burst that all of them read.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::failure::Failure;
use crate::process::{self, Memory};
use crate::producer::{Plan, produce};
use crate::readers::Readers;
use crate::report::Report;
use crate::target::Target;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=19_000))]
    readers: u16,
    /// Events of the burst.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    burst: u64,
    /// How long the readers are idle before they are weighed: longer than a heartbeat.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(0..=600))]
    idle_seconds: u64,
}

/// Readers that warm the server up, and bursts that they read: ring, log and allocator are then as they stay.
const WARM_READERS: usize = 32;
const WARM_BURSTS: u64 = 3;
const SETTLE_MAX: Duration = Duration::from_secs(20);

pub(crate) async fn run(target: &Target, args: &Args) -> Result<Report, Failure> {
    let mut report = Report::new("memory");
    let pid = target.needs_pid()?;
    let readers = usize::from(args.readers);
    let cold = settled(pid).await?;

    let warming = Readers::live(target, WARM_READERS).await?;
    burst(target, &warming, WARM_READERS, args.burst * WARM_BURSTS, &mut report).await?;
    warming.close().await;
    let warm = settled(pid).await?;

    let crowd = Readers::live(target, readers).await?;
    sleep(Duration::from_secs(args.idle_seconds)).await;
    let idle = settled(pid).await?;
    burst(target, &crowd, readers, args.burst, &mut report).await?;
    sleep(Duration::from_secs(args.idle_seconds)).await;
    let after = settled(pid).await?;
    crowd.close().await;
    let closed = settled(pid).await?;

    let weighed = [("cold", cold), ("warm", warm), ("idle", idle), ("after_burst", after), ("closed", closed)];
    for (moment, memory) in weighed {
        report.figure(format!("resident_{moment}"), memory.resident_kib as f64, "KiB");
    }
    report.figure("resident_peak", closed.peak_kib as f64, "KiB");
    report.count("readers", readers as u64);
    for (moment, memory) in [("idle", idle), ("after_burst", after)] {
        let above = |base: Memory| (memory.resident_kib as f64 - base.resident_kib as f64) / readers as f64;
        report.figure(format!("per_reader_{moment}_above_warm"), above(warm), "KiB");
        report.figure(format!("per_reader_{moment}_above_cold"), above(cold), "KiB");
    }
    Ok(report)
}

async fn burst(t: &Target, to: &Readers, readers: usize, events: u64, report: &mut Report) -> Result<(), Failure> {
    let sent = produce(t, Plan::bulk(t, events)).await?;
    to.wait_for(sent.events * readers as u64).await;
    to.check(sent.events * readers as u64, report).await;
    Ok(())
}

/// Weighs until two weighings a second apart agree within 64 KiB.
async fn settled(pid: u32) -> Result<Memory, Failure> {
    let start = Instant::now();
    let mut last = process::memory(pid)?;
    loop {
        sleep(Duration::from_secs(1)).await;
        let now = process::memory(pid)?;
        if now.resident_kib.abs_diff(last.resident_kib) < 64 || start.elapsed() > SETTLE_MAX {
            return Ok(now);
        }
        last = now;
    }
}
