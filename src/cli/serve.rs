//! `sluice serve`: the two runtimes, the lines that say what is served, and the exit code.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, reload};

use super::{EXIT_FAILURE, EXIT_USAGE, ServeArgs, complain, demo, say};
use crate::app::{self, Ended, Running, Settings, Signals, StartError};
use crate::config::Loaded;
use crate::http::Logging;

pub(super) fn run(args: &ServeArgs) -> ExitCode {
    let settings = {
        let args = args.clone();
        Arc::new(move || args.settings())
    };
    let loaded = match settings().load() {
        Ok(loaded) => loaded,
        Err(faults) => {
            complain(&faults);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let logging = log_to_stderr();
    match serve(loaded, settings, logging, args.demo) {
        Ok(Ended::Clean) => ExitCode::SUCCESS,
        Ok(Ended::Unfinished) => ExitCode::from(EXIT_FAILURE),
        Err(e) => {
            complain(&e);
            ExitCode::from(if e.is_config() { EXIT_USAGE } else { EXIT_FAILURE })
        }
    }
}

fn serve(loaded: Loaded, settings: Settings, logging: Logging, demo: bool) -> Result<Ended, StartError> {
    let engine = tokio::runtime::Builder::new_multi_thread().thread_name("engine").enable_all().build()?;
    let served = actix_rt::System::new().block_on(async {
        let mut early = Signals::listen()?;
        let running = tokio::select! {
            biased;
            () = early.next() => {
                tracing::info!("stopped before it served");
                return Ok(Ended::Clean);
            }
            running = app::start(loaded, settings, logging, engine.handle()) => running?,
        };
        drop(early);
        greet(&running);
        if demo {
            engine.spawn(demo::feed(running.intake.clone(), running.stop()));
        }
        Ok(running.until_stopped().await)
    });
    // Whatever still runs there was told to stop and did not.
    engine.shutdown_background();
    served
}

/// What is served, where the log is, and what to try. The two lines with addresses are read by programs.
fn greet(running: &Running) {
    let base = format!("{}://{}", running.scheme, running.address);
    say(&format!("sluice {} · {} streams · log: {}", env!("CARGO_PKG_VERSION"), running.streams, running.log));
    say(&format!("  read:  curl -N {base}/v2/stream/recentchange"));
    let write = format!(
        "  write: curl -H 'Content-Type: application/json' -d '{{\"$schema\":\"/test/event/1.0.0\",\"meta\":{{\"stream\":\"test.event\"}},\"test\":\"hello\"}}' {base}/v1/events"
    );
    say(if running.takes_in { &write } else { "  write: closed here (see intake.auth and http.serve)" });
    if let Some(admin) = running.admin {
        say(&format!("sluice admin on http://{admin}"));
    }
    say(&format!("sluice listening on {base}"));
}

/// actix's own word on a malformed request is an error, and any client could write it. The profiler tells how it starts.
const LEVELS: &str = "info,actix_server=warn,actix_http=off,pprof=warn";

/// Text on a terminal, JSON otherwise. `RUST_LOG` sets the levels, and operators change them while the server runs.
fn log_to_stderr() -> Logging {
    let levels = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LEVELS));
    let directives = levels.to_string();
    let (levels, handle) = reload::Layer::new(levels);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if std::io::stderr().is_terminal() { lines.boxed() } else { lines.json().boxed() };
    tracing_subscriber::registry().with(levels).with(lines).init();
    let set = move |directives: &str| {
        let levels = EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
        handle.reload(levels).map_err(|error| error.to_string())
    };
    Logging { directives, set: Box::new(set) }
}
