//! One event as one line for people.
//!
//! Events come from strangers: nothing of them reaches the terminal that could move the cursor, change a colour, or turn
//! the reading direction.

use serde_json::Value;
use unicode_width::UnicodeWidthChar;

use crate::model::printable_char;

pub(in crate::cli) use crate::model::printable;

/// Fewer columns than this are as good as these.
const COLUMNS_MIN: usize = 20;

/// Some characters take no room of their own: of more than these nobody can read anything.
const CHARS_PER_COLUMN_MAX: usize = 4;

const DIM: &str = "2";
const CYAN: &str = "36";
const YELLOW: &str = "33";
const BOLD: &str = "1";
const GREEN: &str = "32";

/// Where events of different schemas have the same thing; the first that is there counts.
const WIKI: [&str; 3] = ["/wiki", "/wiki_id", "/database"];
const KIND: [&str; 2] = ["/type", "/page_change_kind"];
const TITLE: [&str; 3] = ["/title", "/page/page_title", "/page_title"];
const USER: [&str; 3] = ["/user", "/performer/user_text", "/revision/editor/user_text"];
const COMMENT: [&str; 2] = ["/comment", "/revision/comment"];

/// The line, at most so many columns wide.
pub(super) fn of(data: &[u8], columns: usize, colour: bool) -> String {
    let mut line = Line { text: String::new(), left: columns.max(COLUMNS_MIN), colour };
    let Ok(event) = serde_json::from_slice::<Value>(data) else {
        line.push(&String::from_utf8_lossy(data), "");
        return line.text;
    };
    let time = first(&event, &["/meta/dt", "/dt"]).map(clock);
    let stream = first(&event, &["/meta/stream"]);
    line.push(time.as_deref().unwrap_or("--:--:--"), DIM);
    match first(&event, &TITLE) {
        Some(title) => {
            line.push(first(&event, &WIKI).unwrap_or_default(), CYAN);
            let short = stream.and_then(|stream| stream.rsplit('.').find(|part| !is_version(part)));
            line.push(first(&event, &KIND).or(short).unwrap_or_default(), YELLOW);
            line.push(title, BOLD);
            line.push(first(&event, &USER).unwrap_or_default(), GREEN);
            line.push(first(&event, &COMMENT).unwrap_or_default(), "");
        }
        None => {
            line.push(stream.unwrap_or_default(), CYAN);
            line.push(&rest(event).to_string(), "");
        }
    }
    line.text
}

struct Line {
    text: String,
    /// Columns.
    left: usize,
    colour: bool,
}

impl Line {
    /// A part of it, in this colour, and a space before it. Nothing if it is empty, or there is no room.
    fn push(&mut self, part: &str, colour: &str) {
        if part.is_empty() || self.left < 2 {
            return;
        }
        if !self.text.is_empty() {
            self.text.push(' ');
            self.left -= 1;
        }
        let coloured = self.colour && !colour.is_empty();
        if coloured {
            self.text.push_str(&format!("\u{1b}[{colour}m"));
        }
        self.push_cut(part);
        if coloured {
            self.text.push_str("\u{1b}[0m");
        }
    }

    fn push_cut(&mut self, part: &str) {
        let mut chars = part.chars().take(CHARS_PER_COLUMN_MAX * self.left).map(printable_char).peekable();
        while let Some(c) = chars.next() {
            let width = c.width().unwrap_or(0);
            // One column is kept for the mark, unless this is the end.
            if width + usize::from(chars.peek().is_some()) > self.left {
                self.text.push('…');
                self.left = 0;
                return;
            }
            self.text.push(c);
            self.left -= width;
        }
    }
}

fn first<'a>(event: &'a Value, pointers: &[&str]) -> Option<&'a str> {
    pointers.iter().find_map(|pointer| event.pointer(pointer)?.as_str())
}

/// The time of the day, in UTC.
fn clock(dt: &str) -> String {
    match dt.parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%H:%M:%S").to_string(),
        Err(_) => dt.chars().take(20).collect(),
    }
}

/// What the line does not say already.
fn rest(mut event: Value) -> Value {
    if let Value::Object(fields) = &mut event {
        fields.retain(|name, _| name != "meta" && name != "$schema");
    }
    event
}

/// As in `mediawiki.page_change.v1`.
fn is_version(part: &str) -> bool {
    part.strip_prefix('v').is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}
