//! What browsers need to be told: who may read an answer, and what may be asked. And a few headers for their safety.
//!
//! Everybody may: there are no cookies here, and a token is sent only by who has one. Not `actix-cors`: that answers
//! preflights to addresses that do not exist, and refuses requests, which is not its business here.

use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderName};
use actix_web::middleware::DefaultHeaders;

const METHODS: &str = "POST, GET, HEAD, OPTIONS";
/// Written out: `*` would not cover `authorization`.
const HEADERS: &str = "accept, api-user-agent, authorization, cache-control, content-encoding, content-type, last-event-id, \
                       x-request-id, x-requested-with";
const EXPOSED: &str = "sluice-message, sluice-notice, retry-after, etag, www-authenticate";
/// How long a browser may keep the answer to a preflight. Chrome keeps it two hours at most, Firefox a day.
const MAX_AGE_SECONDS: &str = "86400";

/// What every answer has.
fn always() -> [(HeaderName, &'static str); 5] {
    [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'self'"),
    ]
}

/// On every answer that a route gives, refusals too. A page of our own may set a policy of its own.
pub(super) fn headers() -> DefaultHeaders {
    always().into_iter().fold(DefaultHeaders::new(), |headers, header| headers.add(header))
}

/// The same as lines of a head, for an answer that comes before HTTP does.
pub(super) fn lines() -> String {
    always().iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

/// The answer to `OPTIONS`, whether a browser asks or a person: 200, as EventGate has it.
pub(super) fn preflight(allowed: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::ALLOW, allowed))
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, METHODS))
        .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS))
        .finish()
}
