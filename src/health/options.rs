//! The section `health` of the configuration.

use std::time::Duration;

use serde::Deserialize;

use crate::model::units;

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How often a canary makes its trip.
    #[serde(deserialize_with = "units::duration")]
    pub canary_every: Duration,
    /// Silence after which what cannot be proven is called broken.
    #[serde(deserialize_with = "units::duration")]
    pub stall_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { canary_every: Duration::from_secs(5), stall_after: Duration::from_secs(30) }
    }
}
