//! Server-Sent Events, read as they come: the HTML standard's rules, wherever the bytes are cut, within a bound.

use std::time::Duration;

use memchr::memchr2;

/// Longest line, and longest event, that is held. What is longer is left out, and said.
pub(super) const EVENT_BYTES_MAX: usize = 16 << 20;
/// All lines of a block, where they are kept: its fields besides the data, too.
const WIRE_BYTES_MAX: usize = 2 * EVENT_BYTES_MAX;
/// A buffer that has grown past this for an unusual line is given back.
const LINE_BYTES_KEPT: usize = 64 << 10;

/// What stands before a blank line; or a line that begins no block, such as a keep-alive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// Of an event. A block without it brings a place at most.
    pub(super) data: Option<Vec<u8>>,
    /// After this block the reader stands here.
    pub(super) id: Option<Vec<u8>>,
    /// How long to wait before coming back.
    pub(super) retry: Option<Duration>,
    /// It is of type `error`: how EventStreams says that a stream cannot go on.
    pub(super) is_error: bool,
    /// It was too long, and its data is gone.
    pub(super) is_cut: bool,
    /// A comment of several words: something is to be said. Other comments just show that the connection lives.
    pub(super) comment: Option<Vec<u8>>,
    /// Its lines, where they are kept.
    pub(super) wire: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Parser {
    keeps_wire: bool,
    line: Vec<u8>,
    /// The line that has begun is too long.
    line_is_cut: bool,
    block: Block,
    /// A field of the block has come. Comments before it are not of the block.
    is_open: bool,
    /// A line feed that comes next belongs to the carriage return before it.
    after_cr: bool,
    /// A byte order mark can only come before the first line.
    begun: bool,
}

impl Parser {
    /// `keeps_wire`: each block brings its lines.
    pub(super) fn new(keeps_wire: bool) -> Self {
        Self { keeps_wire, ..Self::default() }
    }

    /// The next block of what was fed so far; takes off `input` what it has read. `None`: there is no more in it.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Option<Block> {
        if self.after_cr && !input.is_empty() {
            *input = input.strip_prefix(b"\n").unwrap_or(input);
            self.after_cr = false;
        }
        while let Some(end) = memchr2(b'\n', b'\r', input) {
            self.push(&input[..end]);
            let rest = &input[end + 1..];
            let is_cr = input[end] == b'\r';
            self.after_cr = is_cr && rest.is_empty();
            *input = if is_cr { rest.strip_prefix(b"\n").unwrap_or(rest) } else { rest };
            if let Some(block) = self.end_of_line() {
                return Some(block);
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

    fn end_of_line(&mut self) -> Option<Block> {
        let mut line = std::mem::take(&mut self.line);
        let is_cut = std::mem::take(&mut self.line_is_cut);
        let mut text = &line[..];
        if !std::mem::replace(&mut self.begun, true) {
            text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        }
        let block = if text.is_empty() && !is_cut { self.end_of_block() } else { self.field(text, is_cut) };
        if line.capacity() <= LINE_BYTES_KEPT {
            line.clear();
            self.line = line;
        }
        block
    }

    fn field(&mut self, line: &[u8], is_cut: bool) -> Option<Block> {
        let (name, value) = match memchr::memchr(b':', line) {
            Some(at) => (&line[..at], line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..])),
            None => (line, &b""[..]),
        };
        let mut retry = None;
        match name {
            b"data" => self.data(value, is_cut),
            b"id" if !is_cut && !value.contains(&0) => self.block.id = Some(value.to_vec()),
            b"event" => self.block.is_error = value == b"error",
            b"retry" => retry = milliseconds(value),
            _ => {}
        }
        // Comments and waits mean the same wherever they stand, also where no block comes after them.
        let alone = !self.is_open && matches!(name, b"" | b"retry");
        self.is_open |= !alone;
        if alone {
            let wire = if self.keeps_wire && !is_cut { [line, b"\n"].concat() } else { Vec::new() };
            let comment = (name.is_empty() && !is_cut && value.contains(&b' ')).then(|| value.to_vec());
            let says = retry.is_some() || comment.is_some() || !wire.is_empty();
            return says.then(|| Block { retry, comment, wire, ..Block::default() });
        }
        self.block.retry = retry.or(self.block.retry);
        self.wire(line, is_cut);
        None
    }

    fn data(&mut self, value: &[u8], is_cut: bool) {
        let block = &mut self.block;
        let data = block.data.get_or_insert_default();
        block.is_cut |= is_cut || data.len() + value.len() >= EVENT_BYTES_MAX;
        if block.is_cut {
            *data = Vec::new();
        } else {
            data.extend_from_slice(value);
            data.push(b'\n');
        }
    }

    fn wire(&mut self, line: &[u8], is_cut: bool) {
        if self.keeps_wire {
            let wire = &mut self.block.wire;
            self.block.is_cut |= is_cut || wire.len() + line.len() >= WIRE_BYTES_MAX;
            wire.extend_from_slice(if self.block.is_cut { b"" } else { line });
            wire.push(b'\n');
        }
    }

    fn end_of_block(&mut self) -> Option<Block> {
        let mut block = std::mem::take(&mut self.block);
        let is_open = std::mem::take(&mut self.is_open);
        if let Some(data) = &mut block.data {
            data.pop();
        }
        if block.is_cut {
            (block.data, block.wire) = (None, Vec::new());
        } else if self.keeps_wire {
            block.wire.push(b'\n');
        }
        (is_open || self.keeps_wire).then_some(block)
    }
}

/// Digits only, or it says nothing. More than fit are as many as fit.
fn milliseconds(value: &[u8]) -> Option<Duration> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    (!digits.is_empty()).then(|| Duration::from_millis(digits.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fed in two parts, or byte by byte.
    fn blocks(wire: &[u8], split: Option<usize>, keeps_wire: bool) -> Vec<Block> {
        let mut parser = Parser::new(keeps_wire);
        let parts: Vec<&[u8]> = match split {
            Some(at) => vec![&wire[..at], &wire[at..]],
            None => wire.chunks(1).collect(),
        };
        let mut found = Vec::new();
        for mut part in parts {
            found.extend(std::iter::from_fn(|| parser.next(&mut part)));
            assert!(part.is_empty());
        }
        found
    }

    fn event(data: &str) -> Block {
        Block { data: Some(data.into()), ..Block::default() }
    }

    fn at(id: &str, block: Block) -> Block {
        Block { id: Some(id.into()), ..block }
    }

    fn nothing() -> Block {
        Block::default()
    }

    fn retry(ms: u64, block: Block) -> Block {
        Block { retry: Some(Duration::from_millis(ms)), ..block }
    }

    #[test]
    fn every_rule_of_the_standard_holds_wherever_the_bytes_are_cut() {
        let said = || Block { comment: Some("two words".into()), ..nothing() };
        let table: [(&str, Vec<Block>); 24] = [
            (": two words\n:one\n: one\n:\ndata: x\n: two words\n\n", vec![said(), event("x")]),
            (":ok\n\n", vec![]),
            ("event: message\nid: [1]\ndata: {}\n\n", vec![at("[1]", event("{}"))]),
            ("id: [1]\n\n", vec![at("[1]", nothing())]),
            ("id:7\ndata:x\n\nid\ndata: y\n\n", vec![at("7", event("x")), at("", event("y"))]),
            ("data: a\ndata: b\n\n", vec![event("a\nb")]),
            ("data\n\n", vec![event("")]),
            ("data\ndata\n\n", vec![event("\n")]),
            ("data:  two\n\n", vec![event(" two")]),
            ("data: a\r\n\r\ndata: b\r\rdata: c\n\n", vec![event("a"), event("b"), event("c")]),
            ("data: a\r\ndata: b\r\n\ndata: c\r\n\r", vec![event("a\nb"), event("c")]),
            ("\u{feff}data: a\n\n\u{feff}data: b\n\n", vec![event("a"), nothing()]),
            ("\u{feff}\u{feff}data: a\n\n", vec![nothing()]),
            ("retry: 700\ndata: x\n\n", vec![retry(700, nothing()), event("x")]),
            ("id: 1\nretry: 700\ndata: x\n\n", vec![at("1", retry(700, event("x")))]),
            ("retry: 7s\nretry:\nretry: -1\nretry: +1\n\n", vec![]),
            ("retry: 99999999999999999999999", vec![]),
            ("retry: 99999999999999999999999\n", vec![retry(u64::MAX, nothing())]),
            ("id: a\0b\ndata: x\n\n", vec![event("x")]),
            ("data: y\n\nid: 1\ndata: no blank line\n", vec![event("y")]),
            ("unknown: x\n: comment\n:\ndata: x\n\n", vec![event("x")]),
            ("event: other\n\nevent: error\ndata: x\n\n", vec![nothing(), Block { is_error: true, ..event("x") }]),
            ("Data: x\n data: y\n\n", vec![nothing()]),
            ("id: 1\nid: 2\ndata: ü\n\n", vec![at("2", event("ü"))]),
        ];
        for (wire, expected) in table {
            assert_eq!(blocks(wire.as_bytes(), None, false), expected, "{wire:?}");
            for at in 0..=wire.len() {
                assert_eq!(blocks(wire.as_bytes(), Some(at), false), expected, "{wire:?} cut at {at}");
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_stay_what_they_are() {
        let expected = Block { data: Some(b"\xff\xfe".to_vec()), ..nothing() };
        assert_eq!(blocks(b"data: \xff\xfe\n\n", None, false), [expected]);
    }

    #[test]
    fn the_wire_is_kept_but_for_a_block_that_does_not_end() {
        let wire = "\u{feff}:ok\n\nid: 1\n\n:\nretry: 5\nid: 2\n: within\ndata: x\n\nretry: 9\nid: 3\ndata: y\n";
        let expected = wire.strip_prefix('\u{feff}').and_then(|wire| wire.strip_suffix("id: 3\ndata: y\n"));
        for at in 0..=wire.len() {
            let kept: Vec<u8> =
                blocks(wire.as_bytes(), Some(at), true).into_iter().flat_map(|block| block.wire).collect();
            assert_eq!(String::from_utf8(kept).ok().as_deref(), expected, "cut at {at}");
        }
        let crlf: Vec<u8> = blocks(b"data: x\r\n\r\n", None, true).into_iter().flat_map(|block| block.wire).collect();
        assert_eq!(crlf, b"data: x\n\n");
    }

    #[test]
    fn an_event_that_is_too_long_is_left_out_and_its_place_is_kept() {
        let cut = |id| at(id, Block { is_cut: true, ..nothing() });
        let long = "x".repeat(EVENT_BYTES_MAX);
        let wire = format!("id: 1\ndata: {long}\n\ndata: y\n\n");
        assert_eq!(blocks(wire.as_bytes(), Some(9), false), [cut("1"), event("y")]);
        let kept = blocks(wire.as_bytes(), Some(9), true);
        assert_eq!(kept, [cut("1"), Block { wire: b"data: y\n\n".to_vec(), ..event("y") }]);
        let half = "x".repeat(EVENT_BYTES_MAX / 2);
        let wire = format!("data: {half}\ndata: {half}\ndata: z\nid: 2\n\ndata: y\n\n");
        assert_eq!(blocks(wire.as_bytes(), Some(9), false), [cut("2"), event("y")]);
        let most = "x".repeat(EVENT_BYTES_MAX - "data: ".len());
        assert_eq!(blocks(format!("data: {most}\n\n").as_bytes(), Some(9), false), [event(&most)]);
    }

    #[test]
    fn a_line_without_an_end_is_not_held_whole() {
        let long = "x".repeat(EVENT_BYTES_MAX);
        for start in ["", "data: ", ":"] {
            let mut parser = Parser::new(true);
            assert_eq!(parser.next(&mut start.as_bytes()), None);
            for _ in 0..3 {
                assert_eq!(parser.next(&mut long.as_bytes()), None);
                assert!(parser.line.len() <= EVENT_BYTES_MAX);
            }
            let next: Vec<Block> = std::iter::once(&b"\n\ndata: y\n\n"[..])
                .flat_map(|mut part| std::iter::from_fn(|| parser.next(&mut part)).collect::<Vec<_>>())
                .collect();
            assert_eq!(next.last().and_then(|block| block.data.as_deref()), Some(&b"y"[..]));
            assert!(parser.line.capacity() <= LINE_BYTES_KEPT, "and its room is given back");
        }
    }

    #[test]
    fn a_block_of_endless_small_lines_is_not_held_whole() {
        let lines = "data: 1234567890\nx: 1234567890\n".repeat(10_000);
        let mut parser = Parser::new(true);
        for _ in 0..120 {
            assert_eq!(parser.next(&mut lines.as_bytes()), None);
            let held = parser.block.wire.len() + parser.block.data.as_ref().map_or(0, Vec::len);
            assert!(held <= WIRE_BYTES_MAX + EVENT_BYTES_MAX + lines.len(), "{held}");
        }
        let block = parser.next(&mut &b"\n"[..]).expect("a block");
        assert!(block.is_cut && block.data.is_none() && block.wire.is_empty());
    }
}
