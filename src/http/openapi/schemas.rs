//! From the titles that streams name to schemas: asked for together, within one deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::catalog::Catalog;
use crate::schema::{LoadError, Schema, SchemaUri, Schemas, each_subschema};

/// All schemas are there by then, or the document does without.
const DEADLINE: Duration = Duration::from_secs(5);
/// Schemas in one document. Fewer than the cache of schemas holds: those of events stay there.
const SCHEMAS_MAX: usize = 250;
/// Schemas asked for at once. Fewer than may wait for their turn: events have the others.
const ASKED_AT_ONCE: usize = 16;

/// Why a document has no schema for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Without {
    /// The catalogue names none, or none that there can be.
    Title,
    Unknown,
    Refused,
    /// It may be there the next time.
    Away,
    TooMany,
    TooLarge,
}

/// What was found, by title.
#[derive(Debug, Default)]
pub(super) struct Found(BTreeMap<String, Result<Arc<Schema>, Without>>);

/// A schema as the document has it.
#[derive(Debug, PartialEq)]
pub(super) struct Described {
    pub(super) schema: Value,
    pub(super) example: Option<Value>,
}

/// What all streams of the catalogue name.
pub(super) async fn find(catalog: &Catalog, schemas: &Schemas) -> Found {
    let titles: BTreeSet<&str> =
        catalog.streams().filter_map(|stream| stream.settings.schema_title.as_deref()).collect();
    let deadline = Instant::now() + DEADLINE;
    let ask = |(at, title): (usize, &str)| {
        let title = title.to_owned();
        async move {
            let found = match (at < SCHEMAS_MAX, uri_of(&title)) {
                (_, None) => Err(Without::Title),
                (false, _) => Err(Without::TooMany),
                (true, Some(uri)) => match timeout_at(deadline, schemas.load(&uri)).await {
                    Ok(loaded) => loaded.map_err(|e| without(&e)),
                    Err(_) => Err(Without::Away),
                },
            };
            (title, found)
        }
    };
    let asked: Vec<_> = titles.into_iter().enumerate().map(ask).collect();
    Found(stream::iter(asked).buffer_unordered(ASKED_AT_ONCE).collect().await)
}

fn uri_of(title: &str) -> Option<SchemaUri> {
    SchemaUri::parse(&format!("{}/latest", title.trim_end_matches('/'))).ok()
}

fn without(error: &LoadError) -> Without {
    match error {
        LoadError::Unknown(_) => Without::Unknown,
        LoadError::Refused { .. } => Without::Refused,
        LoadError::Unavailable { .. } => Without::Away,
    }
}

impl Found {
    /// Whether asking again may bring more.
    pub(super) fn has_gaps(&self) -> bool {
        self.0.values().any(|found| matches!(found, Err(Without::Away)))
    }

    pub(super) fn titles(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn get(&self, title: &str) -> Result<&Schema, Without> {
        match self.0.get(title) {
            Some(Ok(schema)) => Ok(schema),
            Some(Err(without)) => Err(*without),
            None => Err(Without::Title),
        }
    }
}

impl Without {
    /// For people.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Title => "The catalogue names no schema for it.",
            Self::Unknown => "Its schema is in no schema repository that is configured.",
            Self::Refused => "Its schema is there, and is none that events can be judged by.",
            Self::Away => "Its schema cannot be had now: the schema repository does not answer.",
            Self::TooMany | Self::TooLarge => "Its schema is left out here: this document would grow too large.",
        }
    }
}

/// The schema as it stands at `place` (a fragment of the document): without its own address and examples, the first of
/// which is the example. Its dialect stays named.
pub(super) fn describe(mut schema: Value, place: &str) -> Described {
    let mut example = None;
    if let Value::Object(object) = &mut schema {
        example = object.shift_remove("examples").and_then(|examples| examples.get(0).cloned());
        let own = ["$id", "id"].map(|name| {
            let is_text = object.get(name).is_some_and(Value::is_string);
            is_text.then(|| object.shift_remove(name)).flatten()
        });
        let own = own.iter().flatten().find_map(Value::as_str).map(|id| id.trim_end_matches('#').to_owned());
        refer_from(&mut schema, place, own.as_deref());
    }
    Described { schema, example }
}

/// A reference within the schema becomes one within the document. Other schemas are not here: they are named.
fn refer_from(schema: &mut Value, place: &str, own: Option<&str>) {
    let Value::Object(object) = schema else { return };
    if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
        let (base, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let is_own = base.is_empty() || Some(base) == own;
        if is_own && (fragment.is_empty() || fragment.starts_with('/')) {
            let reference = format!("{place}{fragment}");
            object.insert("$ref".into(), reference.into());
        } else {
            let elsewhere = format!("As {reference} says.");
            *schema = json!({ "description": elsewhere });
            return;
        }
    }
    each_subschema(object, &mut |inner| {
        // The file has one dialect, whatever its parts were made from.
        if let Some(inner) = inner.as_object_mut() {
            inner.shift_remove("$schema");
        }
        // One with an address of its own is what its references are relative to.
        if !inner.get("$id").is_some_and(Value::is_string) {
            refer_from(inner, place, own);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_lead_to_where_the_schema_stands_and_others_are_named() {
        let schema = json!({
            "$id": "/a/1.0.0#", "$schema": "https://json-schema.org/draft-07/schema#", "examples": [{"x": 1}, {"x": 2}],
            "properties": {
                "$ref": {"type": "string"},
                "all": {"$ref": "#"},
                "x": {"$ref": "#/definitions/n"},
                "own": {"allOf": [{"$ref": "/a/1.0.0#/definitions/n"}]},
                "other": {"items": {"$ref": "/b/1.0.0#/c"}},
                "text": {"default": {"$ref": "#/definitions/n"}},
                "id": {"type": "integer"},
                "inner": {"$id": "/c", "not": {"$ref": "#/d"}},
            },
            "definitions": {"n": {"type": "number"}},
        });
        let described = describe(schema, "#/components/schemas/a");
        assert_eq!(described.example, Some(json!({"x": 1})));
        let n = json!({"$ref": "#/components/schemas/a/definitions/n"});
        assert_eq!(
            described.schema,
            json!({
                "$schema": "https://json-schema.org/draft-07/schema#",
                "properties": {
                    "$ref": {"type": "string"},
                    "all": {"$ref": "#/components/schemas/a"},
                    "x": n,
                    "own": {"allOf": [n]},
                    "other": {"items": {"description": "As /b/1.0.0#/c says."}},
                    "text": {"default": {"$ref": "#/definitions/n"}},
                    "id": {"type": "integer"},
                    "inner": {"$id": "/c", "not": {"$ref": "#/d"}},
                },
                "definitions": {"n": {"type": "number"}},
            })
        );
        assert_eq!(describe(json!(true), "#").schema, json!(true));
    }
}
