//! Every refusal of the edge and its status: the one table.
//!
//! [`Refusal`] is answered as problem JSON (RFC 9457). [`BodyRefusal`] and the outcomes of a batch have the producers'
//! form, which `events` writes; their statuses stand here.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Map, Value, json};

use crate::catalog::UnknownStream;
use crate::hub::SubscribeError;
use crate::intake::{self, BodyError, Code, Fault};
use crate::model::{IdError, NameError, SinceError};

/// How long a client is asked to wait where the cause may pass.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("there is nothing at this address")]
    UnknownRoute,
    #[error("this address answers {0}")]
    WrongMethod(&'static str),
    #[error("the path is not UTF-8 when it is decoded")]
    PathNotUtf8,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    UnknownStream(#[from] UnknownStream),
    #[error(transparent)]
    Since(#[from] SinceError),
    #[error("`since` is given {0} times: give it once")]
    SinceRepeated(usize),
    #[error(transparent)]
    Id(#[from] IdError),
    #[error("the id is not ASCII, and so not one that a stream has sent")]
    IdNotAscii,
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    #[error("the handler failed: {0}")]
    Internal(String),
}

impl Refusal {
    /// Status, type, title.
    fn row(&self) -> (StatusCode, &'static str, &'static str) {
        use SubscribeError as S;
        match self {
            Self::UnknownRoute => (StatusCode::NOT_FOUND, "not_found", "Not Found"),
            Self::WrongMethod(_) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method Not Allowed"),
            Self::PathNotUtf8 => (StatusCode::BAD_REQUEST, "bad_request", "Malformed Path"),
            Self::Name(_) => (StatusCode::BAD_REQUEST, "bad_request", "Malformed Stream Name"),
            Self::UnknownStream(_) => (StatusCode::NOT_FOUND, "not_found", "Stream Not Found"),
            Self::Since(_) | Self::SinceRepeated(_) => {
                (StatusCode::BAD_REQUEST, "invalid_timestamp", "Invalid timestamp")
            }
            Self::Id(_) | Self::IdNotAscii | Self::Subscribe(S::ForeignId) => {
                (StatusCode::BAD_REQUEST, "invalid_id", "Invalid Last-Event-ID")
            }
            Self::Subscribe(S::TooManyPartitions(_)) => (StatusCode::BAD_REQUEST, "bad_request", "Too Many Partitions"),
            Self::Subscribe(S::TooManyChannels(_)) => {
                (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too Many Stream Sets")
            }
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal Error"),
        }
    }

    fn extras(&self) -> Map<String, Value> {
        let mut extras = Map::new();
        match self {
            Self::UnknownStream(unknown) => {
                let nearest: Vec<&str> = unknown.nearest.iter().map(|name| name.as_str()).collect();
                extras.insert("nearest".into(), json!(nearest));
            }
            Self::Subscribe(SubscribeError::TooManyChannels(limit)) => {
                extras.insert("limit".into(), json!(limit));
            }
            _ => {}
        }
        extras
    }

    pub(super) fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let (status, kind, title) = self.row();
        let mut answer = HttpResponse::build(status);
        answer.content_type("application/problem+json");
        if let Self::WrongMethod(allowed) = self {
            answer.insert_header((header::ALLOW, *allowed));
        }
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            answer.insert_header((header::RETRY_AFTER, RETRY_AFTER.as_secs()));
        }
        let mut problem = Map::new();
        problem.insert("type".into(), kind.into());
        problem.insert("title".into(), title.into());
        problem.insert("status".into(), status.as_u16().into());
        problem.insert("detail".into(), self.to_string().into());
        problem.insert("method".into(), request.method().as_str().into());
        problem.insert("uri".into(), request.uri().to_string().into());
        problem.extend(self.extras());
        answer.body(Value::Object(problem).to_string())
    }
}

/// Why a POST is refused as a whole. Its sentences are kept for ever as reason phrases, so they hold nothing that a
/// client chose.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyRefusal {
    #[error("The request has no Content-Type: send application/json.")]
    NoContentType,
    #[error(
        "The Content-Type is application/x-www-form-urlencoded, curl's default: add -H 'Content-Type: application/json'."
    )]
    Form,
    #[error("The Content-Type must be one of application/json, text/plain, application/reports+json.")]
    ContentType,
    #[error("The charset must be UTF-8.")]
    Charset,
    #[error("The body must not be compressed: send it without Content-Encoding.")]
    Encoded,
    #[error("The body is larger than {0} bytes.")]
    TooLarge(u64),
    #[error("The body did not arrive within {} seconds.", .0.as_secs())]
    TooSlow(Duration),
    #[error("The body did not arrive whole.")]
    Cut,
    #[error(transparent)]
    Body(#[from] BodyError),
}

impl BodyRefusal {
    /// Status, code.
    pub(super) fn row(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoContentType | Self::Form | Self::ContentType | Self::Charset | Self::Encoded => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type")
            }
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            Self::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, "too-slow"),
            Self::Cut => (StatusCode::BAD_REQUEST, "cut-short"),
            Self::Body(BodyError::Empty) => (StatusCode::BAD_REQUEST, "empty"),
            Self::Body(BodyError::NotUtf8 { .. }) => (StatusCode::BAD_REQUEST, "not-utf-8"),
            Self::Body(BodyError::NotJson { .. }) => (StatusCode::BAD_REQUEST, "not-json"),
            Self::Body(BodyError::NotEvents) => (StatusCode::BAD_REQUEST, "not-events"),
            Self::Body(BodyError::TooDeep(_)) => (StatusCode::BAD_REQUEST, "too-deep"),
            Self::Body(BodyError::TooMany(_)) => (StatusCode::PAYLOAD_TOO_LARGE, "too-many"),
            Self::Body(BodyError::Overloaded) => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        }
    }

    /// Where in the body, where that is known: line and column, from 1.
    pub(super) fn position(&self) -> Option<(usize, usize)> {
        match self {
            Self::Body(BodyError::NotJson { line, column, .. }) => Some((*line, *column)),
            _ => None,
        }
    }
}

/// The status of a batch: all accepted, some, or none, and then whose fault that was.
pub(super) fn of_batch(events: usize, refusals: &[&intake::Refusal]) -> StatusCode {
    match refusals {
        [] => StatusCode::CREATED,
        some if some.len() < events => StatusCode::MULTI_STATUS,
        [alone] if alone.code == Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        all if all.iter().any(|refusal| refusal.code.fault() == Fault::Ours) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StreamName;

    #[test]
    fn nothing_that_a_client_did_is_a_5xx() {
        let overload = [BodyRefusal::Body(BodyError::Overloaded).row().0];
        assert!(overload.iter().all(|status| *status == StatusCode::SERVICE_UNAVAILABLE));
        let name = StreamName::parse("x").expect("a name");
        let of_readers = [
            Refusal::UnknownRoute,
            Refusal::Subscribe(SubscribeError::TooManyChannels(1)),
            Refusal::WrongMethod("GET"),
            Refusal::PathNotUtf8,
            Refusal::Name(NameError::Empty),
            Refusal::UnknownStream(UnknownStream { name: name.clone(), nearest: vec![name] }),
            Refusal::SinceRepeated(2),
            Refusal::Id(IdError::Empty),
            Refusal::IdNotAscii,
            Refusal::Subscribe(SubscribeError::ForeignId),
            Refusal::Subscribe(SubscribeError::TooManyPartitions(9)),
        ];
        for refusal in of_readers {
            assert!(refusal.row().0.is_client_error(), "{refusal:?}");
        }
        let of_producers = [
            BodyRefusal::NoContentType,
            BodyRefusal::Form,
            BodyRefusal::ContentType,
            BodyRefusal::Charset,
            BodyRefusal::Encoded,
            BodyRefusal::TooLarge(1),
            BodyRefusal::TooSlow(Duration::ZERO),
            BodyRefusal::Cut,
            BodyRefusal::Body(BodyError::Empty),
            BodyRefusal::Body(BodyError::NotUtf8 { at: 0 }),
            BodyRefusal::Body(BodyError::NotJson { message: String::new(), line: 1, column: 1 }),
            BodyRefusal::Body(BodyError::NotEvents),
            BodyRefusal::Body(BodyError::TooDeep(1)),
            BodyRefusal::Body(BodyError::TooMany(1)),
        ];
        for refusal in of_producers {
            assert!(refusal.row().0.is_client_error(), "{refusal:?}");
        }
    }

    #[test]
    fn a_batch_is_all_some_or_none_and_none_is_the_clients_fault_or_ours() {
        let refusal = |code| intake::Refusal {
            index: 0,
            code,
            message: String::new(),
            violations: vec![],
            event: bytes::Bytes::new(),
        };
        let (ours, theirs, large) = (refusal(Code::Unknown), refusal(Code::MissingStream), refusal(Code::TooLarge));
        assert_eq!(of_batch(2, &[]), 201);
        assert_eq!(of_batch(2, &[&ours]), 207);
        assert_eq!(of_batch(2, &[&theirs, &theirs]), 400);
        assert_eq!(of_batch(2, &[&theirs, &ours]), 503);
        assert_eq!(of_batch(1, &[&large]), 413);
        assert_eq!(of_batch(2, &[&large, &large]), 400);
    }
}
