//! The section `log.kafka` of the configuration, and which of librdkafka's properties are not the operator's to change.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::clients::Clients;
use crate::model::units;

/// Where Kafka is, and how to talk to it. Without `bootstrap_servers` the log is SQLite.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// `host:port` of some of the brokers: the first contact, and the way back when every known broker has moved.
    #[serde(deserialize_with = "units::list")]
    pub bootstrap_servers: Vec<String>,
    /// The consumer group of this host, as lag tools show it. By default `sluice-<host>-<port>`.
    pub group_id: Option<String>,
    /// Any property of librdkafka, such as `security.protocol`; it beats sluice's own choice, except where a promise of
    /// sluice rests on that.
    #[serde(deserialize_with = "properties", serialize_with = "redacted")]
    pub properties: BTreeMap<String, String>,
}

impl Options {
    /// Whether the log is Kafka at all.
    pub fn chosen(&self) -> bool {
        !self.bootstrap_servers.is_empty()
    }

    /// Every property that contradicts a promise of sluice, or that librdkafka does not take. `deadline` is the one of a
    /// request to append.
    pub fn faults(&self, deadline: Duration) -> Vec<PropertyFault> {
        let mut faults = self.contradictions(deadline);
        if self.chosen() {
            let refused = Clients::new(self.clone(), "", 0, deadline).faults();
            faults.extend(refused.into_iter().filter(|refused| self.properties.contains_key(&refused.key)));
        }
        faults
    }

    /// Every property that contradicts a promise of sluice.
    pub(super) fn contradictions(&self, deadline: Duration) -> Vec<PropertyFault> {
        self.properties.iter().filter_map(|(key, value)| fault_of(key, value, deadline)).collect()
    }
}

/// One property that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log.kafka.properties.{key} cannot be set so: {why}")]
pub struct PropertyFault {
    pub key: String,
    pub why: String,
}

/// Property, the only values it may have, and why.
const KEPT: &[(&str, &[&str], &str)] = &[
    ("acks", &["all", "-1"], "what is acknowledged must be on all in-sync replicas"),
    ("request.required.acks", &["all", "-1"], "what is acknowledged must be on all in-sync replicas"),
    ("enable.idempotence", &["true"], "a retry inside the client must not repeat a record"),
    ("isolation.level", &["read_committed"], "what a transaction took back must not reach readers"),
    ("auto.offset.reset", &["error"], "sluice itself decides where to go on, and says so"),
    ("enable.auto.commit", &["false"], "sluice commits what it has handed on, not what it has fetched"),
    ("enable.auto.offset.store", &["false"], "sluice commits what it has handed on, not what it has fetched"),
    ("enable.partition.eof", &[], "each of sluice's clients needs its own value"),
    ("transactional.id", &[], "appends of many requests share one producer"),
    ("bootstrap.servers", &[], "it has a key of its own, log.kafka.bootstrap_servers"),
    ("metadata.broker.list", &[], "it has a key of its own, log.kafka.bootstrap_servers"),
    ("group.id", &[], "it has a key of its own, log.kafka.group_id"),
];

/// A record's own time-out must end before the request that waits for it.
const DELIVERY_TIMEOUTS: [&str; 2] = ["delivery.timeout.ms", "message.timeout.ms"];

fn fault_of(key: &str, value: &str, deadline: Duration) -> Option<PropertyFault> {
    let fault = |why: String| Some(PropertyFault { key: key.to_owned(), why });
    if DELIVERY_TIMEOUTS.contains(&key) {
        let within = value.parse().is_ok_and(|ms: u64| ms > 0 && u128::from(ms) < deadline.as_millis());
        return if within {
            None
        } else {
            fault(format!("it must end before the deadline of a request, {deadline:?}"))
        };
    }
    match KEPT.iter().find(|(kept, ..)| *kept == key) {
        Some((_, allowed, why)) if !allowed.contains(&value) => fault((*why).to_owned()),
        _ => None,
    }
}

/// Passwords, keys and tokens: never printed.
pub(super) fn is_secret(key: &str) -> bool {
    ["password", "secret", "key", "token", "sasl.jaas", "oauthbearer.config"].iter().any(|part| key.contains(part))
}

const REDACTED: &str = "(redacted)";

fn shown(properties: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    let show = |(key, value)| (String::as_str(key), if is_secret(key) { REDACTED } else { String::as_str(value) });
    properties.iter().map(show).collect()
}

fn redacted<S: Serializer>(properties: &BTreeMap<String, String>, to: S) -> Result<S::Ok, S::Error> {
    shown(properties).serialize(to)
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("group_id", &self.group_id)
            .field("properties", &shown(&self.properties))
            .finish()
    }
}

/// A value, or a table of them: TOML reads `properties.security.protocol` as tables in tables.
#[derive(Deserialize)]
#[serde(untagged)]
enum Property {
    Flag(bool),
    Number(i64),
    Fraction(f64),
    Text(String),
    Table(BTreeMap<String, Property>),
}

fn properties<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let tables: BTreeMap<String, Property> = BTreeMap::deserialize(from).map_err(|_| {
        D::Error::custom("not a table of librdkafka properties: values are texts, numbers or true and false")
    })?;
    let mut flat = BTreeMap::new();
    flatten("", tables, &mut flat);
    Ok(flat)
}

fn flatten(prefix: &str, table: BTreeMap<String, Property>, into: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        let text = match value {
            Property::Flag(flag) => flag.to_string(),
            Property::Number(number) => number.to_string(),
            Property::Fraction(fraction) => fraction.to_string(),
            Property::Text(text) => text,
            Property::Table(table) => {
                flatten(&key, table, into);
                continue;
            }
        };
        into.insert(key, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Options {
        toml::from_str(toml).expect("a valid section")
    }

    #[test]
    fn a_property_is_written_flat_or_as_tables_and_with_its_own_kind_of_value() {
        let options = read(
            "bootstrap_servers = \"a:1, b:2\"\nproperties.\"socket.keepalive.enable\" = true\n\
             properties.linger.ms = 0.5\nproperties.sasl.username = \"me\"\nproperties.retries = 3",
        );
        assert_eq!(options.bootstrap_servers, ["a:1", "b:2"]);
        let expected =
            [("linger.ms", "0.5"), ("retries", "3"), ("sasl.username", "me"), ("socket.keepalive.enable", "true")];
        assert_eq!(options.properties, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn secrets_never_print() {
        let options = read("properties.sasl.password = \"hush\"\nproperties.ssl.key.pem = \"hush\"\ngroup_id = \"g\"");
        let printed = format!("{options:?} {}", toml::to_string(&options).expect("it can be written"));
        assert!(!printed.contains("hush") && printed.contains("sasl.password"), "{printed}");
    }

    #[test]
    fn what_a_promise_rests_on_cannot_be_changed() {
        let options = read(
            "[properties]\nacks = 1\n\"enable.idempotence\" = true\n\"group.id\" = \"x\"\n\"delivery.timeout.ms\" = 9000\n\
             \"security.protocol\" = \"ssl\"\n\"message.timeout.ms\" = 8999",
        );
        let keys: Vec<String> =
            options.faults(Duration::from_secs(9)).into_iter().map(|PropertyFault { key, .. }| key).collect();
        assert_eq!(keys, ["acks", "delivery.timeout.ms", "group.id"]);
    }
}
