//! The section `limits` of the configuration. All of it can change at run time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::Descriptors;
use crate::model::units;

/// Networks in a list of the configuration.
const NETWORKS_MAX: usize = 1_000;
/// Least time after which somebody who makes no progress may be given up.
const PROGRESS_LEAST: Duration = Duration::from_secs(1);
const PROGRESS_MOST: Duration = Duration::from_secs(86_400);

/// A key of the section, and what is wrong with it.
pub type Fault = (&'static str, String);

/// In all of them 0 is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Streams of one client at once.
    pub streams_per_client: u32,
    /// Streams of the host at once. Not given: half of the descriptors that the process may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams_total: Option<usize>,
    /// Streams that one client opens, per minute.
    pub new_streams_per_minute: u32,
    /// Connections of one client that are no streams.
    pub connections_per_client: u32,
    /// Requests to post of one client, per second.
    pub posts_per_second: u32,
    /// Bytes of their bodies, per second.
    #[serde(deserialize_with = "units::bytes")]
    pub post_bytes_per_second: u64,
    /// Bytes that all streams of one client are sent, per second: they slow down.
    #[serde(deserialize_with = "units::bytes")]
    pub bytes_out_per_second: u64,
    /// Reads of the log at once, for all readers behind.
    pub catchup_reads: u32,
    /// The same for those of one client.
    pub catchup_reads_per_client: u32,
    /// A reader that is behind and has taken nothing for so long is ended.
    #[serde(deserialize_with = "units::duration", serialize_with = "duration")]
    pub slow_after: Duration,
    /// A peer that acknowledges nothing for so long is gone.
    #[serde(deserialize_with = "units::duration", serialize_with = "duration")]
    pub dead_after: Duration,
    /// Leading bits of an IPv4 address by which clients are told apart.
    pub ipv4_prefix: u8,
    /// Leading bits of an IPv6 address by which clients are told apart.
    pub ipv6_prefix: u8,
    /// Networks whose word on who is asking is taken.
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Where that word stands.
    pub client_ip_header: ClientIpHeader,
    /// Other limits for some.
    pub overrides: Vec<Override>,
    /// What is counted and not enforced.
    pub shadow: Shadow,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            streams_per_client: 32,
            streams_total: None,
            new_streams_per_minute: 120,
            connections_per_client: 2048,
            posts_per_second: 0,
            post_bytes_per_second: 0,
            bytes_out_per_second: 0,
            catchup_reads: 8,
            catchup_reads_per_client: 2,
            slow_after: Duration::from_secs(120),
            dead_after: Duration::from_secs(180),
            ipv4_prefix: 32,
            ipv6_prefix: 64,
            trusted_proxies: Vec::new(),
            client_ip_header: ClientIpHeader::default(),
            overrides: Vec::new(),
            shadow: Shadow::default(),
        }
    }
}

/// How a trusted proxy says who is asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientIpHeader {
    #[default]
    XForwardedFor,
    Forwarded,
    XClientIp,
    ProxyProtocol,
}

/// Other limits for a network, or for the bearer of a token. What is not given is as for everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Override {
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "optional_network")]
    pub cidr: Option<IpNet>,
    /// The name of one of `intake.tokens`, or the `sub` claim of a JWT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams_per_client: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_streams_per_minute: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub posts_per_second: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "units::optional_bytes")]
    pub post_bytes_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "units::optional_bytes")]
    pub bytes_out_per_second: Option<u64>,
}

/// Every limit that can refuse, slow down or end somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    StreamsPerClient,
    StreamsTotal,
    NewStreams,
    ConnectionsPerClient,
    ConnectionsTotal,
    Posts,
    PostBytes,
    BytesOut,
    Slow,
    Denied,
}

impl Limit {
    pub const ALL: [Self; 10] = [
        Self::StreamsPerClient,
        Self::StreamsTotal,
        Self::NewStreams,
        Self::ConnectionsPerClient,
        Self::ConnectionsTotal,
        Self::Posts,
        Self::PostBytes,
        Self::BytesOut,
        Self::Slow,
        Self::Denied,
    ];

    /// The key that sets it, where there is one.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StreamsPerClient => "streams_per_client",
            Self::StreamsTotal => "streams_total",
            Self::NewStreams => "new_streams_per_minute",
            Self::ConnectionsPerClient => "connections_per_client",
            Self::ConnectionsTotal => "connections_total",
            Self::Posts => "posts_per_second",
            Self::PostBytes => "post_bytes_per_second",
            Self::BytesOut => "bytes_out_per_second",
            Self::Slow => "slow_after",
            Self::Denied => "deny",
        }
    }

    /// Those of the host protect its memory and its descriptors: they are enforced always.
    pub fn can_be_shadowed(self) -> bool {
        !matches!(self, Self::StreamsTotal | Self::ConnectionsTotal | Self::Denied)
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|limit| limit.as_str() == name && limit.can_be_shadowed())
    }
}

/// The limits that are only counted: who would be refused is seen, and served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shadow(Vec<Limit>);

impl Shadow {
    pub fn covers(&self, limit: Limit) -> bool {
        self.0.contains(&limit)
    }

    fn all() -> Self {
        Self(Limit::ALL.into_iter().filter(|limit| limit.can_be_shadowed()).collect())
    }
}

/// `true`, `false`, or a list of keys.
impl<'de> Deserialize<'de> for Shadow {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Switch {
            All(bool),
            Text(String),
            Some(Vec<String>),
        }
        let names = match Switch::deserialize(from) {
            Ok(Switch::All(true)) => return Ok(Self::all()),
            Ok(Switch::All(false)) => return Ok(Self::default()),
            Ok(Switch::Text(text)) => text.split(',').map(|name| name.trim().to_owned()).collect(),
            Ok(Switch::Some(names)) => names,
            Err(_) => return Err(serde::de::Error::custom("not true, false or a list of limits")),
        };
        let limits = names.iter().filter(|name| !name.is_empty()).map(|name| {
            Limit::named(name).ok_or_else(|| {
                let known: Vec<&str> = Self::all().0.iter().map(|limit| limit.as_str()).collect();
                serde::de::Error::custom(format!("'{name}' is no limit that can be shadowed: {}", known.join(", ")))
            })
        });
        limits.collect::<Result<_, _>>().map(Self)
    }
}

impl Serialize for Shadow {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0.is_empty() {
            true => to.serialize_bool(false),
            false => to.collect_seq(self.0.iter().map(|limit| limit.as_str())),
        }
    }
}

impl Options {
    /// Nothing is limited but by the host's descriptors.
    pub fn unlimited() -> Self {
        Self {
            streams_per_client: 0,
            new_streams_per_minute: 0,
            connections_per_client: 0,
            catchup_reads_per_client: 0,
            ..Self::default()
        }
    }

    /// Each value by its key, as it is shown and can be set.
    pub fn by_key(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(all)) => all,
            _ => unreachable!("options are a table"),
        }
    }

    /// What is wrong with them; with what the host has, where that is known.
    pub fn faults(&self, descriptors: Option<Descriptors>) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut check = |key, holds: bool, fault: String| {
            if !holds {
                faults.push((key, fault));
            }
        };
        check("ipv4_prefix", self.ipv4_prefix <= 32, "more than 32 bits".into());
        check("ipv6_prefix", self.ipv6_prefix <= 128, "more than 128 bits".into());
        let possible = self.slow_after.is_zero() || (PROGRESS_LEAST..=PROGRESS_MOST).contains(&self.slow_after);
        check("slow_after", possible, "not between 1s and 24h (0 is never)".into());
        let (slow, dead) = (self.slow_after, self.dead_after);
        let possible = (PROGRESS_LEAST..=PROGRESS_MOST).contains(&dead) && dead >= slow;
        check("dead_after", possible, "not between 1s and 24h, or less than slow_after".into());
        check("trusted_proxies", self.trusted_proxies.len() <= NETWORKS_MAX, format!("more than {NETWORKS_MAX}"));
        check("overrides", self.overrides.len() <= NETWORKS_MAX, format!("more than {NETWORKS_MAX}"));
        let whose = |of: &Override| of.cidr.is_some() != of.token.is_some();
        check("overrides", self.overrides.iter().all(whose), "each names a cidr or a token, and not both".into());
        if let (Some(total), Some(descriptors)) = (self.streams_total, descriptors) {
            let most = descriptors.streams;
            let fault =
                format!("more than {most}, about half of the descriptors that the process may have (ulimit -n)");
            check("streams_total", total <= most, fault);
        }
        faults
    }
}

/// A network in CIDR form, or one address; host bits do not count, and an IPv4-mapped one is IPv4.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let help = || format!("'{text}' is no address and no network such as 192.0.2.0/24 or 2001:db8::/32");
    let text = text.trim();
    let network = match text.parse::<std::net::IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| help())?,
    };
    let network = match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => IpNet::new(v4.into(), v6.prefix_len() - 96).map_err(|_| help())?,
            None => network,
        },
        network => network,
    };
    Ok(network.trunc())
}

fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    units::list(from)?.iter().map(|text| network(text).map_err(serde::de::Error::custom)).collect()
}

fn optional_network<'de, D: Deserializer<'de>>(from: D) -> Result<Option<IpNet>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| network(&text).map_err(serde::de::Error::custom)).transpose()
}

fn duration<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&Written(*time))
}

/// As config writes it.
struct Written(Duration);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            ms if ms % 1_000 == 0 => write!(f, "{}s", ms / 1_000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Options, String> {
        toml::from_str(text).map_err(|e: toml::de::Error| e.message().to_owned())
    }

    #[test]
    fn what_is_shown_is_what_can_be_set() {
        let text = "streams_total = 5\ntrusted_proxies = ['10.0.0.0/8', '::1']\nclient_ip_header = 'proxy-protocol'\n\
                    shadow = ['posts_per_second']\nslow_after = '1500ms'\n\
                    overrides = [{ cidr = '192.0.2.1', streams_per_client = 0 }, { token = 'bot', posts_per_second = 9 }]";
        let options = read(text).expect("options");
        let shown = Value::Object(options.by_key());
        assert_eq!(serde_json::from_value::<Options>(shown.clone()).expect("options"), options);
        assert_eq!(shown["shadow"], serde_json::json!(["posts_per_second"]));
        assert_eq!((&shown["slow_after"], &shown["dead_after"]), (&"1500ms".into(), &"180s".into()));
        assert_eq!(shown["trusted_proxies"], serde_json::json!(["10.0.0.0/8", "::1/128"]));
        assert_eq!(shown["overrides"][0], serde_json::json!({ "cidr": "192.0.2.1/32", "streams_per_client": 0 }));
    }

    #[test]
    fn a_network_is_an_address_or_cidr_and_nothing_else() {
        for (text, is) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.7/120", "192.0.2.0/24"),
            ("2001:db8::5/32", "2001:db8::/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(network(text).map(|network| network.to_string()), Ok(is.to_owned()));
        }
        for text in ["", "x", "192.0.2.0/33", "192.0.2", "10.0.0.0/8/8", "fe80::1%eth0"] {
            assert!(network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_of_the_host_cannot_be_shadowed_and_unknown_ones_are_named() {
        let shadow = |text: &str| read(&format!("shadow = {text}")).map(|options| options.shadow);
        let all = shadow("true").expect("a shadow");
        assert!(all.covers(Limit::StreamsPerClient) && !all.covers(Limit::StreamsTotal));
        assert_eq!(shadow("'posts_per_second, slow_after'"), Ok(Shadow(vec![Limit::Posts, Limit::Slow])));
        assert!(shadow("['streams_total']").expect_err("a fault").contains("streams_per_client"));
        assert!(!shadow("false").expect("a shadow").covers(Limit::Posts));
    }

    #[test]
    fn an_override_is_of_a_network_or_a_token() {
        let faults = |text: &str| {
            read(text).expect("options").faults(Some(Descriptors {
                streams: 50,
                connections: 25,
                held: 12,
                refused: 12,
            }))
        };
        assert_eq!(faults("overrides = [{ cidr = '10.0.0.0/8' }, { token = 'x' }]"), []);
        assert_eq!(faults("overrides = [{ streams_per_client = 1 }]").len(), 1);
        assert_eq!(faults("overrides = [{ cidr = '10.0.0.0/8', token = 'x' }]").len(), 1);
        assert_eq!(faults("streams_total = 50"), []);
        assert_eq!(faults("streams_total = 51")[0].0, "streams_total");
        assert_eq!(faults("slow_after = '10s'\ndead_after = '9s'")[0].0, "dead_after");
        assert_eq!(faults("slow_after = '999ms'\ndead_after = '1s'")[0].0, "slow_after");
        assert_eq!(faults("dead_after = '99999999d'")[0].0, "dead_after");
        assert_eq!(faults("slow_after = 0\ndead_after = '1s'"), []);
    }
}
