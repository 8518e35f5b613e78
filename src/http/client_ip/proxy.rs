//! The PROXY protocol, versions 1 and 2: who is at the far end of a trusted proxy's connection, said before its first
//! request.
//!
//! What is read is the header and not a byte more: until it is clear what comes, the bytes are only looked at, and stay in
//! the socket. A peer that begins with something else is served as who it is.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::http::StatusCode;
use ppp::{v1, v2};
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::error;
use super::super::held;

const V1_PREFIX: &[u8] = b"PROXY ";
/// The longest line that version 1 allows, with its end.
const V1_BYTES_MAX: usize = 107;
const V2_FIXED_BYTES: usize = 16;
/// Addresses and whatever a proxy adds to them. Certificates do not come this way, only their names.
const V2_REST_BYTES_MAX: usize = 4 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(in crate::http) enum Fault {
    #[error("the proxy in front of this server has sent a PROXY header that cannot be read: {0}")]
    Malformed(String),
    #[error("the PROXY header, or a request, did not arrive within {0:?}")]
    TooSlow(Duration),
    #[error(transparent)]
    Gone(#[from] io::Error),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    WithVersion1,
    WithVersion2,
    Otherwise,
}

/// The client that the header names. `None`: it names nobody (`LOCAL`, `UNKNOWN`), or there is no header.
pub(in crate::http) async fn read(io: &mut TcpStream, at_most: Duration) -> Result<Option<IpAddr>, Fault> {
    let reading = async {
        match look(io, begins).await? {
            Begins::WithVersion1 => version_1(io).await,
            Begins::WithVersion2 => version_2(io).await,
            Begins::Otherwise => {
                warn_of_silence(io);
                Ok(None)
            }
        }
    };
    timeout(at_most, reading).await.unwrap_or(Err(Fault::TooSlow(at_most)))
}

/// Says why, and closes.
pub(in crate::http) async fn refuse(io: TcpStream, fault: &Fault) {
    if let Some(answer) = answer(fault) {
        held::say_last(io, answer.as_bytes()).await;
    }
}

fn answer(fault: &Fault) -> Option<String> {
    let (status, kind) = match fault {
        Fault::Malformed(_) => (StatusCode::BAD_REQUEST, ("bad_request", "Malformed PROXY Header")),
        Fault::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, ("request_timeout", "Request Timeout")),
        Fault::Gone(_) => return None,
    };
    Some(error::unasked(status, kind, &fault.to_string()))
}

/// `None`: more is needed.
fn begins(seen: &[u8]) -> Option<Begins> {
    let whole = |prefix: &[u8]| seen.starts_with(prefix);
    let so_far = |prefix: &[u8]| prefix.starts_with(seen);
    match () {
        () if whole(V1_PREFIX) => Some(Begins::WithVersion1),
        () if whole(v2::PROTOCOL_PREFIX) => Some(Begins::WithVersion2),
        () if so_far(V1_PREFIX) || so_far(v2::PROTOCOL_PREFIX) => None,
        () => Some(Begins::Otherwise),
    }
}

async fn version_1(io: &mut TcpStream) -> Result<Option<IpAddr>, Fault> {
    let malformed = |why: String| Fault::Malformed(why);
    let line_bytes = |seen: &[u8]| match seen.iter().position(|byte| *byte == b'\n') {
        Some(end) => Some(Ok(end + 1)),
        None if seen.len() == V1_BYTES_MAX => Some(Err(())),
        None => None,
    };
    let bytes = look(io, line_bytes).await?;
    let bytes = bytes.map_err(|()| malformed(format!("a line of version 1 has {V1_BYTES_MAX} bytes at most")))?;
    let mut line = vec![0; bytes];
    io.read_exact(&mut line).await?;
    let header = v1::Header::try_from(line.as_slice()).map_err(|e| malformed(e.to_string()))?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(addresses) => Some(addresses.source_address.into()),
        v1::Addresses::Tcp6(addresses) => Some(IpAddr::from(addresses.source_address).to_canonical()),
        v1::Addresses::Unknown => None,
    })
}

async fn version_2(io: &mut TcpStream) -> Result<Option<IpAddr>, Fault> {
    let mut header = vec![0; V2_FIXED_BYTES];
    io.read_exact(&mut header).await?;
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if rest > V2_REST_BYTES_MAX {
        return Err(Fault::Malformed(format!("it has {rest} bytes, more than {V2_REST_BYTES_MAX}")));
    }
    header.resize(V2_FIXED_BYTES + rest, 0);
    io.read_exact(&mut header[V2_FIXED_BYTES..]).await?;
    let header = v2::Header::try_from(header.as_slice()).map_err(|e| Fault::Malformed(e.to_string()))?;
    Ok(match (header.command, header.addresses) {
        // The proxy asks for itself, as it does to see whether this server is well.
        (v2::Command::Local, _) => None,
        (_, v2::Addresses::IPv4(addresses)) => Some(addresses.source_address.into()),
        (_, v2::Addresses::IPv6(addresses)) => Some(IpAddr::from(addresses.source_address).to_canonical()),
        (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
    })
}

/// Waits until what has come is enough to tell, and takes none of it.
async fn look<T>(io: &TcpStream, tell: impl Fn(&[u8]) -> Option<T>) -> io::Result<T> {
    let mut seen = [0; V1_BYTES_MAX];
    loop {
        let is_last = io.ready(Interest::READABLE).await?.is_read_closed();
        let told = io.try_io(Interest::READABLE, || {
            let (bytes, _) = recv(io, &mut seen[..], RecvFlags::PEEK)?;
            let not_enough = match is_last || bytes == 0 {
                true => io::ErrorKind::UnexpectedEof,
                // Then `ready` waits until more has come, and does not see the same bytes again.
                false => io::ErrorKind::WouldBlock,
            };
            tell(&seen[..bytes]).ok_or_else(|| not_enough.into())
        });
        match told {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            told => return told,
        }
    }
}

fn warn_of_silence(io: &TcpStream) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        let peer = io.peer_addr().map(|peer| peer.ip().to_canonical().to_string()).unwrap_or_default();
        tracing::warn!(
            peer,
            "a trusted proxy begins without a PROXY header: counted under its own address; have it send one, or set \
             limits.client_ip_header to what it sends (said once)"
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    const AT_MOST: Duration = Duration::from_secs(10);
    const V4: &[u8] = &[198, 51, 100, 7, 10, 0, 0, 1, 0, 80, 0, 81];

    async fn ends() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let proxy = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        (proxy, listener.accept().await.expect("a connection").0)
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("a length").to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[command, family], &length, rest].concat()
    }

    /// What is read of these bytes, and what is left of them. In pieces: one byte after the other has been looked at.
    async fn read_of(bytes: &[u8], in_pieces: bool) -> (Result<Option<String>, String>, Vec<u8>) {
        let (mut proxy, mut io) = ends().await;
        let sends = async {
            for piece in bytes.chunks(if in_pieces { 1 } else { bytes.len() }) {
                proxy.write_all(piece).await.expect("written");
                tokio::task::yield_now().await;
            }
            proxy.shutdown().await.expect("closed");
        };
        let (read, ()) = tokio::join!(read(&mut io, AT_MOST), sends);
        let mut rest = Vec::new();
        io.read_to_end(&mut rest).await.expect("an end");
        (read.map(|client| client.map(|client| client.to_string())).map_err(|e| e.to_string()), rest)
    }

    #[tokio::test]
    async fn a_header_is_read_to_its_last_byte_and_no_further_however_it_comes() {
        let v6 = [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[7], &[0; 16], &[0; 4]].concat();
        let mapped = [&[0; 10][..], &[0xff, 0xff, 198, 51, 100, 7], &[0; 16], &[0; 4]].concat();
        let with_more = [V4, &[0x20, 0, 3, 1, 2, 3], &[0xee; 300]].concat();
        let table: [(Vec<u8>, Option<&str>); 12] = [
            (b"PROXY TCP4 198.51.100.7 10.0.0.1 80 81\r\n".to_vec(), Some("198.51.100.7")),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 80 81\r\n".to_vec(), Some("2001:db8::7")),
            (b"PROXY TCP6 ::ffff:198.51.100.7 ::1 80 81\r\n".to_vec(), Some("198.51.100.7")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n".to_vec(), None),
            (v2(0x21, 0x11, V4), Some("198.51.100.7")),
            (v2(0x21, 0x21, &v6), Some("2001:db8::7")),
            (v2(0x21, 0x21, &mapped), Some("198.51.100.7")),
            (v2(0x21, 0x11, &with_more), Some("198.51.100.7")),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, V4), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ];
        let request = b"\r\nGET / HTTP/1.1\r\n\r\n";
        for (header, client) in table {
            for in_pieces in [false, true] {
                let (read, rest) = read_of(&[&header, &request[..]].concat(), in_pieces).await;
                assert_eq!(read, Ok(client.map(str::to_owned)), "{}", String::from_utf8_lossy(&header));
                assert_eq!(rest, request, "{}", String::from_utf8_lossy(&header));
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_left_as_it_is() {
        for plain in
            ["GET / HTTP/1.1\r\n\r\n", "PROPFIND / HTTP/1.1\r\n\r\n", "\r\n\r\nGET / HTTP/1.1\r\n\r\n", "PROXZ "]
        {
            for in_pieces in [false, true] {
                let (read, rest) = read_of(plain.as_bytes(), in_pieces).await;
                assert_eq!((read, rest.as_slice()), (Ok(None), plain.as_bytes()));
            }
        }
    }

    #[tokio::test]
    async fn garbage_is_told_apart_from_a_peer_that_leaves() {
        let garbage: [Vec<u8>; 11] = [
            b"PROXY \r\n".to_vec(),
            b"PROXY TCP5 198.51.100.7 10.0.0.1 80 81\r\n".to_vec(),
            b"PROXY TCP4 198.51.100.7 10.0.0.1 80\r\n".to_vec(),
            b"PROXY TCP4 198.51.100.777 10.0.0.1 80 81\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 2001:db8::1 80 81\r\n".to_vec(),
            b"PROXY TCP4 198.51.100.7 10.0.0.1 80 81\n".to_vec(),
            [b"PROXY TCP4 ", &[b'x'; 200][..], b"\r\n"].concat(),
            v2(0x31, 0x11, V4),
            v2(0x21, 0x41, V4),
            v2(0x21, 0x21, V4),
            v2(0x21, 0x11, &[0; V2_REST_BYTES_MAX + 1]),
        ];
        for header in garbage {
            let (read, _) = read_of(&header, false).await;
            assert!(read.as_ref().is_err_and(|told| told.contains("PROXY header")), "{header:?}: {read:?}");
        }
        for cut in [&b""[..], b"PRO", b"PROXY TCP4 198.51", &v2::PROTOCOL_PREFIX[..5], &v2(0x21, 0x11, V4)[..20]] {
            let (proxy, mut io) = ends().await;
            proxy.try_write(cut).expect("written");
            drop(proxy);
            assert!(matches!(read(&mut io, AT_MOST).await, Err(Fault::Gone(_))), "{cut:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_begins_and_does_not_go_on_is_waited_for_without_looking_again_and_again() {
        for begun in [&b""[..], b"PROX", b"PROXY TCP4 ", &v2::PROTOCOL_PREFIX[..11], &v2(0x21, 0x11, V4)[..20]] {
            let (mut proxy, mut io) = ends().await;
            proxy.write_all(begun).await.expect("written");
            let began = Instant::now();
            // In paused time it ends at once where nothing is to be done, and never where somebody looks all the time.
            assert!(matches!(read(&mut io, AT_MOST).await, Err(Fault::TooSlow(AT_MOST))));
            assert_eq!(began.elapsed(), AT_MOST);
        }
    }

    #[tokio::test]
    async fn who_is_refused_can_read_why() {
        for (fault, status) in [(Fault::Malformed("x".into()), 400), (Fault::TooSlow(AT_MOST), 408)] {
            let (mut proxy, io) = ends().await;
            proxy.write_all(b"unread").await.expect("written");
            let reads = async move {
                let mut answer = String::new();
                proxy.read_to_string(&mut answer).await.expect("no reset");
                answer
            };
            let (answer, ended) = tokio::join!(reads, timeout(held::LINGER, refuse(io, &fault)));
            ended.expect("it ends when the peer has left");
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")) && head.contains("connection: close"), "{head}");
            let problem: serde_json::Value = serde_json::from_str(body).expect("JSON");
            assert_eq!((&problem["status"], &problem["detail"]), (&json!(status), &json!(fault.to_string())));
        }
    }
}
