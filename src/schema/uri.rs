//! What an event's `$schema` may say.

use std::fmt;
use std::sync::Arc;

/// Characters of a schema URI.
const URI_CHARS_MAX: usize = 256;
/// What a message quotes of a text that is no schema URI.
const QUOTED_CHARS_MAX: usize = 256;

/// What an event's `$schema` says, relative to every base: begins with a slash, cannot leave a base, and has no other
/// way to be written but with the slash or a `#` left out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SchemaUri(Arc<str>);

/// Why a text is no schema URI. The client's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    #[error("Absolute schema URIs are not allowed but event schema_uri is {0}")]
    Absolute(String),
    #[error("schema URI is empty; name a schema such as /test/event/1.0.0")]
    Empty,
    #[error("schema URI is longer than {URI_CHARS_MAX} characters")]
    TooLong,
    #[error("schema URI has an empty, hidden or dotted segment: {0}; name a schema such as /test/event/1.0.0")]
    Segment(String),
    #[error(
        "schema URI has a character other than letters, digits and _ - . ~ + @: {0}; name a schema such as /test/event/1.0.0"
    )]
    Character(String),
}

impl SchemaUri {
    pub fn parse(text: &str) -> Result<Self, UriError> {
        if is_absolute(text) {
            return Err(UriError::Absolute(quoted(text)));
        }
        if text.len() > URI_CHARS_MAX {
            return Err(UriError::TooLong);
        }
        // An empty fragment means the whole schema, and ids of schemas are often written with it.
        let path = text.strip_suffix('#').unwrap_or(text);
        let path = path.strip_prefix('/').unwrap_or(path);
        if path.is_empty() {
            return Err(UriError::Empty);
        }
        if !path.chars().all(|char| char.is_ascii_alphanumeric() || "_-.~+@/".contains(char)) {
            return Err(UriError::Character(quoted(text)));
        }
        // Hidden names too: a folder of schemas is often a git checkout.
        if path.split('/').any(|segment| segment.is_empty() || segment.starts_with('.')) {
            return Err(UriError::Segment(quoted(text)));
        }
        Ok(Self(format!("/{path}").into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the leading slash.
    pub(super) fn path(&self) -> &str {
        &self.0[1..]
    }

    /// Whether what it names may become another schema.
    pub(super) fn is_latest(&self) -> bool {
        let name = self.0.rsplit('/').next().unwrap_or_default();
        matches!(name, "latest" | "latest.yaml" | "latest.yml" | "latest.json")
    }
}

impl fmt::Display for SchemaUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// With a scheme, or with a host of its own.
fn is_absolute(text: &str) -> bool {
    let scheme = |text: &str| {
        let scheme = text.split_once(':').map(|(scheme, _)| scheme).filter(|scheme| !scheme.is_empty());
        scheme.is_some_and(|scheme| scheme.chars().all(|char| char.is_ascii_alphanumeric() || "+-.".contains(char)))
    };
    text.starts_with("//") || text.starts_with("\\\\") || scheme(text)
}

/// What a message may hold of a text: not all of a long one, and no control characters.
fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_has_one_name() {
        for text in ["/test/event/1.0.0", "test/event/1.0.0", "/test/event/1.0.0#", "test/event/1.0.0#"] {
            assert_eq!(SchemaUri::parse(text).expect("a URI").as_str(), "/test/event/1.0.0", "{text}");
        }
        assert_eq!(SchemaUri::parse("/a_b-c/latest.yaml").expect("a URI").path(), "a_b-c/latest.yaml");
        assert!(SchemaUri::parse("/a/latest").expect("a URI").is_latest());
        assert!(!SchemaUri::parse("/latest/1.0.0").expect("a URI").is_latest());
    }

    #[test]
    fn what_has_a_scheme_or_a_host_is_absolute() {
        for text in ["http://x/y", "https://x", "file:///etc/passwd", "//host/a", "mailto:x", "C:/x", "\\\\host\\a"] {
            let error = SchemaUri::parse(text).expect_err(text);
            let message = format!("Absolute schema URIs are not allowed but event schema_uri is {text}");
            assert_eq!(error.to_string(), message);
        }
        let long = format!("http://{}", "x".repeat(100_000));
        assert!(SchemaUri::parse(&long).expect_err("absolute").to_string().len() < 400);
    }

    #[test]
    fn aliases_and_ways_out_are_refused() {
        for text in ["", "/", "#", "/#"] {
            assert_eq!(SchemaUri::parse(text), Err(UriError::Empty), "{text}");
        }
        let segments = [
            "/test//event",
            "/test/event/",
            "/../x",
            "/a/../../package.json",
            "/./a",
            "/a/..",
            "/.git/config",
            "..",
            "/a/...",
        ];
        for text in segments {
            assert!(matches!(SchemaUri::parse(text), Err(UriError::Segment(_))), "{text}");
        }
        let characters = [
            "/a?x=1",
            "/a#/b",
            "/a##",
            "/%2e%2e/a",
            "/a%00",
            "/a\0b",
            "/a\\..\\b",
            "/a b",
            "/a\n",
            "/ä",
            "/a;b",
            "/a/b:c/d e",
        ];
        for text in characters {
            assert!(matches!(SchemaUri::parse(text), Err(UriError::Character(_))), "{text:?}");
        }
        assert_eq!(SchemaUri::parse(&format!("/{}", "a".repeat(URI_CHARS_MAX))), Err(UriError::TooLong));
    }
}
