//! The server as a process: real sockets, real signals, real logs.
//!
//! - `server` a process that a test starts, stops, kills and starts again
//! - `raw` HTTP/1.1 as bytes, and streams chunk by chunk
//! - the other modules are the facts

#![allow(unreachable_pub, reason = "in a test binary `pub` means: for the other modules")]

#[path = "../support/mod.rs"]
mod support;

mod raw;
mod server;
mod wire;
