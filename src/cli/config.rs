//! `sluice config check FILE` and `sluice config show`.

use std::path::Path;
use std::process::ExitCode;

use super::{EXIT_USAGE, ServeArgs, complain, say};
use crate::app;
use crate::catalog::{Catalog, Place};
use crate::config::{Config, Loader};
use crate::intake::auth::Guard;

pub(super) fn check(file: &Path) -> ExitCode {
    let mut loader = Loader::default();
    loader.file(file);
    let right = |catalog| format!("{} is right{catalog}", file.display());
    let config = loader.finish().map_err(|e| e.to_string());
    report(
        config
            .and_then(|config| keys(&config).and_then(|()| https(&config)).and_then(|()| catalog(&config)))
            .map(right),
    )
}

pub(super) fn show(args: &ServeArgs) -> ExitCode {
    report(args.settings().show().map_err(|e| e.to_string()))
}

/// The catalogue is a file of its own, and as much a part of what was configured. Brings what is to be said of it.
fn catalog(config: &Config) -> Result<&'static str, String> {
    let service = config.catalog.destination_event_service.as_deref();
    match config.catalog.place()? {
        Place::BuiltIn => Ok(""),
        Place::File(path) => Catalog::from_file(&path, service).map(|_| "").map_err(|e| e.to_string()),
        Place::Address(_) => Ok(" (catalog.source is an address: it was not asked)"),
    }
}

/// So are the keys that producers' tokens are signed with.
fn keys(config: &Config) -> Result<(), String> {
    Guard::new(&config.intake, true).map(|_| ()).map_err(|e| e.to_string())
}

/// And what the listener shows.
fn https(config: &Config) -> Result<(), String> {
    app::identity_of(config).map(|_| ()).map_err(|e| e.to_string())
}

fn report(result: Result<String, String>) -> ExitCode {
    match result {
        Ok(text) => {
            say(text.trim_end());
            ExitCode::SUCCESS
        }
        Err(faults) => {
            complain(&faults);
            ExitCode::from(EXIT_USAGE)
        }
    }
}
