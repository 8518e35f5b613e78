//! The broker stands still: it keeps its connections and answers nothing. How producers are answered meanwhile, and how soon
//! all is well again.

use std::time::Duration;

use tokio::time::Instant;

use crate::drive::{self, Driven, Requests, Shape};
use crate::failure::Failure;
use crate::process;
use crate::report::Report;
use crate::target::Target;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=2_000))]
    connections: u16,
    /// Of the hasty round, and of the one that follows when the broker is back.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Of the guaranteed round: longer than the server's deadline.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=120))]
    guaranteed_seconds: u64,
}

const EVENT_BYTES: usize = 800;
/// By then the broker must be back.
const BACK_WAIT_MAX: Duration = Duration::from_secs(60);
/// Of one try, while it is not.
const TRY: Duration = Duration::from_millis(20);

pub(crate) async fn run(target: &Target, args: &Args) -> Result<Report, Failure> {
    let mut report = Report::new("paused");
    let node = target.kafka.as_ref().and_then(|kafka| kafka.node());
    let node = node.ok_or_else(|| Failure::Usage("this scenario stops the broker: give --start and --kafka".into()))?;
    let pid = target.needs_pid()?;
    let seconds = Duration::from_secs(args.seconds);
    let before = drive(target, args.connections, false, seconds).await?;
    tell("before", &before, &mut report);
    let resident = process::memory(pid)?.resident_kib;
    node.pause().await;
    let hasty = drive(target, args.connections, true, seconds).await?;
    tell("paused_hasty", &hasty, &mut report);
    let guaranteed = drive(target, args.connections, false, Duration::from_secs(args.guaranteed_seconds)).await?;
    tell("paused_guaranteed", &guaranteed, &mut report);
    let memory = process::memory(pid)?;
    report.figure("resident_before", resident as f64, "KiB");
    report.figure("resident_paused", memory.resident_kib as f64, "KiB");
    report.figure("resident_peak", memory.peak_kib as f64, "KiB");
    node.resume().await;
    let back = Instant::now();
    while drive(target, 1, false, TRY).await?.posts_taken() == 0 {
        if back.elapsed() > BACK_WAIT_MAX {
            report.fault("POSTs are not taken again".to_owned());
            break;
        }
    }
    report.figure("back_after", back.elapsed().as_secs_f64() * 1_000.0, "ms");
    let after = drive(target, args.connections, false, seconds).await?;
    tell("after", &after, &mut report);
    let wrong = after.statuses.iter().filter(|(status, _)| **status != 201).map(|(_, count)| count);
    report.zero("refused_after", wrong.sum());
    Ok(report)
}

async fn drive(target: &Target, connections: u16, hasty: bool, time: Duration) -> Result<Driven, Failure> {
    let requests = Requests::build(&target.stream, Shape { connections, batch: 1, hasty }, EVENT_BYTES);
    drive::drive(target.http, &requests, connections, time).await
}

fn tell(name: &str, driven: &Driven, report: &mut Report) {
    for (status, count) in &driven.statuses {
        report.count(format!("{name}_status_{status}"), *count);
    }
    for (what, latency) in [("taken", &driven.taken), ("refused", &driven.refused)] {
        if !latency.is_empty() {
            report.latency(&format!("{name}_{what}"), latency);
        }
    }
    report.zero("broken", driven.broken);
}
