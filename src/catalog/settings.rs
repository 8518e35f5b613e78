//! One stream's entry as the file writes it. What other systems keep there is ignored.

use serde::{Deserialize, Deserializer};
use serde_yaml_ng::{Mapping, Value};

use crate::model::{Step, Topic};

/// The settings of a stream that sluice acts on.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Settings {
    pub schema_title: Option<String>,
    #[serde(deserialize_with = "list_or_null")]
    pub topics: Vec<String>,
    /// With no `topics`: each prefix and the stream's name make one. `null` means the bare name.
    #[serde(deserialize_with = "list_or_null")]
    pub topic_prefixes: Vec<String>,
    #[serde(deserialize_with = "list_or_null")]
    pub stream_aliases: Vec<String>,
    /// Topics that an id may name although the stream does not read them.
    #[serde(deserialize_with = "list_or_null")]
    pub topics_allowed: Vec<String>,
    pub description: Option<String>,
    /// The record's key: a name and the dotted path of its value, each.
    #[serde(skip)]
    pub message_key_fields: Vec<(String, String)>,
    /// Fields that are filled from headers: a path, and the header's name in lower case.
    #[serde(skip)]
    pub header_fields: Vec<(Vec<Step>, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            schema_title: None,
            topics: vec![],
            topic_prefixes: vec!["eqiad.".into(), "codfw.".into()],
            stream_aliases: vec![],
            topics_allowed: vec![],
            description: None,
            message_key_fields: vec![],
            header_fields: vec![],
        }
    }
}

impl Settings {
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The topics of a stream of this name, in the order that they are listed.
    pub(super) fn topics_of(&self, name: &str) -> Vec<Topic> {
        // A pattern lists its topics as patterns too: they say nothing of one name.
        let listed: Vec<Topic> =
            self.topics.iter().filter(|topic| !topic.starts_with('/')).map(|topic| Topic::new(topic)).collect();
        match (listed.is_empty(), self.topic_prefixes.as_slice()) {
            (false, _) => listed,
            (true, []) => vec![Topic::new(name)],
            (true, prefixes) => prefixes.iter().map(|prefix| Topic::new(&format!("{prefix}{name}"))).collect(),
        }
    }
}

fn list_or_null<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(from)?.unwrap_or_default())
}

/// A name, and its settings or what is wrong with them.
pub(super) type Entry = (String, Result<Settings, String>);

/// The entries in the order of the file.
pub(super) fn parse_map(text: &str) -> Result<Vec<Entry>, String> {
    let map = match value_of(text)? {
        Value::Mapping(mut map) => match map.remove("streams") {
            Some(inner) => inner,
            None => Value::Mapping(map),
        },
        other => other,
    };
    let Value::Mapping(map) = map else {
        return Err("it is not a map of stream names to settings".into());
    };
    map.into_iter().map(|(name, settings)| Ok((text_of(name)?, settings_of(settings)))).collect()
}

/// JSON is asked first: it has texts that are no YAML, such as escaped pairs of surrogates.
fn value_of(text: &str) -> Result<Value, String> {
    serde_json::from_str(text)
        .or_else(|_| serde_yaml_ng::from_str(text))
        .map_err(|e| format!("it is neither YAML nor JSON ({e})"))
}

fn text_of(name: Value) -> Result<String, String> {
    match name {
        Value::String(name) => Ok(name),
        other => Err(format!("a stream's name is not a text: {other:?}")),
    }
}

fn settings_of(value: Value) -> Result<Settings, String> {
    let settings = match value {
        Value::Null => Mapping::new(),
        Value::Mapping(settings) => settings,
        // PHP, whose API writes such maps, cannot tell an empty map from an empty list.
        Value::Sequence(list) if list.is_empty() => Mapping::new(),
        _ => return Err("its settings are not a map".into()),
    };
    serde_yaml_ng::from_value(Value::Mapping(settings)).map_err(|e| e.to_string())
}
