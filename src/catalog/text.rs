//! A text of the EventStreamConfig shape as a map of names to settings.

use serde_json::{Map, Value};
use serde_yaml_ng as yaml;

/// The entries in the order of the text, JSON or YAML, optionally under `streams`.
pub(super) fn entries(text: &str) -> Result<Map<String, Value>, String> {
    let not_a_map = || "it is not a map of stream names to settings".to_owned();
    let Value::Object(mut map) = value_of(text)? else { return Err(not_a_map()) };
    match map.shift_remove("streams") {
        None => Ok(map),
        Some(Value::Object(streams)) => Ok(streams),
        Some(_) => Err(not_a_map()),
    }
}

/// JSON is asked first: it has texts that are no YAML, such as escaped pairs of surrogates. Both are read as YAML's
/// values, which do not take the same name twice.
fn value_of(text: &str) -> Result<Value, String> {
    let value = serde_json::from_str(text).or_else(|_| yaml::from_str(text));
    json_of(value.map_err(|e| format!("it is neither YAML nor JSON ({e})"))?)
}

fn json_of(value: yaml::Value) -> Result<Value, String> {
    Ok(match value {
        yaml::Value::Null => Value::Null,
        yaml::Value::Bool(value) => Value::Bool(value),
        yaml::Value::String(text) => Value::String(text),
        yaml::Value::Number(number) => number_of(&number),
        yaml::Value::Sequence(list) => Value::Array(list.into_iter().map(json_of).collect::<Result<_, _>>()?),
        yaml::Value::Tagged(tagged) => json_of(tagged.value)?,
        yaml::Value::Mapping(map) => {
            let pair = |(name, value)| Ok((name_of(name)?, json_of(value)?));
            Value::Object(map.into_iter().map(pair).collect::<Result<_, String>>()?)
        }
    })
}

/// Infinities and the like are no JSON, and no setting either.
fn number_of(number: &yaml::Number) -> Value {
    let whole = number.as_i64().map(Value::from).or_else(|| number.as_u64().map(Value::from));
    whole.unwrap_or_else(|| number.as_f64().map_or(Value::Null, Value::from))
}

/// Names that YAML takes for something else (`1:`, `no:`) are texts in the maps of other systems.
fn name_of(name: yaml::Value) -> Result<String, String> {
    match name {
        yaml::Value::String(name) => Ok(name),
        yaml::Value::Number(number) => Ok(number.to_string()),
        yaml::Value::Bool(value) => Ok(value.to_string()),
        _ => Err("a name in it is not a text".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_and_json_are_the_same_map_in_the_order_of_the_text() {
        let map = entries("z: {n: 1, 2: [1.5, true, ~]}\na: {}").expect("a map");
        assert_eq!(Value::Object(map.clone()).to_string(), r#"{"z":{"n":1,"2":[1.5,true,null]},"a":{}}"#);
        assert_eq!(entries(&format!(r#"{{"streams":{}}}"#, Value::Object(map.clone()))), Ok(map));
    }

    #[test]
    fn what_is_no_map_or_names_something_twice_is_refused() {
        for text in ["[]", "{", "5", "", "streams: []", "{a: {}, a: {}}", r#"{"a": {}, "a": {}}"#, "? [a]\n: {}"] {
            assert!(entries(text).is_err(), "{text}");
        }
    }
}
