//! A Chromium without a window, driven over a pipe by its DevTools protocol: one JSON document per message, ended by NUL.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::PATIENCE;

/// The protocol is spoken on descriptors 3 and 4; the shell puts them there, where Rust would need `unsafe`.
const START: &str = r#"exec chromium "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>&1"#;

const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
];

/// What of a page's doings is kept.
const HEARD: [&str; 5] = [
    "Page.loadEventFired",
    "Network.requestWillBeSent",
    "Runtime.consoleAPICalled",
    "Runtime.exceptionThrown",
    "Log.entryAdded",
];
/// Of all pages together. A test that makes more than this has gone mad, and fails.
const HEARD_MAX: usize = 10_000;

/// Killed when it is dropped.
pub struct Browser {
    wire: Arc<Wire>,
    process: Child,
    _listener: JoinSet<()>,
    _profile: TempDir,
}

pub struct Page {
    wire: Arc<Wire>,
    session: String,
}

struct Wire {
    commands: tokio::sync::Mutex<ChildStdin>,
    next_id: AtomicU64,
    /// By the command's id; none when the browser has gone.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Value>>>>,
    heard: watch::Sender<Vec<Value>>,
}

impl Browser {
    pub async fn start() -> Self {
        let profile = tempfile::Builder::new().prefix("sluice-browser-").tempdir().expect("a folder");
        let mut command = Command::new("sh");
        command.args(["-c", START, "sh"]).args(FLAGS);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut process = command.spawn().expect("a shell");
        let commands = process.stdin.take().expect("it is piped");
        let answers = process.stdout.take().expect("it is piped");
        let wire = Arc::new(Wire {
            commands: tokio::sync::Mutex::new(commands),
            next_id: AtomicU64::new(1),
            waiting: Mutex::new(Some(HashMap::new())),
            heard: watch::Sender::new(Vec::new()),
        });
        let mut listener = JoinSet::new();
        listener.spawn(listen(wire.clone(), answers));
        let browser = Self { wire, process, _listener: listener, _profile: profile };
        browser.wire.call(None, "Browser.getVersion", json!({})).await;
        browser
    }

    /// A page in a tab of its own, loaded. What it may load or connect to is not limited by its own policy.
    pub async fn open(&self, url: &str) -> Page {
        let target = self.wire.call(None, "Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.wire.call(None, "Target.attachToTarget", attach).await;
        let session = attached["sessionId"].as_str().expect("a session").to_owned();
        let page = Page { wire: self.wire.clone(), session };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({})).await;
        }
        page.call("Page.setBypassCSP", json!({ "enabled": true })).await;
        let loads = page.heard("Page.loadEventFired").len();
        let gone = page.call("Page.navigate", json!({ "url": url })).await;
        assert_eq!(gone["errorText"], Value::Null, "{url} cannot be opened");
        page.until("the page to load", || page.heard("Page.loadEventFired").len() > loads).await;
        page
    }

    /// Ends it and waits, so that its folder can be removed.
    pub async fn close(mut self) {
        self.wire.call(None, "Browser.close", json!({})).await;
        let ended = timeout(PATIENCE, self.process.wait()).await;
        assert!(matches!(ended, Ok(Ok(_))), "Chromium does not end");
    }
}

impl Page {
    /// The value of an expression; of a promise, what it comes to. What it throws fails the test.
    pub async fn evaluate(&self, expression: &str) -> Value {
        let ask = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", ask).await;
        assert_eq!(answer["exceptionDetails"], Value::Null, "{expression} throws");
        answer["result"]["value"].clone()
    }

    /// `METHOD URL` of everything that the page has asked for, preflights too.
    pub fn requests(&self) -> Vec<String> {
        let line = |event: &Value| {
            let request = &event["params"]["request"];
            format!("{} {}", request["method"].as_str().unwrap_or("?"), request["url"].as_str().unwrap_or("?"))
        };
        self.heard("Network.requestWillBeSent").iter().map(line).collect()
    }

    /// What a developer would see in red: errors in the console, uncaught exceptions, what the browser refused.
    #[allow(dead_code, reason = "for the tests of pages")]
    pub fn errors(&self) -> Vec<String> {
        let console = self.heard("Runtime.consoleAPICalled").into_iter().filter(|e| e["params"]["type"] == "error");
        let log = self.heard("Log.entryAdded").into_iter().filter(|e| e["params"]["entry"]["level"] == "error");
        let thrown = self.heard("Runtime.exceptionThrown").into_iter();
        console.chain(log).chain(thrown).map(|event| event["params"].to_string()).collect()
    }

    /// As PNG.
    #[allow(dead_code, reason = "for the tests of pages")]
    pub async fn screenshot(&self) -> Vec<u8> {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        BASE64_STANDARD.decode(shot["data"].as_str().expect("a picture")).expect("base64")
    }

    pub async fn call(&self, method: &str, params: Value) -> Value {
        self.wire.call(Some(&self.session), method, params).await
    }

    fn heard(&self, method: &str) -> Vec<Value> {
        let of_page = |event: &&Value| event["sessionId"] == self.session.as_str() && event["method"] == method;
        self.wire.heard.borrow().iter().filter(of_page).cloned().collect()
    }

    async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let mut heard = self.wire.heard.subscribe();
        let wait = async {
            while !holds() {
                heard.changed().await.expect("the browser speaks");
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited for {what}"));
    }
}

impl Wire {
    async fn call(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        if let Some(waiting) = self.waiting.lock().as_mut() {
            waiting.insert(id, answer);
        }
        let mut command = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            command["sessionId"] = json!(session);
        }
        let mut message = command.to_string().into_bytes();
        message.push(0);
        // A browser that is not there closes the pipe; that it is missing is said below.
        let _ = self.commands.lock().await.write_all(&message).await;
        let mut answer = match timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => panic!(
                "Chromium does not run, or has ended: install it (Debian: `apt-get install chromium`), or leave these \
                 tests out with SLUICE_TEST_CLIENTS=off"
            ),
            Err(_) => panic!("Chromium does not answer to {method}"),
        };
        assert_eq!(answer["error"], Value::Null, "{method}");
        answer["result"].take()
    }
}

/// Hands every answer to who waits for it. When the browser is gone nobody shall wait any longer.
async fn listen(wire: Arc<Wire>, answers: ChildStdout) {
    let mut answers = BufReader::new(answers);
    loop {
        let mut message = Vec::new();
        let read = answers.read_until(0, &mut message).await;
        if !matches!(read, Ok(bytes) if bytes > 0) {
            break *wire.waiting.lock() = None;
        }
        let message: Value = serde_json::from_slice(message.strip_suffix(b"\0").unwrap_or(&message)).expect("JSON");
        let asker = message["id"].as_u64().and_then(|id| wire.waiting.lock().as_mut()?.remove(&id));
        if let Some(asker) = asker {
            // Nobody waits any longer for an answer that came too late.
            let _ = asker.send(message);
        } else if message["method"].as_str().is_some_and(|method| HEARD.contains(&method)) {
            wire.heard.send_modify(|heard| heard.push(message));
            assert!(wire.heard.borrow().len() < HEARD_MAX, "the pages do too much");
        }
    }
}
