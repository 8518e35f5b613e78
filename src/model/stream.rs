//! Stream names, and the set of streams that one reader asks for.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::Topic;

/// Longest stream name; Kafka's own limit for topics is 249.
const NAME_BYTES_MAX: usize = 249;
/// Most names in one request.
const NAMES_MAX: usize = 512;

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
/// key. Only the catalogue makes one, so its streams exist and its topics are known.
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
}

impl StreamSet {
    /// `topics` are read; `topics_allowed` may also be named in an id (their entries are left out without complaint).
    pub fn new(mut streams: Vec<StreamName>, mut topics: Vec<Topic>, mut topics_allowed: Vec<Topic>) -> Self {
        for list in [&mut topics, &mut topics_allowed] {
            list.sort();
            list.dedup();
        }
        streams.sort();
        streams.dedup();
        Self { inner: Arc::new(Inner { streams, topics, topics_allowed }), view: View::default() }
    }

    /// The same streams, seen in this way.
    pub fn seen(self, view: View) -> Self {
        Self { view, ..self }
    }

    pub fn view(&self) -> View {
        self.view
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
}

/// Two sets are the same channel if they are the same streams over the same topics, seen in the same way: a catalogue
/// that gave a stream other topics has made another set.
impl PartialEq for StreamSet {
    fn eq(&self, other: &Self) -> bool {
        self.view == other.view && self.inner.streams == other.inner.streams && self.inner.topics == other.inner.topics
    }
}

impl Eq for StreamSet {}

impl Hash for StreamSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.view.hash(state);
        self.inner.streams.hash(state);
        self.inner.topics.hash(state);
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
}
