//! From the keywords of one schema to its rules, in AJV 6's order: of numbers, strings, arrays, objects, then of all.

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Map, Value, json};

use super::formats;
use super::refs::Place;
use super::source::token;
use super::tree::{
    Counted, Dependency, Fault, Grower, Items, JsonType, Properties, Property, Rest, Rule, has_only_reference,
};

/// Bytes of a compiled pattern.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// From this many required properties on, AJV 6 looks for them in a loop of their own.
const REQUIRED_LOOP_FROM: usize = 20;

type Object = Map<String, Value>;

/// The keywords after whose group a type stands, where it is the group's own.
const NUMBER: &[&str] = &["maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "multipleOf", "format"];
const STRING: &[&str] = &["maxLength", "minLength", "pattern", "format"];
const ARRAY: &[&str] = &["maxItems", "minItems", "items", "prefixItems", "contains", "uniqueItems"];
const OBJECT: &[&str] = &[
    "maxProperties",
    "minProperties",
    "required",
    "dependencies",
    "propertyNames",
    "properties",
    "additionalProperties",
    "patternProperties",
];
/// All that AJV 6 does not take for a mere remark.
const ANY: &[&str] = &["type", "$ref", "const", "enum", "not", "anyOf", "oneOf", "allOf", "if", "$comment"];

/// How patterns are matched, everywhere: in time that grows with the text, whatever the pattern.
pub(super) fn pattern_options() -> PatternOptions<jsonschema::Regex> {
    PatternOptions::regex().size_limit(PATTERN_BYTES_MAX)
}

pub(super) fn rules_of(grower: &mut Grower<'_>, place: &Place, object: &Object) -> Result<Vec<Rule>, Fault> {
    let mut rules = Vec::new();
    if has_only_reference(grower.draft(place), object) {
        references(grower, place, object, &mut rules)?;
        return Ok(rules);
    }
    let types = types_of(object.get("type"));
    // With rules of its own group a type is missed after them, else before all.
    let group = match types.as_slice() {
        [JsonType::Number] => NUMBER,
        [JsonType::String] => STRING,
        [JsonType::Array] => ARRAY,
        [JsonType::Object] => OBJECT,
        _ => &[],
    };
    let late = group.iter().any(|keyword| object.contains_key(*keyword));
    let mut of_type = (!types.is_empty()).then(|| Rule::Type(types.clone()));
    let own_group = types.first().copied().filter(|_| late);
    if !late {
        rules.extend(of_type.take());
    }
    numbers(object, &mut rules)?;
    rules.extend(of_type.take_if(|_| own_group == Some(JsonType::Number)));
    strings(grower, place, object, &mut rules)?;
    rules.extend(of_type.take_if(|_| own_group == Some(JsonType::String)));
    arrays(grower, place, object, &mut rules)?;
    rules.extend(of_type.take_if(|_| own_group == Some(JsonType::Array)));
    objects(grower, place, object, &mut rules)?;
    rules.extend(of_type.take());
    references(grower, place, object, &mut rules)?;
    of_all(grower, place, object, &mut rules)?;
    Ok(rules)
}

fn types_of(value: Option<&Value>) -> Vec<JsonType> {
    let named = |value: &Value| value.as_str().and_then(JsonType::named);
    match value {
        Some(Value::Array(names)) => names.iter().filter_map(named).collect(),
        Some(name) => named(name).into_iter().collect(),
        None => Vec::new(),
    }
}

fn numbers(object: &Object, rules: &mut Vec<Rule>) -> Result<(), Fault> {
    bound(object, ("maximum", "<="), ("exclusiveMaximum", "<"), rules);
    bound(object, ("minimum", ">="), ("exclusiveMinimum", ">"), rules);
    if let Some(of) = object.get("multipleOf").filter(|of| of.is_number()) {
        let check = single(&json!({ "multipleOf": of }))?;
        rules.push(Rule::MultipleOf { of: of.clone(), check });
    }
    Ok(())
}

/// Of a limit and an exclusive one the stricter speaks.
fn bound(
    object: &Object,
    (keyword, comparison): (&'static str, &'static str),
    (exclusive, stricter): (&'static str, &'static str),
    rules: &mut Vec<Rule>,
) {
    let number = |keyword| match object.get(keyword) {
        Some(Value::Number(number)) => Some(number.clone()),
        _ => None,
    };
    let is_maximum = comparison.starts_with('<');
    let rule = match (number(keyword), number(exclusive)) {
        (Some(limit), Some(strict)) => {
            let order = strict.as_f64().partial_cmp(&limit.as_f64());
            let wider = if is_maximum { std::cmp::Ordering::Greater } else { std::cmp::Ordering::Less };
            match order == Some(wider) {
                true => Some((keyword, comparison, limit)),
                false => Some((exclusive, stricter, strict)),
            }
        }
        (Some(limit), None) => Some((keyword, comparison, limit)),
        (None, Some(strict)) => Some((exclusive, stricter, strict)),
        (None, None) => None,
    };
    rules.extend(rule.map(|(keyword, comparison, limit)| Rule::Bound { keyword, comparison, limit }));
}

fn counts(object: &Object, counted: Counted, keywords: [&'static str; 2], rules: &mut Vec<Rule>) {
    for (keyword, at_most) in [(keywords[0], true), (keywords[1], false)] {
        let limit = object.get(keyword).and_then(|limit| limit.as_u64().or_else(|| whole(limit.as_f64()?)));
        rules.extend(limit.map(|limit| Rule::Count { keyword, counted, at_most, limit }));
    }
}

/// A count may be written `2.0`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, positive, and in range")]
fn whole(number: f64) -> Option<u64> {
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && (0.0..=WHOLE_MAX).contains(&number)).then_some(number as u64)
}

fn strings(grower: &Grower<'_>, place: &Place, object: &Object, rules: &mut Vec<Rule>) -> Result<(), Fault> {
    counts(object, Counted::Characters, ["maxLength", "minLength"], rules);
    if let Some(pattern) = object.get("pattern").and_then(Value::as_str) {
        rules.push(Rule::Pattern { pattern: pattern.to_owned(), check: pattern_of(pattern, &grower.path(place))? });
    }
    if let Some(format) = object.get("format").and_then(Value::as_str) {
        let unknown = || format!("unknown format \"{format}\" is used in schema at path \"{}\"", grower.path(place));
        let check = formats::check_of(format).ok_or_else(unknown)?;
        rules.push(Rule::Format { format: format.to_owned(), check });
    }
    Ok(())
}

/// The very engine that judges whole events, so that both say the same.
fn pattern_of(pattern: &str, path: &str) -> Result<Validator, String> {
    let built = single(&json!({ "pattern": pattern }));
    built.map_err(|_| {
        format!(
            "the pattern at {path} cannot be matched in linear time: it is no regular expression, too large, or has \
             look-around or back references"
        )
    })
}

/// A validator of one keyword.
fn single(schema: &Value) -> Result<Validator, String> {
    let options = jsonschema::options().with_draft(Draft::Draft7).with_pattern_options(pattern_options());
    options.offline().build(schema).map_err(|fault| super::source::invalid(&fault))
}

fn arrays(grower: &mut Grower<'_>, place: &Place, object: &Object, rules: &mut Vec<Rule>) -> Result<(), Fault> {
    counts(object, Counted::Items, ["maxItems", "minItems"], rules);
    let newest = grower.draft(place) == Draft::Draft202012;
    let (tuple_keyword, rest_keyword) = if newest { ("prefixItems", "items") } else { ("items", "additionalItems") };
    let tuple_length = object.get(tuple_keyword).and_then(Value::as_array).map(Vec::len);
    let mut tuple = Vec::new();
    for at in 0..tuple_length.unwrap_or_default() {
        tuple.push(grower.below(place, &format!("/{tuple_keyword}/{at}"))?);
    }
    // Before 2020-12 `items` is the tuple, or speaks of every item.
    let rest_keyword = if newest || tuple_length.is_some() { rest_keyword } else { "items" };
    let rest = rest_of(grower, place, object.get(rest_keyword), rest_keyword)?;
    if !tuple.is_empty() || rest != Rest::Open {
        rules.push(Rule::Items(Items { tuple, rest, rest_keyword }));
    }
    if object.contains_key("contains") {
        let count = |keyword| object.get(keyword).and_then(Value::as_u64).filter(|_| is_new(grower.draft(place)));
        let (least, most) = (count("minContains").unwrap_or(1), count("maxContains"));
        rules.push(Rule::Contains { node: grower.below(place, "/contains")?, least, most });
    }
    if object.get("uniqueItems") == Some(&Value::Bool(true)) {
        let types = types_of(object.get("items").and_then(|items| items.get("type")));
        let scalar = !types.is_empty() && !types.iter().any(|of| matches!(of, JsonType::Array | JsonType::Object));
        rules.push(Rule::UniqueItems(scalar.then_some(types)));
    }
    Ok(())
}

fn is_new(draft: Draft) -> bool {
    !matches!(draft, Draft::Draft6 | Draft::Draft7)
}

fn rest_of(grower: &mut Grower<'_>, place: &Place, value: Option<&Value>, keyword: &str) -> Result<Rest, Fault> {
    Ok(match value {
        Some(Value::Bool(false)) if keyword != "items" || grower.draft(place) == Draft::Draft202012 => Rest::Closed,
        Some(Value::Object(_) | Value::Bool(false)) => Rest::Schema(grower.below(place, &format!("/{keyword}"))?),
        _ => Rest::Open,
    })
}

fn objects(grower: &mut Grower<'_>, place: &Place, object: &Object, rules: &mut Vec<Rule>) -> Result<(), Fault> {
    counts(object, Counted::Properties, ["maxProperties", "minProperties"], rules);
    let properties = object.get("properties").and_then(Value::as_object);
    let required = names_of(object.get("required"));
    let looped = required.len() >= REQUIRED_LOOP_FROM;
    let has_own_turn = |name: &str| !looped && properties.and_then(|known| known.get(name)).is_some_and(has_rules);
    let at_once: Vec<String> = required.iter().filter(|name| !has_own_turn(name)).cloned().collect();
    if !at_once.is_empty() {
        rules.push(Rule::Required(at_once));
    }
    for keyword in ["dependencies", "dependentRequired", "dependentSchemas"] {
        if let Some(Value::Object(members)) = object.get(keyword) {
            let of = dependencies(grower, place, members, keyword)?;
            rules.push(Rule::Dependencies { keyword, of });
        }
    }
    if object.contains_key("propertyNames") {
        rules.push(Rule::PropertyNames(grower.below(place, "/propertyNames")?));
    }
    let mut known = Vec::new();
    for name in properties.into_iter().flat_map(Map::keys) {
        let node = grower.below(place, &format!("/properties/{}", token(name)))?;
        let required = has_own_turn(name) && required.contains(name);
        known.push(Property { name: name.clone(), node, required });
    }
    let mut patterns = Vec::new();
    for pattern in object.get("patternProperties").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
        let node = grower.below(place, &format!("/patternProperties/{}", token(pattern)))?;
        patterns.push((pattern_of(pattern, &grower.path(place))?, node));
    }
    let rest = rest_of(grower, place, object.get("additionalProperties"), "additionalProperties")?;
    if !known.is_empty() || !patterns.is_empty() || rest != Rest::Open {
        rules.push(Rule::Properties(Properties { known, patterns, rest }));
    }
    Ok(())
}

fn names_of(value: Option<&Value>) -> Vec<String> {
    let names = value.and_then(Value::as_array).into_iter().flatten();
    names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// Whether a schema says anything.
fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(object) => {
            let groups = [NUMBER, STRING, ARRAY, OBJECT, ANY];
            object.keys().any(|keyword| groups.iter().any(|group| group.contains(&keyword.as_str())))
        }
        other => other == &Value::Bool(false),
    }
}

fn dependencies(
    grower: &mut Grower<'_>,
    place: &Place,
    members: &Object,
    keyword: &str,
) -> Result<Vec<(String, Dependency)>, Fault> {
    // Lists of names come first, as in AJV 6.
    let (names, schemas): (Vec<_>, Vec<_>) = members.iter().partition(|(_, needed)| needed.is_array());
    let mut of: Vec<(String, Dependency)> =
        names.into_iter().map(|(name, needed)| (name.clone(), Dependency::Names(names_of(Some(needed))))).collect();
    for (name, _) in schemas {
        let node = grower.below(place, &format!("/{keyword}/{}", token(name)))?;
        of.push((name.clone(), Dependency::Schema(node)));
    }
    Ok(of)
}

fn references(grower: &mut Grower<'_>, place: &Place, object: &Object, rules: &mut Vec<Rule>) -> Result<(), Fault> {
    for keyword in ["$ref", "$dynamicRef", "$recursiveRef"] {
        let Some(reference) = object.get(keyword).and_then(Value::as_str) else { continue };
        rules.extend(grower.referred(place, reference)?.map(Rule::Reference));
    }
    Ok(())
}

fn of_all(grower: &mut Grower<'_>, place: &Place, object: &Object, rules: &mut Vec<Rule>) -> Result<(), Fault> {
    rules.extend(object.get("const").map(|value| Rule::Const(value.clone())));
    rules.extend(object.get("enum").filter(|values| values.is_array()).map(|values| Rule::Enum(values.clone())));
    if object.contains_key("not") {
        rules.push(Rule::Not(grower.below(place, "/not")?));
    }
    let mut several = |keyword: &str| -> Result<Option<Vec<usize>>, Fault> {
        let Some(Value::Array(schemas)) = object.get(keyword) else { return Ok(None) };
        let nodes = (0..schemas.len()).map(|at| grower.below(place, &format!("/{keyword}/{at}")));
        nodes.collect::<Result<_, _>>().map(Some)
    };
    let (any, one, all) = (several("anyOf")?, several("oneOf")?, several("allOf")?);
    rules.extend(any.map(Rule::AnyOf).into_iter().chain(one.map(Rule::OneOf)).chain(all.map(Rule::AllOf)));
    if object.contains_key("if") {
        let condition = grower.below(place, "/if")?;
        let mut branch = |keyword: &str| match object.contains_key(keyword) {
            true => grower.below(place, &format!("/{keyword}")).map(Some),
            false => Ok(None),
        };
        rules.push(Rule::If { condition, then: branch("then")?, otherwise: branch("else")? });
    }
    Ok(())
}
