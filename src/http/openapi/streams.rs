//! The catalogue's part of the document: which names there are, and a path for each with what its events look like.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::schemas::{Described, Found, Without, describe};
use crate::catalog::{Catalog, Stream};

/// The forms that a stream is given out in. Each has the same events.
const FORMS: [&str; 3] = ["text/event-stream", "application/json", "application/x-ndjson"];
/// Those of the list's operation.
const PARAMETERS: [&str; 5] = ["since", "lastEventId", "canary", "positions", "Last-Event-ID"];
const LIST: &str = "/v2/stream/{streams}";

/// A schema that is part of the document.
struct Placed {
    reference: String,
    example: Option<Value>,
}

/// One name, and the stream that it stands for.
struct Name<'a> {
    name: &'a str,
    stream: &'a Stream,
}

/// Adds the names to the list's path, and for each of them a path of its own, while `bytes` last.
pub(super) fn add(document: &mut Value, catalog: &Catalog, found: &Found, mut bytes: usize) {
    let names = names(catalog);
    document["paths"][LIST]["parameters"][0]["schema"]["items"]["enum"] = names.iter().map(|name| name.name).collect();
    let bare = |name: &Name<'_>| name.path().len() + operation(name, Err(Without::TooLarge)).to_string().len();
    let documented = names.iter().take_while(|name| take(&mut bytes, bare(name))).count();
    if documented < names.len() {
        let note = format!("\n\n{documented} of {} names have a path of their own in this document.", names.len());
        let description = &mut document["paths"][LIST]["get"]["description"];
        *description = format!("{}{note}", description.as_str().unwrap_or_default()).into();
    }
    let names = &names[..documented];
    let placed = place(document, names, found, bytes);
    let Some(paths) = document["paths"].as_object_mut() else { return };
    for name in names {
        let schema = match &name.stream.settings.schema_title {
            Some(title) => {
                placed.get(title.as_str()).map_or(Err(Without::Title), |placed| placed.as_ref().map_err(|e| *e))
            }
            None => Err(Without::Title),
        };
        paths.insert(name.path(), json!({ "get": operation(name, schema) }));
    }
}

/// Takes what something costs out of what there is, where there is so much.
fn take(bytes: &mut usize, cost: usize) -> bool {
    let left = bytes.checked_sub(cost);
    *bytes = left.unwrap_or(*bytes);
    left.is_some()
}

fn names(catalog: &Catalog) -> Vec<Name<'_>> {
    let streams: BTreeMap<&str, &Stream> = catalog.streams().map(|stream| (stream.name.as_str(), stream)).collect();
    let aliases = catalog.aliases();
    let aliases = aliases.iter().filter_map(|(alias, name)| Some((alias.as_str(), *streams.get(name.as_str())?)));
    let all: BTreeMap<&str, &Stream> = streams.iter().map(|(name, stream)| (*name, *stream)).chain(aliases).collect();
    all.into_iter().map(|(name, stream)| Name { name, stream }).collect()
}

/// Puts the schemas of these streams among the document's own, each once.
fn place<'a>(
    document: &mut Value,
    names: &[Name<'_>],
    found: &'a Found,
    mut bytes: usize,
) -> HashMap<&'a str, Result<Placed, Without>> {
    let mut uses: HashMap<&str, usize> = HashMap::new();
    for title in names.iter().filter_map(|name| name.stream.settings.schema_title.as_deref()) {
        *uses.entry(title).or_default() += 1;
    }
    let mut own = match document["components"]["schemas"].take() {
        Value::Object(own) => own,
        _ => Map::new(),
    };
    let mut placed = HashMap::new();
    for title in found.titles() {
        let outcome = found.get(title).and_then(|schema| {
            let key = free_key(title, &own);
            let reference = format!("#/components/schemas/{key}");
            let Described { schema, example } = describe(schema.document(), &reference);
            let per_use = FORMS.len() * (reference.len() + example.as_ref().map_or(0, |e| e.to_string().len()) + 40);
            let cost = schema.to_string().len() + uses.get(title).copied().unwrap_or_default() * per_use;
            if !take(&mut bytes, cost) {
                return Err(Without::TooLarge);
            }
            own.insert(key, schema);
            Ok(Placed { reference, example })
        });
        placed.insert(title, outcome);
    }
    document["components"]["schemas"] = Value::Object(own);
    placed
}

/// A title as a key of components, which have fewer characters.
fn free_key(title: &str, taken: &Map<String, Value>) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '.' };
    let key: String = title.trim_matches('/').chars().map(legal).collect();
    let mut candidates = std::iter::once(key.clone()).chain((2usize..).map(|number| format!("{key}_{number}")));
    candidates.find(|candidate| !taken.contains_key(candidate)).unwrap_or(key)
}

impl Name<'_> {
    fn path(&self) -> String {
        format!("/v2/stream/{}", self.name)
    }

    fn description(&self, schema: Result<&Placed, Without>) -> String {
        let mut parts = Vec::new();
        let canonical = self.stream.name.as_str();
        if canonical != self.name {
            parts.push(format!("An alias of the stream `{canonical}`."));
        }
        parts.extend(self.stream.settings.description.clone());
        parts.extend(self.stream.settings.schema_title.as_ref().map(|title| format!("Schema title: {title}")));
        parts.extend(schema.err().map(|without| without.sentence().to_owned()));
        parts.join("\n\n")
    }
}

fn operation(name: &Name<'_>, schema: Result<&Placed, Without>) -> Value {
    let mut form = Map::new();
    match schema {
        Ok(placed) => {
            form.insert("schema".into(), json!({ "$ref": placed.reference }));
            form.extend(placed.example.clone().map(|example| ("example".to_owned(), example)));
        }
        Err(_) => {
            form.insert("schema".into(), json!({ "$ref": "#/components/schemas/Event" }));
        }
    }
    let content: Map<String, Value> = FORMS.iter().map(|name| ((*name).to_owned(), form.clone().into())).collect();
    let parameter = |name: &str| json!({ "$ref": format!("#/components/parameters/{name}") });
    let parameters = PARAMETERS.map(parameter);
    let response = |name: &str| json!({ "$ref": format!("#/components/responses/{name}") });
    json!({
        "tags": ["streams"],
        "operationId": format!("stream.{}", name.name),
        "summary": format!("{} events", name.name),
        "description": name.description(schema),
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "The stream.",
                "headers": { "Sluice-Notice": { "$ref": "#/components/headers/Sluice-Notice" } },
                "content": content,
            },
            "400": response("BadStreamRequest"),
            "405": response("WrongMethod"),
            "429": response("TooManyStreams"),
            "503": response("NoRoom"),
        },
    })
}
