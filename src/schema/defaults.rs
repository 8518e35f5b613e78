//! Filling what an event lacks: where AJV 6 with `useDefaults` would.
//!
//! Only what is absent is filled, and only where its parent is there; `null` is not absent. Through `allOf`, references,
//! `dependencies`, and the branch of an `if` that holds; never under `anyOf`, `oneOf`, `not` or a condition.

use serde_json::Value;

use super::judge::{is_additional, is_valid};
use super::tree::{Dependency, Items, NodeId, Properties, Rest, Rule, Tree};
use crate::model::{Document, Step};

/// Fields filled in one event; each costs a walk over the list it stands in. Past it the event stays as it is.
const FILLED_MAX: usize = 256;
/// A default may itself lack what has a default.
const ROUNDS_MAX: usize = 16;
/// Schemas within schemas.
const DEPTH_MAX: usize = 400;
/// Values looked at in one event.
const STEPS_MAX: usize = 100_000;

/// For each node whether there is anything to fill at it or below. Most schemas have no default at all.
#[derive(Debug)]
pub(super) struct Plan(Vec<bool>);

pub(super) fn plan(tree: &Tree) -> Plan {
    let mut fills = vec![false; tree.nodes().len()];
    // References may lead back, so what is known spreads until nothing is new.
    loop {
        let mut grown = false;
        for (id, node) in tree.nodes().iter().enumerate() {
            if !fills[id] && node.rules.iter().any(|rule| leads_to_default(tree, rule, &fills)) {
                fills[id] = true;
                grown = true;
            }
        }
        if !grown {
            return Plan(fills);
        }
    }
}

fn leads_to_default(tree: &Tree, rule: &Rule, fills: &[bool]) -> bool {
    let or_default = |id: &NodeId| fills[*id] || tree.node(*id).default.is_some();
    let rest = |rest: &Rest| matches!(rest, Rest::Schema(id) if fills[*id]);
    match rule {
        Rule::Properties(of) => {
            let known = of.known.iter().any(|property| or_default(&property.node));
            known || of.patterns.iter().any(|(_, id)| fills[*id]) || rest(&of.rest)
        }
        Rule::Items(items) => items.tuple.iter().any(or_default) || rest(&items.rest),
        Rule::Reference(id) => fills[*id],
        Rule::AllOf(branches) => branches.iter().any(|id| fills[*id]),
        Rule::If { then, otherwise, .. } => then.iter().chain(otherwise).any(|id| fills[*id]),
        Rule::Dependencies { of, .. } => {
            of.iter().any(|(_, needed)| matches!(needed, Dependency::Schema(id) if fills[*id]))
        }
        _ => false,
    }
}

pub(super) fn fill(tree: &Tree, Plan(fills): &Plan, document: &mut Document) {
    if !fills[tree.root()] {
        return;
    }
    let mut left = FILLED_MAX;
    let mut steps = STEPS_MAX;
    for _ in 0..ROUNDS_MAX {
        let mut filler = Filler { tree, fills, missing: Vec::new(), left, steps, depth: 0 };
        filler.look(tree.root(), document.value(), None);
        (left, steps) = (filler.left, filler.steps);
        let missing = filler.missing;
        if missing.is_empty() {
            return;
        }
        for (path, value) in missing {
            // Two branches may have a default for one field: the first one holds.
            let is_there = match (document.get(&path), &value) {
                (Some(Value::Array(now)), Value::Array(filled)) => now.len() >= filled.len(),
                (now, _) => now.is_some(),
            };
            if !is_there {
                document.set(&path, value);
            }
        }
    }
}

/// A path that costs nothing until it is needed.
#[derive(Clone, Copy)]
struct Path<'a> {
    above: Option<&'a Path<'a>>,
    step: StepRef<'a>,
}

#[derive(Clone, Copy)]
enum StepRef<'a> {
    Key(&'a str),
    Index(usize),
}

fn steps(path: Option<&Path<'_>>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = path;
    while let Some(Path { above, step }) = at {
        steps.push(match step {
            StepRef::Key(key) => Step::from(*key),
            StepRef::Index(index) => Step::Index(*index),
        });
        at = *above;
    }
    steps.reverse();
    steps
}

struct Filler<'a> {
    tree: &'a Tree,
    fills: &'a [bool],
    missing: Vec<(Vec<Step>, Value)>,
    left: usize,
    steps: usize,
    depth: usize,
}

impl Filler<'_> {
    fn look(&mut self, id: NodeId, value: &Value, path: Option<&Path<'_>>) {
        if !self.fills[id] || self.depth >= DEPTH_MAX || self.steps == 0 || self.left == 0 {
            return;
        }
        self.depth += 1;
        self.steps -= 1;
        let tree = self.tree;
        for rule in &tree.node(id).rules {
            match (rule, value) {
                (Rule::Properties(of), Value::Object(_)) => self.properties(of, value, path),
                (Rule::Items(items), Value::Array(values)) => self.items(items, values, path),
                (Rule::Reference(inner), _) => self.look(*inner, value, path),
                (Rule::AllOf(branches), _) => branches.iter().for_each(|inner| self.look(*inner, value, path)),
                (Rule::Dependencies { of, .. }, Value::Object(object)) => {
                    for (name, needed) in of {
                        if let Dependency::Schema(inner) = needed
                            && object.contains_key(name)
                        {
                            self.look(*inner, value, path);
                        }
                    }
                }
                // A condition is about the event as it is once its own defaults are in: not before the next round.
                (Rule::If { condition, then, otherwise }, _) if self.missing.is_empty() => {
                    let branch = if is_valid(tree, *condition, value) { then } else { otherwise };
                    branch.iter().for_each(|inner| self.look(*inner, value, path));
                }
                _ => {}
            }
        }
        self.depth -= 1;
    }

    fn lacks(&mut self, path: Vec<Step>, default: Value) {
        if self.left > 0 {
            self.left -= 1;
            self.missing.push((path, default));
        }
    }

    fn properties(&mut self, of: &Properties, value: &Value, path: Option<&Path<'_>>) {
        let Value::Object(object) = value else { return };
        for property in &of.known {
            let default = self.tree.node(property.node).default.as_ref();
            if default.is_none() && !self.fills[property.node] {
                continue;
            }
            let below = Path { above: path, step: StepRef::Key(&property.name) };
            match (object.get(&property.name), default) {
                (Some(inner), _) => self.look(property.node, inner, Some(&below)),
                (None, Some(default)) => self.lacks(steps(Some(&below)), default.clone()),
                (None, None) => {}
            }
        }
        let patterns = of.patterns.iter().filter(|(_, id)| self.fills[*id]).collect::<Vec<_>>();
        let rest = match of.rest {
            Rest::Schema(id) if self.fills[id] => Some(id),
            _ => None,
        };
        if patterns.is_empty() && rest.is_none() {
            return;
        }
        for (key, inner) in object {
            let below = Path { above: path, step: StepRef::Key(key) };
            let name = Value::String(key.clone());
            for (pattern, id) in &patterns {
                if pattern.is_valid(&name) {
                    self.look(*id, inner, Some(&below));
                }
            }
            if let Some(id) = rest.filter(|_| is_additional(of, key)) {
                self.look(id, inner, Some(&below));
            }
        }
    }

    fn items(&mut self, items: &Items, values: &[Value], path: Option<&Path<'_>>) {
        let absent = items.tuple.iter().skip(values.len());
        // Up to the first that has no default: a hole would be a `null` that nobody sent.
        for (at, added) in absent.map_while(|id| self.tree.node(*id).default.clone()).enumerate() {
            let below = Path { above: path, step: StepRef::Index(values.len() + at) };
            self.lacks(steps(Some(&below)), added);
        }
        for (index, value) in values.iter().enumerate() {
            let id = match (items.tuple.get(index), items.rest) {
                (Some(id), _) => *id,
                (None, Rest::Schema(id)) => id,
                (None, _) => return,
            };
            let below = Path { above: path, step: StepRef::Index(index) };
            self.look(id, value, Some(&below));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::super::testing::schema;
    use super::*;

    fn filled(rules: Value, event: Value) -> Value {
        let mut document = Document::parse(Bytes::from(event.to_string())).expect("JSON");
        schema(rules).fill_defaults(&mut document);
        assert_eq!(&serde_json::from_slice::<Value>(&document.text()).expect("JSON"), document.value());
        document.value().clone()
    }

    #[test]
    fn what_is_absent_is_filled_where_its_parent_is() {
        let one = json!({"properties": {"a": {"default": 1}}});
        let two = json!({"properties": {"b": {"default": 2}}});
        let cases = [
            (one.clone(), json!({}), json!({"a": 1})),
            (one.clone(), json!({"a": null}), json!({"a": null})),
            (json!({"properties": {"m": one}}), json!({}), json!({})),
            (json!({"properties": {"m": one}}), json!({"m": {}}), json!({"m": {"a": 1}})),
            (json!({"properties": {"m": one}}), json!({"m": 5}), json!({"m": 5})),
            (json!({"allOf": [one, two]}), json!({}), json!({"a": 1, "b": 2})),
            (json!({"definitions": {"d": one}, "$ref": "#/definitions/d"}), json!({}), json!({"a": 1})),
            (
                json!({"properties": {"l": {"items": one}}}),
                json!({"l": [{}, 3, {"a": 0}]}),
                json!({"l": [{"a": 1}, 3, {"a": 0}]}),
            ),
            (
                json!({"properties": {"l": {"items": [{"default": 1}, {"default": 2}]}}}),
                json!({"l": [0]}),
                json!({"l": [0, 2]}),
            ),
            (json!({"properties": {"l": {"items": [{}, {"default": 2}]}}}), json!({"l": []}), json!({"l": []})),
            (json!({"additionalProperties": one}), json!({"x": {}}), json!({"x": {"a": 1}})),
            (
                json!({"patternProperties": {"^x": one}, "propertyNames": {"maxLength": 9}}),
                json!({"x": {}, "y": {}}),
                json!({"x": {"a": 1}, "y": {}}),
            ),
            (json!({"dependencies": {"x": one}}), json!({"x": 0}), json!({"x": 0, "a": 1})),
            (json!({"dependencies": {"x": one}}), json!({}), json!({})),
        ];
        for (rules, event, expected) in cases {
            assert_eq!(filled(rules.clone(), event), expected, "{rules}");
        }
    }

    #[test]
    fn a_branch_that_holds_is_filled_after_the_event_itself() {
        let rules = json!({"properties": {"kind": {"default": "x"}},
            "if": {"properties": {"kind": {"const": "x"}}, "required": ["kind"]},
            "then": {"properties": {"a": {"default": 1}}}, "else": {"properties": {"b": {"default": 2}}}});
        assert_eq!(filled(rules.clone(), json!({})), json!({"kind": "x", "a": 1}));
        assert_eq!(filled(rules, json!({"kind": "y"})), json!({"kind": "y", "b": 2}));
    }

    #[test]
    fn nothing_is_filled_under_what_may_not_hold() {
        let one = json!({"properties": {"a": {"default": 1}}});
        for rules in [
            json!({"anyOf": [one]}),
            json!({"oneOf": [one]}),
            json!({"not": {"not": one}}),
            json!({"if": one, "then": {}}),
            json!({"properties": {"b": {"anyOf": [{"default": 1}]}}}),
        ] {
            assert_eq!(filled(rules.clone(), json!({})), json!({}), "{rules}");
        }
    }

    #[test]
    fn a_default_is_itself_filled_and_recursion_ends() {
        let rules = json!({"properties": {"m": {"default": {}, "properties": {"a": {"default": 1}}}}});
        assert_eq!(filled(rules, json!({})), json!({"m": {"a": 1}}));
        let endless = json!({"properties": {"m": {"default": {}, "$id": "#m", "properties": {"m": {"default": {}, "allOf": [{"$ref": "#m"}]}}}}});
        let mut at = &filled(endless, json!({}));
        let mut depth = 0;
        while let Some(inner) = at.get("m") {
            (at, depth) = (inner, depth + 1);
        }
        assert_eq!(depth, ROUNDS_MAX);
    }

    #[test]
    fn a_long_list_is_filled_up_to_a_limit() {
        let rules = json!({"properties": {"l": {"items": {"properties": {"a": {"default": 1}}}}}});
        let list = filled(rules, json!({"l": vec![json!({}); 1_000]}));
        let count = list["l"].as_array().expect("a list").iter().filter(|item| item.get("a").is_some()).count();
        assert_eq!(count, FILLED_MAX);
    }
}
