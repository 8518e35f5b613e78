//! Collects settings, the later ones over the earlier ones, and reads them all.

use std::path::Path;

use toml::{Table, Value};

use super::setting::{Origin, Setting, explain, flatten, insert};
use super::{Config, Loaded, rules, show};

/// What environment variables begin with that set a key: `SLUICE__SECTION__KEY`.
const ENV_PREFIX: &str = "SLUICE__";

/// All that is wrong with a configuration, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// Takes settings in rising order of precedence.
#[derive(Default)]
pub struct Loader {
    settings: Vec<Setting>,
    faults: Vec<String>,
}

impl Loader {
    pub fn file(&mut self, path: &Path) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) => return self.faults.push(format!("{}: it cannot be read: {e}", path.display())),
        };
        match text.parse::<Table>() {
            Ok(table) => self.settings.extend(flatten(table, &Origin::File(path.into()))),
            // Not the error's own text: it quotes the line, which may hold a secret.
            Err(e) => {
                let line = e.span().map_or(0, |span| text[..span.start].lines().count().max(1));
                self.faults.push(format!("{}: line {line} is not TOML: {}", path.display(), explain(&e)));
            }
        }
    }

    /// Takes the variables that begin with `SLUICE__`; an empty one counts as not set. Below `…__PROPERTIES__` an
    /// underscore is a dot of librdkafka's name.
    pub fn environment(&mut self, variables: impl Iterator<Item = (String, String)>) {
        for (name, value) in variables.filter(|(_, value)| !value.is_empty()) {
            let Some(key) = name.strip_prefix(ENV_PREFIX) else { continue };
            let mut path: Vec<String> = key.to_ascii_lowercase().split("__").map(str::to_owned).collect();
            if let [.., section, property] = path.as_mut_slice()
                && section == "properties"
            {
                *property = property.replace('_', ".");
            }
            self.text(path, value, Origin::Environment(name));
        }
    }

    pub fn flag(&mut self, name: &'static str, key: &[&str], value: Option<String>) {
        if let Some(value) = value {
            self.text(key.iter().map(|part| (*part).to_owned()).collect(), value, Origin::Flag(name));
        }
    }

    /// Reads everything: the configuration, or all that is wrong with it.
    pub fn finish(self) -> Result<Config, ConfigError> {
        self.load().map(|loaded| loaded.config)
    }

    /// The same, with the settings that it was made of.
    pub fn load(self) -> Result<Loaded, ConfigError> {
        self.read().map(|(config, settings)| Loaded { config, settings })
    }

    /// What holds and where it comes from, a line for each key. Secrets do not show.
    pub fn show(self) -> Result<String, ConfigError> {
        self.read().map(|(config, settings)| show::page(&config, &settings))
    }

    /// A value that came as text is a number or a switch where only that makes sense.
    fn text(&mut self, path: Vec<String>, text: String, origin: Origin) {
        let number = text.parse().ok().map(Value::Integer);
        let switch = text.parse().ok().map(Value::Boolean);
        let as_text = Setting { path, value: Value::String(text), origin };
        let others = number.into_iter().chain(switch).map(|value| Setting { value, ..as_text.clone() });
        let readable = std::iter::once(as_text.clone()).chain(others).find(|setting| setting.read_alone().is_ok());
        self.settings.push(readable.unwrap_or(as_text));
    }

    fn read(mut self) -> Result<(Config, Vec<Setting>), ConfigError> {
        let mut merged = Table::new();
        for setting in &self.settings {
            match setting.read_alone() {
                Ok(_) => insert(&mut merged, &setting.path, setting.value.clone()),
                Err(fault) => self.faults.push(format!("{}: {}: {fault}", setting.origin, setting.key())),
            }
        }
        let read = Value::Table(merged).try_into::<Config>();
        let config = read.map_err(|e| self.faults.push(explain(&e))).unwrap_or_default();
        for (key, fault) in rules::broken(&config) {
            let origin =
                winner(&self.settings, &key).map_or("default".to_owned(), |setting| setting.origin.to_string());
            self.faults.push(format!("{origin}: {key}: {fault}"));
        }
        if self.faults.is_empty() { Ok((config, self.settings)) } else { Err(ConfigError(self.faults)) }
    }
}

/// The setting of this key that holds.
pub(super) fn winner<'a>(settings: &'a [Setting], key: &str) -> Option<&'a Setting> {
    settings.iter().rev().find(|setting| setting.key() == key)
}
