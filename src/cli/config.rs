//! `sluice config check FILE` and `sluice config show`.

use std::path::Path;
use std::process::ExitCode;

use super::{EXIT_USAGE, ServeArgs, complain, say};
use crate::catalog::Catalog;
use crate::config::{Config, Loader};
use crate::intake::auth::Guard;

pub(super) fn check(file: &Path) -> ExitCode {
    let mut loader = Loader::default();
    loader.file(file);
    let right = || format!("{} is right", file.display());
    let config = loader.finish().map_err(|e| e.to_string());
    report(config.and_then(|config| catalog(&config).and_then(|()| keys(&config))).map(|()| right()))
}

pub(super) fn show(args: &ServeArgs) -> ExitCode {
    report(args.settings().show().map_err(|e| e.to_string()))
}

/// The catalogue is a file of its own, and as much a part of what was configured.
fn catalog(config: &Config) -> Result<(), String> {
    config
        .catalog
        .source
        .as_ref()
        .map_or(Ok(()), |path| Catalog::from_file(path).map(|_| ()).map_err(|e| e.to_string()))
}

/// So are the keys that producers' tokens are signed with.
fn keys(config: &Config) -> Result<(), String> {
    Guard::new(&config.intake, true).map(|_| ()).map_err(|e| e.to_string())
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
