//! `GET /health`: the verdict, for external checks; with `?stream=` that of some streams.
//!
//! On the public listener it says nothing that only operators should know: no addresses, and no words of others.

use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Map, Value, json};

use super::Services;
use super::error::Refusal;
use super::info::VERSION;
use super::query;
use crate::catalog::Stream;
use crate::health::{CanaryReport, Few, Part, Report, Step, StreamReport, Streams, Verdict};
use crate::intake::spool;
use crate::model::{Timestamp, parse_stream_names};

/// Whom an answer is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Everybody,
    Operators,
}

pub(super) async fn get(request: HttpRequest, services: web::Data<Services>) -> HttpResponse {
    answer(&request, &services, For::Everybody)
}

pub(super) async fn get_for_operators(request: HttpRequest, services: web::Data<Services>) -> HttpResponse {
    answer(&request, &services, For::Operators)
}

fn answer(request: &HttpRequest, services: &Services, reader: For) -> HttpResponse {
    let told = query::streams_of(request.query_string()).map_err(Refusal::from).and_then(|streams| match streams {
        Some(list) => of_streams(&list, services, reader),
        None => Ok(of_host(&services.health.report(), reader)),
    });
    let (verdict, body) = match told {
        Ok(told) => told,
        Err(refusal) => return refusal.answer(request),
    };
    let mut answer = match verdict.state.is_healthy() {
        true => HttpResponse::Ok(),
        false => HttpResponse::ServiceUnavailable(),
    };
    answer.content_type("application/json; charset=utf-8");
    answer.insert_header((header::CACHE_CONTROL, "no-store")).body(Value::Object(body).to_string())
}

fn of_host(report: &Report, reader: For) -> (Verdict, Map<String, Value>) {
    let mut body = of_verdict(&report.verdict, reader);
    body.insert("canary".into(), of_canary(&report.canary, reader));
    body.insert("streams".into(), of_all_streams(&report.streams, reader));
    body.insert("partitions".into(), of_few(&report.partitions, |part| of_part(part, reader)));
    if let Some(spool) = &report.spool {
        body.insert("spool".into(), of_spool(spool, reader));
    }
    body.insert("version".into(), VERSION.into());
    (report.verdict.clone(), body)
}

fn of_streams(list: &str, services: &Services, reader: For) -> Result<(Verdict, Map<String, Value>), Refusal> {
    let catalog = services.catalog.now();
    let set = catalog.resolve(&parse_stream_names(list)?)?;
    let streams: Vec<&Stream> = set.streams().iter().filter_map(|name| catalog.stream(name)).collect();
    let (verdict, told) = services.health.of_streams(&streams);
    let mut body = of_verdict(&verdict, reader);
    let streams: Vec<Value> = told.iter().map(|stream| of_stream(stream, reader)).collect();
    // What a script asks first: of all of them the event that came last.
    body.insert("age_seconds".into(), json!(told.iter().filter_map(|stream| stream.age).min().map(seconds)));
    body.insert("streams".into(), Value::Array(streams));
    body.insert("version".into(), VERSION.into());
    Ok((verdict, body))
}

fn of_verdict(verdict: &Verdict, reader: For) -> Map<String, Value> {
    let Verdict { state, since, cause, cure, detail } = verdict;
    let mut told = Map::new();
    told.insert("state".into(), state.as_str().into());
    told.insert("since".into(), since.to_string().into());
    told.insert("cause".into(), cause.as_str().into());
    told.insert("do".into(), (*cure).into());
    if reader == For::Operators {
        told.insert("detail".into(), detail.as_str().into());
    }
    told
}

fn of_canary(canary: &CanaryReport, reader: For) -> Value {
    let CanaryReport { took, age, failed } = canary;
    let took_ms = took.map(|took| (took.as_secs_f64() * 1_000_000.0).round() / 1_000.0);
    let mut told = json!({ "took_ms": took_ms, "age_seconds": age.map(seconds) });
    if let Some((at, why)) = failed {
        told["failed_at"] = of_step(*at).into();
        if reader == For::Operators {
            told["why"] = why.as_str().into();
        }
    }
    told
}

fn of_step(step: Step) -> &'static str {
    match step {
        Step::Connect => "connect",
        Step::Open => "open",
        Step::Post => "post",
        Step::Append => "append",
        Step::Read => "read",
    }
}

fn of_all_streams(streams: &Streams, reader: For) -> Value {
    let Streams { states, unhealthy, newest } = streams;
    let states: Map<String, Value> = states.iter().map(|(state, n)| (state.as_str().to_owned(), json!(n))).collect();
    let unhealthy = of_few(unhealthy, |stream| {
        let mut told = Map::from_iter([("stream".to_owned(), stream.name.as_str().into())]);
        told.extend(of_verdict(&stream.verdict, reader));
        Value::Object(told)
    });
    let newest = newest.as_ref().map(|(name, age)| json!({ "stream": name.as_str(), "age_seconds": age.map(seconds) }));
    json!({ "states": states, "unhealthy": unhealthy, "newest": newest })
}

fn of_stream(stream: &StreamReport, reader: For) -> Value {
    let StreamReport { name, verdict, last_event, came_at, age, expected, partitions } = stream;
    let mut told = Map::from_iter([("stream".to_owned(), name.as_str().into())]);
    told.extend(of_verdict(verdict, reader));
    told.insert("age_seconds".into(), json!(age.map(seconds)));
    told.insert("last_event".into(), json!({ "dt": last_event.map(text), "came_at": came_at.map(text) }));
    if let Some((every, met)) = expected {
        told.insert("expect_every".into(), json!({ "seconds": seconds(*every), "met": met }));
    }
    told.insert("partitions".into(), of_few(partitions, |part| of_part(part, reader)));
    Value::Object(told)
}

fn of_part(part: &Part, reader: For) -> Value {
    let Part { partition, lag, behind, sick } = part;
    let mut told = json!({
        "topic": partition.topic.as_str(),
        "partition": partition.index,
        "lag": lag,
        "behind_seconds": behind.map_or(0.0, seconds),
    });
    if let Some(sick) = sick {
        told["sick"] = true.into();
        let broker = if reader == For::Operators { sick.broker.as_deref() } else { part.broker_id() };
        told["broker"] = json!(broker);
        if reader == For::Operators {
            told["why"] = sick.why.as_str().into();
        }
    }
    told
}

fn of_spool(spool: &spool::Status, reader: For) -> Value {
    let spool::Status { events, bytes, bytes_max, oldest, aside, fault } = spool;
    let age = oldest.map(|oldest| Timestamp::now().0.saturating_sub(oldest.0).max(0) as f64 / 1_000.0);
    let mut told = json!({
        "events": events,
        "bytes": bytes,
        "bytes_max": bytes_max,
        "oldest_age_seconds": age,
        "aside": aside,
        "takes_events": fault.is_none(),
    });
    if let (Some(fault), For::Operators) = (fault, reader) {
        told["why"] = fault.as_str().into();
    }
    told
}

fn of_few<T>(few: &Few<T>, one: impl Fn(&T) -> Value) -> Value {
    json!({ "first": few.first.iter().map(one).collect::<Vec<_>>(), "more": few.more })
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000.0).round() / 1_000.0
}

fn text(time: Timestamp) -> String {
    time.to_string()
}
