//! What the service says of itself: `GET /openapi.json`, and `GET /?spec`.
//!
//! - this page: [`Specification`], which makes the document when somebody asks, and keeps it for a while
//! - `document.yaml` and `components.yaml` what holds for every server; `document` makes them this server's
//! - `streams` the catalogue's part: a path for each name, with what its events look like
//! - `schemas` from schema titles to what the document has of them, within a time and a number of bytes
//!
//! Knows nothing of who reads it: `doc` does.

mod document;
mod schemas;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::error::Refusal;
use super::{Half, Services};
use crate::catalog::{Catalog, Live};
use crate::schema::Schemas;

/// Bytes of the document. Schemas that would make it larger are left out, and so are paths of single streams.
const DOCUMENT_BYTES_MAX: usize = 4 << 20;
/// How long a document serves, if the catalogue stays: schemas may change, too.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// The same for one that lacks schemas which may be there soon.
const KEPT_WITH_GAPS_FOR: Duration = Duration::from_secs(10);

/// The document of this server. Cheap to clone.
#[derive(Clone)]
pub(super) struct Specification(Arc<Shared>);

struct Shared {
    catalog: Live,
    schemas: Arc<Schemas>,
    engine: Handle,
    served: Vec<Half>,
    kept: ArcSwapOption<Kept>,
    /// Held while a document is made: one at a time.
    turn: Mutex<()>,
}

/// A document, and how long it serves.
#[derive(Debug)]
struct Kept {
    body: Bytes,
    catalog: Arc<Catalog>,
    until: Instant,
}

pub(super) async fn get(request: HttpRequest, specification: web::Data<Specification>) -> HttpResponse {
    answer(&request, &specification).await
}

pub(super) async fn answer(request: &HttpRequest, specification: &Specification) -> HttpResponse {
    match specification.body().await {
        Some(body) => HttpResponse::Ok()
            .insert_header((actix_web::http::header::CACHE_CONTROL, "no-cache"))
            .content_type("application/json; charset=utf-8")
            .body(body),
        None => Refusal::Internal("the document could not be made".into()).answer(request),
    }
}

impl Specification {
    pub(super) fn new(services: &Services, served: &[Half]) -> Self {
        Self::of(services.catalog.clone(), services.schemas.clone(), services.engine.clone(), served)
    }

    fn of(catalog: Live, schemas: Arc<Schemas>, engine: Handle, served: &[Half]) -> Self {
        let (kept, turn) = (ArcSwapOption::empty(), Mutex::new(()));
        Self(Arc::new(Shared { catalog, schemas, engine, served: served.to_vec(), kept, turn }))
    }

    /// The text of the document. `None`: making it failed, which is a fault of ours.
    async fn body(&self) -> Option<Bytes> {
        if let Some(kept) = self.0.kept() {
            return Some(kept.body.clone());
        }
        // On the engine: a client that leaves does not make the next one begin anew.
        let shared = self.0.clone();
        let made = self.0.engine.spawn(async move { shared.make().await });
        made.await.ok()?.map(|kept| kept.body.clone())
    }
}

impl Shared {
    fn kept(&self) -> Option<Arc<Kept>> {
        let kept = self.kept.load_full()?;
        let holds = Instant::now() < kept.until && Arc::ptr_eq(&kept.catalog, &self.catalog.now());
        holds.then_some(kept)
    }

    async fn make(&self) -> Option<Arc<Kept>> {
        let _turn = self.turn.lock().await;
        if let Some(kept) = self.kept() {
            return Some(kept);
        }
        let (catalog, served) = (self.catalog.now(), self.served.clone());
        let found = match served.contains(&Half::Out) {
            true => schemas::find(&catalog, &self.schemas).await,
            false => schemas::Found::default(),
        };
        let keep_for = if found.has_gaps() { KEPT_WITH_GAPS_FOR } else { KEPT_FOR };
        let of = catalog.clone();
        // It takes milliseconds, and more with a large catalogue.
        let write = move || document::write(&of, found, &served, DOCUMENT_BYTES_MAX);
        let body = self.engine.spawn_blocking(write).await.ok()?;
        let kept = Arc::new(Kept { body: body.into(), catalog, until: Instant::now() + keep_for });
        self.kept.store(Some(kept.clone()));
        Some(kept)
    }
}
