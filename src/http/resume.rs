//! Where a request wants its stream to start: `Last-Event-ID` beats `since`, and neither means live.

use actix_web::HttpRequest;

use super::error::Refusal;
use crate::hub::From;
use crate::model::{ClientId, StreamSet, Timestamp, parse_since};

/// A wrong `since` is refused even beside a good id: somebody means it.
pub(super) fn from(request: &HttpRequest, set: &StreamSet) -> Result<From, Refusal> {
    let since = since(request)?;
    if let Some(id) = last_event_id(request)? {
        return Ok(From::Id(ClientId::parse(&id, set.topics_nameable())?));
    }
    Ok(since.map_or(From::Live, From::Since))
}

fn since(request: &HttpRequest) -> Result<Option<Timestamp>, Refusal> {
    match query_values(request, "since").as_slice() {
        [] => Ok(None),
        [since] => Ok(parse_since(since)?),
        several => Err(Refusal::SinceRepeated(several.len())),
    }
}

/// From the header, else from the query (some browser libraries can only send it there). An empty one is none.
fn last_event_id(request: &HttpRequest) -> Result<Option<String>, Refusal> {
    let header = request.headers().get("last-event-id").map(|value| String::from_utf8_lossy(value.as_bytes()).into());
    let given = header.into_iter().chain(query_values(request, "lastEventId"));
    match given.into_iter().find(|id: &String| !id.trim().is_empty()) {
        Some(id) if !id.is_ascii() => Err(Refusal::IdNotAscii),
        id => Ok(id),
    }
}

fn query_values(request: &HttpRequest, name: &str) -> Vec<String> {
    let pairs = form_urlencoded::parse(request.query_string().as_bytes());
    pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use actix_web::test::TestRequest;

    use super::*;
    use crate::model::{Mark, Offset, Topic};

    const ID: &str = r#"[{"topic":"t","partition":0,"offset":7}]"#;
    const ID_IN_QUERY: &str = "lastEventId=%5B%7B%22topic%22%3A%22t%22%2C%22partition%22%3A0%2C%22offset%22%3A9%7D%5D";

    fn asked(query: &str, header: Option<&[u8]>) -> Result<From, Refusal> {
        let mut request = TestRequest::with_uri(&format!("/v2/stream/s?{query}"));
        if let Some(id) = header {
            request = request.insert_header(("last-event-id", HeaderValue::from_bytes(id).expect("a header")));
        }
        from(&request.to_http_request(), &StreamSet::new(vec![], vec![Topic::new("t")], vec![]))
    }

    fn offset(from: Result<From, Refusal>) -> i64 {
        let Ok(From::Id(id)) = from else { panic!("{from:?}") };
        let Mark::At { next: Offset(next), .. } = id.places()[0].mark else { panic!("{id:?}") };
        next
    }

    #[test]
    fn the_header_beats_the_query_and_both_beat_since() {
        assert_eq!(offset(asked(&format!("since=2025-08-29&{ID_IN_QUERY}"), Some(ID.as_bytes()))), 7);
        assert_eq!(offset(asked(&format!("since=2025-08-29&{ID_IN_QUERY}"), None)), 9);
        assert_eq!(offset(asked(ID_IN_QUERY, Some(b""))), 9, "an empty header is none");
        assert_eq!(asked("since=1756449917001", None), Ok(From::Since(Timestamp(1_756_449_917_001))));
        assert_eq!(asked("since=&lastEventId=", Some(b" ")), Ok(From::Live));
    }

    #[test]
    fn a_plus_that_nobody_escaped_is_understood() {
        let moment = Ok(From::Since(Timestamp(1_756_449_917_001)));
        assert_eq!(asked("since=2025-08-29T08:45:17.001+02:00", None), moment);
        assert_eq!(asked("since=2025-08-29T08:45:17.001%2B02:00", None), moment);
    }

    #[test]
    fn a_wrong_since_is_refused_even_beside_a_good_id() {
        assert!(matches!(asked("since=soon", Some(ID.as_bytes())), Err(Refusal::Since(_))));
        assert!(matches!(asked("since=%FF", None), Err(Refusal::Since(_))));
        assert_eq!(asked("since=1&since=1", Some(ID.as_bytes())), Err(Refusal::SinceRepeated(2)));
    }

    #[test]
    fn an_id_that_no_stream_has_sent_is_refused() {
        assert!(matches!(asked("", Some(b"nonsense")), Err(Refusal::Id(_))));
        let in_utf8 = r#"[{"topic":"é","partition":0,"offset":7}]"#;
        assert_eq!(asked("", Some(in_utf8.as_bytes())), Err(Refusal::IdNotAscii));
        assert_eq!(asked("", Some(b"\xff")), Err(Refusal::IdNotAscii));
        assert_eq!(asked("lastEventId=%C3%A9", None), Err(Refusal::IdNotAscii));
        assert_eq!(asked("lastEventId=%FF", None), Err(Refusal::IdNotAscii));
    }
}
