//! The accept stage that makes TLS of a socket, and says what became of it: a client that does not believe what it is shown
//! tells nobody else.

use std::io;
use std::time::Duration;

use actix_web::http::StatusCode;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::error;
use super::held;
use super::transport::Transport;
use crate::metrics as names;

/// What may wait unsent for one connection, as bytes that are sealed already.
const UNSENT_BYTES_MAX: usize = 16 * 1024;
/// The first byte of every connection (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
const HTTPS_ONLY: &str = "this port speaks HTTPS: ask again with https:// in place of http://";

/// Counted, unless it is the probe's own.
pub(super) async fn shake_hands(
    io: TcpStream,
    tls: &TlsAcceptor,
    at_most: Duration,
    is_probe: bool,
) -> io::Result<Transport> {
    let shaken = timeout(at_most, try_to(io, tls)).await.unwrap_or(Err((io::ErrorKind::TimedOut.into(), "timeout")));
    let result = shaken.as_ref().map_or_else(|(_, result)| *result, |_| "done");
    if !is_probe {
        metrics::counter!(names::TLS_HANDSHAKES, "result" => result).increment(1);
    }
    shaken.map_err(|(fault, _)| fault)
}

async fn try_to(io: TcpStream, tls: &TlsAcceptor) -> Result<Transport, (io::Error, &'static str)> {
    let mut first = [0];
    let seen = io.peek(&mut first).await.map_err(|fault| (fault, "gone"))?;
    if seen == 0 {
        return Err((io::ErrorKind::UnexpectedEof.into(), "gone"));
    }
    if first[0] != HANDSHAKE {
        // Most likely HTTP: its client is told.
        let problem = error::unasked(StatusCode::BAD_REQUEST, ("bad_request", "HTTPS Only"), HTTPS_ONLY);
        held::say_last(io, problem.as_bytes()).await;
        return Err((io::ErrorKind::InvalidData.into(), "plain"));
    }
    let shaken = tls.accept_with(io, |session| session.set_buffer_limit(Some(UNSENT_BYTES_MAX)));
    match shaken.await {
        Ok(io) => Ok(Transport::Tls(Box::new(io))),
        Err(fault) => {
            let result = result_of(&fault);
            Err((fault, result))
        }
    }
}

fn result_of(fault: &io::Error) -> &'static str {
    match fault.get_ref().and_then(|fault| fault.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(_)) => "distrusted",
        Some(_) => "failed",
        None => "gone",
    }
}
