//! One open event stream, from a loopback address of its own choice. Bytes pass through one buffer per thread, so
//! that an idle reader holds none.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::failure::Failure;
use crate::wire::{Blocks, Body, Chunks, Head};

/// What a socket may bring at once.
const READ_BYTES: usize = 256 * 1024;
/// The server answers within 2 s even where its log does not.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(30);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// What a reader asks for, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) server: SocketAddr,
    pub(crate) source: Ipv4Addr,
    pub(crate) path: String,
    pub(crate) last_event_id: Option<String>,
}

pub(crate) struct Stream {
    socket: TcpStream,
    chunks: Chunks,
    blocks: Blocks,
    /// What came along with the head.
    early: Vec<u8>,
}

/// Whether the stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Open,
    /// The server ended it.
    Ended,
    /// The caller wanted no more.
    Left,
}

impl Stream {
    /// Returns when the head has come.
    pub(crate) async fn open(ask: &Ask) -> Result<Self, Failure> {
        let address = ask.server;
        let opening = timeout(HEAD_WAIT_MAX, Self::ask(ask)).await;
        let opening = opening.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let (socket, bytes, head) = opening.map_err(|source| Failure::Connection { address, source })?;
        let early = bytes[head.length..].to_vec();
        match head {
            Head { status: 200, body: Body::Chunked, .. } => {
                Ok(Self { socket, chunks: Chunks::default(), blocks: Blocks::default(), early })
            }
            Head { status: 200, .. } => Err(Failure::Protocol { address, what: "a stream that is not chunked" }),
            Head { status, .. } => {
                Err(Failure::Status { address, status, body: String::from_utf8_lossy(&early).into() })
            }
        }
    }

    async fn ask(ask: &Ask) -> io::Result<(TcpStream, Vec<u8>, Head)> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(IpAddr::V4(ask.source), 0))?;
        let socket = socket.connect(ask.server).await?;
        let id = ask.last_event_id.as_ref().map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let request = format!(
            "GET {} HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\nuser-agent: sluice-loadtest\r\n{id}\r\n",
            ask.path, ask.server
        );
        send(&socket, request.as_bytes()).await?;
        let mut bytes = Vec::new();
        loop {
            let read = read(&socket, |piece| bytes.extend_from_slice(piece)).await?;
            let head = Head::parse(&bytes).map_err(io::Error::other)?;
            match head {
                Some(head) => return Ok((socket, bytes, head)),
                None if read == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => {}
            }
        }
    }

    /// Waits for what comes next and hands over the blocks that it completes. Cancel-safe.
    pub(crate) async fn next(&mut self, mut on: impl FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<Flow> {
        let Self { socket, chunks, blocks, early } = self;
        if !early.is_empty() {
            return take(chunks, blocks, &std::mem::take(early), &mut on);
        }
        let mut flow = Ok(Flow::Open);
        match read(socket, |piece| flow = take(chunks, blocks, piece, &mut on)).await? {
            0 => Ok(Flow::Ended),
            _ => flow,
        }
    }
}

fn take(
    chunks: &mut Chunks,
    blocks: &mut Blocks,
    mut bytes: &[u8],
    on: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<Flow> {
    while let Some(piece) = chunks.next(&mut bytes).map_err(io::Error::other)? {
        if blocks.feed(piece, &mut *on).is_break() {
            return Ok(Flow::Left);
        }
    }
    Ok(if chunks.ended() { Flow::Ended } else { Flow::Open })
}

async fn read(socket: &TcpStream, mut on: impl FnMut(&[u8])) -> io::Result<usize> {
    loop {
        socket.readable().await?;
        let read = SCRATCH.with_borrow_mut(|scratch| {
            let bytes = socket.try_read(scratch)?;
            on(&scratch[..bytes]);
            Ok(bytes)
        });
        match read {
            Err(error) if io::Error::kind(&error) == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}

async fn send(socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
