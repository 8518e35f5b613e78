//! Who is asking, as far as limits and the list of readers need to know.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// The key under which a client is counted. Opaque: nobody but who makes it does more than compare and print it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClientKey(Kind);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Kind {
    Network { network: IpAddr, prefix: u8 },
    Token(Arc<str>),
    Own,
}

impl ClientKey {
    /// IPv4 counts by its first `v4_prefix` bits, IPv6 by its first `v6_prefix`; an IPv4-mapped address is IPv4.
    pub fn of(address: IpAddr, v4_prefix: u8, v6_prefix: u8) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => {
                let prefix = v4_prefix.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Kind::Network { network: IpAddr::V4((v4.to_bits() & mask).into()), prefix }
            }
            IpAddr::V6(v6) => {
                let prefix = v6_prefix.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Kind::Network { network: IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask)), prefix }
            }
        })
    }

    /// Sluice itself, which is no client: nothing is counted for it.
    pub fn own() -> Self {
        Self(Kind::Own)
    }

    pub fn is_own(&self) -> bool {
        matches!(self.0, Kind::Own)
    }

    /// The bearer of the token of this name, wherever it asks from.
    pub fn token(name: &Arc<str>) -> Self {
        Self(Kind::Token(name.clone()))
    }
}

/// An address where one is counted, the network in CIDR form, `token:` and a name, or sluice itself.
impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Network { network: IpAddr::V4(v4), prefix: 32 } => v4.fmt(f),
            Kind::Network { network, prefix } => write!(f, "{network}/{prefix}"),
            Kind::Token(name) => write!(f, "token:{name}"),
            Kind::Own => f.write_str("sluice"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> String {
        ClientKey::of(address.parse().expect("an address"), 32, 64).to_string()
    }

    #[test]
    fn ipv6_counts_by_its_network_and_mapped_ipv4_is_ipv4() {
        assert_eq!(key("192.0.2.7"), "192.0.2.7");
        assert_eq!(key("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
    }

    #[test]
    fn a_token_is_a_client_of_its_own() {
        let token = ClientKey::token(&"bot".into());
        assert_eq!(token.to_string(), "token:bot");
        assert_ne!(token, ClientKey::of([127, 0, 0, 1].into(), 32, 64));
    }
}
