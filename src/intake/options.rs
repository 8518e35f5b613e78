//! The section `intake` of the configuration.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::auth::{Auth, JwtOptions, Tokens};
use super::spool;
use super::stamp::MetaDt;
use crate::model::units;

/// What of the deadline the log does not get, at most; at most a tenth, too. (With a spool, what that needs on top.)
const ANSWER_RESERVE: Duration = Duration::from_millis(500);

/// The most that a body or an event can be allowed to have: what a log can hold as one record, with room to spare.
pub const BYTES_MOST: u64 = 512 << 20;

/// Limits and times of the producers' half.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Bytes of one request's body. 0 = [`BYTES_MOST`].
    #[serde(deserialize_with = "units::bytes")]
    pub max_body_bytes: u64,
    /// Bytes of one event. 0 = as many as a body may have.
    #[serde(deserialize_with = "units::bytes")]
    pub max_event_bytes: u64,
    /// Levels of objects and arrays in one event; the array around a batch does not count.
    pub max_depth: usize,
    /// Bytes of events that wait for the log at once, and of bodies that are being read at once, each; past it a POST is
    /// answered 503 at once. 0 = no limit.
    #[serde(deserialize_with = "units::bytes")]
    pub max_inflight_bytes: u64,
    /// Time within which every POST is answered.
    #[serde(deserialize_with = "units::duration")]
    pub deadline: Duration,
    /// Where an event says which schema it follows: dotted paths, the first that is there.
    #[serde(deserialize_with = "units::list")]
    pub schema_uri_field: Vec<String>,
    /// When `meta.dt` is the time of arrival.
    pub meta_dt: MetaDt,
    /// The stream that is told of invalid events. None: nobody is.
    pub error_stream: Option<String>,
    /// What stands before a stream's name in its topic, such as `eqiad.`
    pub topic_prefix: Option<String>,
    /// What `GET /v1/_test/events` posts. None: one event of the stream `test.event`.
    pub test_events: Vec<Map<String, Value>>,
    /// Who may post. Not given: everybody if the public listener is on a loopback address, else nobody.
    pub auth: Option<Auth>,
    /// For `auth = "tokens"`: who may post, and to which streams.
    pub tokens: Tokens,
    /// For `auth = "jwt"`: what makes a token good.
    pub jwt: JwtOptions,
    /// What waits on disk for a log that is away.
    pub spool: spool::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_body_bytes: 10 << 20,
            max_event_bytes: 4 << 20,
            max_depth: 128,
            max_inflight_bytes: 256 << 20,
            deadline: Duration::from_secs(9),
            schema_uri_field: vec!["$schema".into()],
            meta_dt: MetaDt::default(),
            error_stream: None,
            topic_prefix: None,
            test_events: Vec::new(),
            auth: None,
            tokens: Tokens::default(),
            jwt: JwtOptions::default(),
            spool: spool::Options::default(),
        }
    }
}

impl Options {
    pub fn body_bytes_max(&self) -> u64 {
        none_is(self.max_body_bytes, BYTES_MOST)
    }

    pub fn event_bytes_max(&self) -> u64 {
        none_is(self.max_event_bytes, self.body_bytes_max())
    }

    /// What the log has of the deadline. It knows of each record whether it was handed over; past it nobody does.
    pub fn log_deadline(&self) -> Duration {
        self.deadline - (self.deadline / 10).min(ANSWER_RESERVE) - self.spool.reserve(self.deadline)
    }

    pub(super) fn in_flight_bytes_max(&self) -> u64 {
        none_is(self.max_inflight_bytes, u64::MAX)
    }
}

/// 0 means that there is no limit.
fn none_is(limit: u64, most: u64) -> u64 {
    if limit == 0 { most } else { limit }
}
