//! Plain requests over one kept connection: the producers' side.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::failure::Failure;
use crate::wire::{Body, Chunks, Head};

/// Longer than any deadline of the server: past it, it hangs.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

pub(crate) struct Http {
    address: SocketAddr,
    socket: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Http {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let connect = async {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            Ok(socket)
        };
        let socket = connect.await.map_err(|source| Failure::Connection { address, source })?;
        Ok(Self { address, socket, request: Vec::new(), answer: Vec::new() })
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<String, Failure> {
        let answer = self.send(&format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address), b"").await?;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        match answer.status {
            200 => Ok(body),
            status => Err(Failure::Status { address: self.address, status, body }),
        }
    }

    /// Posts one event or an array of them; anything but 201 is a failure.
    pub(crate) async fn post(&mut self, events: &str) -> Result<(), Failure> {
        let head = format!(
            "POST /v1/events HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.address,
            events.len()
        );
        let answer = self.send(&head, events.as_bytes()).await?;
        let body = || String::from_utf8_lossy(&answer.body).chars().take(500).collect();
        match answer.status {
            201 => Ok(()),
            status => Err(Failure::Status { address: self.address, status, body: body() }),
        }
    }

    /// Sends a whole request as it is, whatever the answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<Answer, Failure> {
        let address = self.address;
        let answer = timeout(ANSWER_WAIT_MAX, self.exchange(request)).await;
        answer.map_err(|_| Failure::Connection { address, source: std::io::ErrorKind::TimedOut.into() })?
    }

    async fn send(&mut self, head: &str, body: &[u8]) -> Result<Answer, Failure> {
        let mut request = std::mem::take(&mut self.request);
        request.clear();
        request.extend_from_slice(head.as_bytes());
        request.extend_from_slice(body);
        let answer = self.ask(&request).await;
        self.request = request;
        answer
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Answer, Failure> {
        let address = self.address;
        let sent = self.socket.write_all(request).await;
        sent.map_err(|source| Failure::Connection { address, source })?;
        self.answer.clear();
        let head = loop {
            if let Some(head) = Head::parse(&self.answer).map_err(|what| Failure::Protocol { address, what })? {
                break head;
            }
            self.more().await?;
        };
        let body = match head.body {
            Body::Length(length) => self.exactly(head.length, length).await?,
            Body::Chunked => self.chunked(head.length).await?,
        };
        Ok(Answer { status: head.status, body })
    }

    async fn exactly(&mut self, start: usize, length: usize) -> Result<Vec<u8>, Failure> {
        while self.answer.len() < start + length {
            self.more().await?;
        }
        Ok(self.answer[start..start + length].to_vec())
    }

    async fn chunked(&mut self, mut read: usize) -> Result<Vec<u8>, Failure> {
        let (mut chunks, mut body) = (Chunks::default(), Vec::new());
        loop {
            let mut rest = &self.answer[read..];
            let piece = chunks.next(&mut rest).map_err(|what| Failure::Protocol { address: self.address, what })?;
            body.extend_from_slice(piece.unwrap_or_default());
            read = self.answer.len() - rest.len();
            if chunks.ended() {
                return Ok(body);
            }
            if rest.is_empty() {
                self.more().await?;
            }
        }
    }

    async fn more(&mut self) -> Result<(), Failure> {
        let read = self.socket.read_buf(&mut self.answer).await;
        let read =
            read.and_then(|bytes| if bytes == 0 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) });
        read.map_err(|source| Failure::Connection { address: self.address, source })
    }
}
