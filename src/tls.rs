//! TLS of the public listener: one certificate and its key, in place of which others can be put while it serves.
//!
//! Knows no HTTP and no configuration: paths come in, an acceptor and a connector come out.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, InconsistentKeys, ServerConfig, SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What is spoken inside: a stream's socket leaves the HTTP server, which no connection of HTTP/2 can.
const ALPN: &[u8] = b"http/1.1";

/// Why a certificate cannot be served. Each names the file and the cure.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: it cannot be read: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error("{}: there is no {what} in it: PEM is wanted, with a line -----BEGIN {}-----", path.display(), what.to_uppercase())]
    Missing { path: PathBuf, what: &'static str },
    #[error("{}: it is damaged: {cause}", path.display())]
    Damaged { path: PathBuf, cause: pem::Error },
    #[error("{}: the first certificate in it is not that of the key in {}", cert.display(), key.display())]
    Strangers { cert: PathBuf, key: PathBuf },
    #[error("{}: it cannot be served with the key in {}: {cause}", cert.display(), key.display())]
    Unusable { cert: PathBuf, key: PathBuf, cause: Error },
}

/// A certificate, those that vouch for it, and its key: read, and known to belong together.
#[derive(Clone, Debug)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// Both files are PEM; the certificate comes first, then those that vouch for it. Blocks.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes_of(cert)?)
            .collect::<Result<_, _>>()
            .map_err(|e| fault(cert, "certificate", e))?;
        if chain.is_empty() {
            return Err(TlsError::Missing { path: cert.into(), what: "certificate" });
        }
        let secret = PrivateKeyDer::from_pem_slice(&bytes_of(key)?).map_err(|e| fault(key, "private key", e))?;
        let certified = CertifiedKey::from_der(chain, secret, &ring::default_provider());
        certified.map(|certified| Self(Arc::new(certified))).map_err(|cause| match cause {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Strangers { cert: cert.into(), key: key.into() }
            }
            cause => TlsError::Unusable { cert: cert.into(), key: key.into(), cause },
        })
    }
}

impl Identity {
    /// When the certificate expires, in seconds since 1970; none if it does not say so in a way that can be read.
    pub fn expires(&self) -> Option<i64> {
        let (_, parsed) = x509_parser::parse_x509_certificate(self.0.cert.first()?).ok()?;
        Some(parsed.validity().not_after.timestamp())
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|cause| TlsError::Unreadable { path: path.into(), cause })
}

fn fault(path: &Path, what: &'static str, cause: pem::Error) -> TlsError {
    match cause {
        pem::Error::NoItemsFound => TlsError::Missing { path: path.into(), what },
        cause => TlsError::Damaged { path: path.into(), cause },
    }
}

/// What the public listener shows to who connects. Cheap to clone; all clones show the same.
#[derive(Clone, Debug)]
pub struct Tls(Arc<Shown>);

#[derive(Debug)]
struct Shown(ArcSwap<CertifiedKey>);

impl Tls {
    pub fn new(identity: Identity) -> Self {
        Self(Arc::new(Shown(ArcSwap::new(identity.0))))
    }

    /// What is shown now.
    pub fn identity(&self) -> Identity {
        Identity(self.0.0.load_full())
    }

    /// Whoever connects from now on is shown this one. Whether it is another.
    pub fn replace(&self, identity: Identity) -> bool {
        let is_another = self.identity() != identity;
        self.0.0.store(identity.0);
        is_another
    }

    /// For a listener.
    pub fn acceptor(&self) -> Result<TlsAcceptor, Error> {
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let mut config = config.with_no_client_auth().with_cert_resolver(self.0.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// For who connects to this very listener, and knows what it shows: whatever name it was made for, and by whom.
    pub fn connector(&self) -> Result<TlsConnector, Error> {
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let own = Arc::new(Own { shown: self.0.clone(), provider: provider() });
        let mut config = config.dangerous().with_custom_certificate_verifier(own).with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Each connection proves the whole handshake.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Believes the one certificate that this listener shows, and no other.
struct Own {
    shown: Arc<Shown>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Own")
    }
}

impl ServerCertVerifier for Own {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.shown.0.load().cert.first() {
            Some(own) if own == end_entity => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// One that nobody vouches for.
    pub(crate) fn identity() -> Identity {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let secret = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let certified = CertifiedKey::from_der(vec![made.cert.der().clone()], secret, &ring::default_provider());
        Identity(Arc::new(certified.expect("a certificate and its key")))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::testing::identity;
    use super::*;

    async fn meets(server: &Tls, client: &Tls) -> bool {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (acceptor, connector) = (server.acceptor().expect("an acceptor"), client.connector().expect("a connector"));
        let name = IpAddr::from(Ipv4Addr::LOCALHOST).into();
        let (shown, seen) = tokio::join!(acceptor.accept(far), connector.connect(name, near));
        shown.is_ok() && seen.is_ok()
    }

    #[tokio::test]
    async fn who_connects_to_its_own_listener_believes_what_that_shows_now_and_nothing_else() {
        let (own, other) = (Tls::new(identity()), Tls::new(identity()));
        assert!(meets(&own, &own).await);
        assert!(!meets(&other, &own).await);
        let renewed = identity();
        assert!(own.replace(renewed.clone()), "it is another");
        assert!(!own.replace(renewed), "it is the same");
        assert!(meets(&own, &own).await);
    }
}
