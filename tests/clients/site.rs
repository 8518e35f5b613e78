//! Another origin: one empty page, at every path.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A page asks in far less.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

const PAGE: &str = "<!doctype html><title>another origin</title>";

pub struct Site {
    address: SocketAddr,
    /// Ends with the site.
    _task: JoinSet<()>,
}

impl Site {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut task = JoinSet::new();
        task.spawn(async move {
            // Each on its own: browsers open connections on which they say nothing yet.
            let mut visits = JoinSet::new();
            while let Ok((visitor, _)) = listener.accept().await {
                visits.spawn(answer(visitor));
            }
        });
        Self { address, _task: task }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

async fn answer(mut visitor: TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        match visitor.read_buf(&mut request).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
    }
    let length = PAGE.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    // A visitor that leaves early misses the page, and its test says so.
    let _ = visitor.write_all((head + PAGE).as_bytes()).await;
}
