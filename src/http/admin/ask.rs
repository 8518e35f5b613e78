//! What an operator's request says.

use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, web};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::refusal::Refusal;
use crate::model::units::parse_duration;

/// Most rows that one list of an answer may have.
pub(super) const ROWS_MOST: usize = 10_000;
/// Longest body that is read: the section `limits` with as many networks as it may have.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Time within which it has to be here.
const BODY_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn query<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, Refusal> {
    let parsed = web::Query::<T>::from_query(request.query_string());
    parsed.map(web::Query::into_inner).map_err(|error| Refusal::Query(error.to_string()))
}

/// None if there is none.
pub(super) async fn body<T: DeserializeOwned>(payload: web::Payload) -> Result<Option<T>, Refusal> {
    let read = tokio::time::timeout(BODY_WITHIN, payload.to_bytes_limited(BODY_BYTES_MAX)).await;
    let late = |_| Refusal::Body(format!("it did not arrive within {BODY_WITHIN:?}"));
    let body = read.map_err(late)?.map_err(|_| Refusal::TooLarge(BODY_BYTES_MAX))?;
    let body = body.map_err(|_| Refusal::Body("it did not arrive whole".into()))?;
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    // An object first: serde would take `[]` for one, too.
    let wrong = |error: serde_json::Error| Refusal::Body(error.to_string());
    let body: Map<String, Value> = serde_json::from_slice(&body).map_err(wrong)?;
    serde_json::from_value(Value::Object(body)).map(Some).map_err(wrong)
}

/// Whether a table is wanted instead of JSON.
pub(super) fn wants_text(request: &HttpRequest) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let ranges = accept.split(',').map(|range| range.split(';').next().unwrap_or_default().trim());
    let asked = ranges.filter(|range| range.starts_with("text/plain") || range.starts_with("application/json"));
    asked.take(1).any(|range| range.starts_with("text/plain"))
}

/// `"10m"`, or a number of seconds; more than none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl Span {
    pub(super) fn ms(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Seconds(u64),
            Text(String),
        }
        let help =
            || D::Error::custom("not a time: write \"10m\" (ms, s, m, h, d) or a number of seconds, more than 0");
        let span = match Written::deserialize(from).map_err(|_| help())? {
            Written::Seconds(seconds) => Some(Duration::from_secs(seconds)),
            Written::Text(text) => parse_duration(&text),
        };
        span.filter(|span| !span.is_zero()).map(Self).ok_or_else(help)
    }
}
