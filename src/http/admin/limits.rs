//! The section `limits`, as it holds now.

use actix_web::{HttpResponse, web};
use serde_json::{Map, Value};

use super::access::Operator;
use super::ask;
use super::note::What;
use super::refusal::Refusal;
use crate::http::Services;
use crate::limits::{Limits, Options};
use crate::model::nearest;

/// Of a change, what the log quotes, in characters.
const QUOTED_CHARS_MAX: usize = 500;
/// Set or not, it has a number.
const STREAMS_TOTAL: &str = "streams_total";

pub(super) async fn get(_: Operator, services: web::Data<Services>) -> Result<HttpResponse, Refusal> {
    shown(&services.limits)
}

/// Some of the keys. All of what is asked for holds afterwards, or nothing of it.
pub(super) async fn put(
    payload: web::Payload,
    operator: Operator,
    services: web::Data<Services>,
) -> Result<HttpResponse, Refusal> {
    let wanted: Map<String, Value> = ask::body(payload).await?.unwrap_or_default();
    if !wanted.is_empty() {
        let quoted = Value::Object(wanted.clone()).to_string().chars().take(QUOTED_CHARS_MAX).collect::<String>();
        services.limits.change(|now| with(now, wanted)).map_err(Refusal::Faults)?;
        operator.did(What::Limits, &quoted);
    }
    shown(&services.limits)
}

fn shown(limits: &Limits) -> Result<HttpResponse, Refusal> {
    let mut all = limits.options().by_key();
    all.insert(STREAMS_TOTAL.into(), limits.streams_total().into());
    Ok(HttpResponse::Ok().json(all))
}

/// These options with some keys changed, or what is wrong with each of them.
fn with(options: &Options, wanted: Map<String, Value>) -> Result<Options, Vec<String>> {
    let now = options.by_key();
    let known = |key: &str| key == STREAMS_TOTAL || now.contains_key(key);
    let mut faults = Vec::new();
    for (key, value) in &wanted {
        if !known(key) {
            let near = nearest(key, now.keys().map(String::as_str).chain([STREAMS_TOTAL]), 1);
            let near = near.first().map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
            faults.push(format!("limits.{key}: there is no such key{near}"));
        } else if let Err(error) =
            serde_json::from_value::<Options>(Value::Object(Map::from_iter([(key.clone(), value.clone())])))
        {
            faults.push(format!("limits.{key}: {error}"));
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let all = Value::Object(now.into_iter().chain(wanted).collect());
    serde_json::from_value(all).map_err(|error| vec![format!("limits: {error}")])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn changed(wanted: Value) -> Result<Options, Vec<String>> {
        let Value::Object(wanted) = wanted else { panic!("a table") };
        with(&Options { streams_per_client: 7, ..Options::default() }, wanted)
    }

    #[test]
    fn what_is_not_named_stays_and_every_fault_is_told_with_its_key() {
        let options = changed(json!({ "slow_after": "3s", "streams_total": 9, "trusted_proxies": ["10.0.0.0/8"] }));
        let options = options.expect("options");
        assert_eq!((options.streams_per_client, options.streams_total), (7, Some(9)));
        assert_eq!(options.slow_after.as_secs(), 3);
        assert_eq!(changed(json!({ "streams_total": null })).expect("options").streams_total, None);
        let faults = changed(json!({ "streams_per_clien": 1, "posts_per_second": "many", "slow_after": 3 }));
        let faults = faults.expect_err("three faults");
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert_eq!(faults[0], "limits.streams_per_clien: there is no such key; did you mean 'streams_per_client'?");
        assert!(faults[1].starts_with("limits.posts_per_second: "), "{faults:?}");
        assert!(faults[2].starts_with("limits.slow_after: "), "{faults:?}");
    }

    #[test]
    fn what_is_shown_can_be_sent_back() {
        let shadow =
            json!({ "shadow": ["streams_per_client"], "overrides": [{ "token": "bot", "streams_per_client": 0 }] });
        let options = changed(shadow).expect("options");
        assert_eq!(with(&Options::default(), options.by_key()), Ok(options));
    }
}
