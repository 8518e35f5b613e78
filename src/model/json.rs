//! The members of a JSON object, as ranges of its text, so that a value can be spliced without re-writing the rest.
//!
//! Works only on text that serde_json has accepted ([`is_object`]); on such text a scan for quotes and brackets
//! is exact. serde_json itself cannot say where in the text a member stands.

use std::ops::Range;

use serde::de::IgnoredAny;

/// One member of an object. The ranges index the object's own text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'a> {
    /// As written, without its quotes, escapes and all.
    pub raw_key: &'a str,
    /// As written, without white space around it.
    pub value: &'a str,
    /// From the key's quote to the end of the value.
    pub range: Range<usize>,
    /// Where the value stands.
    pub value_range: Range<usize>,
}

impl Member<'_> {
    /// Whether the key means this name; `"m\u0065ta"` means `meta`.
    pub fn is(&self, name: &str) -> bool {
        if !self.raw_key.contains('\\') {
            return self.raw_key == name;
        }
        serde_json::from_str::<String>(&format!("\"{}\"", self.raw_key)).is_ok_and(|key| key == name)
    }
}

/// Whether the text is one valid JSON object, white space around it allowed.
pub fn is_object(text: &str) -> bool {
    text.trim_start_matches(WHITE_SPACE).starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// The members of a valid object, in order, duplicates included.
pub fn members(object: &str) -> Members<'_> {
    let start = object.bytes().position(|byte| byte == b'{').map_or(object.len(), |at| at + 1);
    Members { text: object, at: start }
}

/// The last member of that name: where names are repeated, parsers let the last one win.
pub fn last_member<'a>(object: &'a str, name: &str) -> Option<Member<'a>> {
    members(object).filter(|member| member.is(name)).last()
}

/// The decoded text of a value that is a string.
pub fn string(value: &str) -> Option<String> {
    value.starts_with('"').then(|| serde_json::from_str(value).ok()).flatten()
}

pub struct Members<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        let bytes = self.text.as_bytes();
        let start = skip(bytes, self.at, |byte| is_space(byte) || byte == b',');
        if bytes.get(start) != Some(&b'"') {
            return None;
        }
        let key_end = string_end(bytes, start);
        let value_start = skip(bytes, key_end, |byte| is_space(byte) || byte == b':');
        let value_end = value_end(bytes, value_start);
        self.at = value_end;
        Some(Member {
            raw_key: &self.text[start + 1..key_end - 1],
            value: &self.text[value_start..value_end],
            range: start..value_end,
            value_range: value_start..value_end,
        })
    }
}

/// Where the elements of a valid array stand, in order.
pub fn elements(array: &str) -> impl Iterator<Item = Range<usize>> {
    let bytes = array.as_bytes();
    let mut at = bytes.iter().position(|&byte| byte == b'[').map_or(bytes.len(), |at| at + 1);
    std::iter::from_fn(move || {
        let start = skip(bytes, at, |byte| is_space(byte) || byte == b',');
        if matches!(bytes.get(start), None | Some(b']')) {
            return None;
        }
        at = value_end(bytes, start);
        Some(start..at)
    })
}

const WHITE_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn skip(bytes: &[u8], from: usize, skipped: impl Fn(u8) -> bool) -> usize {
    from + bytes[from..].iter().take_while(|&&byte| skipped(byte)).count()
}

/// The end, after the closing quote, of the string that starts at `start`.
pub(super) fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[at..]) {
        at += found;
        if bytes[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}

fn value_end(bytes: &[u8], start: usize) -> usize {
    match bytes.get(start) {
        Some(b'"') => string_end(bytes, start),
        Some(b'{' | b'[') => nested_end(bytes, start),
        _ => skip(bytes, start, |byte| !is_space(byte) && !matches!(byte, b',' | b'}' | b']')),
    }
}

fn nested_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            break;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_order_duplicates_and_bytes() {
        let text = r#" { "a" : [1,{"x":"]}\""}] ,"b":1e400,"a":"\\" , "m\u0065ta":{} } "#;
        assert!(is_object(text));
        let seen: Vec<_> = members(text).map(|member| (member.raw_key, member.value)).collect();
        let expected = [("a", r#"[1,{"x":"]}\""}]"#), ("b", "1e400"), ("a", r#""\\""#), (r"m\u0065ta", "{}")];
        assert_eq!(seen, expected);
        assert_eq!(last_member(text, "a").map(|member| member.value), Some(r#""\\""#));
        assert!(last_member(text, "meta").is_some());
    }

    #[test]
    fn only_an_object_is_an_object() {
        for text in ["[1]", "1", "null", "", "{", "{}x", "{a:1}", "\"{}\""] {
            assert!(!is_object(text), "{text}");
        }
        assert!(is_object("{}"));
        assert_eq!(members("{}").count(), 0);
    }
}
