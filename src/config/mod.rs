//! Gathers the sections that the modules declare: defaults < file < environment < flags.
//!
//! - this page: [`Config`], the whole of it
//! - `loader` collects settings and reads them: all that is wrong is reported at once, and nothing is ever half applied
//! - `loaded` what was read, to be compared with what is read later
//! - `setting` one key with a value from somewhere, not yet believed
//! - `rules` what a value may be, beyond its type
//! - `show` what holds, and where it comes from

mod loaded;
mod loader;
mod rules;
mod setting;
mod show;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::log::{kafka, sqlite};
use crate::model::units;
use crate::{catalog, health, http, hub, intake, limits, schema};

pub use self::loaded::Loaded;
pub use self::loader::{ConfigError, Loader};

/// The whole configuration. Every key is optional.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the SQLite log and other state live.
    pub data_dir: PathBuf,
    pub http: http::Options,
    pub admin: Admin,
    pub catalog: catalog::Options,
    pub schema: schema::Options,
    pub log: LogOptions,
    pub hub: hub::Options,
    pub intake: intake::Options,
    pub limits: limits::Options,
    pub health: health::Options,
    pub stop: Stop,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "./data".into(),
            http: http::Options::default(),
            admin: Admin::default(),
            catalog: catalog::Options::default(),
            schema: schema::Options::default(),
            log: LogOptions::default(),
            hub: hub::Options::default(),
            intake: intake::Options::default(),
            limits: limits::Options::default(),
            health: health::Options::default(),
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
    /// What operators show there. Not given: nothing, if that address is a loopback address; elsewhere only probes are
    /// answered.
    pub token: Option<Secret>,
    /// A Unix socket for operators, which only its owner can open. Not given: none.
    pub socket: Option<PathBuf>,
}

/// A text that does not show where the configuration is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // Not the error's own text: it quotes what was given instead.
        String::deserialize(from).map(Self).map_err(|_| D::Error::custom("not a text in quotes"))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(redacted)")
    }
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
    /// Time in which all is served on although `/readyz` says that it ends, so that balancers send nobody new; half of the
    /// deadline at most. 0 = none.
    #[serde(deserialize_with = "units::duration")]
    pub drain_delay: Duration,
    /// Time over which open streams end, so that their readers do not all come back at once; never past the deadline.
    #[serde(deserialize_with = "units::duration")]
    pub drain_spread: Duration,
    /// Time after which whatever is left is cut.
    #[serde(deserialize_with = "units::duration")]
    pub deadline: Duration,
    /// A Unix socket where the next server gets the listening sockets of this one, and this one then stops. Not given: none.
    pub handover_socket: Option<PathBuf>,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            drain_delay: Duration::from_secs(5),
            drain_spread: Duration::from_secs(10),
            deadline: Duration::from_secs(30),
            handover_socket: None,
        }
    }
}

#[cfg(test)]
mod tests;
