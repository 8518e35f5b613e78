//! One key with a value from somewhere, not yet believed.

use std::fmt;
use std::path::PathBuf;

use toml::{Table, Value};

use super::Config;
use crate::model::nearest;

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    File(PathBuf),
    Environment(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One key with a value. Has no `Debug`: the value may be a secret.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) path: Vec<String>,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

impl Setting {
    /// With dots, as people write it.
    pub(super) fn key(&self) -> String {
        self.path.join(".")
    }

    /// Reads the key as if it were the only one, so that one fault does not hide the next.
    pub(super) fn read_alone(&self) -> Result<Config, String> {
        let mut table = Table::new();
        insert(&mut table, &self.path, self.value.clone());
        Value::Table(table).try_into().map_err(|error| explain(&error))
    }
}

/// The settings of a table, a key each.
pub(super) fn flatten(table: Table, origin: &Origin) -> Vec<Setting> {
    let mut settings = Vec::new();
    collect(table, &mut Vec::new(), origin, &mut settings);
    settings
}

fn collect(table: Table, path: &mut Vec<String>, origin: &Origin, settings: &mut Vec<Setting>) {
    for (key, value) in table {
        path.push(key);
        match value {
            Value::Table(inner) if !inner.is_empty() => collect(inner, path, origin, settings),
            value => settings.push(Setting { path: path.clone(), value, origin: origin.clone() }),
        }
        path.pop();
    }
}

/// Sets the value at a path, over whatever stood in its way.
pub(super) fn insert(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => {
            table.insert(key.clone(), value);
        }
        [section, rest @ ..] => {
            let inner = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
            if !inner.is_table() {
                *inner = Value::Table(Table::new());
            }
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// What is wrong, in a line; for an unknown key with the one that may have been meant.
pub(super) fn explain(error: &toml::de::Error) -> String {
    let message = error.message().lines().next().unwrap_or_default();
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match names.as_slice() {
        [unknown, known @ ..] if message.starts_with("unknown field") => {
            match nearest(unknown, known.iter().copied(), 1).first() {
                Some(near) => format!("there is no key '{unknown}' here; did you mean '{near}'?"),
                None => format!("there is no key '{unknown}' here; the keys are {}", known.join(", ")),
            }
        }
        _ => message.to_owned(),
    }
}
