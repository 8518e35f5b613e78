//! The scenarios, one per file. Each plays against a [`crate::target::Target`] and returns its figures and faults.

pub(crate) mod catchup;
pub(crate) mod comeback;
pub(crate) mod cpu;
pub(crate) mod flood;
pub(crate) mod hop;
pub(crate) mod intake;
pub(crate) mod kafka;
pub(crate) mod latency;
pub(crate) mod memory;
pub(crate) mod outage;
pub(crate) mod paused;
pub(crate) mod posts;
mod scout;
mod scrape;
pub(crate) mod scrapes;
pub(crate) mod smoke;
pub(crate) mod write_loop;
