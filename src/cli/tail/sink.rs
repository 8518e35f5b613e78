//! Where events go.

use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::line;
use super::sse::Block;

/// What is printed at once, unless one event has more. Behind this nothing is read.
const BATCH_BYTES: usize = 256 << 10;

/// Columns where nobody says how wide the terminal is.
const COLUMNS_DEFAULT: usize = 100;

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// A line for people.
    Lines { colour: bool },
    /// The documents, a line each.
    Json,
    /// All that the server sends. On a terminal nothing of it may move the cursor.
    Wire { on_terminal: bool },
}

impl Look {
    pub(super) fn of(raw: bool, on_terminal: bool, colour: bool) -> Self {
        match (raw, on_terminal) {
            (true, on_terminal) => Self::Wire { on_terminal },
            (false, true) => Self::Lines { colour },
            (false, false) => Self::Json,
        }
    }
}

/// Nothing more is to be printed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// As many as were wanted.
    Enough,
    NobodyReads,
    /// Such as a full disk.
    Failed(String),
}

/// Gathers what is to be printed, and prints it where that holds up nobody.
pub(super) struct Sink {
    out: Arc<Mutex<Box<dyn Write + Send>>>,
    batch: Vec<u8>,
    look: Look,
    /// Events that are still wanted.
    left: Option<u64>,
}

impl Sink {
    pub(super) fn new(out: Box<dyn Write + Send>, look: Look, count: Option<u64>) -> Self {
        Self { out: Arc::new(Mutex::new(out)), batch: Vec::new(), look, left: count }
    }

    /// Whether it prints more of a block than its event.
    pub(super) fn wants_wire(&self) -> bool {
        matches!(self.look, Look::Wire { .. })
    }

    /// To be flushed before more is gathered.
    pub(super) fn is_full(&self) -> bool {
        self.batch.len() >= BATCH_BYTES
    }

    /// Gathers a block. `Full`: it was the last that was wanted.
    pub(super) fn block(&mut self, block: &Block) -> Result<(), Full> {
        let event = block.data.as_ref().filter(|_| !block.is_error);
        match (self.look, event) {
            (Look::Wire { on_terminal: false }, _) => self.batch.extend_from_slice(&block.wire),
            (Look::Wire { on_terminal: true }, _) => {
                let wire = String::from_utf8_lossy(&block.wire);
                wire.lines().for_each(|line| self.line(&line::printable(line)));
            }
            (Look::Json, Some(data)) => self.json(data),
            (Look::Lines { colour }, Some(data)) => self.line(&line::of(data, columns(), colour)),
            (_, None) => {}
        }
        match &mut self.left {
            Some(left) if event.is_some() => {
                *left = left.saturating_sub(1);
                if *left == 0 { Err(Full::Enough) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    /// Prints what was gathered. On a thread that may be blocked for as long as nobody reads: a signal is heard all the
    /// same.
    pub(super) async fn flush(&mut self) -> Result<(), Full> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let (batch, out) = (std::mem::take(&mut self.batch), self.out.clone());
        let print = move || {
            let mut out = out.lock();
            out.write_all(&batch).and_then(|()| out.flush()).map(|()| batch)
        };
        let printed = tokio::task::spawn_blocking(print).await.unwrap_or_else(|e| Err(io::Error::other(e)));
        let batch = printed.map_err(|e| match e.kind() {
            io::ErrorKind::BrokenPipe => Full::NobodyReads,
            _ => Full::Failed(format!("the output cannot be written: {e}")),
        })?;
        if batch.capacity() <= 2 * BATCH_BYTES {
            self.batch = batch;
            self.batch.clear();
        }
        Ok(())
    }

    fn line(&mut self, line: &str) {
        self.batch.extend_from_slice(line.as_bytes());
        self.batch.push(b'\n');
    }

    /// Line ends between tokens are the only ones that JSON has.
    fn json(&mut self, data: &[u8]) {
        self.batch.extend(data.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }));
        self.batch.push(b'\n');
    }
}

/// Until nobody reads stdout any more: a quiet stream would not show it for hours. Waits on a thread of its own, which
/// ends with the process.
pub(super) async fn unread() {
    let (sender, unread) = oneshot::channel();
    std::thread::spawn(move || {
        let stdout = io::stdout();
        // No event is asked for: those that come all the same are those of the other end.
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        let seen = loop {
            match poll(&mut watched, None) {
                Err(Errno::INTR) => {}
                seen => break seen,
            }
        };
        // Where it cannot be watched, it is seen when something is written.
        seen.is_ok().then(|| sender.send(()))
    });
    if unread.await.is_err() {
        std::future::pending().await
    }
}

/// How wide the terminal is.
pub(in crate::cli) fn columns() -> usize {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => COLUMNS_DEFAULT,
    }
}
