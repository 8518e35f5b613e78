//! Where a request wants its stream to start: `Last-Event-ID` beats `since`, and neither means live.

use actix_web::HttpRequest;

use super::error::Refusal;
use crate::hub::From;
use crate::model::{ClientId, StreamSet, Timestamp, parse_since};

/// A wrong `since` is refused even beside a good id: somebody means it.
pub(super) fn from(request: &HttpRequest, set: &StreamSet) -> Result<From, Refusal> {
    let since = since(request)?;
    if let Some(id) = last_event_id(request)? {
        return Ok(From::Id(ClientId::parse(&id, set.topics())?));
    }
    Ok(since.map_or(From::Live, From::Since))
}

fn since(request: &HttpRequest) -> Result<Option<Timestamp>, Refusal> {
    match query_values(request, "since").as_slice() {
        [] => Ok(None),
        [since] => Ok(parse_since(since)?),
        several => Err(Refusal::SinceRepeated(several.len())),
    }
}

/// From the header, else from the query (some browser libraries can only send it there). An empty one is none.
fn last_event_id(request: &HttpRequest) -> Result<Option<String>, Refusal> {
    let header = match request.headers().get("last-event-id") {
        Some(value) => Some(value.to_str().map_err(|_| Refusal::IdNotAscii)?.to_owned()),
        None => None,
    };
    let given = |id: &String| !id.trim().is_empty();
    Ok(header.filter(given).or_else(|| query_values(request, "lastEventId").into_iter().find(given)))
}

fn query_values(request: &HttpRequest, name: &str) -> Vec<String> {
    let pairs = form_urlencoded::parse(request.query_string().as_bytes());
    pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect()
}
