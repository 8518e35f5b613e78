//! The one door of the public listener: who asks is found once for each request, and who gets nothing is refused here.
//!
//! Behind it a request has its [`Asker`](crate::limits::Asker) and what its token shows in its extensions. Those who ask
//! whether this instance is alive come in always.

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{ConnectionType, header};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpRequest, web};

use super::STREAMS;
use super::Services;
use super::body;
use super::client_ip;
use super::error::Refusal;
use super::held;
use super::quiet::Busy;
use crate::health::SECRET_HEADER;
use crate::intake::auth::Shown;
use crate::shutdown::Stage;

/// Asked by those who decide whether this instance gets requests at all.
const OPEN_TO_ALL: [&str; 3] = ["/healthz", "/readyz", "/health"];

pub(super) async fn enter(
    services: web::Data<Services>,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    // Until it has its answer, what comes is its body, which has a time of its own.
    let _answering = request.conn_data::<Busy>().map(Busy::begin);
    let looked = match OPEN_TO_ALL.contains(&request.path()) {
        true => Ok(()),
        false => look(request.request(), &services),
    };
    let mut answer = match looked {
        Ok(()) => next.call(request).await?,
        Err(refusal) => refuse(request, &services, &refusal).await,
    };
    if services.stop.stage() > Stage::Running {
        // Whoever keeps the connection for later asks elsewhere then.
        answer.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    Ok(answer)
}

fn look(request: &HttpRequest, services: &Services) -> Result<(), Refusal> {
    let limits = &services.limits;
    if is_probe(request, services) {
        // A host on which this machine's own address is denied can still say how it is; and whom a proxy would name is
        // nobody's question.
        request.extensions_mut().insert(limits.own(client_ip::of_socket(request)));
        request.extensions_mut().insert(Shown::canary());
        return Ok(());
    }
    let found = client_ip::find(request, limits);
    // Whoever cannot be told is refused on the account of the proxy that does not tell.
    let address = *found.as_ref().unwrap_or(&client_ip::of_socket(request));
    let by_network = limits.asker(address, None);
    request.extensions_mut().insert(by_network.clone());
    found?;
    if let Some(denial) = limits.denied(&by_network) {
        return Err(Refusal::OnDenyList(denial));
    }
    let shown = services.guard.look(bearer(request));
    if let Some(name) = &shown.name {
        request.extensions_mut().insert(limits.asker(address, Some(name)));
    }
    request.extensions_mut().insert(shown);
    Ok(())
}

/// Whether it has shown the secret of this start.
fn is_probe(request: &HttpRequest, services: &Services) -> bool {
    request.headers().get(SECRET_HEADER).is_some_and(|secret| services.probe.is(secret.as_bytes()))
}

/// What the token of a request shows: it is checked once.
pub(super) fn shown(request: &HttpRequest, services: &Services) -> Shown {
    let found = request.extensions_mut().remove::<Shown>();
    found.unwrap_or_else(|| services.guard.look(bearer(request)))
}

/// The token that was sent. Another scheme's credentials are none.
fn bearer(request: &HttpRequest) -> Option<&str> {
    let credentials = request.headers().get(header::AUTHORIZATION)?.as_bytes().trim_ascii();
    let (scheme, token) = credentials.split_at_checked(b"bearer".len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer") && token.first().is_none_or(u8::is_ascii_whitespace);
    // What is not text is nobody's token, but it was sent as one.
    is_bearer.then(|| std::str::from_utf8(token.trim_ascii()).unwrap_or_default())
}

/// Readers are refused with the manners that their clients need; a body is read on, so that its answer is read.
async fn refuse(request: ServiceRequest, services: &Services, refusal: &Refusal) -> ServiceResponse<BoxBody> {
    let path = request.match_info().as_str();
    let is_below = |route: &str| path.strip_prefix(route).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let is_reader = STREAMS.into_iter().any(is_below);
    let (request, mut payload) = request.into_parts();
    let answer = match is_reader {
        true => held::answer(&request, services, refusal),
        false => {
            body::discard(request.headers(), &mut payload).await;
            refusal.answer(&request)
        }
    };
    ServiceResponse::new(request, answer)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_bearer_is_told_from_other_schemes_and_from_none() {
        let of = |value: &[u8]| {
            let value = header::HeaderValue::from_bytes(value).expect("a value");
            let request = TestRequest::post().insert_header((header::AUTHORIZATION, value)).to_http_request();
            bearer(&request).map(str::to_owned)
        };
        assert_eq!(bearer(&TestRequest::post().to_http_request()), None);
        for (value, token) in [(&b"Bearer abc"[..], "abc"), (b"bearer  a.b-c= ", "a.b-c="), (b"BEARER\tx y", "x y")] {
            assert_eq!(of(value).as_deref(), Some(token));
        }
        for value in [&b"Bearer"[..], b"Bearer ", b"Bearer \xff\xfe"] {
            assert_eq!(of(value).as_deref(), Some(""), "a token that nobody has");
        }
        for value in [&b"Basic YTpi"[..], b"Bear", b"", b"Bearerabc", b"Token abc"] {
            assert_eq!(of(value), None);
        }
    }
}
