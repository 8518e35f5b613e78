//! Producers: each over its own kept connection, one request after the other, at a pace or flat out.

use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, interval};

use crate::event::{self, Stamp};
use crate::failure::Failure;
use crate::http::Http;
use crate::ledger::PRODUCERS_MAX;
use crate::readers::histogram;
use crate::target::Target;

/// What one producer sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Unique within a run; [`Target::producer`] gives it.
    pub(crate) producer: u32,
    pub(crate) events: u64,
    /// Events of one request.
    pub(crate) batch: u64,
    /// None: the next request goes out as soon as the last is answered.
    pub(crate) events_per_second: Option<f64>,
    /// Stops after this, however few were sent.
    pub(crate) time_max: Duration,
}

/// What was sent, and acknowledged by a 201.
pub(crate) struct Sent {
    pub(crate) events: u64,
    pub(crate) posts: u64,
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    /// Microseconds from request to answer.
    pub(crate) latency: Histogram<u64>,
}

impl Plan {
    /// One producer, flat out, in batches of 50.
    pub(crate) fn bulk(target: &Target, events: u64) -> Self {
        Self { producer: target.producer(), events, batch: 50, events_per_second: None, time_max: Duration::MAX }
    }

    /// One producer, event by event, at a pace.
    pub(crate) fn paced(target: &Target, events: u64, per_second: f64) -> Self {
        let events_per_second = Some(per_second);
        Self { producer: target.producer(), events, batch: 1, events_per_second, time_max: Duration::MAX }
    }
}

pub(crate) async fn produce(target: &Target, plan: Plan) -> Result<Sent, Failure> {
    produce_all(target, vec![plan]).await
}

/// Runs these producers at once; the first that fails stops them all.
pub(crate) async fn produce_all(target: &Target, plans: Vec<Plan>) -> Result<Sent, Failure> {
    let start = Instant::now();
    let mut producers = JoinSet::new();
    for plan in plans {
        producers.spawn(run(target.http, target.stream.clone(), target.run, plan));
    }
    let mut all = Sent { events: 0, posts: 0, bytes: 0, took: Duration::ZERO, latency: histogram() };
    while let Some(sent) = producers.join_next().await {
        all.add(sent.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?);
    }
    all.took = start.elapsed();
    Ok(all)
}

impl Sent {
    pub(crate) fn events_per_second(&self) -> f64 {
        self.events as f64 / self.took.as_secs_f64()
    }

    fn add(&mut self, other: Sent) {
        self.events += other.events;
        self.posts += other.posts;
        self.bytes += other.bytes;
        // Both resize by themselves.
        let _ = self.latency.add(other.latency);
    }
}

async fn run(server: SocketAddr, stream: String, run: u32, plan: Plan) -> Result<Sent, Failure> {
    assert!(plan.producer < PRODUCERS_MAX, "a run has at most {PRODUCERS_MAX} producers");
    let mut http = Http::open(server).await?;
    let mut pace = plan.events_per_second.map(|rate| interval(Duration::from_secs_f64(plan.batch as f64 / rate)));
    let mut sent = Sent { events: 0, posts: 0, bytes: 0, took: Duration::ZERO, latency: histogram() };
    let mut body = String::new();
    let start = Instant::now();
    while sent.events < plan.events && start.elapsed() < plan.time_max {
        tick(&mut pace).await;
        let count = plan.batch.min(plan.events - sent.events);
        let first = Stamp { run, producer: plan.producer, seq: sent.events, sent_us: event::now_us() };
        write_body(&mut body, &stream, first, count);
        let before = Instant::now();
        http.post(&body).await?;
        sent.latency.saturating_record(u64::try_from(before.elapsed().as_micros()).unwrap_or(u64::MAX));
        sent.events += count;
        sent.posts += 1;
        sent.bytes += body.len() as u64;
    }
    Ok(sent)
}

async fn tick(pace: &mut Option<Interval>) {
    if let Some(pace) = pace {
        pace.tick().await;
    }
}

fn write_body(body: &mut String, stream: &str, first: Stamp, count: u64) {
    body.clear();
    if count == 1 {
        return event::write(body, stream, first);
    }
    for index in 0..count {
        body.push(if index == 0 { '[' } else { ',' });
        event::write(body, stream, Stamp { seq: first.seq + index, ..first });
    }
    body.push(']');
}
