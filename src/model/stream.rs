//! Stream names, and the set of streams that one reader asks for.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::{ClientId, Topic};

/// Longest stream name; Kafka's own limit for topics is 249.
const NAME_BYTES_MAX: usize = 249;
/// Most names in one request.
const NAMES_MAX: usize = 512;

/// The stream and the topic of sluice's own canaries, which nobody else writes, reads or is shown.
pub const CANARY: &str = "sluice.canary";

/// A public name for one or more topics.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(Arc<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the list of streams is empty: name at least one, as in /v2/stream/recentchange")]
    NoNames,
    #[error("a stream name is empty: check the list for a stray comma")]
    Empty,
    #[error("a stream name has {0} bytes, and at most {NAME_BYTES_MAX} are allowed")]
    TooLong(usize),
    #[error("a stream name has the character {0:?}; names are made of letters, digits and . _ - / :")]
    BadCharacter(char),
    #[error("the list names {0} streams, and at most {NAMES_MAX} are allowed")]
    TooMany(usize),
}

impl StreamName {
    pub fn parse(name: &str) -> Result<Self, NameError> {
        match name {
            "" => Err(NameError::Empty),
            _ if name.len() > NAME_BYTES_MAX => Err(NameError::TooLong(name.len())),
            _ => match name.chars().find(|c| !c.is_ascii_alphanumeric() && !"._-/:".contains(*c)) {
                Some(bad) => Err(NameError::BadCharacter(bad)),
                None => Ok(Self(name.into())),
            },
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The decoded `{streams}` of a path: names split at `,` and `|`.
pub fn parse_stream_names(list: &str) -> Result<Vec<StreamName>, NameError> {
    if list.is_empty() {
        return Err(NameError::NoNames);
    }
    let count = list.split([',', '|']).count();
    if count > NAMES_MAX {
        return Err(NameError::TooMany(count));
    }
    list.split([',', '|']).map(StreamName::parse).collect()
}

/// What a reader's events look like on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// Server-Sent Events: `event`, `id`, `data`.
    #[default]
    Sse,
    /// Newline-delimited JSON: the documents alone.
    Ndjson,
}

/// How a reader wants to see its streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct View {
    pub format: Format,
    /// Events that monitoring puts into a stream (`meta.domain` is `canary`) are shown, too.
    pub canaries: bool,
}

/// What one reader asked for: canonical streams, each once, sorted, and how it wants to see them. It is its channel's
/// key. Only the catalogue makes one, and [`StreamSet::chosen_by`] from it, so its streams exist and its topics are known.
#[derive(Clone, Debug)]
pub struct StreamSet {
    inner: Arc<Inner>,
    view: View,
}

#[derive(Debug)]
struct Inner {
    streams: Vec<StreamName>,
    topics: Vec<Topic>,
    topics_allowed: Vec<Topic>,
    /// The topics are those that an id has chosen, not the streams' own.
    chosen: bool,
}

impl StreamSet {
    /// `topics` are read; of `topics_allowed` those that an id names.
    pub fn new(mut streams: Vec<StreamName>, mut topics: Vec<Topic>, mut topics_allowed: Vec<Topic>) -> Self {
        for list in [&mut topics, &mut topics_allowed] {
            list.sort();
            list.dedup();
        }
        topics_allowed.retain(|topic| topics.binary_search(topic).is_err());
        streams.sort();
        streams.dedup();
        let inner = Inner { streams, topics, topics_allowed, chosen: false };
        Self { inner: Arc::new(inner), view: View::default() }
    }

    /// The same streams, seen in this way.
    pub fn seen(self, view: View) -> Self {
        Self { view, ..self }
    }

    pub fn view(&self) -> View {
        self.view
    }

    /// The set on exactly the topics that the id names, if one of them is only allowed: the reader has asked for another
    /// data centre than the streams' own. `None` for an id of the streams' own topics: it is read on all of them.
    pub fn chosen_by(&self, id: &ClientId) -> Option<Self> {
        let named = |topic: &&Topic| id.places().iter().any(|place| place.partition.topic == **topic);
        let mut topics: Vec<Topic> = self.topics_allowed().iter().filter(named).cloned().collect();
        if topics.is_empty() {
            return None;
        }
        topics.extend(self.topics().iter().filter(named).cloned());
        topics.sort();
        let mut topics_allowed: Vec<Topic> = self.topics_nameable().cloned().collect();
        topics_allowed.retain(|topic| !topics.contains(topic));
        topics_allowed.sort();
        let inner = Inner { streams: self.inner.streams.clone(), topics, topics_allowed, chosen: true };
        Some(Self { inner: Arc::new(inner), view: self.view })
    }

    pub fn streams(&self) -> &[StreamName] {
        &self.inner.streams
    }

    pub fn topics(&self) -> &[Topic] {
        &self.inner.topics
    }

    pub fn topics_allowed(&self) -> &[Topic] {
        &self.inner.topics_allowed
    }

    /// Those that are read, and those that may be.
    pub fn topics_nameable(&self) -> impl Iterator<Item = &Topic> {
        self.inner.topics.iter().chain(&self.inner.topics_allowed)
    }

    pub fn is_chosen(&self) -> bool {
        self.inner.chosen
    }
}

/// Two sets are the same channel if they are the same streams over the same topics, seen in the same way: a catalogue
/// that gave a stream other topics has made another set. One that was chosen is never the streams' own, whatever topics
/// those have later.
impl PartialEq for StreamSet {
    fn eq(&self, other: &Self) -> bool {
        let same_topics = self.inner.topics == other.inner.topics && self.inner.chosen == other.inner.chosen;
        self.view == other.view && self.inner.streams == other.inner.streams && same_topics
    }
}

impl Eq for StreamSet {}

impl Hash for StreamSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.view.hash(state);
        self.inner.streams.hash(state);
        self.inner.topics.hash(state);
        self.inner.chosen.hash(state);
    }
}

/// The streams joined with commas.
impl fmt::Display for StreamSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, stream) in self.inner.streams.iter().enumerate() {
            write!(f, "{}{stream}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_list_is_refused_with_its_cause() {
        assert_eq!(parse_stream_names(""), Err(NameError::NoNames));
        assert_eq!(parse_stream_names("a,"), Err(NameError::Empty));
        assert_eq!(parse_stream_names("a\0b"), Err(NameError::BadCharacter('\0')));
        assert_eq!(parse_stream_names(&"x".repeat(250)), Err(NameError::TooLong(250)));
        assert_eq!(parse_stream_names(&"x,".repeat(600)), Err(NameError::TooMany(601)));
        assert_eq!(parse_stream_names("a|b,c").map(|names| names.len()), Ok(3));
    }

    #[test]
    fn a_set_does_not_depend_on_the_order_it_was_asked_in() {
        let name = |text| StreamName::parse(text).expect("a name");
        let topics = |names: &[&str]| names.iter().map(|name| Topic::new(name)).collect::<Vec<_>>();
        let one = StreamSet::new(vec![name("b"), name("a"), name("b")], topics(&["y", "x"]), vec![]);
        let other = StreamSet::new(vec![name("a"), name("b")], topics(&["x", "y"]), vec![]);
        assert_eq!(one, other);
        assert_eq!(one.to_string(), "a,b");
        let canaries = View { canaries: true, ..View::default() };
        assert_ne!(one, other.seen(canaries), "it is another channel");
    }

    #[test]
    fn an_id_that_names_a_topic_that_is_only_allowed_is_read_on_exactly_what_it_names() {
        let name = |text| StreamName::parse(text).expect("a name");
        let topics = |names: &[&str]| names.iter().map(|name| Topic::new(name)).collect::<Vec<_>>();
        let set = StreamSet::new(vec![name("s")], topics(&["own", "too"]), topics(&["other", "own", "third"]));
        assert_eq!(set.topics_allowed(), topics(&["other", "third"]), "what is read is not only allowed");
        let chosen = |names: &[&str]| {
            let entry = |name: &&str| format!(r#"{{"topic":"{name}","partition":0,"offset":1}}"#);
            let id = format!("[{}]", names.iter().map(entry).collect::<Vec<_>>().join(","));
            set.chosen_by(&ClientId::parse(&id, []).expect("well-formed"))
        };
        assert_eq!(chosen(&["own"]), None);
        assert_eq!(chosen(&["own", "foreign"]), None);
        for (named, read, left) in [
            (&["other"][..], &["other"][..], &["own", "third", "too"][..]),
            (&["own", "foreign", "other"], &["other", "own"], &["third", "too"]),
        ] {
            let set = chosen(named).expect("one is only allowed");
            assert_eq!(set.topics(), topics(read));
            assert_eq!(set.topics_allowed(), topics(left));
            assert_ne!(
                set,
                StreamSet::new(vec![name("s")], topics(read), vec![]),
                "another channel than a stream's own"
            );
        }
    }
}
