//! Every refusal of the edge and its status: the one table. The form is problem JSON (RFC 9457).

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, RETRY_AFTER};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Map, Value, json};

use crate::catalog::UnknownStream;
use crate::hub::SubscribeError;
use crate::model::{IdError, NameError, SinceError};

/// How long a client is asked to wait where the cause may pass.
const RETRY_AFTER_OVERLOAD: Duration = Duration::from_secs(1);

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
    #[error("the header Last-Event-ID is not ASCII")]
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
                (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too Many Stream Sets")
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
            answer.insert_header((ALLOW, *allowed));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            answer.insert_header((RETRY_AFTER, RETRY_AFTER_OVERLOAD.as_secs()));
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
