//! The catalogue that holds now, and how it changes.

use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::copy::Copy;
use super::refresh::Refresher;
use super::source::Source;
use super::{Catalog, CatalogError, Options, Place};
use crate::fetch::Fetcher;
use crate::metrics as names;

/// The catalogue that holds now. Cheap to clone; swapped whole.
#[derive(Debug, Clone)]
pub struct Live {
    now: Arc<watch::Sender<Arc<Catalog>>>,
    /// None where the source is read once.
    refresher: Option<Arc<Refresher>>,
}

/// The source of the catalogue does not answer, so nobody can say whether it has a stream. Ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stream configuration is unavailable: {0}")]
pub struct Unavailable(pub String);

/// Why there is no catalogue to start with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("catalog.source: {0}")]
    Source(String),
    /// Not a fault of the configuration: the same start may work a moment later.
    #[error("the catalogue at {address} cannot be had, and there is no copy of it from an earlier run: {why}")]
    Away { address: String, why: String },
}

impl Live {
    /// One that never changes.
    pub fn fixed(catalog: Catalog) -> Self {
        metrics::gauge!(names::CATALOG_STREAMS).set(catalog.count() as f64);
        Self { now: Arc::new(watch::Sender::new(Arc::new(catalog))), refresher: None }
    }

    /// What the options say. An address is asked, and then asked again for as long as this lives; while it does not answer
    /// the copy in `folder` holds. Whatever is fetched is fetched on `engine`.
    pub async fn open(options: &Options, folder: &Path, fetcher: Fetcher, engine: &Handle) -> Result<Self, OpenError> {
        let service = options.destination_event_service.as_deref();
        let address = match options.place().map_err(OpenError::Source)? {
            Place::BuiltIn => return Ok(Self::fixed(Catalog::built_in())),
            Place::File(path) => return Ok(Self::fixed(Catalog::from_file(&path, service)?)),
            Place::Address(address) => address,
        };
        let source = Source::new(fetcher, address, service.map(str::to_owned));
        let copy = Copy::new(folder, source.identity());
        let refresher = Refresher::start(source, copy, options, engine).await?;
        Ok(Self { now: refresher.now(), refresher: Some(refresher) })
    }

    pub fn now(&self) -> Arc<Catalog> {
        self.now.borrow().clone()
    }

    /// Wakes at every swap.
    pub fn changes(&self) -> watch::Receiver<Arc<Catalog>> {
        self.now.subscribe()
    }

    /// For somebody who misses a stream: asks the source again, where it may be asked and has not been asked just now.
    /// `Ok` is a catalogue that can be believed when it says that a stream is not there.
    pub async fn look_again(&self) -> Result<Arc<Catalog>, Unavailable> {
        if let Some(refresher) = &self.refresher {
            refresher.look_again().await?;
        }
        Ok(self.now())
    }

    /// Whether it stays as it is until somebody gives it another catalogue: its source is no address.
    pub fn is_fixed(&self) -> bool {
        self.refresher.is_none()
    }

    /// Another catalogue from now on, in place of one that [is fixed](Self::is_fixed). False: nothing changes, because it
    /// is made of the same entries.
    pub fn replace(&self, catalog: Catalog) -> bool {
        if !self.is_fixed() || catalog.is_made_of_the_same(&self.now()) {
            return false;
        }
        metrics::gauge!(names::CATALOG_STREAMS).set(catalog.count() as f64);
        self.now.send_replace(Arc::new(catalog));
        true
    }

    /// For an operator who knows that there is something new: asks the source, where it may be asked, whatever it has said
    /// just now. An answer that is not taken changes nothing.
    pub async fn ask_now(&self) -> Result<(), Unavailable> {
        match &self.refresher {
            Some(refresher) => refresher.ask_now().await,
            None => Ok(()),
        }
    }
}
