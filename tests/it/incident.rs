//! June 2019, replayed: one address takes every stream that the host has. The canary still makes its trip, and health says
//! what is wrong, the operator sees who it is and denies it, and everybody else is served again: without a restart.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::raw::{Raw, Stream};
use crate::server::{Options, Server};
use crate::support::{PATIENCE, eventually};

const STREAMS_TOTAL: usize = 60;
const PATH: &str = "/v2/stream/test.event";

async fn health(server: &Server) -> (u16, Value) {
    let answer = server.ask_admin("GET", "/health", "").await;
    (answer.status(), answer.json())
}

fn event(text: &str) -> Value {
    json!({ "$schema": "/test/event/1.0.0", "meta": { "stream": "test.event" }, "test": text })
}

/// Whether somebody new gets a stream: the one that only asks for patience looks like one, and is nobody's.
async fn is_served(server: &Server) -> bool {
    let _reader = Stream::open_on(Raw::as_somebody_new(server.address).await, PATH, "").await;
    let keys = clients(server, "").await["keys"].clone();
    let is_new = |key: &Value| key["key"].as_str().is_some_and(|key| key.starts_with("127.1.")) && key["count"] != 0;
    keys.as_array().expect("a list").iter().any(is_new)
}

async fn clients(server: &Server, query: &str) -> Value {
    server.ask_admin("GET", &format!("/clients{query}"), "").await.json()
}

/// Not any more: its streams end cleanly, and it is told why.
async fn deny(server: &Server, attacker: Ipv4Addr, taken: Vec<Stream>) {
    let denied =
        server.ask_admin("PUT", "/deny/127.66.6.6", r#"{"reason":"took every stream","expires_in":"1h"}"#).await;
    assert_eq!((denied.status(), &denied.json()["ended"]), (200, &json!(STREAMS_TOTAL)), "{denied:?}");
    for mut stream in taken {
        let rest = String::from_utf8(stream.raw.rest().await).expect("text");
        assert!(rest.contains("retry: ") && rest.ends_with("0\r\n\r\n"), "a clean end: {rest:?}");
    }
    let again = Raw::from(attacker, server.address).await.get(PATH, "").await;
    assert_eq!(again.status(), 403, "{again:?}");
    assert!(again.text().contains("took every stream"), "{again:?}");

    let told = Raw::from(attacker, server.address).await.get("/health", "").await;
    assert_ne!(told.status(), 403, "health is told to everybody");
    assert!(server.stderr().contains("took every stream"), "it is remembered why");
}

#[tokio::test]
async fn one_address_that_takes_every_stream_is_seen_denied_and_gone_without_a_restart() {
    let total = STREAMS_TOTAL.to_string();
    // The limit per client is not there, or far too high: what held in 2019.
    let options = Options::default().env("SLUICE__LIMITS__STREAMS_TOTAL", &total).env("SLUICE__HTTP__WORKERS", "4");
    let options = options.env("SLUICE__HEALTH__CANARY_EVERY", "250ms");
    let server = Server::start(options).await;
    let pid = server.pid();
    let flows = eventually(PATIENCE, async || health(&server).await.1["state"] == "quiet").await;
    assert!(flows, "{:?}", health(&server).await);

    let attacker = Ipv4Addr::new(127, 66, 6, 6);
    let mut taken = Vec::new();
    for _ in 0..STREAMS_TOTAL {
        let user_agent = format!("User-Agent: {}\r\n", "x".repeat(5_000));
        taken.push(Stream::open_on(Raw::from(attacker, server.address).await, PATH, &user_agent).await);
    }
    // Everybody else is only asked for patience now.
    assert!(!is_served(&server).await);
    let plain = Raw::as_somebody_new(server.address).await.get(PATH, "Accept: application/json\r\n").await;
    assert_eq!((plain.status(), plain.header("retry-after").is_empty()), (503, false), "{plain:?}");
    assert_eq!((&plain.json()["limit"], &plain.json()["in_use"]), (&json!(STREAMS_TOTAL), &json!(STREAMS_TOTAL)));

    // The canary makes its trip all the same, and the verdict says what is wrong; both listeners tell.
    let (status, verdict) = health(&server).await;
    assert_eq!((status, &verdict["state"]), (503, &json!("full")), "{verdict}");
    assert!(verdict["do"].as_str().is_some_and(|cure| cure.contains("sluice admin")), "{verdict}");
    let since = verdict["since"].clone();
    let made = async || server.metric("sluice_canary_seconds_count").await;
    let before = made().await;
    // Past the next time that its stream is opened anew.
    let makes_it = eventually(PATIENCE, async || made().await > before + 12.0).await;
    assert!(makes_it, "the canary has places of its own");
    let (_, verdict) = health(&server).await;
    assert_eq!((&verdict["state"], &verdict["since"]), (&json!("full"), &since), "{verdict}");
    let public = Raw::as_somebody_new(server.address).await.get("/health", "").await;
    assert_eq!((public.status(), &public.json()["state"]), (503, &json!("full")));

    // Who is it?
    let seen = clients(&server, "?top=1&by=count").await;
    assert_eq!(
        (&seen["keys"][0]["key"], &seen["keys"][0]["count"]),
        (&json!("127.66.6.6"), &json!(STREAMS_TOTAL)),
        "{seen}"
    );

    let user_agent = seen["clients"][0]["user_agent"].as_str().expect("a user agent");
    assert!((1..=200).contains(&user_agent.len()), "{user_agent}");
    let nobody = server.ask_admin("DELETE", "/clients?key=127.66.6", "").await;
    assert_eq!((nobody.status(), &nobody.json()["ended"]), (200, &json!(0)), "a key is a whole key");

    deny(&server, attacker, taken).await;

    // And everybody else is served.
    let mut reader = Stream::open_on(Raw::as_somebody_new(server.address).await, PATH, "").await;
    server.put(&event("after")).await;
    assert_eq!(reader.event().await.json()["test"], "after");
    let flows = eventually(PATIENCE, async || health(&server).await.1["state"] == "flowing").await;
    assert!(flows, "{:?}", health(&server).await);
    assert_eq!(server.pid(), pid);
    assert_eq!(server.stderr().matches("health: full").count(), 1, "said once, for people who are called");
}
