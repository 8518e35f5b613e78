//! The section `http` of the configuration.

use std::path::{Path, PathBuf};

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
    /// A PEM file with the listener's certificate, and after it those that vouch for it: it speaks HTTPS then. Not given: HTTP.
    pub tls_cert: Option<PathBuf>,
    /// A PEM file with that certificate's private key.
    pub tls_key: Option<PathBuf>,
}

/// One of the two sides that meet in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Events are taken in.
    In,
    /// Events are given out.
    Out,
}

impl Options {
    /// Whether producers are served.
    pub fn takes_in(&self) -> bool {
        self.serve.contains(&Half::In)
    }

    /// Whether readers are served.
    pub fn gives_out(&self) -> bool {
        self.serve.contains(&Half::Out)
    }

    /// The certificate and its key, where HTTPS is spoken.
    pub fn tls_files(&self) -> Option<(&Path, &Path)> {
        self.tls_cert.as_deref().zip(self.tls_key.as_deref())
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8888".into(),
            serve: vec![Half::In, Half::Out],
            workers: 0,
            tls_cert: None,
            tls_key: None,
        }
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
