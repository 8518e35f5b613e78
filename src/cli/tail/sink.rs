//! Where events go.

use std::io::{self, BufWriter, Write};

use super::line;

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

/// Nothing more is wanted: there were enough, or nobody reads any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

pub(super) struct Sink {
    out: BufWriter<Box<dyn Write>>,
    look: Look,
    /// Events that are still wanted.
    left: Option<u64>,
}

impl Sink {
    pub(super) fn new(out: Box<dyn Write>, look: Look, count: Option<u64>) -> Self {
        Self { out: BufWriter::new(out), look, left: count }
    }

    /// Bytes as they came.
    pub(super) fn wire(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let written = match self.look {
            Look::Wire { on_terminal: false } => self.out.write_all(bytes),
            Look::Wire { on_terminal: true } => {
                let text = String::from_utf8_lossy(bytes);
                text.split_inclusive('\n').try_for_each(|line| match line.strip_suffix('\n') {
                    Some(line) => writeln!(self.out, "{}", line::printable(line)),
                    None => write!(self.out, "{}", line::printable(line)),
                })
            }
            _ => Ok(()),
        };
        written.map_err(|_| Full)
    }

    pub(super) fn event(&mut self, data: &[u8]) -> Result<(), Full> {
        let written = match self.look {
            Look::Wire { .. } => Ok(()),
            Look::Json => self.json(data),
            Look::Lines { colour } => writeln!(self.out, "{}", line::of(data, columns(), colour)),
        };
        written.map_err(|_| Full)?;
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return self.flush().and(Err(Full));
            }
        }
        Ok(())
    }

    /// An error of the output ends the command like an output that nobody reads: there is nobody to tell.
    pub(super) fn flush(&mut self) -> Result<(), Full> {
        self.out.flush().map_err(|_| Full)
    }

    /// Line ends between tokens are the only ones that JSON has.
    fn json(&mut self, data: &[u8]) -> io::Result<()> {
        for (at, part) in data.split(|byte| *byte == b'\n').enumerate() {
            if at > 0 {
                self.out.write_all(b" ")?;
            }
            self.out.write_all(part)?;
        }
        self.out.write_all(b"\n")
    }
}

fn columns() -> usize {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => COLUMNS_DEFAULT,
    }
}
