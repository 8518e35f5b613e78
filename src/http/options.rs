//! The section `http` of the configuration.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::model::units;

/// Where the server listens, and what it serves there.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Address and port of the public listener; port 0 picks a free one.
    pub listen: String,
    /// Which halves are served: the producers' (`in`), the readers' (`out`), or both.
    #[serde(deserialize_with = "halves")]
    pub serve: Vec<Half>,
    /// Worker threads; 0 means one per core.
    pub workers: usize,
}

/// One of the two sides that meet in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Events are taken in.
    In,
    /// Events are given out.
    Out,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8888".into(), serve: vec![Half::In, Half::Out], workers: 0 }
    }
}

fn halves<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Half>, D::Error> {
    let half = |word: &String| match word.as_str() {
        "in" => Ok(Half::In),
        "out" => Ok(Half::Out),
        other => Err(D::Error::custom(format!("'{other}' is no half of sluice: name \"in\", \"out\" or both"))),
    };
    units::list(from)?.iter().map(half).collect()
}
