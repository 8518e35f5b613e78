//! One event: from its text to a record, or to the reason why not. Pure: what it needs to know is found before.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::auth::Grant;
use super::stamp::Stamps;
use super::{Code, Options, Reason, Request};
use crate::catalog::{Catalog, Route, Settings, canary_route};
use crate::metrics as names;
use crate::model::{Document, NewRecord, Timestamp, json, steps_of};
use crate::schema::{LoadError, Schema, SchemaUri};

/// An event that says where it belongs.
pub(super) struct Candidate {
    pub(super) document: Document,
    pub(super) stream: String,
    pub(super) uri: SchemaUri,
}

/// An event that may be appended.
pub(super) struct Judged<'a> {
    /// The catalogue's name for its stream.
    pub(super) stream: &'a str,
    pub(super) record: NewRecord,
}

/// Reads what an event says of its schema and its stream, from the request where the event says nothing.
pub(super) fn read(options: &Options, request: &Request, event: &Bytes) -> Result<Candidate, (Reason, Bytes)> {
    let refused = |reason| (reason, event.clone());
    check_form(options, event).map_err(refused)?;
    let mut document = Document::parse(event.clone())
        .map_err(|e| refused(Reason::new(Code::Malformed, format!("The event is not JSON: {e} of the event."))))?;
    match name(options, request, &mut document) {
        Ok((uri, stream)) => Ok(Candidate { document, stream, uri }),
        Err(reason) => Err((reason, document.text())),
    }
}

fn check_form(options: &Options, event: &Bytes) -> Result<(), Reason> {
    let bytes_max = options.event_bytes_max();
    if event.len() as u64 > bytes_max {
        let text = format!("The event has {} bytes, at most {bytes_max} are taken.", event.len());
        return Err(Reason::new(Code::TooLarge, text));
    }
    match event.first() {
        Some(b'{') => Ok(()),
        _ => Err(Reason::new(Code::NotAnObject, "An event is a JSON object.")),
    }
}

/// Schema and stream. The event's own word is asked first.
fn name(options: &Options, request: &Request, document: &mut Document) -> Result<(SchemaUri, String), Reason> {
    let fields: Vec<&str> = options.schema_uri_field.iter().map(String::as_str).collect();
    let uri = field(document, &fields, request.schema_uri.as_deref())?
        .ok_or_else(|| Reason::new(Code::MissingSchema, missing(&fields)))?;
    let uri = SchemaUri::parse(&uri).map_err(|e| Reason::new(Code::BadSchemaUri, e.to_string()))?;
    let stream = field(document, &[STREAM_FIELD], request.stream.as_deref())?
        .ok_or_else(|| Reason::new(Code::MissingStream, missing(&[STREAM_FIELD])))?;
    if !request.grant.allows(&stream) {
        let text = format!("The token may not post to stream {stream}.");
        return Err(Reason::new(Code::Forbidden, text));
    }
    Ok((uri, stream))
}

const STREAM_FIELD: &str = "meta.stream";

fn missing(fields: &[&str]) -> String {
    format!("Field(s) {} were missing from event and could not be extracted.", fields.join(","))
}

/// The text in the first of these fields that is there; if none is, it is set to what the request says.
fn field(document: &mut Document, fields: &[&str], from_request: Option<&str>) -> Result<Option<String>, Reason> {
    for dotted in fields {
        match document.get(&steps_of(dotted)) {
            None => {}
            Some(Value::String(text)) if !text.is_empty() => return Ok(Some(text.clone())),
            Some(_) => {
                let text = format!("The field {dotted} must be a text that is not empty.");
                return Err(Reason::new(Code::BadField, text));
            }
        }
    }
    let (Some(first), Some(text)) = (fields.first(), from_request) else { return Ok(None) };
    let is_set = document.set(&steps_of(first), text.into());
    Ok(is_set.then(|| text.to_owned()))
}

/// Where the event goes, if its stream is in the catalogue. That of the canaries is in none.
pub(super) fn route<'a>(options: &Options, catalog: &'a Catalog, grant: &Grant, stream: &str) -> Option<Route<'a>> {
    if grant.is_canary() {
        return grant.allows(stream).then(canary_route);
    }
    catalog.route(stream, options.topic_prefix.as_deref())
}

/// Checks the event against its stream and its schema, with what is added to it filled in.
pub(super) fn judge<'a>(
    stamps: &Stamps<'_>,
    candidate: &mut Candidate,
    route: Route<'a>,
    schema: Result<Arc<Schema>, LoadError>,
) -> Result<Judged<'a>, Reason> {
    let schema = schema.map_err(|e| Reason::new(code_of(&e), e.to_string()))?;
    check_title(candidate, route.settings, &schema)?;
    let document = &mut candidate.document;
    stamps.fill(document, &schema, route.settings);
    schema.fill_defaults(document);
    let violations = schema.violations(document.value());
    if !violations.is_empty() {
        return Err(Reason::invalid(violations));
    }
    let text = document.text();
    let key = key_of(document, &text, route.settings)?;
    let record = NewRecord { topic: route.topic, time: time_of(document), key, value: Some(text) };
    Ok(Judged { stream: route.entry, record })
}

impl Candidate {
    /// The stream's rule, in the words that dashboards know.
    pub(super) fn not_allowed(&self, code: Code, why: &str) -> Reason {
        let id = self.document.get(&steps_of("meta.id")).and_then(Value::as_str).unwrap_or("unknown");
        let Self { uri, stream, .. } = self;
        let text = format!("event {id} of schema at {uri} destined to stream {stream} is not allowed in stream; {why}");
        Reason::new(code, text)
    }
}

/// The schema must be one of those that the stream is for.
fn check_title(candidate: &Candidate, settings: &Settings, schema: &Schema) -> Result<(), Reason> {
    let Candidate { uri, stream, .. } = candidate;
    let (code, why) = match (&settings.schema_title, schema.title()) {
        (Some(wanted), Some(title)) if wanted == title => return Ok(()),
        _ if settings.is_empty() => {
            (Code::StreamWithoutSettings, format!("{stream} is configured but does not have any settings."))
        }
        (None, _) => (Code::StreamWithoutTitle, format!("{stream} does not have a schema_title setting.")),
        (Some(_), None) => (Code::SchemaTitle, format!("Schema at {uri} must define a 'title' field.")),
        (Some(wanted), Some(_)) => (Code::SchemaTitle, format!("schema title must be {wanted}.")),
    };
    Err(candidate.not_allowed(code, &why))
}

fn code_of(error: &LoadError) -> Code {
    match error {
        LoadError::Unknown(_) => Code::SchemaUnknown,
        LoadError::Refused { .. } => Code::SchemaRefused,
        LoadError::Unavailable { .. } => Code::SchemaUnavailable,
    }
}

/// The record's key: a compact JSON object of the fields that the stream names, in their order.
fn key_of(document: &Document, text: &Bytes, settings: &Settings) -> Result<Option<Bytes>, Reason> {
    if settings.message_key_fields.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(text).unwrap_or_default();
    let mut key = String::from("{");
    for (name, field) in &settings.message_key_fields {
        let value = document.get(&steps_of(field)).ok_or_else(|| {
            Reason::new(Code::MissingKeyField, format!("Failed extracting {field} from event, field is not defined."))
        })?;
        let comma = if key.len() > 1 { "," } else { "" };
        let value = match value {
            Value::Number(number) => number_of_key(number, text, field),
            other => other.to_string(),
        };
        key.push_str(&format!("{comma}{}:{value}", Value::from(name.as_str())));
    }
    key.push('}');
    Ok(Some(key.into()))
}

/// The largest number up to which every integer is a float of its own.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// As EventGate writes it where a float holds it, and as it was sent where none does: two ids must not become one key.
fn number_of_key(number: &serde_json::Number, text: &str, field: &str) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        None => number.to_string(),
        Some(float) if float.fract() == 0.0 && float.abs() < EXACT_MAX => format!("{float:.0}"),
        Some(_) => field
            .split('.')
            .try_fold(text, |object, name| json::last_member(object, name).map(|member| member.value))
            .map_or_else(|| number.to_string(), str::to_owned),
    }
}

/// Its own time. A log refuses records of the future, and Kafka those from before 1970, so those have the time of their
/// arrival; the event's own field stays.
fn time_of(document: &Document) -> Timestamp {
    let dt = document.get(&steps_of("meta.dt")).and_then(Value::as_str);
    let own = dt.and_then(|dt| dt.parse::<jiff::Timestamp>().ok()).map(|time| Timestamp(time.as_millisecond()));
    let now = Timestamp::now();
    match own {
        Some(time) if time > now => {
            metrics::counter!(names::EVENTS_OF_THE_FUTURE).increment(1);
            now
        }
        Some(time) if time >= Timestamp(0) => time,
        _ => now,
    }
}
