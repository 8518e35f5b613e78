//! The document that the service has of itself is true: what it says is answered, and what is answered it says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::server::{Options, Server, free_address};
use crate::stream_configs::{Api, many};
use crate::support::{PATIENCE, eventually};

pub const JSON: &str = "Content-Type: application/json\r\n";
pub const LIST: &str = "/v2/stream/{streams}";
const BYTES_MAX: usize = 4 << 20;

pub async fn document(server: &Server) -> Value {
    let answer = server.get("/openapi.json").await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
    answer.json()
}

pub fn paths(document: &Value) -> Vec<String> {
    document["paths"].as_object().expect("paths").keys().cloned().collect()
}

pub fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap_or_else(|| panic!("{reference} leads nowhere")),
        None => value,
    }
}

/// A component, or what stands in its place.
/// Addresses as the routes have them: percent signs, slashes in front and behind are their tolerance.
#[tokio::test]
async fn every_route_is_documented() {
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/mod.rs")).expect("a file");
    let from = source.find("fn routes(").expect("the routes");
    let routes: BTreeSet<String> = source[from..]
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|text| text.starts_with('/') && !text.contains("{path}"))
        .map(|text| text.replace(":.+", "").trim_start_matches('/').trim_end_matches('/').to_owned())
        // What begins with it is documented stream by stream, and as a list.
        .filter(|route| route != "v2/stream")
        .collect();
    assert!(routes.len() >= 14, "{routes:?}");
    let server = Server::start(Options::default()).await;
    let document = document(&server).await;
    let documented = paths(&document);
    let documented: BTreeSet<&str> = documented.iter().map(|path| path.trim_start_matches('/')).collect();
    let missing: Vec<&String> = routes.iter().filter(|route| !documented.contains(route.as_str())).collect();
    assert!(missing.is_empty(), "routes that the document has not: {missing:?}");
    let no_route = |path: &&&str| !routes.contains(**path) && !path.starts_with("v2/stream/");
    assert_eq!(documented.iter().filter(no_route).count(), 0, "{documented:?}");
}

/// `SLUICE_TEST_SNAPSHOTS=write` writes it anew.
#[tokio::test]
async fn the_document_of_the_built_in_streams_is_the_one_that_is_kept() {
    let server = Server::start(Options::default()).await;
    let mut document = document(&server).await;
    document["info"]["version"] = "".into();
    let text = format!("{document:#}\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/openapi.json");
    if std::env::var("SLUICE_TEST_SNAPSHOTS").is_ok_and(|word| word == "write") {
        fs::write(&path, &text).expect("the file can be written");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let differs = kept.lines().zip(text.lines()).position(|(kept, new)| kept != new);
    let near = differs.map(|at| text.lines().skip(at.saturating_sub(3)).take(8).collect::<Vec<_>>().join("\n"));
    assert!(
        kept == text,
        "it is another one now, from line {:?}: look at it, and keep it with SLUICE_TEST_SNAPSHOTS=write\n{}",
        differs.map(|at| at + 1),
        near.unwrap_or_default()
    );
}

#[tokio::test]
async fn each_stream_and_alias_has_a_path_with_a_schema_and_an_example_that_is_valid() {
    let server = Server::start(Options::default()).await;
    let document = document(&server).await;
    let names = document["paths"][LIST]["parameters"][0]["schema"]["items"]["enum"].as_array().expect("names").clone();
    assert_eq!(document["paths"][LIST]["parameters"][0]["name"], "streams");
    assert_eq!(names.len(), 10, "five streams, and an alias of each: {names:?}");
    for name in names.iter().filter_map(Value::as_str) {
        let operation = &document["paths"][format!("/v2/stream/{name}")]["get"];
        for form in ["text/event-stream", "application/json", "application/x-ndjson"] {
            let media = &operation["responses"]["200"]["content"][form];
            let schema = resolved(&document, &media["schema"]);
            assert!(schema["$schema"].as_str().is_some_and(|dialect| dialect.contains("draft-07")), "{name}: {media}");
            assert!(schema.get("$id").is_none() && schema.get("examples").is_none(), "{name}");
            let judge = jsonschema::validator_for(schema).expect("a schema");
            let fault = judge.validate(&media["example"]).map_err(|fault| fault.to_string());
            assert_eq!(fault, Ok(()), "{name} {form}");
            assert!(!judge.is_valid(&json!({})), "{name}: a schema that takes everything shows nothing");
        }
    }
    let alias = document["paths"]["/v2/stream/recentchange"]["get"]["description"].as_str().unwrap_or_default();
    assert!(alias.starts_with("An alias of the stream `mediawiki.recentchange`.\n\nEvery change"), "{alias}");
    assert!(alias.ends_with("Schema title: mediawiki/recentchange"), "{alias}");
}

#[tokio::test]
async fn a_half_that_is_not_served_is_not_documented() {
    for (served, has, has_not) in [("in", "/v1/", "/v2/"), ("out", "/v2/", "/v1/")] {
        let server = Server::start(Options::default().env("SLUICE__HTTP__SERVE", served)).await;
        let document = document(&server).await;
        let paths = paths(&document);
        assert!(paths.iter().any(|path| path.starts_with(has)), "{served}: {paths:?}");
        assert!(!paths.iter().any(|path| path.starts_with(has_not)), "{served}: {paths:?}");
        assert!(paths.contains(&"/openapi.json".to_owned()));
    }
}

#[tokio::test]
async fn streams_whose_schemas_cannot_be_had_are_documented_without() {
    let away = format!("http://{}/schemas", free_address());
    let streams = "a: {schema_title: some/where}\nb: {topics: [b]}\nc: {schema_title: '../../etc'}\n";
    let server = Server::start(Options::default().streams(streams).env("SLUICE__SCHEMA__BASES", &away)).await;
    let document = document(&server).await;
    for (name, told) in [("a", "cannot be had now"), ("b", "names no schema"), ("c", "names no schema")] {
        let operation = &document["paths"][format!("/v2/stream/{name}")]["get"];
        let description = operation["description"].as_str().unwrap_or_default();
        assert!(description.contains(told) && !description.contains("http"), "{name}: {description}");
        let media = &operation["responses"]["200"]["content"]["application/json"];
        assert_eq!(media, &json!({ "schema": { "$ref": "#/components/schemas/Event" } }), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_changed_catalogue_changes_the_document() {
    let api = Api::start(many(2)).await;
    let options = Options::default().env("SLUICE__CATALOG__SOURCE", &api.url());
    let server = Server::start(options.env("SLUICE__CATALOG__REFRESH", "50ms")).await;
    let count = async || {
        document(&server).await["paths"][LIST]["parameters"][0]["schema"]["items"]["enum"]
            .as_array()
            .map_or(0, Vec::len)
    };
    assert_eq!(count().await, 2);
    api.set(many(3));
    assert!(eventually(PATIENCE, async || count().await == 3).await, "{}", count().await);
}

#[tokio::test]
async fn a_thousand_streams_make_one_document_for_everybody_who_asks() {
    let streams = serde_json::to_string(&many(1_000)).expect("JSON");
    let server = Server::start(Options::default().streams(&streams)).await;
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let mut raw = server.connect().await;
        raw.send("GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n").await;
        waiting.push(raw);
    }
    let mut bodies = BTreeMap::new();
    for raw in &mut waiting {
        *bodies.entry(raw.answer().await.body).or_insert(0) += 1;
    }
    assert_eq!(bodies.values().collect::<Vec<_>>(), [&100]);
    let body = bodies.keys().next().expect("a body");
    assert!(body.len() < BYTES_MAX, "{} bytes", body.len());
    let document: Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!(paths(&document).iter().filter(|path| path.starts_with("/v2/stream/s")).count(), 1_000);
    let asked = Instant::now();
    for _ in 0..10 {
        assert_eq!(server.get("/?spec").await.status(), 200);
    }
    assert!(asked.elapsed().as_secs() < 5, "{:?} for ten that were made before", asked.elapsed());
}

#[tokio::test]
async fn the_page_and_its_files_are_the_servers_own_and_named_from_wherever_it_stands() {
    let server = Server::start(Options::default()).await;
    let page = server.get("/?doc").await;
    assert_eq!((page.status(), page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = "default-src 'none'; script-src 'self' 'unsafe-inline'; connect-src *; style-src 'self' 'unsafe-inline'; \
                  img-src 'self' data:; font-src 'self';";
    assert_eq!(page.header("content-security-policy"), policy);
    let text = page.text();
    assert!(text.contains("<title>sluice</title>") && !text.contains("http") && !text.contains("\"/"), "{text}");
    let script = "/?doc&path=swagger-ui-bundle.js";
    let plain = server.get(script).await;
    let packed = server.connect().await.get(script, "Accept-Encoding: gzip\r\n").await;
    assert_eq!((plain.header("content-encoding"), packed.header("content-encoding")), ("", "gzip"));
    assert_eq!(packed.header("vary"), "Accept-Encoding");
    assert!(packed.body.starts_with(b"\x1f\x8b") && plain.body.len() > 2 * packed.body.len());
    assert!(plain.text().contains("SwaggerUIBundle"));
    assert_eq!(plain.header("content-type"), "text/javascript; charset=utf-8");
    let (front, rc) = (server.get("/").await, server.get("/rc").await);
    assert_eq!((front.header("location"), rc.header("location")), ("/?doc", "/?doc"));
    for path in ["../Cargo.toml", "%2e%2e/x", "/etc/passwd", "nope.js", "%00"] {
        let answer = server.get(&format!("/?doc&path={path}")).await;
        assert_eq!((answer.status(), answer.header("content-type")), (404, "application/problem+json"), "{path}");
    }
}

#[tokio::test]
async fn what_the_package_says_of_itself_has_four_parts_and_its_home_answers_any_method() {
    let server = Server::start(Options::default()).await;
    for target in ["/_info", "/_info/"] {
        let info = server.get(target).await.json();
        let names: Vec<&String> = info.as_object().expect("a map").keys().collect();
        assert_eq!(names, ["name", "version", "description", "home"], "{target}");
    }
    for method in ["GET", "POST", "DELETE"] {
        let mut raw = server.connect().await;
        raw.send(format!("{method} /_info/home HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")).await;
        let answer = raw.answer().await;
        assert_eq!((answer.status(), answer.header("content-type")), (404, "application/problem+json"), "{method}");
    }
}
