//! A connection to the public listener, as a client of it has one, and a request on it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper::header::{HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::{Lost, SECRET_HEADER, Secret};
use crate::health::Step;
use crate::limits::{ClientIpHeader, Limits};

const AGENT: &str = concat!("sluice-canary/", env!("CARGO_PKG_VERSION"));

/// Where the listener is, and what opens it. Each request has a connection of its own, so that each proves that new ones
/// are taken.
pub(super) struct Line {
    address: SocketAddr,
    tls: Option<TlsConnector>,
    secret: Secret,
    limits: Limits,
    engine: Handle,
}

/// The head, and the body as far as it is read.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Incoming,
    _connection: Connection,
}

/// Moves the bytes. Closed when dropped.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Line {
    /// To the listener at this address; one that stands for all of the host's is reached on loopback.
    pub(super) fn new(
        (listener, tls): (SocketAddr, Option<TlsConnector>),
        secret: Secret,
        limits: Limits,
        engine: Handle,
    ) -> Self {
        let ip = match listener.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self { address: SocketAddr::new(ip, listener.port()), tls, secret, limits, engine }
    }

    /// `at` is what the request is for: an answer that does not come is lost there.
    pub(super) async fn ask(
        &self,
        at: Step,
        method: Method,
        target: &str,
        headers: &[(&'static str, &str)],
        body: String,
    ) -> Result<Answer, Lost> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().map_err(|error| Lost::at(at, &error))?;
        let host = self.address.to_string();
        let own = [(HOST.as_str(), host.as_str()), (USER_AGENT.as_str(), AGENT)];
        for (name, value) in own.iter().chain(headers) {
            let value = HeaderValue::from_str(value).map_err(|error| Lost::at(at, &error))?;
            request.headers_mut().insert(*name, value);
        }
        let mut secret = HeaderValue::from_str(self.secret.reveal()).map_err(|error| Lost::at(at, &error))?;
        secret.set_sensitive(true);
        request.headers_mut().insert(SECRET_HEADER, secret);
        let io = self.connect().await.map_err(|error| Lost::at(Step::Connect, &error))?;
        let (mut sender, connection) = handshake(TokioIo::new(io)).await.map_err(|error| Lost::at(at, &error))?;
        // How it ends shows in the answer, or in its body.
        let connection = Connection(self.engine.spawn(async move { drop(connection.await) }));
        let (head, body) = sender.send_request(request).await.map_err(|error| Lost::at(at, &error))?.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body, _connection: connection })
    }

    /// In the order of the listener's own stages (see `http/conn`): a socket, the PROXY header, TLS.
    async fn connect(&self) -> io::Result<Either<TcpStream, TlsStream<TcpStream>>> {
        let mut io = self.dial().await?;
        let (from, to) = (io.local_addr()?, io.peer_addr()?);
        if self.limits.options().client_ip_header == ClientIpHeader::ProxyProtocol && self.limits.trusts(from.ip()) {
            io.write_all(proxy_header(from, to).as_bytes()).await?;
        }
        let Some(tls) = &self.tls else { return Ok(Either::Left(io)) };
        Ok(Either::Right(tls.connect(self.address.ip().into(), io).await?))
    }

    /// From a port that the listener expects: a host whose connections are all taken lets it in.
    async fn dial(&self) -> io::Result<TcpStream> {
        let (socket, any) = match self.address.ip() {
            IpAddr::V4(_) => (TcpSocket::new_v4()?, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
            IpAddr::V6(_) => (TcpSocket::new_v6()?, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
        };
        socket.bind(SocketAddr::new(any, 0))?;
        self.limits.expect_probe(socket.local_addr()?.port());
        socket.connect(self.address).await
    }
}

/// Version 1, as a balancer sends it for a client of its own machine.
fn proxy_header(from: SocketAddr, to: SocketAddr) -> String {
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_loopback() {
        for (listener, reached) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ] {
            let engine = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let listener = listener.parse().expect("an address");
            let line = Line::new((listener, None), Secret::new(), Limits::none(), engine.handle().clone());
            assert_eq!(line.address.to_string(), reached);
        }
    }

    #[test]
    fn the_proxy_header_can_be_read() {
        for (from, to) in [("127.0.0.1:4711", "127.0.0.1:80"), ("[::1]:4711", "[::1]:80")] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().expect("from"), to.parse().expect("to"));
            let line = proxy_header(from, to);
            let (source, port): (IpAddr, u16) = match ppp::v1::Header::try_from(line.as_str()).map(|h| h.addresses) {
                Ok(ppp::v1::Addresses::Tcp4(of)) => (of.source_address.into(), of.source_port),
                Ok(ppp::v1::Addresses::Tcp6(of)) => (of.source_address.into(), of.source_port),
                other => panic!("{line}: {other:?}"),
            };
            assert_eq!(SocketAddr::new(source, port), from);
        }
    }
}
