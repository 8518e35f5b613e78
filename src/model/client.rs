//! Who is asking, as far as limits and the list of readers need to know.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// The key under which a client is counted. Opaque: everybody but `http::client_ip` only compares and prints it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ClientKey {
    network: IpAddr,
    prefix: u8,
}

impl ClientKey {
    /// IPv4 counts by its first `v4_prefix` bits, IPv6 by its first `v6_prefix`; an IPv4-mapped address is IPv4.
    pub fn of(address: IpAddr, v4_prefix: u8, v6_prefix: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let prefix = v4_prefix.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Self { network: IpAddr::V4((v4.to_bits() & mask).into()), prefix }
            }
            IpAddr::V6(v6) => {
                let prefix = v6_prefix.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Self { network: IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask)), prefix }
            }
        }
    }
}

/// An address where one is counted, else the network in CIDR form.
impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.network, self.prefix) {
            (IpAddr::V4(v4), 32) => v4.fmt(f),
            (network, prefix) => write!(f, "{network}/{prefix}"),
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
}
