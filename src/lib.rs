#![doc = include_str!("../ARCHITECTURE.md")]

pub mod database;
pub mod disk;
pub mod fetch;
pub mod metrics;
pub mod model;
pub mod shutdown;

pub mod catalog;
pub mod limits;
pub mod log;
pub mod schema;
pub mod tls;

pub mod hub;
pub mod intake;

pub mod health;

pub mod http;

pub mod config;

pub mod app;
pub mod cli;
