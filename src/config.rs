//! Gathers the sections that the modules declare: defaults < file < environment < flags.
//!
//! All that is wrong is reported at once, and nothing is ever half applied: every key is read alone first, so that one
//! fault does not hide the next.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::{Table, Value};

use crate::log::{kafka, sqlite};
use crate::model::units;
use crate::{http, hub, intake};

/// What environment variables begin with that set a key: `SLUICE__SECTION__KEY`.
const ENV_PREFIX: &str = "SLUICE__";

/// The whole configuration. Every key is optional.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the SQLite log and other state live.
    pub data_dir: PathBuf,
    pub http: http::Options,
    pub admin: Admin,
    pub catalog: CatalogSource,
    pub log: LogOptions,
    pub hub: hub::Options,
    pub intake: intake::Options,
    pub limits: http::ClientPrefixes,
    pub stop: Stop,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "./data".into(),
            http: http::Options::default(),
            admin: Admin::default(),
            catalog: CatalogSource::default(),
            log: LogOptions::default(),
            hub: hub::Options::default(),
            intake: intake::Options::default(),
            limits: http::ClientPrefixes::default(),
            stop: Stop::default(),
        }
    }
}

/// The section `admin`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address and port of the operators' listener, or `off`. Not given: the default port, or a free one if it is taken.
    pub listen: Option<String>,
}

/// The section `catalog`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CatalogSource {
    /// A file of streams in the EventStreamConfig shape, YAML or JSON. Not given: the built-in one.
    pub source: Option<PathBuf>,
}

/// The section `log`: Kafka where it has bootstrap servers, else SQLite.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogOptions {
    pub kafka: kafka::Options,
    pub sqlite: sqlite::Options,
}

/// The section `stop`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stop {
    /// Time over which open streams end, so that their readers do not all come back at once.
    #[serde(deserialize_with = "units::duration")]
    pub drain_spread: Duration,
    /// Time after which whatever is left is cut.
    #[serde(deserialize_with = "units::duration")]
    pub deadline: Duration,
}

impl Default for Stop {
    fn default() -> Self {
        Self { drain_spread: Duration::from_secs(10), deadline: Duration::from_secs(30) }
    }
}

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    File(PathBuf),
    Environment(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One key with a value, not yet believed.
#[derive(Debug, Clone)]
struct Setting {
    path: Vec<String>,
    value: Value,
    origin: Origin,
}

/// All that is wrong with a configuration, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// Collects settings, the later ones over the earlier ones, and then reads them all.
#[derive(Debug, Default)]
pub struct Loader {
    settings: Vec<Setting>,
    faults: Vec<String>,
}

impl Loader {
    pub fn file(&mut self, path: &Path) {
        let parsed = std::fs::read_to_string(path)
            .map_err(|e| format!("{}: cannot be read: {e}", path.display()))
            .and_then(|text| text.parse::<Table>().map_err(|e| format!("{}: {e}", path.display())));
        match parsed {
            Ok(table) => flatten(table, &mut Vec::new(), &Origin::File(path.into()), &mut self.settings),
            Err(fault) => self.faults.push(fault.trim_end().to_owned()),
        }
    }

    /// Takes the variables that begin with `SLUICE__`; under `…PROPERTIES__` an underscore is a dot of librdkafka's name.
    pub fn environment(&mut self, variables: impl Iterator<Item = (String, String)>) {
        for (name, value) in variables {
            let Some(key) = name.strip_prefix(ENV_PREFIX) else { continue };
            let mut path: Vec<String> = key.to_ascii_lowercase().split("__").map(str::to_owned).collect();
            if let [.., section, property] = path.as_mut_slice()
                && section == "properties"
            {
                *property = property.replace('_', ".");
            }
            self.text(path, value, Origin::Environment(name));
        }
    }

    pub fn flag(&mut self, name: &'static str, key: &[&str], value: Option<String>) {
        if let Some(value) = value {
            self.text(key.iter().map(|part| (*part).to_owned()).collect(), value, Origin::Flag(name));
        }
    }

    /// A value that came as text is a number or a switch where only that makes sense.
    fn text(&mut self, path: Vec<String>, text: String, origin: Origin) {
        let number = text.parse().ok().map(Value::Integer);
        let switch = text.parse().ok().map(Value::Boolean);
        let as_text = Setting { path, value: Value::String(text), origin };
        let others = number.into_iter().chain(switch).map(|value| Setting { value, ..as_text.clone() });
        let readable = std::iter::once(as_text.clone()).chain(others).find(|setting| setting.read_alone().is_ok());
        self.settings.push(readable.unwrap_or(as_text));
    }

    pub fn finish(mut self) -> Result<Config, ConfigError> {
        let mut merged = Table::new();
        for setting in self.settings {
            match setting.read_alone() {
                Ok(()) => insert(&mut merged, &setting.path, setting.value),
                Err(fault) => self.faults.push(fault),
            }
        }
        let read = Value::Table(merged).try_into::<Config>();
        let config = read.map_err(|e| self.faults.push(one_line(&e))).unwrap_or_default();
        self.faults.extend(config.faults());
        if self.faults.is_empty() { Ok(config) } else { Err(ConfigError(self.faults)) }
    }
}

impl Config {
    /// What each key cannot know alone.
    fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> =
            self.log.kafka.faults(self.intake.deadline).iter().map(ToString::to_string).collect();
        let mut check = |holds: bool, fault: &str| {
            if !holds {
                faults.push(fault.to_owned());
            }
        };
        check(
            self.intake.max_event_bytes <= self.intake.max_body_bytes,
            "intake.max_event_bytes is more than intake.max_body_bytes: no such event could arrive",
        );
        check(self.intake.max_event_bytes > 0, "intake.max_event_bytes is 0: no event could be taken");
        check((1..=128).contains(&self.intake.max_depth), "intake.max_depth is not between 1 and 128");
        check(!self.intake.deadline.is_zero(), "intake.deadline is 0: no event could be taken in time");
        check(self.limits.ipv4_prefix <= 32, "limits.ipv4_prefix is more than 32 bits");
        check(self.limits.ipv6_prefix <= 128, "limits.ipv6_prefix is more than 128 bits");
        check(self.hub.heartbeat >= Duration::from_secs(1), "hub.heartbeat is less than 1s");
        check(self.stop.drain_spread <= self.stop.deadline, "stop.drain_spread is longer than stop.deadline");
        faults
    }
}

impl Setting {
    /// Reads the key as if it were the only one.
    fn read_alone(&self) -> Result<(), String> {
        let mut table = Table::new();
        insert(&mut table, &self.path, self.value.clone());
        match Value::Table(table).try_into::<Config>() {
            Ok(_) => Ok(()),
            Err(e) => Err(format!("{}: {}: {}", self.origin, self.path.join("."), one_line(&e))),
        }
    }
}

fn one_line(error: &toml::de::Error) -> String {
    error.message().split('\n').next().unwrap_or_default().to_owned()
}

fn flatten(table: Table, path: &mut Vec<String>, origin: &Origin, settings: &mut Vec<Setting>) {
    for (key, value) in table {
        path.push(key);
        match value {
            Value::Table(inner) if !inner.is_empty() => flatten(inner, path, origin, settings),
            value => settings.push(Setting { path: path.clone(), value, origin: origin.clone() }),
        }
        path.pop();
    }
}

fn insert(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => {
            table.insert(key.clone(), value);
        }
        [section, rest @ ..] => {
            let inner = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
            if !inner.is_table() {
                *inner = Value::Table(Table::new());
            }
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(
        file: &str,
        environment: &[(&str, &str)],
        flags: &[(&'static str, &[&str], &str)],
    ) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sluice.toml");
        std::fs::write(&path, file).expect("a file");
        let mut loader = Loader::default();
        loader.file(&path);
        loader.environment(environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        for (name, key, value) in flags {
            loader.flag(name, key, Some((*value).to_owned()));
        }
        loader.finish()
    }

    #[test]
    fn flags_beat_the_environment_which_beats_the_file() {
        let file = "data_dir = 'file'\n[http]\nlisten = 'file'\nworkers = 3\n[intake]\nmax_body_bytes = '5MiB'";
        let environment = [("SLUICE__HTTP__LISTEN", "env"), ("SLUICE__DATA_DIR", "env"), ("PATH", "x")];
        let config = load(file, &environment, &[("--data", &["data_dir"], "flag")]).expect("a config");
        assert_eq!(config.data_dir, PathBuf::from("flag"));
        assert_eq!(config.http.listen, "env");
        assert_eq!((config.http.workers, config.intake.max_body_bytes), (3, 5 << 20));
    }

    #[test]
    fn every_fault_is_reported_at_once_with_its_origin() {
        let file = "nope = 1\n[http]\nlisten = 5\nworkerz = 2\n[hub]\nheartbeat = 'soon'\n[intake]\nmax_depth = 900";
        let environment = [("SLUICE__HTTP__WORKERS", "many"), ("SLUICE__LOG__SQLITE__RETENTION_AGE", "-1d")];
        let ConfigError(faults) = load(file, &environment, &[]).expect_err("faults");
        let text = faults.join("\n");
        for part in [
            "nope",
            "http.listen",
            "http.workerz",
            "hub.heartbeat",
            "max_depth",
            "SLUICE__HTTP__WORKERS",
            "RETENTION_AGE",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        assert_eq!(faults.len(), 7, "{text}");
    }

    #[test]
    fn environment_values_are_what_their_key_needs() {
        let environment = [
            ("SLUICE__HTTP__WORKERS", "4"),
            ("SLUICE__INTAKE__TOPIC_PREFIX", "123"),
            ("SLUICE__LOG__KAFKA__BOOTSTRAP_SERVERS", "a:1, b:2"),
            ("SLUICE__LOG__KAFKA__PROPERTIES__SECURITY_PROTOCOL", "ssl"),
        ];
        let config = load("", &environment, &[]).expect("a config");
        assert_eq!(config.http.workers, 4);
        assert_eq!(config.intake.topic_prefix.as_deref(), Some("123"));
        assert_eq!(config.log.kafka.bootstrap_servers, ["a:1", "b:2"]);
        assert_eq!(config.log.kafka.properties["security.protocol"], "ssl");
    }

    #[test]
    fn a_broken_file_is_one_clear_fault() {
        assert!(load("[http", &[], &[]).is_err());
        let mut loader = Loader::default();
        loader.file(Path::new("/nonexistent/sluice.toml"));
        assert!(loader.finish().expect_err("a fault").to_string().contains("cannot be read"));
    }

    /// Every key of the sections, as their `Debug` output names them.
    fn keys_of_the_code() -> Vec<String> {
        let probe = "[http]\n_ = 1\n[admin]\n_ = 1\n[catalog]\n_ = 1\n[log]\n_ = 1\n[log.kafka]\n_ = 1\n[log.sqlite]\n_ = 1\n[hub]\n_ = 1\n[intake]\n_ = 1\n[limits]\n_ = 1\n[stop]\n_ = 1";
        let ConfigError(faults) = load(probe, &[], &[]).expect_err("unknown keys");
        let mut keys = vec!["data_dir".to_owned()];
        for fault in &faults {
            let (_, section) = fault.split_once("toml: ").expect("an origin");
            let section = section.split("._:").next().expect("a section");
            let (_, expected) = fault.split_once("expected ").expect("the known keys");
            let names = expected.split('`').skip(1).step_by(2);
            keys.extend(names.map(|name| format!("{section}.{name}")));
        }
        keys.retain(|key| key != "log.kafka" && key != "log.sqlite");
        keys.sort();
        keys
    }

    #[test]
    fn the_sample_file_shows_every_key_and_its_defaults() {
        let sample = include_str!("../config/sluice.toml");
        let uncommented: String = sample
            .lines()
            .filter_map(|line| line.strip_prefix("#: ").or_else(|| (!line.starts_with('#')).then_some(line)))
            .map(|line| format!("{line}\n"))
            .collect();
        let mut settings = Vec::new();
        let table = uncommented.parse::<Table>().expect("TOML");
        flatten(table, &mut Vec::new(), &Origin::Flag("sample"), &mut settings);
        let mut shown: Vec<String> = settings.iter().map(|setting| setting.path.join(".")).collect();
        shown.retain(|key| !key.starts_with("log.kafka.properties."));
        shown.push("log.kafka.properties".into());
        shown.sort();
        assert_eq!(shown, keys_of_the_code());
        let active = load(sample, &[], &[]).expect("the sample as it is");
        assert_eq!(format!("{active:?}"), format!("{:?}", Config::default()), "as it is, it changes nothing");
        let given =
            ["group_id", "source", "topic_prefix", "ring_bytes", "bootstrap_servers", "listen", "security.protocol"];
        for setting in settings.iter().filter(|setting| !given.contains(&setting.path.last().expect("a key").as_str()))
        {
            let mut loader = Loader::default();
            loader.settings.push(setting.clone());
            let config = loader.finish().expect("a default");
            assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()), "{}", setting.path.join("."));
        }
    }
}
