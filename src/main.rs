//! `sluice`: see the library's page, which is the project's architecture.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// It says what it holds (GET /debug/heap), and gives back what many short-lived requests have left.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    sluice::cli::run()
}
