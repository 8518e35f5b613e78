//! The facts that hold for every engine. Each case gets an engine of its own.

pub(crate) mod append;
pub(crate) mod gaps;
pub(crate) mod partitions;
pub(crate) mod read;
pub(crate) mod restart;
pub(crate) mod retention;
pub(crate) mod tail;
pub(crate) mod time;
