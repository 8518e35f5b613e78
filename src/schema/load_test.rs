//! Finding schemas: bases, their order and their failures, what is kept, and what messages may not say.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use super::testing::uri;
use super::{LoadError, Options, Schema, Schemas};
use crate::fetch::Fetcher;

fn schemas(bases: &[&str]) -> Schemas {
    let options = Options { bases: bases.iter().map(|base| (*base).to_owned()).collect(), ..Options::default() };
    try_schemas(&options).expect("schemas")
}

fn try_schemas(options: &Options) -> Result<Schemas, String> {
    Schemas::new(options, Fetcher::new().expect("a fetcher"), Handle::current())
}

fn write(folder: &Path, path: &str, text: &str) {
    let file = folder.join(path);
    std::fs::create_dir_all(file.parent().expect("a parent")).expect("a folder");
    std::fs::write(file, text).expect("a file");
}

async fn title(schemas: &Schemas, path: &str) -> String {
    let schema: Result<Arc<Schema>, LoadError> = schemas.load(&uri(path)).await;
    schema.unwrap_or_else(|e| panic!("{path}: {e}")).title().unwrap_or_default().to_owned()
}

async fn failure(schemas: &Schemas, path: &str) -> LoadError {
    schemas.load(&uri(path)).await.err().unwrap_or_else(|| panic!("{path} was found"))
}

/// An HTTP server that counts what it is asked for, and answers once it is let.
struct Server {
    url: String,
    asked: Arc<AtomicUsize>,
    pages: Arc<Mutex<HashMap<String, (u16, String)>>>,
    gate: Arc<tokio::sync::Semaphore>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/schemas", listener.local_addr().expect("an address"));
        let gate = Arc::new(tokio::sync::Semaphore::new(tokio::sync::Semaphore::MAX_PERMITS));
        let server = Self { url, asked: Arc::default(), pages: Arc::default(), gate };
        let (asked, pages, gate) = (server.asked.clone(), server.pages.clone(), server.gate.clone());
        Handle::current().spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (asked, pages, gate) = (asked.clone(), pages.clone(), gate.clone());
                Handle::current().spawn(async move {
                    let mut head = vec![0; 4096];
                    let length = socket.read(&mut head).await.unwrap_or_default();
                    let head = String::from_utf8_lossy(&head[..length]).into_owned();
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    asked.fetch_add(1, Ordering::SeqCst);
                    let _turn = gate.acquire().await;
                    let (status, body) = pages.lock().get(&path).cloned().unwrap_or((404, "nothing".into()));
                    let length = body.len();
                    let answer =
                        format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                    let _ = socket.write_all(answer.as_bytes()).await;
                });
            }
        });
        server
    }

    fn page(&self, path: &str, status: u16, body: &str) {
        self.pages.lock().insert(format!("/schemas{path}"), (status, body.to_owned()));
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn what_is_built_in_is_found_by_every_name() {
    let schemas = schemas(&[]);
    for path in [
        "/test/event/1.0.0",
        "/test/event/1.0.0.yaml",
        "/test/event/latest",
        "/mediawiki/page/change/latest",
        "/error/2.1.0",
    ] {
        let name = title(&schemas, path).await;
        assert!(path.starts_with(&format!("/{name}/")), "{path}: {name}");
        assert!(schemas.known(&uri(path)).is_some_and(|known| known.is_ok()));
    }
    assert_eq!(failure(&schemas, "/test/event/9.9.9").await.to_string(), "Failed loading schema at /test/event/9.9.9");
    assert!(schemas.known(&uri("/test/event/0.0.2")).is_none());
}

#[tokio::test]
async fn names_in_a_folder_are_found_as_in_the_schema_repositories() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    write(at, "linked/1.0.0.yaml", "title: linked");
    std::os::unix::fs::symlink("1.0.0.yaml", at.join("linked/1.0.0")).expect("a link");
    std::os::unix::fs::symlink("1.0.0.yaml", at.join("linked/latest")).expect("a link");
    write(at, "texts/1.0.0.yaml", "title: texts");
    write(at, "texts/1.0.0", "1.0.0.yaml");
    write(at, "texts/latest", "../texts/1.0.0\n");
    write(at, "bare/1.9.0.yaml", "title: old");
    write(at, "bare/1.10.0.json", "{\"title\": \"new\"}");
    write(at, "exact/1.0.0", "title: exact");
    let schemas = schemas(&[&format!("file://{}", at.display())]);
    for (path, expected) in [
        ("/linked/1.0.0", "linked"),
        ("/linked/latest", "linked"),
        ("/texts/1.0.0", "texts"),
        ("/texts/latest", "texts"),
        ("/bare/1.9.0", "old"),
        ("/bare/1.10.0", "new"),
        ("/bare/latest", "new"),
        ("/exact/1.0.0", "exact"),
        ("/error/2.1.0", "error"),
        ("/error/latest", "error"),
    ] {
        assert_eq!(title(&schemas, path).await, expected, "{path}");
    }
    for path in ["/linked", "/linked/1.0.0/x", "/test/event/1.0.0", "/linked/1.0"] {
        assert_eq!(failure(&schemas, path).await, LoadError::Unknown(uri(path)));
    }
}

#[tokio::test]
async fn nothing_leaves_its_base_and_no_message_tells_what_is_there() {
    let (folder, outside) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    write(outside.path(), "x.yaml", "title: secret");
    let at = folder.path();
    std::os::unix::fs::symlink(outside.path().join("x.yaml"), at.join("out")).expect("a link");
    std::os::unix::fs::symlink(outside.path(), at.join("dir")).expect("a link");
    std::os::unix::fs::symlink("ring", at.join("ring")).expect("a link");
    let up = format!("../{}/x.yaml", outside.path().file_name().expect("a name").to_string_lossy());
    write(at, "up", &up);
    write(at, "absolute", &outside.path().join("x.yaml").to_string_lossy());
    write(at, "hidden", ".git/config");
    write(at, "loop", "loop");
    write(at, "passwords", "root:secret:0:0\nmore: [");
    write(at, "large", &format!("title: {}", "secret".repeat(400_000)));
    write(at, "meta", "type: secret");
    let schemas = schemas(&[&at.to_string_lossy()]);
    for path in ["/out", "/dir/x", "/up", "/absolute", "/hidden", "/loop", "/passwords", "/large", "/ring", "/meta"] {
        let error = failure(&schemas, path).await;
        let text = error.to_string();
        assert!(!matches!(error, LoadError::Unknown(_)), "{path}: {text}");
        assert!(text.starts_with(&format!("Failed loading schema at {path}: ")), "{text}");
        let parts = [at.to_string_lossy(), outside.path().to_string_lossy(), "secret".into(), ".git".into()];
        for part in parts {
            assert!(!text.contains(part.as_ref()), "{text}");
        }
    }
}

#[tokio::test]
async fn a_base_that_cannot_be_read_at_the_start_is_a_fault_and_later_it_is_unavailable() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().to_string_lossy().into_owned();
    write(folder.path(), "a/1.0.0.yaml", "title: a");
    let schemas = schemas(&[&text]);
    assert_eq!(title(&schemas, "/a/1.0.0").await, "a");
    drop(folder);
    let error = failure(&schemas, "/b/1.0.0").await;
    assert_eq!(error.to_string(), "Failed loading schema at /b/1.0.0: a schema base cannot be read");
    assert!(matches!(error, LoadError::Unavailable { .. }));
    assert_eq!(title(&schemas, "/a/1.0.0").await, "a", "what is loaded stays");
    let fault = try_schemas(&Options { bases: vec![text.clone()], ..Options::default() }).err().expect("a fault");
    assert!(fault.contains(&text) && fault.contains("name a folder"), "{fault}");
}

#[tokio::test]
async fn bases_are_tried_in_order() {
    let (first, second) = (tempfile::tempdir().expect("a folder"), Server::start().await);
    write(first.path(), "both/1.0.0.yaml", "title: first");
    write(first.path(), "broken/1.0.0.yaml", "[");
    second.page("/both/1.0.0", 200, "title: second");
    second.page("/only/1.0.0.yaml", 200, "title: second");
    second.page("/linked/latest", 200, "1.2.0.yaml");
    second.page("/linked/1.2.0.yaml", 200, "title: linked");
    second.page("/broken/1.0.0", 200, "title: second");
    let schemas = schemas(&[&first.path().to_string_lossy(), &second.url]);
    assert_eq!(title(&schemas, "/both/1.0.0").await, "first");
    assert_eq!(second.asked(), 0);
    assert_eq!(title(&schemas, "/only/1.0.0").await, "second");
    assert_eq!(title(&schemas, "/linked/latest").await, "linked");
    assert!(matches!(failure(&schemas, "/broken/1.0.0").await, LoadError::Unavailable { .. }));
    assert!(matches!(failure(&schemas, "/none/1.0.0").await, LoadError::Unknown(_)));
}

#[tokio::test]
async fn a_base_that_does_not_answer_is_left_alone_and_hides_no_other() {
    let (away, there) = (Server::start().await, tempfile::tempdir().expect("a folder"));
    away.page("/a/1.0.0", 500, "secret");
    write(there.path(), "b/1.0.0.yaml", "title: b");
    let schemas = schemas(&[&away.url, &there.path().to_string_lossy()]);
    let error = failure(&schemas, "/a/1.0.0").await;
    assert_eq!(error.to_string(), "Failed loading schema at /a/1.0.0: a schema base does not answer");
    assert!(matches!(error, LoadError::Unavailable { .. }));
    assert_eq!(away.asked(), 1);
    assert_eq!(title(&schemas, "/b/1.0.0").await, "b");
    assert_eq!(title(&schemas, "/error/2.1.0").await, "error");
    assert!(matches!(failure(&schemas, "/c/1.0.0").await, LoadError::Unavailable { .. }));
    assert_eq!(away.asked(), 1, "it is left alone");
}

#[tokio::test]
async fn a_base_that_answers_is_not_left_alone_whatever_it_says_of_one_name() {
    let server = Server::start().await;
    server.page("/a/1.0.0", 403, "secret");
    server.page("/b/1.0.0", 200, "title: b");
    let schemas = schemas(&[&server.url]);
    assert!(matches!(failure(&schemas, "/a/1.0.0").await, LoadError::Unavailable { .. }));
    assert_eq!(title(&schemas, "/b/1.0.0").await, "b");
}

#[tokio::test]
async fn nobody_listening_is_unavailable() {
    let schemas = schemas(&["http://127.0.0.1:1/"]);
    assert!(matches!(failure(&schemas, "/a/1.0.0").await, LoadError::Unavailable { .. }));
}

#[tokio::test]
async fn one_look_serves_all_who_wait_and_outlives_those_who_leave() {
    let server = Server::start().await;
    server.page("/a/1.0.0", 200, "title: a");
    let let_through = u32::try_from(server.gate.available_permits()).unwrap_or(u32::MAX);
    let shut = server.gate.clone().acquire_many_owned(let_through).await.expect("the gate");
    server.gate.forget_permits(usize::MAX);
    let schemas = Arc::new(schemas(&[&server.url]));
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let schemas = schemas.clone();
            Handle::current().spawn(async move { title(&schemas, "/a/1.0.0").await })
        })
        .collect();
    while server.asked() == 0 {
        tokio::task::yield_now().await;
    }
    waiting[0].abort();
    drop(shut);
    for (number, waiter) in waiting.into_iter().enumerate() {
        match waiter.await {
            Ok(title) => assert_eq!(title, "a"),
            Err(left) => assert!(number == 0 && left.is_cancelled()),
        }
    }
    assert_eq!(server.asked(), 1);
    assert!(schemas.known(&uri("/a/1.0.0")).is_some());
}

#[tokio::test]
async fn what_is_not_there_is_not_looked_for_again_at_once() {
    let server = Server::start().await;
    let schemas = schemas(&[&server.url]);
    for _ in 0..5 {
        assert!(matches!(failure(&schemas, "/a/1.0.0").await, LoadError::Unknown(_)));
    }
    assert_eq!(server.asked(), 3, "the name, and with two extensions");
    assert!(schemas.known(&uri("/a/1.0.0")).is_some_and(|known| known.is_err()));
}

#[tokio::test]
async fn latest_is_looked_at_again_and_the_old_one_serves_meanwhile() {
    let server = Server::start().await;
    server.page("/a/latest", 200, "title: old");
    let options = Options { bases: vec![server.url.clone()], latest_ttl: Duration::ZERO };
    let schemas = try_schemas(&options).expect("schemas");
    assert_eq!(title(&schemas, "/a/latest").await, "old");
    let known = |schemas: &Schemas| {
        let schema = schemas.known(&uri("/a/latest")).expect("known").expect("a schema");
        schema.title().unwrap_or_default().to_owned()
    };
    server.page("/a/latest", 500, "");
    let asked = server.asked();
    assert_eq!(known(&schemas), "old");
    while server.asked() == asked || !schemas.0.looks.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(known(&schemas), "old", "a look that fails changes nothing");
    while !schemas.0.looks.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    let healthy = Server::start().await;
    healthy.page("/a/latest", 200, "title: old");
    let options = Options { bases: vec![healthy.url.clone()], latest_ttl: Duration::ZERO };
    let schemas = try_schemas(&options).expect("schemas");
    assert_eq!(title(&schemas, "/a/latest").await, "old");
    healthy.page("/a/latest", 200, "title: new");
    while known(&schemas) != "new" {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn references_to_other_schemas_of_the_bases_are_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    write(
        at,
        "a/1.0.0.yaml",
        "$id: /a/1.0.0\nproperties: {m: {$ref: '/m/1.0.0#'}, n: {$ref: '../m/1.0.0#/definitions/n'}}",
    );
    write(at, "m/1.0.0.yaml", "definitions: {n: {type: 'null'}}\nproperties: {x: {$ref: /x/1.0.0}}");
    write(at, "x/1.0.0.yaml", "type: string\nproperties: {back: {$ref: /a/1.0.0}}");
    write(at, "none/1.0.0.yaml", "$ref: /nowhere/1.0.0");
    write(at, "out/1.0.0.yaml", "$ref: http://127.0.0.1:1/x");
    for number in 0..30 {
        write(at, &format!("chain/{number}.yaml"), &format!("$ref: /chain/{}", number + 1));
    }
    let schemas = schemas(&[&at.to_string_lossy()]);
    let schema = schemas.load(&uri("/a/1.0.0")).await.expect("a schema");
    let found = schema.violations(&serde_json::json!({"m": {"x": 1}, "n": 1}));
    assert_eq!(super::errors_text(&found), "'.m.x' should be string, '.n' should be null");
    assert_eq!(found[0].schema_path, "/x/1.0.0#/type");
    for (path, expected) in [
        ("/none/1.0.0", "can't resolve reference /nowhere/1.0.0 from id /none/1.0.0"),
        ("/out/1.0.0", "can't resolve reference http://127.0.0.1:1/x from id /out/1.0.0"),
        ("/chain/0", "it refers to more than 16 other schemas"),
    ] {
        let text = failure(&schemas, path).await.to_string();
        assert_eq!(text, format!("Failed loading schema at {path}: {expected}"));
    }
}

#[tokio::test]
async fn schemas_of_one_id_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "a/1.0.0.yaml", "$id: /same/1.0.0\ntype: string");
    write(folder.path(), "b/1.0.0.yaml", "$id: /same/1.0.0\ntype: object");
    let schemas = schemas(&[&folder.path().to_string_lossy()]);
    for (path, expected) in [("/a/1.0.0", 1), ("/b/1.0.0", 0)] {
        let schema = schemas.load(&uri(path)).await.expect("a schema");
        assert_eq!(schema.violations(&serde_json::json!({})).len(), expected, "{path}");
    }
}

#[tokio::test]
async fn a_flood_of_names_is_bounded() {
    let server = Server::start().await;
    let permits = u32::try_from(server.gate.available_permits()).unwrap_or(u32::MAX);
    let shut = server.gate.clone().acquire_many_owned(permits).await.expect("the gate");
    server.gate.forget_permits(usize::MAX);
    let schemas = Arc::new(schemas(&[&server.url]));
    let looks: Vec<_> = (0..2 * super::LOOKS_MAX)
        .map(|number| {
            let schemas = schemas.clone();
            Handle::current().spawn(async move { failure(&schemas, &format!("/a/{number}")).await })
        })
        .collect();
    while schemas.0.looks.lock().len() < super::LOOKS_MAX || server.asked() < super::LOOKS_AT_ONCE {
        tokio::task::yield_now().await;
    }
    drop(shut);
    let mut refused = 0;
    for look in looks {
        refused += usize::from(matches!(look.await.expect("a look"), LoadError::Unavailable { .. }));
    }
    assert_eq!(refused, super::LOOKS_MAX);
}
