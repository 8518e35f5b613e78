//! How fast one reader gets what it missed.

use tokio::time::Instant;

use crate::event;
use crate::failure::Failure;
use crate::ledger::Ledger;
use crate::producer::{Plan, produce_all};
use crate::readers::Readers;
use crate::report::Report;
use crate::target::Target;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Events to append first.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    events: u64,
    /// How often the reader reads them all.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
}

const PRODUCERS: u64 = 4;

pub(crate) async fn run(target: &Target, args: &Args) -> Result<Report, Failure> {
    let mut report = Report::new("catchup");
    let start_us = event::now_us();
    let plans = (0..PRODUCERS).map(|_| Plan::bulk(target, args.events / PRODUCERS)).collect();
    let sent = produce_all(target, plans).await?;
    report.count("events", sent.events);
    report.figure("posted_per_second", sent.events_per_second(), "events/s");
    for round in 1..=args.rounds {
        let start = Instant::now();
        let ask = target.ask_since(usize::from(round), start_us - 1_000_000);
        let reader = Readers::open(target, vec![(ask, Ledger::default())]).await?;
        reader.wait_for(sent.events).await;
        let (took, count) = (start.elapsed().as_secs_f64(), reader.count());
        report.figure(format!("read_per_second_{round}"), count.delivered as f64 / took, "events/s");
        report.figure(format!("read_mb_per_second_{round}"), count.bytes as f64 / took / 1e6, "MB/s");
        reader.check(sent.events, &mut report).await;
    }
    Ok(report)
}
