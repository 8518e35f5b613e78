//! What is asked of an address.
//!
//! EventStreamConfig's API takes at most so many values of one parameter; past that it answers with an error, or, where
//! it is older, with a part and a warning. So a long list of streams is asked for in batches.

use serde_json::{Map, Value};

use crate::fetch::Url;

/// Streams that one request names: the least of the limits that the API has had.
const STREAMS_PER_REQUEST_MAX: usize = 50;
/// MediaWiki's other separator, for values that hold the usual one: such a list begins with it.
const UNIT_SEPARATOR: char = '\u{1f}';

/// One GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// Without its query.
    address: Url,
    parameters: Vec<(String, String)>,
}

impl Request {
    /// What must be asked for to get everything that the address stands for, and whether that is MediaWiki's API.
    pub(super) fn all(address: &Url, service: Option<&str>) -> (Vec<Self>, bool) {
        let parameters = address.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        let mut request = Self { address: address.clone(), parameters };
        let is_api = request.get("action") == Some("streamconfigs");
        if !is_api {
            return (vec![request], false);
        }
        for (name, value) in [("format", "json"), ("formatversion", "2")] {
            if request.get(name).is_none() {
                request.set(name, value.to_owned());
            }
        }
        if let Some(service) = service {
            request.constrain(&format!("destination_event_service={service}"));
        }
        (request.batches(), true)
    }

    pub(super) fn url(&self) -> Url {
        let mut url = self.address.clone();
        // An address without a query is not given an empty one.
        url.set_query(None);
        if !self.parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.parameters);
        }
        url
    }

    /// The same, with what the answer says is needed to get the rest. `None`: no parameter can have such a value.
    pub(super) fn continued(&self, by: &Map<String, Value>) -> Option<Self> {
        let mut next = self.clone();
        for (name, value) in by {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return None,
            };
            next.set(name, value);
        }
        Some(next)
    }

    fn get(&self, name: &str) -> Option<&str> {
        // As PHP has it: the last one holds.
        self.parameters.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: &str, value: String) {
        self.parameters.retain(|(own, _)| own != name);
        self.parameters.push((name.to_owned(), value));
    }

    fn constrain(&mut self, constraint: &str) {
        let constraints = match self.get("constraints") {
            None | Some("") => constraint.to_owned(),
            Some(there) => {
                let (separator, mut values) = values_of(there);
                values.retain(|value| *value != constraint);
                values.push(constraint);
                joined(separator, &values)
            }
        };
        self.set("constraints", constraints);
    }

    fn batches(self) -> Vec<Self> {
        let streams = self.get("streams").unwrap_or_default().to_owned();
        let (separator, values) = values_of(&streams);
        if values.len() <= STREAMS_PER_REQUEST_MAX {
            return vec![self];
        }
        let batch = |streams: &[&str]| {
            let mut request = self.clone();
            request.set("streams", joined(separator, streams));
            request
        };
        values.chunks(STREAMS_PER_REQUEST_MAX).map(batch).collect()
    }
}

fn values_of(list: &str) -> (char, Vec<&str>) {
    let (separator, list) = match list.strip_prefix(UNIT_SEPARATOR) {
        Some(rest) => (UNIT_SEPARATOR, rest),
        None => ('|', list),
    };
    (separator, list.split(separator).filter(|value| !value.is_empty()).collect())
}

fn joined(separator: char, values: &[&str]) -> String {
    let list = values.join(&separator.to_string());
    if separator == UNIT_SEPARATOR { format!("{separator}{list}") } else { list }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn all(address: &str, service: Option<&str>) -> Vec<String> {
        let (requests, _) = Request::all(&Url::parse(address).expect("an address"), service);
        requests.iter().map(|request| request.url().to_string()).collect()
    }

    #[test]
    fn the_api_is_asked_for_json_and_for_one_service() {
        let api = "http://a/w/api.php?action=streamconfigs";
        assert_eq!(all(api, None), [format!("{api}&format=json&formatversion=2")]);
        let constrained = all(&format!("{api}&formatversion=1&format=json&constraints=a%3Db"), Some("x"));
        assert_eq!(
            constrained,
            [format!("{api}&formatversion=1&format=json&constraints=a%3Db%7Cdestination_event_service%3Dx")]
        );
        let again = all(&format!("{api}&constraints=destination_event_service%3Dx"), Some("x"));
        assert!(again[0].ends_with("&constraints=destination_event_service%3Dx"), "{again:?}");
    }

    #[test]
    fn another_address_is_asked_as_it_stands() {
        assert_eq!(all("http://a/streams.json", Some("x")), ["http://a/streams.json"]);
        assert_eq!(all("http://a/s?streams=a&x=y", None), ["http://a/s?streams=a&x=y"]);
    }

    #[test]
    fn a_long_list_is_asked_for_in_batches_that_the_api_takes() {
        for (count, requests) in [(1, 1), (50, 1), (51, 2), (123, 3), (5_000, 100)] {
            let names: Vec<String> = (0..count).map(|at| format!("s{at}")).collect();
            let address = format!("http://a/api?action=streamconfigs&streams={}", names.join("|"));
            let (all, is_api) = Request::all(&Url::parse(&address).expect("an address"), None);
            assert!(is_api);
            assert_eq!(all.len(), requests);
            let asked: Vec<&str> =
                all.iter().flat_map(|one| values_of(one.get("streams").unwrap_or_default()).1).collect();
            assert_eq!(asked, names);
        }
        let list: Vec<String> = (0..60).map(|at| format!("\u{1f}/a|b{at}/")).collect();
        let address = Url::parse_with_params("http://a/?action=streamconfigs", [("streams", list.concat())]);
        let (all, _) = Request::all(&address.expect("an address"), None);
        assert_eq!((all.len(), all[1].get("streams").map(|list| list.matches('\u{1f}').count())), (2, Some(10)));
    }

    #[test]
    fn a_continued_request_has_every_member_of_the_answer() {
        let (all, _) = Request::all(&Url::parse("http://a/?x=1&y=2").expect("an address"), None);
        let by = json!({"y": "3", "continue": "-||", "n": 5});
        let next = all[0].continued(by.as_object().expect("a map")).expect("a request");
        assert_eq!(next.url().as_str(), "http://a/?x=1&y=3&continue=-%7C%7C&n=5");
        assert_eq!(all[0].continued(json!({"y": []}).as_object().expect("a map")), None);
    }
}
