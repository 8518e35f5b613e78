//! `sluice admin` against a running server.

use std::process::Output;

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::server::{Options, Server, free_address, sluice};
use crate::support::PATIENCE;

const TOKEN: &str = "sixteen-or-more-bytes";

async fn admin(address: &str, words: &[&str], token: &str) -> Output {
    let mut command = Command::from(sluice());
    command.arg("admin").args(words).env("SLUICE_ADMIN_TOKEN", token).env("USER", "ada").kill_on_drop(true);
    if !address.is_empty() {
        command.args(["--url", address]);
    }
    timeout(PATIENCE, command.output()).await.expect("it ends by itself").expect("it runs")
}

/// What it prints into a pipe, and that it says that all went well.
fn answer(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn the_words_do_what_the_routes_do() {
    let server = Server::start(Options::default()).await;
    let url = format!("http://{}", server.admin);
    let ask = async |words: &[&str]| answer(&admin(&url, words, "").await);
    let mut reader = server.stream("/v2/stream/test.event", "User-Agent: x\r\n").await;
    let clients = ask(&["clients", "--by", "bytes", "--top", "5"]).await;
    let id = clients["clients"][0]["id"].to_string();
    assert_eq!(clients["keys"][0]["count"], 1, "{clients}");
    assert_eq!(ask(&["clients", "end", &id]).await, json!({ "ended": 1 }));
    assert!(String::from_utf8_lossy(&reader.raw.rest().await).contains("retry: "));
    let added = ask(&["deny", "add", "192.0.2.0/24", "--reason", "slots", "--for", "1h"]).await;
    assert_eq!((&added["cidr"], &added["reason"]), (&json!("192.0.2.0/24"), &json!("slots")), "{added}");
    assert_eq!(ask(&["deny"]).await["deny"][0]["cidr"], "192.0.2.0/24");
    ask(&["deny", "remove", "192.0.2.0/24"]).await;
    assert_eq!(ask(&["deny"]).await["deny"], json!([]));
    let limits =
        ask(&["limits", "set", "posts_per_second=7", "slow_after=90s", "trusted_proxies=10.0.0.0/8,::1"]).await;
    assert_eq!((&limits["posts_per_second"], &limits["slow_after"]), (&json!(7), &json!("90s")));
    assert_eq!(ask(&["limits"]).await["trusted_proxies"], json!(["10.0.0.0/8", "::1/128"]));
    let reloaded = ask(&["reload"]).await;
    assert_eq!(reloaded["changed"].as_array().map(Vec::len), Some(3), "what was set gives way: {reloaded}");
    assert_eq!(ask(&["log-level", "debug", "--module", "sluice::intake", "--for", "5m"]).await["level"], "debug");
    assert!(ask(&["heap"]).await.is_object() && ask(&["traffic"]).await.is_object());
    assert!(server.stderr().contains("ada@"), "who did it: {}", server.stderr());
}

#[tokio::test]
async fn what_goes_wrong_is_told_with_its_cure_and_an_exit_code() {
    let config = format!("[admin]\ntoken = '{TOKEN}'\n");
    let server = Server::start(Options::default().config(&config)).await;
    let url = format!("http://{}", server.admin);
    let nobody = format!("http://{}", free_address());
    let public = format!("http://{}", server.address);
    for (address, words, token, code, cure) in [
        (nobody.as_str(), vec!["limits"], "", 1, "name that with --url"),
        ("", vec!["limits", "--socket", "/nonexistent/socket"], "", 1, "/nonexistent/socket"),
        (&url, vec!["limits"], "", 2, "SLUICE_ADMIN_TOKEN"),
        (&url, vec!["limits"], "wrong-but-long-enough", 2, "SLUICE_ADMIN_TOKEN"),
        (&url, vec!["limits"], "a b", 2, "no bearer token"),
        (&url, vec!["clients", "end", "999"], TOKEN, 2, "999"),
        (&url, vec!["limits", "set", "streams_per_clien=5", "slow_after=soon"], TOKEN, 2, "did you mean"),
        (&public, vec!["limits"], TOKEN, 2, "404"),
        ("ftp://x", vec!["limits"], "", 2, "--url"),
        (&url, vec!["limits", "--nope"], "", 2, "--nope"),
    ] {
        let output = admin(address, &words, token).await;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        assert!(said.contains(cure), "{words:?}: {said}");
        assert!(output.stdout.is_empty(), "{words:?}: {output:?}");
    }
    assert_eq!(admin(&url, &["limits"], TOKEN).await.status.code(), Some(0));
    server.rewrite("sluice.toml", &format!("{config}[http]\nworkerz = 1\n[hub]\nheartbeat = '1ms'\n"));
    let refused = admin(&url, &["reload"], TOKEN).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("workerz") && stderr(&refused).contains("hub.heartbeat"), "{}", stderr(&refused));
}

#[tokio::test]
async fn a_unix_socket_needs_no_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("admin.sock");
    let socket = path.to_str().expect("UTF-8");
    let config = format!("[admin]\ntoken = '{TOKEN}'\nsocket = '{socket}'\n");
    let _server = Server::start(Options::default().config(&config)).await;
    let limits = admin("", &["limits", "--socket", socket], "").await;
    assert!(answer(&limits)["streams_per_client"].is_u64());
}
