//! What holds, and where it comes from: for people who wonder why.

use toml::{Table, Value};

use super::Config;
use super::loader::winner;
use super::setting::{Origin, Setting, flatten};

/// Shows every key with its default, or with an example where there is none.
pub(super) const SAMPLE: &str = include_str!("../../config/sluice.toml");
/// Begins a line of the sample that would set a key.
const KEY_MARK: &str = "#: ";

/// The section whose keys are librdkafka's, and whose secrets its own module redacts.
const PROPERTIES: &str = "log.kafka.properties";

/// Keys whose values nobody is shown.
const SECRETS: [&str; 1] = ["admin.token"];

/// A line for each key.
pub(super) fn page(config: &Config, settings: &[Setting]) -> String {
    let keys = sample_settings().into_iter().filter(|sample| !sample.key().starts_with(PROPERTIES));
    let mut page: String = keys.map(|sample| line(&sample, winner(settings, &sample.key()))).collect();
    for (property, value) in properties(config) {
        let key = format!("{PROPERTIES}.{property}");
        let from = winner(settings, &key).map_or("more than one origin".to_owned(), |set| set.origin.to_string());
        page += &format!("{PROPERTIES}.{property:?} = {value}  # {from}\n");
    }
    page
}

fn line(sample: &Setting, set: Option<&Setting>) -> String {
    let key = sample.key();
    match set {
        Some(set) if SECRETS.contains(&key.as_str()) => format!("{key} = \"(redacted)\"  # {}\n", set.origin),
        Some(set) => format!("{key} = {}  # {}\n", redacted(&set.value), set.origin),
        None if is_default(sample) => format!("{key} = {}  # default\n", sample.value),
        None => format!("# {key} is not set\n"),
    }
}

/// Without the hashes of tokens: a short token can be guessed from its hash.
fn redacted(value: &Value) -> Value {
    match value {
        Value::Array(list) => Value::Array(list.iter().map(redacted).collect()),
        Value::Table(table) => {
            let shown = |(key, value): (&String, &Value)| match key.as_str() {
                "sha256" => (key.clone(), Value::String("(redacted)".into())),
                _ => (key.clone(), redacted(value)),
            };
            Value::Table(table.iter().map(shown).collect())
        }
        other => other.clone(),
    }
}

/// Every key that the sample would set.
pub(super) fn sample_settings() -> Vec<Setting> {
    let text: String = SAMPLE
        .lines()
        .filter_map(|line| line.strip_prefix(KEY_MARK).or_else(|| line.starts_with('[').then_some(line)))
        .map(|line| format!("{line}\n"))
        .collect();
    let table: Table = text.parse().expect("the sample is TOML: a test reads it");
    flatten(table, &Origin::File("config/sluice.toml".into()))
}

/// Whether the sample shows the default of this key, rather than an example.
pub(super) fn is_default(sample: &Setting) -> bool {
    sample.read_alone().is_ok_and(|config| format!("{config:?}") == format!("{:?}", Config::default()))
}

/// As the engine's own module prints them: without secrets.
fn properties(config: &Config) -> Table {
    let shown = Value::try_from(&config.log.kafka).ok();
    shown.and_then(|shown| shown.get("properties")?.as_table().cloned()).unwrap_or_default()
}
