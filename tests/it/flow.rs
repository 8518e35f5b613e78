//! Producers and readers that live through servers that come and go, and note all that a client could complain of.
//!
//! Each event has a number, which says its stream, too. A producer either opens a connection for each POST or keeps one
//! for as long as the server does; a reader goes on where it was, at whichever server there is.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use crate::support::PATIENCE;

/// How often a balancer asks who is ready.
const LOOKS_EVERY: Duration = Duration::from_millis(100);
/// How often one producer posts.
const POSTS_EVERY: Duration = Duration::from_millis(50);
/// The number of the last event of a stream.
const END: u64 = u64::MAX;

/// Where requests go: to the servers that are ready, in turn.
pub struct Balancer {
    ready: watch::Sender<Vec<SocketAddr>>,
    turn: AtomicUsize,
}

impl Balancer {
    pub fn to(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self { ready: watch::Sender::new(vec![address]), turn: AtomicUsize::new(0) })
    }

    /// Asks for as long as the task runs.
    pub fn between(servers: &[SocketAddr]) -> (Arc<Self>, JoinSet<()>) {
        let this = Arc::new(Self { ready: watch::Sender::new(servers.to_vec()), turn: AtomicUsize::new(0) });
        let (mut task, asking, servers) = (JoinSet::new(), this.clone(), servers.to_vec());
        task.spawn(async move {
            let mut look = interval(LOOKS_EVERY);
            loop {
                look.tick().await;
                let mut ready = Vec::new();
                for server in &servers {
                    let asked = Client::default().ask(*server, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").await;
                    if asked.is_ok_and(|answer| answer.status == 200) {
                        ready.push(*server);
                    }
                }
                asking.ready.send_if_modified(|known| {
                    let changed = *known != ready;
                    *known = ready;
                    changed
                });
            }
        });
        (this, task)
    }

    async fn next(&self) -> SocketAddr {
        let mut ready = self.ready.subscribe();
        let ready = timeout(PATIENCE, ready.wait_for(|ready| !ready.is_empty())).await.expect("a server that is ready");
        let ready = ready.expect("a balancer");
        ready[self.turn.fetch_add(1, Ordering::Relaxed) % ready.len()]
    }
}

/// What happened to a POST or a stream that should not have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Complaint {
    Refused,
    Reset {
        reused: bool,
    },
    /// Before its answer.
    Closed {
        reused: bool,
    },
    Status(u16),
    /// A stream that ended without the last chunk.
    Cut,
}

struct Answered {
    status: u16,
    closes: bool,
}

/// One connection, or none yet.
#[derive(Default)]
struct Client {
    io: Option<TcpStream>,
}

impl Client {
    async fn ask(&mut self, server: SocketAddr, request: &str) -> Result<Answered, Complaint> {
        let (mut io, reused) = match self.io.take() {
            Some(io) => (io, true),
            None => (connect(server).await?, false),
        };
        let answer = timeout(PATIENCE, exchange(&mut io, request)).await.expect("an answer in time");
        let answered = answer.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Complaint::Closed { reused },
            _ => Complaint::Reset { reused },
        })?;
        self.io = (!answered.closes).then_some(io);
        Ok(answered)
    }
}

async fn connect(server: SocketAddr) -> Result<TcpStream, Complaint> {
    let connected = timeout(PATIENCE, TcpStream::connect(server)).await.expect("an answer of the kernel's");
    connected.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => Complaint::Refused,
        _ => Complaint::Reset { reused: false },
    })
}

async fn exchange(io: &mut TcpStream, request: &str) -> io::Result<Answered> {
    io.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    io.read_exact(&mut vec![0; length]).await?;
    Ok(Answered { status, closes: head.contains("\r\nconnection: close") })
}

/// A load, and what came of it.
pub struct Flow {
    balancer: Arc<Balancer>,
    streams: Vec<String>,
    numbers: AtomicU64,
    stop: AtomicBool,
    accepted: Mutex<HashMap<u64, usize>>,
    complaints: Mutex<BTreeMap<Complaint, usize>>,
    /// Longest wait for an answer, in milliseconds.
    slowest: AtomicU64,
}

/// Tasks that end when the load does.
pub struct Clients {
    producers: JoinSet<()>,
    readers: JoinSet<Read>,
}

/// What a reader had.
struct Read {
    stream: usize,
    numbers: Vec<u64>,
    resumed: usize,
}

/// In figures.
#[derive(Debug)]
pub struct Summary {
    pub accepted: usize,
    pub resumed: usize,
    pub slowest: Duration,
    pub complaints: BTreeMap<Complaint, usize>,
}

impl Flow {
    pub fn new(balancer: Arc<Balancer>, streams: &[String]) -> Arc<Self> {
        Arc::new(Self {
            balancer,
            streams: streams.to_vec(),
            numbers: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            accepted: Mutex::default(),
            complaints: Mutex::default(),
            slowest: AtomicU64::new(0),
        })
    }

    /// Half of the producers keep their connections. Readers are there before the first event.
    pub async fn start(self: &Arc<Self>, posts_per_second: usize, readers: usize) -> Clients {
        let mut clients = Clients { producers: JoinSet::new(), readers: JoinSet::new() };
        let (connected, mut all) = watch::channel(0);
        for number in 0..readers {
            let (flow, connected) = (self.clone(), connected.clone());
            clients.readers.spawn(async move { flow.read(number % flow.streams.len(), connected).await });
        }
        let all = timeout(PATIENCE, all.wait_for(|connected| *connected >= readers)).await;
        all.expect("readers that connect in time").expect("readers");
        let producers = posts_per_second * usize::try_from(POSTS_EVERY.as_millis()).expect("a few") / 1000;
        for number in 0..producers.max(2) {
            let flow = self.clone();
            clients.producers.spawn(async move { flow.produce(number % 2 == 0).await });
        }
        clients
    }

    pub async fn accepted(&self) -> usize {
        self.accepted.lock().await.len()
    }

    /// So many more than now.
    pub async fn until_accepted(&self, more: usize) {
        let goal = self.accepted().await + more;
        let flows = crate::support::eventually(PATIENCE, async || self.accepted().await >= goal).await;
        assert!(flows, "the load has dried up: {:?}", self.complaints.lock().await);
    }

    /// Ends the load, and checks that every reader had every event that was accepted, and none twice.
    pub async fn finish(self: &Arc<Self>, mut clients: Clients) -> Summary {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = clients.producers.join_next().await {
            ended.unwrap_or_else(|fault| std::panic::resume_unwind(fault.into_panic()));
        }
        for stream in 0..self.streams.len() {
            let body = self.event(stream, END);
            let asked = Client::default().ask(self.balancer.next().await, &post(&body)).await;
            assert!(asked.is_ok_and(|answer| answer.status == 201), "the last event of {stream}");
        }
        let accepted = self.accepted.lock().await.clone();
        let mut resumed = 0;
        while let Some(read) = timeout(PATIENCE, clients.readers.join_next()).await.expect("readers that end") {
            let Read { stream, mut numbers, resumed: times } =
                read.unwrap_or_else(|fault| std::panic::resume_unwind(fault.into_panic()));
            resumed += times;
            numbers.sort_unstable();
            assert!(numbers.windows(2).all(|two| two[0] != two[1]), "a reader of stream {stream} had an event twice");
            let lost: Vec<_> = accepted
                .iter()
                .filter(|(number, of)| **of == stream && numbers.binary_search(number).is_err())
                .collect();
            assert!(lost.is_empty(), "answered 201, and not read by a reader of stream {stream}: {lost:?}");
        }
        Summary {
            accepted: accepted.len(),
            resumed,
            slowest: Duration::from_millis(self.slowest.load(Ordering::Relaxed)),
            complaints: self.complaints.lock().await.clone(),
        }
    }

    async fn produce(&self, keeps: bool) {
        let mut client = Client::default();
        let mut due = interval(POSTS_EVERY);
        while !self.stop.load(Ordering::Relaxed) {
            due.tick().await;
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let stream = usize::try_from(number).expect("a few") % self.streams.len();
            let request = post(&self.event(stream, number));
            let asked = Instant::now();
            match client.ask(self.balancer.next().await, &request).await {
                Ok(Answered { status: 201, .. }) => _ = self.accepted.lock().await.insert(number, stream),
                Ok(Answered { status, .. }) => self.complain(Complaint::Status(status)).await,
                Err(complaint) => self.complain(complaint).await,
            }
            let took = u64::try_from(asked.elapsed().as_millis()).expect("a few");
            self.slowest.fetch_max(took, Ordering::Relaxed);
            if !keeps {
                client = Client::default();
            }
        }
    }

    async fn complain(&self, complaint: Complaint) {
        *self.complaints.lock().await.entry(complaint).or_default() += 1;
    }

    /// Until the last event of the stream, on as many connections as it takes.
    async fn read(&self, stream: usize, connected: watch::Sender<usize>) -> Read {
        let mut read = Read { stream, numbers: Vec::new(), resumed: 0 };
        let mut at = String::new();
        loop {
            let server = self.balancer.next().await;
            // A balancer that has not noticed yet: the next try goes elsewhere.
            let Ok(mut io) = connect(server).await else { continue };
            let name = &self.streams[stream];
            let request = format!("GET /v2/stream/{name} HTTP/1.1\r\nHost: x\r\n{at}\r\n");
            if io.write_all(request.as_bytes()).await.is_err() {
                continue;
            }
            let mut session = Session::default();
            let ended = session.read(&mut io, &mut read, &connected).await;
            if let Some(id) = session.id {
                at = format!("Last-Event-ID: {id}\r\n");
            }
            match ended {
                Ok(true) => return read,
                Ok(false) if session.is_whole => {}
                _ => self.complain(Complaint::Cut).await,
            }
            read.resumed += 1;
        }
    }

    fn event(&self, stream: usize, number: u64) -> String {
        let meta = json!({ "stream": self.streams[stream], "id": format!("e{number}") });
        json!({ "$schema": "/test/event/1.0.0", "meta": meta, "test": number.to_string() }).to_string()
    }
}

fn post(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// One connection of a reader's, line by line. What chunks add are lines of their own.
#[derive(Default)]
struct Session {
    id: Option<String>,
    next_id: Option<String>,
    next: Option<u64>,
    is_whole: bool,
    counted: bool,
}

impl Session {
    /// Whether the last event has come.
    async fn read(
        &mut self,
        io: &mut TcpStream,
        read: &mut Read,
        connected: &watch::Sender<usize>,
    ) -> io::Result<bool> {
        let mut bytes = Vec::new();
        loop {
            let got = timeout(PATIENCE, io.read_buf(&mut bytes)).await.expect("a heartbeat, at least")?;
            if got == 0 {
                return Ok(false);
            }
            let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') else { continue };
            let rest = bytes.split_off(last + 1);
            let text = String::from_utf8(std::mem::replace(&mut bytes, rest)).expect("UTF-8");
            for line in text.lines() {
                if self.take(line, read) {
                    return Ok(true);
                }
                if line == ":ok" && !std::mem::replace(&mut self.counted, true) && read.resumed == 0 {
                    connected.send_modify(|connected| *connected += 1);
                }
            }
        }
    }

    fn take(&mut self, line: &str, read: &mut Read) -> bool {
        if let Some(id) = line.strip_prefix("id: ") {
            self.next_id = Some(id.to_owned());
        } else if let Some(data) = line.strip_prefix("data: ") {
            let event: Value = serde_json::from_str(data).expect("an event");
            self.next = event["test"].as_str().and_then(|number| number.parse().ok());
        } else if line.is_empty() {
            self.id = self.next_id.take().or(self.id.take());
            match self.next.take() {
                Some(END) => return true,
                Some(number) => read.numbers.push(number),
                None => {}
            }
        } else if line == "0" {
            self.is_whole = true;
        }
        false
    }
}
