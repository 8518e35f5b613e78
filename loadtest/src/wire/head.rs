//! The head of an HTTP/1.1 answer.

/// Bytes of a head. A longer one is refused.
const HEAD_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) body: Body,
    /// Bytes of the head with its blank line: the body begins here.
    pub(crate) length: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Length(usize),
    Chunked,
}

impl Head {
    /// None: more bytes are needed.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>, &'static str> {
        let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
            return if bytes.len() > HEAD_BYTES_MAX { Err("an endless head") } else { Ok(None) };
        };
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| "a head that is not UTF-8")?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).and_then(|rest| rest.get(..3));
        let status = status.and_then(|digits| digits.parse().ok()).ok_or("no status line")?;
        let body = lines.find_map(body).transpose()?.unwrap_or(Body::Length(0));
        Ok(Some(Self { status, body, length: end + 4 }))
    }
}

fn body(line: &str) -> Option<Result<Body, &'static str>> {
    let (name, value) = line.split_once(':')?;
    let value = value.trim();
    if name.eq_ignore_ascii_case("content-length") {
        Some(value.parse().map(Body::Length).map_err(|_| "a content length that is no number"))
    } else if name.eq_ignore_ascii_case("transfer-encoding") {
        Some(if value.eq_ignore_ascii_case("chunked") {
            Ok(Body::Chunked)
        } else {
            Err("an unknown transfer encoding")
        })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_status_and_body() {
        let text = b"HTTP/1.1 201 All 1 out of 1 events were accepted.\r\nContent-Length: 7\r\n\r\n{}";
        let head = Head::parse(text).unwrap().unwrap();
        assert_eq!((head.status, head.body, head.length), (201, Body::Length(7), text.len() - 2));
        assert_eq!(Head::parse(&text[..30]), Ok(None));
        assert!(Head::parse(b"SSH-2.0\r\n\r\n").is_err());
    }
}
