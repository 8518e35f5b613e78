//! HTTPS on the public listener: what is promised over HTTP, through TLS, and a certificate that is renewed.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::raw::{Raw, Stream};
use crate::server::{Options, Server, sluice};
use crate::support::{PATIENCE, eventually};

const STREAM: &str = "/v2/stream/test.event";
const EVENTS: i64 = 64;
/// Together more than sockets, TLS and the tunnel take on their way.
const EVENT_BYTES: usize = 200_000;
/// In which they expire.
const YEAR: i32 = 2100;
/// The first second of the year 2101.
const EXPIRES: f64 = 4_133_980_800.0;

/// Two files, which are rewritten where the certificate is renewed.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> (Self, CertificateDer<'static>) {
        let files = Self { folder: tempfile::tempdir().expect("a folder") };
        let shown = files.renew(YEAR);
        (files, shown)
    }

    /// Another certificate, which expires when this year begins, and its key.
    fn renew(&self, year: i32) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("a key");
        let cert = params(year).self_signed(&key).expect("a certificate");
        self.write(&cert.pem(), &key);
        cert.der().clone()
    }

    /// One that another vouches for, for which the one that is brought vouches.
    fn renew_with_a_chain(&self) -> CertificateDer<'static> {
        let [root_key, middle_key, key] = [(); 3].map(|()| KeyPair::generate().expect("a key"));
        let ca = |name: &str| {
            let mut params = CertificateParams::new([]).expect("no names");
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
        };
        let (root, middle) = (ca("root"), ca("middle"));
        let root_cert = root.self_signed(&root_key).expect("a certificate");
        let root = Issuer::new(root, root_key);
        let middle_cert = middle.signed_by(&middle_key, &root).expect("a certificate");
        let middle = Issuer::new(middle, middle_key);
        let cert = params(YEAR).signed_by(&key, &middle).expect("a certificate");
        self.write(&(cert.pem() + &middle_cert.pem()), &key);
        root_cert.der().clone()
    }

    fn write(&self, cert: &str, key: &KeyPair) {
        fs::write(self.path("cert.pem"), cert).expect("the folder can be written");
        fs::write(self.path("key.pem"), key.serialize_pem()).expect("the folder can be written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The section of the configuration that names two of the files.
    fn section(&self, cert: &str, key: &str) -> String {
        let (cert, key) = (self.path(cert), self.path(key));
        format!("[http]\ntls_cert = '{}'\ntls_key = '{}'\n", cert.display(), key.display())
    }

    fn options(&self) -> Options {
        // Who waits for it has to speak TLS.
        Options::default().config(&self.section("cert.pem", "key.pem")).unready()
    }
}

fn params(year: i32) -> CertificateParams {
    let mut params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("names");
    params.not_after = date_time_ymd(year, 1, 1);
    params
}

/// Speaks TLS to the server for who speaks to it in plain bytes.
struct Tunnel {
    address: SocketAddr,
    /// Connections that the server has ended without saying so.
    cut: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Tunnel {
    async fn to(server: SocketAddr, shown: &CertificateDer<'static>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let cut = Arc::new(AtomicUsize::new(0));
        let (connector, cuts) = (trusting(shown), cut.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let (connector, cuts) = (connector.clone(), cuts.clone());
                connections.spawn(async move {
                    let mut far = shake_hands(connector, server, "").await.expect("a connection with TLS");
                    let ended = copy_bidirectional(&mut near, &mut far).await;
                    if ended.is_err_and(|fault| fault.kind() == io::ErrorKind::UnexpectedEof) {
                        cuts.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self { address, cut, _task: task }
    }
}

/// Believes this one certificate.
fn trusting(shown: &CertificateDer<'static>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(shown.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
    // As browsers offer it.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// `first` goes out before TLS begins.
async fn shake_hands(connector: TlsConnector, server: SocketAddr, first: &str) -> io::Result<TlsStream<TcpStream>> {
    let mut io = TcpStream::connect(server).await?;
    io.write_all(first.as_bytes()).await?;
    connector.connect(ServerName::from(server.ip()), io).await
}

/// A server that is ready, and what leads to it: its `address` is the tunnel's from now on.
async fn started(options: Options, shown: &CertificateDer<'static>) -> (Server, SocketAddr, Tunnel) {
    let mut server = Server::start(options).await;
    let behind = server.address;
    let tunnel = Tunnel::to(behind, shown).await;
    server.address = tunnel.address;
    server.until_ready().await;
    (server, behind, tunnel)
}

fn event(number: i64, bytes: usize) -> serde_json::Value {
    let test = "x".repeat(bytes);
    json!({"$schema": "/test/event/1.0.0", "meta": {"stream": "test.event"}, "test": test, "number": number})
}

async fn is_well(server: &Server) -> bool {
    eventually(PATIENCE, async || server.get("/health").await.status() == 200).await
}

#[tokio::test]
async fn events_go_in_and_out_through_tls_and_so_does_the_canary() {
    let (files, shown) = Files::new();
    let (mut server, behind, tunnel) = started(files.options(), &shown).await;
    assert!(server.stdout().contains(&format!("\nsluice listening on https://{behind}\n")), "{}", server.stdout());
    assert!(server.stdout().contains(&format!("curl -N https://{behind}/v2/")), "{}", server.stdout());
    let mut live = server.stream(STREAM, "").await;
    server.put(&event(0, 10)).await;
    let first = live.event().await;
    assert_eq!(first.json()["number"], 0);
    server.put(&event(1, 10)).await;
    assert_eq!(live.event().await.json()["number"], 1);
    let mut resumed = server.stream(STREAM, &format!("Last-Event-ID: {}\r\n", first.id)).await;
    assert_eq!(resumed.event().await.json()["number"], 1);
    assert!(is_well(&server).await, "{:?}", server.get("/health").await);

    assert_eq!(server.stop().await.code(), Some(0));
    for reader in [&mut live, &mut resumed] {
        assert_eq!(reader.event_or_end().await, None);
    }
    assert_eq!(tunnel.cut.load(Ordering::Relaxed), 0, "every connection was ended with a word");
}

#[tokio::test]
async fn a_reader_that_reads_late_and_slowly_gets_everything_once() {
    let (files, shown) = Files::new();
    let (server, _, _tunnel) = started(files.options(), &shown).await;
    let raw = Raw::with_receive_buffer(server.address, Some(4_096)).await;
    let mut late = Stream::open_on(raw, STREAM, "").await;
    let mut raw = server.connect().await;
    for number in 0..EVENTS {
        assert_eq!(raw.post(&event(number, EVENT_BYTES).to_string()).await.status(), 201);
    }
    let seen = late.numbers_until(|seen| seen.len() == usize::try_from(EVENTS).expect("few")).await;
    assert_eq!(seen, Vec::from_iter(0..EVENTS));
}

#[tokio::test]
async fn who_speaks_plain_http_is_told_to_speak_https() {
    let (files, shown) = Files::new();
    let (_server, behind, _tunnel) = started(files.options(), &shown).await;
    let mut raw = Raw::connect(behind).await;
    raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let told = String::from_utf8(raw.rest().await).expect("UTF-8");
    assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("ask again with https://"), "{told}");
    // What is neither is closed.
    let mut raw = Raw::connect(behind).await;
    raw.send([22, 255, 255, 0, 1, 0]).await;
    assert!(raw.is_closed().await);
}

#[tokio::test]
async fn a_balancer_says_who_is_asking_before_tls_begins() {
    let (files, shown) = Files::new();
    let options = files.options().env("SLUICE__LIMITS__CLIENT_IP_HEADER", "proxy-protocol");
    let options =
        options.env("SLUICE__LIMITS__TRUSTED_PROXIES", "127.0.0.1").env("SLUICE__LIMITS__STREAMS_PER_CLIENT", "1");
    let (server, behind, _tunnel) = started(options, &shown).await;
    assert!(is_well(&server).await, "the canary says it, too: {:?}", server.get("/health").await);
    let mut held = Vec::new();
    for (client, status) in [("192.0.2.1", "200"), ("192.0.2.2", "200"), ("192.0.2.2", "429")] {
        let line = format!("PROXY TCP4 {client} 127.0.0.1 4711 443\r\n");
        let mut io = shake_hands(trusting(&shown), behind, &line).await.expect("a connection with TLS");
        let ask = format!("GET {STREAM} HTTP/1.1\r\nHost: x\r\nAccept: application/x-ndjson\r\n\r\n");
        io.write_all(ask.as_bytes()).await.expect("written");
        let mut answer = [0; 12];
        tokio::io::AsyncReadExt::read_exact(&mut io, &mut answer).await.expect("an answer");
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"), "{client}");
        held.push(io);
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_after_a_reload_and_open_streams_go_on() {
    let (files, first) = Files::new();
    let (server, behind, _tunnel) = started(files.options(), &first).await;
    let mut open = server.stream(STREAM, "").await;
    let is_shown =
        async |certificate: &CertificateDer<'static>| shake_hands(trusting(certificate), behind, "").await.is_ok();

    let second = files.renew(YEAR + 1);
    assert!(is_shown(&first).await && !is_shown(&second).await, "nothing is read again by itself");
    let answer = server.ask_admin("POST", "/reload", "").await;
    assert_eq!((answer.status(), &answer.json()["changed"]), (200, &json!(["http.tls_cert"])), "{answer:?}");
    assert!(is_shown(&second).await && !is_shown(&first).await);
    assert_eq!(server.metric("sluice_tls_certificate_expires_seconds").await, EXPIRES);

    // Half a renewal: the key is another's. Refused whole, and what was shown stays.
    fs::write(files.path("key.pem"), KeyPair::generate().expect("a key").serialize_pem())
        .expect("the folder can be written");
    let answer = server.ask_admin("POST", "/reload", "").await;
    let why = answer.text();
    assert!(answer.status() == 422 && why.contains("cert.pem") && why.contains("is not that of the key"), "{answer:?}");
    assert!(is_shown(&second).await);

    let third = files.renew(YEAR);
    server.signal(Signal::HUP);
    assert!(eventually(PATIENCE, async || is_shown(&third).await).await, "{}", server.stderr());
    let through = Tunnel::to(behind, &third).await;
    assert_eq!(Raw::connect(through.address).await.post(&event(7, 10).to_string()).await.status(), 201);
    assert_eq!(open.event().await.json()["number"], 7);
    let well =
        eventually(PATIENCE, async || Raw::connect(through.address).await.get("/health", "").await.status() == 200);
    assert!(well.await, "the canary believes the one that is shown");
}

#[test]
fn files_that_cannot_be_served_are_named_before_anything_opens() {
    let (files, _) = Files::new();
    let other = KeyPair::generate().expect("a key");
    fs::write(files.path("other.pem"), other.serialize_pem()).expect("a file");
    fs::write(files.path("empty.pem"), "").expect("a file");
    fs::write(files.path("damaged.pem"), "-----BEGIN CERTIFICATE-----\n????\n").expect("a file");
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    fs::write(files.path("encrypted.pem"), encrypted).expect("a file");
    let good = fs::read_to_string(files.path("cert.pem")).expect("a file");
    let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(files.path("junk.pem"), good.clone() + junk).expect("a file");
    fs::write(files.path("many.pem"), good.repeat(11)).expect("a file");
    fs::write(files.path("huge.pem"), "x".repeat((1 << 20) + 1)).expect("a file");
    let made = Command::new("mkfifo").arg(files.path("pipe.pem")).status().expect("it runs");
    assert!(made.success());
    for (cert, key, said) in [
        ("pipe.pem", "key.pem", "pipe.pem: it cannot be read: it is no file"),
        ("huge.pem", "key.pem", "huge.pem: it cannot be read: it holds more than"),
        ("junk.pem", "key.pem", "junk.pem: number 2 in it is no certificate"),
        ("many.pem", "key.pem", "many.pem: there are more than 10 certificates in it"),
        ("cert.pem", "encrypted.pem", "encrypted.pem: the key in it is encrypted"),
        ("none.pem", "key.pem", "none.pem: it cannot be read"),
        ("cert.pem", "none.pem", "none.pem: it cannot be read"),
        ("empty.pem", "key.pem", "empty.pem: there is no certificate in it"),
        ("cert.pem", "cert.pem", "cert.pem: there is no private key in it"),
        ("damaged.pem", "key.pem", "damaged.pem: it is damaged"),
        ("cert.pem", "other.pem", "the first certificate in it is not that of the key in"),
        ("cert.pem", "", "http.tls_key: not given, and http.tls_cert is"),
        ("", "key.pem", "http.tls_cert: not given, and http.tls_key is"),
    ] {
        let mut command: Command = sluice();
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]).arg(files.path("data"));
        for (name, file) in [("CERT", cert), ("KEY", key)] {
            if !file.is_empty() {
                command.env(format!("SLUICE__HTTP__TLS_{name}"), files.path(file));
            }
        }
        let output = command.output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{cert} {key}: {stderr}");
        let lines: Vec<&str> = stderr.lines().collect();
        assert!(
            lines.len() == 1 && lines[0].contains(said) && lines[0].contains("http.tls_"),
            "{cert} {key}: {stderr}"
        );
        assert!(!String::from_utf8_lossy(&output.stdout).contains("listening"));
        if !cert.is_empty() && !key.is_empty() {
            let file = files.path("sluice.toml");
            fs::write(&file, files.section(cert, key)).expect("a file");
            let output = sluice().args(["config", "check"]).arg(&file).output().expect("it runs");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(2) && stderr.contains(said), "{cert} {key}: {stderr}");
        }
    }
}

#[tokio::test]
async fn those_that_vouch_for_the_certificate_are_shown_with_it() {
    let (files, _) = Files::new();
    let root = files.renew_with_a_chain();
    let (server, _, _tunnel) = started(files.options(), &root).await;
    assert!(is_well(&server).await, "{:?}", server.get("/health").await);
}

#[tokio::test]
async fn other_files_are_a_reload_and_to_begin_or_end_with_https_is_a_restart() {
    let (files, shown) = Files::new();
    for name in ["cert", "key"] {
        fs::copy(files.path(&format!("{name}.pem")), files.path(&format!("{name}2.pem"))).expect("a file");
    }
    let reload = async |server: &Server, section: &str| {
        server.rewrite("sluice.toml", section);
        server.ask_admin("POST", "/reload", "").await
    };
    let (server, _, _tunnel) = started(files.options(), &shown).await;
    let answer = reload(&server, &files.section("cert2.pem", "key2.pem")).await;
    assert_eq!((answer.status(), &answer.json()["needs_restart"]), (200, &json!([])), "{answer:?}");
    let answer = reload(&server, "").await;
    assert_eq!(answer.json()["needs_restart"], json!(["http.tls_cert", "http.tls_key"]), "{answer:?}");
    assert!(is_well(&server).await, "what is shown stays");

    let server = Server::start(Options::default().config("")).await;
    let answer = reload(&server, &files.section("cert.pem", "key.pem")).await;
    assert_eq!(answer.json()["needs_restart"], json!(["http.tls_cert", "http.tls_key"]), "{answer:?}");
    let answer = reload(&server, &files.section("none.pem", "key.pem")).await;
    assert!(answer.status() == 422 && answer.text().contains("none.pem"), "the restart would fail: {answer:?}");
    assert_eq!(server.get("/healthz").await.status(), 200);
}

#[tokio::test]
async fn an_expired_certificate_is_told_and_does_not_flow() {
    let (files, _) = Files::new();
    let shown = files.renew(2001);
    let options = files.options().env("SLUICE__HEALTH__CANARY_EVERY", "250ms").env("SLUICE__HEALTH__STALL_AFTER", "1s");
    let server = Server::start(options).await;
    assert!(server.stderr().contains("has expired"), "{}", server.stderr());
    assert!(server.metric("sluice_tls_certificate_expires_seconds").await > 0.0);
    let verdict = async || Raw::connect(server.admin).await.get("/health", "").await;
    let stalled = eventually(PATIENCE, async || {
        let answer = verdict().await;
        answer.status() == 503 && answer.text().contains("xpired")
    });
    assert!(stalled.await, "{:?}", verdict().await);
    assert!(shake_hands(trusting(&shown), server.address, "").await.is_err(), "as everybody else has it");
    assert!(
        eventually(PATIENCE, async || server.metric_of("sluice_tls_handshakes_total", "distrusted").await >= 1.0).await
    );
}

#[tokio::test]
async fn a_client_that_closes_without_a_word_has_left() {
    let (files, shown) = Files::new();
    let (server, behind, _tunnel) = started(files.options(), &shown).await;
    let mut io = shake_hands(trusting(&shown), behind, "").await.expect("a connection with TLS");
    io.write_all(format!("GET {STREAM} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.expect("written");
    tokio::io::AsyncReadExt::read_u8(&mut io).await.expect("an answer");
    drop(io.into_inner().0);
    let left = eventually(PATIENCE, async || server.metric_of("sluice_streams_closed_total", "left").await >= 1.0);
    assert!(left.await, "{}", server.stderr());
}

#[tokio::test]
async fn the_probe_from_outside_knows_https_and_does_not_believe_a_stranger() {
    let (files, shown) = Files::new();
    let (server, behind, _tunnel) = started(files.options(), &shown).await;
    assert!(is_well(&server).await);
    let check = async |trusted: &str| {
        let mut command = tokio::process::Command::from(sluice());
        command
            .args(["check", &format!("https://{behind}"), "--stream", "test.event"])
            .env("SSL_CERT_FILE", files.path(trusted));
        let output = command.kill_on_drop(true).output().await.expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    server.put(&event(0, 10)).await;
    let mut last = (None, String::new());
    let ok = eventually(PATIENCE, async || {
        last = check("cert.pem").await;
        last.0 == Some(0)
    });
    assert!(ok.await, "{last:?}");
    let stranger = params(YEAR).self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
    fs::write(files.path("stranger.pem"), stranger.pem()).expect("a file");
    let (code, said) = check("stranger.pem").await;
    assert!(code == Some(2) && said.to_lowercase().contains("certificate"), "{said}");
}
