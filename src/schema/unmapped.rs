//! What only the crate `jsonschema` can tell: the first fault it finds, in the style of the others.

use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::paths::LocationSegment;
use jsonschema::{ValidationError, Validator};
use serde_json::{Value, json};

use super::judge::VIOLATIONS_MAX;
use super::tree::fragment;
use super::violation::{Violation, clipped, named};

/// Characters of a message that has no words of its own here; it may quote the event.
const MESSAGE_CHARS_MAX: usize = 500;

/// At least one where the event is not valid.
pub(super) fn violations(validator: &Validator, event: &Value) -> Vec<Violation> {
    let Err(fault) = validator.validate(event) else { return Vec::new() };
    let at = data_path(&fault);
    let path: Vec<String> = fault.schema_path().as_str().split('/').map(fragment).collect();
    let path = format!("#{}", path.join("/"));
    let one =
        |params: Value, message: String| Violation::new(fault.kind().keyword(), &at, path.clone(), params, message);
    match fault.kind() {
        Kind::UnevaluatedProperties { unexpected } => unexpected
            .iter()
            .take(VIOLATIONS_MAX)
            .map(|name| {
                one(json!({ "unevaluatedProperty": clipped(name) }), "should NOT have unevaluated properties".into())
            })
            .collect(),
        Kind::UnevaluatedItems { .. } => vec![one(json!({}), "should NOT have unevaluated items".into())],
        Kind::Not { .. } => vec![one(json!({}), "should NOT be valid".into())],
        Kind::AnyOf { .. } => vec![one(json!({}), "should match some schema in anyOf".into())],
        Kind::OneOfMultipleValid { .. } | Kind::OneOfNotValid { .. } => {
            vec![one(json!({}), "should match exactly one schema in oneOf".into())]
        }
        _ => vec![one(json!({}), fault.to_string().chars().take(MESSAGE_CHARS_MAX).collect())],
    }
}

fn data_path(fault: &ValidationError<'_>) -> String {
    let steps = fault.instance_path().segments().map(|step| match step {
        LocationSegment::Property(name) => named(&name),
        LocationSegment::Index(index) => format!("[{index}]"),
    });
    steps.collect()
}
