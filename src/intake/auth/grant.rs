//! What a producer may post to: names of streams, and patterns of names.

use std::collections::BTreeSet;
use std::sync::Arc;

use regex::{RegexSet, RegexSetBuilder};

use crate::model::{CANARY, StreamName};

/// Names and patterns of one grant. More are refused, in the configuration as in a token.
const ENTRIES_MAX: usize = 1_000;
/// Patterns among them. Each costs time at every event.
const PATTERNS_MAX: usize = 64;
const PATTERN_BYTES_MAX: usize = 500;
/// Bytes of all patterns of a grant, compiled.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// What a producer may post to. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant(Extent);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Extent {
    Everything,
    /// Sluice's own canaries, and nothing else.
    Canary,
    Only(Arc<Streams>),
}

#[derive(Debug)]
struct Streams {
    names: BTreeSet<String>,
    patterns: RegexSet,
}

/// Why a list of streams is none. Quotes what it complains about: a stream is no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum StreamsError {
    #[error("it names no stream")]
    Empty,
    #[error("it names more than {ENTRIES_MAX} streams: use a /pattern/")]
    TooMany,
    #[error("it has more than {PATTERNS_MAX} patterns")]
    TooManyPatterns,
    #[error("'{0}' is no stream name: {1}")]
    Name(String, String),
    #[error("'{0}' is no pattern: it begins with a slash and does not end with one")]
    Open(String),
    #[error("a pattern has more than {PATTERN_BYTES_MAX} bytes")]
    TooLong,
    #[error("a pattern is no regular expression that can be used: {0}")]
    Pattern(String),
}

impl Grant {
    pub fn everything() -> Self {
        Self(Extent::Everything)
    }

    /// Of who has proved to be sluice itself.
    pub fn canary() -> Self {
        Self(Extent::Canary)
    }

    pub fn is_canary(&self) -> bool {
        self.0 == Extent::Canary
    }

    pub fn allows(&self, stream: &str) -> bool {
        match &self.0 {
            Extent::Everything => true,
            Extent::Canary => stream == CANARY,
            Extent::Only(streams) => streams.names.contains(stream) || streams.patterns.is_match(stream),
        }
    }

    /// Names of streams, and `/patterns/` with the meaning that they have in the catalogue: a pattern matches anywhere
    /// in the name unless it says `^` and `$`.
    pub(super) fn of<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, StreamsError> {
        let mut names = BTreeSet::new();
        let mut patterns = Vec::new();
        for (count, entry) in entries.into_iter().enumerate() {
            if count == ENTRIES_MAX {
                return Err(StreamsError::TooMany);
            }
            match entry.strip_prefix('/') {
                Some(rest) => patterns.push(pattern(entry, rest)?),
                None => {
                    let name = StreamName::parse(entry);
                    let name = name.map_err(|e| StreamsError::Name(entry.to_owned(), e.to_string()))?;
                    names.insert(name.as_str().to_owned());
                }
            }
        }
        if names.is_empty() && patterns.is_empty() {
            return Err(StreamsError::Empty);
        }
        Ok(Self(Extent::Only(Arc::new(Streams { names, patterns: compile(&patterns)? }))))
    }
}

fn pattern<'a>(entry: &str, rest: &'a str) -> Result<&'a str, StreamsError> {
    match rest.strip_suffix('/') {
        // `//` would match every stream, and nobody would write that on purpose.
        None | Some("") => Err(StreamsError::Open(entry.chars().take(PATTERN_BYTES_MAX).collect())),
        Some(pattern) if pattern.len() > PATTERN_BYTES_MAX => Err(StreamsError::TooLong),
        Some(pattern) => Ok(pattern),
    }
}

fn compile(patterns: &[&str]) -> Result<RegexSet, StreamsError> {
    match patterns.len() {
        0 => Ok(RegexSet::empty()),
        1..=PATTERNS_MAX => RegexSetBuilder::new(patterns)
            .size_limit(COMPILED_BYTES_MAX)
            .build()
            .map_err(|e| StreamsError::Pattern(e.to_string())),
        _ => Err(StreamsError::TooManyPatterns),
    }
}

/// By what was written: the patterns compiled from it cannot be compared.
impl PartialEq for Streams {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names && self.patterns.patterns() == other.patterns.patterns()
    }
}

impl Eq for Streams {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact_and_patterns_match_anywhere_unless_anchored() {
        let grant = Grant::of(["test.event", r"/^mediawiki\.job\..+$/", "/web/"]).expect("a grant");
        for (stream, allowed) in [
            ("test.event", true),
            ("test.events", false),
            ("xtest.event", false),
            ("mediawiki.job.x", true),
            ("mediawiki.job.", false),
            ("eqiad.mediawiki.job.x", false),
            ("analytics.web.click", true),
            ("", false),
            ("/web/", true),
        ] {
            assert_eq!(grant.allows(stream), allowed, "{stream}");
            assert!(Grant::everything().allows(stream));
        }
    }

    #[test]
    fn lists_that_are_none_are_refused() {
        let many: Vec<String> = (0..=ENTRIES_MAX).map(|number| format!("s{number}")).collect();
        let patterns: Vec<String> = (0..=PATTERNS_MAX).map(|number| format!("/p{number}/")).collect();
        let long = format!("/{}/", "x".repeat(PATTERN_BYTES_MAX + 1));
        let table: [(&[&str], &str); 9] = [
            (&[], "no stream"),
            (&[""], "no stream name"),
            (&["a b"], "no stream name"),
            (&["/a"], "no pattern"),
            (&["//"], "no pattern"),
            (&["/"], "no pattern"),
            (&["/[/"], "no regular expression"),
            (&["/(a{1000}){1000}/"], "no regular expression"),
            (&[&long], "more than 500 bytes"),
        ];
        for (entries, why) in table {
            let error = Grant::of(entries.iter().copied()).expect_err("no list").to_string();
            assert!(error.contains(why), "{entries:?}: {error}");
        }
        assert_eq!(Grant::of(many.iter().map(String::as_str)), Err(StreamsError::TooMany));
        assert_eq!(Grant::of(patterns.iter().map(String::as_str)), Err(StreamsError::TooManyPatterns));
    }
}
