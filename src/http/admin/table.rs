//! Tables for people's eyes, of what clients have sent: none of it does anything to a terminal.

use std::fmt;

use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::ask;
use crate::model::printable;

/// Columns of the widest cell; what is longer ends in `…`.
const CELL_COLUMNS_MAX: usize = 60;
const GAP: &str = "  ";
/// Begins the heading of a column of numbers.
const TO_THE_RIGHT: char = '>';

pub(super) struct Table<const COLUMNS: usize> {
    heads: [&'static str; COLUMNS],
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// Headings; one that begins with `>` is of a column of numbers.
    pub(super) fn new(heads: &[&'static str; COLUMNS]) -> Self {
        Self { heads: *heads, rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells.map(|cell| cut(&printable(&cell))));
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = self.heads.map(|head| head.trim_start_matches(TO_THE_RIGHT).to_owned());
        let rows = || std::iter::once(&heads).chain(&self.rows);
        let widths: Vec<usize> =
            (0..COLUMNS).map(|column| rows().map(|row| row[column].width()).max().unwrap_or_default()).collect();
        for row in rows() {
            let mut line = String::new();
            for ((cell, width), head) in row.iter().zip(&widths).zip(self.heads) {
                let pad = " ".repeat(width - cell.width());
                let (before, after) =
                    if head.starts_with(TO_THE_RIGHT) { (pad.as_str(), "") } else { ("", pad.as_str()) };
                line += &[before, cell, after, GAP].concat();
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// `text` of it for those who ask for that, and JSON for everybody else.
pub(super) fn answer<T: Serialize>(request: &HttpRequest, it: &T, text: impl FnOnce(&T) -> String) -> HttpResponse {
    match ask::wants_text(request) {
        true => HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(text(it)),
        false => HttpResponse::Ok().json(it),
    }
}

fn cut(text: &str) -> String {
    if text.width() <= CELL_COLUMNS_MAX {
        return text.to_owned();
    }
    let mut left = CELL_COLUMNS_MAX - 1;
    let fits = |c: &char| {
        let width = c.width().unwrap_or_default();
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// `59s`, `3m20s`, `5h07m`, `12d3h`.
pub(super) fn span(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// With three digits or so, and a unit.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (0..UNITS.len()).rev().find(|unit| bytes >> (10 * unit) > 0).unwrap_or_default();
    match unit {
        0 => format!("{bytes} B"),
        unit => {
            let tenths = (u128::from(bytes) * 10) >> (10 * unit);
            format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other_whatever_clients_call_themselves() {
        let mut table = Table::new(&["CLIENT", ">BYTES", "USER AGENT"]);
        table.row(["192.0.2.7".into(), bytes(1536), "\u{1b}[2Jcurl\r\n\u{202e}8".into()]);
        table.row(["日本".into(), bytes(7), "長".repeat(100)]);
        let text = table.to_string();
        let expected = format!(
            "CLIENT       BYTES  USER AGENT\n192.0.2.7  1.5 KiB  ␛[2Jcurl␍␊\u{fffd}8\n日本           7 B  {}…\n",
            "長".repeat(29)
        );
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn times_and_sizes_are_short() {
        let spans = [0, 59, 60, 200, 3600, 18_420, 86_400, 1_047_600].map(span);
        assert_eq!(spans, ["0s", "59s", "1m00s", "3m20s", "1h00m", "5h07m", "1d0h", "12d3h"]);
        let sizes = [0, 1023, 1024, 1 << 20, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "16777215.9 TiB"]);
    }
}
