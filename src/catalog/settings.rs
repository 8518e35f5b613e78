//! One stream's entry as the file or the API writes it. What other systems keep there is ignored.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::model::{Topic, units};

/// What a stream gets that says nothing of its own.
const PREFIXES_DEFAULT: [&str; 2] = ["eqiad.", "codfw."];
/// More often than this nobody looks.
const EXPECT_EVERY_LEAST: Duration = Duration::from_secs(1);
const ENRICH_DEFAULT: (&str, &str) = ("meta.request_id", "x-request-id");

/// The settings of a stream that sluice acts on.
#[derive(Debug, Clone)]
pub struct Settings {
    pub schema_title: Option<String>,
    pub topics: Vec<String>,
    /// With no `topics`: each prefix and the stream's name make one. `null` means the bare name.
    pub topic_prefixes: Vec<String>,
    pub stream_aliases: Vec<String>,
    /// Topics that an id may choose instead of the stream's own: the other data centre of a stream that each computes.
    pub topics_allowed: Vec<Topic>,
    pub description: Option<String>,
    /// Field of the record's key → dotted path of the event, in the order of the file.
    pub message_key_fields: Vec<(String, String)>,
    pub canary_events_enabled: bool,
    pub destination_event_service: Option<String>,
    /// Dotted path of the event → name of the header that fills it, in lower case. What the stream says is merged over
    /// the default, and what it switches off is not here.
    pub enrich_fields_from_http_headers: Vec<(String, String)>,
    /// sluice's own: the longest time between two events of the stream that is as it should be.
    pub expect_every: Option<Duration>,
    /// The entry said nothing at all.
    empty: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            schema_title: None,
            topics: vec![],
            topic_prefixes: PREFIXES_DEFAULT.map(str::to_owned).into(),
            stream_aliases: vec![],
            topics_allowed: vec![],
            description: None,
            message_key_fields: vec![],
            canary_events_enabled: true,
            destination_event_service: None,
            enrich_fields_from_http_headers: vec![(ENRICH_DEFAULT.0.to_owned(), ENRICH_DEFAULT.1.to_owned())],
            expect_every: None,
            empty: true,
        }
    }
}

impl Settings {
    /// Whether the entry has no settings at all, known or foreign.
    pub fn is_empty(&self) -> bool {
        self.empty
    }

    /// The settings, or what is wrong with the first of them.
    pub(super) fn read(map: &Map<String, Value>) -> Result<Self, String> {
        let entry = Entry(map);
        let default = Self::default();
        let allowed = entry.texts("topics_allowed")?.unwrap_or_default();
        Ok(Self {
            schema_title: entry.text("schema_title")?,
            topics: entry.texts("topics")?.unwrap_or_default(),
            topic_prefixes: entry.texts("topic_prefixes")?.unwrap_or(default.topic_prefixes),
            stream_aliases: entry.texts("stream_aliases")?.unwrap_or_default(),
            topics_allowed: allowed
                .iter()
                .filter(|topic| !topic.starts_with('/'))
                .map(|topic| Topic::new(topic))
                .collect(),
            description: entry.text("description")?,
            message_key_fields: entry.key_fields()?,
            canary_events_enabled: entry.switch("canary_events_enabled")?.unwrap_or(default.canary_events_enabled),
            destination_event_service: entry.text("destination_event_service")?,
            enrich_fields_from_http_headers: entry.headers(default.enrich_fields_from_http_headers)?,
            expect_every: entry.own_settings()?,
            empty: map.is_empty(),
        })
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

/// One entry's map. `null` is as good as nothing, except where a list's default is not the empty one.
struct Entry<'a>(&'a Map<String, Value>);

impl Entry<'_> {
    fn given(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Result<Option<String>, String> {
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| format!("{key} is not a text"));
        self.given(key).map(text).transpose()
    }

    fn switch(&self, key: &str) -> Result<Option<bool>, String> {
        let switch = |value: &Value| value.as_bool().ok_or_else(|| format!("{key} is neither true nor false"));
        self.given(key).map(switch).transpose()
    }

    /// `None` where the key is absent; `null` is the empty list.
    fn texts(&self, key: &str) -> Result<Option<Vec<String>>, String> {
        let fault = || format!("{key} is not a list of texts");
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(Vec::new())),
            Some(Value::Array(list)) => {
                let texts = list.iter().map(|text| text.as_str().map(str::to_owned).ok_or_else(fault));
                texts.collect::<Result<_, _>>().map(Some)
            }
            Some(_) => Err(fault()),
        }
    }

    fn key_fields(&self) -> Result<Vec<(String, String)>, String> {
        let key = "message_key_fields";
        let Some(map) = self.given(key).map(|value| map_of(value, key)).transpose()?.flatten() else {
            return Ok(Vec::new());
        };
        let field = |(name, path): (&String, &Value)| match path {
            Value::String(path) if is_path(path) => Ok((name.clone(), path.clone())),
            _ => Err(format!("{key}: '{name}' is not a path, such as page.page_id")),
        };
        map.iter().map(field).collect()
    }

    /// `producers.eventgate.enrich_fields_from_http_headers` over the default.
    fn headers(&self, default: Vec<(String, String)>) -> Result<Vec<(String, String)>, String> {
        let key = "enrich_fields_from_http_headers";
        let mut found = self.given("producers").map(|value| map_of(value, "producers")).transpose()?.flatten();
        for below in ["eventgate", key] {
            let inner = found.and_then(|map| map.get(below)).filter(|value| !value.is_null());
            found = inner.map(|value| map_of(value, below)).transpose()?.flatten();
        }
        let mut headers = default;
        for (field, header) in found.into_iter().flatten() {
            if !is_path(field) {
                return Err(format!("{key}: '{field}' is not a path, such as meta.request_id"));
            }
            headers.retain(|(known, _)| known != field);
            match header {
                Value::Null | Value::Bool(false) => {}
                Value::String(name) if is_header_name(name) => headers.push((field.clone(), name.to_ascii_lowercase())),
                _ => return Err(format!("{key}: what fills '{field}' is neither a header's name nor false")),
            }
        }
        Ok(headers)
    }

    /// Those that sluice alone has, so that every key which it does not know is one of another version, or a slip.
    fn own_settings(&self) -> Result<Option<Duration>, String> {
        const EXPECT_EVERY: &str = "expect_every";
        let Some(own) = self.given("sluice").map(|value| map_of(value, "sluice")).transpose()?.flatten() else {
            return Ok(None);
        };
        if let Some(unknown) = own.keys().find(|key| *key != EXPECT_EVERY) {
            return Err(format!("sluice: there is no setting '{unknown}'"));
        }
        let Some(value) = own.get(EXPECT_EVERY).filter(|value| !value.is_null()) else { return Ok(None) };
        let every = value.as_str().and_then(units::parse_duration).filter(|every| *every >= EXPECT_EVERY_LEAST);
        let fault = || format!("sluice: {EXPECT_EVERY} is no time of 1s or more, such as 5m");
        every.map(Some).ok_or_else(fault)
    }
}

/// The map of an entry's settings.
pub(super) fn settings_of(value: Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Null => Ok(Map::new()),
        Value::Object(settings) => Ok(settings),
        Value::Array(list) if list.is_empty() => Ok(Map::new()),
        _ => Err("its settings are not a map".into()),
    }
}

/// PHP, whose API writes such maps, cannot tell an empty map from an empty list.
fn map_of<'a>(value: &'a Value, key: &str) -> Result<Option<&'a Map<String, Value>>, String> {
    match value {
        Value::Object(map) => Ok(Some(map)),
        Value::Array(list) if list.is_empty() => Ok(None),
        _ => Err(format!("{key} is not a map")),
    }
}

fn is_path(path: &str) -> bool {
    path.split('.').all(|part| !part.is_empty())
}

fn is_header_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Settings, String> {
        Settings::read(&settings_of(value)?)
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn an_entry_without_settings_is_told_from_one_without_a_title() {
        assert!(read(json!({})).is_ok_and(|settings| settings.is_empty()));
        assert!(read(json!([])).is_ok_and(|settings| settings.is_empty()));
        assert!(read(json!(null)).is_ok_and(|settings| settings.is_empty()));
        assert!(read(json!({"sample": 1})).is_ok_and(|settings| !settings.is_empty()));
    }

    #[test]
    fn an_expectation_is_a_time_and_the_only_setting_of_our_own() {
        let own = |own: Value| read(json!({ "sluice": own })).map(|settings| settings.expect_every);
        assert_eq!(own(json!({ "expect_every": "5m" })), Ok(Some(Duration::from_secs(300))));
        for none in [json!({}), json!(null), json!([]), json!({ "expect_every": null })] {
            assert_eq!(own(none), Ok(None));
        }
        for wrong in [json!("5"), json!(5), json!("0s"), json!("999ms"), json!("-1s"), json!(["5m"])] {
            assert!(own(json!({ "expect_every": wrong })).is_err_and(|fault| fault.contains("such as 5m")));
        }
        assert!(own(json!({ "expect": "5m" })).is_err_and(|fault| fault.contains("no setting 'expect'")));
        assert!(own(json!("5m")).is_err_and(|fault| fault.contains("not a map")));
    }

    #[test]
    fn key_fields_keep_their_order() {
        let fields = json!({"message_key_fields": {"wiki_id": "wiki_id", "page_id": "page.page_id", "a": "b"}});
        let settings = read(fields).expect("settings");
        let expected = [("wiki_id", "wiki_id"), ("page_id", "page.page_id"), ("a", "b")];
        assert_eq!(settings.message_key_fields, pairs(&expected));
    }

    #[test]
    fn headers_are_merged_over_the_default_and_false_takes_one_away() {
        let of = |map: Value| {
            let key = "enrich_fields_from_http_headers";
            read(json!({"producers": {"eventgate": {key: map}}}))
                .map(|settings| settings.enrich_fields_from_http_headers)
        };
        let default = pairs(&[("meta.request_id", "x-request-id")]);
        assert_eq!(read(json!({})).map(|settings| settings.enrich_fields_from_http_headers), Ok(default.clone()));
        assert_eq!(of(json!([])), Ok(default.clone()));
        let agent = "http.request_headers.user-agent";
        assert_eq!(of(json!({agent: false})), Ok(default.clone()));
        assert_eq!(of(json!({agent: "User-Agent"})), Ok([default, pairs(&[(agent, "user-agent")])].concat()));
        assert_eq!(of(json!({"meta.request_id": false})), Ok(vec![]));
        assert_eq!(of(json!({"meta.request_id": "X-Other"})), Ok(pairs(&[("meta.request_id", "x-other")])));
        for fault in [json!({"a": true}), json!({"a": "b c"}), json!({"a..b": "c"}), json!(5)] {
            assert!(of(fault.clone()).is_err(), "{fault}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_a_fault_that_names_the_setting() {
        for (entry, word) in [
            (json!({"schema_title": 5}), "schema_title"),
            (json!({"topics": "a"}), "topics"),
            (json!({"topic_prefixes": [1]}), "topic_prefixes"),
            (json!({"canary_events_enabled": "yes"}), "canary_events_enabled"),
            (json!({"message_key_fields": {"a": ""}}), "message_key_fields"),
            (json!({"message_key_fields": ["a"]}), "message_key_fields"),
            (json!({"producers": 5}), "producers"),
            (json!({"sluice": {"speed": 1}}), "speed"),
            (json!({"sluice": 1}), "sluice"),
            (json!("a"), "settings"),
        ] {
            let fault = read(entry.clone()).expect_err("a fault");
            assert!(fault.contains(word), "{entry}: {fault}");
        }
    }

    #[test]
    fn no_prefixes_are_the_bare_name_and_absent_ones_the_default() {
        let topics = |entry: Value| {
            let topics = read(entry).expect("settings").topics_of("s");
            topics.iter().map(|topic| topic.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(topics(json!({})), ["eqiad.s", "codfw.s"]);
        assert_eq!(topics(json!({"topic_prefixes": null})), ["s"]);
        assert_eq!(topics(json!({"topic_prefixes": ["x."]})), ["x.s"]);
        assert_eq!(topics(json!({"topics": null})), ["eqiad.s", "codfw.s"]);
    }
}
