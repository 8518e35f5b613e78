//! HTTP/1.1 as bytes, so that tests can assert them. Every wait ends at a deadline: a missing byte fails and does not
//! hang.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::PATIENCE;

/// A connection, and what was read of it but not yet asked for.
pub struct Raw {
    pub io: TcpStream,
    unread: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct Head {
    /// Version, status and reason.
    pub line: String,
    headers: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::with_receive_buffer(address, None).await
    }

    /// A loopback address that nobody else here has: another client, as far as the server can tell.
    pub fn somebody_new() -> Ipv4Addr {
        static NEXT: AtomicU32 = AtomicU32::new(0x7f01_0000);
        Ipv4Addr::from_bits(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub async fn as_somebody_new(server: SocketAddr) -> Self {
        Self::from(Self::somebody_new(), server).await
    }

    /// From this loopback address.
    pub async fn from(address: Ipv4Addr, server: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((address, 0).into()).expect("an address of the loopback");
        let io = within("a connection", socket.connect(server)).await.expect("a connection");
        Self { io, unread: Vec::new() }
    }

    /// A small buffer makes a reader that stops reading felt soon.
    pub async fn with_receive_buffer(address: SocketAddr, bytes: Option<u32>) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        if let Some(bytes) = bytes {
            socket.set_recv_buffer_size(bytes).expect("a buffer");
        }
        let io = within("a connection", socket.connect(address)).await.expect("a connection");
        Self { io, unread: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("the peer to read", self.io.write_all(bytes.as_ref())).await.expect("the peer reads");
    }

    /// All of it, or as much as the peer takes before it answers: what comes back is read meanwhile.
    pub async fn send_what_is_taken(&mut self, bytes: &[u8]) {
        let (mut reads, mut writes) = self.io.split();
        let read = async {
            // A byte of the answer is enough to stop for.
            let _ = reads.read_buf(&mut self.unread).await;
        };
        tokio::select! {
            biased;
            _ = within("the peer to read", writes.write_all(bytes)) => {}
            () = read => {}
        }
    }

    /// Waits until the peer has closed, in whatever way. What came before that is dropped.
    pub async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        let closed = timeout(PATIENCE, async { while matches!(self.io.read_buf(&mut rest).await, Ok(1..)) {} });
        closed.await.is_ok()
    }

    /// `headers` are whole lines.
    pub async fn get(&mut self, target: &str, headers: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
        self.answer().await
    }

    pub async fn post(&mut self, body: &str) -> Answer {
        self.post_as("Content-Type: application/json\r\n", body.as_bytes()).await
    }

    /// `headers` are whole lines.
    pub async fn post_as(&mut self, headers: &str, body: &[u8]) -> Answer {
        self.post_to("/v1/events", headers, body).await
    }

    /// `headers` are whole lines.
    pub async fn post_to(&mut self, target: &str, headers: &str, body: &[u8]) -> Answer {
        let length = body.len();
        let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n");
        self.send([head.as_bytes(), body].concat()).await;
        self.answer().await
    }

    pub async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        Answer { body: self.body_of(&head).await, head }
    }

    pub async fn body_of(&mut self, head: &Head) -> Vec<u8> {
        match (head.header("transfer-encoding"), head.header("content-length")) {
            (Some(_), _) => self.chunks_to_the_end().await,
            (None, Some(length)) => self.take(length.parse().expect("a length")).await,
            (None, None) => Vec::new(),
        }
    }

    pub async fn head(&mut self) -> Head {
        let text = self.take_through(b"\r\n\r\n").await;
        let text = String::from_utf8(text).expect("an ASCII head");
        let (line, headers) = text.trim_end().split_once("\r\n").unwrap_or((text.trim_end(), ""));
        let header = |line: &str| {
            let (name, value) = line.split_once(':').expect("a header");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        Head { line: line.to_owned(), headers: headers.split("\r\n").filter(|h| !h.is_empty()).map(header).collect() }
    }

    /// What one HTTP chunk holds; empty for the last one.
    pub async fn chunk(&mut self) -> Vec<u8> {
        let size = String::from_utf8(self.take_through(b"\r\n").await).expect("a size");
        let size = usize::from_str_radix(size.trim_end(), 16).expect("a size in hex");
        let mut chunk = self.take(size + 2).await;
        assert_eq!(chunk.split_off(size), b"\r\n", "a chunk ends with a line break");
        chunk
    }

    async fn chunks_to_the_end(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            match self.chunk().await {
                end if end.is_empty() => return body,
                chunk => body.extend(chunk),
            }
        }
    }

    pub async fn take(&mut self, bytes: usize) -> Vec<u8> {
        while self.unread.len() < bytes {
            self.more().await;
        }
        let rest = self.unread.split_off(bytes);
        std::mem::replace(&mut self.unread, rest)
    }

    /// Up to the end of this pattern.
    pub async fn take_through(&mut self, pattern: &[u8]) -> Vec<u8> {
        let mut searched = 0;
        loop {
            let from = searched - searched.min(pattern.len());
            if let Some(at) = self.unread[from..].windows(pattern.len()).position(|window| window == pattern) {
                return self.take(from + at + pattern.len()).await;
            }
            searched = self.unread.len();
            self.more().await;
        }
    }

    /// Everything until the peer closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.read().await > 0 {}
        std::mem::take(&mut self.unread)
    }

    async fn more(&mut self) {
        let read = self.read().await;
        assert!(read > 0, "the peer closed after: {}", String::from_utf8_lossy(&self.unread));
    }

    async fn read(&mut self) -> usize {
        match timeout(PATIENCE, self.io.read_buf(&mut self.unread)).await {
            Ok(read) => read.expect("the connection holds"),
            Err(_) => panic!("waited for more bytes after {:?}", String::from_utf8_lossy(&self.unread)),
        }
    }
}

async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited for {what}"))
}

impl Head {
    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }

    pub fn reason(&self) -> &str {
        self.line.splitn(3, ' ').nth(2).unwrap_or_default()
    }

    /// The first of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    pub fn header(&self, name: &str) -> &str {
        self.head.header(name).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// An open stream, chunk by chunk.
pub struct Stream {
    pub raw: Raw,
    pub head: Head,
}

/// One event, as its block has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    pub retry: Option<u64>,
    pub data: String,
}

impl Stream {
    pub async fn open(address: SocketAddr, target: &str, headers: &str) -> Self {
        Self::open_on(Raw::connect(address).await, target, headers).await
    }

    pub async fn open_on(mut raw: Raw, target: &str, headers: &str) -> Self {
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
        let head = raw.head().await;
        if head.status() != 200 {
            panic!("{target} {headers} is refused: {head:?}");
        }
        assert_eq!(raw.chunk().await, b":ok\n\n", "the first bytes of a stream");
        Self { raw, head }
    }

    /// The next event. Comments and heartbeats may stand before it, each in a chunk of its own.
    pub async fn event(&mut self) -> Event {
        self.event_or_end().await.expect("the stream goes on")
    }

    pub async fn event_or_end(&mut self) -> Option<Event> {
        let next = async {
            loop {
                let chunk = self.raw.chunk().await;
                let text = String::from_utf8(chunk).expect("UTF-8");
                let farewell = text.starts_with("retry: ");
                if text.is_empty() || !(text.starts_with(':') || farewell) {
                    return Some(text).filter(|text| !text.is_empty()).map(|text| Event::parse(&text));
                }
            }
        };
        // Heartbeats alone would keep it waiting.
        within("an event", next).await
    }
}

impl Stream {
    /// The next event of which this holds. A live reader starts where the tail is, which may be a moment behind what has
    /// been acknowledged.
    pub async fn event_where(&mut self, holds: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.event().await;
            if holds(&event) {
                return event;
            }
        }
    }

    /// The numbers of the next events, up to and with the one of which this holds.
    pub async fn numbers_until(&mut self, last: impl Fn(&[i64]) -> bool) -> Vec<i64> {
        let mut numbers = Vec::new();
        while !last(&numbers) {
            numbers.push(self.event().await.json()["number"].as_i64().expect("a number"));
        }
        numbers
    }
}

impl Event {
    /// A whole block and nothing else, its lines in the order that is promised.
    pub fn parse(block: &str) -> Self {
        let parsed = || {
            let rest = block.strip_prefix("event: message\nid: ")?;
            let (id, rest) = rest.split_once('\n')?;
            let (retry, rest) = match rest.strip_prefix("retry: ") {
                Some(rest) => rest.split_once('\n').map(|(retry, rest)| (Some(retry), rest))?,
                None => (None, rest),
            };
            let data = rest.strip_prefix("data: ")?.strip_suffix("\n\n")?;
            let one_line = !data.contains(['\n', '\r']) && !id.contains('\r');
            let retry = retry.map(|retry| retry.parse().expect("a number"));
            one_line.then(|| Self { id: id.to_owned(), retry, data: data.to_owned() })
        };
        parsed().unwrap_or_else(|| panic!("not one whole event: {block:?}"))
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}
