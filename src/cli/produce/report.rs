//! What is said: each refusal, how far it has come, and the summary.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::lines::Event;

/// Between two progress lines.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Ranges of lines in the summary.
const RANGES_SHOWN_MAX: usize = 20;
/// Clears from the cursor to the end of the line.
const CLEAR: &str = "\r\u{1b}[K";

/// Counts, and says it. Somebody who no longer reads is no reason to end.
pub(super) struct Report {
    out: Box<dyn Write>,
    complaints: Box<dyn Write>,
    started: Instant,
    /// When progress was shown last; `None`: `out` is no terminal.
    shown: Option<Instant>,
    pub(super) tally: Tally,
}

/// Events are lines that are not blank.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) accepted: u64,
    pub(super) refused: u64,
    /// Times that an event was sent again.
    pub(super) retried: u64,
    /// Accepted, and sent before that with an answer that did not come: it may be in the log twice.
    pub(super) doubled: u64,
    /// Given up: from line to line.
    pub(super) unsent: Vec<(u64, u64)>,
    /// Of those, sent with an answer that did not come: it may be in the log all the same.
    pub(super) unknown: u64,
    /// The first line that was not even tried.
    pub(super) untried: Option<u64>,
    /// Whether it ended before stdin did, as far as that is known.
    pub(super) cut: bool,
}

impl Tally {
    pub(super) fn is_clean(&self) -> bool {
        self.refused == 0 && self.untried.is_none() && !self.cut
    }

    /// Which lines, for people.
    fn not_sent(&self) -> Option<String> {
        let range = |(from, to): &(u64, u64)| if from == to { from.to_string() } else { format!("{from}-{to}") };
        let mut parts: Vec<String> = self.unsent.iter().take(RANGES_SHOWN_MAX).map(range).collect();
        if self.unsent.len() > RANGES_SHOWN_MAX {
            parts.push("…".into());
        }
        parts.extend(self.untried.map(|line| format!("from {line} on")));
        (!parts.is_empty()).then(|| format!("lines {}", parts.join(", ")))
    }
}

impl Report {
    /// With progress where `terminal` says that `out` is one.
    pub(super) fn new(out: Box<dyn Write>, complaints: Box<dyn Write>, terminal: bool) -> Self {
        let started = Instant::now();
        Self { out, complaints, started, shown: terminal.then_some(started), tally: Tally::default() }
    }

    pub(super) fn accepted(&mut self, event: &Event) {
        self.tally.accepted += 1;
        self.tally.doubled += u64::from(event.unsure);
    }

    pub(super) fn refused(&mut self, line: u64, code: &str, why: &str) {
        self.tally.refused += 1;
        self.complain(&format!("line {line}: {code}: {why}"));
    }

    pub(super) fn retrying(&mut self, events: usize, why: &str, wait: Duration) {
        self.tally.retried += events as u64;
        let seconds = wait.as_secs_f64();
        self.complain(&format!("{events} events are sent again in {seconds:.1} s: {why}"));
    }

    /// What is not sent, and will not be.
    pub(super) fn gave_up(&mut self, events: &[Event], why: &str) {
        for Event { line, .. } in events {
            match self.tally.unsent.last_mut() {
                Some((_, to)) if *to + 1 == *line => *to = *line,
                _ => self.tally.unsent.push((*line, *line)),
            }
        }
        self.tally.unknown += events.iter().filter(|event| event.unsure).count() as u64;
        self.tally.cut = true;
        self.complain(why);
    }

    /// The first line that was read and not even tried.
    pub(super) fn left(&mut self, line: Option<u64>) {
        self.tally.untried = line;
    }

    pub(super) fn input_failed(&mut self, error: &io::Error) {
        self.tally.cut = true;
        self.complain(&format!("stdin cannot be read on: {error}"));
    }

    pub(super) fn complain(&mut self, text: &str) {
        if self.shown.is_some() {
            let _ = write!(self.out, "{CLEAR}");
            let _ = self.out.flush();
        }
        let _ = writeln!(self.complaints, "sluice: {text}");
    }

    /// Rewrites the progress line, where there is one and it is time.
    pub(super) fn progress(&mut self) {
        if let Some(shown) = &mut self.shown
            && shown.elapsed() >= PROGRESS_EVERY
        {
            *shown = Instant::now();
            let Tally { accepted, refused, .. } = self.tally;
            let _ = write!(self.out, "{CLEAR}{accepted} accepted, {refused} refused, {}", self.speed());
            let _ = self.out.flush();
        }
    }

    pub(super) fn summary(&mut self) {
        let clear = if self.shown.is_some() { CLEAR } else { "" };
        let Tally { accepted, refused, retried, doubled, unknown, .. } = self.tally;
        let (all, seconds, speed) = (accepted + refused, self.started.elapsed().as_secs_f64(), self.speed());
        let mut text = format!(
            "{all} events: {accepted} accepted, {refused} refused, {retried} retried, in {seconds:.1} s ({speed})\n"
        );
        if doubled > 0 {
            text += &format!("{doubled} of the accepted may be in the log twice: an answer did not come\n");
        }
        if let Some(unsent) = self.tally.not_sent() {
            text += &format!("not sent: {unsent}\n");
        }
        if unknown > 0 {
            text +=
                &format!("{unknown} of the lines not sent may be in the log all the same: an answer did not come\n");
        }
        let _ = write!(self.out, "{clear}{text}");
        let _ = self.out.flush();
    }

    fn speed(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "a rounded figure for people")]
        let rate = self.tally.accepted as f64 / seconds;
        format!("{rate:.0} events/s")
    }
}
