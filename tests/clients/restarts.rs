//! Every client at once, on one stream, over a server that stops and starts again and one that is killed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use eventsource_client::{Client, ClientBuilder, ReconnectOptions, SSE};
use futures_util::StreamExt;
use launchdarkly_sdk_transport::HyperTransport;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::browser::{Browser, Page};
use crate::follower::{Follower, Given, Giving};
use crate::kit;
use crate::server::{Options, Server};
use crate::site::Site;
use crate::support::{PATIENCE, eventually};

/// One that wikimedia-streams knows. Two topics, so that ids have two entries, as most have in production.
const CATALOGUE: &str = "
eventgate-main.test.event:
  schema_title: test/event
  stream_aliases: [test]
  topics: [eqiad.eventgate-main.test.event, codfw.eventgate-main.test.event]
";
const STREAM: &str = "eventgate-main.test.event";

/// Events of one step.
const STEP: u64 = 100;
/// Events of one POST while everybody reads.
const BATCH: u64 = 10;

#[tokio::test]
#[cfg_attr(without_clients, ignore = "SLUICE_TEST_CLIENTS=off")]
async fn no_client_loses_or_repeats_an_event_over_a_restart_and_a_kill() {
    let options = Options::default().streams(CATALOGUE).env("SLUICE__HUB__RETRY", "1s");
    let mut server = Server::start(options).await;
    let (folder, site, browser) = (tempfile::tempdir().expect("a folder"), Site::start().await, Browser::start().await);
    let mut followers = everybody(&server, &folder, &site, &browser).await;
    let reading = eventually(PATIENCE, async || server.metric("sluice_streams_open").await >= count(&followers)).await;
    assert!(reading, "not every client has come:\n{}", server.stderr());

    let mut posted = 0;
    while posted < STEP {
        posted = post(&server, posted, BATCH).await;
    }
    until_all(&mut followers, posted).await;

    // The stop meets a stream that is full of what nobody has read yet, and more comes before they are back.
    posted = post(&server, posted, STEP).await;
    assert!(server.stop().await.success());
    server.start_again().await;
    posted = post(&server, posted, STEP).await;
    until_all(&mut followers, posted).await;

    posted = post(&server, posted, STEP).await;
    server.kill().await;
    server.start_again().await;
    posted = post(&server, posted, STEP).await;
    until_all(&mut followers, posted).await;

    let faults: Vec<String> = followers.iter().filter_map(|follower| fault_of(follower, posted)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    drop(followers);
    browser.close().await;
}

async fn everybody(server: &Server, folder: &TempDir, site: &Site, browser: &Browser) -> Vec<Follower> {
    let url = format!("http://{}/v2/stream/{STREAM}", server.address);
    let kits = tokio::task::spawn_blocking(|| (kit::python(), kit::node())).await.expect("it does not panic");
    let (python, node) =
        (kits.0.unwrap_or_else(|fault| panic!("{fault}")), kits.1.unwrap_or_else(|fault| panic!("{fault}")));
    let run = |name: &'static str, mut command: Command| {
        command.arg(&url);
        Follower::run(name, command, folder.path())
    };
    let script = |program: &Path, script: &str| {
        let mut command = Command::new(program);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/scripts").join(script));
        command.env("NODE_PATH", &node.modules);
        command
    };
    let mut built_in = Command::new(&node.node);
    built_in.arg("--experimental-eventsource");
    built_in.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/scripts/node_eventsource.cjs"));
    let own_page = browser.open(&format!("http://{}/_info", server.address)).await;
    let other_page = browser.open(&site.url()).await;
    vec![
        run("curl", script(Path::new("bash"), "curl.sh")),
        run("requests-sse", script(&python, "requests_sse_reader.py")),
        run("sseclient-py", script(&python, "sseclient_py.py")),
        run("aiohttp-sse-client", script(&python, "aiohttp_sse.py")),
        run("pywikibot", script(&python, "pywikibot_eventstreams.py")),
        run("eventsource 2", script(&node.node, "eventsource2.cjs")),
        run("eventsource 5", script(&node.node, "eventsource5.cjs")),
        run("Node's EventSource", built_in),
        run("wikimedia-streams", script(&node.node, "wikimedia_streams.cjs")),
        rust_client(&url),
        in_page("Chromium, same origin", own_page, &url),
        in_page("Chromium, another origin", other_page, &url),
    ]
}

/// The crate `eventsource-client`.
fn rust_client(url: &str) -> Follower {
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
fn in_page(name: &'static str, page: Page, url: &str) -> Follower {
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

fn count(followers: &[Follower]) -> f64 {
    f64::from(u32::try_from(followers.len()).expect("a few"))
}

/// In one POST, the whole of it accepted. How many there are then.
async fn post(server: &Server, from: u64, events: u64) -> u64 {
    let event = |number: u64| json!({ "$schema": "/test/event/1.0.0", "meta": { "stream": STREAM, "domain": "test.example" }, "number": number });
    let batch: Vec<Value> = (from..from + events).map(event).collect();
    let answer = server.post(&json!(batch).to_string()).await;
    assert_eq!(answer.status(), 201, "{answer:?}; the log:\n{}", server.stderr());
    from + events
}

/// Each in its own time; who does not come is named together with the others that do not.
async fn until_all(followers: &mut [Follower], posted: u64) {
    let waits = followers.iter_mut().map(|follower| follower.until(posted - 1));
    let faults: Vec<String> = futures_util::future::join_all(waits).await.into_iter().filter_map(Result::err).collect();
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
