//! A name between slashes: a regular expression, as PHP and JavaScript write one.

use regex::{Regex, RegexBuilder};

use super::settings::Settings;

/// What one compiled expression may weigh.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// Streams whose names match: producers may write to them.
#[derive(Debug)]
pub(super) struct Pattern {
    /// As the file writes it, with its slashes.
    pub(super) name: String,
    regex: Regex,
    pub(super) settings: Settings,
}

impl Pattern {
    /// `/…/`, or `/…/i`, which does not tell capitals from small letters.
    pub(super) fn new(name: &str, settings: Settings) -> Result<Self, String> {
        let inner = name.strip_prefix('/').and_then(|rest| rest.rsplit_once('/'));
        let (pattern, flags) = inner.ok_or("a pattern ends with a slash")?;
        if pattern.is_empty() {
            return Err("the pattern is empty".into());
        }
        if let Some(flag) = flags.chars().find(|flag| *flag != 'i') {
            return Err(format!("the pattern's flag '{flag}' is not known: i is"));
        }
        // Time linear in the name, whatever the expression: no look-around, no back-references.
        let regex =
            RegexBuilder::new(pattern).case_insensitive(!flags.is_empty()).size_limit(COMPILED_BYTES_MAX).build();
        let regex = regex.map_err(|e| format!("the pattern is no regular expression ({e})"))?;
        Ok(Self { name: name.to_owned(), regex, settings })
    }

    pub(super) fn matches(&self, stream: &str) -> bool {
        self.regex.is_match(stream)
    }

    /// Its topics, as a pattern too: what EventStreamConfig computes.
    pub(super) fn topics(&self) -> Vec<String> {
        let prefixes = &self.settings.topic_prefixes;
        match self.settings.topics.as_slice() {
            [] if prefixes.is_empty() => vec![self.name.clone()],
            [] => {
                let prefixes: Vec<String> = prefixes.iter().map(|prefix| regex::escape(prefix)).collect();
                let rest = self.name.trim_start_matches('/');
                vec![format!("/^({}){}", prefixes.join("|"), rest.strip_prefix('^').unwrap_or(rest))]
            }
            listed => listed.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(name: &str) -> Result<Pattern, String> {
        Pattern::new(name, Settings::default())
    }

    #[test]
    fn a_pattern_has_slashes_and_at_most_the_flag_i() {
        assert!(pattern(r"/^mediawiki\.job\..+/").is_ok_and(|p| p.matches("mediawiki.job.x")));
        assert!(pattern("/^a\\/b$/").is_ok_and(|p| p.matches("a/b") && !p.matches("A/b")));
        assert!(pattern("/^abc$/i").is_ok_and(|p| p.matches("aBc") && !p.matches("aBcd")));
        for wrong in ["/", "//", "/a", "/a/x", "/[/", "/(?=a)/", "/a{1000}{1000}/"] {
            assert!(pattern(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn topics_are_computed_as_the_api_does() {
        let topics = |name| pattern(name).expect("a pattern").topics();
        assert_eq!(topics(r"/^mediawiki\.job\..+/"), [r"/^(eqiad\.|codfw\.)mediawiki\.job\..+/"]);
        assert_eq!(topics("/a/i"), [r"/^(eqiad\.|codfw\.)a/i"]);
    }
}
