//! Pages of another origin: what a browser lets them send and read. Native `EventSource` is in `restarts`.

use serde_json::{Value, json};

use crate::browser::{Browser, Page};
use crate::server::{Options, Server};
use crate::site::Site;

/// Reads one event of a stream with `fetch`, and its id.
const READER: &str = "
    async function first(url, headers) {
        const stop = new AbortController();
        const answer = await fetch(url, {headers, cache: 'no-store', signal: stop.signal});
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        let text = '';
        while (!/^data: .*\\n\\n/m.test(text)) text += (await reader.read()).value;
        stop.abort();
        return {id: text.match(/^id: (.*)$/m)[1], number: JSON.parse(text.match(/^data: (.*)$/m)[1]).number};
    }";

struct Elsewhere {
    server: Server,
    browser: Browser,
    page: Page,
    _site: Site,
}

/// A server with two events, and a page of another origin.
async fn elsewhere() -> Elsewhere {
    let server = Server::start(Options::default()).await;
    for number in 0..2 {
        server.put(&event(number)).await;
    }
    let (browser, site) = (Browser::start().await, Site::start().await);
    let page = browser.open(&site.url()).await;
    Elsewhere { server, browser, page, _site: site }
}

fn event(number: u64) -> Value {
    json!({ "$schema": "/test/event/1.0.0", "meta": { "stream": "test.event" }, "number": number })
}

#[tokio::test]
#[cfg_attr(without_clients, ignore = "SLUICE_TEST_CLIENTS=off")]
async fn a_page_of_another_origin_streams_with_and_without_an_id_and_a_token() {
    let Elsewhere { server, browser, page, .. } = elsewhere().await;
    page.evaluate(READER).await;
    let stream = |name: &str| format!("http://{}/v2/stream/test.event?since=0&{name}", server.address);
    let first = page.evaluate(&format!("first({:?}, {{}})", stream("bare"))).await;
    assert_eq!(first["number"], 0);
    let id = first["id"].as_str().expect("an id");
    let table = [
        ("id", json!({ "Last-Event-ID": id }), 1),
        ("token", json!({ "Authorization": "Bearer x" }), 0),
        ("both", json!({ "Last-Event-ID": id, "Authorization": "Bearer x", "Cache-Control": "no-cache" }), 1),
    ];
    for (name, headers, number) in table {
        let given = page.evaluate(&format!("first({:?}, {headers})", stream(name))).await;
        assert_eq!(given["number"], number, "{name}");
    }
    let asked = page.requests();
    let preflights = |name: &str| asked.iter().filter(|asked| **asked == format!("OPTIONS {}", stream(name))).count();
    assert_eq!(["bare", "id", "token", "both"].map(preflights), [0, 1, 1, 1], "{asked:?}");
    browser.close().await;
}

#[tokio::test]
#[cfg_attr(without_clients, ignore = "SLUICE_TEST_CLIENTS=off")]
async fn a_page_of_another_origin_posts_events_and_reads_the_sentence() {
    let Elsewhere { server, browser, page, .. } = elsewhere().await;
    let post = format!(
        "(async () => {{
             const answer = await fetch('http://{}/v1/events', {{
                 method: 'POST', headers: {{'Content-Type': 'application/json'}}, body: {:?},
             }});
             return {{status: answer.status, message: answer.headers.get('Sluice-Message')}};
         }})()",
        server.address,
        event(2).to_string(),
    );
    let answer = page.evaluate(&post).await;
    assert_eq!(answer, json!({ "status": 201, "message": "All 1 out of 1 events were accepted." }));
    let asked = page.requests();
    assert!(asked.contains(&format!("OPTIONS http://{}/v1/events", server.address)), "{asked:?}");
    let mut stream = server.stream("/v2/stream/test.event?since=0", "").await;
    assert_eq!(stream.numbers_until(|numbers| numbers.len() == 3).await, [0, 1, 2]);
    browser.close().await;
}

#[tokio::test]
#[cfg_attr(without_clients, ignore = "SLUICE_TEST_CLIENTS=off")]
async fn a_page_of_another_origin_can_read_why_it_is_refused() {
    let Elsewhere { server, browser, page, .. } = elsewhere().await;
    let ask = format!(
        "fetch('http://{}/v2/stream/test.evnt', {{headers: {{'Last-Event-ID': '[]'}}}}).then(async answer => ({{
             status: answer.status, kind: answer.headers.get('Content-Type'), problem: await answer.json(),
         }}))",
        server.address
    );
    let refusal = page.evaluate(&ask).await;
    assert_eq!((&refusal["status"], &refusal["kind"]), (&json!(404), &json!("application/problem+json")), "{refusal}");
    assert_eq!(refusal["problem"]["nearest"][0], "test.event", "{refusal}");
    browser.close().await;
}
