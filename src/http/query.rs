//! What a query asks for: `?hasty`, `?dry_run`, `?stream`, `?schema_uri` of producers, and what everybody may say yes or
//! no to.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::intake::Mode;

/// Bytes of a parameter's value. What is longer names neither a stream nor a schema.
const VALUE_BYTES_MAX: usize = 1024;

/// Bytes of a list of streams.
const STREAMS_BYTES_MAX: usize = VALUE_BYTES_MAX;

/// A query string, read. Parameters of other names are others' business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) mode: Mode,
    pub(super) stream: Option<String>,
    pub(super) schema_uri: Option<String>,
}

/// Why a query string is refused. Holds nothing that a client chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueryError {
    #[error("The query is not percent-encoded UTF-8.")]
    Encoding,
    #[error("The query parameter {0} must be true, 1 or empty for yes, and false, 0 or no for no.")]
    NotYesOrNo(&'static str),
    #[error("The query parameter {0} is given more than once, with different values.")]
    Repeated(&'static str),
    #[error("The query parameter {0} is longer than {VALUE_BYTES_MAX} bytes.")]
    TooLong(&'static str),
}

impl Query {
    pub(super) fn parse(query: &str) -> Result<Self, QueryError> {
        let pairs = decoded(query)?;
        let hasty = yes(&pairs, "hasty")?;
        // Both: who adds `dry_run` to the address that a producer uses wants to know, and not to append.
        let mode = match yes(&pairs, "dry_run")? {
            true => Mode::DryRun,
            false if hasty => Mode::Hasty,
            false => Mode::Guaranteed,
        };
        Ok(Self { mode, stream: text(&pairs, "stream")?, schema_uri: text(&pairs, "schema_uri")? })
    }
}

type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

fn decoded(query: &str) -> Result<Vec<Pair<'_>>, QueryError> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

/// As forms write it, but with no mercy on what is broken: a stream's name must not turn into another one.
fn decode(text: &str) -> Result<Cow<'_, str>, QueryError> {
    let mut after_percent = text.split('%').skip(1).map(str::as_bytes);
    if !after_percent.all(|rest| rest.len() >= 2 && rest[..2].iter().all(u8::is_ascii_hexdigit)) {
        return Err(QueryError::Encoding);
    }
    if !text.contains('+') {
        return percent_decode_str(text).decode_utf8().map_err(|_| QueryError::Encoding);
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().map_err(|_| QueryError::Encoding)?;
    Ok(Cow::Owned(decoded.into_owned()))
}

fn value<'a>(pairs: &'a [Pair<'_>], name: &'static str) -> Result<Option<&'a str>, QueryError> {
    let mut values = pairs.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_ref());
    let first = values.next();
    if values.any(|other| Some(other) != first) {
        return Err(QueryError::Repeated(name));
    }
    Ok(first)
}

fn yes(pairs: &[Pair<'_>], name: &'static str) -> Result<bool, QueryError> {
    value(pairs, name)?.map_or(Ok(false), |word| yes_or_no(word, name))
}

/// What a reader says of this. Its query is read as browsers write it: what is broken in other parameters is no matter.
pub(super) fn answer_to(query: &str, name: &'static str) -> Result<Option<bool>, QueryError> {
    let pairs: Vec<Pair<'_>> = form_urlencoded::parse(query.as_bytes()).filter(|(own, _)| own == name).collect();
    value(&pairs, name)?.map(|word| yes_or_no(word, name)).transpose()
}

/// The streams that somebody asks about. An empty list is one: whoever has lost a name must not take the answer for that
/// stream's.
pub(super) fn streams_of(query: &str) -> Result<Option<String>, QueryError> {
    let name = "stream";
    match value(&decoded(query)?, name)? {
        Some(list) if list.len() > STREAMS_BYTES_MAX => Err(QueryError::TooLong(name)),
        list => Ok(list.map(str::to_owned)),
    }
}

fn yes_or_no(word: &str, name: &'static str) -> Result<bool, QueryError> {
    match word {
        "" | "true" | "1" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(QueryError::NotYesOrNo(name)),
    }
}

/// An empty one is as good as none.
fn text(pairs: &[Pair<'_>], name: &'static str) -> Result<Option<String>, QueryError> {
    match value(pairs, name)?.filter(|text| !text.is_empty()) {
        Some(text) if text.len() > VALUE_BYTES_MAX => Err(QueryError::TooLong(name)),
        text => Ok(text.map(str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(query: &str) -> Result<Mode, QueryError> {
        Query::parse(query).map(|query| query.mode)
    }

    #[test]
    fn yes_is_true_1_or_nothing_and_no_is_false_0_or_no() {
        for query in ["hasty", "hasty=", "hasty=true", "hasty=1", "a=b&hasty=1&", "hasty=1&hasty=1", "%68asty=%31"] {
            assert_eq!(mode(query), Ok(Mode::Hasty), "{query}");
        }
        for query in ["", "hasty=false", "hasty=0", "hasty=no", "Hasty=true", "x=hasty", "dry_run=0", "&&"] {
            assert_eq!(mode(query), Ok(Mode::Guaranteed), "{query}");
        }
        for query in ["dry_run", "dry_run=true", "dry_run=1", "dry_run&hasty", "hasty=true&dry_run=true"] {
            assert_eq!(mode(query), Ok(Mode::DryRun), "{query}");
        }
    }

    #[test]
    fn what_is_neither_yes_nor_no_is_refused() {
        for query in ["hasty=maybe", "hasty=2", "hasty=yes", "hasty=%20", "hasty=+1", "hasty=true&x=1&dry_run=false%00"]
        {
            assert!(matches!(mode(query), Err(QueryError::NotYesOrNo(_))), "{query}");
        }
        assert_eq!(mode("hasty=1&hasty=0"), Err(QueryError::Repeated("hasty")));
        assert_eq!(mode("hasty=1&hasty=true"), Err(QueryError::Repeated("hasty")));
    }

    #[test]
    fn a_reader_says_yes_no_or_nothing() {
        assert_eq!(answer_to("a=%ff&canary&since=%", "canary"), Ok(Some(true)));
        assert_eq!(answer_to("canary=no", "canary"), Ok(Some(false)));
        assert_eq!(answer_to("Canary=1", "canary"), Ok(None));
        assert_eq!(answer_to("canary=2", "canary"), Err(QueryError::NotYesOrNo("canary")));
        assert_eq!(answer_to("canary=%ff", "canary"), Err(QueryError::NotYesOrNo("canary")));
        assert_eq!(answer_to("canary=0&canary=1", "canary"), Err(QueryError::Repeated("canary")));
    }

    #[test]
    fn a_stream_and_a_schema_are_decoded_and_passed_on() {
        let query = "stream=w3c.reportingapi.network_error&schema_uri=%2Fw3c/reportingapi/a+b/1.0.0&x=%25";
        let query = Query::parse(query).expect("a query");
        assert_eq!(query.stream.as_deref(), Some("w3c.reportingapi.network_error"));
        assert_eq!(query.schema_uri.as_deref(), Some("/w3c/reportingapi/a b/1.0.0"));
        let none = Query::parse("stream=&schema_uri").expect("a query");
        assert_eq!((none.stream, none.schema_uri), (None, None));
    }

    #[test]
    fn what_is_broken_or_too_long_is_refused() {
        for query in ["stream=%", "stream=%f", "stream=%zz", "stream=%ff", "%ff=1", "x=%c3%28", "stream=a%2", "a=%é"] {
            assert_eq!(Query::parse(query), Err(QueryError::Encoding), "{query}");
        }
        let long = format!("stream={}", "a".repeat(VALUE_BYTES_MAX));
        assert!(Query::parse(&long).is_ok());
        assert_eq!(Query::parse(&format!("{long}a")), Err(QueryError::TooLong("stream")));
        assert_eq!(Query::parse("stream=a&stream=b"), Err(QueryError::Repeated("stream")));
    }
}
