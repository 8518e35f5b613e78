//! Several clients on one stream: events for them, waiting for all, and whether each had what it must have.

use serde_json::{Value, json};

use crate::follower::Follower;
use crate::server::Server;
use crate::support::{PATIENCE, eventually};

/// One that wikimedia-streams knows. Two topics, so that ids have two entries, as most have in production.
pub const CATALOGUE: &str = "
eventgate-main.test.event:
  schema_title: test/event
  stream_aliases: [test]
  topics: [eqiad.eventgate-main.test.event, codfw.eventgate-main.test.event]
";
pub const STREAM: &str = "eventgate-main.test.event";

/// Waits until so many streams are open.
pub async fn until_reading(server: &Server, clients: usize) {
    let clients = f64::from(u32::try_from(clients).expect("a few"));
    let reading = eventually(PATIENCE, async || server.metric("sluice_streams_open").await >= clients).await;
    assert!(reading, "not every client has come:\n{}", server.stderr());
}

/// In one POST, the whole of it accepted. How many there are then.
pub async fn post(server: &Server, from: u64, events: u64) -> u64 {
    let event = |number: u64| json!({ "$schema": "/test/event/1.0.0", "meta": { "stream": STREAM, "domain": "test.example" }, "number": number });
    let batch: Vec<Value> = (from..from + events).map(event).collect();
    let answer = server.post(&json!(batch).to_string()).await;
    assert_eq!(answer.status(), 201, "{answer:?}; the log:\n{}", server.stderr());
    from + events
}

/// Each in its own time; who does not come is named together with the others that do not.
pub async fn until_all(followers: &mut [Follower], posted: u64) {
    let waits = followers.iter_mut().map(|follower| follower.until(posted - 1));
    let faults: Vec<String> = futures_util::future::join_all(waits).await.into_iter().filter_map(Result::err).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

pub fn each_has_every_number_once(followers: &[Follower], posted: u64) {
    let faults: Vec<String> = followers.iter().filter_map(|follower| fault_of(follower, posted)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Every number once and in order, each with an id of its own.
fn fault_of(follower: &Follower, posted: u64) -> Option<String> {
    let given = follower.given();
    let numbers: Vec<u64> = given.iter().map(|event| event.number).collect();
    let wrong = numbers.iter().zip(0..).position(|(number, wanted)| *number != wanted);
    if let Some(at) = wrong {
        return Some(format!(
            "{}: {:?} at {at}",
            follower.name,
            &numbers[at.saturating_sub(2)..numbers.len().min(at + 5)]
        ));
    }
    if numbers.len() as u64 != posted {
        return Some(format!("{}: {} of {posted}", follower.name, numbers.len()));
    }
    let repeated = given.windows(2).find(|pair| pair[0].id == pair[1].id || pair[1].id.is_empty());
    repeated.map(|pair| format!("{}: two events with one id, or with none: {pair:?}", follower.name))
}
