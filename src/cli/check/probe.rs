//! Asks a server: its verdict, then a real stream, then an event of this check's own.
//!
//! Streams are read as lines of JSON: there a server that has no room says 503, where a reader of Server-Sent Events is asked
//! for patience on what looks like a stream.

use std::cell::Cell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use memchr::memmem;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde_json::{Value, json};

use super::report::{Level, Report};
use crate::fetch::{body_at_most, with_causes};
use crate::model::StreamName;

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// What a stream is read as.
const LINES: &str = "application/x-ndjson";
const SCHEMA: &str = "/test/event/1.0.0";

/// What is to be found out.
pub(super) struct Wanted {
    pub(super) stream: Option<StreamName>,
    pub(super) max_age: Option<Duration>,
    pub(super) post_stream: Option<StreamName>,
    pub(super) post_headers: HeaderMap,
}

pub(super) struct Probe {
    http: Client,
    url: Url,
    wanted: Wanted,
    /// What has not happened yet.
    step: Cell<&'static str>,
}

/// What the server says of itself, as far as it was understood.
struct Said {
    state: String,
    cause: String,
    cure: String,
    took_ms: Option<f64>,
    /// A stream to read.
    stream: Option<StreamName>,
    age: Option<f64>,
}

impl Probe {
    pub(super) fn new(http: Client, url: Url, wanted: Wanted) -> Self {
        Self { http, url, wanted, step: Cell::new("nothing has begun") }
    }

    /// Where it is, for who has waited too long.
    pub(super) fn is_at(&self) -> &'static str {
        self.step.get()
    }

    /// Until all is well, or the first thing is not.
    pub(super) async fn look(&self, report: &mut Report) -> Result<(), String> {
        let said = self.verdict().await?;
        let level = level_of(&said.state);
        let text = if said.cause.is_empty() || matches!(said.state.as_str(), "flowing" | "quiet") {
            said.state.clone()
        } else {
            format!("{}: {}", said.state, said.cause)
        };
        report.says(level, &text, &said.cure);
        if let Some(took) = said.took_ms {
            report.milliseconds("canary", took);
        }
        if let Some(age) = said.age {
            report.seconds("age", age, self.wanted.max_age);
        }
        if level == Level::Critical {
            return Ok(());
        }
        self.check_age(said.age)?;
        match &said.stream {
            Some(stream) => drop(self.open(stream).await?),
            // An instance that gives nothing out has said so.
            None if said.state == "not_exposed" => {}
            None => return Err("the server names no stream to read: name one with --stream".into()),
        }
        if let Some(stream) = &self.wanted.post_stream {
            let took = self.post_and_read(stream).await?;
            report.milliseconds("trip", took.as_secs_f64() * 1_000.0);
        }
        Ok(())
    }

    async fn verdict(&self) -> Result<Said, String> {
        self.step.set("/health has not answered");
        let mut url = self.at("health");
        if let Some(stream) = &self.wanted.stream {
            url.query_pairs_mut().append_pair("stream", stream.as_str());
        }
        let answer = send(self.http.get(url)).await?;
        let status = answer.status();
        let body = body(answer).await?;
        let said: Option<Value> = serde_json::from_slice(&body).ok();
        match status {
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => {}
            _ => return Err(refusal("/health", status, &body)),
        }
        let said = said.as_ref().and_then(|said| self.understood(said, status));
        said.ok_or_else(|| format!("/health answers {status}, and what it says is no verdict of sluice"))
    }

    /// The state, and what belongs to it. A state that does not go with the status is none.
    fn understood(&self, said: &Value, status: StatusCode) -> Option<Said> {
        let text = |key: &str| said[key].as_str().map(str::to_owned);
        let state = text("state")?;
        let is_healthy = level_of(&state) < Level::Critical;
        if is_healthy != (status == StatusCode::OK) {
            return None;
        }
        let newest = &said["streams"]["newest"];
        let (stream, age) = match &self.wanted.stream {
            Some(stream) => (Some(stream.clone()), &said["age_seconds"]),
            None => (newest["stream"].as_str().and_then(|name| StreamName::parse(name).ok()), &newest["age_seconds"]),
        };
        let number = |value: &Value| value.as_f64().filter(|number| *number >= 0.0);
        Some(Said {
            state,
            cause: text("cause").unwrap_or_default(),
            cure: text("do").unwrap_or_default(),
            took_ms: number(&said["canary"]["took_ms"]),
            stream,
            age: number(age),
        })
    }

    fn check_age(&self, age: Option<f64>) -> Result<(), String> {
        let Some(most) = self.wanted.max_age else { return Ok(()) };
        match age {
            Some(age) if age <= most.as_secs_f64() => Ok(()),
            Some(age) => Err(format!("the last event came {age:.0}s ago, and may be {most:?} old")),
            None => Err("there has never been an event".into()),
        }
    }

    /// An open stream, its first bytes read: they come at once.
    async fn open(&self, stream: &StreamName) -> Result<Response, String> {
        self.step.set("the stream has not opened");
        let request = self.http.get(self.at(&format!("v2/stream/{stream}"))).header(ACCEPT, LINES);
        let mut answer = send(request).await?;
        if answer.status() != StatusCode::OK {
            let status = answer.status();
            return Err(refusal(&format!("the stream {stream}"), status, &body(answer).await.unwrap_or_default()));
        }
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with(LINES) {
            return Err(format!("the stream {stream} is none: it is '{kind}'"));
        }
        match answer.chunk().await.map_err(with_causes)? {
            // Keep-alives are empty lines.
            Some(begun) if begun.iter().find(|byte| **byte != b'\n').is_none_or(|byte| *byte == b'{') => Ok(answer),
            Some(_) => Err(format!("the stream {stream} is none: it brings something else than events")),
            None => Err(format!("the stream {stream} ends before it begins")),
        }
    }

    /// How long an event takes from here to here.
    async fn post_and_read(&self, stream: &StreamName) -> Result<Duration, String> {
        let mut reader = self.open(stream).await?;
        self.step.set("the event of this check was not taken");
        let mark = uuid::Uuid::new_v4().to_string();
        let event =
            json!({ "$schema": SCHEMA, "meta": { "stream": stream.as_str() }, "test": format!("sluice check {mark}") });
        let began = Instant::now();
        let request = self.http.post(self.at("v1/events")).headers(self.wanted.post_headers.clone());
        let answer = send(request.header(CONTENT_TYPE, "application/json").body(event.to_string())).await?;
        let status = answer.status();
        if status != StatusCode::CREATED {
            return Err(refusal("the event of this check", status, &body(answer).await.unwrap_or_default()));
        }
        self.step.set("the event of this check was taken, and did not come back");
        // No more is kept than shows the mark where it is cut.
        let mut held = Vec::new();
        while let Some(chunk) = reader.chunk().await.map_err(with_causes)? {
            held.extend_from_slice(&chunk);
            if memmem::find(&held, mark.as_bytes()).is_some() {
                return Ok(began.elapsed());
            }
            held.drain(..held.len().saturating_sub(mark.len()));
        }
        Err(format!("the stream {stream} ended before the event of this check came back"))
    }

    /// Below the address of the server, which may have a path.
    fn at(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/{path}"));
        url.set_query(None);
        url
    }
}

fn level_of(state: &str) -> Level {
    match state {
        "flowing" | "quiet" | "not_exposed" => Level::Ok,
        "degraded" => Level::Warning,
        _ => Level::Critical,
    }
}

async fn send(request: RequestBuilder) -> Result<Response, String> {
    request.send().await.map_err(with_causes)
}

async fn body(mut answer: Response) -> Result<Bytes, String> {
    let body = body_at_most(&mut answer, ANSWER_BYTES_MAX).await.map_err(with_causes)?;
    body.ok_or_else(|| format!("an answer is longer than {ANSWER_BYTES_MAX} bytes"))
}

/// With what the server says of it, where it says something.
fn refusal(what: &str, status: StatusCode, body: &[u8]) -> String {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let detail = said["detail"].as_str().or_else(|| said["error"][0]["message"].as_str());
    let detail = detail.or_else(|| said["invalid"][0]["message"].as_str());
    match detail {
        Some(detail) => format!("{what} is answered {status}: {detail}"),
        None => format!("{what} is answered {status}"),
    }
}
