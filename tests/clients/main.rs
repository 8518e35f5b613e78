//! Real clients, unchanged, against the real binary: what they hand to their user is compared, number by number.
//!
//! - `kit` where the clients come from: Python's and Node's packages, into the cache
//! - `scripts/` one small program per client; each prints a line of JSON for every event that it was given
//! - `cast` the clients by name, and how each is started
//! - `crowd` several of them on one stream
//! - `follower` one client that reads, and what it has been given
//! - `browser` a Chromium, driven over a pipe: pages opened, scripts run, what went wrong on them
//! - `site` another origin, with a page to open
//! - the other modules are the facts; the server and its wire are those of `tests/it/`

#![allow(unreachable_pub, reason = "in a test binary `pub` means: for the other modules")]

#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code, reason = "another test binary uses the rest")]
#[path = "../it/raw.rs"]
mod raw;
#[allow(dead_code, reason = "another test binary uses the rest")]
#[path = "../it/server.rs"]
mod server;

mod browser;
mod cast;
mod crowd;
mod follower;
mod kit;
mod site;

mod openapi;
mod origins;
mod positions;
mod restarts;
