//! Many readers return from about the same place: all get the whole gap, and the log is read about once.

use tokio::time::Instant;

use crate::failure::Failure;
use crate::http::Http;
use crate::producer::{Plan, produce, produce_all};
use crate::readers::Readers;
use crate::report::Report;
use crate::scenario::scout::{Place, Scout};
use crate::stream::Ask;
use crate::target::Target;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=19_000))]
    readers: u16,
    /// How long the readers are thought to have been away.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_440))]
    minutes_back: u32,
    /// Events of each second of that time; they are appended as fast as the server takes them.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
}

/// The readers come back to so many different places, one event apart.
const PLACES: usize = 100;
/// Sent when all have caught up: they must be live again.
const LIVE_EVENTS: u64 = 20;

pub(crate) async fn run(target: &Target, args: &Args) -> Result<Report, Failure> {
    let mut report = Report::new("return");
    let readers = usize::from(args.readers);
    let scout = Scout::send_out(target, PLACES).await?;
    let first = produce(target, Plan { batch: 1, ..Plan::bulk(target, PLACES as u64) }).await?;
    let places = scout.places().await?;
    let gap_events = u64::from(args.minutes_back) * 60 * u64::from(args.rate);
    let plans = (0..4).map(|_| Plan::bulk(target, gap_events / 4)).collect();
    let gap = produce_all(target, plans).await?;
    report.count("readers", readers as u64);
    report.count("gap_events", gap.events);
    report.count("gap_bytes", gap.bytes);

    let before = Reads::of(target).await?;
    let start = Instant::now();
    let asks: Vec<_> = (0..readers).map(|index| come_back(target, index, &places)).collect();
    let had: u64 = (0..readers).map(|index| (index % places.len()) as u64 + 1).sum();
    let crowd = Readers::open(target, asks).await?;
    let expected = readers as u64 * (first.events + gap.events) - had;
    crowd.wait_for(expected).await;
    report.figure("caught_up_after", start.elapsed().as_secs_f64(), "s");
    report.figure("deliveries_per_second", crowd.count().delivered as f64 / start.elapsed().as_secs_f64(), "events/s");
    let after = Reads::of(target).await?;

    let live = produce(target, Plan::paced(target, LIVE_EVENTS, 20.0)).await?;
    let expected = expected + live.events * readers as u64;
    crowd.wait_for(expected).await;
    crowd.check(expected, &mut report).await;
    if let (Some(before), Some(after)) = (before, after) {
        report.figure("catchup_reads", after.count - before.count, "");
        report.figure("catchup_read_bytes", after.bytes - before.bytes, "");
        report.figure("gaps_read", (after.bytes - before.bytes) / gap.bytes as f64, "x the gap");
    }
    Ok(report)
}

fn come_back(target: &Target, index: usize, places: &[Place]) -> (Ask, crate::ledger::Ledger) {
    let place = places[index % places.len()].clone();
    (Ask { last_event_id: Some(place.id), ..target.ask(index) }, place.had)
}

/// What the server counted as read from its log for readers behind.
struct Reads {
    count: f64,
    bytes: f64,
}

impl Reads {
    /// None where no admin listener is known.
    async fn of(target: &Target) -> Result<Option<Self>, Failure> {
        let Some(admin) = target.admin else { return Ok(None) };
        let page = Http::open(admin).await?.get("/metrics").await?;
        let count = total(&page, "sluice_catchup_reads_total");
        Ok(Some(Self { count, bytes: total(&page, "sluice_catchup_read_bytes_total") }))
    }
}

/// The sum over all labels; 0 where the counter has not been touched yet.
fn total(page: &str, metric: &str) -> f64 {
    let value = |line: &str| {
        let rest = line.strip_prefix(metric)?;
        rest.starts_with([' ', '{']).then(|| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).flatten()
    };
    page.lines().filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let page = "# TYPE a_total counter\na_total{x=\"1 2\"} 3\na_total{x=\"b\"} 4\na_total_more 9\nb_total 5\n";
        assert_eq!((total(page, "a_total"), total(page, "b_total"), total(page, "c")), (7.0, 5.0, 0.0));
    }
}
