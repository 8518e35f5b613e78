//! Who may ask, beyond the probes.
//!
//! Over the Unix socket everybody who can open it. Over TCP who shows the token; where none is set everybody on this
//! machine, if the listener is on a loopback address. Never a page in an operator's browser: what is typed into one is
//! not what a page that happens to be open there may do.

use std::any::Any;
use std::future::{Ready, ready};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use actix_web::dev::{Extensions, Payload};
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, web};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::net::{TcpStream, UnixStream};

use super::refusal::Refusal;

/// A shorter one is guessed.
const TOKEN_BYTES_LEAST: usize = 16;
/// What an operator's tool may say of who sits before it, in characters.
const NAME_CHARS_MAX: usize = 100;
/// Sent by browsers only: where the request comes from.
const SEC_FETCH_SITE: &str = "sec-fetch-site";
const SLUICE_OPERATOR: &str = "sluice-operator";

/// Whether this can be a token: long enough, and as a header can carry it.
pub fn is_token(text: &str) -> bool {
    text.len() >= TOKEN_BYTES_LEAST && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    UnixSocket,
    Address(IpAddr),
}

impl Peer {
    /// Called when a connection begins. Of one whose peer cannot be told nothing is noted, and so it may nothing.
    pub(super) fn note(io: &dyn Any, connection: &mut Extensions) {
        if io.is::<UnixStream>() {
            connection.insert(Self::UnixSocket);
        } else if let Some(Ok(peer)) = io.downcast_ref::<TcpStream>().map(TcpStream::peer_addr) {
            connection.insert(Self::Address(peer.ip().to_canonical()));
        }
    }
}

/// What has to be shown.
pub(super) struct Gate {
    on_loopback: bool,
    address: Option<SocketAddr>,
    token: Option<[u8; 32]>,
}

impl Gate {
    pub(super) fn new(address: Option<SocketAddr>, token: Option<String>) -> Self {
        let on_loopback = address.is_some_and(|address| address.ip().to_canonical().is_loopback());
        Self { on_loopback, address, token: token.map(|token| hash(token.as_bytes())) }
    }

    /// Scraping needs no token, so it is no reason not to start.
    pub(super) fn warn_where_nobody_may(&self) {
        if let (false, None, Some(address)) = (self.on_loopback, &self.token, self.address) {
            tracing::warn!(
                "the operators' routes are closed: others than this machine reach {address}, and admin.token is not set; \
                 /metrics, /healthz and /readyz are open to all of them"
            );
        }
    }

    fn admit(&self, request: &HttpRequest) -> Result<Peer, Refusal> {
        let peer = request.conn_data::<Peer>().copied().ok_or(Refusal::Closed)?;
        let headers = request.headers();
        let site = headers.get(SEC_FETCH_SITE).map(header::HeaderValue::as_bytes);
        if headers.contains_key(header::ORIGIN) || site.is_some_and(|site| site != b"none" && site != b"same-origin") {
            return Err(Refusal::FromAPage);
        }
        match &self.token {
            _ if peer == Peer::UnixSocket => Ok(peer),
            Some(token) => self.admit_bearer(token, headers).map(|()| peer),
            None if !self.on_loopback => Err(Refusal::Closed),
            None if !names_this_machine(request) => Err(Refusal::Rebound),
            None => Ok(peer),
        }
    }

    /// By hashes, each compared to its end: how long it takes says nothing about the token.
    fn admit_bearer(&self, token: &[u8; 32], headers: &header::HeaderMap) -> Result<(), Refusal> {
        let sent = headers.get(header::AUTHORIZATION).ok_or(Refusal::NoToken)?.as_bytes();
        let scheme = b"bearer ";
        let (given, sent) = sent.split_at_checked(scheme.len()).ok_or(Refusal::BadToken)?;
        let is_bearer = given.eq_ignore_ascii_case(scheme);
        let is_it = hash(sent.trim_ascii()).as_slice().ct_eq(token.as_slice());
        if is_bearer && bool::from(is_it) { Ok(()) } else { Err(Refusal::BadToken) }
    }
}

fn hash(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// By an address, or as `localhost`. Any other name can be one that a page's owner has pointed at this machine, so that
/// the browser takes the two for the same site.
fn names_this_machine(request: &HttpRequest) -> bool {
    let of_header = || request.headers().get(header::HOST)?.to_str().ok();
    let Some(host) = request.uri().authority().map(|authority| authority.as_str()).or_else(of_header) else {
        return false;
    };
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    host.eq_ignore_ascii_case("localhost")
        || v6.map_or(host.parse::<IpAddr>().is_ok(), |host| host.parse::<Ipv6Addr>().is_ok())
}

/// Somebody who may. Who it is, as far as that is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Operator {
    peer: Peer,
    /// As their tool says. Not believed, only written down.
    pub(super) name: Option<String>,
}

impl Operator {
    pub(super) fn peer(&self) -> String {
        match self.peer {
            Peer::UnixSocket => "unix socket".to_owned(),
            Peer::Address(address) => address.to_string(),
        }
    }
}

impl FromRequest for Operator {
    type Error = Refusal;
    type Future = Ready<Result<Self, Refusal>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let gate = request.app_data::<web::Data<Gate>>();
        let admitted = gate.ok_or(Refusal::Closed).and_then(|gate| gate.admit(request));
        ready(admitted.map(|peer| Self { peer, name: name(request) }))
    }
}

fn name(request: &HttpRequest) -> Option<String> {
    let sent = request.headers().get(SLUICE_OPERATOR)?.to_str().ok()?;
    let name: String = sent.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
    Some(name).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn host(host: &str) -> bool {
        names_this_machine(&TestRequest::get().insert_header((header::HOST, host)).to_http_request())
    }

    #[test]
    fn addresses_and_localhost_name_this_machine_and_names_may_be_anybodys() {
        for right in ["localhost", "LocalHost:9102", "127.0.0.1", "127.0.0.1:9102", "[::1]:9102", "[::1]", "10.0.0.7:1"]
        {
            assert!(host(right), "{right}");
        }
        for wrong in
            ["", "x", "evil.example", "evil.example:9102", "localhost.evil.example", "127.0.0.1.nip.io", "[::1"]
        {
            assert!(!host(wrong), "{wrong}");
        }
        assert!(!names_this_machine(&TestRequest::get().to_http_request()), "no Host at all");
        let absolute = TestRequest::get().uri("http://evil.example/limits").insert_header((header::HOST, "localhost"));
        assert!(!names_this_machine(&absolute.to_http_request()), "what the request line names counts more");
    }

    #[test]
    fn a_token_is_compared_whole() {
        let gate = Gate::new("0.0.0.0:9102".parse().ok(), Some("0123456789abcdef".into()));
        let sent = |value: &str| {
            let request = TestRequest::get().insert_header((header::AUTHORIZATION, value)).to_http_request();
            let token = gate.token.as_ref().expect("a token");
            gate.admit_bearer(token, request.headers())
        };
        assert_eq!(sent("Bearer 0123456789abcdef"), Ok(()));
        assert_eq!(sent("bearer  0123456789abcdef "), Ok(()));
        for wrong in
            ["", "Bearer", "Bearer ", "Bearer 0123456789abcde", "Bearer 0123456789abcdef0", "Basic 0123456789abcdef"]
        {
            assert_eq!(sent(wrong), Err(Refusal::BadToken), "{wrong}");
        }
        assert!(is_token("0123456789abcdef") && !is_token("0123456789abcde") && !is_token("0123456789 abcdef"));
    }
}
