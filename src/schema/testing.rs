//! Schemas for tests.

use serde_json::Value;

use super::compiled::Schema;
use super::source::prepared;
use super::tree::Fault;
use super::uri::SchemaUri;

pub(super) fn uri(text: &str) -> SchemaUri {
    SchemaUri::parse(text).expect("a URI")
}

pub(super) fn compiled(value: Value) -> Result<Schema, String> {
    let uri = uri("/test/1.0.0");
    let mut sources = [(uri.to_string(), prepared(value)?)];
    Schema::compile(&uri, &mut sources).map_err(|fault| match fault {
        Fault::Refused(why) => why,
        Fault::Junk(why) => why.to_owned(),
        Fault::Missing(missing) => format!("{missing} is missing"),
    })
}

pub(super) fn schema(value: Value) -> Schema {
    compiled(value).expect("a schema")
}
