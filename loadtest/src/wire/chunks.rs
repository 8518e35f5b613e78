//! The body of a chunked answer, without its chunk heads. Nothing is copied.

#[derive(Debug, Default)]
pub(crate) struct Chunks(State);

#[derive(Debug)]
enum State {
    /// In the line that tells the next chunk's size; `ignored` once an extension began.
    Size {
        bytes: usize,
        ignored: bool,
    },
    Data {
        left: usize,
    },
    /// In the line end after a chunk.
    After,
    Ended,
}

impl Default for State {
    fn default() -> Self {
        State::Size { bytes: 0, ignored: false }
    }
}

impl Chunks {
    /// Takes what it can from the front of `input`: the next piece of the body, or none if there is no more of it.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, &'static str> {
        while let Some((first, rest)) = input.split_first() {
            match &mut self.0 {
                State::Data { left } => {
                    let (piece, rest) = input.split_at(input.len().min(*left));
                    *left -= piece.len();
                    if *left == 0 {
                        self.0 = State::After;
                    }
                    *input = rest;
                    return Ok(Some(piece));
                }
                State::Size { bytes, ignored } => match first {
                    b'\n' if *bytes == 0 => self.0 = State::Ended,
                    b'\n' => self.0 = State::Data { left: *bytes },
                    b'\r' => {}
                    b';' => *ignored = true,
                    _ if *ignored => {}
                    digit => *bytes = push_hex(*bytes, *digit)?,
                },
                State::After if *first == b'\n' => self.0 = State::default(),
                State::After if *first == b'\r' => {}
                State::After => return Err("bytes between two chunks"),
                State::Ended => return Ok(None),
            }
            *input = rest;
        }
        Ok(None)
    }

    pub(crate) fn ended(&self) -> bool {
        matches!(self.0, State::Ended)
    }
}

fn push_hex(bytes: usize, digit: u8) -> Result<usize, &'static str> {
    let value = char::from(digit).to_digit(16).ok_or("a chunk size that is no number")?;
    bytes.checked_mul(16).and_then(|bytes| bytes.checked_add(value as usize)).ok_or("a chunk too large")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(chunks: &mut Chunks, mut input: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(piece) = chunks.next(&mut input).unwrap() {
            body.extend_from_slice(piece);
        }
        body
    }

    #[test]
    fn chunks_may_be_cut_anywhere() {
        let wire = b"5\r\nhello\r\n1A;name=value\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n";
        for cut in 0..wire.len() {
            let mut chunks = Chunks::default();
            let (front, back) = wire.split_at(cut);
            let whole = [body(&mut chunks, front), body(&mut chunks, back)].concat();
            assert_eq!(whole, b"helloabcdefghijklmnopqrstuvwxyz", "cut at {cut}");
            assert!(chunks.ended());
        }
    }

    #[test]
    fn bytes_that_belong_to_no_chunk_are_a_fault() {
        let mut input: &[u8] = b"1\r\naXY";
        let mut chunks = Chunks::default();
        assert_eq!(chunks.next(&mut input), Ok(Some(b"a".as_slice())));
        assert!(chunks.next(&mut input).is_err());
        assert!(Chunks::default().next(&mut b"zz\r\n".as_slice()).is_err());
    }
}
