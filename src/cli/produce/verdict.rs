//! What an answer means for the events of a batch. Pure.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

/// Causes that may pass: those that lie with the server, and haste.
const OURS: [&str; 6] = ["not-written", "log-refused", "unknown", "overloaded", "too-slow", "too-many-requests"];
/// Ends the code of whatever the server needed and could not reach.
const OURS_ENDING: &str = "-unavailable";
/// The one after which an event may appear in the log all the same.
const UNKNOWN: &str = "unknown";
/// What an answer says is cut here: it is printed.
const MESSAGE_CHARS_MAX: usize = 1_000;

/// An answer, read whole.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What became of each event.
    Each(Vec<Fate>),
    /// The batch is refused because of one event, and it is not said which one.
    Whole(Cause),
    /// Nothing was taken, and that may pass.
    Later(Cause),
    /// Nothing was taken, and the next batch would fare no better.
    Never(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    Accepted,
    Refused(Cause),
    /// To be sent again.
    Again(Cause),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) code: String,
    pub(super) message: String,
}

impl Cause {
    pub(super) fn new(code: &str, message: &str) -> Self {
        // What stands there may come from an event, and is printed on a terminal.
        let printable = |text: &str| -> String {
            let chars = text.chars().take(MESSAGE_CHARS_MAX);
            chars.map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
        };
        Self { code: printable(code), message: printable(message) }
    }

    fn is_ours(&self) -> bool {
        OURS.contains(&self.code.as_str()) || self.code.ends_with(OURS_ENDING)
    }

    /// Whether the event may be in the log.
    pub(super) fn is_unsure(&self) -> bool {
        self.code == UNKNOWN
    }
}

/// What an answer says, in all of its forms: a batch's lists, and problem JSON.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Said {
    invalid: Vec<Item>,
    error: Vec<Item>,
    title: Option<String>,
    detail: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    index: Option<usize>,
    code: Option<String>,
    #[serde(default)]
    context: Context,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Context {
    message: Option<String>,
    errors_text: Option<String>,
}

impl Item {
    fn cause(&self, status: u16) -> Cause {
        let message = self.context.errors_text.as_deref().or(self.context.message.as_deref());
        let code = self.code.clone().unwrap_or_else(|| status.to_string());
        Cause::new(&code, message.unwrap_or("the answer does not say why"))
    }
}

/// The title of the problem that all events of a batch are for streams which the token does not cover.
const STREAM_NOT_ALLOWED: &str = "Stream Not Allowed";

/// What an answer to a batch of so many events means. Only a dry run is answered 200; other 200s are other servers'.
pub(super) fn judge(answer: &Answer, events: usize, dry_run: bool) -> Verdict {
    let status = answer.status;
    let said: Option<Said> = serde_json::from_slice(&answer.body).ok();
    let silent = answer.body.is_empty();
    let understood = said.is_some();
    let said = said.unwrap_or_default();
    let items: Vec<&Item> = said.invalid.iter().chain(&said.error).collect();
    let each = || each(&items, status, events);
    let whole = || match items.first() {
        Some(item) => item.cause(status),
        None => Cause::new(&status.to_string(), &sentence(&said, status)),
    };
    match status {
        201 | 202 => Verdict::Each(vec![Fate::Accepted; events]),
        200 if dry_run && (silent || understood && items.is_empty()) => Verdict::Each(vec![Fate::Accepted; events]),
        200 if !dry_run => Verdict::Never(unclear(status)),
        200 | 207 => each().unwrap_or_else(|| Verdict::Never(unclear(status))),
        // These streams are not the token's; others may be.
        403 if said.title.as_deref() == Some(STREAM_NOT_ALLOWED) => Verdict::Whole(whole()),
        400 | 413 => each().unwrap_or_else(|| Verdict::Whole(whole())),
        408 | 429 | 503 => each().unwrap_or_else(|| Verdict::Later(whole())),
        // Of a proxy: it may have passed the request on.
        500.. => Verdict::Later(Cause { code: UNKNOWN.into(), ..whole() }),
        _ => Verdict::Never(Cause::new("", &sentence(&said, status)).message),
    }
}

/// `None`: the answer does not say of every item which event it is about.
fn each(items: &[&Item], status: u16, events: usize) -> Option<Verdict> {
    let mut fates = vec![Fate::Accepted; events];
    for item in items {
        let cause = item.cause(status);
        let alone = (events == 1 && item.code.is_some()).then_some(0);
        let fate = fates.get_mut(item.index.or(alone)?)?;
        *fate = if cause.is_ours() { Fate::Again(cause) } else { Fate::Refused(cause) };
    }
    (!items.is_empty()).then_some(Verdict::Each(fates))
}

fn sentence(said: &Said, status: u16) -> String {
    match said.detail.as_ref().or(said.title.as_ref()) {
        Some(detail) => format!("{detail} ({status})"),
        None => format!("the answer is {status}"),
    }
}

fn unclear(status: u16) -> String {
    format!("the answer is {status} and does not say which events were refused: is this the address of a sluice?")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn verdict(status: u16, body: &Value, events: usize) -> Verdict {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        judge(&Answer { status, retry_after: None, body: body.into() }, events, false)
    }

    fn item(index: Option<usize>, code: &str) -> Value {
        json!({ "status": "error", "index": index, "code": code, "event": {}, "context": { "message": "why" } })
    }

    fn lists(error: &[Value]) -> Value {
        json!({ "invalid": [], "error": error })
    }

    fn cause(code: &str) -> Cause {
        Cause::new(code, "why")
    }

    #[test]
    fn every_answer_has_one_meaning() {
        let (no, at) = (Value::Null, |code| lists(&[item(None, code)]));
        let again = |code| Verdict::Each(vec![Fate::Again(cause(code))]);
        let said = |code: &str, message: &str| Cause::new(code, message);
        let never = |message: &str| Verdict::Never(message.into());
        let closed = json!({ "title": "Forbidden", "detail": "posting is closed here" });
        let others = json!({ "title": "Stream Not Allowed", "detail": "not a" });
        let accepted = |events| Verdict::Each(vec![Fate::Accepted; events]);
        let table = [
            (201, &no, 3, accepted(3)),
            (202, &no, 3, accepted(3)),
            (200, &no, 3, never(&unclear(200))),
            (200, &lists(&[]), 3, never(&unclear(200))),
            (207, &no, 3, never(&unclear(207))),
            (207, &at("x"), 3, never(&unclear(207))),
            (207, &lists(&[item(Some(3), "x")]), 3, never(&unclear(207))),
            (400, &at("malformed-json"), 3, Verdict::Whole(cause("malformed-json"))),
            (413, &no, 3, Verdict::Whole(said("413", "the answer is 413"))),
            (400, &at("x"), 1, Verdict::Each(vec![Fate::Refused(cause("x"))])),
            (503, &at("overloaded"), 3, Verdict::Later(cause("overloaded"))),
            (503, &at("not-written"), 1, again("not-written")),
            (503, &at("log-refused"), 1, again("log-refused")),
            (503, &at("schema-unavailable"), 1, again("schema-unavailable")),
            (503, &no, 1, Verdict::Later(said("503", "the answer is 503"))),
            (429, &json!({ "title": "Slow down" }), 1, Verdict::Later(said("429", "Slow down (429)"))),
            (429, &at("too-many-requests"), 3, Verdict::Later(cause("too-many-requests"))),
            (429, &at("too-many-requests"), 1, again("too-many-requests")),
            (408, &at("too-slow"), 2, Verdict::Later(cause("too-slow"))),
            (502, &json!("<html>"), 2, Verdict::Later(said("unknown", "the answer is 502"))),
            (403, &closed, 2, never("posting is closed here (403)")),
            (403, &others, 2, Verdict::Whole(said("403", "not a (403)"))),
            (401, &no, 2, never("the answer is 401")),
            (404, &no, 2, never("the answer is 404")),
            (301, &no, 2, never("the answer is 301")),
            (204, &no, 2, never("the answer is 204")),
        ];
        for (status, body, events, expected) in table {
            assert_eq!(verdict(status, body, events), expected, "{status} {body}");
        }
    }

    #[test]
    fn of_a_batch_only_what_lies_with_the_server_is_sent_again() {
        let invalid = json!({ "status": "invalid", "index": 1, "code": "invalid",
            "context": { "errors": [], "errorsText": "'.a' should be string" } });
        let body = json!({ "invalid": [invalid], "error": [item(Some(3), "not-written"), item(Some(4), "unknown")] });
        let expected = Verdict::Each(vec![
            Fate::Accepted,
            Fate::Refused(Cause::new("invalid", "'.a' should be string")),
            Fate::Accepted,
            Fate::Again(cause("not-written")),
            Fate::Again(cause("unknown")),
        ]);
        for status in [207, 400, 503] {
            assert_eq!(verdict(status, &body, 5), expected, "{status}");
        }
        let dry = |body: &str| judge(&Answer { status: 200, retry_after: None, body: body.to_owned().into() }, 5, true);
        assert_eq!(dry(&body.to_string()), expected);
        assert_eq!(dry(""), Verdict::Each(vec![Fate::Accepted; 5]));
        assert_eq!(dry(&lists(&[]).to_string()), Verdict::Each(vec![Fate::Accepted; 5]));
        assert_eq!(dry("<html>"), Verdict::Never(unclear(200)));
        assert!(cause("unknown").is_unsure() && !cause("not-written").is_unsure());
    }

    #[test]
    fn what_is_printed_of_an_answer_is_short_and_has_no_control_characters() {
        let cause = Cause::new("x", &format!("\u{1b}[2J{}", "y".repeat(5_000)));
        assert!(cause.message.starts_with("\u{fffd}[2J") && cause.message.chars().count() == MESSAGE_CHARS_MAX);
    }
}
