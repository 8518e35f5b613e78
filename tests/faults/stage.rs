//! A server whose verdict is watched while faults come and go: what it says, how soon, and what it says in between.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Output;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use crate::raw::Raw;
use crate::server::{Options, Server, sluice};
use crate::support::{PATIENCE, eventually};

/// From the beginning of a fault until the verdict says what is wrong, and from its end until all is well again. What is
/// merely silent is told after `health.stall_after`, which is as long; the rest is the way of the question.
const SAID_WITHIN: Duration = Duration::from_secs(31);
const LEFT_WITHIN: Duration = Duration::from_secs(30);

const STATES: [&str; 8] =
    ["flowing", "quiet", "not_exposed", "degraded", "starting", "full", "stalled", "log_unreachable"];
const WELL: [&str; 2] = ["flowing", "quiet"];

/// One fault: how long it took to say it, and to take it back.
#[derive(Clone, Debug)]
struct Row {
    state: &'static str,
    fault: &'static str,
    said: Duration,
    left: Duration,
    to: String,
}

/// Of all tests of this process that have ended.
static TABLE: Mutex<Vec<Row>> = Mutex::new(Vec::new());

/// What has been said and not been left yet.
struct Open {
    state: &'static str,
    fault: &'static str,
    said: Duration,
}

/// A producer of single events.
#[derive(Clone, Copy)]
pub struct Poster(SocketAddr);

impl Poster {
    /// The answer's status.
    pub async fn post(self, stream: &str, text: &str) -> u16 {
        let event = json!({ "$schema": "/test/event/1.0.0", "meta": { "stream": stream }, "test": text });
        Raw::connect(self.0).await.post(&event.to_string()).await.status()
    }
}

pub struct Stage {
    pub server: Server,
    open: Option<Open>,
    rows: Vec<Row>,
    /// Changes of the state that were looked at.
    seen: usize,
}

impl Stage {
    /// Nothing is waited for but that it listens.
    pub async fn start(options: Options) -> Self {
        let server = Server::start(options.unready()).await;
        Self { server, open: None, rows: Vec::new(), seen: 0 }
    }

    /// The fault happens, and the verdict comes to say this of the host; what it says then.
    pub async fn says(&mut self, state: &'static str, fault: &'static str, happens: impl Future<Output = ()>) -> Value {
        self.says_by(&[], state, fault, happens).await
    }

    /// The same; before it any of these states may be said.
    pub async fn says_by(
        &mut self,
        on_the_way: &[&'static str],
        state: &'static str,
        fault: &'static str,
        happens: impl Future<Output = ()>,
    ) -> Value {
        let begun = Instant::now();
        happens.await;
        // A broker that comes back takes its own time to start, which is not ours.
        let ended = Instant::now();
        let (told, _) = self.until(&[state], fault).await;
        let said = begun.elapsed();
        assert!(said < SAID_WITHIN, "{fault}: {state} is said only after {said:?}; the log:\n{}", self.server.stderr());
        self.changes_are(&[on_the_way, &[state]].concat(), fault);
        if let Some(open) = self.open.take() {
            self.close(open, ended.elapsed(), state);
        }
        self.open = Some(Open { state, fault, said });
        self.outside_check(state).await;
        told
    }

    /// The fault ends, and the host is well again, with no other state in between.
    pub async fn leaves(&mut self, ends: impl Future<Output = ()>) -> Value {
        self.leaves_by(&[], ends).await
    }

    /// The same; on the way any of these states may be said.
    pub async fn leaves_by(&mut self, on_the_way: &[&'static str], ends: impl Future<Output = ()>) -> Value {
        let open = self.open.take().expect("a fault");
        ends.await;
        let ended = Instant::now();
        let (told, to) = self.until(&WELL, open.fault).await;
        let left = ended.elapsed();
        let (state, fault) = (open.state, open.fault);
        assert!(left < LEFT_WITHIN, "{fault}: {state} is left only after {left:?}; the log:\n{}", self.server.stderr());
        self.changes_are(&[on_the_way, &WELL].concat(), fault);
        self.close(open, left, to);
        self.outside_check(to).await;
        told
    }

    /// It has been ready since the start, and a log that is lost does not change that.
    pub async fn is_ready(&self) {
        let ready = self.server.get("/readyz").await;
        assert_eq!(ready.status(), 200, "{ready:?}");
    }

    pub async fn is_not_ready(&self) {
        let ready = self.server.get("/readyz").await;
        assert_eq!(ready.status(), 503, "{ready:?}");
    }

    /// What operators are told, with the words that are not for everybody.
    pub async fn told_to_operators(&self) -> Value {
        self.server.ask_admin("GET", "/health", "").await.json()
    }

    /// Status and body; `query` with its question mark.
    pub async fn health(&self, query: &str) -> (u16, Value) {
        let answer = self.server.get(&format!("/health{query}")).await;
        (answer.status(), answer.json())
    }

    /// Since the start.
    pub async fn canaries_lost(&self) -> f64 {
        let answer = self.server.ask_admin("GET", "/metrics", "").await;
        let name = "sluice_canary_trips_total{result=\"failed\"} ";
        let value = answer.text().lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
        value.unwrap_or_default()
    }

    /// For a fault that posts.
    pub fn poster(&self) -> Poster {
        Poster(self.server.address)
    }

    /// Puts what was seen into the table of this process, and shows it.
    pub fn end(self) {
        assert!(self.open.is_none(), "a state was not left");
        let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
        table.extend(self.rows);
        let mut rows: Vec<&Row> = table.iter().collect();
        rows.sort_by_key(|row| STATES.iter().position(|state| *state == row.state));
        println!("{}", written(&rows));
    }

    /// Waits until the host's state is one of these.
    async fn until(&self, states: &[&'static str], why: &str) -> (Value, &'static str) {
        let (mut told, mut found) = ((0, Value::Null), None);
        let came = eventually(PATIENCE, async || {
            told = self.health("").await;
            found = states.iter().copied().find(|state| told.1["state"] == *state);
            found.is_some()
        });
        let came = came.await;
        let (Some(state), true) = (found, came) else {
            let told = self.told_to_operators().await;
            panic!("{why}: none of {states:?} is said: {told:#}; the log:\n{}", self.server.stderr());
        };
        let (status, told) = told;
        assert_eq!(status, status_of(state), "{told}");
        let what_to_do = told["do"].as_str().expect("what to do");
        assert_eq!(what_to_do.is_empty(), WELL.contains(&state), "{told}");
        assert!(!told.to_string().contains("127.0.0.1"), "no address is told to everybody: {told}");
        (told, state)
    }

    /// Each change is logged once: since the last look there were some of these and no others, and no state came twice.
    fn changes_are(&mut self, states: &[&str], why: &str) {
        let log = self.server.stderr();
        let mut changes: Vec<&str> = log.lines().filter_map(change).skip(self.seen).collect();
        self.seen += changes.len();
        changes.dedup_by(|one, other| WELL.contains(one) && WELL.contains(other));
        let is_expected = changes.iter().all(|state| states.contains(state));
        let mut once = changes.clone();
        once.sort_unstable();
        once.dedup();
        assert!(
            is_expected && once.len() == changes.len(),
            "{why}: it said {changes:?}, not {states:?}; the log:\n{log}"
        );
    }

    fn close(&mut self, open: Open, left: Duration, to: &str) {
        let Open { state, fault, said } = open;
        self.rows.push(Row { state, fault, said, left, to: to.to_owned() });
    }

    /// `sluice check` says the same, in Nagios' numbers.
    async fn outside_check(&self, state: &str) {
        let mut command = Command::from(sluice());
        command.arg("check").arg(format!("http://{}", self.server.address));
        command.env_remove("SLUICE_TOKEN").kill_on_drop(true);
        let checked = timeout(PATIENCE, command.output()).await.expect("it ends by itself");
        let Output { status, stdout, .. } = checked.expect("it runs");
        let line = String::from_utf8_lossy(&stdout);
        let (code, word) = match state {
            "flowing" | "quiet" | "not_exposed" => (0, "OK"),
            "degraded" => (1, "WARNING"),
            _ => (2, "CRITICAL"),
        };
        let said = line.starts_with(&format!("SLUICE {word} - {state}"))
            // A moment later it may be the other one.
            || WELL.contains(&state) && line.starts_with("SLUICE OK - ");
        assert!(status.code() == Some(code) && said, "{state}: {status}: {line}");
    }
}

/// The state that this line of the log says it has changed to.
fn change(line: &str) -> Option<&'static str> {
    let line: Value = serde_json::from_str(line).ok()?;
    let to = line["fields"]["message"].as_str()?.strip_prefix("health: ")?;
    STATES.into_iter().find(|state| *state == to)
}

fn status_of(state: &str) -> u16 {
    match state {
        "flowing" | "quiet" | "not_exposed" | "degraded" => 200,
        _ => 503,
    }
}

fn written(rows: &[&Row]) -> String {
    let mut table = format!("\n| {:<15} | {:<62} | said after | left after | to              |\n", "state", "fault");
    for Row { state, fault, said, left, to } in rows {
        let (said, left) = (said.as_secs_f64(), left.as_secs_f64());
        let _ = writeln!(table, "| {state:<15} | {fault:<62} | {said:>8.1} s | {left:>8.1} s | {to:<15} |");
    }
    table
}
