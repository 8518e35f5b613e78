//! Server-Sent Events, read as they come: the HTML standard's rules, byte by byte, within a bound.

use std::time::Duration;

use memchr::memchr2;

/// Longest line, and longest event, that is held. What is longer is left out, and said.
pub(super) const EVENT_BYTES_MAX: usize = 16 << 20;

/// What a stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// The `data` of one event.
    Event(Vec<u8>),
    /// The reader stands here now: after the event that comes with it, or without one.
    Place(String),
    /// How long to wait before coming back.
    Retry(Duration),
    /// An event that was too long.
    TooLong,
}

#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// What the next blank line makes of the place.
    id: Option<String>,
    /// The line, or the event that it is in, is too long.
    line_is_cut: bool,
    event_is_cut: bool,
    /// A line feed that comes next belongs to the carriage return before it.
    after_cr: bool,
    /// A byte order mark can only come before the first line.
    begun: bool,
    /// The event of the block whose place was given last.
    pending: Option<Piece>,
}

impl Parser {
    /// The next piece of what was fed so far; takes off `input` what it has read. `None`: there is nothing more in it.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Option<Piece> {
        if let Some(pending) = self.pending.take() {
            return Some(pending);
        }
        if std::mem::take(&mut self.after_cr) {
            match input.first() {
                Some(b'\n') => *input = &input[1..],
                Some(_) => {}
                None => self.after_cr = true,
            }
        }
        while let Some(end) = memchr2(b'\n', b'\r', input) {
            self.push(&input[..end]);
            self.after_cr = input[end] == b'\r';
            *input = &input[end + 1..];
            if self.after_cr && input.first() == Some(&b'\n') {
                *input = &input[1..];
                self.after_cr = false;
            }
            if let Some(piece) = self.end_of_line() {
                return Some(piece);
            }
        }
        self.push(input);
        *input = &[];
        None
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = EVENT_BYTES_MAX - self.line.len();
        self.line_is_cut |= bytes.len() > room;
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_of_line(&mut self) -> Option<Piece> {
        let mut line = std::mem::take(&mut self.line);
        let cut = std::mem::take(&mut self.line_is_cut);
        let whole = match self.begun {
            false => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line),
            true => &line,
        };
        self.begun = true;
        let piece = if whole.is_empty() && !cut { self.end_of_block() } else { self.field(whole, cut) };
        // Its room is used again, unless it was an unusual line.
        if line.capacity() <= 64 << 10 {
            line.clear();
            self.line = line;
        }
        piece
    }

    fn field(&mut self, line: &[u8], cut: bool) -> Option<Piece> {
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(at) => (&line[..at], line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..])),
            None => (line, &b""[..]),
        };
        match name {
            b"data" => {
                self.event_is_cut |= cut || self.data.len() + value.len() >= EVENT_BYTES_MAX;
                if !self.event_is_cut {
                    self.data.extend_from_slice(value);
                    self.data.push(b'\n');
                }
                self.has_data = true;
            }
            b"id" if !cut && !value.contains(&0) => self.id = Some(String::from_utf8_lossy(value).into_owned()),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let ms = std::str::from_utf8(value).ok().and_then(|ms| ms.parse().ok());
                return ms.map(|ms| Piece::Retry(Duration::from_millis(ms)));
            }
            _ => {}
        }
        None
    }

    fn end_of_block(&mut self) -> Option<Piece> {
        let mut data = std::mem::take(&mut self.data);
        let cut = std::mem::take(&mut self.event_is_cut);
        let event = std::mem::take(&mut self.has_data).then(|| {
            data.pop();
            if cut { Piece::TooLong } else { Piece::Event(data) }
        });
        match self.id.take() {
            // The event first: the place is the one after it.
            Some(id) => {
                let place = Piece::Place(id);
                match event {
                    Some(event) => {
                        self.pending = Some(place);
                        Some(event)
                    }
                    None => Some(place),
                }
            }
            None => event,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fed in two parts, or byte by byte.
    fn pieces(wire: &[u8], split: Option<usize>) -> Vec<Piece> {
        let mut parser = Parser::default();
        let parts: Vec<&[u8]> = match split {
            Some(at) => vec![&wire[..at], &wire[at..]],
            None => wire.chunks(1).collect(),
        };
        let mut found = Vec::new();
        for mut part in parts {
            while let Some(piece) = parser.next(&mut part) {
                found.push(piece);
            }
            assert!(part.is_empty());
        }
        found
    }

    fn event(data: &str) -> Piece {
        Piece::Event(data.as_bytes().to_vec())
    }

    fn place(id: &str) -> Piece {
        Piece::Place(id.to_owned())
    }

    #[test]
    fn every_rule_of_the_standard_holds_wherever_the_bytes_are_cut() {
        let table: [(&str, Vec<Piece>); 19] = [
            (":ok\n\n", vec![]),
            ("event: message\nid: [1]\ndata: {}\n\n", vec![event("{}"), place("[1]")]),
            ("id: [1]\n\n", vec![place("[1]")]),
            ("id:7\ndata:x\n\nid\ndata: y\n\n", vec![event("x"), place("7"), event("y"), place("")]),
            ("data: a\ndata: b\n\n", vec![event("a\nb")]),
            ("data\n\n", vec![event("")]),
            ("data:  two\n\n", vec![event(" two")]),
            ("data: a\r\n\r\ndata: b\r\rdata: c\n\n", vec![event("a"), event("b"), event("c")]),
            ("\u{feff}data: a\n\n\u{feff}data: b\n\n", vec![event("a")]),
            ("retry: 700\ndata: x\n\n", vec![Piece::Retry(Duration::from_millis(700)), event("x")]),
            ("retry: 7s\nretry:\nretry: -1\nretry: 99999999999999999999999\n\n", vec![]),
            ("id: a\0b\ndata: x\n\n", vec![event("x")]),
            ("id: 1\ndata: not whole", vec![]),
            ("id: 1\ndata: no blank line\n", vec![]),
            ("unknown: x\n: comment\n:\ndata: x\n\n", vec![event("x")]),
            ("event: other\n\ndata: x\n\n", vec![event("x")]),
            ("Data: x\n data: y\n\n", vec![]),
            ("id: 1\nid: 2\ndata: x\n\n", vec![event("x"), place("2")]),
            ("id: é\ndata: ü\n\n", vec![event("ü"), place("é")]),
        ];
        for (wire, expected) in table {
            assert_eq!(pieces(wire.as_bytes(), None), expected, "{wire:?}");
            for at in 0..=wire.len() {
                assert_eq!(pieces(wire.as_bytes(), Some(at)), expected, "{wire:?} cut at {at}");
            }
        }
    }

    #[test]
    fn an_event_that_is_too_long_is_left_out_and_its_place_is_kept() {
        let long = "x".repeat(EVENT_BYTES_MAX);
        let wire = format!("id: 1\ndata: {long}\n\ndata: y\n\n");
        assert_eq!(pieces(wire.as_bytes(), Some(9)), [Piece::TooLong, place("1"), event("y")]);
        let half = "x".repeat(EVENT_BYTES_MAX / 2);
        let wire = format!("data: {half}\ndata: {half}\nid: 2\n\ndata: y\n\n");
        assert_eq!(pieces(wire.as_bytes(), Some(9)), [Piece::TooLong, place("2"), event("y")]);
        let mut parser = Parser::default();
        for _ in 0..3 {
            assert_eq!(parser.next(&mut long.as_bytes()), None);
        }
        assert!(parser.line.len() <= EVENT_BYTES_MAX, "a line without an end is not held whole");
    }
}
