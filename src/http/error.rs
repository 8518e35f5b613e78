//! Every refusal of the edge and its status: the one table.
//!
//! [`Refusal`] is answered as problem JSON (RFC 9457). [`BodyRefusal`] and the outcomes of a batch have the producers'
//! form, which `events` writes; their statuses stand here. What only operators are told stands in `admin`.

use std::ops::RangeInclusive;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Map, Value, json};

use super::body::CODINGS;
use super::client_ip::Unreadable;
use super::cors;
use super::options::Half;
use super::query::QueryError;
use crate::catalog::UnknownStream;
use crate::hub::SubscribeError;
use crate::intake::auth::Denied;
use crate::intake::{self, BodyError, Code, Fault, Mode};
use crate::limits::{Denial, Exceeded, Limit};
use crate::model::{IdError, NameError, SinceError, Timestamp};

/// What a 401 says of how to do better, and after a token that is no good, that it is that.
pub(super) const CHALLENGE: &str = r#"Bearer realm="sluice""#;
pub(super) const CHALLENGE_AGAIN: &str = r#"Bearer realm="sluice", error="invalid_token""#;

/// How long a client is asked to wait where the cause may pass.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The same for a reader: anything in between, so that those who were refused together do not come back together.
pub(super) const COME_BACK_SECONDS: RangeInclusive<u64> = 15..=60;

/// What a problem quotes of a request, in bytes: a path may have 64 KB, and answers may have to wait in memory.
const QUOTED_BYTES_MAX: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("there is nothing at this address")]
    UnknownRoute,
    #[error("{}", of_other_half(*.0))]
    OtherHalf(Half),
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
    Query(#[from] QueryError),
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    #[error(transparent)]
    Limited(#[from] Exceeded),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("{}", of_denial(.0))]
    OnDenyList(Denial),
    #[error("the server is stopping: come back, and another one answers")]
    Stopping,
    #[error("the list of streams is longer than {0} bytes: ask for fewer at once, or for all of them without a list")]
    TooManyNames(usize),
    #[error(transparent)]
    Denied(#[from] Denied),
    /// What each event is told of its stream.
    #[error("{0}")]
    Forbidden(String),
    #[error("the handler failed: {0}")]
    Internal(String),
}

impl Refusal {
    /// Status, type, title.
    fn row(&self) -> (StatusCode, &'static str, &'static str) {
        use SubscribeError as S;
        match self {
            Self::UnknownRoute => (StatusCode::NOT_FOUND, "not_found", "Not Found"),
            Self::OtherHalf(_) => (StatusCode::NOT_FOUND, "not_found", "Not Served Here"),
            Self::TooManyNames(_) => (StatusCode::URI_TOO_LONG, "uri_too_long", "Too Many Names"),
            Self::Denied(Denied::Closed) => (StatusCode::FORBIDDEN, "forbidden", "Posting Is Closed"),
            Self::Denied(Denied::NoToken) => (StatusCode::UNAUTHORIZED, "unauthorized", "Token Needed"),
            Self::Denied(denied) if denied.is_forbidden() => {
                (StatusCode::FORBIDDEN, "forbidden", "Posting Not Allowed")
            }
            Self::Denied(_) => (StatusCode::UNAUTHORIZED, "unauthorized", "Token Not Accepted"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden", "Stream Not Allowed"),
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
            Self::Query(_) => (StatusCode::BAD_REQUEST, "bad_request", "Malformed Query"),
            Self::Subscribe(S::TooManyPartitions(_)) => (StatusCode::BAD_REQUEST, "bad_request", "Too Many Partitions"),
            Self::Subscribe(S::TooManyChannels(_)) => {
                (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too Many Stream Sets")
            }
            Self::Unreadable(_) => (StatusCode::BAD_REQUEST, "bad_request", "Unreadable Client Address"),
            Self::OnDenyList(_) => (StatusCode::FORBIDDEN, "forbidden", "Address Denied"),
            Self::Limited(exceeded) => match exceeded.limit {
                Limit::StreamsTotal => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "All Streams In Use"),
                Limit::StreamsPerClient => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too Many Streams"),
                Limit::NewStreams => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too Many New Streams"),
                _ => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too Many Requests"),
            },
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping", "Stopping"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal Error"),
        }
    }

    /// Whether the same request may do later: not the client's fault.
    pub(super) fn will_pass(&self) -> bool {
        match self {
            Self::Stopping => true,
            Self::Limited(exceeded) => exceeded.limit == Limit::StreamsTotal,
            _ => false,
        }
    }

    /// In how many seconds to come back, where that is of use.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Limited(Exceeded { retry_after: Some(wait), .. }) => Some(seconds_after(*wait)),
            // Nobody knows when somebody leaves.
            Self::Stopping | Self::Limited(_) | Self::Subscribe(SubscribeError::TooManyChannels(_)) => {
                Some(fastrand::u64(COME_BACK_SECONDS))
            }
            _ => None,
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
                extras.insert("limit_name".into(), json!("stream_sets"));
                extras.insert("limit".into(), json!(limit));
                extras.insert("in_use".into(), json!(limit));
            }
            Self::OnDenyList(denial) => {
                extras.insert("reason".into(), json!(denial.reason));
                extras.insert("until".into(), json!(denial.until.map(|until| Timestamp(until).to_string())));
            }
            Self::Limited(exceeded) => {
                extras.insert("limit_name".into(), json!(exceeded.limit.as_str()));
                extras.insert("limit".into(), json!(exceeded.most));
                extras.extend(exceeded.in_use.map(|in_use| ("in_use".to_owned(), json!(in_use))));
            }
            _ => {}
        }
        extras
    }

    pub(super) fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let (status, kind, title) = self.row();
        let mut answer = HttpResponse::build(status);
        answer.content_type("application/problem+json");
        match self {
            Self::WrongMethod(allowed) => answer.insert_header((header::ALLOW, *allowed)),
            Self::Denied(Denied::NoToken) => answer.insert_header((header::WWW_AUTHENTICATE, CHALLENGE)),
            Self::Denied(_) if status == StatusCode::UNAUTHORIZED => {
                answer.insert_header((header::WWW_AUTHENTICATE, CHALLENGE_AGAIN))
            }
            _ => &mut answer,
        };
        if let Some(seconds) = self.retry_after() {
            answer.insert_header((header::RETRY_AFTER, seconds));
        }
        answer.body(problem(request, status, (kind, title), self.to_string(), self.extras()))
    }
}

/// In whole seconds, never too early; and a little later, so that those who were refused together do not come back
/// together.
pub(super) fn seconds_after(wait: Duration) -> u64 {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    seconds + fastrand::u64(0..=1 + seconds / 4)
}

/// A whole answer to who has not asked in HTTP yet.
pub(super) fn unasked(status: StatusCode, (kind, title): (&str, &str), detail: &str) -> String {
    let problem = json!({ "type": kind, "title": title, "status": status.as_u16(), "detail": detail }).to_string();
    let (length, cors) = (problem.len(), cors::lines());
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncontent-length: {length}\r\n\
         connection: close\r\n{cors}\r\n{problem}"
    )
}

/// What a refusal says of itself (RFC 9457).
pub(super) fn problem(
    request: &HttpRequest,
    status: StatusCode,
    (kind, title): (&str, &str),
    detail: String,
    extras: Map<String, Value>,
) -> String {
    let mut problem = Map::new();
    problem.insert("type".into(), kind.into());
    problem.insert("title".into(), title.into());
    problem.insert("status".into(), status.as_u16().into());
    problem.insert("detail".into(), quoted(detail).into());
    problem.insert("method".into(), request.method().as_str().into());
    problem.insert("uri".into(), quoted(request.uri().to_string()).into());
    problem.extend(extras);
    Value::Object(problem).to_string()
}

fn of_denial(denial: &Denial) -> String {
    let reason = if denial.reason.is_empty() { "no reason is given" } else { &denial.reason };
    let until = denial.until.map_or("until further notice".to_owned(), |until| format!("until {}", Timestamp(until)));
    format!("your address is not served here {until}: {reason}. Ask whoever runs this server")
}

fn quoted(mut text: String) -> String {
    if text.len() > QUOTED_BYTES_MAX {
        text.truncate(text.floor_char_boundary(QUOTED_BYTES_MAX));
        text.push('…');
    }
    text
}

fn of_other_half(half: Half) -> &'static str {
    match half {
        Half::In => "this instance only gives events out (http.serve is \"out\"): post to one that takes them in",
        Half::Out => "this instance only takes events in (http.serve is \"in\"): read from one that gives them out",
    }
}

/// Why a POST is refused as a whole. Its sentences are kept for ever as reason phrases, so they hold nothing that a
/// client chose but places in its body.
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
    #[error("The Content-Encoding must be one of {CODINGS}, or two of them.")]
    Coding,
    #[error(
        "The body is not what its Content-Encoding says: it is damaged, cut short, or goes on, or its window is over 8 MiB."
    )]
    Damaged,
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("The body is larger than {0} bytes.")]
    TooLarge(u64),
    #[error("The body did not arrive within {0:?}.")]
    TooSlow(Duration),
    #[error("The body did not arrive whole.")]
    Cut,
    #[error("{}", of_rate(*.limit, *.most))]
    Limited { limit: Limit, most: u64, retry_after: Duration },
    #[error(transparent)]
    Body(#[from] BodyError),
}

/// Without whose limit it is: that would be a sentence for each client.
impl From<Exceeded> for BodyRefusal {
    fn from(exceeded: Exceeded) -> Self {
        let retry_after = exceeded.retry_after.unwrap_or(RETRY_AFTER);
        Self::Limited { limit: exceeded.limit, most: exceeded.most, retry_after }
    }
}

fn of_rate(limit: Limit, most: u64) -> String {
    match limit {
        Limit::PostBytes => format!("You may post {most} bytes per second, and have posted more: wait, or send less."),
        _ => format!("You may post {most} times per second, and have more often: wait, and send more events at once."),
    }
}

impl BodyRefusal {
    /// Status, code.
    pub(super) fn row(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoContentType | Self::Form | Self::ContentType | Self::Charset | Self::Coding => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type")
            }
            Self::Damaged => (StatusCode::BAD_REQUEST, "bad-encoding"),
            Self::Query(_) => (StatusCode::BAD_REQUEST, "bad-query"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            Self::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, "too-slow"),
            Self::Cut => (StatusCode::BAD_REQUEST, "cut-short"),
            Self::Limited { .. } => (StatusCode::TOO_MANY_REQUESTS, "too-many-requests"),
            Self::Body(BodyError::Empty) => (StatusCode::BAD_REQUEST, "empty"),
            Self::Body(BodyError::NotUtf8 { .. }) => (StatusCode::BAD_REQUEST, "not-utf-8"),
            Self::Body(BodyError::NotJson { .. }) => (StatusCode::BAD_REQUEST, "not-json"),
            Self::Body(BodyError::NotEvents) => (StatusCode::BAD_REQUEST, "not-events"),
            Self::Body(BodyError::TooDeep(_)) => (StatusCode::BAD_REQUEST, "too-deep"),
            Self::Body(BodyError::TooMany(_)) => (StatusCode::PAYLOAD_TOO_LARGE, "too-many"),
            Self::Body(BodyError::Overloaded) => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        }
    }

    pub(super) fn has_place(&self) -> bool {
        matches!(self, Self::Body(BodyError::NotJson { .. } | BodyError::NotUtf8 { .. }))
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
pub(super) fn of_batch(mode: Mode, events: usize, spooled: usize, refusals: &[&intake::Refusal]) -> StatusCode {
    match (mode, refusals) {
        (Mode::DryRun, _) => StatusCode::OK,
        (Mode::Hasty, []) => StatusCode::ACCEPTED,
        (Mode::Guaranteed, []) if spooled > 0 => StatusCode::ACCEPTED,
        (Mode::Guaranteed, []) => StatusCode::CREATED,
        (_, some) if some.len() < events => StatusCode::MULTI_STATUS,
        (_, [alone]) if alone.code == Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        (_, all) if all.iter().any(|refusal| refusal.code.fault() == Fault::Ours) => StatusCode::SERVICE_UNAVAILABLE,
        (_, all) if all.iter().all(|refusal| refusal.code == Code::Forbidden) => StatusCode::FORBIDDEN,
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
            Refusal::WrongMethod("GET"),
            Refusal::OtherHalf(Half::In),
            Refusal::TooManyNames(1),
            Refusal::Denied(Denied::Closed),
            Refusal::Denied(Denied::NoToken),
            Refusal::Denied(Denied::BadToken),
            Refusal::Forbidden(String::new()),
            Refusal::PathNotUtf8,
            Refusal::Name(NameError::Empty),
            Refusal::UnknownStream(UnknownStream { name: name.clone(), nearest: vec![name] }),
            Refusal::SinceRepeated(2),
            Refusal::Id(IdError::Empty),
            Refusal::IdNotAscii,
            Refusal::Subscribe(SubscribeError::ForeignId),
            Refusal::Subscribe(SubscribeError::TooManyPartitions(9)),
            Refusal::Subscribe(SubscribeError::TooManyChannels(9)),
        ];
        for refusal in of_readers {
            assert!(refusal.row().0.is_client_error(), "{refusal:?}");
        }
        let of_producers = [
            BodyRefusal::NoContentType,
            BodyRefusal::Form,
            BodyRefusal::ContentType,
            BodyRefusal::Charset,
            BodyRefusal::Coding,
            BodyRefusal::Damaged,
            BodyRefusal::Query(QueryError::Encoding),
            BodyRefusal::TooLarge(1),
            BodyRefusal::TooSlow(Duration::ZERO),
            BodyRefusal::Cut,
            BodyRefusal::Limited { limit: Limit::Posts, most: 1, retry_after: Duration::ZERO },
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
            event: bytes::Bytes::new(),
            violations: Vec::new(),
        };
        let (ours, theirs, large) = (refusal(Code::Unknown), refusal(Code::MissingStream), refusal(Code::TooLarge));
        let forbidden = refusal(Code::Forbidden);
        let table: [(usize, &[&intake::Refusal], u16); 9] = [
            (2, &[], 201),
            (2, &[&ours], 207),
            (2, &[&theirs, &theirs], 400),
            (2, &[&theirs, &ours], 503),
            (1, &[&large], 413),
            (2, &[&large, &large], 400),
            (2, &[&forbidden], 207),
            (2, &[&forbidden, &forbidden], 403),
            (2, &[&forbidden, &theirs], 400),
        ];
        for (events, refusals, status) in table {
            assert_eq!(of_batch(Mode::Guaranteed, events, 0, refusals), status, "{refusals:?}");
            assert_eq!(of_batch(Mode::DryRun, events, 0, refusals), 200, "{refusals:?}");
        }
        assert_eq!(of_batch(Mode::Hasty, 2, 0, &[]), 202);
        assert_eq!(of_batch(Mode::Guaranteed, 2, 1, &[]), 202);
    }

    #[test]
    fn a_denial_names_no_token_and_only_a_bad_one_is_called_so() {
        let request = actix_web::test::TestRequest::post()
            .uri("/v1/events")
            .insert_header(("authorization", "Bearer hush"))
            .to_http_request();
        let challenge = |denied: Denied| {
            let answer = Refusal::Denied(denied).answer(&request);
            let challenge = answer.headers().get(header::WWW_AUTHENTICATE);
            (answer.status().as_u16(), challenge.map(|value| value.to_str().expect("text").to_owned()))
        };
        assert_eq!(challenge(Denied::Closed), (403, None));
        assert_eq!(challenge(Denied::NoStreams), (403, None));
        assert_eq!(challenge(Denied::Expired), challenge(Denied::BadToken));
        assert_eq!(challenge(Denied::NoToken), (401, Some(r#"Bearer realm="sluice""#.into())));
        assert_eq!(challenge(Denied::BadToken), (401, Some(r#"Bearer realm="sluice", error="invalid_token""#.into())));
    }

    #[test]
    fn who_is_told_to_wait_comes_neither_too_early_nor_much_later() {
        for (ms, range) in [(0, 0..=1), (1, 1..=2), (1_000, 1..=2), (1_001, 2..=3), (60_000, 60..=76)] {
            let seconds: Vec<u64> = (0..500).map(|_| seconds_after(Duration::from_millis(ms))).collect();
            let (least, most) = (seconds.iter().min().copied(), seconds.iter().max().copied());
            assert_eq!((least, most), (Some(*range.start()), Some(*range.end())), "{ms} ms");
        }
    }

    #[test]
    fn the_sentence_of_a_rate_names_the_limit_and_no_client() {
        for (limit, unit) in [(Limit::Posts, "7 times per second"), (Limit::PostBytes, "7 bytes per second")] {
            let refusal = BodyRefusal::Limited { limit, most: 7, retry_after: Duration::from_secs(1) };
            assert!(refusal.to_string().contains(unit), "{refusal}");
        }
    }
}
