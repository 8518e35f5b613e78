//! The wire, small enough that ten thousand readers cost little.
//!
//! - `head` the head of an answer
//! - `chunks` HTTP's chunked body, without copying it
//! - `blocks` SSE's blocks and what stands in them
//!
//! All three are fed with whatever the socket brought. Knows no sockets.

mod blocks;
mod chunks;
mod head;

pub(crate) use blocks::{Blocks, Event};
pub(crate) use chunks::Chunks;
pub(crate) use head::{Body, Head};
