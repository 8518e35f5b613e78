//! Which answers are believed. MediaWiki says 200 whatever goes wrong, and an answer that has lost a part looks like
//! one of streams that were taken away: what is in doubt is refused whole, and what was there before stays.

use serde_json::{Map, Value};

use crate::fetch::FetchError;

/// Of what an answer says about itself, so much is repeated.
const QUOTED_CHARS_MAX: usize = 200;

/// Why an answer is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Unreachable(#[from] FetchError),
    #[error("it takes longer than {0:?}")]
    TooSlow(std::time::Duration),
    #[error("the answer is not whole, or not JSON ({0})")]
    NotJson(String),
    #[error("the answer is an error: {0}")]
    Error(String),
    #[error("the answer has warnings, so it may not be whole: {0}")]
    Warnings(String),
    #[error("the answer has no map of streams")]
    NoStreams,
    #[error("the answer names no stream that can be used")]
    Empty,
    #[error(
        "of {from} streams only {to} are left, which catalog.shrink_max_percent does not allow; if that is meant, set \
         it to 100 for one start"
    )]
    Shrunk { from: usize, to: usize },
    #[error("the answer does not end: after {0} parts there is still more")]
    Endless(usize),
    #[error("it names more than {0} streams")]
    TooMany(usize),
}

impl Refused {
    /// For the metric.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(FetchError::TooLarge(_)) | Self::TooMany(_) => "too-large",
            Self::Unreachable(_) | Self::TooSlow(_) => "unreachable",
            Self::NotJson(_) => "not-json",
            Self::Error(_) => "error",
            Self::Warnings(_) => "warnings",
            Self::NoStreams => "no-streams",
            Self::Empty => "empty",
            Self::Shrunk { .. } => "shrunk",
            Self::Endless(_) => "endless",
        }
    }
}

/// One answer: some streams, and what must be asked to get more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) entries: Map<String, Value>,
    pub(super) more: Option<Map<String, Value>>,
}

/// `is_api`: the streams are under `streams`. Elsewhere they may also be the whole of the answer.
pub(super) fn read(body: &[u8], is_api: bool) -> Result<Page, Refused> {
    // Not the error's own text alone: it says where, and quotes nothing.
    let answer: Value = serde_json::from_slice(body).map_err(|e| Refused::NotJson(e.to_string()))?;
    let Value::Object(mut answer) = answer else { return Err(Refused::NoStreams) };
    let of_api = is_api || answer.contains_key("streams");
    let error = answer
        .get("error")
        .filter(|error| of_api || is_error(error))
        .or_else(|| answer.get("errors").filter(|_| of_api));
    if let Some(error) = error {
        return Err(Refused::Error(quoted(error)));
    }
    if !of_api {
        return Ok(Page { entries: answer, more: None });
    }
    if let Some(warnings) = answer.get("warnings") {
        return Err(Refused::Warnings(quoted(warnings)));
    }
    let more = match answer.shift_remove("continue") {
        None => None,
        Some(Value::Object(more)) => Some(more),
        Some(_) => return Err(Refused::NotJson("what continues it is not a map".into())),
    };
    let entries = match answer.shift_remove("streams") {
        Some(Value::Object(streams)) => streams,
        // How PHP writes an empty map: none of the streams asked for is known.
        Some(Value::Array(list)) if list.is_empty() => Map::new(),
        _ => return Err(Refused::NoStreams),
    };
    Ok(Page { entries, more })
}

/// Whether a list of streams may have become this short.
pub(super) fn check_size(from: usize, to: usize, shrink_max_percent: u8) -> Result<(), Refused> {
    let may_go = (from * usize::from(shrink_max_percent) / 100).max(1);
    match to {
        0 => Err(Refused::Empty),
        _ if from.saturating_sub(to) > may_go => Err(Refused::Shrunk { from, to }),
        _ => Ok(()),
    }
}

/// A stream may have any name, so that only MediaWiki's own shape is taken for an error.
fn is_error(value: &Value) -> bool {
    value.get("code").is_some() || value.get("info").is_some() || value.is_string()
}

/// The code and what it means, where they are; never a map of streams.
fn quoted(said: &Value) -> String {
    let of = |key: &str| said.get(key).and_then(Value::as_str);
    let text = match (of("code"), of("info")) {
        (None, None) => said.to_string(),
        (code, info) => [code, info].into_iter().flatten().collect::<Vec<_>>().join(": "),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(QUOTED_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(body: &str, is_api: bool) -> Result<usize, &'static str> {
        read(body.as_bytes(), is_api).map(|page| page.entries.len()).map_err(|refused| refused.label())
    }

    #[test]
    fn an_answer_in_doubt_is_refused() {
        for (body, label_expected) in [
            (r#"{"error":{"code":"toomanyvalues","info":"Too many"}}"#, "error"),
            (r#"{"error":{"code":"x"},"streams":{"a":{}}}"#, "error"),
            (r#"{"errors":[{"code":"x"}],"streams":{"a":{}}}"#, "error"),
            (r#"{"warnings":{"main":"cut"},"streams":{"a":{}}}"#, "warnings"),
            (r#"{"streams":{"a":{}"#, "not-json"),
            (r#"{"streams":{"a":{}}} x"#, "not-json"),
            ("", "not-json"),
            ("<html>", "not-json"),
            (r#"{"batchcomplete":true}"#, "no-streams"),
            (r#"{"streams":["a"]}"#, "no-streams"),
            (r#"{"streams":null}"#, "no-streams"),
            ("[]", "no-streams"),
        ] {
            assert_eq!(label(body, true), Err(label_expected), "{body}");
        }
    }

    #[test]
    fn an_address_that_is_no_api_may_answer_the_map_itself() {
        assert_eq!(label(r#"{"a":{},"error":{},"warnings":{},"continue":{}}"#, false), Ok(4));
        assert_eq!(label(r#"{"streams":{"a":{}}}"#, false), Ok(1));
        assert_eq!(label(r#"{"streams":{"a":{}},"warnings":{}}"#, false), Err("warnings"));
        assert_eq!(label(r#"{"error":{"code":"x","info":"y"}}"#, false), Err("error"));
    }

    #[test]
    fn an_answer_says_how_it_goes_on() {
        let page = read(br#"{"continue":{"from":"b"},"streams":{"a":{}}}"#, true).expect("a page");
        assert_eq!(page.more.and_then(|more| more.get("from").cloned()), Some("b".into()));
        assert_eq!(label(r#"{"streams":[]}"#, true), Ok(0), "an empty map of PHP's");
    }

    #[test]
    fn a_list_may_lose_its_share_and_always_one() {
        for (from, to, fine) in [
            (100, 80, true),
            (100, 79, false),
            (9, 8, true),
            (9, 7, false),
            (2, 1, true),
            (1, 0, false),
            (0, 1, true),
            (0, 0, false),
            (50, 500, true),
        ] {
            assert_eq!(check_size(from, to, 20).is_ok(), fine, "{from} {to}");
        }
        assert!(check_size(100, 1, 100).is_ok());
        assert!(check_size(100, 99, 0).is_ok());
        assert!(check_size(100, 98, 0).is_err());
    }

    #[test]
    fn what_is_repeated_of_an_answer_is_short_and_one_line() {
        let long = format!(r#"{{"error":{{"code":"x","info":"a\n{}"}}}}"#, "b".repeat(1_000));
        let refused = read(long.as_bytes(), true).expect_err("an error").to_string();
        assert!(refused.len() < 300 && !refused.contains('\n'), "{refused}");
    }
}
