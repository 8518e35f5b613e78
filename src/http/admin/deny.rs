//! The list of networks that get nothing.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Operator;
use super::ask::{self, Span};
use super::note::What;
use super::refusal::Refusal;
use crate::http::Services;
use crate::http::info::json_of;
use crate::limits::{Change, Denial, Deny, DenyError, Limits};
use crate::model::Timestamp;

/// A denial for longer than this is one that somebody has to end.
const EXPIRES_MOST: Duration = Duration::from_secs(366 * 86_400);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    reason: Option<String>,
    expires_in: Option<Span>,
}

pub(super) async fn list(_: Operator, services: web::Data<Services>) -> HttpResponse {
    let list: Vec<Value> = services.limits.deny().list().iter().map(shown).collect();
    json_of(&json!({ "deny": list }))
}

pub(super) async fn put(
    path: web::Path<String>,
    payload: web::Payload,
    operator: Operator,
    services: web::Data<Services>,
) -> Result<HttpResponse, Refusal> {
    let cidr = path.into_inner();
    let Wanted { reason, expires_in } = ask::body(payload).await?.unwrap_or_default();
    if expires_in.is_some_and(|span| span.0 > EXPIRES_MOST) {
        return Err(Refusal::Body(
            "expires_in is more than 366 days: leave it out, and take it off the list then".into(),
        ));
    }
    let (reason, for_ms) = (reason.unwrap_or_default(), expires_in.map(Span::ms));
    let readers = services.hub.clone();
    let (change, ended) = on_disk(&services.limits, move |deny| {
        let change = deny.add(&cidr, &reason, for_ms)?;
        let denial = &change.denial;
        // Whoever comes from now on is refused, and who is there ends.
        let ended = readers.registry().end(&|reader| denial.cidr.contains(&reader.asker.address.to_canonical()));
        let until = denial.until.map_or("it is taken off".to_owned(), |until| Timestamp(until).to_string());
        operator.did(What::Denied, &format!("{} until {until}; ended {ended}; {}", denial.cidr, denial.reason));
        Ok((change, ended))
    })
    .await?;
    let mut answer = changed(&change);
    answer["ended"] = ended.into();
    Ok(json_of(&answer))
}

pub(super) async fn delete(
    path: web::Path<String>,
    operator: Operator,
    services: web::Data<Services>,
) -> Result<HttpResponse, Refusal> {
    let cidr = path.into_inner();
    let wanted = cidr.clone();
    let removed = on_disk(&services.limits, move |deny| {
        let removed = deny.remove(&wanted)?;
        removed.iter().for_each(|change| operator.did(What::DenialEnded, &change.denial.cidr.to_string()));
        Ok(removed)
    });
    let change = removed.await?.ok_or(Refusal::NotDenied(cidr))?;
    Ok(json_of(&changed(&change)))
}

/// Not on the listener's one thread: a disk that hangs is a reason to ask it for `/metrics`. It goes on to its end also
/// if nobody waits for it: what belongs to a change belongs in here.
async fn on_disk<T: Send + 'static>(
    limits: &Limits,
    change: impl FnOnce(&Deny) -> Result<T, DenyError> + Send + 'static,
) -> Result<T, Refusal> {
    let limits = limits.clone();
    let changed = web::block(move || change(limits.deny())).await;
    Ok(changed.map_err(|error| Refusal::Internal(error.to_string()))??)
}

/// With a warning, where it will be forgotten.
fn changed(change: &Change) -> Value {
    let mut answer = shown(&change.denial);
    if let Some(why) = &change.not_kept {
        tracing::warn!(why, "the deny list holds until a restart only");
        answer["warning"] = format!("it holds until a restart only: {why}").into();
    }
    answer
}

fn shown(denial: &Denial) -> Value {
    let time = |ms: i64| Timestamp(ms).to_string();
    json!({
        "cidr": denial.cidr.to_string(),
        "reason": denial.reason,
        "since": time(denial.since),
        "until": denial.until.map(time),
    })
}
