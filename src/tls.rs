//! TLS of the public listener: one certificate and its key, in place of which others can be put while it serves.
//!
//! Knows no HTTP and no configuration: paths come in, an acceptor and a connector come out.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use memchr::memmem;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, InconsistentKeys, ServerConfig, SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::certificate::Validity;
use x509_parser::time::ASN1Time;

use crate::disk;

/// What is spoken inside: a stream's socket leaves the HTTP server, which no connection of HTTP/2 can.
const ALPN: &[u8] = b"http/1.1";
/// No file with a chain or a key comes near it.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// More than anybody has; and clients refuse a chain of more than some 100 KB.
const CHAIN_MAX: usize = 10;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why a certificate cannot be served. Each names the file and the cure.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: it cannot be read: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error("{}: there is no {what} in it: PEM is wanted, with a line -----BEGIN {}-----", path.display(), what.to_uppercase())]
    Missing { path: PathBuf, what: &'static str },
    #[error("{}: it is damaged: {cause}", path.display())]
    Damaged { path: PathBuf, cause: pem::Error },
    #[error("{}: the key in it is encrypted, and nobody is asked for a passphrase: decrypt it with openssl pkey", path.display())]
    Encrypted { path: PathBuf },
    #[error("{}: number {number} in it is no certificate", path.display())]
    NotOne { path: PathBuf, number: usize },
    #[error("{}: there are more than {CHAIN_MAX} certificates in it: it is to hold the listener's and those that vouch for it", path.display())]
    TooMany { path: PathBuf },
    #[error("{}: the first certificate in it is not that of the key in {}", cert.display(), key.display())]
    Strangers { cert: PathBuf, key: PathBuf },
    #[error(
        "{}: it cannot be served with the key in {}: {cause}; keys are RSA of 2048 bits or more, ECDSA on P-256 or P-384, or Ed25519",
        cert.display(), key.display()
    )]
    Unusable { cert: PathBuf, key: PathBuf, cause: Error },
}

/// A certificate, those that vouch for it, and its key: read, and known to belong together.
#[derive(Clone, Debug)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    /// Of its own, and with it the sessions that clients may resume: none outlives it.
    config: Arc<ServerConfig>,
    validity: Validity,
}

impl Identity {
    /// Both files are PEM; the certificate comes first, then those that vouch for it. Blocks.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes_of(cert)?).collect();
        let chain = chain.map_err(|cause| fault(cert, "certificate", cause))?;
        match chain.len() {
            0 => return Err(TlsError::Missing { path: cert.into(), what: "certificate" }),
            1..=CHAIN_MAX => {}
            _ => return Err(TlsError::TooMany { path: cert.into() }),
        }
        let is_one = |der: &CertificateDer<'_>| x509_parser::parse_x509_certificate(der).is_ok();
        if let Some(at) = chain.iter().position(|der| !is_one(der)) {
            return Err(TlsError::NotOne { path: cert.into(), number: at + 1 });
        }
        let secret = bytes_of(key)?;
        if memmem::find(&secret, b"ENCRYPTED").is_some() {
            return Err(TlsError::Encrypted { path: key.into() });
        }
        let secret = PrivateKeyDer::from_pem_slice(&secret).map_err(|cause| fault(key, "private key", cause))?;
        let certified = CertifiedKey::from_der(chain, secret, &ring::default_provider());
        certified.and_then(Self::new).map_err(|cause| match cause {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Strangers { cert: cert.into(), key: key.into() }
            }
            cause => TlsError::Unusable { cert: cert.into(), key: key.into(), cause },
        })
    }

    fn new(certified: CertifiedKey) -> Result<Self, Error> {
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let resolver = SingleCertAndKey::from(certified.clone());
        let mut config = config.with_no_client_auth().with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![ALPN.to_vec()];
        let (_, parsed) = x509_parser::parse_x509_certificate(certified.end_entity_cert()?)
            .map_err(|_| CertificateError::BadEncoding)?;
        let validity = parsed.validity().clone();
        Ok(Self { certified: Arc::new(certified), config: Arc::new(config), validity })
    }

    /// When the certificate expires, in seconds since 1970.
    pub fn expires(&self) -> i64 {
        self.validity.not_after.timestamp()
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert
    }
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes =
        disk::read_file(path, FILE_BYTES_MAX).map_err(|cause| TlsError::Unreadable { path: path.into(), cause })?;
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(bytes)
}

fn fault(path: &Path, what: &'static str, cause: pem::Error) -> TlsError {
    match cause {
        pem::Error::NoItemsFound => TlsError::Missing { path: path.into(), what },
        cause => TlsError::Damaged { path: path.into(), cause },
    }
}

/// What the public listener shows to who connects. Cheap to clone; all clones show the same.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ArcSwap<Identity>>);

impl Tls {
    pub fn new(identity: Identity) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(identity)))
    }

    /// Whoever connects from now on is shown this one. Whether it is another.
    pub fn replace(&self, identity: Identity) -> bool {
        let is_another = **self.0.load() != identity;
        if is_another {
            self.0.store(Arc::new(identity));
        }
        is_another
    }

    /// For the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.load().config.clone())
    }

    /// For who connects to this very listener, and knows what it shows: whatever name it was made for, and by whom.
    pub fn connector(&self) -> Result<TlsConnector, Error> {
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let own = Arc::new(Own { shown: self.clone(), provider: provider() });
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

/// Believes the one certificate that this listener shows, for as long as it is valid: others refuse it then.
#[derive(Debug)]
struct Own {
    shown: Tls,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Own {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = self.shown.0.load();
        if shown.certified.cert.first() != Some(end_entity) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        let now = i64::try_from(now.as_secs()).ok().and_then(|now| ASN1Time::from_timestamp(now).ok());
        match now {
            Some(now) if now < shown.validity.not_before => Err(CertificateError::NotValidYet.into()),
            Some(now) if now > shown.validity.not_after => Err(CertificateError::Expired.into()),
            _ => Ok(ServerCertVerified::assertion()),
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
    use rcgen::CertificateParams;

    use super::*;

    /// One that nobody vouches for.
    pub(crate) fn identity() -> Identity {
        identity_until(4000)
    }

    /// Valid from 1975 to the beginning of this year.
    pub(super) fn identity_until(year: i32) -> Identity {
        let key = rcgen::KeyPair::generate().expect("a key");
        of(&certificate(&key, year), &key).expect("they belong together")
    }

    pub(super) fn certificate(key: &rcgen::KeyPair, until: i32) -> rcgen::Certificate {
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params.self_signed(key).expect("a certificate")
    }

    pub(super) fn of(certificate: &rcgen::Certificate, key: &rcgen::KeyPair) -> Result<Identity, Error> {
        let secret = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let secret = ring::sign::any_supported_type(&secret).expect("a key");
        Identity::new(CertifiedKey::new(vec![certificate.der().clone()], secret))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use rustls::HandshakeKind;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio_rustls::client::TlsStream;

    use super::testing::{certificate, identity, identity_until, of};
    use super::*;

    /// Says a byte, so that the client has all that the handshake brings.
    async fn connect(server: &Tls, connector: &TlsConnector) -> io::Result<TlsStream<DuplexStream>> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let name = IpAddr::from(Ipv4Addr::LOCALHOST).into();
        let (shown, seen) = tokio::join!(server.acceptor().accept(far), connector.connect(name, near));
        let mut seen = seen?;
        let mut shown = shown?;
        let (_, read) = tokio::join!(shown.write_all(b"x"), seen.read_u8());
        read.map(|_| seen)
    }

    async fn meets(server: &Tls, client: &Tls) -> bool {
        connect(server, &client.connector().expect("a connector")).await.is_ok()
    }

    /// As others are, but for what they believe.
    fn stranger(own: &Tls, protocols: &[&str]) -> TlsConnector {
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let own = Own { shown: own.clone(), provider: provider() };
        let config = config.expect("versions").dangerous().with_custom_certificate_verifier(Arc::new(own));
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
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
        let expired = Tls::new(identity_until(2000));
        assert!(!meets(&expired, &expired).await, "nobody else would believe it");
    }

    #[tokio::test]
    async fn who_shows_a_certificate_and_has_not_its_key_is_not_believed() {
        let (key, other) = [(); 2].map(|()| rcgen::KeyPair::generate().expect("a key")).into();
        let shown = certificate(&key, 4000);
        let own = Tls::new(of(&shown, &key).expect("they belong together"));
        let thief = Tls::new(of(&shown, &other).expect("nobody looks here"));
        assert!(meets(&own, &own).await);
        assert!(!meets(&thief, &own).await);
    }

    #[tokio::test]
    async fn http_1_1_is_spoken_with_who_can_and_nothing_with_who_cannot() {
        let own = Tls::new(identity());
        let both = connect(&own, &stranger(&own, &["h2", "http/1.1"])).await.expect("a connection");
        assert_eq!(both.get_ref().1.alpn_protocol(), Some(ALPN));
        assert!(connect(&own, &stranger(&own, &["h2"])).await.is_err());
        assert!(connect(&own, &stranger(&own, &[])).await.is_ok(), "who does not say takes it");
    }

    #[tokio::test]
    async fn no_session_outlives_the_certificate_that_it_began_with() {
        let own = Tls::new(identity());
        let client = stranger(&own, &["http/1.1"]);
        let mut kinds = Vec::new();
        for renews in [false, false, true, false] {
            if renews {
                own.replace(identity());
            }
            let met = connect(&own, &client).await.expect("a connection");
            kinds.push(met.get_ref().1.handshake_kind());
        }
        let (full, resumed) = (Some(HandshakeKind::Full), Some(HandshakeKind::Resumed));
        assert_eq!(kinds, [full, resumed, full, resumed]);
    }
}
