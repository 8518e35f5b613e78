//! The section `health` of the configuration.

use std::time::Duration;

use serde::Deserialize;

use crate::model::units;

/// The shortest time between two canaries that can be set.
pub const CANARY_EVERY_LEAST: Duration = Duration::from_millis(250);

/// How health is looked after.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How often an event is sent on the whole way, from the public listener through the log and back to it.
    #[serde(deserialize_with = "units::duration")]
    pub canary_every: Duration,
    /// How long none may come back before events are said not to flow.
    #[serde(deserialize_with = "units::duration")]
    pub stall_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { canary_every: Duration::from_secs(5), stall_after: Duration::from_secs(30) }
    }
}
