//! Who is asking: a request's address, as the key under which its client is counted, and as a producer's events have it.

use std::net::{IpAddr, SocketAddr};

use actix_web::HttpRequest;

use crate::limits::{Asker, Limits};

/// Who asks. Headers change nothing until trusted proxies are looked for.
pub(super) fn asker(request: &HttpRequest, limits: &Limits) -> Asker {
    let address = request.peer_addr().map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
    limits.asker(address, None)
}

/// Whom a producer's events come from, as EventGate has it: what a proxy says, or whoever poses as one, and else the
/// peer. For a field of the events and for nothing else.
pub(super) fn of_producer(request: &HttpRequest) -> Option<IpAddr> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let named = header("x-client-ip").and_then(address);
    let forwarded = || header("x-forwarded-for").and_then(|list| address(list.split(',').next().unwrap_or_default()));
    let peer = || request.peer_addr().map(|peer| peer.ip());
    named.or_else(forwarded).or_else(peer).map(|address| address.to_canonical())
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_producer_is_the_client_that_is_named_then_the_first_that_is_forwarded_for_then_the_peer() {
        let of = |headers: &[(&'static str, &'static str)]| {
            let request = TestRequest::post().peer_addr("[::ffff:192.0.2.9]:5".parse().expect("an address"));
            let request = headers.iter().fold(request, |request, header| request.insert_header(*header));
            of_producer(&request.to_http_request()).map(|address| address.to_string()).expect("an address")
        };
        let forwarded = ("x-forwarded-for", "198.51.100.7 , 10.0.0.1");
        assert_eq!(of(&[]), "192.0.2.9");
        assert_eq!(of(&[forwarded]), "198.51.100.7");
        assert_eq!(of(&[("x-forwarded-for", "198.51.100.7:81")]), "198.51.100.7");
        assert_eq!(of(&[("x-client-ip", "2001:db8::1"), forwarded]), "2001:db8::1");
        assert_eq!(of(&[("x-client-ip", "somebody"), forwarded]), "198.51.100.7");
        assert_eq!(of(&[("x-client-ip", ""), ("x-forwarded-for", "unknown, 10.0.0.1")]), "192.0.2.9");
    }
}
