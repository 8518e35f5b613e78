#![doc = include_str!("../ARCHITECTURE.md")]

pub mod metrics;
pub mod model;
pub mod shutdown;

pub mod log;

pub mod catalog;

pub mod http;
pub mod hub;
pub mod intake;
