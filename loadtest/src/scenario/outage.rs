//! The broker goes away for a while under a steady load: nothing that was accepted is lost, every producer's events are in
//! the log in its order, and how producers were answered. With a spool or without one, as the server's configuration says.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use hdrhistogram::Histogram;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::broker::micros;
use crate::event::{self, Stamp};
use crate::failure::Failure;
use crate::http::Http;
use crate::readers::histogram;
use crate::report::Report;
use crate::support::{Broker, KafkaNode};
use crate::target::Target;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long the broker is away.
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=600))]
    away_seconds: u64,
    /// Before it goes, and after all is well again.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    around_seconds: u64,
    /// Of all producers together.
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(10..=20_000))]
    events_per_second: u32,
    /// Each has a connection and an order of its own.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..=2_000))]
    producers: u16,
    /// How it goes.
    #[arg(long, value_enum, default_value = "stop")]
    how: How,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum How {
    Stop,
    Kill,
    /// It keeps its connections and answers nothing.
    Pause,
}

/// A built-in stream of one topic with one partition: there a producer's order is the log's.
const STREAM: &str = "test.event";
/// By then everything is in the log.
const EMPTY_WITHIN: Duration = Duration::from_secs(300);
const READ_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Phase {
    Before,
    Away,
    After,
    Over,
}

const PHASES: [Phase; 4] = [Phase::Before, Phase::Away, Phase::After, Phase::Over];

/// What one producer was told.
struct Told {
    producer: u32,
    accepted: Vec<u64>,
    latency: HashMap<(Phase, u16), Histogram<u64>>,
    broken: u64,
}

pub(crate) async fn run(target: &Target, args: &Args) -> Result<Report, Failure> {
    let mut report = Report::new("outage");
    let node = target.kafka.as_ref().and_then(|kafka| kafka.node());
    let node = node.ok_or_else(|| Failure::Usage("this scenario stops the broker: give --start and --kafka".into()))?;
    let admin = target.admin.ok_or_else(|| Failure::Usage("this scenario looks at metrics: give --admin".into()))?;
    let phase = Arc::new(AtomicU8::new(0));
    let mut producers = JoinSet::new();
    let every = Duration::from_secs_f64(f64::from(args.producers) / f64::from(args.events_per_second));
    for _ in 0..args.producers {
        producers.spawn(produce(target.http, target.run, target.producer(), every, phase.clone()));
    }
    let around = Duration::from_secs(args.around_seconds);
    sleep(around).await;
    enter(&phase, Phase::Away);
    begin(args.how, node).await;
    sleep(Duration::from_secs(args.away_seconds)).await;
    report.figure("spooled_at_restart", metric(admin, "sluice_spool_events").await?, "events");
    report.figure("spooled_at_restart_bytes", metric(admin, "sluice_spool_bytes").await? / f64::from(1 << 20), "MiB");
    end(args.how, node).await;
    enter(&phase, Phase::After);
    let back = Instant::now();
    let taken = metric(admin, "sluice_spool_replayed_total").await?;
    while metric(admin, "sluice_spool_events").await? > 0.0 && back.elapsed() < EMPTY_WITHIN {
        sleep(LOOK_EVERY).await;
    }
    report.figure("spool_empty_after", back.elapsed().as_secs_f64(), "s");
    report.figure("replayed", metric(admin, "sluice_spool_replayed_total").await? - taken, "events");
    sleep(around).await;
    enter(&phase, Phase::Over);
    let mut told = Vec::new();
    while let Some(one) = producers.join_next().await {
        told.push(one.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())));
    }
    // What went into the spool at the very end.
    while metric(admin, "sluice_spool_events").await? > 0.0 && back.elapsed() < EMPTY_WITHIN {
        sleep(LOOK_EVERY).await;
    }
    let (broker, run) = (node.broker(), target.run);
    let log = tokio::task::spawn_blocking(move || read_all(&broker, run)).await;
    let log = log.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    answers(&told, &mut report);
    check(&told, &log, &mut report);
    Ok(report)
}

fn enter(phase: &AtomicU8, next: Phase) {
    let at = PHASES.iter().position(|phase| *phase == next).unwrap_or_default();
    phase.store(u8::try_from(at).unwrap_or_default(), Ordering::Relaxed);
}

async fn begin(how: How, node: &KafkaNode) {
    match how {
        How::Stop => node.stop().await,
        How::Kill => node.kill().await,
        How::Pause => node.pause().await,
    }
}

async fn end(how: How, node: &KafkaNode) {
    match how {
        How::Stop | How::Kill => node.start_again().await,
        How::Pause => node.resume().await,
    }
}

/// One event after the other at a pace. An event that was refused is not sent again: the next one is.
async fn produce(server: SocketAddr, run: u32, producer: u32, every: Duration, phase: Arc<AtomicU8>) -> Told {
    let mut told = Told { producer, accepted: Vec::new(), latency: HashMap::new(), broken: 0 };
    let mut pace = interval(every);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut http = None;
    for seq in 0.. {
        pace.tick().await;
        let now = PHASES[usize::from(phase.load(Ordering::Relaxed))];
        if now == Phase::Over {
            break;
        }
        let request = request(server, Stamp { run, producer, seq, sent_us: event::now_us() });
        if http.is_none() {
            http = Http::open(server).await.ok();
        }
        let asked = Instant::now();
        let answer = match &mut http {
            Some(http) => http.ask(&request).await.ok(),
            None => None,
        };
        let Some(answer) = answer else {
            told.broken += 1;
            http = None;
            continue;
        };
        let latency = told.latency.entry((now, answer.status)).or_insert_with(histogram);
        latency.saturating_record(micros(asked.elapsed()));
        if matches!(answer.status, 201 | 202) {
            told.accepted.push(seq);
        }
    }
    told
}

fn request(server: SocketAddr, stamp: Stamp) -> Vec<u8> {
    let Stamp { run, producer, seq, sent_us } = stamp;
    let body = format!(
        r#"{{"$schema":"/test/event/1.0.0","meta":{{"stream":"{STREAM}","id":"{run}-{producer}-{seq}"}},"test":"outage","loadtest":[{run},{producer},{seq},{sent_us}]}}"#
    );
    let head = format!("POST /v1/events HTTP/1.1\r\nhost: {server}\r\ncontent-type: application/json\r\n");
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A counter or gauge of the server; 0 if it does not have it.
async fn metric(admin: SocketAddr, name: &str) -> Result<f64, Failure> {
    let text = Http::open(admin).await?.get("/metrics").await?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    Ok(value.unwrap_or_default())
}

/// The numbers of every producer, in the log's order.
fn read_all(broker: &Broker, run: u32) -> Result<HashMap<u32, Vec<u64>>, Failure> {
    let failed = |error: rdkafka::error::KafkaError| Failure::Start(format!("the log cannot be read: {error}"));
    let mut config = broker.client();
    config.set("group.id", "of nobody").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().map_err(failed)?;
    let (low, high) = consumer.fetch_watermarks(STREAM, 0, READ_WITHIN).map_err(failed)?;
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_offset(STREAM, 0, Offset::Offset(low)).map_err(failed)?;
    consumer.assign(&wanted).map_err(failed)?;
    let (mut found, mut next, end) = (HashMap::<u32, Vec<u64>>::new(), low, Instant::now() + READ_WITHIN);
    while next < high {
        if Instant::now() > end {
            return Err(Failure::Start(format!("the log cannot be read beyond offset {next} of {high}")));
        }
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        next = message.offset() + 1;
        if let Some(stamp) = Stamp::find(message.payload().unwrap_or_default()).filter(|stamp| stamp.run == run) {
            found.entry(stamp.producer).or_default().push(stamp.seq);
        }
    }
    Ok(found)
}

fn answers(told: &[Told], report: &mut Report) {
    let mut all: HashMap<(Phase, u16), Histogram<u64>> = HashMap::new();
    for (what, latency) in told.iter().flat_map(|told| &told.latency) {
        // Both resize by themselves.
        let _ = all.entry(*what).or_insert_with(histogram).add(latency);
    }
    let mut kinds: Vec<_> = all.into_iter().collect();
    kinds.sort_by_key(|(what, _)| *what);
    for ((phase, status), latency) in kinds {
        let name = format!("{}_{status}", format!("{phase:?}").to_lowercase());
        report.count(format!("{name}_posts"), latency.len());
        report.latency(&name, &latency);
    }
    report.zero("broken", told.iter().map(|told| told.broken).sum());
}

fn check(told: &[Told], log: &HashMap<u32, Vec<u64>>, report: &mut Report) {
    let (mut accepted, mut lost, mut disordered, mut twice) = (0, 0, 0, 0);
    for Told { producer, accepted: numbers, .. } in told {
        let mut times: HashMap<u64, u64> = HashMap::new();
        let mut newest = None;
        for number in log.get(producer).map(Vec::as_slice).unwrap_or_default() {
            let seen = times.entry(*number).or_default();
            *seen += 1;
            if *seen == 1 {
                // What was refused as unknown may come late; nothing was promised of it.
                let promised = numbers.binary_search(number).is_ok();
                disordered += u64::from(promised && newest.is_some_and(|newest| newest > number));
                newest = if promised { Some(number) } else { newest };
            } else {
                twice += 1;
            }
        }
        accepted += numbers.len() as u64;
        lost += numbers.iter().filter(|number| !times.contains_key(number)).count() as u64;
    }
    report.count("accepted", accepted);
    report.count("twice", twice);
    report.zero("lost", lost);
    report.zero("disordered", disordered);
}
