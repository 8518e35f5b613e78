//! The parts that hold for every server, made this server's: its version, its halves, its streams.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::super::{Half, info};
use super::schemas::Found;
use super::streams;
use crate::catalog::Catalog;

const DOCUMENT: &str = include_str!("document.yaml");
const COMPONENTS: &str = include_str!("components.yaml");

/// The whole document. `bytes_max` bounds what depends on the catalogue, but for the names of its streams.
pub(super) fn write(catalog: &Catalog, found: Found, served: &[Half], bytes_max: usize) -> Vec<u8> {
    let mut document = of_halves(served);
    let fixed = document.to_string().len();
    if served.contains(&Half::Out) {
        streams::add(&mut document, catalog, &found, bytes_max.saturating_sub(fixed));
    }
    document.to_string().into_bytes()
}

/// Without the paths of halves that are not served, and without what only those refer to.
fn of_halves(served: &[Half]) -> Value {
    let mut document = parsed(DOCUMENT);
    document["info"]["version"] = info::VERSION.into();
    // One of the two, and no other build has the other.
    document["paths"]["/_info/home"]["get"]["responses"] = match info::home_page() {
        Some(_) => json!({ "301": { "description": "To the home page.",
                                    "headers": { "Location": { "$ref": "#/components/headers/Location" } } } }),
        None => json!({ "404": { "$ref": "#/components/responses/NothingHere" } }),
    };
    if let Some(paths) = document["paths"].as_object_mut() {
        paths.retain(|_, path| is_served(path, served));
    }
    let used = tags_of(&document);
    if let Some(tags) = document["tags"].as_array_mut() {
        tags.retain(|tag| tag["name"].as_str().is_some_and(|name| used.contains(name)));
    }
    document["components"] = referred(&document, parsed(COMPONENTS));
    document
}

fn parsed(text: &str) -> Value {
    serde_yaml_ng::from_str(text).expect("the document's parts are well-formed: tests read them")
}

fn is_served(path: &mut Value, served: &[Half]) -> bool {
    let half = path.as_object_mut().and_then(|path| path.shift_remove("x-half"));
    match half.as_ref().and_then(Value::as_str) {
        Some("in") => served.contains(&Half::In),
        Some("out") => served.contains(&Half::Out),
        _ => true,
    }
}

/// Those of operations; the streams' own are of the readers' half.
fn tags_of(document: &Value) -> BTreeSet<String> {
    let operations = document["paths"].as_object().into_iter().flat_map(Map::values).filter_map(Value::as_object);
    let operations = operations.flat_map(Map::values);
    let tags = operations.filter_map(|operation| operation.get("tags")?.get(0)?.as_str());
    let mut tags: BTreeSet<String> = tags.map(str::to_owned).collect();
    if tags.contains("read") {
        tags.insert("streams".into());
    }
    tags
}

/// What the document refers to, and what that refers to, and so on.
fn referred(document: &Value, components: Value) -> Value {
    let mut wanted = BTreeSet::new();
    references(document, &mut wanted);
    loop {
        let before = wanted.len();
        for reference in wanted.clone() {
            if let Some(component) = components.pointer(reference.trim_start_matches("#/components")) {
                references(component, &mut wanted);
            }
        }
        if wanted.len() == before {
            break;
        }
    }
    let mut components = components;
    for (kind, members) in components.as_object_mut().into_iter().flatten() {
        if let Some(members) = members.as_object_mut() {
            members.retain(|name, _| wanted.contains(&format!("#/components/{kind}/{name}")));
        }
    }
    if let Some(components) = components.as_object_mut() {
        components.retain(|_, members| members.as_object().is_some_and(|members| !members.is_empty()));
    }
    components
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Object(members) => {
            for (name, member) in members {
                match (name.as_str(), member) {
                    ("$ref", Value::String(reference)) => {
                        found.insert(reference.clone());
                    }
                    // A scheme is named by itself.
                    ("security", Value::Array(schemes)) => {
                        let names = schemes.iter().filter_map(Value::as_object).flat_map(Map::keys);
                        found.extend(names.map(|name| format!("#/components/securitySchemes/{name}")));
                    }
                    _ => references(member, found),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(served: &[Half]) -> Value {
        let text = write(&Catalog::built_in(), Found::default(), served, usize::MAX);
        serde_json::from_slice(&text).expect("JSON")
    }

    #[test]
    fn everything_that_is_referred_to_is_there_and_nothing_else() {
        for served in [&[Half::In, Half::Out][..], &[Half::In], &[Half::Out]] {
            let document = document(served);
            let mut wanted = BTreeSet::new();
            references(&document, &mut wanted);
            for reference in &wanted {
                assert!(document.pointer(&reference[1..]).is_some(), "{served:?}: {reference}");
            }
            for (kind, members) in document["components"].as_object().expect("components") {
                for name in members.as_object().expect("members").keys() {
                    assert!(wanted.contains(&format!("#/components/{kind}/{name}")), "{served:?}: {kind} {name}");
                }
            }
        }
    }

    #[test]
    fn a_half_that_is_not_served_is_left_out_with_its_words() {
        let paths =
            |document: &Value| document["paths"].as_object().expect("paths").keys().cloned().collect::<Vec<_>>();
        let (both, taking, giving) = (document(&[Half::In, Half::Out]), document(&[Half::In]), document(&[Half::Out]));
        assert!(paths(&taking).iter().all(|path| !path.starts_with("/v2/")), "{:?}", paths(&taking));
        assert!(paths(&giving).iter().all(|path| !path.starts_with("/v1/")), "{:?}", paths(&giving));
        assert_eq!(paths(&taking).len() + paths(&giving).len(), paths(&both).len() + paths_of_none());
        assert!(giving["components"].get("securitySchemes").is_none(), "nothing is left that needs a token");
        assert!(!taking.to_string().contains("Last-Event-ID") && !giving.to_string().contains("Sluice-Message"));
        assert!(!both.to_string().contains("x-half"));
    }

    /// Those that are there whatever is served.
    fn paths_of_none() -> usize {
        document(&[])["paths"].as_object().expect("paths").len()
    }
}
