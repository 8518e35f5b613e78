//! Who is asking: a request's address, as the key under which its client is counted.

use actix_web::HttpRequest;
use serde::Deserialize;

use crate::model::ClientKey;

/// The part of the section `limits` that says who counts as one client.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientPrefixes {
    /// Leading bits of an IPv4 address by which clients are told apart.
    pub ipv4_prefix: u8,
    /// Leading bits of an IPv6 address by which clients are told apart.
    pub ipv6_prefix: u8,
}

impl Default for ClientPrefixes {
    fn default() -> Self {
        Self { ipv4_prefix: 32, ipv6_prefix: 64 }
    }
}

impl ClientPrefixes {
    /// The key of the peer. Headers change nothing until there are trusted proxies.
    pub(super) fn key_of(self, request: &HttpRequest) -> ClientKey {
        let address = request.peer_addr().map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
        ClientKey::of(address, self.ipv4_prefix, self.ipv6_prefix)
    }
}
