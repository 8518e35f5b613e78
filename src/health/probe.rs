//! A reader of the public listener, as any other, only that its slot is kept free for it.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use subtle::ConstantTimeEq;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use super::{Health, Step, Trip};
use crate::catalog::Live;
use crate::limits::Limits;
use crate::shutdown::{Stage, Stop};

/// The header that carries the secret.
pub const SECRET_HEADER: &str = "sluice-probe";

/// How often a stream is tried, and how long it may take to open.
const EVERY: Duration = Duration::from_secs(5);
const AT_MOST: Duration = Duration::from_secs(4);
/// Longest head that is read.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What earns the reserved slot: made at the start, and known to nobody outside of the process.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    pub fn new() -> Self {
        let random = || uuid::Uuid::new_v4().simple().to_string();
        Self((random() + &random()).into())
    }

    #[cfg(test)]
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    pub fn is(&self, text: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(text).into()
    }
}

impl Default for Secret {
    fn default() -> Self {
        Self::new()
    }
}

/// It must not stand in any log.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Reads a stream now and then.
pub struct Probe {
    address: SocketAddr,
    secret: Secret,
    catalog: Live,
    limits: Limits,
}

impl Probe {
    /// Of the listener at this address; an address that stands for all of the host's is probed on loopback.
    pub fn new(listener: SocketAddr, secret: Secret, catalog: Live, limits: Limits) -> Self {
        let ip = match listener.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self { address: SocketAddr::new(ip, listener.port()), secret, catalog, limits }
    }

    /// Until streams end.
    pub async fn run(self, health: Health, mut stop: Stop) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.reached(Stage::EndStreams) => return,
            }
            let began = Instant::now();
            let opened = timeout(AT_MOST, self.open()).await;
            health.note(match opened {
                Ok(Ok(())) => Trip::Made { took: began.elapsed() },
                Ok(Err(why)) => Trip::Failed { at: Step::Open, why: why.to_string() },
                Err(_) => Trip::Failed { at: Step::Open, why: format!("it has not within {AT_MOST:?}") },
            });
        }
    }

    /// From a port that the listener expects: a host whose connections are all taken lets it in.
    async fn connect(&self) -> io::Result<TcpStream> {
        let (socket, any) = match self.address.ip() {
            IpAddr::V4(_) => (TcpSocket::new_v4()?, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
            IpAddr::V6(_) => (TcpSocket::new_v6()?, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
        };
        socket.bind(SocketAddr::new(any, 0))?;
        self.limits.expect_probe(socket.local_addr()?.port());
        socket.connect(self.address).await
    }

    /// Until the first bytes of the stream are here. Then it leaves.
    async fn open(&self) -> io::Result<()> {
        let mut socket = self.connect().await?;
        let catalog = self.catalog.now();
        let stream = catalog.streams().next().ok_or_else(|| io::Error::other("the catalogue has none"))?;
        let (stream, host, secret) = (&stream.name, self.address, &self.secret.0);
        let request = format!(
            "GET /v2/stream/{stream} HTTP/1.1\r\nhost: {host}\r\nuser-agent: sluice-probe\r\n\
             accept: text/event-stream\r\n{SECRET_HEADER}: {secret}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let mut piece = [0; 1024];
        loop {
            let bytes = socket.read(&mut piece).await?;
            answer.extend_from_slice(&piece[..bytes]);
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                match head.split(' ').nth(1) {
                    Some("200") if !head.to_ascii_lowercase().contains(SECRET_HEADER) => {
                        return Err(io::Error::other(
                            "it is told to come back later, although it has a slot of its own",
                        ));
                    }
                    Some("200") if body.contains(":ok") => return Ok(()),
                    Some("200") => {}
                    status => return Err(io::Error::other(format!("the answer is {}", status.unwrap_or("no HTTP")))),
                }
            }
            if bytes == 0 || answer.len() > HEAD_BYTES_MAX {
                return Err(io::Error::other("the answer ends before the stream begins"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use crate::catalog::Catalog;

    use super::*;

    async fn answered(answer: &'static str) -> (Result<(), String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let served = async {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let mut request = vec![0; 4096];
            let bytes = socket.read(&mut request).await.expect("a request");
            socket.write_all(answer.as_bytes()).await.expect("written");
            String::from_utf8_lossy(&request[..bytes]).into_owned()
        };
        let catalog = Catalog::parse("test.event: {}", "test").expect("a catalogue");
        let probe = Probe::new(address, Secret::new(), Live::fixed(catalog), Limits::none());
        let (opened, request) = tokio::join!(probe.open(), served);
        assert!(request.contains(&*probe.secret.0) && !format!("{:?}", probe.secret).contains(&*probe.secret.0));
        (opened.map_err(|e| e.to_string()), request)
    }

    #[tokio::test]
    async fn a_stream_has_opened_when_its_first_bytes_are_here_and_its_slot_was_the_probes() {
        let (opened, request) = answered("HTTP/1.1 200 OK\r\nSluice-Probe: reserved\r\n\r\n5\r\n:ok\n\n\r\n").await;
        assert_eq!(opened, Ok(()));
        assert!(request.starts_with("GET /v2/stream/test.event HTTP/1.1\r\n"), "{request}");
        for (answer, why) in [
            ("HTTP/1.1 200 OK\r\n\r\n5\r\n:ok\n\n\r\n", "told to come back"),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "the answer is 503"),
            ("HTTP/1.1 200 OK\r\nsluice-probe: reserved\r\n\r\n", "ends before"),
            ("", "ends before"),
        ] {
            let (opened, _) = answered(answer).await;
            assert!(opened.as_ref().is_err_and(|error| error.contains(why)), "{answer:?}: {opened:?}");
        }
    }

    #[test]
    fn a_secret_is_only_itself() {
        let secret = Secret::new();
        assert!(
            secret.is(secret.0.as_bytes())
                && !secret.is(b"")
                && !secret.is(&secret.0.as_bytes()[..8])
                && !secret.is(Secret::new().0.as_bytes())
        );
        assert_eq!(secret.0.len(), 64);
    }
}
