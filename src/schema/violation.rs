//! One thing that is wrong with an event, in AJV 6's words and shape.

use serde::Serialize;
use serde_json::{Number, Value, json};

/// Characters of a key that a path or a message holds.
const KEY_CHARS_MAX: usize = 256;

/// See the page.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    pub keyword: String,
    pub data_path: String,
    pub schema_path: String,
    pub params: Value,
    /// The name that is wrong, where a name is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub property_name: Option<String>,
    pub message: String,
}

impl Violation {
    pub(super) fn new(keyword: &str, data_path: &str, schema_path: String, params: Value, message: String) -> Self {
        Self {
            keyword: keyword.to_owned(),
            data_path: data_path.to_owned(),
            schema_path,
            params,
            property_name: None,
            message,
        }
    }
}

/// All of them in a line: `'.meta' should have required property 'dt', '.test' should be string`.
pub fn errors_text(violations: &[Violation]) -> String {
    let lines: Vec<String> =
        violations.iter().map(|violation| format!("'{}' {}", violation.data_path, violation.message)).collect();
    lines.join(", ")
}

/// A property that the schema names, as JavaScript reads it: `.name`, or `['na-me']`.
pub(super) fn named(key: &str) -> String {
    let mut chars = key.chars();
    let begins = |char: char| char.is_ascii_alphabetic() || char == '_' || char == '$';
    let plain = chars.next().is_some_and(begins) && chars.all(|char| begins(char) || char.is_ascii_digit());
    if plain { format!(".{}", clipped(key)) } else { format!("['{}']", escaped(&clipped(key))) }
}

/// A property that the schema does not name. AJV 6 neither shortens nor escapes it.
pub(super) fn unnamed(key: &str) -> String {
    format!("['{}']", clipped(key))
}

pub(super) fn clipped(key: &str) -> String {
    match key.char_indices().nth(KEY_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &key[..end]),
        None => key.to_owned(),
    }
}

fn escaped(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for char in key.chars() {
        match char {
            '\'' | '\\' => text.extend(['\\', char]),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{c}' => text.push_str("\\f"),
            other => text.push(other),
        }
    }
    text
}

/// A number as JavaScript writes it.
pub(super) fn number(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => match float.abs() {
            size if float.fract() == 0.0 && size < 1e21 => format!("{float:.0}"),
            size if (1e-6..1e21).contains(&size) => format!("{float}"),
            size if size >= 1e21 => format!("{float:e}").replace('e', "e+"),
            _ => format!("{float:e}"),
        },
        _ => number.to_string(),
    }
}

pub(super) fn limits(limit: &impl Serialize) -> Value {
    json!({ "limit": limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_javascript_reads_them() {
        for (key, expected) in [
            ("meta", ".meta"),
            ("$schema", ".$schema"),
            ("_1", "._1"),
            ("we-ird", "['we-ird']"),
            ("it's", "['it\\'s']"),
            ("1a", "['1a']"),
            ("a\nb\\", "['a\\nb\\\\']"),
            ("", "['']"),
            ("é", "['é']"),
        ] {
            assert_eq!(named(key), expected);
        }
        assert_eq!(unnamed("it's"), "['it's']");
        assert!(named(&"x".repeat(10_000)).len() < 300);
        assert!(unnamed(&"é".repeat(10_000)).len() < 600);
    }

    #[test]
    fn numbers_are_written_as_javascript_writes_them() {
        for (text, expected) in [
            ("10", "10"),
            ("0.5", "0.5"),
            ("1.0", "1"),
            ("-2.0", "-2"),
            ("9007199254740991", "9007199254740991"),
            ("1e21", "1e+21"),
            ("1.5e300", "1.5e+300"),
            ("1e-7", "1e-7"),
        ] {
            assert_eq!(number(&serde_json::from_str(text).expect("a number")), expected);
        }
    }

    #[test]
    fn the_errors_text_names_path_and_message() {
        let one = |path: &str| Violation::new("type", path, String::new(), Value::Null, "should be string".into());
        assert_eq!(errors_text(&[one(""), one(".a")]), "'' should be string, '.a' should be string");
        assert_eq!(errors_text(&[]), "");
    }
}
