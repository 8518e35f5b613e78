//! One reader that hops between servers at random, with the id of the last event it had: it has every event once.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::event::{self, Stamp};
use crate::failure::Failure;
use crate::ledger::{Arrival, Ledger};
use crate::producer::{Plan, produce};
use crate::report::Report;
use crate::stream::{Ask, Flow, Stream};
use crate::target::{Target, parse_url};
use crate::wire::Event;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Servers that share one log; each gets a producer.
    #[arg(long, required = true, value_delimiter = ',', value_parser = parse_url)]
    urls: Vec<SocketAddr>,
    /// About how often the reader hops.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    hops: u32,
    /// Events of all producers together.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    events: u64,
    /// Events per second of all producers together.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    rate: u32,
}

/// A stay without events ends after this: the next server may have some.
const STAY_MAX: Duration = Duration::from_secs(2);
/// Without a new event for this long, the rest is lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the reader had, and where it stands.
struct Hopper {
    run: u32,
    ledger: Ledger,
    id: Option<String>,
    fresh: u64,
    repeated: u64,
    disordered: u64,
}

pub(crate) async fn run(target: &Target, args: &Args) -> Result<Report, Failure> {
    let mut report = Report::new("hop");
    let servers = args.urls.len() as u64;
    let events = args.events / servers * servers;
    let mut hopper =
        Hopper { run: target.run, ledger: Ledger::default(), id: None, fresh: 0, repeated: 0, disordered: 0 };
    // The first stay begins at the live end, so it must be open before anything is sent.
    let mut stream = Some(Stream::open(&ask(target, args, None)).await?);
    let mut producers = produce_at_each(target, args);
    let (mut hops, mut moved) = (0u32, Instant::now());
    while hopper.fresh < events && moved.elapsed() < PATIENCE {
        let before = hopper.fresh;
        let wanted = fastrand::u64(1..=(2 * events / u64::from(args.hops)).max(1));
        let mut here = match stream.take() {
            Some(stream) => stream,
            None => Stream::open(&ask(target, args, hopper.id.clone())).await?,
        };
        hopper.stay(&mut here, wanted).await;
        if hopper.id.is_none() {
            stream = Some(here);
            continue;
        }
        hops += 1;
        if hopper.fresh > before {
            moved = Instant::now();
        }
    }
    while let Some(sent) = producers.join_next().await {
        sent.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    }
    report.count("events", events);
    report.count("hops", hops.into());
    report.zero("lost", events.saturating_sub(hopper.fresh));
    report.zero("repeated", hopper.repeated);
    report.zero("disordered", hopper.disordered);
    Ok(report)
}

impl Hopper {
    /// Reads about this many events, or for a while, and leaves; an end or a cut is only another reason to leave.
    async fn stay(&mut self, stream: &mut Stream, wanted: u64) {
        let goal = self.fresh + wanted;
        let reading = async { while let Ok(Flow::Open) = stream.next(|block| self.enter(block, goal)).await {} };
        let _ = timeout(STAY_MAX, reading).await;
    }

    fn enter(&mut self, block: &[u8], goal: u64) -> ControlFlow<()> {
        let Some(event) = Event::parse(block) else { return ControlFlow::Continue(()) };
        self.id = Some(String::from_utf8_lossy(event.id).into_owned());
        if let Some(stamp) = Stamp::find(event.data).filter(|stamp| stamp.run == self.run) {
            match self.ledger.enter(stamp, event::partition(event.data).unwrap_or(0)) {
                Arrival::Fresh => self.fresh += 1,
                Arrival::Disordered => (self.fresh, self.disordered) = (self.fresh + 1, self.disordered + 1),
                Arrival::Repeated => self.repeated += 1,
            }
        }
        if self.fresh >= goal { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// A server at random, from an address at random: no limit per client is met.
fn ask(target: &Target, args: &Args, last_event_id: Option<String>) -> Ask {
    let server = args.urls[fastrand::usize(..args.urls.len())];
    Ask { last_event_id, ..Target::new(server, target.stream.clone()).ask(0) }
}

fn produce_at_each(target: &Target, args: &Args) -> JoinSet<Result<(), Failure>> {
    let mut producers = JoinSet::new();
    let servers = args.urls.len() as u64;
    for server in &args.urls {
        let rate = f64::from(args.rate) / servers as f64;
        let plan = Plan::paced(target, args.events / servers, rate);
        let here = Target::new(*server, target.stream.clone()).with_run(target.run);
        producers.spawn(async move { produce(&here, plan).await.map(drop) });
    }
    producers
}
