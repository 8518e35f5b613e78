//! What producers feel of scrapers: fifty scrapes a second and one who asks and never reads, against a server that tells
//! thousands of series.
//!
//! Rounds with scrapers and rounds without take turns, so that what else the machine does meets both.

use std::time::{Duration, Instant};

use crate::drive::{self, Requests, Shape};
use crate::event;
use crate::failure::Failure;
use crate::http::Http;
use crate::readers::histogram;
use crate::report::Report;
use crate::scenario::scrape::Scrapers;
use crate::target::Target;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Of each round.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// With scrapers, and as many without.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Producers, each with one request under way.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    connections: u16,
}

/// Streams of the server that is started, beside the one that is posted to. Each has labels of its own.
pub(crate) const STREAMS: usize = 1_000;
const EVENT_BYTES: usize = 800;
/// Events of one request.
const AT_ONCE: usize = 100;
const WARM_TIME: Duration = Duration::from_secs(2);

/// A catalogue of so many streams, and the one that is posted to.
pub(crate) fn catalog(stream: &str) -> String {
    let entry = |name: &str| format!("  {name}: {{ schema_title: mediawiki/recentchange, topics: [{name}] }}\n");
    let mut text = "streams:\n".to_owned() + &entry(stream);
    text.extend((0..STREAMS).map(|number| entry(&extra(number))));
    text
}

fn extra(number: usize) -> String {
    format!("loadtest.extra-{number}")
}

pub(crate) async fn run(target: &Target, args: &Args) -> Result<Report, Failure> {
    let admin = target.admin.ok_or_else(|| Failure::Usage("scrapes needs --start".to_owned()))?;
    let mut report = Report::new("scrapes");
    post_to_all(target).await?;
    let shape = Shape { connections: args.connections, batch: 1, hasty: false };
    let requests = Requests::build(&target.stream, shape, EVENT_BYTES);
    drive::drive(target.http, &requests, shape.connections, WARM_TIME).await?;
    let began = Instant::now();
    let text = Http::open(admin).await?.get("/metrics").await?;
    report.figure("scrape", began.elapsed().as_secs_f64() * 1_000.0, "ms");
    report.count("series", text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count() as u64);
    report.figure("text", text.len() as f64 / 1_024.0, "KiB");
    let (mut calm, mut scraped) = (histogram(), histogram());
    let mut posts = [0; 2];
    for round in 0..2 * args.rounds {
        let with_scrapers = round % 2 == 1;
        let scrapers = if with_scrapers { Some(Scrapers::start(admin).await?) } else { None };
        let time = Duration::from_secs(args.seconds);
        let driven = drive::drive(target.http, &requests, shape.connections, time).await?;
        if let Some(scrapers) = scrapers {
            scrapers.stop().await?;
        }
        posts[usize::from(with_scrapers)] += driven.posts_taken();
        report.zero("broken", driven.broken);
        report.zero("refused", driven.refused.len());
        let all = if with_scrapers { &mut scraped } else { &mut calm };
        // It resizes by itself.
        let _ = all.add(driven.taken);
    }
    let seconds = (args.seconds * u64::from(args.rounds)) as f64;
    for (name, latency, posts) in [("calm", &calm, posts[0]), ("scraped", &scraped, posts[1])] {
        report.figure(format!("{name}_posts_per_second"), posts as f64 / seconds, "posts/s");
        report.latency(name, latency);
    }
    let p99 = |latency: &hdrhistogram::Histogram<u64>| latency.value_at_quantile(0.99) as f64;
    report.figure("p99_ratio", p99(&scraped) / p99(&calm).max(1.0), "scraped / calm");
    Ok(report)
}

/// So that there is something to tell of each.
async fn post_to_all(target: &Target) -> Result<(), Failure> {
    let mut http = Http::open(target.http).await?;
    let numbers: Vec<usize> = (0..STREAMS).collect();
    for numbers in numbers.chunks(AT_ONCE) {
        let mut body = String::new();
        for number in numbers {
            body.push(if body.is_empty() { '[' } else { ',' });
            event::write_bare(&mut body, &extra(*number), EVENT_BYTES);
        }
        body.push(']');
        http.post(&body).await?;
    }
    Ok(())
}
