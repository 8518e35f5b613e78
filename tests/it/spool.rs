//! What waits on disk while the log is away, as producers and operators see it.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::engine::event_at;
use crate::raw::Answer;
use crate::server::{Options, Server, sluice};
use crate::support::{PATIENCE, eventually};

/// A Kafka that never answers.
fn away() -> Options {
    Options::default().kafka("127.0.0.1:1").unready().env("SLUICE__INTAKE__DEADLINE", "2s")
}

fn spooling() -> Options {
    away().env("SLUICE__INTAKE__SPOOL__ENABLED", "true")
}

fn event() -> String {
    event_at("test.event", 0, 0).to_string()
}

async fn seen(server: &Server) -> Value {
    let answer = server.ask_admin("GET", "/spool", "").await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    answer.json()
}

fn says(answer: &Answer) -> &str {
    answer.header("sluice-message")
}

#[tokio::test]
async fn while_the_log_is_away_events_are_answered_202_and_survive_a_kill() {
    let mut server = Server::start(spooling()).await;
    let one = server.post(&event()).await;
    assert_eq!((one.status(), one.text()), (202, String::new()), "{one:?}");
    let sentence = "All 1 out of 1 events were accepted. 1 of them is spooled, and goes to the log when that is back.";
    assert_eq!((says(&one), one.head.reason()), (sentence, sentence));
    let some = server.post(&format!("[{},7]", event())).await;
    assert_eq!(some.status(), 207, "{some:?}");
    assert!(says(&some).contains("1 of them is spooled"), "{some:?}");
    server.kill().await;
    server.start_again().await;
    let spool = seen(&server).await;
    assert_eq!((&spool["events"], &spool["aside_events"], &spool["fault"]), (&json!(2), &json!(0), &Value::Null));
    assert!(spool["oldest"].is_string() && spool["bytes"].as_u64() > Some(100), "{spool}");
    assert_eq!(server.post(&event()).await.status(), 202, "behind the others");
    let counted = eventually(PATIENCE, async || server.metric("sluice_spool_events").await == 3.0).await;
    assert!(counted && server.metric("sluice_spooled_total").await == 1.0);
    assert!(server.metric("sluice_spool_oldest_seconds").await > 0.0);
    assert!(server.stop().await.success(), "what waits keeps nobody from stopping");
}

#[tokio::test]
async fn a_full_spool_and_none_are_503() {
    let full = Server::start(spooling().env("SLUICE__INTAKE__SPOOL__MAX_BYTES", "2000")).await;
    while full.post(&event()).await.status() == 202 {}
    let none = Server::start(away()).await;
    for (server, why) in [(&full, "intake.spool.max_bytes"), (&none, "the log")] {
        let answer = server.post(&event()).await;
        assert_eq!((answer.status(), answer.header("retry-after")), (503, "1"), "{answer:?}");
        let item = &answer.json()["error"][0];
        assert!(item["context"]["message"].as_str().is_some_and(|text| text.contains(why)), "{item}");
    }
    assert!(seen(&full).await["fault"].as_str().is_some_and(|fault| fault.contains("full")));
    assert!(full.metric("sluice_spool_faults_total").await > 0.0);
    assert_eq!(none.ask_admin("GET", "/spool", "").await.status(), 404);
}

#[tokio::test]
async fn operators_see_the_spool_and_act_on_what_was_set_aside() {
    let server = Server::start(spooling()).await;
    assert_eq!(server.post(&event()).await.status(), 202);
    let url = format!("http://{}", server.admin);
    let ask = async |words: &[&str]| {
        let mut command = Command::from(sluice());
        let output = command.arg("admin").args(words).args(["--url", &url]).output().await.expect("it runs");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    let spool = ask(&["spool"]).await;
    assert_eq!((&spool["events"], &spool["aside"], &spool["truncated"]), (&json!(1), &json!([]), &json!(false)));
    assert_eq!(ask(&["spool", "retry"]).await, json!({ "retried": 0 }));
    assert_eq!(ask(&["spool", "drop"]).await, json!({ "dropped": 0 }));
    assert_eq!(seen(&server).await["events"], 1, "what waits is not dropped");
    for (method, target) in [("POST", "/spool"), ("GET", "/spool/retry"), ("GET", "/spool/aside")] {
        assert_eq!(server.ask_admin(method, target, "").await.status(), 405, "{method} {target}");
    }
    assert_eq!(server.ask_admin("GET", "/spool?limit=x", "").await.status(), 400);
}

#[tokio::test]
async fn with_a_log_that_takes_events_the_spool_stays_empty() {
    let server = Server::start(Options::default().env("SLUICE__INTAKE__SPOOL__ENABLED", "true")).await;
    server.put(&event_at("test.event", 0, 0)).await;
    assert_eq!(seen(&server).await["events"], 0);
}
