//! The section `intake` of the configuration.

use std::time::Duration;

use serde::Deserialize;

use crate::model::units;

/// Limits and times of the producers' half.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Bytes of one request's body.
    #[serde(deserialize_with = "units::bytes")]
    pub max_body_bytes: u64,
    /// Bytes of one event.
    #[serde(deserialize_with = "units::bytes")]
    pub max_event_bytes: u64,
    /// Levels of objects and arrays in one event.
    pub max_depth: usize,
    /// Bytes of events that wait for the log at once; past it a POST is answered 503 at once.
    #[serde(deserialize_with = "units::bytes")]
    pub max_inflight_bytes: u64,
    /// Time within which every POST is answered.
    #[serde(deserialize_with = "units::duration")]
    pub deadline: Duration,
    /// What stands before a stream's name in its topic, such as `eqiad.`
    pub topic_prefix: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_body_bytes: 10 << 20,
            max_event_bytes: 4 << 20,
            max_depth: 128,
            max_inflight_bytes: 256 << 20,
            deadline: Duration::from_secs(9),
            topic_prefix: None,
        }
    }
}
