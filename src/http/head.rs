//! The head of a stream, of one that is read and of one that only looks so.

use actix_web::body::BoxBody;
use actix_web::http::{ConnectionType, Version, header};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};

use super::sse::Framing;
use super::wishes;

/// Tells a proxy in front to pass on what comes when it comes.
const X_ACCEL_BUFFERING: &str = "x-accel-buffering";

pub(super) fn framing(request: &HttpRequest) -> Framing {
    if request.version() < Version::HTTP_11 { Framing::Raw } else { Framing::Chunked }
}

/// The head says how the reader will delimit the body. actix would announce chunks to HTTP/1.0 too.
pub(super) fn framed(mut answer: HttpResponse<BoxBody>, framing: Framing) -> HttpResponse<BoxBody> {
    if framing == Framing::Raw {
        answer.head_mut().no_chunking(true);
        answer.head_mut().set_connection_type(ConnectionType::Close);
    }
    answer
}

pub(super) fn ok(request: &HttpRequest) -> HttpResponseBuilder {
    let mut answer = HttpResponse::Ok();
    answer.content_type(wishes::content_type(request.headers()));
    answer.insert_header((header::CACHE_CONTROL, "no-cache"));
    answer.insert_header((header::VARY, "Accept"));
    answer.insert_header((X_ACCEL_BUFFERING, "no"));
    answer
}
