//! What must not lose or repeat an event, on real Kafka: readers that hop between servers, brokers that go away or
//! stand still, producers that are told so, topics that come late, more producers than fit, a server that dies while it
//! spools, servers that stop under load.
//!
//! - `ledger` what a reader had, what the log holds, and whether these agree
//! - `load` producers that keep a little ahead of a reader, and what each of their events was told
//! - `follower` a reader that stays connected, and waiting on what it has seen
//! - `forwarder` an address behind which brokers change
//! - `stage` a server whose verdict is watched, and the table of what it said when
//! - the other modules are the facts; the server and its wire are those of `tests/it/`

#![allow(unreachable_pub, reason = "in a test binary `pub` means: for the other modules")]

#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code, reason = "another test binary uses the rest")]
#[path = "../it/flow.rs"]
mod flow;
#[allow(dead_code, reason = "another test binary uses the rest")]
#[path = "../it/raw.rs"]
mod raw;
#[allow(dead_code, reason = "another test binary uses the rest")]
#[path = "../it/server.rs"]
mod server;

mod follower;
mod forwarder;
mod ledger;
mod load;
mod stage;

mod away;
mod group;
mod hop;
mod late_topic;
mod outage;
mod overload;
mod paused;
mod replaced;
mod scrapes;
mod spool;
mod states;
mod stop;
