//! What a producer sends, beside the events themselves.

use std::net::IpAddr;

use bytes::Bytes;
use tokio::time::Instant;

use super::auth::Grant;

/// One request, its body whole and decoded.
#[derive(Debug, Clone)]
pub struct Request {
    /// When it began: it is answered within [`Options::deadline`](super::Options) from then.
    pub began: Instant,
    pub body: Bytes,
    pub mode: Mode,
    /// Where an event names no stream of its own.
    pub stream: Option<String>,
    /// Where an event names no schema of its own.
    pub schema_uri: Option<String>,
    /// Those that the catalogue wants (`Catalog::headers_wanted`); names in lower case.
    pub headers: Vec<(String, String)>,
    /// Whom the events come from, as far as the edge can tell.
    pub client: Option<IpAddr>,
    pub grant: Grant,
}

/// When the producer is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// When the log has acknowledged the events.
    Guaranteed,
    /// When the events have been split and have a place in the queue. What fails later is only counted and reported.
    Hasty,
    /// When the events have been judged. Nothing is appended.
    DryRun,
}

impl Request {
    /// Of this process, to be acknowledged.
    pub fn of_ours(body: Bytes) -> Self {
        Self {
            began: Instant::now(),
            body,
            mode: Mode::Guaranteed,
            stream: None,
            schema_uri: None,
            headers: Vec::new(),
            client: None,
            grant: Grant::everything(),
        }
    }
}
