//! The whole path of intake: events per second, how fast the answers come, and what an event costs the server.
//!
//! Every round is played on the server and, where there is one, on a peer that speaks the same protocol: the figures that
//! count are ratios of rounds that lie side by side.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::broker;
use crate::drive::{self, Driven, Requests, Shape};
use crate::failure::Failure;
use crate::process;
use crate::report::Report;
use crate::scenario::scrape::Scrapers;
use crate::target::{Target, parse_url};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Of each round.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// Kept connections, each with one request under way; a round for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 128], value_parser = clap::value_parser!(u16).range(1..=2_000))]
    connections: Vec<u16>,
    /// Events of one request; a round for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 50], value_parser = clap::value_parser!(u16).range(1..=1_000))]
    batches: Vec<u16>,
    /// Connections with which the rounds are also played hasty; 0: with none.
    #[arg(long, value_delimiter = ',', default_values_t = [128], value_parser = clap::value_parser!(u16).range(0..=2_000))]
    hasty: Vec<u16>,
    #[arg(long, default_value_t = 800, value_parser = clap::value_parser!(u32).range(700..=100_000))]
    event_bytes: u32,
    /// Plays every guaranteed round once more while `/metrics` is scraped, and one scraper does not read.
    #[arg(long)]
    scraped: bool,
    /// Another server to play the same rounds on.
    #[arg(long, value_parser = parse_url)]
    peer: Option<SocketAddr>,
    /// The peer's process.
    #[arg(long, requires = "peer")]
    peer_pid: Option<u32>,
}

/// Before the first round of a server: connections, caches, and compilers that work while programs run.
const WARM: [Shape; 2] =
    [Shape { connections: 64, batch: 1, hasty: false }, Shape { connections: 8, batch: 50, hasty: false }];
const WARM_TIME: Duration = Duration::from_secs(2);
const ROUND_TRIP_TIME: Duration = Duration::from_secs(3);
/// A server that uses less than two ticks of CPU within this time is at rest.
const REST_TIME: Duration = Duration::from_millis(200);
const REST_CPU_MAX: Duration = Duration::from_millis(20);
const REST_WAIT_MAX: Duration = Duration::from_secs(15);

/// A server with its process.
struct Player {
    name: &'static str,
    http: SocketAddr,
    pid: Option<u32>,
}

struct Round {
    name: String,
    shape: Shape,
    scraped: bool,
}

/// A round's figures.
struct Played {
    driven: Driven,
    events: u64,
    cpu_us: Option<f64>,
    loader_us: f64,
}

pub(crate) async fn run(target: &Target, args: &Args) -> Result<Report, Failure> {
    let mut report = Report::new("intake");
    let mut players = vec![Player { name: "", http: target.http, pid: target.pid }];
    players.extend(args.peer.map(|http| Player { name: "peer_", http, pid: args.peer_pid }));
    for player in &players {
        for shape in WARM {
            let requests = Requests::build(&target.stream, shape, args.bytes());
            drive::drive(player.http, &requests, shape.connections, WARM_TIME).await?;
        }
    }
    if let Some(kafka) = &target.kafka {
        let round_trip = broker::round_trip(&kafka.bootstrap, args.bytes(), ROUND_TRIP_TIME).await?;
        report.latency("broker", &round_trip);
    }
    println!("{}", Played::TITLES);
    for round in rounds(args) {
        let mut cpu_us = Vec::new();
        // A peer's metrics are its own.
        for player in players.iter().filter(|player| player.name.is_empty() || !round.scraped) {
            let played = play(target, args, player, &round).await?;
            played.tell(&format!("{}{}", player.name, round.name), &mut report);
            cpu_us.extend(played.cpu_us);
        }
        if let [own, peer] = cpu_us[..] {
            report.figure(format!("{}_peer_ratio", round.name), peer / own, "CPU per event, peer / server");
        }
    }
    Ok(report)
}

impl Args {
    fn bytes(&self) -> usize {
        usize::try_from(self.event_bytes).unwrap_or(usize::MAX)
    }
}

fn rounds(args: &Args) -> Vec<Round> {
    let mut rounds = Vec::new();
    let guaranteed = args.connections.iter().map(|connections| (*connections, false));
    let hasty = args.hasty.iter().filter(|connections| **connections > 0).map(|connections| (*connections, true));
    for (connections, hasty) in guaranteed.chain(hasty) {
        for &batch in &args.batches {
            let shape = Shape { connections, batch, hasty };
            let name = format!("{}c{connections}_b{batch}", if hasty { "hasty_" } else { "" });
            rounds.push(Round { name: name.clone(), shape, scraped: false });
            if args.scraped && !hasty {
                rounds.push(Round { name: format!("{name}_scraped"), shape, scraped: true });
            }
        }
    }
    rounds
}

async fn play(target: &Target, args: &Args, player: &Player, round: &Round) -> Result<Played, Failure> {
    let requests = Requests::build(&target.stream, round.shape, args.bytes());
    let scrapers = match (round.scraped, target.admin) {
        (true, Some(admin)) => Some(Scrapers::start(admin).await?),
        (true, None) => return Err(Failure::Usage("--scraped needs --admin or --start".to_owned())),
        (false, _) => None,
    };
    // Events that were answered and not yet written cost the server, too.
    let before = rested(player.pid).await?;
    let loader_before = process::cpu(std::process::id())?;
    let time = Duration::from_secs(args.seconds);
    let driven = drive::drive(player.http, &requests, round.shape.connections, time).await?;
    let loader = process::cpu(std::process::id())?.saturating_sub(loader_before);
    if let Some(scrapers) = scrapers {
        scrapers.stop().await?;
    }
    let after = rested(player.pid).await?;
    let events = driven.posts_taken() * u64::from(round.shape.batch);
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / events.max(1) as f64;
    let cpu_us = before.zip(after).map(|(before, after)| each(after.saturating_sub(before)));
    Ok(Played { driven, events, cpu_us, loader_us: each(loader) })
}

/// The CPU that the process has used once it uses hardly any more. None: it is not known.
async fn rested(pid: Option<u32>) -> Result<Option<Duration>, Failure> {
    let Some(pid) = pid else { return Ok(None) };
    let end = Instant::now() + REST_WAIT_MAX;
    let mut used = process::cpu(pid)?;
    loop {
        sleep(REST_TIME).await;
        let now = process::cpu(pid)?;
        if now.saturating_sub(used) <= REST_CPU_MAX || Instant::now() > end {
            return Ok(Some(now));
        }
        used = now;
    }
}

impl Played {
    const TITLES: &str = "round                        events/s    p50 ms    p99 ms   CPU us   load us  answers";

    fn tell(&self, name: &str, report: &mut Report) {
        let Self { driven, events, cpu_us, loader_us } = self;
        let per_second = *events as f64 / driven.took.as_secs_f64();
        let at = |quantile| driven.taken.value_at_quantile(quantile) as f64 / 1_000.0;
        let cpu = cpu_us.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.1}"));
        let answers = driven.statuses.iter().map(|(status, count)| format!(" {status}:{count}")).collect::<String>();
        let (p50, p99) = (at(0.5), at(0.99));
        println!("{name:26} {per_second:10.0} {p50:9.2} {p99:9.2} {cpu:>8} {loader_us:9.1} {answers}");
        report.figure(format!("{name}_events_per_second"), per_second, "events/s");
        report.latency(name, &driven.taken);
        if let Some(cpu) = cpu_us {
            report.figure(format!("{name}_cpu"), *cpu, "us/event");
        }
        for (status, count) in &driven.statuses {
            report.count(format!("{name}_status_{status}"), *count);
        }
        if !driven.refused.is_empty() {
            report.latency(&format!("{name}_refused"), &driven.refused);
        }
        report.zero("broken", driven.broken);
        // 503 is the right answer to too much; nothing else is to these events.
        let wrong = driven.statuses.iter().filter(|(status, _)| !matches!(status, 201 | 202 | 503));
        report.zero("wrong_answers", wrong.map(|(_, count)| count).sum());
    }
}
