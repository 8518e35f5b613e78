//! Whether a schema lets a client make validation slow: EventGate's secure-schema check.

use serde_json::{Map, Value};

use super::source::subschemas;

/// The first fault, with the place in the schema where it is.
pub(super) fn fault(schema: &Value) -> Option<String> {
    fault_at(schema, "#")
}

fn fault_at(schema: &Value, place: &str) -> Option<String> {
    let object = schema.as_object()?;
    let own = own_fault(object).map(|fault| format!("{fault} at {place}"));
    own.or_else(|| {
        subschemas(object).into_iter().find_map(|(below, inner)| fault_at(inner, &format!("{place}{below}")))
    })
}

fn own_fault(object: &Map<String, Value>) -> Option<&'static str> {
    let has = |keyword| object.contains_key(keyword);
    // A schema without `$ref` beside it only: what stands beside one is not looked at by drafts up to 07, which makes
    // the check too strict there, and never too lax.
    if has("pattern") && !has("maxLength") {
        return Some("`pattern` needs `maxLength`");
    }
    if has("format") && !has("maxLength") {
        return Some("`format` needs `maxLength`");
    }
    if has("patternProperties") && !names_are_short(object) {
        return Some("`patternProperties` needs `propertyNames` with `maxLength`");
    }
    let unique = object.get("uniqueItems") == Some(&Value::Bool(true));
    if unique && !items_are_scalar(object) && !has("maxItems") {
        return Some("`uniqueItems` needs `maxItems`, or `items` whose `type` is neither object nor array,");
    }
    None
}

fn names_are_short(object: &Map<String, Value>) -> bool {
    match object.get("propertyNames") {
        Some(Value::Object(names)) => names.contains_key("maxLength"),
        // The meta-schema asks for `maxLength` of an object only.
        Some(_) => true,
        None => false,
    }
}

/// Whether the items have a type, and none that is slow to compare. One that has no type may be anything.
fn items_are_scalar(object: &Map<String, Value>) -> bool {
    let is_scalar = |name: &Value| name != "object" && name != "array";
    match object.get("items").and_then(|items| items.get("type")) {
        None => false,
        Some(Value::Array(names)) => names.iter().all(is_scalar),
        Some(name) => is_scalar(name),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_rule_has_its_reason_and_place() {
        for (schema, expected) in [
            (json!({"pattern": "a"}), "`pattern` needs `maxLength` at #"),
            (json!({"properties": {"a/b": {"format": "date"}}}), "`format` needs `maxLength` at #/properties/a~1b"),
            (json!({"patternProperties": {}}), "`patternProperties` needs `propertyNames` with `maxLength` at #"),
            (json!({"patternProperties": {}, "propertyNames": {}}), "with `maxLength` at #"),
            (json!({"uniqueItems": true, "items": {"type": "object"}}), "`uniqueItems` needs `maxItems`"),
            (json!({"uniqueItems": true, "items": {"type": ["string", "array"]}}), "`uniqueItems` needs `maxItems`"),
            (json!({"uniqueItems": true}), "`uniqueItems` needs `maxItems`"),
        ] {
            let found = fault(&schema).expect("a fault");
            assert!(found.contains(expected), "{schema}: {found}");
        }
    }

    #[test]
    fn every_place_of_a_schema_is_looked_at() {
        let bad = json!({"pattern": "a"});
        for keyword in [
            "items",
            "additionalItems",
            "additionalProperties",
            "not",
            "if",
            "then",
            "else",
            "contains",
            "propertyNames",
        ] {
            assert!(fault(&json!({ keyword: bad })).is_some(), "{keyword}");
        }
        for keyword in ["items", "allOf", "anyOf", "oneOf", "prefixItems"] {
            assert!(fault(&json!({ keyword: [true, bad] })).is_some(), "{keyword}");
        }
        for keyword in ["properties", "definitions", "dependencies", "$defs", "dependentSchemas"] {
            assert!(fault(&json!({ keyword: {"x": bad} })).is_some(), "{keyword}");
        }
        assert!(fault(&json!({"patternProperties": {"x": bad}, "propertyNames": {"maxLength": 9}})).is_some());
    }

    #[test]
    fn what_has_limits_is_secure_and_data_is_no_schema() {
        for schema in [
            json!({"pattern": "a", "maxLength": 9}),
            json!({"format": "date", "maxLength": 9}),
            json!({"patternProperties": {"a": {}}, "propertyNames": {"maxLength": 9}}),
            json!({"uniqueItems": true, "maxItems": 9}),
            json!({"uniqueItems": true, "items": {"type": ["string", "null"]}}),
            json!({"uniqueItems": false}),
            json!({"properties": {"pattern": {"type": "string"}}, "default": {"pattern": "a"}, "enum": [{"format": 1}]}),
            json!({"dependencies": {"format": ["a"]}}),
            json!(true),
        ] {
            assert_eq!(fault(&schema), None, "{schema}");
        }
    }
}
