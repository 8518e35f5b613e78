//! The contract of the log: the same cases over every engine.
//!
//! - `engine` what a case needs of an engine beside the log itself
//! - `suite` one test per case and engine, and what an engine leaves out, with its reason
//! - `cases` the facts, in the words of `sluice::log::Log`
//! - `story` records made, records read, tails watched: what the cases are told in
//!
//! An engine's own page holds its fixture, its `contract_suite!` and the facts that are its alone.

#[macro_use]
mod suite;
mod cases;
mod engine;
mod kafka;
mod sqlite;
mod story;

#[path = "../support/mod.rs"]
mod support;
