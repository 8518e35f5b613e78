//! Which streams there are: name → topics, schema title, settings; from a file of the EventStreamConfig shape.
//!
//! - this page: [`Catalog`], immutable; a refresh makes another one
//! - `live` the catalogue that holds now
//! - `settings` one stream's entry as the file writes it, and what is wrong with it
//!
//! Does not know where schemas come from, nor what Kafka is.

mod live;
mod settings;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use regex::Regex;

use crate::model::{StreamName, StreamSet, Topic, nearest};

pub use self::live::{Live, Unavailable};
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

/// Streams whose names match: producers may write to them.
#[derive(Debug)]
struct Pattern {
    /// As the file writes it, with its slashes.
    name: String,
    regex: Regex,
    settings: Settings,
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
#[derive(Debug)]
pub struct Catalog {
    streams: BTreeMap<StreamName, Stream>,
    aliases: HashMap<StreamName, StreamName>,
    patterns: Vec<Pattern>,
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

    pub fn from_file(path: &Path) -> Result<Self, CatalogError> {
        let origin = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &origin),
            Err(e) => Err(CatalogError { origin, faults: vec![format!("it cannot be read ({e})")] }),
        }
    }

    /// An EventStreamConfig map in YAML or JSON (which is YAML), optionally under `streams`. Every fault is named.
    pub fn parse(text: &str, origin: &str) -> Result<Self, CatalogError> {
        let refused = |faults| CatalogError { origin: origin.to_owned(), faults };
        let entries = settings::parse_map(text).map_err(|fault| refused(vec![fault]))?;
        let mut catalog = Self { streams: BTreeMap::new(), aliases: HashMap::new(), patterns: Vec::new() };
        let mut faults = Vec::new();
        for (name, settings) in entries {
            if let Err(fault) = settings.and_then(|settings| catalog.add(&name, settings)) {
                faults.push(format!("{name}: {fault}"));
            }
        }
        if catalog.streams.is_empty() && catalog.patterns.is_empty() && faults.is_empty() {
            faults.push("it names no stream".into());
        }
        if faults.is_empty() { Ok(catalog) } else { Err(refused(faults)) }
    }

    /// The set of streams that a reader asked for, aliases resolved.
    pub fn resolve(&self, names: &[StreamName]) -> Result<StreamSet, UnknownStream> {
        let streams: Vec<&Stream> = names.iter().map(|name| self.find(name)).collect::<Result<_, _>>()?;
        let topics = streams.iter().flat_map(|stream| stream.topics.iter().cloned()).collect();
        let allowed =
            streams.iter().flat_map(|stream| stream.settings.topics_allowed.iter().map(|name| Topic::new(name)));
        let canonical = streams.iter().map(|stream| stream.name.clone()).collect();
        Ok(StreamSet::new(canonical, topics, allowed.collect()))
    }

    /// The settings of these streams, or of all; names that are not there are left out.
    pub fn stream_configs(&self, _names: Option<&[&str]>) -> serde_json::Map<String, serde_json::Value> {
        serde_json::Map::new()
    }

    /// The topic that an event of this stream goes to: the prefix and the name if the stream has that topic (or lists
    /// none), else the bare name if it has that one, else its first. `None`: no such stream takes events.
    pub fn route(&self, stream: &str, prefix: Option<&str>) -> Option<Route<'_>> {
        let name = StreamName::parse(stream).ok()?;
        let (entry, settings, topics) = match self.streams.get(&name) {
            Some(stream) => (stream.name.as_str(), &stream.settings, Cow::Borrowed(&stream.topics)),
            None => {
                let pattern = self.patterns.iter().find(|pattern| pattern.regex.is_match(stream))?;
                (pattern.name.as_str(), &pattern.settings, Cow::Owned(pattern.settings.topics_of(stream)))
            }
        };
        let preferred = format!("{}{stream}", prefix.unwrap_or_default());
        let has = |name: &str| topics.iter().find(|topic| topic.as_str() == name);
        let topic = has(&preferred).or_else(|| has(stream)).or_else(|| topics.first())?;
        // A name that only a pattern knows is the producer's own: not every stream name can be a topic's.
        is_topic_name(topic.as_str()).then(|| Route { topic: topic.clone(), entry, settings })
    }

    pub fn headers_wanted(&self) -> &std::collections::HashSet<String> {
        static NONE: std::sync::LazyLock<std::collections::HashSet<String>> =
            std::sync::LazyLock::new(Default::default);
        &NONE
    }

    /// By canonical name.
    pub fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.streams.values()
    }

    /// Every topic that readers can read, each once.
    pub fn topics(&self) -> Vec<Topic> {
        let mut topics: Vec<Topic> = self.streams.values().flat_map(|stream| stream.topics.iter().cloned()).collect();
        topics.sort();
        topics.dedup();
        topics
    }

    fn find(&self, name: &StreamName) -> Result<&Stream, UnknownStream> {
        let canonical = self.aliases.get(name).unwrap_or(name);
        self.streams.get(canonical).ok_or_else(|| {
            let known = self.streams.keys().chain(self.aliases.keys()).map(StreamName::as_str);
            let nearest = nearest(name.as_str(), known, NEAREST_MAX);
            UnknownStream { name: name.clone(), nearest: nearest.into_iter().flat_map(StreamName::parse).collect() }
        })
    }

    fn add(&mut self, name: &str, settings: Settings) -> Result<(), String> {
        if let Some(pattern) = name.strip_prefix('/') {
            let pattern = pattern.strip_suffix('/').ok_or("a pattern ends with a slash")?;
            let regex = Regex::new(pattern).map_err(|e| format!("the pattern is no regular expression ({e})"))?;
            self.patterns.push(Pattern { name: name.to_owned(), regex, settings });
            return Ok(());
        }
        let name = StreamName::parse(name).map_err(|e| e.to_string())?;
        let topics = settings.topics_of(name.as_str());
        if let Some(bad) = topics.iter().find(|topic| !is_topic_name(topic.as_str())) {
            return Err(format!("'{bad}' is no topic name (letters, digits and . _ -, at most 249)"));
        }
        for alias in &settings.stream_aliases {
            let alias = StreamName::parse(alias).map_err(|e| format!("alias: {e}"))?;
            if self.streams.contains_key(&alias) || self.aliases.insert(alias.clone(), name.clone()).is_some() {
                return Err(format!("the alias '{alias}' is taken"));
            }
        }
        match self.streams.insert(name.clone(), Stream { name: name.clone(), topics, settings }) {
            None if !self.aliases.contains_key(&name) => Ok(()),
            _ => Err("the name is taken".into()),
        }
    }
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
    fn all_faults_are_named_at_once() {
        let text = "{a: {topics: 5}, b: {topics: ['x y']}, '/[/': {}, 'c d': {}, e: {stream_aliases: [f]}, g: {stream_aliases: [f]}}";
        let error = Catalog::parse(text, "test").expect_err("faults");
        let starts: Vec<_> = error.faults.iter().map(|fault| fault.split(':').next().unwrap_or_default()).collect();
        assert_eq!(starts, ["a", "b", "/[/", "c d", "g"], "{error}");
        assert!(Catalog::parse("[]", "test").is_err());
        assert!(Catalog::parse("{", "test").is_err());
        assert!(Catalog::parse("{}", "test").is_err());
        assert!(Catalog::parse(r#"{"streams": []}"#, "test").is_err());
        assert!(Catalog::parse(r#"{"a": ["b"]}"#, "test").is_err());
    }
}
