//! `sluice config check FILE`.

use std::path::Path;
use std::process::ExitCode;

use super::{EXIT_USAGE, complain};
use crate::catalog::Catalog;
use crate::config::Loader;

pub(super) fn check(file: &Path) -> ExitCode {
    let mut loader = Loader::default();
    loader.file(file);
    let catalog = |config: crate::config::Config| match &config.catalog.source {
        Some(path) => Catalog::from_file(path).map(|_| ()).map_err(|e| e.to_string()),
        None => Ok(()),
    };
    match loader.finish().map_err(|e| e.to_string()).and_then(catalog) {
        Ok(()) => {
            println!("{} is right", file.display());
            ExitCode::SUCCESS
        }
        Err(faults) => {
            complain(&faults);
            ExitCode::from(EXIT_USAGE)
        }
    }
}
