//! SSE's blocks: what stands between two blank lines. A block that came whole is not copied.
//!
//! Line ends are LF only, and an event has one `data:` line: what sluice promises.

use std::ops::ControlFlow;

#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// The front of a block whose end has not come yet.
    partial: Vec<u8>,
}

impl Blocks {
    /// Hands over every block that is complete now, until one is answered with `Break`: the rest is then dropped.
    pub(crate) fn feed(&mut self, mut piece: &[u8], mut on: impl FnMut(&[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        while let Some((end, next)) = self.end(piece) {
            if self.partial.is_empty() {
                on(&piece[..end])?;
            } else {
                self.partial.extend_from_slice(&piece[..end]);
                let flow = on(&self.partial);
                self.partial.clear();
                flow?;
            }
            piece = &piece[next..];
        }
        self.partial.extend_from_slice(piece);
        ControlFlow::Continue(())
    }

    /// Where the block ends and the next one begins.
    fn end(&self, piece: &[u8]) -> Option<(usize, usize)> {
        if self.partial.last() == Some(&b'\n') && piece.first() == Some(&b'\n') {
            return Some((0, 1));
        }
        memchr::memmem::find(piece, b"\n\n").map(|at| (at, at + 2))
    }
}

/// What a block says, if it carries an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    pub(crate) id: &'a [u8],
    pub(crate) data: &'a [u8],
}

impl<'a> Event<'a> {
    pub(crate) fn parse(block: &'a [u8]) -> Option<Self> {
        let (mut id, mut data) = (b"".as_slice(), None);
        let mut rest = block;
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            if let Some(value) = line.strip_prefix(b"data: ") {
                data = Some(value);
            } else if let Some(value) = line.strip_prefix(b"id: ") {
                id = value;
            }
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        data.map(|data| Self { id, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(blocks: &mut Blocks, piece: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        let _ = blocks.feed(piece, |block| {
            found.push(String::from_utf8(block.to_vec()).unwrap());
            ControlFlow::Continue(())
        });
        found
    }

    #[test]
    fn blocks_may_be_cut_anywhere() {
        let wire = b":ok\n\nevent: message\nid: [1]\ndata: {}\n\n:\nid: [2]\ndata: []\n\n";
        for cut in 0..wire.len() {
            let mut blocks = Blocks::default();
            let (front, back) = wire.split_at(cut);
            let whole = [feed(&mut blocks, front), feed(&mut blocks, back)].concat();
            assert_eq!(whole.len(), 3, "cut at {cut}");
            assert_eq!(Event::parse(whole[0].as_bytes()), None);
            assert_eq!(Event::parse(whole[1].as_bytes()), Some(Event { id: b"[1]", data: b"{}" }));
            assert_eq!(Event::parse(whole[2].as_bytes()), Some(Event { id: b"[2]", data: b"[]" }));
        }
    }

    #[test]
    fn a_break_drops_the_rest() {
        let mut seen = 0;
        let flow = Blocks::default().feed(b"a\n\nb\n\n", |_| {
            seen += 1;
            ControlFlow::Break(())
        });
        assert_eq!((flow, seen), (ControlFlow::Break(()), 1));
    }
}
