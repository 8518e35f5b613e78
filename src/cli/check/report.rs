//! The line that monitoring reads: `SLUICE OK - flowing | canary=12ms;;;0 age=0.3s;;;0`, and lines for people below it.

use std::fmt;
use std::time::Duration;

use crate::model::printable;

/// What is said is cut here: monitoring keeps a line, and servers may say anything.
const TEXT_CHARS_MAX: usize = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Ok,
    Warning,
    Critical,
}

#[derive(Debug)]
pub(super) struct Report {
    pub(super) level: Level,
    text: String,
    /// What to do about it, as the server says.
    below: String,
    figures: Vec<Figure>,
}

/// Performance data: with the value that is CRITICAL, where there is one.
#[derive(Debug)]
struct Figure {
    name: &'static str,
    value: String,
    critical: String,
}

impl Level {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        }
    }
}

impl Report {
    pub(super) fn new(level: Level) -> Self {
        Self { level, text: String::new(), below: String::new(), figures: Vec::new() }
    }

    pub(super) fn critical(text: &str) -> Self {
        Self { text: shown(text), ..Self::new(Level::Critical) }
    }

    /// What the server says of itself.
    pub(super) fn says(&mut self, level: Level, text: &str, below: &str) {
        (self.level, self.text, self.below) = (level, shown(text), shown(below));
    }

    /// What was found out in spite of it.
    pub(super) fn fails(&mut self, fault: &str) {
        let said = std::mem::take(&mut self.text);
        self.text = if said.is_empty() { shown(fault) } else { format!("{} (it says: {said})", shown(fault)) };
        self.level = Level::Critical;
    }

    pub(super) fn milliseconds(&mut self, name: &'static str, value: f64) {
        self.figure(name, format!("{}ms", rounded(value)), String::new());
    }

    pub(super) fn seconds(&mut self, name: &'static str, value: f64, critical: Option<Duration>) {
        let critical = critical.map(|most| rounded(most.as_secs_f64())).unwrap_or_default();
        self.figure(name, format!("{}s", rounded(value)), critical);
    }

    fn figure(&mut self, name: &'static str, value: String, critical: String) {
        self.figures.push(Figure { name, value, critical });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SLUICE {} - {}", self.level.as_str(), self.text)?;
        for (n, Figure { name, value, critical }) in self.figures.iter().enumerate() {
            let before = if n == 0 { " | " } else { " " };
            write!(f, "{before}{name}={value};;{critical};0")?;
        }
        if self.below.is_empty() { Ok(()) } else { write!(f, "\n{}", self.below) }
    }
}

/// On one line, and without what begins performance data.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(TEXT_CHARS_MAX).collect();
    printable(&cut).replace('|', "/")
}

/// Three places are as exact as anybody needs, and none that say nothing.
fn rounded(value: f64) -> String {
    let rounded = (value * 1_000.0).round() / 1_000.0;
    rounded.to_string()
}
