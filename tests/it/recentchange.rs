//! Real events through all of it: nine of EventStreams' own, POSTed, and read back by curl.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::engine::{Engine, on_both_engines};
use crate::server::{Options, Server};
use crate::support::{PATIENCE, unique};

/// As the wire had them on 2025-08-29.
const CAPTURED: &str = include_str!("../data/recentchange_2025-08-29_raw.sse");

async fn nine_real_events_come_back_byte_for_byte_but_for_their_place(engine: Engine) {
    let (eqiad, codfw) = (unique("eqiad.recentchange"), unique("codfw.recentchange"));
    let streams = format!(
        "mediawiki.recentchange: {{schema_title: mediawiki/recentchange, stream_aliases: [recentchange], topics: [{eqiad}, {codfw}]}}\n"
    );
    let server = Server::start(engine.options(Options::default().streams(&streams), &[&eqiad, &codfw]).await).await;
    let sent: Vec<&str> = CAPTURED.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(sent.len(), 9);
    for event in &sent {
        let answer = server.post(event).await;
        assert_eq!(answer.status(), 201, "{answer:?}");
    }
    let url = format!("http://{}/v2/stream/recentchange?since=2025-08-29T06:45:00Z", server.address);
    for (offset, (read, sent)) in curl_data(&url, sent.len()).await.iter().zip(&sent).enumerate() {
        let place = format!(r#","topic":"{eqiad}","partition":0,"offset":{offset}}}"#);
        assert!(read.contains(&place), "{place} in {read}");
        assert_eq!(without_place(read), without_place(sent));
    }
}

/// The first `data:` lines that curl prints of an endless stream.
async fn curl_data(url: &str, count: usize) -> Vec<String> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--no-buffer", url]).stdout(Stdio::piped()).kill_on_drop(true);
    let mut curl = command.spawn().expect("curl is installed");
    let mut lines = BufReader::new(curl.stdout.take().expect("a pipe")).lines();
    let mut found = Vec::new();
    while found.len() < count {
        let line = timeout(PATIENCE, lines.next_line()).await.expect("curl prints on").expect("UTF-8");
        let line = line.expect("curl goes on reading");
        found.extend(line.strip_prefix("data: ").map(str::to_owned));
    }
    found
}

/// Without `meta.topic`, `meta.partition` and `meta.offset`, which end `meta` here and there.
fn without_place(event: &str) -> String {
    let (before, after) = event.split_once(r#","topic":""#).expect("a topic in meta");
    let (_, after) = after.split_once('}').expect("the end of meta");
    format!("{before}}}{after}")
}

on_both_engines!(nine_real_events_come_back_byte_for_byte_but_for_their_place);
