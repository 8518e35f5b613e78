//! What an event is given that it does not bring: id, time, and fields from the request's headers. Only where the event's
//! schema has the field: a schema that does not know it would refuse the event for it.

use std::net::IpAddr;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::Request;
use crate::catalog::Settings;
use crate::model::{Document, Step, Timestamp, steps_of};
use crate::schema::Schema;

/// Characters of a header's value that are kept.
const HEADER_CHARS_MAX: usize = 400;
/// Schemas of events that clients wrote before there was `meta.dt`: their `dt` is the time of arrival where it is missing.
const LEGACY_TITLES: &str = "analytics/legacy";

/// When `meta.dt` is the time of arrival.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetaDt {
    /// Where the event has none. The default: producers that replay, and canaries, know better when it happened.
    #[default]
    IfAbsent,
    /// Whatever the event says: for producers whose clocks cannot be believed.
    Always,
}

/// What one request gives to its events.
pub(super) struct Stamps<'a> {
    meta_dt: MetaDt,
    now: Value,
    client: Option<IpAddr>,
    headers: &'a [(String, String)],
}

static ID: LazyLock<Vec<Step>> = LazyLock::new(|| steps_of("meta.id"));
static META_DT: LazyLock<Vec<Step>> = LazyLock::new(|| steps_of("meta.dt"));
static DT: LazyLock<Vec<Step>> = LazyLock::new(|| steps_of("dt"));
static CLIENT_IP: LazyLock<Vec<Step>> = LazyLock::new(|| steps_of("http.client_ip"));

impl<'a> Stamps<'a> {
    pub(super) fn new(meta_dt: MetaDt, now: Timestamp, request: &'a Request) -> Self {
        Self { meta_dt, now: rfc3339(now).into(), client: request.client, headers: &request.headers }
    }

    pub(super) fn fill(&self, document: &mut Document, schema: &Schema, settings: &Settings) {
        let mut fill = |path: &[Step], always: bool, value: &dyn Fn() -> Value| {
            if (always || document.get(path).is_none()) && schema.declares(path) {
                // Refused where `meta` is no object, of which validation then says so.
                document.set(path, value());
            }
        };
        fill(&ID, false, &|| Uuid::now_v7().to_string().into());
        fill(&META_DT, self.meta_dt == MetaDt::Always, &|| self.now.clone());
        if schema.title().is_some_and(|title| title.starts_with(LEGACY_TITLES)) {
            fill(&DT, false, &|| self.now.clone());
        }
        for (field, header) in &settings.enrich_fields_from_http_headers {
            if let Some(value) = self.header(header) {
                fill(&steps_of(field), false, &|| value.into());
            }
        }
        if let Some(client) = self.client {
            fill(&CLIENT_IP, false, &|| client.to_canonical().to_string().into());
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(header, _)| header == name)?;
        Some(value.char_indices().nth(HEADER_CHARS_MAX).map_or(value.as_str(), |(end, _)| &value[..end]))
    }
}

/// As EventGate writes it: milliseconds, and `Z`.
pub(super) fn rfc3339(time: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(time.0).map_or_else(|_| time.0.to_string(), |time| format!("{time:.3}"))
}
