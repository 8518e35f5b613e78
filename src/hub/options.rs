//! The section `hub` of the configuration.

use std::time::Duration;

use serde::Deserialize;

use crate::model::units;

/// Least and most that all rings hold together where config does not say.
const RING_BYTES_LEAST: u64 = 32 << 20;
const RING_BYTES_MOST: u64 = 512 << 20;
/// And their share of the machine's memory in between.
const MEMORY_SHARE: u64 = 16;

/// Limits and times of the readers' half.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Bytes of frames kept in all rings. A sixteenth of the memory, 32 to 512 MiB, if not given.
    #[serde(deserialize_with = "units::optional_bytes")]
    pub ring_bytes: Option<u64>,
    /// Silence after which a reader gets a comment line; kept to the second.
    #[serde(deserialize_with = "units::duration")]
    pub heartbeat: Duration,
    /// How long readers are asked to wait before they reconnect; jittered by a quarter.
    #[serde(deserialize_with = "units::duration")]
    pub retry: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { ring_bytes: None, heartbeat: Duration::from_secs(10), retry: Duration::from_secs(3) }
    }
}

impl Options {
    pub(super) fn ring_bytes_or_default(&self) -> usize {
        let from_memory = || (memory_bytes() / MEMORY_SHARE).clamp(RING_BYTES_LEAST, RING_BYTES_MOST);
        usize::try_from(self.ring_bytes.unwrap_or_else(from_memory)).unwrap_or(usize::MAX)
    }
}

/// What this process may use: the control group's limit where there is one, else the machine's memory.
fn memory_bytes() -> u64 {
    let read = |path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let machine = rustix::system::sysinfo();
    let total = (machine.totalram as u64).saturating_mul(u64::from(machine.mem_unit));
    read("/sys/fs/cgroup/memory.max").map_or(total, |limit| limit.min(total))
}
