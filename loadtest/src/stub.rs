//! A server of a hundred lines for the tool's own tests, with mistakes that the tool must find.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::event::Stamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    None,
    /// The event at this offset is not delivered.
    Loses(usize),
    /// The event at this offset is delivered twice.
    Repeats(usize),
    /// The event at this offset changes places with the next.
    Swaps(usize),
    /// The stream ends before the event at this offset.
    Ends(usize),
    /// A reader that comes back gets the event after its place a second time.
    ResumesEarly,
}

/// The frames of all events so far, and when each was sent.
type Log = watch::Sender<Vec<(u64, Vec<u8>)>>;

/// Serves until the returned set is dropped.
pub(crate) async fn start(mistake: Mistake) -> std::io::Result<(SocketAddr, JoinSet<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut server = JoinSet::new();
    server.spawn(async move {
        let log: std::sync::Arc<Log> = std::sync::Arc::default();
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let log = log.clone();
            // A connection that fails is the other side's to notice.
            connections.spawn(async move { drop(serve(socket, &log, mistake).await) });
        }
    });
    Ok((address, server))
}

async fn serve(mut socket: TcpStream, log: &Log, mistake: Mistake) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
                break at + 4;
            }
            if socket.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes.drain(..end);
        if head.starts_with("GET") {
            return stream(socket, log, &head, mistake).await;
        }
        let length = number(&head, "content-length: ").unwrap_or(0);
        while bytes.len() < length {
            socket.read_buf(&mut bytes).await?;
        }
        append(log, &String::from_utf8_lossy(&bytes[..length]));
        bytes.drain(..length);
        socket.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").await?;
    }
}

fn append(log: &Log, body: &str) {
    const START: &str = "{\"$schema\"";
    log.send_modify(|log| {
        for event in body.split(START).skip(1) {
            let offset = log.len();
            // The end of the array, or the comma before the next one.
            let event = event.strip_suffix("}]").map_or(event.trim_end_matches(','), |_| &event[..event.len() - 1]);
            let event = format!("{START}{event}")
                .replace("\"meta\":{", &format!("\"meta\":{{\"partition\":0,\"offset\":{offset},"));
            let sent_us = Stamp::find(event.as_bytes()).map_or(0, |stamp| stamp.sent_us);
            let block = format!("event: message\nid: [{{\"offset\":{}}}]\ndata: {event}\n\n", offset + 1);
            log.push((sent_us, format!("{:x}\r\n{block}\r\n", block.len()).into_bytes()));
        }
    });
}

async fn stream(mut socket: TcpStream, log: &Log, head: &str, mistake: Mistake) -> std::io::Result<()> {
    let (mut watch, resuming) = (log.subscribe(), head.contains("last-event-id"));
    let mut next = match (number(head, "\"offset\":"), number(head, "since=")) {
        (Some(offset), _) => offset,
        (None, Some(since)) => watch.borrow().partition_point(|(sent_us, _)| sent_us / 1_000 < since as u64),
        (None, None) => watch.borrow().len(),
    };
    socket.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n:ok\n\n\r\n").await?;
    next -= usize::from(resuming && mistake == Mistake::ResumesEarly && next > 0);
    loop {
        let frames: Vec<Vec<u8>> =
            watch.borrow_and_update().iter().skip(next).map(|(_, frame)| frame.clone()).collect();
        for frame in frames {
            match mistake {
                Mistake::Loses(at) if at == next => {}
                Mistake::Repeats(at) if at == next => socket.write_all(&frame.repeat(2)).await?,
                Mistake::Swaps(at) if at == next => {}
                Mistake::Swaps(at) if at + 1 == next => {
                    let swapped = watch.borrow()[at].1.clone();
                    socket.write_all(&[frame, swapped].concat()).await?;
                }
                Mistake::Ends(at) if at == next => return socket.write_all(b"0\r\n\r\n").await,
                _ => socket.write_all(&frame).await?,
            }
            next += 1;
        }
        if watch.changed().await.is_err() {
            return Ok(());
        }
    }
}

fn number(text: &str, before: &str) -> Option<usize> {
    let (_, rest) = text.split_once(before)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
