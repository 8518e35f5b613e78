//! `GET /v2/stream/{streams}`: from a request to a reader on a socket of its own.

use std::rc::Rc;
use std::time::Duration;

use actix_web::body::None as NoBody;
use actix_web::http::{Method, header};
use actix_web::{HttpRequest, HttpResponse, web};
use percent_encoding::percent_decode_str;

use super::Services;
use super::client_ip;
use super::cors;
use super::error::Refusal;
use super::handover::{Handover, HandoverBody};
use super::head::{framed, framing, ok};
use super::held;
use super::panics;
use super::reader::{self, Manners};
use super::resume;
use super::sse::Wire;
use super::wishes::{self, Wishes};
use crate::catalog::canary_set;
use crate::health::SECRET_HEADER;
use crate::hub::{Who, Worker};
use crate::limits::Did;
use crate::model::{CANARY, StreamSet, parse_stream_names};

/// How long the head waits for what the log must answer. After it the 200 comes first, and the place is resolved later:
/// a 5xx ends a browser's EventSource for good.
const SETTLE_AT_MOST: Duration = Duration::from_secs(2);

/// What was asked and what is given, where they differ.
const SLUICE_NOTICE: &str = "sluice-notice";

/// Every request for streams, whatever its method.
pub(super) async fn asked(
    request: HttpRequest,
    services: web::Data<Services>,
    worker: web::Data<Rc<Worker>>,
) -> HttpResponse {
    const ALLOWED: &str = "GET, HEAD";
    match *request.method() {
        Method::GET => get(request, services, worker).await,
        Method::HEAD => head(&request, &services),
        Method::OPTIONS => cors::preflight(ALLOWED),
        _ => held::answer(&request, &services, &Refusal::WrongMethod(ALLOWED)),
    }
}

async fn get(request: HttpRequest, services: web::Data<Services>, worker: web::Data<Rc<Worker>>) -> HttpResponse {
    let answer = async {
        let opened = open(&request, &services, &worker).await;
        opened.unwrap_or_else(|refusal| held::answer(&request, &services, &refusal))
    };
    panics::caught(&request, answer).await
}

/// The head of the stream, and nothing behind it: no reader, no place.
fn head(request: &HttpRequest, services: &Services) -> HttpResponse {
    let set = wishes::of(request).and_then(|wishes| stream_set(request, services, wishes));
    let checked = set.and_then(|set| resume::from(request, &set));
    match checked {
        // Not an empty body: that one has a length, and the stream has none.
        Ok(_) => ok(request).body(NoBody::new()),
        Err(refusal) => held::answer(request, services, &refusal),
    }
}

async fn open(request: &HttpRequest, services: &Services, worker: &Rc<Worker>) -> Result<HttpResponse, Refusal> {
    let wishes = wishes::of(request)?;
    let set = stream_set(request, services, wishes)?;
    let from = resume::from(request, &set)?;
    if services.patience.is_stopping() {
        return Err(Refusal::Stopping);
    }
    let user_agent = request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let asker = client_ip::asker(request, &services.limits);
    // Last of what can refuse it before it is a reader, and from here on owned: whatever comes, drop gives it back.
    let is_probe = asker.key.is_own();
    let place = services.limits.enter(&asker, is_probe)?;
    let who = Who { asker: asker.clone(), user_agent: user_agent.map(Into::into), place: Some(place) };
    let mut subscription = services.hub.subscribe(&set, from, who)?;
    // Denied since the door let it in: who was a reader by then has been ended, and this one is a reader only now.
    if let Some(denial) = services.limits.denied(&asker) {
        return Err(Refusal::OnDenyList(denial));
    }
    let notice = subscription.settle(SETTLE_AT_MOST).await?;
    services.limits.ledger().note(&asker.key, Did::Opened);

    let mut answer = ok(request);
    if let Some(notice) = &notice {
        answer.insert_header((SLUICE_NOTICE, &**notice));
    }
    if is_probe {
        answer.insert_header((SECRET_HEADER, "reserved"));
    }
    let framing = framing(request);
    let handover = request
        .conn_data::<Handover>()
        .cloned()
        .ok_or_else(|| Refusal::Internal("the connection cannot be handed over".into()))?;
    let (worker, patience) = (worker.clone(), services.patience.clone());
    let manners = Manners { wire: Wire { format: wishes.view.format, framing }, positions: wishes.positions };
    let body = HandoverBody::new(handover, move |io, _| {
        actix_rt::spawn(reader::run(io, subscription, notice.as_deref(), &worker, manners, &patience));
    });
    Ok(framed(answer.body(body), framing))
}

/// The raw path is decoded here, once, so that `a%2Cb` is a list of two.
fn stream_set(request: &HttpRequest, services: &Services, wishes: Wishes) -> Result<StreamSet, Refusal> {
    // Everything after `/v2/stream/`, which may itself be percent-encoded and still have matched; so may a second slash in
    // front of it.
    let path = request.uri().path();
    let path = if path.starts_with("//") { &path[1..] } else { path };
    let list = path.splitn(4, '/').nth(3).unwrap_or_default();
    let list = list.strip_suffix('/').unwrap_or(list);
    let list = percent_decode_str(list).decode_utf8().map_err(|_| Refusal::PathNotUtf8)?;
    let names = parse_stream_names(&list)?;
    let is_canary = matches!(names.as_slice(), [name] if name.as_str() == CANARY);
    if is_canary && client_ip::asker(request, &services.limits).key.is_own() {
        return Ok(canary_set().seen(wishes.view));
    }
    Ok(services.catalog.now().resolve(&names)?.seen(wishes.view))
}
