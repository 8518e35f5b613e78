//! The limits as they are looked up: what holds for one client.

use std::net::IpAddr;
use std::sync::Arc;

use super::Asker;
use super::options::{Options, Override};
use crate::model::ClientKey;

/// What one client may have. 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Quota {
    pub streams: u32,
    pub new_streams_per_minute: u32,
    pub posts_per_second: u32,
    pub post_bytes_per_second: u32,
    pub bytes_out_per_second: u32,
}

#[derive(Debug)]
pub(super) struct Rules {
    pub(super) options: Arc<Options>,
    /// From the widest network to the narrowest, then tokens: the last that says something holds.
    overrides: Vec<Override>,
}

impl Rules {
    pub(super) fn new(options: Options) -> Self {
        let mut overrides = options.overrides.clone();
        overrides.sort_by_key(|of| (of.token.is_some(), of.cidr.map(|network| network.prefix_len())));
        Self { options: Arc::new(options), overrides }
    }

    pub(super) fn quota(&self, asker: &Asker) -> Quota {
        let options = &self.options;
        let everybody = Quota {
            streams: options.streams_per_client,
            new_streams_per_minute: options.new_streams_per_minute,
            posts_per_second: options.posts_per_second,
            post_bytes_per_second: small(options.post_bytes_per_second),
            bytes_out_per_second: small(options.bytes_out_per_second),
        };
        let theirs = self.overrides.iter().filter(|of| holds_for(of, asker));
        theirs.fold(everybody, |quota, of| Quota {
            streams: of.streams_per_client.unwrap_or(quota.streams),
            new_streams_per_minute: of.new_streams_per_minute.unwrap_or(quota.new_streams_per_minute),
            posts_per_second: of.posts_per_second.unwrap_or(quota.posts_per_second),
            post_bytes_per_second: of.post_bytes_per_second.map_or(quota.post_bytes_per_second, small),
            bytes_out_per_second: of.bytes_out_per_second.map_or(quota.bytes_out_per_second, small),
        })
    }

    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.options.trusted_proxies.iter().any(|network| network.contains(&peer))
    }
}

fn holds_for(of: &Override, asker: &Asker) -> bool {
    let by_network = of.cidr.is_some_and(|network| network.contains(&asker.address));
    by_network || of.token.as_ref().is_some_and(|token| ClientKey::token(token) == asker.key)
}

fn small(rate: u64) -> u32 {
    u32::try_from(rate).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_network_holds_and_a_token_beats_them_all() {
        let text = "streams_per_client = 1\nposts_per_second = 1\n\
                    overrides = [{ token = 'bot', streams_per_client = 0 }, \
                                 { cidr = '192.0.2.0/28', streams_per_client = 3 }, \
                                 { cidr = '192.0.2.0/24', streams_per_client = 2, posts_per_second = 7 }]";
        let rules = Rules::new(toml::from_str(text).expect("options"));
        let of = |address: &str, key: Option<&str>| {
            let address: IpAddr = address.parse().expect("an address");
            let by_network = ClientKey::of(address, 32, 64);
            let key = key.map_or(by_network, |name| ClientKey::token(&name.into()));
            let quota = rules.quota(&Asker { address, key });
            (quota.streams, quota.posts_per_second)
        };
        assert_eq!(of("198.51.100.1", None), (1, 1));
        assert_eq!(of("192.0.2.200", None), (2, 7));
        assert_eq!(of("192.0.2.3", None), (3, 7), "what the narrower one does not say the wider one does");
        assert_eq!(of("192.0.2.3", Some("bot")), (0, 7));
        assert_eq!(of("198.51.100.1", Some("other")), (1, 1));
    }
}
