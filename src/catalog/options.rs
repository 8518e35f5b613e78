//! The section `catalog` of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::fetch::Url;
use crate::model::units;

/// Where the streams come from.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// A file of streams in the EventStreamConfig shape (YAML or JSON), or the http(s) address of an EventStreamConfig
    /// API or of such a map in JSON. Not given: the built-in one.
    pub source: Option<String>,
    /// How often an address is asked again. 0: at the start only. A file is read at the
    /// start, and at a reload.
    #[serde(deserialize_with = "units::duration")]
    pub refresh: Duration,
    /// Streams whose `destination_event_service` is another one are left out. Not given: none are.
    pub destination_event_service: Option<String>,
    /// An answer that has lost more than this share of the streams is not believed. One stream may always go.
    pub shrink_max_percent: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self { source: None, refresh: REFRESH_DEFAULT, destination_event_service: None, shrink_max_percent: 20 }
    }
}

pub(super) const REFRESH_DEFAULT: Duration = Duration::from_secs(60);

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    BuiltIn,
    File(PathBuf),
    Address(Url),
}

impl Options {
    /// What the source is, or what is wrong with it.
    pub fn place(&self) -> Result<Place, String> {
        let Some(source) = &self.source else { return Ok(Place::BuiltIn) };
        match source.split_once("://") {
            None => Ok(Place::File(source.into())),
            Some(("http" | "https", _)) => match Url::parse(source) {
                Ok(address) if address.has_host() => Ok(Place::Address(address)),
                Ok(_) => Err("the address has no host".into()),
                Err(e) => Err(format!("not an address: {e}")),
            },
            Some(_) => Err("neither a file's path nor an http(s) address".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(source: &str) -> Result<Place, String> {
        Options { source: Some(source.to_owned()), ..Options::default() }.place()
    }

    #[test]
    fn a_source_is_a_file_or_an_http_address() {
        assert_eq!(Options::default().place(), Ok(Place::BuiltIn));
        assert_eq!(place("config/streams.yaml"), Ok(Place::File("config/streams.yaml".into())));
        assert!(matches!(place("https://meta.example.org/w/api.php?action=streamconfigs"), Ok(Place::Address(_))));
        for wrong in ["ftp://a/b", "http://", "https://a b/", "file:///streams.yaml"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
