//! The schemas that are built in, as they are published.

use bytes::Bytes;
use serde_json::{Value, json};

use super::source::read;
use super::testing::uri;
use super::{Schema, built_in, errors_text};
use crate::model::{Document, steps_of};

fn family(path: &str) -> (Schema, Value) {
    let text = built_in::file(path).expect("a file");
    let source = read(text.as_bytes()).expect("a schema");
    let value = source.value.clone();
    let name = uri(path.strip_suffix(".yaml").expect("YAML"));
    (Schema::compile(&name, &mut [(name.to_string(), source)]).expect("compiles"), value)
}

#[test]
fn every_file_compiles_and_its_examples_are_valid() {
    let mut examples = 0;
    for path in built_in::paths() {
        let (schema, value) = family(path);
        assert!(schema.title().is_some_and(|title| path.starts_with(title)), "{path}");
        assert_eq!(value["$id"], format!("/{}", path.strip_suffix(".yaml").expect("YAML")));
        for example in value["examples"].as_array().into_iter().flatten() {
            assert_eq!(schema.violations(example), [], "{path}");
            examples += 1;
        }
        assert!(schema.declares(&steps_of("meta.id")) && !schema.declares(&steps_of("meta.none")), "{path}");
    }
    assert!(examples >= 12, "{examples}");
    assert_eq!(built_in::paths().count(), 17);
}

#[test]
fn wrong_events_are_refused_with_the_right_words() {
    for (path, event, expected) in [
        (
            "test/event/1.0.0.yaml",
            json!({"$schema": "/test/event/1.0.0", "meta": {"stream": "", "dt": "today"}, "test": null, "test_map": {"a": 1}}),
            "'.meta.dt' should match format \"date-time\", '.meta.stream' should NOT be shorter than 1 characters, \
             '.test' should be string, '.test_map['a']' should be string",
        ),
        (
            "error/2.1.0.yaml",
            json!({"$schema": 1, "meta": {}, "dt": "2020-01-01T00:00:00Z", "extra": 1}),
            "'' should NOT have additional properties, '.$schema' should be string, \
             '' should have required property 'emitter_id', '' should have required property 'message', \
             '.meta' should have required property 'stream'",
        ),
        (
            "mediawiki/recentchange/1.0.1.yaml",
            json!({"$schema": "x", "meta": {"dt": "2020-01-01T00:00:00Z", "stream": "s"}, "id": "1", "namespace": 1e17, "length": 1}),
            "'.id' should be integer,null, '.length' should be object, '.namespace' should be <= 9007199254740991",
        ),
        (
            "mediawiki/page/change/1.2.0.yaml",
            json!({"changelog_kind": "x"}),
            "'' should have required property '$schema', \
             '.changelog_kind' should be equal to one of the allowed values, \
             '' should have required property 'dt', '' should have required property 'meta', \
             '' should have required property 'page', '' should have required property 'page_change_kind', \
             '' should have required property 'revision', '' should have required property 'wiki_id'",
        ),
        ("mediawiki/revision/create/2.0.0.yaml", json!([]), "'' should be object"),
    ] {
        assert_eq!(errors_text(&family(path).0.violations(&event)), expected, "{path}");
    }
}

#[test]
fn the_default_of_the_test_event_stands_at_the_end() {
    let (schema, _) = family("test/event/1.0.0.yaml");
    let sent = r#"{"$schema":"/test/event/1.0.0", "meta":{"stream":"s","dt":"2020-01-01T00:00:00Z"} }"#;
    let mut document = Document::parse(Bytes::from_static(sent.as_bytes())).expect("JSON");
    schema.fill_defaults(&mut document);
    assert_eq!(document.text(), sent.replace(" }", r#" ,"test":"default value"}"#));
    assert_eq!(schema.violations(document.value()), []);
    let before = document.text();
    schema.fill_defaults(&mut document);
    assert_eq!(document.text(), before);
}

#[test]
fn random_changes_of_examples_never_panic() {
    for path in built_in::paths() {
        let (schema, value) = family(path);
        let Some(example) = value["examples"].get(0) else { continue };
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bytes = example.to_string().into_bytes();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                bytes[at] = b"{}[]\",:0e.-tnx "[random.usize(..15)];
            }
            if let Ok(mut document) = Document::parse(bytes.into()) {
                schema.fill_defaults(&mut document);
                schema.violations(document.value());
            }
        }
    }
}

#[test]
fn random_bytes_are_no_schema_and_no_panic() {
    let text = built_in::file("test/event/1.0.0.yaml").expect("a file");
    for seed in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        if let Ok(source) = read(&bytes) {
            let name = uri("/x/1.0.0");
            let _ = Schema::compile(&name, &mut [(name.to_string(), source)]);
        }
    }
}
