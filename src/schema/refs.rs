//! Which text names which part of which schema: ids, anchors, and references resolved against them.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::source::{Source, subschemas};

/// A part of a schema: which of the schemas, and the JSON pointer in it.
pub(super) type Place = (usize, String);

/// All that can be referred to.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// By absolute URI, for anchors with a fragment.
    named: HashMap<String, Place>,
    /// Against what references are resolved, for each place that a schema stands at.
    bases: HashMap<Place, String>,
}

impl Index {
    /// The first schema is the one that is compiled, the others are those that it refers to.
    pub(super) fn of(sources: &[(String, Source)]) -> Self {
        let mut index = Self::default();
        for (number, (uri, source)) in sources.iter().enumerate() {
            index.named.insert(uri.clone(), (number, String::new()));
            index.add(number, &source.value, String::new(), uri);
        }
        index
    }

    fn add(&mut self, number: usize, schema: &Value, pointer: String, base: &str) {
        let id = schema.get("$id").and_then(Value::as_str);
        let base = match id {
            Some(id) => {
                let absolute = resolve(base, id);
                let (plain, fragment) = absolute.split_once('#').unwrap_or((&absolute, ""));
                let name = if fragment.is_empty() { plain } else { absolute.as_str() };
                self.named.entry(name.to_owned()).or_insert_with(|| (number, pointer.clone()));
                plain.to_owned()
            }
            None => base.to_owned(),
        };
        for keyword in ["$anchor", "$dynamicAnchor"] {
            if let Some(anchor) = schema.get(keyword).and_then(Value::as_str) {
                self.named.entry(format!("{base}#{anchor}")).or_insert_with(|| (number, pointer.clone()));
            }
        }
        for (below, inner) in schema.as_object().map(subschemas).unwrap_or_default() {
            self.add(number, inner, format!("{pointer}{below}"), &base);
        }
        self.bases.insert((number, pointer), base);
    }

    /// Against what references at a place are resolved. One that is no schema's place has its parent's.
    pub(super) fn base(&self, place: &Place) -> &str {
        let mut pointer = place.1.as_str();
        loop {
            if let Some(base) = self.bases.get(&(place.0, pointer.to_owned())) {
                return base;
            }
            let Some((parent, _)) = pointer.rsplit_once('/') else { return "" };
            pointer = parent;
        }
    }

    /// What an absolute URI names, as far as it is here.
    pub(super) fn find(&self, absolute: &str) -> Option<Place> {
        let (plain, fragment) = absolute.split_once('#').unwrap_or((absolute, ""));
        if !fragment.is_empty() && !fragment.starts_with('/') {
            return self.named.get(absolute).cloned();
        }
        let (number, pointer) = self.named.get(plain)?;
        let fragment = percent_decode_str(fragment).decode_utf8().ok()?;
        Some((*number, format!("{pointer}{fragment}")))
    }
}

/// A reference made absolute, as RFC 3986 has it; a base may be a mere path.
pub(super) fn resolve(base: &str, reference: &str) -> String {
    let base = base.split('#').next().unwrap_or_default();
    if has_scheme(reference) || reference.starts_with("//") {
        return reference.to_owned();
    }
    if reference.is_empty() || reference.starts_with('#') {
        return format!("{base}{reference}");
    }
    let path_start =
        base.find("://").map_or(0, |at| base[at + 3..].find('/').map_or(base.len(), |slash| at + 3 + slash));
    let (origin, path) = base.split_at(path_start);
    let (reference, fragment) = reference.split_at(reference.find('#').unwrap_or(reference.len()));
    let folder = if reference.starts_with('/') { "" } else { path.rsplit_once('/').map_or("", |(folder, _)| folder) };
    let mut segments = Vec::new();
    for segment in folder.split('/').chain(reference.split('/')) {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    format!("{origin}/{}{fragment}", segments.join("/"))
}

fn has_scheme(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|char| char.is_ascii_alphanumeric() || "+-.".contains(char))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_resolved_against_their_base() {
        for (base, reference, expected) in [
            ("/a/b/1.0.0", "#/x", "/a/b/1.0.0#/x"),
            ("/a/b/1.0.0", "/c/2.0.0#", "/c/2.0.0#"),
            ("/a/b/1.0.0", "2.0.0", "/a/b/2.0.0"),
            ("/a/b/1.0.0", "../../../c", "/c"),
            ("https://x.org/a/b", "/c#/d", "https://x.org/c#/d"),
            ("https://x.org/a/b", "./c", "https://x.org/a/c"),
            ("/a", "http://y/z", "http://y/z"),
            ("urn:x", "#a", "urn:x#a"),
            ("/a/b", "", "/a/b"),
        ] {
            assert_eq!(resolve(base, reference), expected, "{base} {reference}");
        }
    }

    #[test]
    fn ids_and_anchors_name_places() {
        let value = json!({"$id": "/r/1", "properties": {"a": {"$id": "/s/1", "definitions": {"d": {"$anchor": "n"}}},
            "b": {"$id": "#old"}}});
        let source = super::super::source::prepared(value).expect("a schema");
        let index = Index::of(&[("/asked/latest".to_owned(), source)]);
        let place = |pointer: &str| Some((0, pointer.to_owned()));
        assert_eq!(index.find("/asked/latest"), place(""));
        assert_eq!(index.find("/r/1#/properties/a"), place("/properties/a"));
        assert_eq!(index.find("/s/1#/definitions/d"), place("/properties/a/definitions/d"));
        assert_eq!(index.find("/s/1#n"), place("/properties/a/definitions/d"));
        assert_eq!(index.find("/r/1#old"), place("/properties/b"));
        assert_eq!(index.find("/t/1"), None);
        assert_eq!(index.base(&(0, "/properties/a/definitions".to_owned())), "/s/1");
    }
}
