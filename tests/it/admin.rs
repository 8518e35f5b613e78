//! What operators see and change while the server runs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::raw::{Answer, Raw, Stream};
use crate::server::{Options, Server};
use crate::support::{PATIENCE, eventually};

const STREAM: &str = "/v2/stream/test.event";
const TEXT: &str = "Accept: text/plain\r\n";

pub async fn see(server: &Server, target: &str) -> Value {
    let answer = server.ask_admin("GET", target, "").await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    answer.json()
}

async fn put(server: &Server, target: &str, body: Value) -> Answer {
    server.ask_admin("PUT", target, &body.to_string()).await
}

fn assert_refused(answer: &Answer, status: u16, word: &str) {
    assert_eq!(answer.status(), status, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{answer:?}");
    assert!(answer.text().contains(word), "{answer:?}");
}

/// A reader at an address that nobody else has.
async fn reader(server: &Server, headers: &str) -> (Stream, String) {
    let address = Raw::somebody_new();
    let raw = Raw::from(address, server.address).await;
    (Stream::open_on(raw, STREAM, headers).await, address.to_string())
}

/// What is left of a stream that the server ends.
async fn rest(stream: &mut Stream) -> String {
    String::from_utf8(stream.raw.rest().await).expect("UTF-8")
}

#[tokio::test]
async fn who_reads_is_listed_by_key_and_by_reader() {
    let server = Server::start(Options::default()).await;
    let (_one, first) = reader(&server, "User-Agent: one\r\n").await;
    let mut raw = Raw::from(first.parse().expect("an address"), server.address).await;
    raw.send(format!("GET {STREAM} HTTP/1.1\r\nHost: x\r\nUser-Agent: one\r\n\r\n")).await;
    raw.head().await;
    let (_two, second) = reader(&server, "User-Agent: two\r\n").await;
    let seen = see(&server, "/clients").await;
    let keys = seen["keys"].as_array().expect("keys");
    assert_eq!(keys.len(), 2, "{seen}");
    assert_eq!((&keys[0]["key"], &keys[0]["count"], &keys[0]["user_agent"]), (&json!(first), &json!(2), &json!("one")));
    assert_eq!((&keys[1]["key"], &keys[1]["count"]), (&json!(second), &json!(1)));
    assert_eq!(keys[0]["streams"], json!(["test.event"]));
    for number in ["oldest_seconds", "sent_bytes", "lag_events", "refused", "would_be_refused"] {
        assert!(keys[0][number].is_u64(), "{number}: {seen}");
    }
    let clients = seen["clients"].as_array().expect("clients");
    let order: Vec<&Value> = clients.iter().map(|client| &client["key"]).collect();
    assert_eq!(order, [&json!(first), &json!(first), &json!(second)]);
    assert!(clients[0]["id"].as_u64() < clients[1]["id"].as_u64(), "the oldest first: {seen}");
    assert!(clients[0]["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{seen}");
    assert_eq!((&seen["truncated"], seen["streams"]["limit"].is_u64()), (&json!(false), true));
    let of_one = see(&server, &format!("/clients?key={second}&by=bytes")).await;
    assert_eq!(
        (of_one["keys"].as_array().map(Vec::len), of_one["clients"].as_array().map(Vec::len)),
        (Some(1), Some(1))
    );
    assert_eq!(see(&server, "/clients?key=198.51.100.1").await["clients"], json!([]));
    let traffic = see(&server, "/traffic").await;
    assert_eq!((&traffic["minutes"], &traffic["reading"][0]["count"]), (&json!(15), &json!(2)), "{traffic}");
    for wrong in
        ["/clients?top=many", "/clients?by=name", "/clients?limit=10001", "/clients?tpo=1", "/traffic?top=10001"]
    {
        assert_refused(&server.ask_admin("GET", wrong, "").await, 400, "Malformed Query");
    }
}

#[tokio::test]
async fn an_answer_is_bounded_whoever_reads() {
    const READERS: usize = 1_200;
    let may = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: may.maximum, ..may }).expect("more descriptors");
    let server = Server::start(Options::default()).await;
    let mut readers = Vec::new();
    while readers.len() < READERS {
        readers.push(reader(&server, "User-Agent: many\r\n").await);
    }
    let seen = see(&server, "/clients").await;
    let lengths = |seen: &Value| ["keys", "clients"].map(|list| seen[list].as_array().map_or(0, Vec::len));
    assert_eq!((lengths(&seen), &seen["truncated"]), ([20, 1_000], &json!(true)));
    let few = see(&server, "/clients?top=3&limit=2").await;
    assert_eq!((lengths(&few), &few["truncated"]), ([3, 2], &json!(true)));
    let all = see(&server, "/clients?limit=10000&top=10000").await;
    assert_eq!((lengths(&all), &all["truncated"]), ([READERS, READERS], &json!(false)));
    assert_eq!(see(&server, "/traffic?top=5").await["reading"].as_array().map(Vec::len), Some(5));
}

#[tokio::test]
async fn tables_are_for_people_and_hold_nothing_that_moves_a_terminal() {
    let server = Server::start(Options::default()).await;
    let (_reader, address) = reader(&server, "User-Agent: evil\tagent\r\n").await;
    for target in ["/clients", "/traffic"] {
        let answer = server.ask_admin_as("GET", target, TEXT, "").await;
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        let text = answer.text();
        assert!(text.contains(&address), "{text}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
    let text = server.ask_admin_as("GET", "/clients", TEXT, "").await.text();
    assert!(text.contains("USER AGENT") && text.contains("evil␉agent"), "{text}");
    let both = server.ask_admin_as("GET", "/clients", "Accept: application/json, text/plain\r\n", "").await;
    assert!(both.json().is_object(), "what is named first counts");
    let denied = put(&server, "/deny/198.51.100.1", json!({ "reason": "\u{1b}[2J" })).await;
    assert!(!denied.text().contains('\u{1b}'), "JSON escapes it: {denied:?}");
}

#[tokio::test]
async fn a_reader_is_ended_after_a_whole_event_and_asked_to_come_back() {
    let server = Server::start(Options::default()).await;
    let (mut one, _) = reader(&server, "").await;
    let (mut two, second) = reader(&server, "").await;
    let (mut kept, _) = reader(&server, "").await;
    let event = json!({"$schema": "/test/event/1.0.0", "meta": {"stream": "test.event"}, "test": "before"});
    server.put(&event).await;
    for stream in [&mut one, &mut two, &mut kept] {
        stream.event_where(|event| event.json()["test"] == "before").await;
    }
    let seen = see(&server, "/clients").await;
    let id =
        &seen["clients"].as_array().expect("clients").iter().map(|client| &client["id"]).min_by_key(|id| id.as_u64());
    let id = id.expect("a reader");
    let answer = server.ask_admin_as("DELETE", &format!("/clients/{id}"), "Sluice-Operator: me@here\r\n", "").await;
    assert_eq!((answer.status(), answer.json()), (200, json!({ "ended": 1 })));
    let end = rest(&mut one).await;
    assert!(end.contains("retry: ") && !end.contains("data:"), "{end:?}");
    let answer = server.ask_admin("DELETE", &format!("/clients?key={second}"), "").await;
    assert_eq!(answer.json(), json!({ "ended": 1 }));
    assert!(rest(&mut two).await.contains("retry: "));
    server.put(&event).await;
    kept.event().await;
    assert_refused(&server.ask_admin("DELETE", "/clients", "").await, 400, "key");
    assert_refused(&server.ask_admin("DELETE", "/clients?key=", "").await, 400, "key");
    assert_refused(&server.ask_admin("DELETE", "/clients/999999", "").await, 404, "No Such Client");
    assert_refused(&server.ask_admin("DELETE", "/clients/nobody", "").await, 404, "No Such Client");
    let log = server.stderr();
    assert!(log.contains("me@here") && log.contains("clients_ended"), "{log}");
    assert_eq!(server.metric("sluice_admin_changes_total").await, 2.0, "what changed nothing is not counted");
}

#[tokio::test]
async fn a_denied_network_stays_denied_over_a_restart_until_its_time_is_over_or_it_is_taken_off() {
    let mut server = Server::start(Options::default()).await;
    let (mut stream, address) = reader(&server, "").await;
    let body = json!({ "reason": "flood", "expires_in": 3600 });
    let answer = put(&server, &format!("/deny/{address}%2F32"), body).await.json();
    let expected = (json!(format!("{address}/32")), json!("flood"), json!(1));
    assert_eq!((answer["cidr"].clone(), answer["reason"].clone(), answer["ended"].clone()), expected, "{answer}");
    assert!(rest(&mut stream).await.contains("retry: "));
    assert_eq!(server.ask_admin("PUT", "/deny/2001:db8::1/32", "").await.json()["until"], Value::Null);
    assert_eq!(put(&server, "/deny/192.0.2.0/24", json!({ "expires_in": "50ms" })).await.status(), 200);
    let gone = async || see(&server, "/deny").await["deny"].as_array().map(Vec::len) == Some(2);
    assert!(eventually(PATIENCE, gone).await, "its time is over");
    server.stop().await;
    server.start_again().await;
    let list = see(&server, "/deny").await;
    let cidrs: Vec<&Value> = list["deny"].as_array().expect("a list").iter().map(|of| &of["cidr"]).collect();
    assert_eq!(cidrs, [&expected.0, &json!("2001:db8::/32")]);
    let removed = server.ask_admin("DELETE", "/deny/2001:db8::/32", "").await;
    assert_eq!((removed.status(), &removed.json()["cidr"]), (200, &json!("2001:db8::/32")));
    assert_refused(&server.ask_admin("DELETE", "/deny/2001:db8::/32", "").await, 404, "Not Denied");
}

#[tokio::test]
async fn what_is_no_network_or_no_denial_is_refused() {
    let server = Server::start(Options::default()).await;
    for network in ["nonsense", "192.0.2.0/33", "192.0.2.0%2F", "%1b%5B2J", "192.0.2.0/24/24", "%ff"] {
        assert_refused(&server.ask_admin("PUT", &format!("/deny/{network}"), "").await, 400, "Malformed");
        assert_refused(&server.ask_admin("DELETE", &format!("/deny/{network}"), "").await, 400, "Malformed");
    }
    let long = "x".repeat(501);
    for body in [
        json!({ "expires_in": 0 }),
        json!({ "expires_in": "0s" }),
        json!({ "expires_in": "367d" }),
        json!({ "expires_in": "soon" }),
        json!({ "expires_in": u64::MAX }),
        json!({ "until": "tomorrow" }),
        json!({ "reason": long }),
        json!([]),
    ] {
        assert_refused(&put(&server, "/deny/192.0.2.1", body).await, 400, "Malformed Body");
    }
    assert_refused(&server.ask_admin("PUT", "/deny/192.0.2.1", "{").await, 400, "Malformed Body");
    let large = "x".repeat((1 << 20) + 1);
    let mut raw = Raw::connect(server.admin).await;
    let head = format!("PUT /limits HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", large.len());
    raw.send_what_is_taken([head.as_bytes(), large.as_bytes()].concat().as_slice()).await;
    assert_refused(&raw.answer().await, 413, "1048576");
    assert_eq!(see(&server, "/deny").await["deny"], json!([]));
}

#[tokio::test]
async fn limits_change_all_together_or_not_at_all() {
    let server = Server::start(Options::default()).await;
    let before = see(&server, "/limits").await;
    assert!(before["streams_total"].as_u64().is_some_and(|total| total > 0), "{before}");
    let wrong = json!({ "streams_per_client": 5, "ipv4_prefix": 33, "dead_after": "1ms" });
    let answer = put(&server, "/limits", wrong).await;
    assert_refused(&answer, 422, "limits.ipv4_prefix: more than 32 bits");
    assert_eq!(answer.json()["errors"].as_array().map(Vec::len), Some(2), "{answer:?}");
    let answer = put(&server, "/limits", json!({ "streams_per_clients": 5, "shadow": ["everything"] })).await;
    assert_refused(&answer, 422, "did you mean 'streams_per_client'?");
    assert_eq!(see(&server, "/limits").await, before);
    let answer = put(&server, "/limits", json!({ "streams_per_client": 5, "shadow": true })).await;
    assert_eq!(answer.json()["streams_per_client"], 5, "{answer:?}");
    let now = see(&server, "/limits").await;
    assert_eq!((&now, &now["slow_after"]), (&answer.json(), &before["slow_after"]));
    assert_eq!(put(&server, "/limits", before.clone()).await.json(), before, "what was seen can be sent back");
    assert_eq!(put(&server, "/limits", json!({})).await.json(), before);
    assert_refused(&server.ask_admin("PUT", "/limits", "[1]").await, 400, "Malformed Body");
    assert_eq!(server.metric("sluice_admin_changes_total").await, 2.0);
}

#[tokio::test]
async fn a_log_level_changes_for_a_while_and_then_goes_back() {
    let server = Server::start(Options::default().env("RUST_LOG", "warn")).await;
    assert_eq!(see(&server, "/log-level").await, json!({ "default": "warn", "modules": [] }));
    let answer =
        put(&server, "/log-level", json!({ "module": "sluice::http::admin", "level": "INFO", "for": "1h" })).await;
    assert_eq!((&answer.json()["level"], &answer.json()["module"]), (&json!("info"), &json!("sluice::http::admin")));
    assert!(server.stderr().contains("log_level"), "what was silent is heard: {}", server.stderr());
    put(&server, "/log-level", json!({ "module": "sluice::http::admin", "level": "error", "for": "1h" })).await;
    assert_eq!(see(&server, "/log-level").await["modules"].as_array().map(Vec::len), Some(1), "the newest wins");
    let heard = server.stderr().len();
    put(&server, "/deny/192.0.2.1", json!({})).await;
    assert_eq!(server.stderr().len(), heard, "and is silent again: {}", server.stderr());
    assert_eq!(
        put(&server, "/log-level", json!({ "level": "debug", "for": "50ms" })).await.json()["module"],
        Value::Null
    );
    let reverted = async || see(&server, "/log-level").await["modules"].as_array().map(Vec::len) == Some(1);
    assert!(eventually(PATIENCE, reverted).await, "it goes back by itself");
    for wrong in [
        json!({ "level": "loud" }),
        json!({ "level": "info", "module": "a=b,c" }),
        json!({ "level": "info", "module": "" }),
        json!({ "level": "info", "for": "25h" }),
        json!({ "level": "info", "for": "0s" }),
        json!({ "module": "sluice" }),
    ] {
        assert_refused(&put(&server, "/log-level", wrong).await, 400, "Malformed Body");
    }
    assert_refused(&server.ask_admin("PUT", "/log-level", "").await, 400, "level");
}

#[tokio::test]
async fn time_and_memory_can_be_looked_at_and_one_profile_is_taken_at_a_time() {
    let mut server = Server::start(Options::default()).await;
    let facts = see(&server, "/debug/heap").await;
    assert_eq!(facts["allocator"], "jemalloc");
    for fact in ["allocated_bytes", "resident_bytes", "process_resident_bytes"] {
        assert!(facts[fact].as_u64().is_some_and(|bytes| bytes > 100_000), "{fact}: {facts}");
    }
    let svg = server.ask_admin("GET", "/debug/profile?seconds=1&hz=200", "").await;
    assert_eq!((svg.status(), svg.header("content-type")), (200, "image/svg+xml"), "{svg:?}");
    assert!(svg.text().contains("<svg"), "{}", svg.text());
    for wrong in ["seconds=0", "seconds=61", "hz=0", "hz=1001", "seconds=-1", "minutes=1"] {
        assert_refused(&server.ask_admin("GET", &format!("/debug/profile?{wrong}"), "").await, 400, "Malformed Query");
    }
    let mut long = Raw::connect(server.admin).await;
    long.send("GET /debug/profile?seconds=60 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let busy = async || server.ask_admin("GET", "/debug/profile?seconds=1", "").await.status() == 409;
    assert!(eventually(PATIENCE, busy).await, "there is one at a time");
    let asked = std::time::Instant::now();
    server.stop().await;
    assert!(asked.elapsed().as_secs() < 30, "a stop does not wait for a profile");
}
