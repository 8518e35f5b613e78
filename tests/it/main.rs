//! The server as a process: real sockets, real signals, real logs.
//!
//! - `server` a process that a test starts, stops, kills and starts again
//! - `raw` HTTP/1.1 as bytes, and streams chunk by chunk
//! - `engine` the same server on SQLite and on a real Kafka
//! - `flow` a load that lives through servers that come and go
//! - `stream_configs` an API that a catalogue comes from, with its faults
//! - the other modules are the facts: `wire` and `handover` a stream's bytes, `refusals` what is no stream, `wrong_input`
//!   all of it, `patience` who waits for a refusal, `resume`, `old_ids` and `allowed` where a reader starts, `rules` what
//!   real clients need, `ndjson` and `canary` what a reader may ask for, `canary_trip` what sluice sends itself, `intake` what a producer is told, `asked` what it
//!   asks for, `auth` who may, `codings` compressed bodies, `browsers` what they ask first, `catalog` where streams come
//!   from, `edge` what HTTP promises around an answer, `openapi` and `documented` what the service says of itself,
//!   `process` start and stop, `stop` in which order, `takeover` from one process to the next, `tls` all of it over HTTPS, `health` the verdict, `produce`, `tail`, `check` and `admin_cli` the commands that are clients, `who` asks and `limits` who
//!   gets in, `incident` the one that began it all, `admin` and `admin_access` the operators' listener, `reload` another
//!   configuration while it serves, `away` and `spool` a log that is away, `recentchange` real events through all of it, `crash` nothing accepted is lost, `slow`
//!   a reader that falls behind, `gone` readers that stand still and peers that vanish, `metrics` what is counted, `alerts`
//!   what Prometheus and Grafana make of it

#![allow(unreachable_pub, reason = "in a test binary `pub` means: for the other modules")]

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod admin_access;
mod admin_cli;
mod alerts;
mod allowed;
mod asked;
mod auth;
mod away;
mod browsers;
mod canary;
mod canary_trip;
mod catalog;
mod check;
mod codings;
mod crash;
mod documented;
mod edge;
mod engine;
#[allow(dead_code, reason = "another test binary uses the rest")]
mod flow;
mod gone;
mod handover;
mod health;
mod incident;
mod intake;
mod limits;
mod metrics;
mod ndjson;
mod old_ids;
mod openapi;
mod patience;
mod process;
mod produce;
mod raw;
mod recentchange;
mod refusals;
mod reload;
mod resume;
mod rules;
mod server;
mod slow;
mod spool;
mod stop;
mod stream_configs;
mod tail;
mod takeover;
mod tls;
mod who;
mod wire;
mod wrong_input;
