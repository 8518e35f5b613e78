//! From stdin to batches.

use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::lines::{Event, Line, Lines};
use super::report::Report;
use crate::shutdown::{Stage, Stop};

/// Bytes of one read of stdin.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that are read ahead of what is sent. When there are as many, stdin is not read on.
const CHUNKS_AHEAD_MAX: usize = 16;
/// Bytes of one batch, unless its only event has more.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How long the first event of a batch waits for others.
const GATHER_AT_MOST: Duration = Duration::from_millis(100);

/// Lines of stdin, in their order.
pub(super) struct Input {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    lines: Lines,
    /// An event that had no place in the batch before.
    held: Option<Event>,
    ended: bool,
}

impl Input {
    /// Reads on a thread of its own: nothing else can be done about a read that blocks. It ends with the process.
    pub(super) fn of(mut source: impl Read + Send + 'static) -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD_MAX);
        std::thread::spawn(move || {
            let mut buffer = vec![0; CHUNK_BYTES];
            loop {
                let chunk = match source.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(bytes) => Ok(Bytes::copy_from_slice(&buffer[..bytes])),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) => Err(e),
                };
                let failed = chunk.is_err();
                if sender.blocking_send(chunk).is_err() || failed {
                    return;
                }
            }
        });
        Self { chunks, lines: Lines::default(), held: None, ended: false }
    }

    /// The next events: as many as may be sent at once, or those that came before stdin paused. None at all: stdin has
    /// ended, or the stop has come. Lines that are no events are refused on the way.
    pub(super) async fn batch(&mut self, events_max: usize, stop: &mut Stop, report: &mut Report) -> Vec<Event> {
        let mut batch: Vec<Event> = Vec::new();
        let mut bytes = 0;
        let mut send_by = None;
        while batch.len() < events_max {
            let line = match send_by {
                None => tokio::select! {
                    biased;
                    () = stop.reached(Stage::EndStreams) => break,
                    line = self.next(report) => line,
                },
                Some(send_by) => match timeout_at(send_by, self.next(report)).await {
                    Ok(line) => line,
                    Err(_) => break,
                },
            };
            match line {
                None => break,
                Some((number, Err(error))) => report.refused(number, error.code(), &error.to_string()),
                Some((_, Ok(event))) if !batch.is_empty() && bytes + event.json.len() > BATCH_BYTES_MAX => {
                    self.held = Some(event);
                    break;
                }
                Some((_, Ok(event))) => {
                    bytes += event.json.len();
                    batch.push(event);
                    send_by = send_by.or_else(|| Some(Instant::now() + GATHER_AT_MOST));
                }
            }
        }
        batch
    }

    /// The first line that was read and is in no batch. It is asked last.
    pub(super) fn left(mut self) -> Option<u64> {
        while let Ok(Ok(chunk)) = self.chunks.try_recv() {
            self.lines.push(chunk);
        }
        let line = self.held.map(|event| event.line);
        line.or_else(|| self.lines.next().or_else(|| self.lines.last()).map(|(number, _)| number))
    }

    /// Loses nothing when it is dropped before it is ready.
    async fn next(&mut self, report: &mut Report) -> Option<Line> {
        if let Some(event) = self.held.take() {
            return Some((event.line, Ok(event)));
        }
        loop {
            if let Some(line) = self.lines.next() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            match self.chunks.recv().await {
                Some(Ok(chunk)) => self.lines.push(chunk),
                Some(Err(error)) => {
                    self.ended = true;
                    report.input_failed(&error);
                }
                None => {
                    self.ended = true;
                    return self.lines.last();
                }
            }
        }
    }
}
