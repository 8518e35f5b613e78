//! From an accepted socket to a connection that actix serves: a pipeline of accept stages.
//!
//! Today: socket options → HTTP. A PROXY header and TLS are further stages between the two; each gets the connection
//! of the stage before it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_http::Protocol;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::handover::Conn;

/// What may wait unsent in the kernel for one reader. Without it a stuck reader takes 4 MB there; unlike a small send
/// buffer it leaves the window alone, and with it the throughput of readers far away.
const UNSENT_BYTES_MAX: u32 = 16 * 1024;
/// A peer that acknowledges nothing for this long is gone, whether it said so or not.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// What actix serves: the transport, its protocol, and who is on the other end.
pub(super) type Accepted = (Conn, Protocol, Option<SocketAddr>);

pub(super) async fn accept(io: TcpStream) -> io::Result<Accepted> {
    let peer = io.peer_addr().ok();
    set_options(&io)?;
    Ok((Conn::new(io), Protocol::Http1, peer))
}

fn set_options(io: &TcpStream) -> io::Result<()> {
    io.set_nodelay(true)?;
    let socket = SockRef::from(io);
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}
