//! Who is asking: the address behind a request, as far as those between say it who are trusted.
//!
//! - this page: from the connection and a request's headers to the address
//! - `hops` what `X-Forwarded-For` and `Forwarded` say, hop by hop
//! - `proxy` the PROXY protocol, before the first request
//!
//! The word of a peer that is no trusted proxy changes nothing, whatever it says. The address is found once for each
//! request, by `door`.

mod hops;
pub(super) mod proxy;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::http::header::HeaderMap;
use actix_web::{HttpMessage, HttpRequest};

use self::hops::Hop;
use crate::limits::{Asker, ClientIpHeader, Limits};

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED: &str = "forwarded";
const X_CLIENT_IP: &str = "x-client-ip";

/// What a trusted proxy has sent, and nobody can read. Names the header and what stands in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the proxy in front of this server says in {header} who is asking, and {fault}: see limits.client_ip_header")]
pub(super) struct Unreadable {
    header: &'static str,
    fault: String,
}

/// The client that a PROXY header has named, in the data of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told(pub(super) IpAddr);

/// Who asks, as `door` has found it; by the socket's address where there is no door.
pub(super) fn asker(request: &HttpRequest, limits: &Limits) -> Asker {
    let found = request.extensions().get::<Asker>().cloned();
    found.unwrap_or_else(|| limits.asker(of_socket(request), None))
}

/// The other end of the socket.
pub(super) fn of_socket(request: &HttpRequest) -> IpAddr {
    // Every accepted socket has one, but one whose peer had left before it was asked.
    request.peer_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip().to_canonical())
}

/// The address behind a request.
pub(super) fn find(request: &HttpRequest, limits: &Limits) -> Result<IpAddr, Unreadable> {
    if let Some(Told(client)) = request.conn_data::<Told>() {
        return Ok(*client);
    }
    let socket = of_socket(request);
    if !limits.trusts(socket) {
        warn_of_stranger(request.headers(), socket);
        return Ok(socket);
    }
    let (header, said) = match limits.options().client_ip_header {
        ClientIpHeader::XForwardedFor => (X_FORWARDED_FOR, x_forwarded_for(request.headers(), socket, limits)),
        ClientIpHeader::Forwarded => (FORWARDED, forwarded(request.headers(), socket, limits)),
        ClientIpHeader::XClientIp => (X_CLIENT_IP, x_client_ip(request.headers())),
        // `proxy` has warned already.
        ClientIpHeader::ProxyProtocol => return Ok(socket),
    };
    let said = said.map_err(|fault| Unreadable { header, fault })?;
    Ok(said.unwrap_or_else(|| {
        warn_of_silence(header, socket);
        socket
    }))
}

/// `None`: it says nothing. The same holds for the next two.
fn x_forwarded_for(headers: &HeaderMap, socket: IpAddr, limits: &Limits) -> Result<Option<IpAddr>, String> {
    let lines = lines(headers, X_FORWARDED_FOR)?;
    let mut hops = lines.iter().rev().flat_map(|line| hops::of_list(line)).peekable();
    if hops.peek().is_none() {
        return Ok(None);
    }
    hops::nearest_stranger(socket, hops, |address| limits.trusts(address)).map(Some)
}

fn forwarded(headers: &HeaderMap, socket: IpAddr, limits: &Limits) -> Result<Option<IpAddr>, String> {
    let lines = lines(headers, FORWARDED)?;
    // Line by line, from the last: what a proxy has added in a line of its own cannot be spoiled by those before it.
    let mut hops = lines.iter().rev().flat_map(|line| hops::of_forwarded(line)).peekable();
    if hops.peek().is_none() {
        return Ok(None);
    }
    hops::nearest_stranger(socket, hops, |address| limits.trusts(address)).map(Some)
}

fn x_client_ip(headers: &HeaderMap) -> Result<Option<IpAddr>, String> {
    match lines(headers, X_CLIENT_IP)?.as_slice() {
        [] | [""] => Ok(None),
        [one] => match hops::hop(one)? {
            Hop::Address(address) => Ok(Some(address)),
            Hop::Hidden => Ok(None),
        },
        more => Err(format!("it is given {} times", more.len())),
    }
}

fn lines<'a>(headers: &'a HeaderMap, name: &str) -> Result<Vec<&'a str>, String> {
    let lines = headers.get_all(name).map(|line| line.to_str().map(str::trim));
    lines.collect::<Result<_, _>>().map_err(|_| "it is not ASCII".to_owned())
}

/// A header that changes nothing, where somebody may believe that it does.
fn warn_of_stranger(headers: &HeaderMap, socket: IpAddr) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    let sent = || [X_FORWARDED_FOR, FORWARDED, X_CLIENT_IP].into_iter().find(|name| headers.contains_key(*name));
    // Looked at first: a busy process has warned long ago.
    if !WARNED.load(Ordering::Relaxed)
        && let Some(header) = sent()
        && !WARNED.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(
            peer = %socket,
            "{header} from a peer that is not trusted changes nothing: all that comes through it counts as one client; if \
             it is a proxy of yours, name it in limits.trusted_proxies (said once)"
        );
    }
}

fn warn_of_silence(header: &str, socket: IpAddr) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            peer = %socket,
            "a trusted proxy does not say in {header} who is asking: counted under its own address; have it send the \
             header, or set limits.client_ip_header to the one that it sends (said once)"
        );
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn limits(header: &str) -> Limits {
        let limits = Limits::none();
        let toml = format!("trusted_proxies = ['10.0.0.0/8', '2001:db8:f::/48']\nclient_ip_header = '{header}'");
        limits.set(toml::from_str(&toml).expect("options")).expect("limits");
        limits
    }

    /// The address, or the whole complaint.
    fn found(header: &str, peer: &str, lines: &[(&str, &str)]) -> String {
        let peer = peer.parse().expect("an address");
        let request = TestRequest::get().peer_addr(std::net::SocketAddr::new(peer, 5));
        let request = lines.iter().fold(request, |request, line| request.append_header(*line));
        find(&request.to_http_request(), &limits(header)).map_or_else(|e| e.to_string(), |address| address.to_string())
    }

    #[test]
    fn headers_of_a_stranger_change_nothing_and_neither_do_those_that_are_not_asked_for() {
        let all = [("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1"), ("x-client-ip", "1.1.1.1")];
        for header in ["x-forwarded-for", "forwarded", "x-client-ip", "proxy-protocol"] {
            assert_eq!(found(header, "192.0.2.9", &all), "192.0.2.9", "{header}");
            assert_eq!(found(header, "::ffff:192.0.2.9", &all), "192.0.2.9", "{header}");
            assert_eq!(found(header, "192.0.2.9", &[(header, "garbage \"")]), "192.0.2.9", "{header}");
            let others: Vec<_> = all.iter().copied().filter(|(name, _)| *name != header).collect();
            assert_eq!(found(header, "10.0.0.1", &others), "10.0.0.1", "{header}");
        }
    }

    #[test]
    fn of_a_chain_the_last_one_that_is_no_trusted_proxy_counts() {
        let table: [(&[&str], &str); 14] = [
            (&["198.51.100.7"], "198.51.100.7"),
            (&["198.51.100.7:4711"], "198.51.100.7"),
            (&["::ffff:198.51.100.7"], "198.51.100.7"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["[2001:db8::7]"], "2001:db8::7"),
            (&["[2001:db8::7]:4711"], "2001:db8::7"),
            // What stands before it is the client's own word, be it what it may.
            (&["1.1.1.1, garbage \", 198.51.100.7"], "198.51.100.7"),
            (&["1.1.1.1", "198.51.100.7, 10.0.0.2 ,2001:db8:f::1"], "198.51.100.7"),
            (&["198.51.100.7", "10.0.0.2", "10.0.0.3,"], "198.51.100.7"),
            (&["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
            (&["10.0.0.2, ::ffff:10.0.0.3"], "10.0.0.2"),
            // A proxy that does not tell is counted itself.
            (&["198.51.100.7, unknown"], "10.0.0.1"),
            (&["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["", " , "], "10.0.0.1"),
        ];
        for (lines, client) in table {
            let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            assert_eq!(found("x-forwarded-for", "10.0.0.1", &lines), client, "{lines:?}");
        }
    }

    #[test]
    fn forwarded_is_read_with_its_quotes_its_other_parameters_and_its_hidden_nodes() {
        let table: [(&[&str], &str); 14] = [
            (&["for=198.51.100.7"], "198.51.100.7"),
            (&["For=\"[2001:db8::7]:4711\""], "2001:db8::7"),
            (&["for=[2001:db8::7]"], "2001:db8::7"),
            (&["for=\"198.51.100.7:_hidden\""], "198.51.100.7"),
            (&["proto=https;for=198.51.100.7;by=\"_p, for=1.1.1.1\""], "198.51.100.7"),
            (&["for=1.1.1.1, for=198.51.100.7 ; host=\"a\\\"b\" , for=10.0.0.2"], "198.51.100.7"),
            (&["for=1.1.1.1", "for=198.51.100.7", "for=10.0.0.2"], "198.51.100.7"),
            (&["for=\"unfinished", "for=198.51.100.7"], "198.51.100.7"),
            (&["for=10.0.0.2,for=10.0.0.3"], "10.0.0.2"),
            (&["for=198.51.100.7, for=unknown"], "10.0.0.1"),
            (&["for=198.51.100.7, for=_gazonk, for=10.0.0.2"], "10.0.0.2"),
            (&["for=\"unknown:80\""], "10.0.0.1"),
            (&["for=198.51.100.7, proto=http"], "10.0.0.1"),
            (&[""], "10.0.0.1"),
        ];
        for (lines, client) in table {
            let lines: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
            assert_eq!(found("forwarded", "10.0.0.1", &lines), client, "{lines:?}");
        }
    }

    #[test]
    fn what_a_trusted_proxy_sends_and_nobody_can_read_is_said_with_the_header() {
        let table = [
            ("x-forwarded-for", "nonsense", "'nonsense' is no address"),
            ("x-forwarded-for", "198.51.100.7, 198.51.100", "'198.51.100' is no address"),
            ("x-forwarded-for", "198.51.100.7:port", "is no address"),
            ("x-forwarded-for", "[2001:db8::7", "is no address"),
            ("x-forwarded-for", "[198.51.100.7]", "is no address"),
            ("x-forwarded-for", "nonsense, 10.0.0.2", "'nonsense' is no address"),
            ("x-forwarded-for", "198.51.100.7é", "not ASCII"),
            ("forwarded", "198.51.100.7", "no parameter"),
            ("forwarded", "for=198.51.100.7;for=1.1.1.1", "twice"),
            ("forwarded", "for=\"198.51.100.7", "does not end"),
            ("forwarded", "for=1.1.1.1;x=\", for=\"[2001:db8::7]\"", "no parameter"),
            ("forwarded", "for=\"198.51.100.7\"x", "no parameter"),
            ("forwarded", "for=", "is no address"),
            ("forwarded", "for=_", "is no address"),
            ("x-client-ip", "198.51.100.7, 1.1.1.1", "is no address"),
        ];
        for (header, value, complaint) in table {
            let told = found(header, "10.0.0.1", &[(header, value)]);
            assert!(told.contains(header) && told.contains(complaint), "{value}: {told}");
        }
        let twice = found("x-client-ip", "10.0.0.1", &[("x-client-ip", "1.1.1.1"), ("x-client-ip", "1.1.1.2")]);
        assert!(twice.contains("2 times"), "{twice}");
        let long = found("x-forwarded-for", "10.0.0.1", &[("x-forwarded-for", &"10.0.0.2,".repeat(10_000))]);
        assert!(long.contains("64 hops"), "{long}");
    }

    #[test]
    fn x_client_ip_is_one_address() {
        let of = |value: &str| found("x-client-ip", "10.0.0.1", &[("x-client-ip", value)]);
        assert_eq!(of(" 198.51.100.7 "), "198.51.100.7");
        assert_eq!(of("::ffff:198.51.100.7"), "198.51.100.7");
        assert_eq!(of("[2001:db8::7]:80"), "2001:db8::7");
        assert_eq!(of("10.0.0.2"), "10.0.0.2", "one that is trusted, too: nobody else is named");
        assert_eq!((of(""), of("unknown")), ("10.0.0.1".into(), "10.0.0.1".into()));
    }
}
