//! What waits for the log, and what the log refuses for good.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Operator;
use super::ask;
use super::note::What;
use super::refusal::Refusal;
use crate::http::Services;
use crate::http::info::json_of;
use crate::intake::spool::{Aside, Desk};
use crate::model::Timestamp;

/// Events that were set aside which one answer lists, if nothing is said, and at most.
const LISTED: u32 = 100;
const LISTED_MOST: u32 = 1_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default = "listed")]
    limit: u32,
}

fn listed() -> u32 {
    LISTED
}

pub(super) async fn get(
    request: HttpRequest,
    _: Operator,
    services: web::Data<Services>,
) -> Result<HttpResponse, Refusal> {
    let Wanted { limit } = ask::query(&request)?;
    let desk = desk(&services)?;
    let aside = desk.look_aside(limit.min(LISTED_MOST)).await.map_err(Refusal::Internal)?;
    let status = desk.status();
    let age = status.oldest.map(|oldest| Timestamp::now().0.saturating_sub(oldest.0).max(0) / 1000);
    Ok(json_of(&json!({
        "events": status.events,
        "bytes": status.bytes,
        "max_bytes": status.bytes_max,
        "oldest": status.oldest.map(|oldest| oldest.to_string()),
        "oldest_seconds": age,
        "fault": status.fault,
        "aside_events": status.aside,
        "aside": aside.iter().map(shown).collect::<Vec<Value>>(),
        "truncated": (aside.len() as u64) < status.aside,
    })))
}

/// Puts what was set aside behind what waits: for when its topic is there again.
pub(super) async fn retry(operator: Operator, services: web::Data<Services>) -> Result<HttpResponse, Refusal> {
    let desk = desk(&services)?;
    // On the engine: an operator who leaves ends nothing half-way.
    let retried = services.engine.spawn(async move {
        let retried = desk.retry().await;
        retried.inspect(|events| operator.did(What::SpoolRetried, &format!("{events} events")))
    });
    let retried = retried.await.map_err(|error| error.to_string()).flatten().map_err(Refusal::Internal)?;
    Ok(json_of(&json!({ "retried": retried })))
}

pub(super) async fn drop_aside(operator: Operator, services: web::Data<Services>) -> Result<HttpResponse, Refusal> {
    let desk = desk(&services)?;
    let dropped = services.engine.spawn(async move {
        let dropped = desk.drop_aside().await;
        dropped.inspect(|events| operator.did(What::SpoolDropped, &format!("{events} events")))
    });
    let dropped = dropped.await.map_err(|error| error.to_string()).flatten().map_err(Refusal::Internal)?;
    Ok(json_of(&json!({ "dropped": dropped })))
}

fn desk(services: &Services) -> Result<Desk, Refusal> {
    services.intake.spool_desk().ok_or(Refusal::NoSpool)
}

fn shown(aside: &Aside) -> Value {
    json!({
        "topic": aside.topic,
        "reason": aside.reason,
        "accepted": aside.accepted.to_string(),
        "since": aside.since.to_string(),
        "bytes": aside.bytes,
    })
}
