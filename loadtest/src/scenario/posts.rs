//! How many events the server takes in, and how fast it answers.

use std::time::Duration;

use crate::failure::Failure;
use crate::producer::{Plan, produce_all};
use crate::report::Report;
use crate::target::Target;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Of each of the four rounds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
}

/// Connections and events per request.
const ROUNDS: [(u32, u64); 4] = [(1, 1), (1, 50), (64, 1), (64, 50)];
/// Of one producer in one round.
const EVENTS_MAX: u64 = 1_000_000;

pub(crate) async fn run(target: &Target, args: &Args) -> Result<Report, Failure> {
    let mut report = Report::new("posts");
    for (connections, batch) in ROUNDS {
        let plan = |_| Plan { batch, time_max: Duration::from_secs(args.seconds), ..Plan::bulk(target, EVENTS_MAX) };
        let sent = produce_all(target, (0..connections).map(plan).collect()).await?;
        let round = format!("c{connections}_b{batch}");
        report.figure(format!("{round}_events_per_second"), sent.events_per_second(), "events/s");
        report.figure(format!("{round}_posts_per_second"), sent.posts as f64 / sent.took.as_secs_f64(), "posts/s");
        report.latency(&round, &sent.latency);
    }
    Ok(report)
}
