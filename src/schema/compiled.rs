//! A compiled schema: what it says of events.

use std::collections::HashMap;

use bytes::Bytes;
use jsonschema::{Retrieve, Uri, Validator};
use serde_json::Value;

use super::defaults::Plan;
use super::rules::pattern_options;
use super::source::{Source, dialect_of, invalid, value_of};
use super::tree::{Fault, NodeId, Rest, Rule, Tree};
use super::uri::SchemaUri;
use super::violation::Violation;
use super::{defaults, formats, judge, secure, unmapped};
use crate::model::{Document, Step};

/// References followed while looking for one field.
const LOOKS_MAX: usize = 1_000;

/// A compiled schema.
#[derive(Debug)]
pub struct Schema {
    title: Option<String>,
    /// The file. A tenth of what the rest of this takes.
    text: Bytes,
    validator: Validator,
    tree: Tree,
    plan: Plan,
    has_references: bool,
}

/// The schemas that one refers to, by absolute URI. Everything else is not to be had: nothing is ever fetched from here.
struct Here(HashMap<String, Value>);

impl Retrieve for Here {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let text = uri.as_str();
        let path = text.strip_prefix("json-schema://").unwrap_or(text);
        self.0.get(path).cloned().ok_or_else(|| "it is in no base".into())
    }
}

impl Schema {
    /// The first source is the schema, the others are those it refers to. Takes milliseconds: not for async threads.
    pub(super) fn compile(uri: &SchemaUri, sources: &mut [(String, Source)]) -> Result<Self, Fault> {
        for (_, source) in sources.iter() {
            if let Some(fault) = secure::fault(&source.value) {
                return Err(format!("Schema at {uri} is not secure for compilation: {fault}").into());
            }
        }
        let Some(((_, source), others)) = sources.split_first_mut() else {
            return Err("there is no schema".to_owned().into());
        };
        // Relative references need something to be relative to.
        if let Value::Object(object) = &mut source.value {
            object.entry("$id").or_insert_with(|| uri.as_str().into());
        }
        let others = others.iter().map(|(uri, source)| (uri.clone(), source.value.clone())).collect();
        let (value, draft) = (source.value.clone(), source.draft);
        let tree = Tree::grow(sources)?;
        let mut options = jsonschema::options()
            .with_draft(draft)
            .with_pattern_options(pattern_options())
            .should_validate_formats(true)
            .with_retriever(Here(others));
        for (name, check) in formats::ALL {
            options = options.with_format(*name, *check);
        }
        let validator = options.build(&value).map_err(|fault| invalid(&fault))?;
        let title = value.get("title").and_then(Value::as_str).map(str::to_owned);
        let plan = defaults::plan(&tree);
        let has_references = tree.has_references();
        Ok(Self { title, text: Bytes::new(), validator, tree, plan, has_references })
    }

    /// Keeps the file that it was made from.
    pub(super) fn written_as(mut self, text: Bytes) -> Self {
        // One of its own: the bytes may be a part of something larger.
        self.text = Bytes::copy_from_slice(&text);
        self
    }

    pub fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }

    /// The schema as its author wrote it, read anew, with the dialect in which it is read. Takes milliseconds: not for
    /// async threads.
    pub fn document(&self) -> Value {
        let mut document = value_of(&self.text).unwrap_or_default();
        if let (Some(dialect), Value::Object(object)) = (dialect_of(&document), &mut document) {
            object.insert("$schema".into(), dialect.into());
        }
        document
    }

    /// Whether the schema describes this field, so that it may be filled.
    pub fn declares(&self, path: &[Step]) -> bool {
        let mut looks = LOOKS_MAX;
        !path.is_empty() && self.declares_below(self.tree.root(), path, &mut looks)
    }

    fn declares_below(&self, node: NodeId, path: &[Step], looks: &mut usize) -> bool {
        let Some((step, rest)) = path.split_first() else { return true };
        if *looks == 0 {
            return false;
        }
        *looks -= 1;
        self.tree.node(node).rules.iter().any(|rule| match (rule, step) {
            (Rule::Properties(of), Step::Key(key)) => {
                let named = of.known.iter().find(|property| property.name == *key);
                named.is_some_and(|property| self.declares_below(property.node, rest, looks))
            }
            (Rule::Items(items), Step::Index(index)) => match (items.tuple.get(*index), items.rest) {
                (Some(inner), _) => self.declares_below(*inner, rest, looks),
                (None, Rest::Schema(inner)) => self.declares_below(inner, rest, looks),
                (None, _) => false,
            },
            (Rule::Reference(inner), _) => self.declares_below(*inner, path, looks),
            (Rule::AllOf(branches), _) => branches.iter().any(|inner| self.declares_below(*inner, path, looks)),
            _ => false,
        })
    }

    /// Sets what the event lacks and the schema has a default for.
    pub fn fill_defaults(&self, document: &mut Document) {
        defaults::fill(&self.tree, &self.plan, document);
    }

    /// Everything that is wrong, in a stable order, up to a limit. Empty: the event is valid.
    pub fn violations(&self, event: &Value) -> Vec<Violation> {
        if self.has_references {
            // The crate has no bound on its steps, nor on what it remembers of them.
            match judge::verdict(&self.tree, event) {
                Some(true) => {}
                Some(false) => return or_too_complex(judge::violations(&self.tree, event)),
                None => return or_too_complex(Vec::new()),
            }
        }
        if self.validator.is_valid(event) {
            return Vec::new();
        }
        let told = judge::violations(&self.tree, event);
        // Rules of newer drafts that need to know what others have looked at are told by the validator alone.
        if told.is_empty() { unmapped::violations(&self.validator, event) } else { told }
    }

    #[cfg(test)]
    pub(super) fn parts(&self) -> (&Validator, &Tree) {
        (&self.validator, &self.tree)
    }
}

/// What is wrong with an event that is refused because it cannot be judged in bounded time.
fn or_too_complex(told: Vec<Violation>) -> Vec<Violation> {
    if !told.is_empty() {
        return told;
    }
    let message = "is too deep to be judged by a schema whose references branch".to_owned();
    vec![Violation::new("$ref", "", "#/$ref".into(), serde_json::json!({}), message)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::schema;

    #[test]
    fn an_event_that_would_take_for_ever_is_refused_in_bounded_steps() {
        let branch = |name: &str| json!({ "type": "object", "properties": { "n": { "$ref": "#/definitions/n" }, name: { "type": "number" } } });
        let branching = schema(json!({
            "properties": { "x": { "$ref": "#/definitions/n" } },
            "definitions": { "n": { "anyOf": [branch("a"), branch("b")] } },
        }));
        let nested =
            |depth: usize| json!({ "x": (0..depth).fold(json!("end"), |inner, _| json!({ "n": inner, "a": 1 })) });
        let few = branching.violations(&nested(3));
        assert!(few.iter().any(|violation| violation.keyword == "anyOf"), "{} violations", few.len());
        let many = branching.violations(&nested(100));
        assert!(many.len() == 1 && many[0].message.contains("too deep to be judged"), "{} violations", many.len());
        let definitions: serde_json::Map<_, _> = (0..60)
            .map(|at| {
                let next = json!({ "$ref": format!("#/definitions/d{}", at + 1) });
                (format!("d{at}"), json!({ "allOf": [next, next] }))
            })
            .chain([("d60".to_owned(), json!({ "type": "object" }))])
            .collect();
        let doubling = schema(json!({ "allOf": [{ "$ref": "#/definitions/d0" }], "definitions": definitions }));
        assert_eq!(doubling.violations(&json!({})).len(), 1);
    }
}
