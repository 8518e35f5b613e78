//! An address that stays the same while what is behind it changes: a name whose machine was replaced.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Its connections end with it.
pub struct Forwarder {
    pub address: SocketAddr,
    behind: watch::Sender<Option<SocketAddr>>,
    _task: JoinSet<()>,
}

impl Forwarder {
    /// At first nothing is behind it: who connects is cut off.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (behind, now) = watch::channel(None);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (client, _) = accepted.expect("a connection");
                        connections.spawn(forward(client, now.clone()));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self { address, behind, _task: task }
    }

    /// From now on; connections to what was there are cut.
    pub fn point_to(&self, address: Option<SocketAddr>) {
        self.behind.send_replace(address);
    }
}

async fn forward(mut client: TcpStream, mut behind: watch::Receiver<Option<SocketAddr>>) {
    let Some(address) = *behind.borrow_and_update() else { return };
    let Ok(mut server) = TcpStream::connect(address).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = behind.changed() => {}
    }
}
