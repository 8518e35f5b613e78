//! An event as the text that was sent and as the value that it means, with what is added to it spliced into the text.
//!
//! Validation needs a value, readers get text. A value written out again would lose what no parser keeps: the last
//! digits of large numbers, `1e400`, the order and repetition of keys. So fields are set in the value, remembered by
//! their paths, and spliced into the text that was sent; every other byte of it stays.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::json;

/// One step of a path into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Key(String),
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

/// The steps of a dotted path, such as `meta.request_id`.
pub fn steps_of(dotted: &str) -> Vec<Step> {
    dotted.split('.').map(Step::from).collect()
}

/// Text that is no JSON, or JSON that has no meaning, such as half of a surrogate pair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}, at line {line}, column {column}")]
pub struct Malformed {
    pub message: String,
    pub line: usize,
    pub column: usize,
}

impl From<&serde_json::Error> for Malformed {
    fn from(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let message = text.split(" at line ").next().unwrap_or_default().to_owned();
        Self { message, line: error.line(), column: error.column() }
    }
}

/// See the page. Parse it from text whose nesting has been checked: the parser itself has no limit here.
#[derive(Debug, Clone)]
pub struct Document {
    text: Bytes,
    value: Value,
    touched: Touched,
}

/// What has been set, as a tree of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Touched {
    /// This and all below it.
    Whole,
    Within(Vec<(Step, Touched)>),
}

impl Document {
    pub fn parse(text: Bytes) -> Result<Self, Malformed> {
        let as_text = std::str::from_utf8(&text).map_err(|e| Malformed {
            message: "invalid UTF-8".into(),
            line: 1,
            column: e.valid_up_to() + 1,
        })?;
        let value = parse(as_text).or_else(|error| match error.to_string().starts_with("number out of range") {
            true => parse(&clamped(as_text)),
            false => Err(error),
        });
        let value = value.map_err(|error| without_riddles(Malformed::from(&error)))?;
        Ok(Self { text, value, touched: Touched::Within(Vec::new()) })
    }

    /// What it means, with what was set. A number that no `f64` can hold is the largest one here, and itself in the text.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// What was sent.
    pub fn sent(&self) -> &Bytes {
        &self.text
    }

    pub fn get(&self, path: &[Step]) -> Option<&Value> {
        path.iter().try_fold(&self.value, |at, step| match step {
            Step::Key(key) => at.get(key),
            Step::Index(index) => at.get(index),
        })
    }

    /// Sets a field, or the element after an array's last; objects that are missing on the way are made. `false`:
    /// something else stands in the way, or the array has no such element, and nothing was set.
    pub fn set(&mut self, path: &[Step], value: Value) -> bool {
        if !can_set(&self.value, path) {
            return false;
        }
        let mut at = &mut self.value;
        for step in path {
            at = match (step, at) {
                (Step::Key(key), Value::Object(object)) => {
                    object.entry(key.as_str()).or_insert_with(|| Value::Object(Map::new()))
                }
                (Step::Index(index), Value::Array(array)) => {
                    if *index == array.len() {
                        array.push(Value::Null);
                    }
                    &mut array[*index]
                }
                _ => return false,
            };
        }
        *at = value;
        self.touched.touch(path);
        true
    }

    /// What was sent, with what was set.
    pub fn text(&self) -> Bytes {
        match &self.touched {
            Touched::Within(inner) if inner.is_empty() => self.text.clone(),
            touched => {
                let sent = std::str::from_utf8(&self.text).unwrap_or_default();
                let mut out = String::with_capacity(sent.len() + 256);
                splice(sent, &self.value, touched, &mut out);
                out.into()
            }
        }
    }
}

impl Touched {
    fn touch(&mut self, path: &[Step]) {
        match (self, path) {
            (Self::Whole, _) => {}
            (this, []) => *this = Self::Whole,
            (Self::Within(inner), [step, rest @ ..]) => {
                let known = inner.iter().position(|(known, _)| known == step);
                let at = known.unwrap_or_else(|| {
                    inner.push((step.clone(), Self::Within(Vec::new())));
                    inner.len() - 1
                });
                inner[at].1.touch(rest);
            }
        }
    }
}

fn can_set(value: &Value, path: &[Step]) -> bool {
    match (path, value) {
        ([], _) => true,
        ([Step::Key(key), rest @ ..], Value::Object(object)) => match object.get(key) {
            Some(inner) => can_set(inner, rest),
            None => rest.iter().all(|step| matches!(step, Step::Key(_))),
        },
        ([Step::Index(index), rest @ ..], Value::Array(array)) => match array.get(*index) {
            Some(inner) => can_set(inner, rest),
            None => *index == array.len() && rest.is_empty(),
        },
        _ => false,
    }
}

/// Writes the text of a value, with what was touched taken from the value.
fn splice(text: &str, value: &Value, touched: &Touched, out: &mut String) {
    let Touched::Within(inner) = touched else {
        out.push_str(&value.to_string());
        return;
    };
    let ranges = ranges_of(text, inner);
    let mut changes: Vec<_> = inner.iter().zip(ranges).collect();
    // What is missing stands at the end, in the order in which it was set: the sort is stable.
    changes.sort_by_key(|(_, range)| range.as_ref().map_or(usize::MAX, |range| range.start));
    let is_list = text.starts_with('[');
    let mut empty = if is_list { json::elements(text).next().is_none() } else { json::members(text).next().is_none() };
    let mut written = 0;
    for ((step, touched), range) in changes {
        let value = match step {
            Step::Key(key) => &value[key.as_str()],
            Step::Index(index) => &value[*index],
        };
        if let Some(range) = range {
            out.push_str(&text[written..range.start]);
            splice(&text[range.clone()], value, touched, out);
            written = range.end;
            continue;
        }
        // What is left of the text is its closing bracket.
        let end = text.rfind(if is_list { ']' } else { '}' }).unwrap_or(text.len());
        out.push_str(&text[written..end]);
        written = end;
        out.push_str(if std::mem::take(&mut empty) { "" } else { "," });
        if let Step::Key(key) = step {
            out.push_str(&Value::String(key.clone()).to_string());
            out.push(':');
        }
        out.push_str(&value.to_string());
    }
    out.push_str(&text[written..]);
}

/// Where the values of these members or elements stand; of repeated members, the last. One walk, however many they are.
fn ranges_of(text: &str, steps: &[(Step, Touched)]) -> Vec<Option<Range<usize>>> {
    let mut ranges = vec![None; steps.len()];
    if text.starts_with('[') {
        let wanted: HashMap<usize, usize> = steps
            .iter()
            .enumerate()
            .filter_map(|(at, (step, _))| if let Step::Index(index) = step { Some((*index, at)) } else { None })
            .collect();
        for (index, range) in json::elements(text).enumerate() {
            if let Some(&at) = wanted.get(&index) {
                ranges[at] = Some(range);
            }
        }
        return ranges;
    }
    for member in json::members(text) {
        let names = |step: &Step| matches!(step, Step::Key(key) if member.is(key));
        if let Some(at) = steps.iter().position(|(step, _)| names(step)) {
            ranges[at] = Some(member.value_range);
        }
    }
    ranges
}

fn parse(text: &str) -> Result<Value, serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_str(text);
    parser.disable_recursion_limit();
    let value = Value::deserialize(&mut parser)?;
    parser.end()?;
    Ok(value)
}

/// The parser's words for half of a surrogate pair say neither what is wrong nor with what.
fn without_riddles(malformed: Malformed) -> Malformed {
    match malformed.message.as_str() {
        "unexpected end of hex escape" | "lone leading surrogate in hex escape" => {
            let message = "half of a surrogate pair (\\ud800 to \\udfff) stands alone and is no character".to_owned();
            Malformed { message, ..malformed }
        }
        _ => malformed,
    }
}

/// The text with each number that no `f64` can hold replaced by the largest that one can.
fn clamped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = if rest.starts_with('"') {
            json::string_end(rest.as_bytes(), 0)
        } else {
            rest.find(|c: char| !matches!(c, '+' | '-' | '.' | 'e' | 'E' | '0'..='9')).unwrap_or(rest.len())
        };
        match rest[..end].parse::<f64>() {
            Ok(number) if number.is_infinite() => out.push_str(&format!("{:e}", f64::MAX.copysign(number))),
            _ => out.push_str(&rest[..end]),
        }
        rest = &rest[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(text: &str) -> Document {
        Document::parse(Bytes::copy_from_slice(text.as_bytes())).expect("JSON")
    }

    fn set(text: &str, sets: &[(&str, Value)]) -> String {
        let mut document = document(text);
        for (path, value) in sets {
            assert!(document.set(&steps_of(path), value.clone()), "{path}");
        }
        String::from_utf8(document.text().to_vec()).expect("text")
    }

    #[test]
    fn what_is_set_stands_at_the_end_and_nothing_else_moves() {
        let sent = r#"{ "n" : 9007199254740993 , "n": 1e400,"meta":{"stream":"s" }, "z":[1.0, -0] }"#;
        let spliced = set(sent, &[("meta.id", json!("i")), ("x", json!({"a": 1})), ("meta.dt", json!("d"))]);
        let expected = r#"{ "n" : 9007199254740993 , "n": 1e400,"meta":{"stream":"s" ,"id":"i","dt":"d"}, "z":[1.0, -0] ,"x":{"a":1}}"#;
        assert_eq!(spliced, expected);
    }

    #[test]
    fn nothing_set_is_nothing_changed() {
        let sent = r#" {"a":1} "#;
        let document = document(sent);
        assert_eq!(document.text().as_ptr(), document.sent().as_ptr(), "the very same bytes");
    }

    #[test]
    fn empty_objects_arrays_and_missing_parents_are_filled() {
        assert_eq!(set("{}", &[("a", json!(1)), ("b", json!(2))]), r#"{"a":1,"b":2}"#);
        assert_eq!(set("{ }", &[("a.b.c", json!(1)), ("a.d", json!(2))]), r#"{ "a":{"b":{"c":1},"d":2}}"#);
        let mut document = document(r#"{"list": [ {"x":1}, {} ]}"#);
        assert!(document.set(&["list".into(), Step::Index(1), "y".into()], json!("}")));
        assert!(document.set(&["list".into(), Step::Index(0), "y".into()], json!(true)));
        assert_eq!(document.text(), r#"{"list": [ {"x":1,"y":true}, {"y":"}"} ]}"#);
        assert!(!document.set(&["list".into(), Step::Index(2), "y".into()], json!(1)), "no such element");
        let mut list = self::document(r#"{"l":[ 1e400,{"a":1,"a":2} ],"e":[ ]}"#);
        for (name, index) in [("l", 2), ("e", 0), ("l", 3)] {
            assert!(list.set(&[name.into(), Step::Index(index)], json!(index)));
        }
        assert!(!list.set(&["l".into(), Step::Index(5)], json!(1)), "a hole");
        assert_eq!(list.text(), r#"{"l":[ 1e400,{"a":1,"a":2} ,2,3],"e":[ 0]}"#);
        assert!(!document.set(&steps_of("list.y"), json!(1)), "a list is no object");
    }

    #[test]
    fn what_is_replaced_is_the_last_of_its_name() {
        assert_eq!(set(r#"{"a":1,"b":"}", "a" : [2] }"#, &[("a", json!(3))]), r#"{"a":1,"b":"}", "a" : 3 }"#);
        assert_eq!(set(r#"{"m":{"x":1},"m":{"y":2}}"#, &[("m.x", json!(3))]), r#"{"m":{"x":1},"m":{"y":2,"x":3}}"#);
        assert_eq!(set(r#"{"a":{"b":1}}"#, &[("a.b", json!(2)), ("a", json!(3))]), r#"{"a":3}"#);
    }

    #[test]
    fn numbers_that_no_float_holds_are_judged_as_the_largest() {
        let document = document(r#"{"a":1e400,"b":-1E+999,"c":"1e400","d":0.1}"#);
        assert_eq!(document.value(), &json!({"a": f64::MAX, "b": f64::MIN, "c": "1e400", "d": 0.1}));
    }

    #[test]
    fn text_that_means_nothing_is_malformed() {
        let parse = |text: &str| Document::parse(Bytes::copy_from_slice(text.as_bytes())).expect_err("malformed");
        for half in [r"\ud800", r"\ud800a", r"\udc00", r"\ud800\n", r"\ud800\ud800"] {
            let message = parse(&format!(r#"{{"a":"{half}"}}"#)).message;
            assert!(message.starts_with("half of a surrogate pair"), "{half}: {message}");
        }
        assert_eq!(parse("{} x"), Malformed { message: "trailing characters".into(), line: 1, column: 4 });
    }

    #[test]
    fn random_documents_keep_what_was_sent() {
        for seed in 0..3_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let sent = format!("{{{}}}", members_of(&mut random, 3));
            let mut document = document(&sent);
            for _ in 0..random.usize(..4) {
                let steps: Vec<Step> = (0..random.usize(1..4)).map(|_| Step::Key(name_of(&mut random))).collect();
                document.set(&steps, json!({ "set": random.u8(..) }));
            }
            let spliced = document.text();
            let again = Document::parse(spliced.clone()).expect("spliced text is JSON");
            assert_eq!(again.value(), document.value(), "seed {seed}: {sent}");
            let spliced = std::str::from_utf8(&spliced).expect("text");
            if spliced != sent {
                assert!(is_spread_in(&outside(&sent), spliced), "seed {seed}: {sent} in {spliced}");
            }
        }
    }

    /// A few names, so that they repeat; some need escapes.
    fn name_of(random: &mut fastrand::Rng) -> String {
        ["a", "b", "c\"", "é", "meta"][random.usize(..5)].to_owned()
    }

    fn members_of(random: &mut fastrand::Rng, depth: usize) -> String {
        let space = ["", " ", "\n\t"][random.usize(..3)];
        let members: Vec<String> = (0..random.usize(..4))
            .map(|_| format!("{space}{}{space}:{}", json!(name_of(random)), value_of(random, depth)))
            .collect();
        format!("{}{space}", members.join(","))
    }

    fn value_of(random: &mut fastrand::Rng, depth: usize) -> String {
        match random.usize(..if depth == 0 { 4 } else { 6 }) {
            0 => "12345678901234567890123".into(),
            1 => r#""}]{[\"\\,:""#.into(),
            2 => "1.00e5".into(),
            3 => "null".into(),
            4 => format!("[{} ,{}]", value_of(random, depth - 1), value_of(random, depth - 1)),
            _ => format!("{{{}}}", members_of(random, depth - 1)),
        }
    }

    /// What a splice may not touch: the names and marks, at least. (Values may be replaced.)
    fn outside(sent: &str) -> String {
        json::members(sent).map(|member| format!("\"{}\"", member.raw_key)).collect::<Vec<_>>().join("")
    }

    /// Whether the characters of one text stand in the other in their order.
    fn is_spread_in(text: &str, other: &str) -> bool {
        let mut others = other.chars();
        text.chars().all(|wanted| others.any(|found| found == wanted))
    }
}
