//! Who is asking, and who comes in at all: what proxies say, what others say, and what neither can get by it.

use std::net::Ipv4Addr;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use crate::raw::{Answer, Raw, Stream};
use crate::server::{Options, Server};
use crate::support::{PATIENCE, eventually};

const PROXY: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 1);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 8, 0, 1);
const JSON: &str = "Content-Type: application/json\r\n";
const EVENT: &str = r#"{"$schema":"/web/1.0.0","meta":{"stream":"web"}}"#;
const PATH: &str = "/v2/stream/web";
/// From where, which headers, and who is meant to be seen.
type Case = (Ipv4Addr, &'static str, &'static str);
/// The start of every PROXY header of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A server whose events say whom they come from; and, of a stream, what it has seen.
struct Seeing {
    server: Server,
    stream: Stream,
    _schemas: TempDir,
}

impl Seeing {
    /// 127.9.0.0/16 are proxies, and speak in this header.
    async fn start(header: &str, set: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let schema =
            "title: web\ntype: object\nproperties:\n  http: {type: object, properties: {client_ip: {type: string}}}";
        std::fs::create_dir(folder.path().join("web")).expect("a folder");
        std::fs::write(folder.path().join("web/1.0.0.yaml"), schema).expect("a file");
        let options = Options::default()
            .streams("web: {schema_title: web, topics: [web]}")
            .env("SLUICE__SCHEMA__BASES", &folder.path().display().to_string())
            .env("SLUICE__LIMITS__TRUSTED_PROXIES", "127.9.0.0/16,2001:db8:f::/48")
            .env("SLUICE__LIMITS__CLIENT_IP_HEADER", header);
        let options = set.iter().fold(options, |options, (key, value)| options.env(key, value));
        let server = Server::start(options).await;
        let stream = server.stream(PATH, "").await;
        Self { server, stream, _schemas: folder }
    }

    async fn connect(&self, from: Ipv4Addr) -> Raw {
        Raw::from(from, self.server.address).await
    }

    /// Whom an event comes from that is posted like this. `headers` are whole lines.
    async fn of_post(&mut self, raw: &mut Raw, headers: &str) -> String {
        let answer = raw.post_as(&format!("{JSON}{headers}"), EVENT.as_bytes()).await;
        assert_eq!(answer.status(), 201, "{headers}: {answer:?}");
        let event = self.stream.event().await;
        let event: Value = serde_json::from_str(&event.data).expect("JSON");
        event["http"]["client_ip"].as_str().expect("an address").to_owned()
    }

    async fn of(&mut self, from: Ipv4Addr, headers: &str) -> String {
        let mut raw = self.connect(from).await;
        self.of_post(&mut raw, headers).await
    }
}

fn assert_unreadable(answer: &Answer, names: &str) {
    assert_eq!(answer.status(), 400, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let problem = answer.json();
    assert_eq!(problem["type"], "bad_request");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(names)), "{problem}");
}

#[tokio::test]
async fn x_forwarded_for_is_believed_of_proxies_and_of_nobody_else() {
    let mut seeing = Seeing::start("x-forwarded-for", &[]).await;
    let table = [
        (STRANGER, "", "127.8.0.1"),
        (STRANGER, "X-Forwarded-For: 198.51.100.7\r\n", "127.8.0.1"),
        (STRANGER, "X-Forwarded-For: garbage\r\nForwarded: for=\"\r\nX-Client-IP: 198.51.100.7\r\n", "127.8.0.1"),
        (PROXY, "", "127.9.0.1"),
        (PROXY, "X-Forwarded-For: 198.51.100.7\r\n", "198.51.100.7"),
        (PROXY, "X-Forwarded-For: 1.1.1.1, 198.51.100.7:81 , 127.9.3.4\r\n", "198.51.100.7"),
        (PROXY, "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 198.51.100.7\r\n", "198.51.100.7"),
        (PROXY, "X-Forwarded-For: not an address, [2001:db8::7]:4711, 2001:db8:f::1\r\n", "2001:db8::7"),
        (PROXY, "X-Forwarded-For: ::ffff:198.51.100.7\r\n", "198.51.100.7"),
        (PROXY, "X-Forwarded-For: 127.9.9.9, 127.9.8.8\r\n", "127.9.9.9"),
        (PROXY, "X-Forwarded-For: 198.51.100.7, unknown\r\n", "127.9.0.1"),
        (PROXY, "Forwarded: for=198.51.100.7\r\nX-Client-IP: 198.51.100.7\r\n", "127.9.0.1"),
    ];
    for (from, headers, client) in table {
        assert_eq!(seeing.of(from, headers).await, client, "{from}: {headers}");
    }
    // Many requests of one connection may be those of many clients.
    let mut raw = seeing.connect(PROXY).await;
    for client in ["198.51.100.1", "198.51.100.2"] {
        assert_eq!(seeing.of_post(&mut raw, &format!("X-Forwarded-For: {client}\r\n")).await, client);
    }
    let log = seeing.server.stderr();
    for said_once in ["limits.trusted_proxies", "a trusted proxy does not say in x-forwarded-for"] {
        assert_eq!(log.matches(said_once).count(), 1, "{said_once}: {log}");
    }
}

#[tokio::test]
async fn forwarded_and_x_client_ip_are_read_where_they_are_asked_for() {
    let tables: [(&str, &[Case]); 2] = [
        (
            "forwarded",
            &[
                (STRANGER, "Forwarded: for=198.51.100.7\r\n", "127.8.0.1"),
                (STRANGER, "Forwarded: for=\"\r\n", "127.8.0.1"),
                (PROXY, "Forwarded: for=198.51.100.7\r\n", "198.51.100.7"),
                (PROXY, "Forwarded: For=\"[2001:db8::7]:4711\";proto=https\r\n", "2001:db8::7"),
                (PROXY, "Forwarded: for=1.1.1.1, for=198.51.100.7, for=127.9.3.4\r\n", "198.51.100.7"),
                (PROXY, "Forwarded: for=\"\r\nForwarded: for=198.51.100.7\r\n", "198.51.100.7"),
                (PROXY, "Forwarded: for=198.51.100.7, for=_hidden\r\n", "127.9.0.1"),
                (PROXY, "X-Forwarded-For: 198.51.100.7\r\n", "127.9.0.1"),
            ],
        ),
        (
            "x-client-ip",
            &[
                (STRANGER, "X-Client-IP: 198.51.100.7\r\n", "127.8.0.1"),
                (PROXY, "X-Client-IP: 198.51.100.7\r\nX-Forwarded-For: 1.1.1.1\r\n", "198.51.100.7"),
                (PROXY, "X-Client-IP: ::ffff:198.51.100.7\r\n", "198.51.100.7"),
                (PROXY, "", "127.9.0.1"),
            ],
        ),
    ];
    for (header, table) in tables {
        let mut seeing = Seeing::start(header, &[]).await;
        for (from, headers, client) in table {
            assert_eq!(seeing.of(*from, headers).await, *client, "{header} of {from}: {headers}");
        }
        let mut raw = seeing.connect(PROXY).await;
        let answer = raw.get("/_info", &format!("{header}: garbage\r\n")).await;
        assert_unreadable(&answer, header);
    }
}

#[tokio::test]
async fn what_a_proxy_says_and_nobody_can_read_is_refused_wherever_it_asks_but_for_its_own_health() {
    let mut seeing = Seeing::start("x-forwarded-for", &[]).await;
    let is_well = eventually(PATIENCE, async || seeing.server.get("/health").await.status() == 200).await;
    assert!(is_well, "{}", seeing.server.stderr());
    let mut raw = seeing.connect(PROXY).await;
    for garbage in ["garbage", "198.51.100.7, 300.1.1.1", "198.51.100.7, [2001:db8::7", "1.1.1.1:99999"] {
        let headers = format!("X-Forwarded-For: {garbage}\r\n");
        for target in ["/_info", "/nowhere", "/v2/stream/web"] {
            assert_unreadable(&seeing.connect(PROXY).await.get(target, &headers).await, "x-forwarded-for");
        }
        // The body is read on, and the connection goes on.
        assert_unreadable(&raw.post_as(&format!("{JSON}{headers}"), EVENT.as_bytes()).await, "x-forwarded-for");
        for alive in ["/healthz", "/readyz", "/health"] {
            assert_eq!(raw.get(alive, &headers).await.status(), 200, "{alive}");
        }
    }
    assert_eq!(seeing.of_post(&mut raw, "X-Forwarded-For: 198.51.100.7\r\n").await, "198.51.100.7");
}

/// How many of these get a stream at once, all through the proxy.
async fn get_in(seeing: &Seeing, clients: &[String]) -> (usize, Vec<Raw>) {
    let mut asking = Vec::new();
    for client in clients {
        let mut raw = seeing.connect(PROXY).await;
        raw.send(format!("GET {PATH} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\n\r\n")).await;
        asking.push(raw);
    }
    let answered = asking.into_iter().map(|mut raw| async move { (raw.head().await.status(), raw) });
    let answered = join_all(answered).await;
    assert!(answered.iter().all(|(status, _)| matches!(status, 200 | 429)));
    let inside = answered.iter().filter(|(status, _)| *status == 200).count();
    (inside, answered.into_iter().map(|(_, raw)| raw).collect())
}

#[tokio::test]
async fn sixty_four_addresses_of_one_network_are_one_client_and_so_is_an_address_in_its_two_forms() {
    let seeing = Seeing::start("x-forwarded-for", &[("SLUICE__LIMITS__STREAMS_PER_CLIENT", "5")]).await;
    let of_one_network: Vec<String> = (1..=64).map(|host| format!("2001:db8:0:7::{host:x}")).collect();
    let (inside, _open) = get_in(&seeing, &of_one_network).await;
    assert_eq!(inside, 5);
    let of_many: Vec<String> = (1..=20).map(|network| format!("2001:db8:1:{network:x}::1")).collect();
    let (inside, _open) = get_in(&seeing, &of_many).await;
    assert_eq!(inside, 20);
    let mapped: Vec<String> =
        ["198.51.100.7", "::ffff:198.51.100.7"].repeat(5).into_iter().map(str::to_owned).collect();
    let (inside, _open) = get_in(&seeing, &mapped).await;
    assert_eq!(inside, 5);
    let spoofed: Vec<String> = (1..=10).map(|number| format!("203.0.113.{number}, 198.51.100.8")).collect();
    let (inside, _open) = get_in(&seeing, &spoofed).await;
    assert_eq!(inside, 5, "what stands before the last stranger is that one's own word");
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("a length").to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

fn v2_of(client: [u8; 4], more: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&client[..], &[127, 0, 0, 1, 0, 80, 0, 81], more].concat())
}

#[tokio::test]
async fn a_proxy_header_names_the_client_of_its_connection() {
    let mut seeing = Seeing::start("proxy-protocol", &[]).await;
    let v6 = [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[7], &[0; 20]].concat();
    let table: [(&[u8], &str); 10] = [
        (b"PROXY TCP4 198.51.100.7 127.0.0.1 80 81\r\n", "198.51.100.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 80 81\r\n", "2001:db8::7"),
        (b"PROXY TCP6 ::ffff:198.51.100.7 ::1 80 81\r\n", "198.51.100.7"),
        (b"PROXY UNKNOWN\r\n", "127.9.0.1"),
        (b"PROXY UNKNOWN 198.51.100.7 127.0.0.1 80 81\r\n", "127.9.0.1"),
        (&v2_of([198, 51, 100, 7], &[]), "198.51.100.7"),
        (&v2_of([198, 51, 100, 7], &[0x20; 500]), "198.51.100.7"),
        (&v2(0x21, 0x21, &v6), "2001:db8::7"),
        (&v2(0x20, 0x00, &[]), "127.9.0.1"),
        (b"", "127.9.0.1"),
    ];
    for (header, client) in table {
        for in_pieces in [false, true] {
            let mut raw = seeing.connect(PROXY).await;
            for piece in header.chunks(if in_pieces { 1 } else { header.len().max(1) }) {
                raw.send(piece).await;
            }
            // Also of the second request, and whatever headers say.
            for _ in 0..2 {
                let told = seeing.of_post(&mut raw, "X-Forwarded-For: 1.1.1.1\r\n").await;
                assert_eq!(told, client, "{}", String::from_utf8_lossy(header));
            }
        }
    }
    let log = seeing.server.stderr();
    assert_eq!(log.matches("begins without a PROXY header").count(), 1, "{log}");
    // To others it is no HTTP, and says nothing.
    let mut raw = seeing.connect(STRANGER).await;
    raw.send("PROXY TCP4 198.51.100.7 127.0.0.1 80 81\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(raw.answer().await.status(), 400);
    assert_eq!(seeing.of(STRANGER, "").await, "127.8.0.1");
}

#[tokio::test]
async fn a_proxy_header_that_nobody_can_read_is_answered_and_its_connection_closed() {
    let seeing = Seeing::start("proxy-protocol", &[]).await;
    let garbage: [Vec<u8>; 7] = [
        b"PROXY \r\n".to_vec(),
        b"PROXY TCP4 300.1.1.1 127.0.0.1 80 81\r\n".to_vec(),
        b"PROXY TCP4 198.51.100.7 127.0.0.1 80 81\n".to_vec(),
        [&b"PROXY TCP4 "[..], &[b'1'; 2_000]].concat(),
        v2(0x11, 0x11, &[0; 12]),
        v2(0x21, 0x11, &[0; 4]),
        v2_of([198, 51, 100, 7], &[0; 60_000]),
    ];
    for header in garbage {
        let mut raw = seeing.connect(PROXY).await;
        raw.send_what_is_taken(&[&header, &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..]].concat()).await;
        let answer = raw.answer().await;
        assert_unreadable(&answer, "PROXY header");
        assert_eq!(answer.header("connection"), "close");
        assert_eq!(raw.rest().await, b"", "nothing that was sent behind it is answered");
    }
}

#[tokio::test]
async fn connections_of_one_client_are_bounded_and_those_of_a_proxy_count_for_whom_it_names() {
    let set = [("SLUICE__LIMITS__CONNECTIONS_PER_CLIENT", "3")];
    let mut seeing = Seeing::start("proxy-protocol", &set).await;
    let limited = r#"sluice_limited_total{limit="connections_per_client",mode="enforced"}"#;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut raw = seeing.connect(STRANGER).await;
        assert_eq!(raw.get("/healthz", "").await.status(), 200);
        open.push(raw);
    }
    // Of a proxy itself there may be many; of each whom it names as many as of anybody.
    let mut of_proxy = Vec::new();
    for number in 0..9 {
        let mut raw = seeing.connect(PROXY).await;
        raw.send(format!("PROXY TCP4 198.51.100.{} 127.0.0.1 80 81\r\n", number / 3)).await;
        assert_eq!(raw.get("/healthz", "").await.status(), 200, "{number}");
        of_proxy.push(raw);
    }
    // Those beyond wait for their ends together: what is open would be idle for too long otherwise.
    let mut beyond = Vec::new();
    for _ in 0..3 {
        beyond.push(seeing.connect(STRANGER).await);
    }
    let mut named = seeing.connect(PROXY).await;
    named.send("PROXY TCP4 198.51.100.0 127.0.0.1 80 81\r\n").await;
    beyond.push(named);
    assert!(join_all(beyond.iter_mut().map(Raw::is_closed)).await.into_iter().all(|closed| closed));
    assert_eq!(seeing.server.metric(limited).await, 4.0);
    // A stream is not one of them any more: its connection was handed over.
    let mut streams = Vec::new();
    for raw in open {
        streams.push(Stream::open_on(raw, PATH, "").await);
    }
    let mut again = seeing.connect(STRANGER).await;
    assert_eq!(seeing.of_post(&mut again, "").await, "127.8.0.1");
    drop(again);
    let comes_back = eventually(PATIENCE, async || {
        let mut raws = Vec::new();
        for _ in 0..3 {
            let mut raw = seeing.connect(STRANGER).await;
            raw.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
            raws.push(raw);
        }
        let answered = raws.iter_mut().map(async |raw| matches!(raw.io.read(&mut [0; 1]).await, Ok(1)));
        join_all(answered).await.into_iter().all(|answered| answered)
    });
    assert!(comes_back.await, "places come back with their connections");
}

#[tokio::test]
async fn who_is_denied_gets_a_403_that_says_why_and_until_when_and_nobody_else_does() {
    let mut seeing = Seeing::start("x-forwarded-for", &[]).await;
    let denied = "X-Forwarded-For: 198.51.100.7\r\n";
    let put =
        seeing.server.ask_admin("PUT", "/deny/198.51.100.0%2F24", r#"{"reason":"a flood","expires_in":"1h"}"#).await;
    assert_eq!(put.status(), 200, "{put:?}");
    let until = put.json()["until"].clone();
    for (number, target) in (1..).zip(["/", "/_info", "/v2/stream/web", "//v2/stream/web", "/nowhere"]) {
        let answer = seeing.connect(PROXY).await.get(target, denied).await;
        assert_eq!((answer.status(), answer.header("access-control-allow-origin")), (403, "*"), "{target}");
        let problem = answer.json();
        assert_eq!((&problem["type"], &problem["reason"]), (&json!("forbidden"), &json!("a flood")), "{problem}");
        assert_eq!(problem["until"], until, "{problem}");
        let counted = seeing.server.metric(r#"sluice_limited_total{limit="deny",mode="enforced"}"#).await;
        assert_eq!(counted, f64::from(number));
    }
    let mut raw = seeing.connect(PROXY).await;
    let answer = raw.post_as(&format!("{JSON}{denied}"), EVENT.as_bytes()).await;
    assert_eq!(answer.status(), 403);
    let proven = eventually(PATIENCE, async || seeing.server.get("/health").await.status() == 200);
    assert!(proven.await, "a canary makes its trip");
    for alive in ["/healthz", "/readyz", "/health"] {
        assert_eq!(raw.get(alive, denied).await.status(), 200, "{alive}");
    }
    // The same connection, another client.
    assert_eq!(seeing.of_post(&mut raw, "X-Forwarded-For: 198.51.101.7\r\n").await, "198.51.101.7");
    // One that loops waits for its refusals as for any others.
    let mut looping = Vec::new();
    for _ in 0..12 {
        let mut raw = seeing.connect(PROXY).await;
        raw.send(format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n{denied}\r\n")).await;
        looping.push(raw);
    }
    let held = eventually(PATIENCE, async || seeing.server.metric("sluice_refusals_held").await >= 1.0).await;
    assert!(held);
    assert_eq!(seeing.server.ask_admin("DELETE", "/deny/198.51.100.0/24", "").await.status(), 200);
    assert_eq!(seeing.of(PROXY, denied).await, "198.51.100.7");
}

#[tokio::test]
async fn a_known_token_is_a_client_of_its_own_wherever_it_asks_from() {
    let hash = Sha256::digest(b"secret").iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let config = format!(
        "[intake]\nauth = 'tokens'\ntokens = [{{name = 'bot', sha256 = '{hash}'}}]\n\
         [limits]\noverrides = [{{token = 'bot', streams_per_client = 3}}]"
    );
    let server = Server::start(Options::default().config(&config).env("SLUICE__LIMITS__STREAMS_PER_CLIENT", "1")).await;
    let path = "/v2/stream/test.event";
    let status = async |token: &str, from: Ipv4Addr| {
        let mut raw = Raw::from(from, server.address).await;
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n")).await;
        (raw.head().await.status(), raw)
    };
    let mut open = Vec::new();
    for from in [[127, 8, 0, 1], [127, 8, 0, 2], [127, 8, 0, 3]] {
        open.push(status("Bearer secret", from.into()).await);
    }
    assert!(open.iter().all(|(status, _)| *status == 200));
    assert_eq!(status("Bearer secret", [127, 8, 0, 4].into()).await.0, 429);
    for (number, token) in ["Bearer guess", "Basic secret", ""].into_iter().enumerate() {
        let from = Ipv4Addr::new(127, 8, 1, u8::try_from(number).expect("small"));
        let (first, _open) = status(token, from).await;
        assert_eq!((first, status(token, from).await.0), (200, 429), "{token}");
    }
    let clients = server.ask_admin("GET", "/clients", "").await.json();
    let bot = clients["keys"].as_array().and_then(|keys| keys.iter().find(|key| key["key"] == "token:bot"));
    assert_eq!(bot.map(|bot| &bot["count"]), Some(&json!(3)), "{clients}");
}
