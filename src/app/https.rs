//! Whether the public listener speaks HTTPS, and what it shows to who connects.

use tokio_rustls::TlsConnector;

use crate::config::Config;
use crate::metrics as names;
use crate::model::Timestamp;
use crate::tls::{Identity, Tls};

use super::StartError;

/// Cheap to clone; all clones show the same.
#[derive(Clone)]
pub(super) struct Https(Option<Tls>);

impl Https {
    /// As configured; the files are read. Blocks.
    pub(super) fn open(config: &Config) -> Result<Self, StartError> {
        let identity = identity_of(config)?;
        identity.iter().for_each(tell_expiry);
        Ok(Self(identity.map(Tls::new)))
    }

    pub(super) fn is_spoken(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.is_spoken() { "https" } else { "http" }
    }

    pub(super) fn tls(&self) -> Option<Tls> {
        self.0.clone()
    }

    /// For who connects to this very listener.
    pub(super) fn connector(&self) -> Result<Option<TlsConnector>, rustls::Error> {
        self.0.as_ref().map(Tls::connector).transpose()
    }

    /// Whether it is another.
    pub(super) fn show(&self, identity: Identity) -> bool {
        tell_expiry(&identity);
        self.0.as_ref().is_some_and(|tls| tls.replace(identity))
    }
}

/// What is configured, if anything is. Blocks.
pub fn identity_of(config: &Config) -> Result<Option<Identity>, StartError> {
    let read = |(cert, key)| Identity::read(cert, key);
    config.http.tls_files().map(read).transpose().map_err(StartError::Tls)
}

/// An expired one is shown all the same: whoever connects says so, and to show nothing would be no better.
fn tell_expiry(identity: &Identity) {
    let expires = identity.expires();
    if expires <= Timestamp::now().0 / 1_000 {
        tracing::warn!("the certificate of the public listener has expired: clients refuse it; renew it, and reload");
    }
    #[expect(clippy::cast_precision_loss, reason = "whole seconds of thousands of years")]
    metrics::gauge!(names::TLS_EXPIRES).set(expires as f64);
}
