//! An EventStreamConfig API of the test's own, with the manners of the real one: at most so many values in a parameter,
//! answers in parts, errors with status 200. And with every fault that one has been seen to have.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};

/// Values that one parameter takes.
const VALUES_MAX: usize = 50;

/// What goes wrong with every answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Status(u16),
    /// The connection ends in the middle of the body.
    Cut,
    /// The body's length is right, and the JSON is not whole.
    HalfJson,
    Html,
    /// `error` with status 200.
    Error,
    /// As older ones do with too many values.
    Warnings,
    NoStreams,
    EmptyMap,
    /// Only so many streams are left.
    Shrunk(usize),
    /// Every part says that there is another one, the same.
    Endless,
    /// Never answers.
    Hang,
}

/// Closed when it is dropped.
pub struct Api {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    streams: Mutex<Map<String, Value>>,
    faults: Mutex<Vec<Fault>>,
    /// Every second answer has none of the faults.
    flapping: Mutex<bool>,
    part: Mutex<Option<usize>>,
    asked: AtomicUsize,
}

impl Api {
    pub async fn start(streams: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::<Shared>::default();
        let serving = Handle::current().spawn(serve(listener, shared.clone()));
        let api = Self { address, shared, serving };
        api.set(streams);
        api
    }

    /// These are the streams from now on.
    pub fn set(&self, streams: Value) {
        *self.shared.streams.lock() = streams.as_object().expect("a map").clone();
    }

    /// Answers come in parts of so many streams.
    pub fn in_parts_of(&self, streams: usize) {
        *self.shared.part.lock() = Some(streams);
    }

    /// Every answer has this fault, until another one is named.
    pub fn fail(&self, fault: Option<Fault>) {
        *self.shared.flapping.lock() = false;
        *self.shared.faults.lock() = fault.into_iter().collect();
    }

    /// Good answers and these faults, in turn.
    pub fn flap(&self, faults: &[Fault]) {
        *self.shared.flapping.lock() = true;
        *self.shared.faults.lock() = faults.to_vec();
    }

    /// Requests so far.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    pub fn url(&self) -> String {
        format!("http://{}/w/api.php?action=streamconfigs", self.address)
    }

    /// The same with a list of streams.
    pub fn url_of(&self, streams: &[String]) -> String {
        format!("{}&streams={}", self.url(), streams.join("%7C"))
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((io, _)) = accepted {
                    connections.spawn_on(answer(io, shared.clone()), &Handle::current());
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(mut io: TcpStream, shared: Arc<Shared>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(io.read_buf(&mut head).await, Ok(1..)) {
            return;
        }
    }
    let head = String::from_utf8_lossy(&head);
    let target = head.split(' ').nth(1).unwrap_or_default();
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let get =
        |name: &str| form_urlencoded::parse(query.as_bytes()).find(|(own, _)| own == name).map(|(_, value)| value);
    assert_eq!(get("formatversion").as_deref(), Some("2"), "{target}");
    let number = shared.asked.fetch_add(1, Ordering::SeqCst);
    let fault = shared.fault(number);
    if fault == Some(Fault::Hang) {
        return std::future::pending().await;
    }
    let status = if let Some(Fault::Status(status)) = fault { status } else { 200 };
    let from = get("scfrom").and_then(|from| from.parse().ok()).unwrap_or(0);
    let body = shared.body(get("streams").as_deref(), get("constraints").as_deref(), from, fault);
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let sent = if fault == Some(Fault::Cut) { body.len() / 2 } else { body.len() };
    let _ = io.write_all(head.as_bytes()).await;
    let _ = io.write_all(&body.as_bytes()[..sent]).await;
    let _ = io.shutdown().await;
}

impl Shared {
    fn fault(&self, number: usize) -> Option<Fault> {
        let faults = self.faults.lock();
        match *self.flapping.lock() {
            true if number.is_multiple_of(2) => None,
            true => faults.get(number / 2 % faults.len()).copied(),
            false => faults.first().copied(),
        }
    }

    fn body(&self, asked: Option<&str>, constraints: Option<&str>, from: usize, fault: Option<Fault>) -> String {
        let mut streams = self.streams.lock().clone();
        if let Some(asked) = asked {
            let asked: Vec<&str> = asked.split('|').collect();
            if asked.len() > VALUES_MAX {
                return json!({"error": {"code": "toomanyvalues", "info": "Too many values"}}).to_string();
            }
            streams.retain(|name, _| asked.contains(&name.as_str()));
        }
        if let Some(service) = constraints.and_then(|text| text.strip_prefix("destination_event_service=")) {
            streams.retain(|_, settings| settings["destination_event_service"] == service);
        }
        if let Some(Fault::Shrunk(left)) = fault {
            streams = streams.into_iter().take(left).collect();
        }
        let mut answer = json!({});
        if let Some(part) = *self.part.lock() {
            if from + part < streams.len() {
                answer["continue"] = json!({"scfrom": from + part, "continue": "-||"});
            }
            streams = streams.into_iter().skip(from).take(part).collect();
        }
        // As PHP writes an empty map.
        answer["streams"] = if streams.is_empty() { json!([]) } else { Value::Object(streams) };
        spoiled(answer, fault)
    }
}

fn spoiled(mut answer: Value, fault: Option<Fault>) -> String {
    match fault {
        Some(Fault::Error) => return json!({"error": {"code": "internal_api_error", "info": "x"}}).to_string(),
        Some(Fault::Warnings) => answer["warnings"] = json!({"streamconfigs": "Too many values, cut to 50"}),
        Some(Fault::NoStreams) => return json!({"batchcomplete": true}).to_string(),
        Some(Fault::EmptyMap) => answer["streams"] = json!({}),
        Some(Fault::Endless) => answer["continue"] = json!({"scfrom": "0"}),
        Some(Fault::Html) => return "<html>sorry</html>".to_owned(),
        Some(Fault::HalfJson) => {
            let whole = answer.to_string();
            return whole[..whole.len() / 2].to_owned();
        }
        _ => {}
    }
    answer.to_string()
}

/// So many streams, each with a topic of its name.
pub fn many(count: usize) -> Value {
    let stream = |at: usize| (name(at), json!({"schema_title": "test/event", "topics": [name(at)]}));
    Value::Object((0..count).map(stream).collect())
}

pub fn name(at: usize) -> String {
    format!("s{at:04}")
}
