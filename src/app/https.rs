//! Whether the public listener speaks HTTPS, and what it shows to who connects.

use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::config::Config;
use crate::metrics as names;
use crate::model::Timestamp;
use crate::tls::{Identity, Tls, TlsError};

/// Cheap to clone; all clones show the same.
#[derive(Clone)]
pub(super) struct Https(Option<Tls>);

impl Https {
    /// As configured; the files are read. Blocks.
    pub(super) fn open(config: &Config) -> Result<Self, TlsError> {
        let Some((cert, key)) = config.http.tls_files() else { return Ok(Self(None)) };
        let identity = Identity::read(cert, key)?;
        tell_expiry(&identity);
        Ok(Self(Some(Tls::new(identity))))
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.0.is_some() { "https" } else { "http" }
    }

    pub(super) fn acceptor(&self) -> Result<Option<TlsAcceptor>, rustls::Error> {
        self.0.as_ref().map(Tls::acceptor).transpose()
    }

    /// For who connects to this very listener.
    pub(super) fn connector(&self) -> Result<Option<TlsConnector>, rustls::Error> {
        self.0.as_ref().map(Tls::connector).transpose()
    }

    /// What another configuration has shown. None where HTTPS is not spoken, or no longer asked for: that is a restart. Blocks.
    pub(super) fn read_again(&self, config: &Config) -> Result<Option<Identity>, TlsError> {
        let files = config.http.tls_files().filter(|_| self.0.is_some());
        files.map(|(cert, key)| Identity::read(cert, key)).transpose()
    }

    /// Whether it is another.
    pub(super) fn show(&self, identity: Identity) -> bool {
        tell_expiry(&identity);
        self.0.as_ref().is_some_and(|tls| tls.replace(identity))
    }
}

/// An expired one is shown all the same: whoever connects says so, and to show nothing would be no better.
fn tell_expiry(identity: &Identity) {
    let Some(expires) = identity.expires() else { return };
    if expires <= Timestamp::now().0 / 1_000 {
        tracing::warn!("the certificate of the public listener has expired: clients refuse it; renew it, and reload");
    }
    #[expect(clippy::cast_precision_loss, reason = "whole seconds of thousands of years")]
    metrics::gauge!(names::TLS_EXPIRES).set(expires as f64);
}
