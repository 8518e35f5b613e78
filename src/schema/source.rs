//! From a file's bytes to a schema that the validator can compile: YAML or JSON, its draft, and where schemas stand in it.

use super::tree::Fault;
use jsonschema::Draft;
use serde_json::{Map, Value};

/// Bytes of a schema's file. The largest one that is published has 30 KB.
pub(super) const SCHEMA_BYTES_MAX: usize = 1 << 20;
/// Levels of objects and arrays in a schema.
const SCHEMA_DEPTH_MAX: usize = 64;
/// Values in a schema. Says stop where aliases of YAML multiply.
const SCHEMA_VALUES_MAX: usize = 100_000;

/// Keywords that hold a schema.
const ONE: &[&str] = &[
    "additionalItems",
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords that hold a list of schemas.
const MANY: &[&str] = &["allOf", "anyOf", "items", "oneOf", "prefixItems"];
/// Keywords that hold schemas by name.
const NAMED: &[&str] = &["$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"];

/// A schema as every other part of this module wants it.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// Without `$schema`; what draft 04 writes otherwise is as in draft 07.
    pub(super) value: Value,
    pub(super) draft: Draft,
}

/// Reads a file. What is wrong is told without a word of its content.
pub(super) fn read(bytes: &[u8]) -> Result<Source, Fault> {
    if bytes.len() > SCHEMA_BYTES_MAX {
        return Err(format!("the schema is larger than {SCHEMA_BYTES_MAX} bytes").into());
    }
    let value = value_of(bytes).ok_or(Fault::Junk("its content is neither YAML nor JSON"))?;
    if !matches!(value, Value::Object(_) | Value::Bool(_)) {
        return Err(Fault::Junk("its content is no schema: schema should be object or boolean"));
    }
    let mut values = SCHEMA_VALUES_MAX;
    if !is_within(&value, SCHEMA_DEPTH_MAX, &mut values) {
        return Err(format!("the schema has more than {SCHEMA_DEPTH_MAX} levels or {SCHEMA_VALUES_MAX} values").into());
    }
    Ok(prepared(value)?)
}

/// JSON is YAML, but not all of it to this parser, and slower.
pub(super) fn value_of(bytes: &[u8]) -> Option<Value> {
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Some(value);
    }
    let mut value: serde_yaml_ng::Value = serde_yaml_ng::from_slice(bytes).ok()?;
    value.apply_merge().ok()?;
    serde_json::to_value(value).ok()
}

fn is_within(value: &Value, depth: usize, values: &mut usize) -> bool {
    if depth == 0 || *values == 0 {
        return false;
    }
    *values -= 1;
    match value {
        Value::Array(items) => items.iter().all(|item| is_within(item, depth - 1, values)),
        Value::Object(members) => members.values().all(|member| is_within(member, depth - 1, values)),
        _ => true,
    }
}

/// Finds the draft and makes the dialects one.
pub(super) fn prepared(mut value: Value) -> Result<Source, String> {
    let draft = draft_of(&value)?;
    if draft == Draft::Draft4 {
        jsonschema::draft4::meta::validate(&value).map_err(|fault| invalid(&fault))?;
    }
    let old = draft == Draft::Draft4;
    normalise(&mut value, old);
    // AJV 6 knows no draft 04 but its ids and exclusive limits: 1.0 is an integer there too.
    Ok(Source { value, draft: if old { Draft::Draft7 } else { draft } })
}

/// The reason why a schema breaks its meta-schema: the place and the rule, and none of the values that stand there.
pub(super) fn invalid(fault: &jsonschema::ValidationError<'_>) -> String {
    format!("schema is invalid: #{} breaks `{}` of the meta-schema", fault.instance_path(), fault.kind().keyword())
}

fn draft_of(schema: &Value) -> Result<Draft, String> {
    let Some(id) = schema.get("$schema") else { return Ok(Draft::Draft7) };
    let plain = id.as_str().map(|id| id.trim_end_matches('#'));
    let plain = plain.and_then(|id| id.strip_prefix("http://").or_else(|| id.strip_prefix("https://")));
    match plain.and_then(|id| id.strip_prefix("json-schema.org/")) {
        Some("draft-04/schema") => Ok(Draft::Draft4),
        Some("draft-06/schema") => Ok(Draft::Draft6),
        // Without a number: the newest one that AJV 6 knew.
        Some("draft-07/schema" | "schema") => Ok(Draft::Draft7),
        Some("draft/2019-09/schema") => Ok(Draft::Draft201909),
        Some("draft/2020-12/schema") => Ok(Draft::Draft202012),
        _ => Err(format!("no schema with key or ref {id}; the drafts of json-schema.org from 04 to 2020-12 are known")),
    }
}

/// The dialect of a schema, as its draft itself writes it. `None`: it is none that is known.
pub(super) fn dialect_of(schema: &Value) -> Option<&'static str> {
    Some(match draft_of(schema).ok()? {
        Draft::Draft4 => "http://json-schema.org/draft-04/schema#",
        Draft::Draft6 => "http://json-schema.org/draft-06/schema#",
        Draft::Draft7 => "http://json-schema.org/draft-07/schema#",
        Draft::Draft201909 => "https://json-schema.org/draft/2019-09/schema",
        Draft::Draft202012 => "https://json-schema.org/draft/2020-12/schema",
        _ => return None,
    })
}

/// Drops `$schema` everywhere (the file has one draft, whatever its parts were made from), and writes draft 04's
/// `id`, and its limits that a switch makes exclusive, as later drafts do.
fn normalise(schema: &mut Value, old: bool) {
    let Value::Object(object) = schema else { return };
    object.shift_remove("$schema");
    if old {
        upgrade(object);
    }
    each_subschema(object, &mut |inner| normalise(inner, old));
}

fn upgrade(object: &mut Map<String, Value>) {
    if object.get("id").is_some_and(Value::is_string)
        && let Some(id) = object.shift_remove("id")
    {
        object.insert("$id".into(), id);
    }
    for (limit, exclusive) in [("maximum", "exclusiveMaximum"), ("minimum", "exclusiveMinimum")] {
        let Some(Value::Bool(switch)) = object.get(exclusive) else { continue };
        let switch = *switch;
        object.shift_remove(exclusive);
        if switch && let Some(limit) = object.shift_remove(limit) {
            object.insert(exclusive.into(), limit);
        }
    }
}

/// Calls `change` with every schema right inside a schema.
pub fn each_subschema(object: &mut Map<String, Value>, change: &mut dyn FnMut(&mut Value)) {
    for (keyword, value) in object.iter_mut() {
        let keyword = keyword.as_str();
        match value {
            Value::Array(items) if MANY.contains(&keyword) => items.iter_mut().for_each(&mut *change),
            Value::Object(members) if NAMED.contains(&keyword) => members.values_mut().for_each(&mut *change),
            value if ONE.contains(&keyword) => change(value),
            _ => {}
        }
    }
}

/// The schemas right inside a schema, each with its place: the keyword, and the name or number below it.
pub(super) fn subschemas(object: &Map<String, Value>) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (keyword, value) in object {
        let name = keyword.as_str();
        match value {
            Value::Array(items) if MANY.contains(&name) => {
                found.extend(items.iter().enumerate().map(|(at, item)| (format!("/{name}/{at}"), item)));
            }
            Value::Object(members) if NAMED.contains(&name) => {
                let schemas = members.iter().filter(|(_, member)| member.is_object() || member.is_boolean());
                found.extend(schemas.map(|(key, member)| (format!("/{name}/{}", token(key)), member)));
            }
            Value::Object(_) | Value::Bool(_) if ONE.contains(&name) => found.push((format!("/{name}"), value)),
            _ => {}
        }
    }
    found
}

/// A name as a step of a JSON pointer.
pub(super) fn token(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_draft_is_told_by_the_id_with_or_without_its_ornaments() {
        for (id, draft) in [
            ("http://json-schema.org/draft-06/schema#", Draft::Draft6),
            ("https://json-schema.org/draft-07/schema#", Draft::Draft7),
            ("http://json-schema.org/draft-07/schema", Draft::Draft7),
            ("https://json-schema.org/draft-04/schema#", Draft::Draft7),
            ("http://json-schema.org/draft/2019-09/schema", Draft::Draft201909),
            ("https://json-schema.org/draft/2020-12/schema#", Draft::Draft202012),
        ] {
            assert_eq!(prepared(json!({"$schema": id})).expect(id).draft, draft, "{id}");
        }
        assert_eq!(read(b"type: object").expect("a schema").draft, Draft::Draft7);
        let unknown = prepared(json!({"$schema": "/other/1.0.0"})).expect_err("unknown");
        assert!(unknown.starts_with("no schema with key or ref \"/other/1.0.0\""), "{unknown}");
    }

    #[test]
    fn draft_04_becomes_draft_07() {
        let old = json!({"$schema": "http://json-schema.org/draft-04/schema#", "id": "/a", "properties": {
            "id": {"type": "integer", "minimum": 1, "exclusiveMinimum": true, "maximum": 9, "exclusiveMaximum": false}}});
        let new = json!({"properties": {"id": {"type": "integer", "exclusiveMinimum": 1, "maximum": 9}}, "$id": "/a"});
        assert_eq!(prepared(old).expect("a schema").value, new);
    }

    #[test]
    fn what_is_no_schema_is_junk_and_no_word_of_it_is_told() {
        let why = |bytes: &[u8]| format!("{:?}", read(bytes).map(|source| source.value).expect_err("no schema"));
        for text in ["root:x:0:0:secret", "- secret", "42", "'secret", "\u{0}secret", "", "<html>secret</html>"] {
            let why = why(text.as_bytes());
            assert!(why.starts_with("Junk") && !why.contains("secret"), "{why}");
        }
        assert!(why(&vec![b' '; SCHEMA_BYTES_MAX + 1]).contains("larger than"));
        let deep = format!("{}{}", "{\"not\":".repeat(100), "{}".to_owned() + &"}".repeat(100));
        assert!(why(deep.as_bytes()).contains("levels"));
    }

    #[test]
    fn merges_and_anchors_of_yaml_are_followed() {
        let text = "properties:\n  a: &x {type: string}\n  b: {<<: *x, maxLength: 3}\n";
        let value = read(text.as_bytes()).expect("a schema").value;
        assert_eq!(value["properties"]["b"], json!({"maxLength": 3, "type": "string"}));
    }
}
