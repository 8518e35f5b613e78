//! `sluice`: see the library's page, which is the project's architecture.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice::cli::run()
}
