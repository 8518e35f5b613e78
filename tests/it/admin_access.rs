//! Who may see and change what: every route of the operators' listener, from everywhere it can be asked.

use std::os::unix::fs::PermissionsExt;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::raw::Raw;
use crate::server::{Options, Server, sluice};
use crate::support::PATIENCE;

const TOKEN: &str = "0123456789-abcdef";
/// None of them changes anything, were it let in: they name nobody.
const KEPT: [(&str, &str); 14] = [
    ("GET", "/clients"),
    ("DELETE", "/clients?key=nobody"),
    ("DELETE", "/clients/12345"),
    ("GET", "/deny"),
    ("PUT", "/deny/nonsense"),
    ("DELETE", "/deny/192.0.2.1"),
    ("GET", "/limits"),
    ("PUT", "/limits"),
    ("POST", "/reload"),
    ("GET", "/log-level"),
    ("PUT", "/log-level"),
    ("GET", "/traffic"),
    ("GET", "/debug/profile?seconds=0"),
    ("GET", "/debug/heap"),
];
const OPEN: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

async fn assert_all(server: &Server, headers: &str, status: u16, word: &str) {
    for (method, target) in KEPT {
        let answer = server.ask_admin_as(method, target, headers, "").await;
        assert_eq!(answer.status(), status, "{method} {target} {headers}: {answer:?}");
        assert!(answer.text().contains(word), "{method} {target} {headers}: {answer:?}");
    }
    for target in OPEN {
        assert_eq!(server.ask_admin_as("GET", target, headers, "").await.status(), 200, "{target}");
    }
}

async fn assert_let_in(server: &Server, headers: &str) {
    for (method, target) in KEPT {
        let status = server.ask_admin_as(method, target, headers, "").await.status();
        assert!(![401, 403].contains(&status), "{method} {target} {headers}: {status}");
    }
}

/// On every address of the machine.
fn everywhere() -> Options {
    Options::default().default_admin().env("SLUICE__ADMIN__LISTEN", "0.0.0.0:0")
}

#[tokio::test]
async fn where_others_reach_it_only_who_shows_the_token_is_let_in() {
    let server = Server::start(everywhere().env("SLUICE__ADMIN__TOKEN", TOKEN)).await;
    assert_all(&server, "", 401, "admin.token").await;
    assert_all(&server, "Authorization: Bearer 0123456789-abcdeg\r\n", 401, "admin.token").await;
    assert_let_in(&server, &format!("Authorization: Bearer {TOKEN}\r\n")).await;
    let asked = server.ask_admin("GET", "/limits", "").await;
    assert_eq!(asked.header("www-authenticate"), r#"Bearer realm="sluice""#);
    let wrong = server.ask_admin_as("GET", "/limits", "Authorization: Basic abc\r\n", "").await;
    assert_eq!(wrong.header("www-authenticate"), r#"Bearer realm="sluice", error="invalid_token""#);
    assert!(!server.stderr().contains(TOKEN) && !server.stderr().contains("closed"), "{}", server.stderr());
}

#[tokio::test]
async fn where_others_reach_it_and_no_token_is_set_nobody_is_let_in_and_scraping_goes_on() {
    let server = Server::start(everywhere()).await;
    assert_all(&server, "", 403, "admin.token").await;
    let told = server.stderr();
    assert_eq!(told.matches("the operators' routes are closed").count(), 1, "{told}");
}

#[tokio::test]
async fn pages_in_an_operators_browser_are_not_let_in() {
    let server = Server::start(Options::default()).await;
    assert_let_in(&server, "").await;
    assert_all(&server, "Origin: http://localhost\r\n", 403, "browser").await;
    assert_all(&server, "Origin: null\r\n", 403, "browser").await;
    assert_all(&server, "Sec-Fetch-Site: cross-site\r\n", 403, "browser").await;
    assert_let_in(&server, "Sec-Fetch-Site: none\r\n").await;
    for (host, status) in [
        ("rebound.example", 403),
        ("rebound.example:9102", 403),
        ("localhost.rebound.example", 403),
        ("localhost", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:1", 200),
    ] {
        let mut raw = Raw::connect(server.admin).await;
        raw.send(format!("GET /limits HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(raw.answer().await.status(), status, "{host}");
    }
    let guarded = Server::start(Options::default().env("SLUICE__ADMIN__TOKEN", TOKEN)).await;
    assert_all(&guarded, "", 401, "admin.token").await;
    let headers = format!("Authorization: Bearer {TOKEN}\r\nOrigin: http://x\r\n");
    assert_all(&guarded, &headers, 403, "browser").await;
}

/// A request over the socket, and the whole answer.
async fn over_socket(path: &std::path::Path, request: &str) -> String {
    let mut socket = UnixStream::connect(path).await.expect("a socket");
    socket
        .write_all(format!("{request} HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .expect("taken");
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.expect("an answer in time").expect("an answer");
    answer
}

#[tokio::test]
async fn the_unix_socket_is_its_owners_alone_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("admin.sock");
    let on_socket = |options: Options| options.env("SLUICE__ADMIN__SOCKET", &path.display().to_string());
    let mut server = Server::start(on_socket(everywhere().env("SLUICE__ADMIN__TOKEN", TOKEN))).await;
    assert_eq!(std::fs::metadata(&path).expect("a socket").permissions().mode() & 0o777, 0o600);
    for (method, target) in KEPT {
        let answer = over_socket(&path, &format!("{method} {target}")).await;
        assert!(
            !answer.starts_with("HTTP/1.1 401") && !answer.starts_with("HTTP/1.1 403"),
            "{method} {target}: {answer}"
        );
    }
    assert!(over_socket(&path, "GET /healthz").await.ends_with("ok\n"));
    over_socket(&path, "PUT /deny/192.0.2.9").await;
    assert!(server.stderr().contains("unix socket"), "{}", server.stderr());
    let mut second = sluice();
    second.args(["--listen", "127.0.0.1:0", "--admin", "off", "--data"]).arg(folder.path().join("data"));
    let second = second.env("SLUICE__ADMIN__SOCKET", &path).output().expect("it runs");
    let complaint = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && complaint.contains("another process listens on it"), "{complaint}");
    assert!(complaint.contains("admin.socket"), "{complaint}");
    server.kill().await;
    assert!(path.exists(), "a killed server cannot tidy up");
    server.start_again().await;
    assert!(over_socket(&path, "GET /limits").await.starts_with("HTTP/1.1 200"));
    server.stop().await;
    assert!(!path.exists(), "a stopped one does");
}

#[test]
fn a_short_token_is_refused_and_none_is_ever_shown() {
    let show = |token: &str| {
        let mut command = sluice();
        command.args(["config", "show"]).env("SLUICE__ADMIN__TOKEN", token);
        let output = command.output().expect("it runs");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), text)
    };
    let (code, text) = show(TOKEN);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("admin.token = \"(redacted)\"") && !text.contains(TOKEN), "{text}");
    let (code, text) = show("too-short-by-1-");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("admin.token: fewer than 16 bytes") && !text.contains("too-short"), "{text}");
}
