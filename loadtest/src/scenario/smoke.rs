//! The short one: live readers, resuming readers, several producers, everything checked.

use crate::event;
use crate::failure::Failure;
use crate::ledger::Ledger;
use crate::producer::{Plan, produce_all};
use crate::readers::Readers;
use crate::report::Report;
use crate::scenario::scout::Scout;
use crate::stream::Ask;
use crate::target::Target;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    readers: u16,
    /// Events of each of the three producers.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(20..=100_000))]
    events: u64,
}

/// Readers that come back afterwards: half by `since`, half by `Last-Event-ID`.
const RESUMING: usize = 10;

pub(crate) async fn run(target: &Target, args: &Args) -> Result<Report, Failure> {
    let mut report = Report::new("smoke");
    let readers = usize::from(args.readers);
    let start_us = event::now_us();
    let scout = Scout::send_out(target, 10).await?;
    let live = Readers::live(target, readers).await?;
    let plans = [1, 10, 50].map(|batch| Plan { batch, ..Plan::bulk(target, args.events) });
    let sent = produce_all(target, plans.to_vec()).await?;
    live.wait_for(sent.events * readers as u64).await;
    live.check(sent.events * readers as u64, &mut report).await;
    report.count("readers", readers as u64);
    report.count("events", sent.events);
    report.figure("posted_per_second", sent.events_per_second(), "events/s");
    report.latency("post", &sent.latency);
    report.latency("delivery", &live.latency());
    live.close().await;

    let places = scout.places().await?;
    let by_id = places
        .into_iter()
        .take(RESUMING / 2)
        .enumerate()
        .map(|(index, place)| (Ask { last_event_id: Some(place.id), ..target.ask(readers + index) }, place.had));
    // A second earlier: record times have milliseconds only, and what is not of this run does not count.
    let by_time =
        (0..RESUMING / 2).map(|index| (target.ask_since(readers + index, start_us - 1_000_000), Ledger::default()));
    let missed: u64 = (1..=RESUMING as u64 / 2).sum();
    let resumed = Readers::open(target, by_id.chain(by_time).collect()).await?;
    let expected = sent.events * RESUMING as u64 - missed;
    resumed.wait_for(expected).await;
    resumed.check(expected, &mut report).await;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stub::{self, Mistake};

    async fn faults(mistake: Mistake) -> Vec<String> {
        let (server, _running) = stub::start(mistake).await.unwrap();
        let target = Target::new(server, "mediawiki.recentchange".to_owned());
        run(&target, &Args { readers: 3, events: 60 }).await.unwrap().faults().to_vec()
    }

    #[tokio::test]
    async fn an_honest_server_passes() {
        assert_eq!(faults(Mistake::None).await, [""; 0]);
    }

    #[tokio::test]
    async fn an_event_delivered_twice_is_found() {
        assert_eq!(faults(Mistake::Repeats(40)).await[0], "repeated = 3");
    }

    #[tokio::test]
    async fn a_repeat_after_coming_back_is_found() {
        assert_eq!(faults(Mistake::ResumesEarly).await[0], "repeated = 5");
    }

    #[tokio::test]
    async fn events_in_the_wrong_order_are_found() {
        assert!(faults(Mistake::Swaps(170)).await.iter().any(|fault| fault.starts_with("disordered")));
    }

    #[tokio::test]
    async fn a_lost_event_is_found() {
        assert_eq!(faults(Mistake::Loses(40)).await[0], "lost = 3");
    }

    #[tokio::test]
    async fn a_stream_that_ends_is_found() {
        assert!(faults(Mistake::Ends(40)).await.iter().any(|fault| fault.starts_with("streams_ended")));
    }
}
