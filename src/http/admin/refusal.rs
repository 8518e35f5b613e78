//! What the operators' routes refuse, and with which status. The form is the public listener's.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{StatusCode, header};
use actix_web::middleware::Next;
use actix_web::{Error, HttpRequest, HttpResponse, ResponseError};
use serde_json::{Map, json};

use crate::http::error::{CHALLENGE, CHALLENGE_AGAIN, problem};
use crate::http::panics;
use crate::limits::DenyError;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "this listener is reached by others than this machine, and admin.token is not set: set it, or use admin.socket"
    )]
    Closed,
    #[error("this address asks for a token: send Authorization: Bearer and what admin.token says")]
    NoToken,
    #[error("this is not the token that admin.token says")]
    BadToken,
    #[error("requests of pages in a browser are not answered here: ask from a command line")]
    FromAPage,
    #[error("the Host is a name, and any page's owner can point a name here: ask by address, or for localhost")]
    Rebound,
    #[error("{0}")]
    Query(String),
    #[error("the body is not what belongs here: {0}")]
    Body(String),
    #[error("the body has more than {0} bytes")]
    TooLarge(usize),
    #[error("no reader has the id '{0}' (GET /clients lists them; it may have left)")]
    NoSuchClient(String),
    #[error("'{0}' is not on the list as it stands (GET /deny)")]
    NotDenied(String),
    #[error("there is no spool: set intake.spool.enabled, and start again")]
    NoSpool,
    #[error("{0}")]
    Network(String),
    #[error("{0}")]
    Conflict(String),
    /// All that is wrong.
    #[error("nothing has changed: mend what `errors` names, and ask again")]
    Faults(Vec<String>),
    /// All that is wrong with it.
    #[error("the configuration is refused whole, and nothing has changed: mend what `errors` names, and ask again")]
    Reload(Vec<String>),
    #[error("{0}")]
    Busy(String),
    #[error("{0}")]
    Internal(String),
}

impl Refusal {
    /// Status, type, title.
    fn row(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Closed => (StatusCode::FORBIDDEN, "forbidden", "Closed To Others"),
            Self::NoToken => (StatusCode::UNAUTHORIZED, "unauthorized", "Token Needed"),
            Self::BadToken => (StatusCode::UNAUTHORIZED, "unauthorized", "Token Not Accepted"),
            Self::FromAPage => (StatusCode::FORBIDDEN, "forbidden", "Not For Pages"),
            Self::Rebound => (StatusCode::FORBIDDEN, "forbidden", "Unknown Host"),
            Self::Query(_) => (StatusCode::BAD_REQUEST, "bad_request", "Malformed Query"),
            Self::Body(_) => (StatusCode::BAD_REQUEST, "bad_request", "Malformed Body"),
            Self::Network(_) => (StatusCode::BAD_REQUEST, "bad_request", "Malformed Network"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "Body Too Large"),
            Self::NoSuchClient(_) => (StatusCode::NOT_FOUND, "not_found", "No Such Client"),
            Self::NoSpool => (StatusCode::NOT_FOUND, "not_found", "No Spool"),
            Self::NotDenied(_) => (StatusCode::NOT_FOUND, "not_found", "Not Denied"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "conflict", "Not Now"),
            Self::Faults(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "Not Accepted"),
            Self::Reload(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_configuration", "Configuration Refused"),
            Self::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "busy", "Too Many At Once"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal Error"),
        }
    }

    fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let (status, kind, title) = self.row();
        let mut answer = HttpResponse::build(status);
        match self {
            Self::NoToken => answer.insert_header((header::WWW_AUTHENTICATE, CHALLENGE)),
            Self::BadToken => answer.insert_header((header::WWW_AUTHENTICATE, CHALLENGE_AGAIN)),
            _ => &mut answer,
        };
        let mut extras = Map::new();
        if let Self::Faults(faults) | Self::Reload(faults) = self {
            extras.insert("errors".into(), json!(faults));
        }
        answer.content_type("application/problem+json");
        answer.body(problem(request, status, (kind, title), self.to_string(), extras))
    }
}

impl From<DenyError> for Refusal {
    fn from(error: DenyError) -> Self {
        match error {
            DenyError::Network(why) => Self::Network(why),
            DenyError::Reason => Self::Body(error.to_string()),
            DenyError::Full => Self::Conflict(error.to_string()),
            DenyError::Read { .. } => {
                tracing::error!(%error, "the deny list cannot be kept");
                Self::Internal(error.to_string())
            }
        }
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        self.row().0
    }
}

/// Writes refusals out: only here the request is at hand, which they quote.
pub(super) async fn answered(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse, Error> {
    let answer = panics::fenced(next.call(request)).await?.map_into_boxed_body();
    let refusal = answer.response().error().and_then(|error| error.as_error::<Refusal>());
    let refused = refusal.map(|refusal| refusal.answer(answer.request()));
    Ok(match refused {
        Some(refused) => answer.into_response(refused),
        None => answer,
    })
}
