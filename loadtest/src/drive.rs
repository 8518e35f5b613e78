//! Producers that cost little themselves: requests are built beforehand, and an answer is looked at, not checked.
//!
//! Each connection has one request under way. What a refused producer does next is what it should not do, which is to
//! come back at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::broker::micros;
use crate::event;
use crate::failure::Failure;
use crate::http::Http;
use crate::readers::histogram;

/// Requests that differ. More would be more memory, not more truth.
const REQUESTS: usize = 32;

/// Whole requests, head and body.
pub(crate) struct Requests(Vec<Vec<u8>>);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) connections: u16,
    /// Events of one request.
    pub(crate) batch: u16,
    pub(crate) hasty: bool,
}

/// What was sent in a while, and what became of it.
pub(crate) struct Driven {
    pub(crate) took: Duration,
    /// How often each status was answered.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Connections that failed in the middle of a request.
    pub(crate) broken: u64,
    /// Microseconds from request to answer: of those that were taken whole, and of all others.
    pub(crate) taken: Histogram<u64>,
    pub(crate) refused: Histogram<u64>,
}

impl Requests {
    pub(crate) fn build(stream: &str, shape: Shape, event_bytes: usize) -> Arc<Self> {
        let path = if shape.hasty { "/v1/events?hasty=true" } else { "/v1/events" };
        let build = |_| {
            let mut body = String::new();
            for index in 0..shape.batch {
                body.extend((shape.batch > 1).then_some(if index == 0 { '[' } else { ',' }));
                event::write_bare(&mut body, stream, event_bytes);
            }
            body.extend((shape.batch > 1).then_some(']'));
            let length = body.len();
            let head = "host: 127.0.0.1\r\ncontent-type: application/json";
            format!("POST {path} HTTP/1.1\r\n{head}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
        };
        Arc::new(Self((0..REQUESTS).map(build).collect()))
    }
}

impl Driven {
    fn new() -> Self {
        let (taken, refused) = (histogram(), histogram());
        Self { took: Duration::ZERO, statuses: BTreeMap::new(), broken: 0, taken, refused }
    }

    pub(crate) fn posts_taken(&self) -> u64 {
        self.statuses.iter().filter(|(status, _)| is_taken(**status)).map(|(_, count)| count).sum()
    }

    fn note(&mut self, status: u16, took: Duration) {
        *self.statuses.entry(status).or_default() += 1;
        let latency = if is_taken(status) { &mut self.taken } else { &mut self.refused };
        latency.saturating_record(micros(took));
    }

    fn add(&mut self, other: Self) {
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.broken += other.broken;
        // Both resize by themselves.
        let _ = self.taken.add(other.taken);
        let _ = self.refused.add(other.refused);
    }
}

fn is_taken(status: u16) -> bool {
    matches!(status, 201 | 202)
}

/// Drives a server flat out for this time.
pub(crate) async fn drive(
    server: SocketAddr,
    requests: &Arc<Requests>,
    connections: u16,
    time: Duration,
) -> Result<Driven, Failure> {
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Http::open(server).await?);
    }
    let start = Instant::now();
    let mut producers = JoinSet::new();
    for (index, http) in opened.into_iter().enumerate() {
        producers.spawn(produce(server, http, requests.clone(), index, start + time));
    }
    let mut all = Driven::new();
    while let Some(one) = producers.join_next().await {
        all.add(one.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?);
    }
    all.took = start.elapsed();
    Ok(all)
}

async fn produce(
    server: SocketAddr,
    mut http: Http,
    requests: Arc<Requests>,
    first: usize,
    end: Instant,
) -> Result<Driven, Failure> {
    let mut driven = Driven::new();
    for request in requests.0.iter().cycle().skip(first % REQUESTS) {
        let before = Instant::now();
        if before >= end {
            break;
        }
        match http.ask(request).await {
            Ok(answer) => driven.note(answer.status, before.elapsed()),
            Err(_) => {
                driven.broken += 1;
                http = Http::open(server).await?;
            }
        }
    }
    Ok(driven)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stub::{self, Mistake};

    #[tokio::test]
    async fn what_is_driven_is_answered_and_counted() {
        let (server, _running) = stub::start(Mistake::None).await.unwrap();
        let shape = Shape { connections: 3, batch: 2, hasty: false };
        let requests = Requests::build("test.event", shape, 800);
        let driven = drive(server, &requests, shape.connections, Duration::from_millis(50)).await.unwrap();
        assert!(driven.posts_taken() >= 3, "{:?}", driven.statuses);
        assert_eq!(driven.statuses.keys().collect::<Vec<_>>(), [&201]);
        assert_eq!((driven.broken, driven.refused.len()), (0, 0));
        assert_eq!(driven.taken.len(), driven.posts_taken());
    }
}
