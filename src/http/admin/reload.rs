//! The configuration, read again.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::json;

use super::access::Operator;
use super::note::What;
use super::refusal::Refusal;
use crate::http::Services;
use crate::http::info::json_of;

/// Reads the configuration again, and swaps what can change. `Err`: all that is wrong, and nothing has changed. It goes on
/// to its end also if nobody waits for it.
pub type Reload = Arc<dyn Fn() -> BoxFuture<'static, Result<Reloaded, Vec<String>>> + Send + Sync>;

/// What a reload has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// Keys that have another value now.
    pub changed: Vec<String>,
    /// Keys whose new value waits for a restart.
    pub needs_restart: Vec<String>,
    pub catalog: CatalogBecame,
    /// Why the address that the catalogue comes from has brought nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog_fault: Option<String>,
}

/// What a reload has done to the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CatalogBecame {
    /// The file's, which is another one now.
    Reread,
    /// What its address has just answered, which is another one now.
    Refreshed,
    Unchanged,
}

/// It goes on to its end, and is noted, also if nobody waits for it.
pub(super) async fn post(
    operator: Operator,
    reload: web::Data<Reload>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Refusal> {
    let reload = reload();
    let noted = services.engine.spawn(async move {
        let done = reload.await.map_err(Refusal::Reload)?;
        let changed = if done.changed.is_empty() { "nothing".to_owned() } else { done.changed.join(", ") };
        operator.did(What::Reload, &changed);
        Ok(json!(done))
    });
    let done = noted.await.unwrap_or_else(|failed| Err(Refusal::Internal(failed.to_string())))?;
    Ok(json_of(&done))
}
