//! Scrapers that a server must bear: many who ask for `/metrics`, and one who asks and never reads.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::failure::Failure;
use crate::http::Http;

const SCRAPES_PER_SECOND: u32 = 50;
/// Of the one who never reads: its answers are soon more than the connection holds.
const RECEIVE_BYTES: u32 = 4 * 1024;
const UNREAD_REQUESTS: usize = 200;

/// They end when dropped.
pub(crate) struct Scrapers {
    running: JoinSet<Result<(), Failure>>,
    _unread: TcpStream,
}

impl Scrapers {
    pub(crate) async fn start(admin: SocketAddr) -> Result<Self, Failure> {
        let unread =
            ask_and_never_read(admin).await.map_err(|source| Failure::Connection { address: admin, source })?;
        let mut http = Http::open(admin).await?;
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut pace = interval(Duration::from_secs(1) / SCRAPES_PER_SECOND);
            loop {
                pace.tick().await;
                http.get("/metrics").await?;
            }
        });
        Ok(Self { running, _unread: unread })
    }

    /// Fails if one of them was not answered.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        match self.running.try_join_next() {
            Some(Ok(ended)) => ended,
            Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
            None => Ok(()),
        }
    }
}

async fn ask_and_never_read(admin: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BYTES)?;
    let mut socket = socket.connect(admin).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {admin}\r\n\r\n");
    socket.write_all(request.repeat(UNREAD_REQUESTS).as_bytes()).await?;
    Ok(socket)
}
