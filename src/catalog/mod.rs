//! Which streams there are: name → topics, schema title, settings; from a file of the EventStreamConfig shape, or from
//! the API of that name.
//!
//! - this page: [`Catalog`], immutable; a refresh makes another one
//! - `text` a file's text as a map; `settings` one entry of it, and what is wrong with it; `pattern` names between slashes
//! - `live` the catalogue that holds now, and how it changes; `options` where it comes from
//! - `refresh` asks again: on a timer, or for who misses a stream
//! - `request` what is asked of an address, `answer` which answers are believed, `source` the asking
//! - `copy` the last good answer, on disk
//! - `canary` a stream that is in none
//!
//! Does not know where schemas come from, nor what Kafka is.

mod answer;
mod canary;
mod copy;
mod live;
mod options;
mod pattern;
mod refresh;
mod request;
mod settings;
mod source;
mod text;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde_json::{Map, Value};

use self::pattern::Pattern;
use crate::model::{CANARY, StreamName, StreamSet, Topic, nearest};

pub use self::canary::{canary_route, canary_set};
pub use self::live::{Live, OpenError, Unavailable};
pub use self::options::{Options, Place};
pub use self::settings::Settings;

const BUILT_IN: &str = include_str!("built_in.yaml");

/// Names that are offered to somebody who asked for one that does not exist.
const NEAREST_MAX: usize = 3;

/// One configured stream: a name, or a pattern of names.
#[derive(Debug)]
pub struct Stream {
    pub name: StreamName,
    /// What readers of the stream read.
    pub topics: Vec<Topic>,
    pub settings: Settings,
}

/// Where an event goes.
#[derive(Debug)]
pub struct Route<'a> {
    pub topic: Topic,
    /// The catalogue's own name for it: the stream's, or the pattern's. There are only so many of them, whatever
    /// producers send, so that it may label a metric.
    pub entry: &'a str,
    pub settings: &'a Settings,
}

/// All streams. Cheap to look up in, never changed.
#[derive(Debug, Default)]
pub struct Catalog {
    streams: BTreeMap<StreamName, Stream>,
    aliases: HashMap<StreamName, StreamName>,
    /// In the order of the source: the first that matches holds.
    patterns: Vec<Pattern>,
    /// What was made of the source's entries: those in use, as the source writes them.
    entries: Map<String, Value>,
    headers_wanted: HashSet<String>,
}

/// All that is wrong with a catalogue, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the catalogue {origin} cannot be used: {}", faults.join("; "))]
pub struct CatalogError {
    pub origin: String,
    pub faults: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no stream named '{name}'{}", offer(nearest))]
pub struct UnknownStream {
    pub name: StreamName,
    pub nearest: Vec<StreamName>,
}

fn offer(nearest: &[StreamName]) -> String {
    match nearest {
        [] => String::new(),
        names => {
            let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
            format!("; the nearest are {}", names.join(", "))
        }
    }
}

impl Catalog {
    pub fn built_in() -> Self {
        Self::parse(BUILT_IN, "built in").expect("the built-in catalogue is well-formed: a test reads it")
    }

    /// `service`: entries that name another one are left out.
    pub fn from_file(path: &Path, service: Option<&str>) -> Result<Self, CatalogError> {
        let origin = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse_for(&text, &origin, service),
            Err(e) => Err(CatalogError { origin, faults: vec![format!("it cannot be read ({e})")] }),
        }
    }

    /// An EventStreamConfig map in YAML or JSON (which is YAML), optionally under `streams`. Every fault is named.
    pub fn parse(text: &str, origin: &str) -> Result<Self, CatalogError> {
        Self::parse_for(text, origin, None)
    }

    fn parse_for(text: &str, origin: &str, service: Option<&str>) -> Result<Self, CatalogError> {
        let refused = |faults| CatalogError { origin: origin.to_owned(), faults };
        let entries = text::entries(text).map_err(|fault| refused(vec![fault]))?;
        let (catalog, mut faults) = Self::of_entries(of_service(entries, service), None);
        if catalog.count() == 0 && faults.is_empty() {
            faults.push("it names no stream".into());
        }
        if faults.is_empty() { Ok(catalog) } else { Err(refused(faults)) }
    }

    /// Makes what it can of the entries, and says what is wrong with the others: those keep what they had in `previous`,
    /// or are left out.
    fn of_entries(entries: Map<String, Value>, previous: Option<&Self>) -> (Self, Vec<String>) {
        let names: HashSet<StreamName> = entries.keys().filter_map(|name| StreamName::parse(name).ok()).collect();
        let mut catalog = Self::default();
        let mut faults = Vec::new();
        for (name, entry) in entries {
            if let Err(fault) = catalog.add(&name, entry, &names) {
                faults.push(format!("{name}: {fault}"));
                if let Some(before) = previous.and_then(|previous| previous.entries.get(&name)) {
                    // Where even that does not fit any more, it is left out.
                    let _ = catalog.add(&name, before.clone(), &names);
                }
            }
        }
        (catalog, faults)
    }

    /// The set of streams that a reader asked for, aliases resolved.
    pub fn resolve(&self, names: &[StreamName]) -> Result<StreamSet, UnknownStream> {
        let streams: Vec<&Stream> = names.iter().map(|name| self.find(name)).collect::<Result<_, _>>()?;
        let topics = streams.iter().flat_map(|stream| stream.topics.iter().cloned()).collect();
        let allowed = streams.iter().flat_map(|stream| stream.settings.topics_allowed.iter().cloned()).collect();
        let canonical = streams.iter().map(|stream| stream.name.clone()).collect();
        Ok(StreamSet::new(canonical, topics, allowed))
    }

    /// The topic that an event of this stream goes to: the prefix and the name if the stream has that topic (or lists
    /// none), else the bare name if it has that one, else its first. `None`: no such stream takes events.
    pub fn route(&self, stream: &str, prefix: Option<&str>) -> Option<Route<'_>> {
        let name = StreamName::parse(stream).ok()?;
        let (entry, settings, topics) = match self.streams.get(&name) {
            Some(stream) => (stream.name.as_str(), &stream.settings, Cow::Borrowed(&stream.topics)),
            None => {
                let pattern = self.pattern_of(stream)?;
                (pattern.name.as_str(), &pattern.settings, Cow::Owned(pattern.settings.topics_of(stream)))
            }
        };
        let preferred = format!("{}{stream}", prefix.unwrap_or_default());
        let has = |name: &str| topics.iter().find(|topic| topic.as_str() == name);
        let topic = has(&preferred).or_else(|| has(stream)).or_else(|| topics.first())?;
        // A name that only a pattern knows is the producer's own: not every stream name can be a topic's.
        (is_topic_name(topic.as_str()) && topic.as_str() != CANARY).then(|| Route {
            topic: topic.clone(),
            entry,
            settings,
        })
    }

    /// The stream of this canonical name.
    pub fn stream(&self, name: &StreamName) -> Option<&Stream> {
        self.streams.get(name)
    }

    /// By canonical name.
    pub fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.streams.values()
    }

    /// Every alias and the stream that it stands for, in the order of the aliases.
    pub fn aliases(&self) -> Vec<(&StreamName, &StreamName)> {
        let mut aliases: Vec<_> = self.aliases.iter().collect();
        aliases.sort();
        aliases
    }

    /// Every topic that readers can read, each once: those of the streams, and those that an id may choose.
    pub fn topics(&self) -> Vec<Topic> {
        let of = |stream: &Stream| [stream.topics.clone(), stream.settings.topics_allowed.clone()].concat();
        let mut topics: Vec<Topic> = self.streams.values().flat_map(of).collect();
        topics.sort();
        topics.dedup();
        topics
    }

    /// The headers that some stream fills its events from, in lower case.
    pub fn headers_wanted(&self) -> &HashSet<String> {
        &self.headers_wanted
    }

    /// The settings of these streams as the source writes them, with `stream` and `topics` where it does not; all of them
    /// if none are named. Unknown names are left out; one that only a pattern knows has the pattern's settings.
    pub fn stream_configs(&self, names: Option<&[&str]>) -> Map<String, Value> {
        let config = |name: &str| Some((name.to_owned(), self.stream_config(name)?));
        match names {
            Some(names) => names.iter().filter_map(|name| config(name)).collect(),
            None => self.entries.keys().filter_map(|name| config(name)).collect(),
        }
    }

    /// Streams and patterns.
    pub fn count(&self) -> usize {
        self.streams.len() + self.patterns.len()
    }

    /// Whether a catalogue of the same entries, in the same order, would be no other one.
    fn is_made_of_the_same(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len() && self.entries.iter().eq(other.entries.iter())
    }

    fn stream_config(&self, name: &str) -> Option<Value> {
        let stream = StreamName::parse(name).ok().and_then(|name| self.streams.get(&name));
        let (entry, topics) = match stream {
            Some(stream) => (name, stream.topics.iter().map(|topic| topic.as_str().to_owned()).collect()),
            None => {
                let named = self.patterns.iter().find(|pattern| pattern.name == name);
                let pattern = named.or_else(|| self.pattern_of(name))?;
                (pattern.name.as_str(), pattern.topics())
            }
        };
        let mut config = self.entries.get(entry)?.as_object().cloned().unwrap_or_default();
        for (key, computed) in [("stream", Value::from(entry)), ("topics", Value::from(topics))] {
            if config.get(key).is_none_or(Value::is_null) {
                config.insert(key.to_owned(), computed);
            }
        }
        Some(Value::Object(config))
    }

    /// None has the canaries, whatever it matches.
    fn pattern_of(&self, stream: &str) -> Option<&Pattern> {
        self.patterns.iter().filter(|_| stream != CANARY).find(|pattern| pattern.matches(stream))
    }

    fn find(&self, name: &StreamName) -> Result<&Stream, UnknownStream> {
        let canonical = self.aliases.get(name).unwrap_or(name);
        self.streams.get(canonical).ok_or_else(|| {
            let known = self.streams.keys().chain(self.aliases.keys()).map(StreamName::as_str);
            let nearest = nearest(name.as_str(), known, NEAREST_MAX);
            UnknownStream { name: name.clone(), nearest: nearest.into_iter().flat_map(StreamName::parse).collect() }
        })
    }

    /// All of the entry or nothing of it. `names` are those of all streams: no alias may take one.
    fn add(&mut self, name: &str, entry: Value, names: &HashSet<StreamName>) -> Result<(), String> {
        let entry = settings::settings_of(entry)?;
        let settings = Settings::read(&entry)?;
        canary::check(name, &settings)?;
        let headers = settings.enrich_fields_from_http_headers.iter().map(|(_, header)| header.clone());
        let headers: Vec<String> = headers.collect();
        if name.starts_with('/') {
            if settings.expect_every.is_some() {
                return Err("sluice: expect_every is for a stream, and not for a pattern of names".into());
            }
            self.patterns.push(Pattern::new(name, settings)?);
        } else {
            self.add_stream(name, settings, names)?;
        }
        self.headers_wanted.extend(headers);
        self.entries.insert(name.to_owned(), Value::Object(entry));
        Ok(())
    }

    fn add_stream(&mut self, name: &str, settings: Settings, names: &HashSet<StreamName>) -> Result<(), String> {
        let name = StreamName::parse(name).map_err(|e| e.to_string())?;
        let topics = settings.topics_of(name.as_str());
        let mut nameable = topics.iter().chain(&settings.topics_allowed);
        if let Some(bad) = nameable.find(|topic| !is_topic_name(topic.as_str())) {
            return Err(format!("'{bad}' is no topic name (letters, digits and . _ -, at most 249)"));
        }
        let aliases = settings.stream_aliases.iter().map(|alias| StreamName::parse(alias));
        let aliases: Vec<StreamName> = aliases.collect::<Result<_, _>>().map_err(|e| format!("alias: {e}"))?;
        if let Some(taken) = aliases.iter().find(|alias| names.contains(*alias) || self.aliases.contains_key(*alias)) {
            return Err(format!("the alias '{taken}' is taken"));
        }
        self.aliases.extend(aliases.into_iter().map(|alias| (alias, name.clone())));
        self.streams.insert(name.clone(), Stream { name, topics, settings });
        Ok(())
    }
}

/// Without the entries that name another service.
fn of_service(mut entries: Map<String, Value>, service: Option<&str>) -> Map<String, Value> {
    if let Some(service) = service {
        let named = |entry: &Value| entry.get("destination_event_service").and_then(Value::as_str).map(str::to_owned);
        entries.retain(|_, entry| named(entry).is_none_or(|named| named == service));
    }
    entries
}

/// Kafka's rule.
fn is_topic_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= 249 && name.bytes().all(legal) && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<StreamName> {
        list.iter().map(|name| StreamName::parse(name).expect("a name")).collect()
    }

    #[test]
    fn the_built_in_catalogue_has_what_the_first_curl_asks_for() {
        let catalog = Catalog::built_in();
        let set = catalog.resolve(&names(&["recentchange", "mediawiki.recentchange"])).expect("streams");
        assert_eq!(set.to_string(), "mediawiki.recentchange");
        let topics: Vec<_> = set.topics().iter().map(Topic::as_str).collect();
        assert_eq!(topics, ["codfw.mediawiki.recentchange", "eqiad.mediawiki.recentchange"]);
        assert!(catalog.resolve(&names(&["test.event"])).is_ok());
    }

    #[test]
    fn an_unknown_stream_is_refused_with_the_nearest_names() {
        let refused = Catalog::built_in().resolve(&names(&["recentchanges"])).expect_err("unknown");
        assert_eq!(refused.nearest.first().map(StreamName::as_str), Some("recentchange"));
        assert!(
            refused.to_string().starts_with("there is no stream named 'recentchanges'; the nearest are 'recentchange'")
        );
    }

    #[test]
    fn events_go_to_the_prefixed_topic_the_bare_one_or_the_first() {
        let text = "
            both: {topics: [x.both, y.both]}
            bare: {topics: [z, bare]}
            first: {topics: [p, q]}
            none: {}
            '/^job\\..+/': {topic_prefixes: ['x.', 'y.']}";
        let catalog = Catalog::parse(text, "test").expect("a catalogue");
        let topic = |stream, prefix| catalog.route(stream, prefix).map(|route| route.topic.as_str().to_owned());
        assert_eq!(topic("both", Some("y.")).as_deref(), Some("y.both"));
        assert_eq!(topic("both", None).as_deref(), Some("x.both"));
        assert_eq!(topic("bare", Some("x.")).as_deref(), Some("bare"));
        assert_eq!(topic("first", Some("x.")).as_deref(), Some("p"));
        assert_eq!(topic("none", Some("eqiad.")).as_deref(), Some("eqiad.none"));
        assert_eq!(topic("job.x", Some("y.")).as_deref(), Some("y.job.x"));
        assert_eq!(topic("job.x", None).as_deref(), Some("x.job.x"));
        assert_eq!(topic("nope", None), None);
        assert_eq!(topic("job.a/b", None), None, "no topic can have this name");
        assert_eq!(topic(&format!("job.{}", "x".repeat(245)), None), None, "nor this one, with its prefix");
        assert_eq!(catalog.route("job.x", None).map(|route| route.entry), Some("/^job\\..+/"));
    }

    #[test]
    fn json_and_a_streams_key_are_read_and_foreign_settings_ignored() {
        let text =
            r#"{"streams": {"a": {"topics": ["a"], "consumers": {"x": 1}, "sample": null, "stream_aliases": ["b"]}}}"#;
        let catalog = Catalog::parse(text, "test").expect("a catalogue");
        assert!(catalog.resolve(&names(&["b"])).is_ok());
        let escaped = Catalog::parse(r#"{"a": {"description": "\ud83d\ude00"}, "b": [], "c": null}"#, "test");
        assert_eq!(escaped.expect("JSON that is no YAML").streams().count(), 3);
    }

    #[test]
    fn the_sample_file_is_a_catalogue() {
        let catalog = Catalog::parse(include_str!("../../config/streams.yaml"), "sample").expect("a catalogue");
        assert!(catalog.route("mediawiki.job.x", Some("eqiad.")).is_some());
    }

    #[test]
    fn exact_names_come_first_and_then_the_first_pattern_of_the_source() {
        let text = "{'/^a\\..+/': {description: one}, '/^A\\.B/i': {description: two}, a.b: {description: exact}}";
        let catalog = Catalog::parse(text, "test").expect("a catalogue");
        let described = |stream| catalog.route(stream, None).and_then(|route| route.settings.description.clone());
        assert_eq!(described("a.b").as_deref(), Some("exact"));
        assert_eq!(described("a.b.c").as_deref(), Some("one"));
        assert_eq!(described("A.b").as_deref(), Some("two"));
        assert_eq!(described("b"), None);
    }

    #[test]
    fn settings_are_shown_as_they_were_given_with_stream_and_topics() {
        let text =
            r#"{"b": {"sample": {"rate": 1}, "topics": ["x"]}, "/^j\\..+/": {"topic_prefixes": ["p."]}, "a": {}}"#;
        let catalog = Catalog::parse(text, "test").expect("a catalogue");
        let all = Value::Object(catalog.stream_configs(None));
        let expected = serde_json::json!({
            "b": {"sample": {"rate": 1}, "topics": ["x"], "stream": "b"},
            "/^j\\..+/": {"topic_prefixes": ["p."], "stream": "/^j\\..+/", "topics": ["/^(p\\.)j\\..+/"]},
            "a": {"stream": "a", "topics": ["eqiad.a", "codfw.a"]},
        });
        assert_eq!(all.to_string(), expected.to_string());
        let some = Value::Object(catalog.stream_configs(Some(&["j.x", "nope", "a"])));
        let expected = serde_json::json!({"j.x": expected["/^j\\..+/"], "a": expected["a"]});
        assert_eq!(some.to_string(), expected.to_string());
    }

    #[test]
    fn headers_are_wanted_that_some_stream_wants() {
        let text = "{a: {producers: {eventgate: {enrich_fields_from_http_headers: {f: X-F, meta.request_id: false}}}}}";
        let wanted = |text| Catalog::parse(text, "test").expect("a catalogue").headers_wanted().clone();
        assert_eq!(wanted(text), HashSet::from(["x-f".to_owned()]));
        assert_eq!(wanted("{a: {}, b: {}}"), HashSet::from(["x-request-id".to_owned()]));
    }

    #[test]
    fn streams_of_other_services_are_left_out_where_one_is_named() {
        let text = "{a: {destination_event_service: x}, b: {destination_event_service: y, topics: 5}, c: {}}";
        let catalog = Catalog::parse_for(text, "test", Some("x")).expect("a catalogue");
        assert_eq!(catalog.streams().map(|stream| stream.name.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert!(Catalog::parse(text, "test").is_err());
    }

    #[test]
    fn an_entry_with_a_fault_keeps_what_it_had_and_holds_up_no_other() {
        let of =
            |text: &str, previous: Option<&Catalog>| Catalog::of_entries(text::entries(text).expect("a map"), previous);
        let (before, faults) = of("{a: {topics: [old]}, b: {topics: [b]}}", None);
        assert_eq!(faults, [""; 0]);
        let (after, faults) =
            of("{a: {topics: 5}, b: {topics: [new]}, c: {topics: 5}, d: {stream_aliases: [b]}}", Some(&before));
        assert_eq!(faults.len(), 3, "{faults:?}");
        let topics: Vec<String> = after.topics().iter().map(ToString::to_string).collect();
        assert_eq!(topics, ["new", "old"]);
        assert!(after.resolve(&names(&["d"])).is_err());
    }

    #[test]
    fn topics_that_are_only_allowed_are_read_too_and_named_in_no_set_before_an_id_does() {
        let text = "{a: {topics: [e.a], topics_allowed: [c.a, e.a]}, b: {topics: [c.b]}}";
        let catalog = Catalog::parse(text, "test").expect("a catalogue");
        let set = catalog.resolve(&names(&["a", "b"])).expect("streams");
        let written = |topics: &[Topic]| topics.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(written(set.topics()), ["c.b", "e.a"]);
        assert_eq!(written(set.topics_allowed()), ["c.a"]);
        assert_eq!(written(&catalog.topics()), ["c.a", "c.b", "e.a"]);
        assert!(Catalog::parse("{a: {topics_allowed: ['x y']}}", "test").is_err());
    }

    #[test]
    fn all_faults_are_named_at_once() {
        let text = "{a: {topics: 5}, b: {topics: ['x y']}, '/[/': {}, 'c d': {}, e: {stream_aliases: [f]}, g: {stream_aliases: [f]}, h: {stream_aliases: [g]}}";
        let error = Catalog::parse(text, "test").expect_err("faults");
        let starts: Vec<_> = error.faults.iter().map(|fault| fault.split(':').next().unwrap_or_default()).collect();
        assert_eq!(starts, ["a", "b", "/[/", "c d", "g", "h"], "{error}");
        assert!(Catalog::parse("[]", "test").is_err());
        assert!(Catalog::parse("{", "test").is_err());
        assert!(Catalog::parse("{}", "test").is_err());
        assert!(Catalog::parse(r#"{"streams": []}"#, "test").is_err());
        assert!(Catalog::parse(r#"{"a": ["b"]}"#, "test").is_err());
    }

    #[test]
    fn the_canaries_stream_is_in_no_catalogue_and_none_may_name_it() {
        let text =
            "{a: {}, 'sluice.canaries': {}, '/.*/': {topic_prefixes: null}, '/^can/': {topic_prefixes: ['sluice.']}}";
        let catalog = Catalog::parse(text, "test").expect("a catalogue");
        assert!(catalog.route(CANARY, None).is_none() && catalog.route(CANARY, Some("x.")).is_none());
        assert!(catalog.route("sluice.other", None).is_some());
        let unknown = catalog.resolve(&names(&[CANARY])).expect_err("unknown");
        assert!(!unknown.nearest.iter().any(|name| name.as_str() == CANARY), "{unknown}");
        assert!(catalog.stream_configs(Some(&[CANARY])).is_empty());
        assert!(!catalog.topics().contains(&Topic::new(CANARY)));
        let prefixed = Catalog::parse("/^can/: {topic_prefixes: ['sluice.']}", "test").expect("a catalogue");
        assert!(prefixed.route("canary", None).is_none(), "by way of a prefix");
        for entry in [
            "sluice.canary: {}",
            "a: {stream_aliases: [sluice.canary]}",
            "a: {topics: [b, sluice.canary]}",
            "a: {topics_allowed: [sluice.canary]}",
            "canary: {topic_prefixes: ['sluice.']}",
            "/a/: {topics: [sluice.canary]}",
        ] {
            let error = Catalog::parse(entry, "test").expect_err("a fault");
            assert!(error.faults.len() == 1 && error.faults[0].contains("reserved"), "{entry}: {error}");
        }
        let route = canary_route();
        assert_eq!((route.topic.as_str(), route.entry), (CANARY, CANARY));
        assert_eq!(canary_set().topics(), [Topic::new(CANARY)]);
    }
}
