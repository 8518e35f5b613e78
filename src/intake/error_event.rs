//! What the error stream is told of events that their schemas refuse: an event of the schema `/error/2.1.0` each, posted
//! in the background through the same intake. A report that is refused itself is counted, and not reported again.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::stamp::rfc3339;
use super::{Code, EVENT_OVERHEAD_BYTES, Fault, InFlight, Mode, Outcome, Refusal, Request, Shared, Work};
use crate::metrics as names;
use crate::model::{Document, Timestamp, steps_of};

const SCHEMA: &str = "/error/2.1.0";
/// The class of errors that EventGate gives these.
const ERROR_TYPE: &str = "ValidationError";
const EMITTER: &str = env!("CARGO_PKG_NAME");
const UNKNOWN: &str = "unknown";
/// What a report has beside the event's text and the message.
const ENVELOPE_BYTES: usize = 4 * 1024;
/// A report that is larger than its topic allows is sent again with so much of the event.
const CUTS: [usize; 4] = [usize::MAX, 256 * 1024, 16 * 1024, 0];
/// Of the message, which names fields that the producer chose.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// An event that was refused, as far as a report needs it.
struct Refused {
    event: Bytes,
    message: String,
}

impl Shared {
    /// Reports what was refused, if there is a stream for it and room among what is in flight.
    pub(super) fn report<'a>(self: &Arc<Self>, refusals: impl Iterator<Item = &'a Refusal>) {
        let Some(stream) = self.options.error_stream.clone() else { return };
        let refused: Vec<Refused> = refusals
            .map(|refusal| Refused { event: refusal.event.clone(), message: refusal.message.clone() })
            .collect();
        if refused.is_empty() {
            return;
        }
        let bytes = refused.iter().map(|refused| refused.event.len() + EVENT_OVERHEAD_BYTES).sum();
        let Ok(place) = self.enter(bytes) else {
            count("dropped", refused.len());
            return;
        };
        let shared = self.clone();
        self.engine.spawn(async move {
            for (at, one) in refused.iter().enumerate() {
                let result = shared.post_report(&stream, one).await;
                if result == "dropped" {
                    // What keeps the log from this one keeps it from the others, a deadline each.
                    return count(result, refused.len() - at);
                }
                count(result, 1);
            }
            drop(place);
        });
    }

    /// The same report with less in it, until it is taken.
    async fn post_report(self: &Arc<Self>, stream: &str, refused: &Refused) -> &'static str {
        let (mut cut, mut copies) = (0, true);
        loop {
            let raw_bytes_max = CUTS[cut].min(self.raw_bytes_max());
            let report = self.error_event(stream, refused, raw_bytes_max, copies);
            let Ok(place) = self.enter(0) else { return "dropped" };
            let Outcome::Refused(refusal) = self.post(report, place).await else { return "sent" };
            match refusal.code {
                // What was copied from the event is what the error's schema refuses.
                Code::Invalid if copies => copies = false,
                Code::TooLarge if cut + 1 < CUTS.len() => cut += 1,
                code if code.fault() == Fault::Ours => return "dropped",
                code => {
                    tracing::warn!(code = code.as_str(), stream, "the error stream does not take a report");
                    return "refused";
                }
            }
        }
    }

    async fn post(self: &Arc<Self>, report: Value, place: InFlight) -> Outcome {
        let due = Instant::now() + self.options.deadline;
        let body = Bytes::from(report.to_string());
        let events = vec![body.clone()];
        let request = Request { mode: Mode::Guaranteed, ..Request::of_ours(body) };
        let work = Work { request, events, place, due, reported: false };
        self.clone().take(work).await.pop().unwrap_or(Outcome::Accepted)
    }

    fn error_event(&self, stream: &str, refused: &Refused, raw_bytes_max: usize, copies: bool) -> Value {
        let document = Document::parse(refused.event.clone()).ok();
        let text = |path: &str| {
            let text = document.as_ref()?.get(&steps_of(path)).and_then(Value::as_str);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let named = |path: &str| text(path).unwrap_or_else(|| UNKNOWN.to_owned());
        let copied = |path: &str| if copies { named(path) } else { UNKNOWN.to_owned() };
        let schema_uri = self.options.schema_uri_field.iter().find_map(|field| text(field));
        let now = rfc3339(Timestamp::now());
        let raw = String::from_utf8_lossy(&refused.event);
        json!({
            "$schema": SCHEMA,
            "meta": {
                "stream": stream,
                "id": Uuid::now_v7().to_string(),
                "dt": now,
                "uri": copied("meta.uri"),
                "domain": copied("meta.domain"),
                "request_id": copied("meta.request_id"),
            },
            "dt": now,
            "emitter_id": EMITTER,
            "raw_event": cut(&raw, raw_bytes_max),
            "message": cut(&refused.message, MESSAGE_BYTES_MAX),
            "error_type": ERROR_TYPE,
            "errored_schema_uri": schema_uri.unwrap_or_else(|| UNKNOWN.to_owned()),
            "errored_stream_name": named("meta.stream"),
        })
    }

    /// Escaped inside of a text, every byte of the event's text may become two.
    fn raw_bytes_max(&self) -> usize {
        let event_bytes_max = usize::try_from(self.options.event_bytes_max()).unwrap_or(usize::MAX);
        event_bytes_max.saturating_sub(ENVELOPE_BYTES + 2 * MESSAGE_BYTES_MAX) / 2
    }
}

fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

fn count(result: &'static str, reports: usize) {
    metrics::counter!(names::ERROR_EVENTS, "result" => result).increment(reports as u64);
}
