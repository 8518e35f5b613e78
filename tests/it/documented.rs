//! What the document says is answered: every path, method and status of it is asked for, and held against it.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::openapi::{JSON, LIST, document, paths, resolved};
use crate::raw::{Answer, Raw, Stream};
use crate::server::{Options, Server, free_address};
use crate::support::{PATIENCE, eventually};

const EVENT: &str = r#"{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"},"test":"documented"}"#;
const STRAY: &str = r#"{"$schema":"/test/event/1.0.0","meta":{"stream":"nowhere"}}"#;

/// Path as documented, method, status.
type Case = (String, String, u16);

fn cases(document: &Value) -> BTreeSet<Case> {
    let mut cases = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in ["get", "head", "post"].into_iter().filter(|method| item.get(method).is_some()) {
            for status in item[method]["responses"].as_object().expect("responses").keys() {
                cases.insert((path.clone(), method.to_owned(), status.parse().expect("a status")));
            }
        }
    }
    cases
}

/// Requests made, and held against what the document says of their answers.
struct Checked {
    document: Value,
    seen: BTreeSet<Case>,
}

impl Checked {
    fn check(&mut self, path: &str, method: &str, answer: &Answer) {
        let status = answer.status();
        let what = format!("{method} {path} {status}");
        let response = &self.document["paths"][path][method]["responses"][status.to_string()];
        assert!(!response.is_null(), "{what} is not documented: {answer:?}");
        let response = resolved(&self.document, response);
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let required =
                resolved(&self.document, header)["required"] == true || name == "Location" || name == "Allow";
            assert!(!required || answer.head.header(&name.to_lowercase()).is_some(), "{what} has no {name}");
        }
        if let Some(content) = response["content"].as_object().filter(|_| method != "head") {
            let of_answer = answer.header("content-type");
            let media = content.get(of_answer.split(';').next().unwrap_or_default());
            let media = media.unwrap_or_else(|| panic!("{what} is {of_answer}, and documented as {content:?}"));
            if of_answer.contains("json") && !answer.body.is_empty() {
                let schema = json!({ "allOf": [media["schema"]], "components": self.document["components"] });
                let judge = jsonschema::validator_for(&schema).expect("a schema");
                let body = answer.json();
                assert!(judge.is_valid(&body), "{what}: {:?}", judge.validate(&body).map_err(|e| e.to_string()));
            }
        } else if method != "head" && ![301, 303].contains(&status) {
            assert_eq!(answer.text(), "", "{what} has a body, and none is documented");
        }
        self.seen.insert((path.to_owned(), method.to_owned(), status));
    }

    /// One request, whose answer must have this status.
    async fn ask(&mut self, server: &Server, path: &str, request: (&str, &str), body: (&str, &str), status: u16) {
        let ((method, target), (headers, body)) = (request, body);
        let mut raw = server.connect().await;
        let length = if method == "POST" { format!("Content-Length: {}\r\n", body.len()) } else { String::new() };
        let verb = method.to_uppercase();
        raw.send(format!("{verb} {target} HTTP/1.1\r\nHost: x\r\n{headers}{length}\r\n{body}")).await;
        let answer = match (method, status) {
            ("HEAD", _) => Answer { head: raw.head().await, body: Vec::new() },
            // It does not end.
            (_, 200) if path.starts_with("/v2/") => Answer { head: raw.head().await, body: Vec::new() },
            _ => raw.answer().await,
        };
        assert_eq!(answer.status(), status, "{method} {target} {headers}: {answer:?}\n{}", server.stderr());
        self.check(path, &method.to_lowercase(), &answer);
    }

    async fn get(&mut self, server: &Server, path: &str, target: &str, status: u16) {
        self.ask(server, path, ("GET", target), ("", ""), status).await;
    }

    async fn post(&mut self, server: &Server, query: &str, headers: &str, body: &str, status: u16) {
        let target = format!("/v1/events{query}");
        self.ask(server, "/v1/events", ("POST", &target), (headers, body), status).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_documented_path_method_and_status_is_answered_as_documented() {
    let server = Server::start(Options::default()).await;
    let document = document(&server).await;
    let documented = cases(&document);
    let mut checked = Checked { document, seen: BTreeSet::new() };
    about(&mut checked, &server).await;
    streams(&mut checked, &server).await;
    wrong_methods(&mut checked, &server).await;
    posts(&mut checked, &server).await;
    refused_posts(&mut checked).await;
    nobody_there(&mut checked).await;
    health(&mut checked, &server).await;
    too_many_streams(&mut checked).await;
    too_many_posts(&mut checked).await;
    full(&mut checked).await;
    stopping(&mut checked).await;
    let missing: Vec<&Case> = documented.difference(&checked.seen).collect();
    assert!(missing.is_empty(), "documented, and never asked for: {missing:?}");
}

async fn about(checked: &mut Checked, server: &Server) {
    let table = [
        ("/", "/?spec", 200),
        ("/", "/?spec=1&doc", 200),
        ("/", "/?doc", 200),
        ("/", "/?doc=x&path=/index.html", 200),
        ("/", "/", 303),
        ("/", "/?other", 303),
        ("/", "/?doc&path=/../Cargo.toml", 404),
        ("/openapi.json", "/openapi.json", 200),
        ("/rc", "/rc", 301),
        ("/_info", "/_info", 200),
        ("/_info/name", "/_info/name", 200),
        ("/_info/version", "/_info/version", 200),
        ("/_info/home", "/_info/home", 404),
        ("/robots.txt", "/robots.txt", 200),
        ("/healthz", "/healthz", 200),
        ("/readyz", "/readyz", 200),
        ("/v1/stream-configs", "/v1/stream-configs", 200),
        ("/v1/stream-configs/{streams}", "/v1/stream-configs/test.event,nope", 200),
        ("/v1/stream-configs/{streams}", "/v1/stream-configs/%ff", 400),
    ];
    for (path, target, status) in table {
        checked.get(server, path, target, status).await;
    }
    let long = format!("/v1/stream-configs/{}", "a".repeat(17 * 1024));
    checked.get(server, "/v1/stream-configs/{streams}", &long, 414).await;
}

async fn streams(checked: &mut Checked, server: &Server) {
    for query in ["", "?since=2026-11-20", "?lastEventId="] {
        checked.get(server, LIST, &format!("/v2/stream/test.event,recentchange{query}"), 200).await;
    }
    for method in ["GET", "HEAD"] {
        for (target, status) in [("test.event", 200), ("test.event?since=soon", 400), ("nope", 404)] {
            let target = format!("/v2/stream/{target}");
            checked.ask(server, LIST, (method, &target), ("", ""), status).await;
        }
    }
    for accept in ["application/json", "application/x-ndjson"] {
        let accept = format!("Accept: {accept}\r\n");
        checked.ask(server, LIST, ("GET", "/v2/stream/test.event"), (&accept, ""), 200).await;
    }
    for query in ["?canary=maybe", "?positions=maybe"] {
        checked.get(server, LIST, &format!("/v2/stream/test.event{query}"), 400).await;
    }
    let id = "Last-Event-ID: nonsense\r\n";
    checked.ask(server, LIST, ("GET", "/v2/stream/test.event"), (id, ""), 400).await;
    for path in paths(&checked.document).iter().filter(|path| is_of_one_stream(path)) {
        checked.get(server, path, path, 200).await;
        checked.get(server, path, &format!("{path}?since=soon"), 400).await;
    }
}

/// `DELETE` is nowhere.
async fn wrong_methods(checked: &mut Checked, server: &Server) {
    let cases: Vec<Case> = cases(&checked.document).into_iter().filter(|(_, _, status)| *status == 405).collect();
    for (path, method, _) in cases {
        let mut raw = server.connect().await;
        raw.send(format!("DELETE {} HTTP/1.1\r\nHost: x\r\n\r\n", path.replace("{streams}", "test.event"))).await;
        let answer = raw.answer().await;
        assert_eq!(answer.status(), 405, "{path}: {answer:?}");
        assert!(answer.header("allow").contains(&method.to_uppercase()), "{path}: {answer:?}");
        checked.check(&path, &method, &answer);
    }
}

async fn posts(checked: &mut Checked, server: &Server) {
    for (query, status) in [("", 201), ("?hasty", 202), ("?dry_run", 200)] {
        checked.post(server, query, JSON, EVENT, status).await;
        checked.get(server, "/v1/_test/events", &format!("/v1/_test/events{query}"), status).await;
    }
    let filled = "?stream=test.event&schema_uri=/test/event/1.0.0";
    checked.post(server, filled, "Content-Type: text/plain\r\n", r#"{"test":"bare"}"#, 201).await;
    checked.post(server, "", JSON, &format!("[{EVENT},{STRAY}]"), 207).await;
    checked.post(server, "", JSON, STRAY, 400).await;
    checked.post(server, "", JSON, &EVENT.replace("\"documented\"", "5"), 400).await;
    checked.post(server, "", JSON, "{", 400).await;
    checked.post(server, "?hasty=maybe", JSON, EVENT, 400).await;
    checked.post(server, "", "Content-Type: text/html\r\n", EVENT, 415).await;
    checked.post(server, "", &format!("{JSON}Content-Encoding: lzma\r\n"), EVENT, 415).await;
}

/// What takes settings of its own.
async fn refused_posts(checked: &mut Checked) {
    let small = [("MAX_BODY_BYTES", "2000"), ("MAX_EVENT_BYTES", "1000"), ("DEADLINE", "1s")];
    let small = small
        .iter()
        .fold(Options::default(), |options, (name, value)| options.env(&format!("SLUICE__INTAKE__{name}"), value));
    let server = Server::start(small.clone()).await;
    checked.post(&server, "", JSON, &" ".repeat(2001), 413).await;
    let mut slow = server.connect().await;
    slow.send(format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{JSON}Content-Length: 100\r\n\r\n{{")).await;
    let answer = slow.answer().await;
    assert_eq!(answer.status(), 408, "{answer:?}");
    checked.check("/v1/events", "post", &answer);

    let padded = EVENT.replace("documented", &"x".repeat(1000));
    for (events, status) in [(format!("{EVENT},{STRAY}"), 207), (STRAY.to_owned(), 400), (padded, 413)] {
        let events: Value = serde_json::from_str(&format!("[{events}]")).expect("JSON");
        let server =
            Server::start(small.clone().config(&format!("[intake]\ntest_events = {}", toml_of(&events)))).await;
        checked.get(&server, "/v1/_test/events", "/v1/_test/events", status).await;
    }

    let hash = "0".repeat(64);
    let tokens = format!("[intake]\nauth = 'tokens'\ntokens = [{{name = 'x', sha256 = '{hash}'}}]");
    for (config, status) in [(tokens.as_str(), 401), ("[intake]\nauth = 'closed'", 403)] {
        let server = Server::start(Options::default().config(config)).await;
        checked.post(&server, "", JSON, EVENT, status).await;
        checked.get(&server, "/v1/_test/events", "/v1/_test/events", status).await;
    }
}

/// JSON's lists and maps as an inline value of TOML.
fn toml_of(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members = members.iter().map(|(name, member)| format!("'{name}' = {}", toml_of(member)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Without its log.
async fn nobody_there(checked: &mut Checked) {
    let options = Options::default().kafka(&free_address().to_string()).unready();
    let server = Server::start(options.env("SLUICE__INTAKE__DEADLINE", "1s")).await;
    checked.get(&server, "/readyz", "/readyz", 503).await;
    checked.post(&server, "", JSON, EVENT, 503).await;
    checked.get(&server, "/v1/_test/events", "/v1/_test/events", 503).await;
}

/// Connections that were there already ask each stream for lines of JSON while the readers of another end.
async fn stopping(checked: &mut Checked) {
    const READERS: usize = 120;
    let mut server = Server::start(Options::default().env("SLUICE__STOP__DRAIN_SPREAD", "3s")).await;
    let paths: Vec<String> = paths(&checked.document).into_iter().filter(|path| is_of_one_stream(path)).collect();
    let mut asking = Vec::new();
    for path in paths {
        let mut raw = server.connect().await;
        assert_eq!(raw.get("/healthz", "").await.status(), 200);
        // Begun before the stop: what is idle then is closed.
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n")).await;
        asking.push((path, raw));
    }
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(server.stream("/v2/stream/test.event", "").await);
    }
    server.signal(Signal::TERM);
    readers[0].raw.rest().await;
    for (path, raw) in &mut asking {
        raw.send("Accept: application/json\r\n\r\n").await;
        let answer = raw.answer().await;
        assert_eq!(answer.status(), 503, "{path}: {answer:?}");
        checked.check(path, "get", &answer);
    }
    drop(readers);
    assert!(server.ended().await.success());
}

fn is_of_one_stream(path: &str) -> bool {
    path.starts_with("/v2/") && path != LIST
}

async fn health(checked: &mut Checked, server: &Server) {
    let healthy = eventually(PATIENCE, async || server.get("/health").await.status() == 200).await;
    assert!(healthy, "{:?}", server.get("/health").await);
    checked.get(server, "/health", "/health", 200).await;
    for (stream, status) in [("test.event,recentchange", 200), ("a,", 400), ("nope", 404)] {
        checked.get(server, "/health", &format!("/health?stream={stream}"), status).await;
    }
}

/// Of each stream from an address of its own: who keeps being refused would have to wait.
async fn too_many_streams(checked: &mut Checked) {
    let server = Server::start(Options::default().env("SLUICE__LIMITS__STREAMS_PER_CLIENT", "1")).await;
    for path in paths(&checked.document).iter().filter(|path| path.starts_with("/v2/")) {
        let target = if path == LIST { "/v2/stream/test.event,recentchange" } else { path };
        let address = Raw::somebody_new();
        let _open = Stream::open_on(Raw::from(address, server.address).await, target, "").await;
        let answer = Raw::from(address, server.address).await.get(target, "").await;
        assert_eq!(answer.status(), 429, "{path}: {answer:?}");
        checked.check(path, "get", &answer);
    }
}

async fn too_many_posts(checked: &mut Checked) {
    let server = Server::start(Options::default().env("SLUICE__LIMITS__POSTS_PER_SECOND", "1")).await;
    for (path, request) in [
        ("/v1/events", format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{JSON}Content-Length: 2\r\n\r\n[]")),
        ("/v1/_test/events", "GET /v1/_test/events?dry_run HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
    ] {
        let mut raw = server.connect().await;
        let refused = async {
            loop {
                raw.send(&request).await;
                let answer = raw.answer().await;
                if answer.status() == 429 {
                    break answer;
                }
            }
        };
        let answer = tokio::time::timeout(PATIENCE, refused).await.expect("more than one post in a second");
        checked.check(path, if path.contains("_test") { "get" } else { "post" }, &answer);
    }
}

/// Who reads Server-Sent Events is asked for patience, others are told so.
async fn full(checked: &mut Checked) {
    let server = Server::start(Options::default().env("SLUICE__LIMITS__STREAMS_TOTAL", "1")).await;
    let _open = server.stream("/v2/stream/test.event", "").await;
    let lines = "Accept: application/json\r\n";
    checked.ask(&server, LIST, ("GET", "/v2/stream/test.event"), (lines, ""), 503).await;
    checked.get(&server, LIST, "/v2/stream/test.event", 200).await;
    checked.get(&server, "/health", "/health", 503).await;
}
