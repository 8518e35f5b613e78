//! The catalogue's part of the document: which names there are, and a path for each with what its events look like.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::schemas::{Described, Found, Without, describe};
use crate::catalog::{Catalog, Stream};

/// The forms that a stream is given out in. Each has the same events.
const FORMS: [&str; 3] = ["text/event-stream", "application/json", "application/x-ndjson"];
/// Those of the list's operation.
const PARAMETERS: [&str; 5] = ["since", "lastEventId", "canary", "positions", "Last-Event-ID"];
/// `,"example":`
const EXAMPLE_KEY_BYTES: usize = 11;
const EXAMPLE_LEFT_OUT: &str = "Its example is left out here: this document would grow too large.";
const LIST: &str = "/v2/stream/{streams}";

/// A schema that is part of the document.
struct Placed {
    reference: String,
    example: Option<Value>,
    /// There is one, and it is left out.
    lacks_example: bool,
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
    let uses = |title: &str| FORMS.len() * uses.get(title).copied().unwrap_or_default();
    for title in found.titles() {
        let outcome = found.get(title).and_then(|schema| {
            let key = free_key(title, &own);
            let reference = format!("#/components/schemas/{key}");
            let Described { schema, example } = describe(schema.document(), &reference);
            if !take(&mut bytes, schema.to_string().len() + uses(title) * reference.len()) {
                return Err(Without::TooLarge);
            }
            own.insert(key, schema);
            Ok(Placed { reference, example, lacks_example: false })
        });
        placed.insert(title, outcome);
    }
    // Only now: an example stands there with every use, and must not drive out another schema.
    for title in found.titles() {
        let Some(Ok(placed)) = placed.get_mut(title) else { continue };
        let bytes_of = |example: &Value| uses(title) * (example.to_string().len() + EXAMPLE_KEY_BYTES);
        placed.lacks_example = placed.example.as_ref().is_some_and(|example| !take(&mut bytes, bytes_of(example)));
        placed.example = placed.example.take().filter(|_| !placed.lacks_example);
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
        match schema {
            Ok(placed) if placed.lacks_example => parts.push(EXAMPLE_LEFT_OUT.to_owned()),
            Ok(_) => {}
            Err(without) => parts.push(without.sentence().to_owned()),
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::runtime::Handle;

    use super::super::{Half, document, schemas};
    use super::*;
    use crate::fetch::Fetcher;
    use crate::schema::{Options, Schemas};

    async fn found(catalog: &Catalog) -> Found {
        let fetcher = Fetcher::new().expect("a fetcher");
        let schemas = Schemas::new(&Options::default(), fetcher, Handle::current()).expect("schemas");
        schemas::find(catalog, &Arc::new(schemas)).await
    }

    async fn written(catalog: &Catalog, bytes_max: usize) -> (usize, Value) {
        let text = document::write(catalog, found(catalog).await, &[Half::In, Half::Out], bytes_max);
        (text.len(), serde_json::from_slice(&text).expect("JSON"))
    }

    fn of(streams: &str) -> Catalog {
        Catalog::parse(streams, "test").expect("a catalogue")
    }

    fn operation_of<'a>(document: &'a Value, name: &str) -> &'a Value {
        &document["paths"][format!("/v2/stream/{name}")]["get"]
    }

    #[tokio::test]
    async fn within_its_limit_examples_are_left_out_and_then_schemas_and_then_paths_and_it_says_so() {
        let catalog = Catalog::built_in();
        let (whole, all) = written(&catalog, usize::MAX).await;
        assert!(all["components"]["schemas"].get("mediawiki.page.change").is_some());
        let mut seen = [false; 3];
        for bytes_max in (1..40).map(|part| whole * part / 40) {
            let (bytes, document) = written(&catalog, bytes_max).await;
            let names = document["paths"][LIST]["parameters"][0]["schema"]["items"]["enum"].as_array().expect("names");
            assert_eq!(names.len(), 10, "all names, whatever the limit");
            let told = document["paths"][LIST]["get"]["description"].as_str().unwrap_or_default();
            let (mut paths, mut bare, mut without_example) = (0, 0, 0);
            for name in names.iter().filter_map(Value::as_str) {
                let operation = operation_of(&document, name);
                let description = operation["description"].as_str().unwrap_or_default();
                let media = &operation["responses"]["200"]["content"]["application/json"];
                let has_schema = media["schema"]["$ref"] != "#/components/schemas/Event";
                paths += usize::from(operation.is_object());
                bare += usize::from(operation.is_object() && !has_schema);
                let told = description.contains("schema is left out here");
                assert_eq!(told, operation.is_object() && !has_schema, "{description}");
                let told = description.contains("example is left out here");
                assert_eq!(
                    told,
                    operation.is_object() && has_schema && media.get("example").is_none(),
                    "{description}"
                );
                without_example += usize::from(told);
            }
            seen = [seen[0] || without_example > 0, seen[1] || bare > 0, seen[2] || paths < 10];
            assert_eq!(told.contains(&format!("{paths} of 10 names")), paths < 10, "{told}");
            // The rest of the document, and the names, are there whatever the limit.
            assert!(bytes <= bytes_max.max(40_000), "{bytes} bytes, and {bytes_max} are allowed");
        }
        assert_eq!(seen, [true; 3], "some examples, some schemas and some paths have been left out");
    }

    #[tokio::test]
    async fn more_schemas_than_a_document_may_have_are_not_asked_for() {
        let streams: String = (0..1_000).map(|at| format!("s{at:04}: {{schema_title: t{at:04}}}\n")).collect();
        let (_, document) = written(&of(&streams), usize::MAX).await;
        let told = |name: &str| operation_of(&document, name)["description"].as_str().unwrap_or_default().to_owned();
        assert!(told("s0000").contains("in no schema repository"), "{}", told("s0000"));
        assert!(told("s0249").contains("in no schema repository"), "{}", told("s0249"));
        assert!(told("s0250").contains("is left out here"), "{}", told("s0250"));
    }

    #[test]
    fn titles_that_look_alike_as_keys_or_like_the_documents_own_have_keys_of_their_own() {
        let mut taken = Map::new();
        let keys = ["Problem", "a/b", "a.b", "/a/b", "ä"].map(|title| {
            let key = free_key(title, &taken);
            taken.insert(key.clone(), Value::Null);
            key
        });
        assert_eq!(keys, ["Problem", "a.b", "a.b_2", "a.b_3", "."]);
        assert_eq!(free_key("Problem", &taken), "Problem_2");
    }
}
