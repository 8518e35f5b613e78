//! How long an event takes from its POST being sent to a live reader having it.

use crate::failure::Failure;
use crate::producer::{Plan, produce};
use crate::readers::Readers;
use crate::report::Report;
use crate::target::Target;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Events per second, one per request.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    readers: u16,
}

pub(crate) async fn run(target: &Target, args: &Args) -> Result<Report, Failure> {
    let mut report = Report::new("latency");
    let live = Readers::live(target, args.readers.into()).await?;
    let plan = Plan::paced(target, u64::from(args.rate) * u64::from(args.seconds), args.rate.into());
    let sent = produce(target, plan).await?;
    let expected = sent.events * u64::from(args.readers);
    live.wait_for(expected).await;
    report.count("events", sent.events);
    report.figure("rate", sent.events_per_second(), "events/s");
    report.latency("post", &sent.latency);
    report.latency("delivery", &live.latency());
    live.check(expected, &mut report).await;
    Ok(report)
}
