//! The clients by name, and how each is started.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use eventsource_client::{Client, ClientBuilder, ReconnectOptions, SSE};
use futures_util::StreamExt;
use launchdarkly_sdk_transport::HyperTransport;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::browser::Page;
use crate::follower::{Follower, Given, Giving};
use crate::kit::{self, Node};

#[derive(Clone, Copy, Debug)]
enum By {
    Bash,
    Python,
    Node,
    /// Node has an `EventSource` too, but not without this flag.
    NodeOwn,
}

/// A client that is a program in `scripts/`.
#[derive(Clone, Copy, Debug)]
pub struct Script(&'static str, By, &'static str);

pub const CURL: Script = Script("curl", By::Bash, "curl.sh");
pub const REQUESTS_SSE: Script = Script("requests-sse", By::Python, "requests_sse_reader.py");
pub const SSECLIENT_PY: Script = Script("sseclient-py", By::Python, "sseclient_py.py");
pub const AIOHTTP_SSE_CLIENT: Script = Script("aiohttp-sse-client", By::Python, "aiohttp_sse.py");
pub const PYWIKIBOT: Script = Script("pywikibot", By::Python, "pywikibot_eventstreams.py");
pub const EVENTSOURCE_2: Script = Script("eventsource 2", By::Node, "eventsource2.cjs");
pub const EVENTSOURCE_5: Script = Script("eventsource 5", By::Node, "eventsource5.cjs");
pub const NODE: Script = Script("Node's EventSource", By::NodeOwn, "node_eventsource.cjs");
pub const WIKIMEDIA_STREAMS: Script = Script("wikimedia-streams", By::Node, "wikimedia_streams.cjs");

/// What the programs run on, and where they complain.
pub struct Stage {
    python: PathBuf,
    node: Node,
    folder: TempDir,
}

impl Stage {
    pub async fn set() -> Self {
        let fetched = tokio::task::spawn_blocking(|| Ok::<_, String>((kit::python()?, kit::node()?))).await;
        let (python, node) = fetched.expect("it does not panic").unwrap_or_else(|fault| panic!("{fault}"));
        Self { python, node, folder: tempfile::tempdir().expect("a folder") }
    }

    pub fn run(&self, Script(name, by, file): Script, url: &str) -> Follower {
        let mut command = Command::new(match by {
            By::Bash => Path::new("bash"),
            By::Python => &self.python,
            By::Node | By::NodeOwn => &self.node.node,
        });
        if let By::NodeOwn = by {
            command.arg("--experimental-eventsource");
        }
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/scripts").join(file)).arg(url);
        command.env("NODE_PATH", &self.node.modules).env("PYTHONDONTWRITEBYTECODE", "1");
        Follower::run(name, command, self.folder.path())
    }
}

/// The crate `eventsource-client`.
pub fn rust_client(url: &str) -> Follower {
    let transport = HyperTransport::builder().build_http().expect("a transport");
    let patience = ReconnectOptions::reconnect(true).delay(Duration::from_millis(500)).build();
    let client = ClientBuilder::for_url(url).expect("a URL").reconnect(patience).build_with_transport(transport);
    Follower::on("eventsource-client", async move |giving: Giving| {
        let mut stream = client.stream();
        while let Some(next) = stream.next().await {
            // It reports a lost connection, and comes back when it is asked for the next event.
            if let Ok(SSE::Event(event)) = next {
                let data: Value = serde_json::from_str(&event.data).expect("JSON");
                let number = data["number"].as_u64().expect("a number");
                giving.send_modify(|all| all.push(Given { id: event.id.unwrap_or_default(), number }));
            }
        }
    })
}

/// The browser's own `EventSource`. What it was given is fetched in bunches; an empty one after a while.
pub fn in_page(name: &'static str, page: Page, url: &str) -> Follower {
    let follow = format!(
        "const given = [];
         let wake = () => {{}};
         new EventSource({url:?}).onmessage = event => {{
             given.push({{id: event.lastEventId, number: JSON.parse(event.data).number}});
             wake();
         }};
         async function take() {{
             if (!given.length) await new Promise(resolve => {{ wake = resolve; setTimeout(resolve, 2000); }});
             return given.splice(0);
         }}"
    );
    let page = Arc::new(page);
    Follower::on(name, async move |giving: Giving| {
        page.evaluate(&follow).await;
        loop {
            let bunch = serde_json::from_value(page.evaluate("take()").await).expect("what the page keeps");
            giving.send_modify(|all| all.extend::<Vec<Given>>(bunch));
        }
    })
}
