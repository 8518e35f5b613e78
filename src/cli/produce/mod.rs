//! `sluice produce`: the lines of stdin as events, in batches, to a server.
//!
//! - this page: the flags, the loop, the exit code
//! - `lines` bytes into lines into events; `input` stdin into batches
//! - `client` a batch to the server, again where that can help; `verdict` what an answer means for each event
//! - `report` what is said
//!
//! One request is in flight at a time, so that events stand in the log in the order of their lines. What is sent again
//! comes after the rest of its batch. Nothing of a line is changed.

mod client;
mod input;
mod lines;
mod report;
mod verdict;

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use self::client::{Patience, Poster};
use self::input::Input;
use self::report::Report;
use super::remote::{self, AddressError, BackOff, TOKEN_BYTES_MAX};
use super::{EXIT_FAILURE, complain};
use crate::fetch;
use crate::shutdown::{Shutdown, Stage, Stop};

/// A variable rather than a flag: a command line can be read by everybody on the machine.
const TOKEN_VARIABLE: &str = "SLUICE_TOKEN";
const EVENTS_PATH: &str = "/v1/events";
/// A whole request. The server answers every one within 9 s, unless it is told otherwise.
const REQUEST_AT_MOST: Duration = Duration::from_secs(60);
const CONNECT_AT_MOST: Duration = Duration::from_secs(5);
const BACK_OFF: BackOff = BackOff { first: Duration::from_millis(250), most: Duration::from_secs(30) };
/// Events of one request that anybody could want.
const BATCH_MOST: i64 = 10_000;

/// Posts the events on stdin, a JSON object on each line. Exits 0 if all were accepted, 1 if not.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The server, or the whole address of its POST.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8888")]
    url: String,
    /// Stream of the events that name none in meta.stream.
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// Schema of the events that name none in $schema.
    #[arg(long, value_name = "URI")]
    schema_uri: Option<String>,
    /// Events of one request; one of 1 MiB or more holds fewer.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=BATCH_MOST))]
    batch: u16,
    /// Do not wait until the events are in the log.
    #[arg(long, conflicts_with = "dry_run")]
    hasty: bool,
    /// Have the events judged, and none of them kept.
    #[arg(long)]
    dry_run: bool,
    /// How often a request is sent again that brings nothing on.
    #[arg(long, value_name = "N", default_value_t = 10)]
    retries: u32,
    /// File of the bearer token; without it the variable SLUICE_TOKEN.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Why the command cannot begin. Each names its cure, and none holds the token.
#[derive(Debug, thiserror::Error)]
enum UsageError {
    #[error("--url: {0}")]
    Url(AddressError),
    #[error("--url: {}: use --token-file, or the variable {TOKEN_VARIABLE}", AddressError::Password)]
    Password,
    #[error("--token-file {}: it cannot be read: {cause}", path.display())]
    TokenFile { path: PathBuf, cause: io::Error },
    #[error("the token of {0} is no bearer token: it has 1 to {TOKEN_BYTES_MAX} visible ASCII characters")]
    Token(String),
    #[error("the client cannot be set up: {0}")]
    Client(String),
}

pub(super) fn run(args: &Args) -> ExitCode {
    remote::run(poster(args), |poster, runtime| post_all(args, &poster, runtime))
}

fn post_all(args: &Args, poster: &Poster, runtime: Runtime) -> ExitCode {
    if io::stdin().is_terminal() {
        complain(&"events are read from this terminal, a JSON object on each line; Ctrl-D ends them");
    }
    let mut report = Report::new(Box::new(io::stdout()), Box::new(io::stderr()), io::stdout().is_terminal());
    runtime.block_on(async {
        match stop_at_signals(runtime.handle()) {
            Ok(stop) => produce(Input::of(io::stdin()), poster, args.batch.into(), stop, &mut report).await,
            Err(e) => report.gave_up(&[], &format!("signals cannot be heard: {e}")),
        }
    });
    // A name that is being looked up is nothing to wait for.
    runtime.shutdown_background();
    report.summary();
    if report.tally.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) }
}

/// Until stdin ends, the server takes no more, or somebody asks to stop.
async fn produce(mut input: Input, poster: &Poster, batch_max: usize, mut stop: Stop, report: &mut Report) {
    loop {
        let batch = input.batch(batch_max, &mut stop, report).await;
        let over = batch.is_empty();
        let gave_up = !over && poster.send(batch, &mut stop, report).await.is_err();
        if over || gave_up || stop.stage() > Stage::Running {
            break report.left(input.left());
        }
    }
}

/// The first signal stops the reading, the second one cuts what is in flight.
fn stop_at_signals(runtime: &Handle) -> io::Result<Stop> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let shutdown = Shutdown::default();
    let stop = shutdown.watcher();
    runtime.spawn(async move {
        for stage in [Stage::EndStreams, Stage::Over] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            shutdown.advance(stage);
        }
        // A sender that is gone would count as a stop, and this was the last one.
    });
    Ok(stop)
}

fn poster(args: &Args) -> Result<Poster, UsageError> {
    let url = address(args)?;
    let mut headers = HeaderMap::new();
    if let Some(token) = token(args.token_file.as_deref())? {
        headers.insert(AUTHORIZATION, token);
    }
    // A POST that is sent elsewhere would take its token there.
    let http = remote::client_builder(&url).default_headers(headers).redirect(Policy::none());
    let http = http.timeout(REQUEST_AT_MOST).connect_timeout(CONNECT_AT_MOST);
    let http = http.build().map_err(|e| UsageError::Client(fetch::with_causes(e)))?;
    let patience = Patience { retries: args.retries, back_off: BACK_OFF };
    Ok(Poster { http, url, dry_run: args.dry_run, patience })
}

/// The address of the POST, with what is to be said in its query.
fn address(args: &Args) -> Result<Url, UsageError> {
    let mut url = remote::address(&args.url).map_err(|fault| match fault {
        AddressError::Password => UsageError::Password,
        fault => UsageError::Url(fault),
    })?;
    let path = url.path().trim_end_matches('/');
    let base = path.strip_suffix(EVENTS_PATH).unwrap_or(path);
    url.set_path(&format!("{base}{EVENTS_PATH}"));
    let said = [
        ("stream", args.stream.as_deref()),
        ("schema_uri", args.schema_uri.as_deref()),
        ("hasty", args.hasty.then_some("true")),
        ("dry_run", args.dry_run.then_some("true")),
    ];
    for (name, value) in said {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    Ok(url)
}

/// What the header says, if there is a token. An empty variable counts as not set.
fn token(file: Option<&Path>) -> Result<Option<HeaderValue>, UsageError> {
    let (token, origin) = match file {
        Some(path) => {
            let text = read(path).map_err(|cause| UsageError::TokenFile { path: path.to_owned(), cause })?;
            (text, path.display().to_string())
        }
        None => match std::env::var_os(TOKEN_VARIABLE) {
            Some(token) if !token.is_empty() => (token.to_string_lossy().into_owned(), TOKEN_VARIABLE.to_owned()),
            _ => return Ok(None),
        },
    };
    remote::bearer(token.trim()).map(Some).ok_or(UsageError::Token(origin))
}

/// No more of it than shows that it is no token.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(2 * TOKEN_BYTES_MAX as u64).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
