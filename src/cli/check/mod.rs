//! `sluice check`: whether events flow through a server, as somebody outside of it finds, in the form of a Nagios plug-in.
//!
//! - this page: the flags, and the exit code
//! - `probe` asks a server: its verdict, a real stream, and an event of its own
//! - `report` the line that monitoring reads
//!
//! Exit codes: 0 OK, 1 WARNING, 2 CRITICAL, whatever happens. Never 3, which is UNKNOWN: nobody is called for that.

mod probe;
mod report;

#[cfg(test)]
mod tests;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::redirect::Policy;

use self::probe::{Probe, Wanted};
use self::report::{Level, Report};
use super::remote::{self, TOKEN_BYTES_MAX};
use crate::fetch;
use crate::model::{StreamName, units};

const URL_DEFAULT: &str = "http://127.0.0.1:8888";
/// Holds the token where no flag does: a flag is seen by everybody who lists processes.
const TOKEN_VARIABLE: &str = "SLUICE_TOKEN";
/// The stream for events of this command: everybody's to try things out with.
const POST_STREAM_DEFAULT: &str = "test.event";

/// Finds out from outside whether events flow, and says so as a Nagios plug-in: exit 0 OK, 1 WARNING, 2 CRITICAL.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address of the server's public listener.
    #[arg(value_name = "URL", default_value = URL_DEFAULT)]
    url: String,
    /// Ask of this stream, and read it. Without it the stream whose event came last is read.
    #[arg(long, value_name = "NAME", value_parser = stream)]
    stream: Option<StreamName>,
    /// CRITICAL if the stream's last event is older.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_age: Option<Duration>,
    /// Bearer token to post an event with, and read it back; without it the variable SLUICE_TOKEN.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// The stream that it is posted to (its schema is test/event); named, it is posted also without a token. [default: test.event]
    #[arg(long, value_name = "NAME", value_parser = stream)]
    post_stream: Option<StreamName>,
    /// CRITICAL if all of it takes longer.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,
}

pub(super) fn run(args: &Args) -> ExitCode {
    // What is read is the report on stdout.
    std::panic::set_hook(Box::new(|_| {}));
    let report = guarded(|| look(args));
    // A report that nobody gets says nothing good.
    let told = writeln!(std::io::stdout(), "{report}").is_ok();
    ExitCode::from(if told { report.level.code() } else { Level::Critical.code() })
}

/// A fault of this command says nothing good of the server: it is CRITICAL, and no other code.
fn guarded(look: impl FnOnce() -> Report) -> Report {
    let looked = catch_unwind(AssertUnwindSafe(look));
    looked.unwrap_or_else(|_| Report::critical("this check itself failed: that is a fault in sluice; report it"))
}

fn look(args: &Args) -> Report {
    let probe = match probe(args) {
        Ok(probe) => probe,
        Err(fault) => return Report::critical(&fault),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return Report::critical(&format!("the client cannot run: {e}")),
    };
    let mut report = Report::new(Level::Ok);
    let looked = runtime.block_on(async { tokio::time::timeout(args.timeout, probe.look(&mut report)).await });
    // A name that is being looked up is nothing to wait for.
    runtime.shutdown_background();
    match looked {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => report.fails(&fault),
        Err(_) => report.fails(&format!("{} within {:?}", probe.is_at(), args.timeout)),
    }
    report
}

fn probe(args: &Args) -> Result<Probe, String> {
    let url = remote::address(&args.url).map_err(|fault| format!("the address: {fault}"))?;
    let variable = || std::env::var_os(TOKEN_VARIABLE).map(|token| token.to_string_lossy().into_owned());
    let token = args.token.clone().or_else(variable).filter(|token| !token.is_empty());
    let mut headers = HeaderMap::new();
    if let Some(token) = &token {
        let fault = || format!("the token is no bearer token: it has 1 to {TOKEN_BYTES_MAX} visible ASCII characters");
        headers.insert(AUTHORIZATION, remote::bearer(token.trim()).ok_or_else(fault)?);
    }
    // What is sent elsewhere would take the token there.
    let http = remote::client_builder(&url).redirect(Policy::none()).connect_timeout(args.timeout).build();
    let http = http.map_err(|e| format!("the client cannot be set up: {}", fetch::with_causes(e)))?;
    let default = || token.is_some().then(|| StreamName::parse(POST_STREAM_DEFAULT).ok()).flatten();
    let wanted = Wanted {
        stream: args.stream.clone(),
        max_age: args.max_age,
        post_stream: args.post_stream.clone().or_else(default),
        post_headers: headers,
    };
    Ok(Probe::new(http, url, wanted))
}

fn stream(text: &str) -> Result<StreamName, String> {
    StreamName::parse(text).map_err(|e| e.to_string())
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = units::parse_duration(text).filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| format!("'{text}' is not a duration: write \"30s\" or \"5m\""))
}
