//! How a reader wants its events: in which format, with canaries or without, and whether it takes position updates.

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderMap};

use super::error::Refusal;
use super::query::answer_to;
use crate::model::{Format, View};

/// Before it, Pywikibot warns of every block without data.
const PYWIKIBOT_MIN: u32 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) view: View,
    /// Blocks that bring an id and no event, so that a place moves while nothing is shown.
    pub(super) positions: bool,
}

pub(super) fn of(request: &HttpRequest) -> Result<Wishes, Refusal> {
    let said = |name| answer_to(request.query_string(), name);
    let format = format(request.headers());
    let positions = said("positions")?.unwrap_or_else(|| takes_positions(request.headers()));
    Ok(Wishes {
        view: View { format, canaries: said("canary")?.unwrap_or(false) },
        positions: positions && format == Format::Sse,
    })
}

/// As EventStreams has it: by how `Accept` begins, and never 406.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let accept = text(headers, header::ACCEPT.as_str()).unwrap_or_default();
    let begins = |kind: &str| accept.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind));
    if begins("application/json") || begins("application/x-ndjson") { Format::Ndjson } else { Format::Sse }
}

/// What the body is called.
pub(super) fn content_type(headers: &HeaderMap) -> &'static str {
    match text(headers, header::ACCEPT.as_str()) {
        // As EventStreams has it: the charset comes only with an Accept header.
        None => "text/event-stream",
        Some(_) if format(headers) == Format::Sse => "text/event-stream; charset=utf-8",
        Some(accept) if accept.to_ascii_lowercase().starts_with("application/x-ndjson") => {
            "application/x-ndjson; charset=utf-8"
        }
        Some(_) => "application/json; charset=utf-8",
    }
}

/// Clients that commit the id of a block without data, hand nothing to their user, and can be told from others with
/// certainty: that is Pywikibot from 10 on, in its own reader of streams. (Measured with 25 clients in November 2026.
/// Browsers' own EventSource takes it, too, but libraries that make an empty event of it send the same headers from the
/// same browser, byte for byte; so it is with Node, aiohttp and those that name no user agent.)
fn takes_positions(headers: &HeaderMap) -> bool {
    let said = |name: header::HeaderName| text(headers, name.as_str()).unwrap_or_default();
    let version = said(header::USER_AGENT).split_once("Pywikibot/").map(|(_, version)| version);
    let major = version.and_then(|version| version.split_once('.')).and_then(|(major, _)| major.parse().ok());
    // A script that reads by the library's plain HTTP functions has the same name, and a parser of its own.
    let reads_streams = said(header::ACCEPT) == "text/event-stream" && said(header::CACHE_CONTROL) == "no-cache";
    reads_streams && major.is_some_and(|major: u32| major >= PYWIKIBOT_MIN)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn asked(accept: Option<&str>, query: &str) -> (HttpRequest, Result<Wishes, Refusal>) {
        let request = TestRequest::with_uri(&format!("/v2/stream/s?{query}"));
        let request = match accept {
            Some(accept) => request.insert_header((header::ACCEPT, accept)),
            None => request,
        };
        let request = request.to_http_request();
        let wishes = of(&request);
        (request, wishes)
    }

    #[test]
    fn how_accept_begins_decides_the_format() {
        let table = [
            (None, Format::Sse, "text/event-stream"),
            (Some("*/*"), Format::Sse, "text/event-stream; charset=utf-8"),
            (Some(""), Format::Sse, "text/event-stream; charset=utf-8"),
            (Some("text/event-stream"), Format::Sse, "text/event-stream; charset=utf-8"),
            (Some("text/html, application/json"), Format::Sse, "text/event-stream; charset=utf-8"),
            (Some("application/json"), Format::Ndjson, "application/json; charset=utf-8"),
            (Some("application/json;q=0.9, */*"), Format::Ndjson, "application/json; charset=utf-8"),
            (Some("Application/JSON"), Format::Ndjson, "application/json; charset=utf-8"),
            (Some("application/x-ndjson"), Format::Ndjson, "application/x-ndjson; charset=utf-8"),
        ];
        for (accept, format, kind) in table {
            let (request, wishes) = asked(accept, "");
            assert_eq!(wishes.map(|wishes| wishes.view.format), Ok(format), "{accept:?}");
            assert_eq!(content_type(request.headers()), kind, "{accept:?}");
        }
    }

    #[test]
    fn positions_go_to_pywikibots_own_reader_and_to_nobody_else_who_does_not_ask() {
        const BOT: &str = "ExampleBot/script (wikipedia:en; User:ExampleBot) Pywikibot/11.9.0 (gabcdef) Python/3.11.7";
        let takes = |agent: &str, accept: &str, cache: &str, query: &str| {
            let request = TestRequest::with_uri(&format!("/v2/stream/s?{query}"));
            let headers = [(header::USER_AGENT, agent), (header::ACCEPT, accept), (header::CACHE_CONTROL, cache)];
            let request = headers.into_iter().fold(request, TestRequest::insert_header);
            of(&request.to_http_request()).map(|wishes| wishes.positions).expect("wishes")
        };
        let (sse, fresh) = ("text/event-stream", "no-cache");
        assert!(takes(BOT, sse, fresh, ""));
        assert!(!takes(BOT, sse, fresh, "positions=false"));
        assert!(!takes(BOT, "*/*", fresh, "") && !takes(BOT, sse, "no-store", ""));
        assert!(!takes(&BOT.replace("11.9.0", "9.6.0"), sse, fresh, ""));
        for other in [
            "python-requests/2.34.2",
            "Python/3.11 aiohttp/3.14.5",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
            "node",
            "Pywikibot/",
            "Pywikibot/99999999999.0",
            "Pywikibot 11.9",
        ] {
            assert!(!takes(other, sse, fresh, ""), "{other}");
        }
    }

    #[test]
    fn canaries_and_positions_are_for_who_asks() {
        let wishes = |query| asked(None, query).1.map(|wishes| (wishes.view.canaries, wishes.positions));
        assert_eq!(wishes(""), Ok((false, false)));
        assert_eq!(wishes("canary=true&positions=1"), Ok((true, true)));
        assert!(matches!(wishes("canary=2"), Err(Refusal::Query(_))));
        assert!(matches!(wishes("positions=maybe"), Err(Refusal::Query(_))));
        let ndjson = asked(Some("application/json"), "positions").1;
        assert_eq!(ndjson.map(|wishes| wishes.positions), Ok(false), "it has no place for them");
    }
}
