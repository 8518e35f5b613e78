//! What Prometheus gets: a text that is made elsewhere, and only written out here.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::refusal::Refusal;

/// The metrics as text: one text for all who ask at about the same time.
pub type Render = Arc<dyn Fn() -> BoxFuture<'static, Result<Bytes, RenderError>> + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    #[error(
        "the metrics could not be rendered: this is a fault in sluice, and its log says where; the next scrape is tried anew"
    )]
    Failed,
    #[error("{0} scrapes wait already: scrape less often, or from fewer places")]
    TooMany(usize),
}

pub(super) async fn get(render: web::Data<Render>) -> Result<HttpResponse, Refusal> {
    let text = render().await?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}

impl From<RenderError> for Refusal {
    fn from(error: RenderError) -> Self {
        match error {
            RenderError::Failed => Self::Internal(error.to_string()),
            RenderError::TooMany(_) => Self::Busy(error.to_string()),
        }
    }
}
