//! What is wrong with a value: the rules of a tree, judged in AJV 6's order and told in its words.
//!
//! AJV 6 runs with `allErrors` in EventGate; so does this, within limits that no event can widen.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::same::{compare, hash_of, same};
use super::tree::{Counted, Dependency, Items, JsonType, Node, NodeId, Properties, Rest, Rule, Tree};
use super::violation::{Violation, clipped, limits, named, number, unnamed};

/// Violations told of one event.
pub(super) const VIOLATIONS_MAX: usize = 100;
/// Rules judged for one event. Past it the rest counts as right.
const STEPS_MAX: usize = 300_000;
/// Schemas within schemas, those of recursive references included.
const DEPTH_MAX: usize = 400;

/// All that is wrong with an event.
pub(super) fn violations(tree: &Tree, event: &Value) -> Vec<Violation> {
    let mut judge = Judge::new(tree);
    judge.judge(tree.root(), event, &mut String::new());
    judge.found
}

/// Whether a part of an event is as a part of the schema wants it.
pub(super) fn is_valid(tree: &Tree, node: NodeId, value: &Value) -> bool {
    let mut judge = Judge::new(tree);
    judge.quiet = 1;
    judge.judge(node, value, &mut String::new())
}

/// Whether an event is valid. `None`: that takes more steps than any event should.
pub(super) fn verdict(tree: &Tree, event: &Value) -> Option<bool> {
    let mut judge = Judge::new(tree);
    judge.quiet = 1;
    let valid = judge.judge(tree.root(), event, &mut String::new());
    (!judge.gave_up).then_some(valid)
}

struct Judge<'a> {
    tree: &'a Tree,
    found: Vec<Violation>,
    steps: usize,
    depth: usize,
    /// Above zero: only whether it is valid matters.
    quiet: usize,
    /// Above zero: what is found may be taken back.
    branches: usize,
    gave_up: bool,
}

impl<'a> Judge<'a> {
    fn new(tree: &'a Tree) -> Self {
        Self { tree, found: Vec::new(), steps: 0, depth: 0, quiet: 0, branches: 0, gave_up: false }
    }

    /// Whether a value fits; what does not is found. `at` is the value's path, and is left as it was.
    fn judge(&mut self, id: NodeId, value: &Value, at: &mut String) -> bool {
        if self.depth >= DEPTH_MAX {
            self.gave_up = true;
            return true;
        }
        self.depth += 1;
        let node = self.tree.node(id);
        let mut valid = true;
        for rule in &node.rules {
            self.steps += 1;
            self.gave_up |= self.steps > STEPS_MAX;
            if self.gave_up || (!valid && self.is_enough()) {
                break;
            }
            valid &= self.rule(node, rule, value, at);
        }
        self.depth -= 1;
        valid
    }

    fn is_enough(&self) -> bool {
        self.quiet > 0 || self.found.len() >= VIOLATIONS_MAX
    }

    fn rule(&mut self, node: &'a Node, rule: &'a Rule, value: &Value, at: &mut String) -> bool {
        match (rule, value) {
            (Rule::Never, _) => self.wrong(node, "false schema", at, || (json!({}), "boolean schema is false".into())),
            (Rule::Type(types), _) => types.iter().any(|of| of.fits(value)) || self.wrong_type(node, types, at),
            (Rule::Bound { .. } | Rule::MultipleOf { .. }, Value::Number(_)) => self.number(node, rule, value, at),
            (Rule::Pattern { .. } | Rule::Format { .. }, Value::String(text)) => self.text(node, rule, text, value, at),
            (Rule::Count { keyword, counted, at_most, limit }, _) => {
                let fits = count(*counted, value).is_none_or(|n| if *at_most { n <= *limit } else { n >= *limit });
                fits || self.wrong(node, keyword, at, || (limits(limit), counted.wrong(*at_most, *limit)))
            }
            (Rule::Items(items), Value::Array(values)) => self.items(node, items, values, at),
            (Rule::Contains { node: inner, least, most }, Value::Array(values)) => {
                self.contains(node, *inner, (*least, *most), values, at)
            }
            (Rule::UniqueItems(types), Value::Array(values)) => match twins(values, types.as_deref()) {
                Some((i, j)) => self.wrong(node, "uniqueItems", at, || {
                    let message = format!("should NOT have duplicate items (items ## {j} and {i} are identical)");
                    (json!({ "i": i, "j": j }), message)
                }),
                None => true,
            },
            (Rule::Required(names), Value::Object(object)) => {
                let mut valid = true;
                for name in names.iter().filter(|name| !object.contains_key(*name)) {
                    valid &= self.missing(node, name, at);
                }
                valid
            }
            (Rule::Dependencies { keyword, of }, Value::Object(object)) => {
                self.dependencies(node, keyword, of, object, value, at)
            }
            (Rule::PropertyNames(inner), Value::Object(object)) => self.property_names(node, *inner, object, at),
            (Rule::Properties(properties), Value::Object(object)) => self.properties(node, properties, object, at),
            (Rule::Const(wanted), _) => {
                let params = || (json!({ "allowedValue": wanted }), "should be equal to constant".into());
                same(wanted, value) || self.wrong(node, "const", at, params)
            }
            (Rule::Enum(values), _) => {
                let fits = values.as_array().is_some_and(|values| values.iter().any(|allowed| same(allowed, value)));
                let params =
                    || (json!({ "allowedValues": values }), "should be equal to one of the allowed values".into());
                fits || self.wrong(node, "enum", at, params)
            }
            (Rule::Reference(inner), _) => self.judge(*inner, value, at),
            _ => self.composite(node, rule, value, at),
        }
    }

    fn composite(&mut self, node: &'a Node, rule: &'a Rule, value: &Value, at: &mut String) -> bool {
        match rule {
            Rule::Not(inner) => {
                let fits = self.quietly(*inner, value, at);
                !fits || self.gave_up || self.wrong(node, "not", at, || (json!({}), "should NOT be valid".into()))
            }
            Rule::AnyOf(branches) => {
                let start = self.found.len();
                self.branches += 1;
                let fits = branches.iter().any(|branch| self.judge(*branch, value, at));
                self.branches -= 1;
                if fits {
                    self.found.truncate(start);
                }
                fits || self.wrong(node, "anyOf", at, || (json!({}), "should match some schema in anyOf".into()))
            }
            Rule::OneOf(branches) => self.one_of(node, branches, value, at),
            Rule::AllOf(branches) => {
                let mut valid = true;
                for branch in branches {
                    valid &= self.judge(*branch, value, at);
                }
                valid
            }
            Rule::If { condition, then, otherwise } => {
                if then.is_none() && otherwise.is_none() {
                    return true;
                }
                let holds = self.quietly(*condition, value, at);
                let (keyword, branch) = if holds { ("then", then) } else { ("else", otherwise) };
                let fits = self.gave_up || branch.is_none_or(|branch| self.judge(branch, value, at));
                let params = || (json!({ "failingKeyword": keyword }), format!("should match \"{keyword}\" schema"));
                fits || self.wrong(node, "if", at, params)
            }
            _ => true,
        }
    }

    fn quietly(&mut self, node: NodeId, value: &Value, at: &mut String) -> bool {
        self.quiet += 1;
        let fits = self.judge(node, value, at);
        self.quiet -= 1;
        fits
    }

    fn one_of(&mut self, node: &'a Node, branches: &[NodeId], value: &Value, at: &mut String) -> bool {
        let start = self.found.len();
        let mut passing = Vec::new();
        self.branches += 1;
        for (number, branch) in branches.iter().enumerate() {
            if self.judge(*branch, value, at) {
                passing.push(number);
            }
            if passing.len() == 2 {
                break;
            }
        }
        self.branches -= 1;
        if passing.len() == 1 || self.gave_up {
            self.found.truncate(start);
            return true;
        }
        let passing = if passing.is_empty() { Value::Null } else { json!(passing) };
        let params = || (json!({ "passingSchemas": passing }), "should match exactly one schema in oneOf".into());
        self.wrong(node, "oneOf", at, params)
    }

    /// Notes a violation. Always `false`.
    fn wrong(&mut self, node: &Node, keyword: &str, at: &str, told: impl FnOnce() -> (Value, String)) -> bool {
        let schema_path = || format!("{}/{keyword}", node.path);
        self.wrong_at(keyword, at, schema_path, told)
    }

    fn wrong_at(
        &mut self,
        keyword: &str,
        at: &str,
        schema_path: impl FnOnce() -> String,
        told: impl FnOnce() -> (Value, String),
    ) -> bool {
        if !self.is_enough() {
            let (params, message) = told();
            self.found.push(Violation::new(keyword, at, schema_path(), params, message));
        }
        false
    }

    fn wrong_type(&mut self, node: &Node, types: &[JsonType], at: &str) -> bool {
        self.wrong(node, "type", at, || {
            let names = types.iter().map(|of| of.name()).collect::<Vec<_>>().join(",");
            let message = format!("should be {names}");
            (json!({ "type": names }), message)
        })
    }

    fn missing(&mut self, node: &Node, name: &str, at: &str) -> bool {
        self.wrong(node, "required", at, || {
            (json!({ "missingProperty": name }), format!("should have required property '{}'", clipped(name)))
        })
    }

    fn number(&mut self, node: &Node, rule: &Rule, value: &Value, at: &str) -> bool {
        match (rule, value) {
            (Rule::Bound { keyword, comparison, limit }, Value::Number(found)) => {
                let order = compare(found, limit);
                let fits = match *comparison {
                    "<=" => order.is_le(),
                    "<" => order.is_lt(),
                    ">=" => order.is_ge(),
                    _ => order.is_gt(),
                };
                fits || self.wrong(node, keyword, at, || {
                    let params =
                        json!({ "comparison": comparison, "limit": limit, "exclusive": comparison.len() == 1 });
                    (params, format!("should be {comparison} {}", number(limit)))
                })
            }
            (Rule::MultipleOf { of, check }, _) => {
                let written = of.as_number().map(number).unwrap_or_default();
                let params = || (json!({ "multipleOf": of }), format!("should be multiple of {written}"));
                check.is_valid(value) || self.wrong(node, "multipleOf", at, params)
            }
            _ => true,
        }
    }

    fn text(&mut self, node: &Node, rule: &Rule, text: &str, value: &Value, at: &str) -> bool {
        match rule {
            Rule::Pattern { pattern, check } => {
                let params = || (json!({ "pattern": pattern }), format!("should match pattern \"{pattern}\""));
                check.is_valid(value) || self.wrong(node, "pattern", at, params)
            }
            Rule::Format { format, check } => {
                let params = || (json!({ "format": format }), format!("should match format \"{format}\""));
                check(text) || self.wrong(node, "format", at, params)
            }
            _ => true,
        }
    }

    /// Judges what stands below: its step is on the path meanwhile.
    fn below(&mut self, node: NodeId, value: &Value, at: &mut String, step: &str) -> bool {
        let length = at.len();
        at.push_str(step);
        let fits = self.judge(node, value, at);
        at.truncate(length);
        fits
    }

    fn items(&mut self, node: &Node, items: &Items, values: &[Value], at: &mut String) -> bool {
        let mut valid = true;
        let tuple = items.tuple.len();
        if items.rest == Rest::Closed && values.len() > tuple {
            valid = self.wrong(node, items.rest_keyword, at, || {
                (limits(&tuple), format!("should NOT have more than {tuple} items"))
            });
        }
        for (number, value) in values.iter().enumerate() {
            let inner = match (items.tuple.get(number), items.rest) {
                (Some(inner), _) => *inner,
                (None, Rest::Schema(inner)) => inner,
                (None, _) => break,
            };
            if self.gave_up || (!valid && self.is_enough()) {
                break;
            }
            valid &= self.below(inner, value, at, &format!("[{number}]"));
        }
        valid
    }

    fn contains(
        &mut self,
        node: &Node,
        inner: NodeId,
        (least, most): (u64, Option<u64>),
        values: &[Value],
        at: &mut String,
    ) -> bool {
        let start = self.found.len();
        let mut fitting = 0;
        self.branches += 1;
        for (number, value) in values.iter().enumerate() {
            fitting += u64::from(self.below(inner, value, at, &format!("[{number}]")));
            let settled = fitting >= least && most.is_none_or(|most| fitting > most);
            if settled || self.gave_up {
                break;
            }
        }
        self.branches -= 1;
        if self.gave_up || (fitting >= least && most.is_none_or(|most| fitting <= most)) {
            self.found.truncate(start);
            return true;
        }
        if fitting < least {
            let (keyword, message) = match least {
                1 => ("contains", "should contain a valid item".to_owned()),
                _ => ("minContains", format!("should contain at least {least} valid items")),
            };
            let params = if least == 1 { json!({}) } else { limits(&least) };
            return self.wrong(node, keyword, at, || (params, message));
        }
        self.found.truncate(start);
        let message = format!("should contain no more than {} valid items", most.unwrap_or_default());
        self.wrong(node, "maxContains", at, || (limits(&most), message))
    }

    fn dependencies(
        &mut self,
        node: &Node,
        keyword: &str,
        of: &[(String, Dependency)],
        object: &Map<String, Value>,
        value: &Value,
        at: &mut String,
    ) -> bool {
        let mut valid = true;
        for (name, needed) in of.iter().filter(|(name, _)| object.contains_key(name)) {
            match needed {
                Dependency::Schema(inner) => valid &= self.judge(*inner, value, at),
                Dependency::Names(names) => {
                    for missing in names.iter().filter(|name| !object.contains_key(*name)) {
                        let all = names.join(", ");
                        let plural = if names.len() == 1 { "property" } else { "properties" };
                        let message = format!("should have {plural} {all} when property {name} is present");
                        let params = || {
                            let count = names.len();
                            json!({ "property": name, "missingProperty": missing, "depsCount": count, "deps": all })
                        };
                        valid &= self.wrong(node, keyword, at, || (params(), message));
                    }
                }
            }
        }
        valid
    }

    fn property_names(&mut self, node: &Node, inner: NodeId, object: &Map<String, Value>, at: &mut String) -> bool {
        let mut valid = true;
        for name in object.keys() {
            let start = self.found.len();
            if self.judge(inner, &Value::String(name.clone()), at) {
                continue;
            }
            for violation in &mut self.found[start..] {
                violation.property_name = Some(clipped(name));
            }
            let name = clipped(name);
            let message = format!("property name '{name}' is invalid");
            valid &= self.wrong(node, "propertyNames", at, || (json!({ "propertyName": name }), message));
            if self.is_enough() {
                break;
            }
        }
        valid
    }

    fn properties(&mut self, node: &Node, of: &Properties, object: &Map<String, Value>, at: &mut String) -> bool {
        let mut valid = true;
        if of.rest != Rest::Open {
            for (name, value) in object.iter().filter(|(name, _)| is_additional(of, name)) {
                if self.gave_up || (!valid && self.is_enough()) {
                    return valid;
                }
                valid &= match of.rest {
                    Rest::Schema(inner) => self.below(inner, value, at, &unnamed(name)),
                    _ => self.wrong(node, "additionalProperties", at, || {
                        let params = json!({ "additionalProperty": clipped(name) });
                        (params, "should NOT have additional properties".into())
                    }),
                };
            }
        }
        for property in &of.known {
            match object.get(&property.name) {
                Some(value) => valid &= self.below(property.node, value, at, &named(&property.name)),
                None if property.required => valid &= self.missing(node, &property.name, at),
                None => {}
            }
        }
        for (pattern, inner) in &of.patterns {
            for (name, value) in object {
                if self.gave_up || (!valid && self.is_enough()) {
                    return valid;
                }
                if pattern.is_valid(&Value::String(name.clone())) {
                    valid &= self.below(*inner, value, at, &unnamed(name));
                }
            }
        }
        valid
    }
}

/// Whether the schema speaks of a property neither by name nor by a pattern.
pub(super) fn is_additional(of: &Properties, name: &str) -> bool {
    let known = of.known.iter().any(|property| property.name == name);
    !known && !of.patterns.iter().any(|(pattern, _)| pattern.is_valid(&Value::String(name.to_owned())))
}

impl Counted {
    fn wrong(self, at_most: bool, limit: u64) -> String {
        let (than, what) = match (self, at_most) {
            (Self::Characters, true) => ("be longer", "characters"),
            (Self::Characters, false) => ("be shorter", "characters"),
            (Self::Items, true) => ("have more", "items"),
            (Self::Items, false) => ("have fewer", "items"),
            (Self::Properties, true) => ("have more", "properties"),
            (Self::Properties, false) => ("have fewer", "properties"),
        };
        format!("should NOT {than} than {limit} {what}")
    }
}

fn count(counted: Counted, value: &Value) -> Option<u64> {
    let count = match (counted, value) {
        (Counted::Characters, Value::String(text)) => text.chars().count(),
        (Counted::Items, Value::Array(values)) => values.len(),
        (Counted::Properties, Value::Object(object)) => object.len(),
        _ => return None,
    };
    u64::try_from(count).ok()
}

/// Two items that are the same, as AJV 6 finds them from the end: with scalar types `j` is the later one, else the
/// earlier one.
fn twins(values: &[Value], scalar: Option<&[JsonType]>) -> Option<(usize, usize)> {
    let mut seen: HashMap<u64, Vec<usize>> = HashMap::new();
    let counts = |value: &Value| scalar.is_none_or(|types| types.iter().any(|of| of.fits(value)));
    if scalar.is_some() {
        for (i, value) in values.iter().enumerate().rev().filter(|(_, value)| counts(value)) {
            let alike = seen.entry(hash_of(value)).or_default();
            if let Some(&j) = alike.iter().find(|&&j| same(&values[j], value)) {
                return Some((i, j));
            }
            alike.push(i);
        }
        return None;
    }
    let mut last = None;
    for (i, value) in values.iter().enumerate() {
        let alike = seen.entry(hash_of(value)).or_default();
        if let Some(&j) = alike.iter().rev().find(|&&j| same(&values[j], value)) {
            last = Some((i, j));
        }
        alike.push(i);
    }
    last
}
