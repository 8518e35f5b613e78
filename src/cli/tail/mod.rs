//! `sluice tail`: follows streams, and comes back by itself.
//!
//! - this page: the flags, the loop, the exit code
//! - `sse` bytes into events and places
//! - `follow` one connection after the other; `recent` leaves out what servers without exact places send again
//! - `sink` where events go: lines for people (`line`), newline-delimited JSON, or the wire as it is
//!
//! Works with every server of EventStreams' protocol, not with sluice alone.

mod follow;
mod line;
mod recent;
mod sink;
mod sse;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use self::follow::{End, Follower};
use self::sink::{Look, Sink};

pub(super) use self::sink::columns;
use super::remote::{self, AddressError};
use super::{EXIT_FAILURE, complain};
use crate::fetch;
use crate::model::{Timestamp, units};

const URL_DEFAULT: &str = "http://127.0.0.1:8888";
const STREAM_PATH: &str = "/v2/stream/";
const CONNECT_AT_MOST: Duration = Duration::from_secs(10);
const REDIRECTS_MAX: usize = 3;

/// Follows streams: a line for each event on a terminal, newline-delimited JSON in a pipe. Ctrl-C ends it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address of the server (default http://127.0.0.1:8888), and names of streams.
    #[arg(value_name = "[URL] STREAM", required = true)]
    what: Vec<String>,
    /// Begin at this time (2026-11-20T08:00:00Z, 2026-11-20), or so long ago (10m, 2h, 1d).
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Begin where somebody was who had this id last.
    #[arg(long, value_name = "ID")]
    last_event_id: Option<String>,
    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Show canary events, too.
    #[arg(long)]
    canary: bool,
    /// Print what the server sends as it is: ids and comments, too.
    #[arg(long)]
    raw: bool,
    /// Print the last id to stderr at the end, for --last-event-id.
    #[arg(long)]
    ids: bool,
    /// Connect again after so long without a byte, keep-alives included (0: never).
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    stall: Duration,
    /// Who asks: servers may want a name and an address.
    #[arg(long, value_name = "TEXT")]
    user_agent: Option<String>,
}

/// Why the command cannot begin. Each names its cure.
#[derive(Debug, thiserror::Error)]
enum UsageError {
    #[error("the address: {0}")]
    Address(#[from] AddressError),
    #[error("no stream is named: sluice tail [URL] STREAM…, such as sluice tail recentchange")]
    NoStream,
    #[error("--last-event-id: it is no text that a header can hold")]
    Id,
    #[error("--user-agent: it is no text that a header can hold")]
    UserAgent,
    #[error("the client cannot be set up: {0}")]
    Client(String),
}

pub(super) fn run(args: &Args) -> ExitCode {
    remote::run(follower(args), |follower, runtime| follow(args, follower, runtime))
}

fn follow(args: &Args, mut follower: Follower, runtime: Runtime) -> ExitCode {
    let stdout = io::stdout();
    let look = Look::of(args.raw, stdout.is_terminal(), has_colour(|name| std::env::var_os(name)));
    let mut sink = Sink::new(Box::new(stdout), look, args.count);
    let end = runtime.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            biased;
            _ = interrupt.recv() => Ok(End::Done),
            _ = terminate.recv() => Ok(End::Done),
            () = sink::unread() => Ok(End::Done),
            end = follower.follow(&mut sink) => Ok(end),
        }
    });
    // A name that is being looked up is nothing to wait for, and a pipe that nobody reads even less.
    runtime.shutdown_background();
    if args.ids
        && let Some(id) = follower.id()
    {
        complain(&format!("--last-event-id {}", quoted(&id)));
    }
    exit_code(end.unwrap_or_else(|e: io::Error| End::Failed(format!("signals cannot be heard: {e}"))))
}

/// Where nobody minds, and the terminal has it.
fn has_colour(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    variable("NO_COLOR").is_none_or(|off| off.is_empty()) && variable("TERM").is_some_and(|term| term != "dumb")
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    format!("'{}'", line::printable(text).replace('\'', r"'\''"))
}

fn exit_code(end: End) -> ExitCode {
    match end {
        End::Done => ExitCode::SUCCESS,
        End::Failed(why) => {
            complain(&why);
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn follower(args: &Args) -> Result<Follower, UsageError> {
    let url = address(args, Timestamp::now())?;
    let mut http = remote::client_builder(&url)
        .connect_timeout(CONNECT_AT_MOST)
        .redirect(reqwest::redirect::Policy::limited(REDIRECTS_MAX));
    if let Some(agent) = &args.user_agent {
        http = http.user_agent(HeaderValue::from_str(agent).map_err(|_| UsageError::UserAgent)?);
    }
    let http = http.build().map_err(|e| UsageError::Client(fetch::with_causes(e)))?;
    let id = args.last_event_id.as_deref().map(HeaderValue::from_str).transpose().map_err(|_| UsageError::Id)?;
    Ok(Follower::new(http, url, id, args.stall))
}

/// The address of the stream, with what is asked of it.
fn address(args: &Args, now: Timestamp) -> Result<Url, UsageError> {
    let (base, names) = match args.what.split_first() {
        Some((first, names)) if first.contains("://") => (first.clone(), names),
        Some((first, names)) if is_host_and_port(first) => (format!("http://{first}"), names),
        _ => (URL_DEFAULT.to_owned(), args.what.as_slice()),
    };
    let mut url = remote::address(&base)?;
    let path = url.path().trim_end_matches('/').to_owned();
    let (base, named) = path
        .split_once(STREAM_PATH)
        .or_else(|| Some((path.strip_suffix(STREAM_PATH.trim_end_matches('/'))?, "")))
        .unwrap_or((&path, ""));
    let encoded = names.iter().map(|name| {
        let parts: Vec<String> = name.split(',').map(encoded).collect();
        parts.join(",")
    });
    let names: Vec<String> =
        Some(named.to_owned()).filter(|named| !named.is_empty()).into_iter().chain(encoded).collect();
    if names.iter().all(String::is_empty) {
        return Err(UsageError::NoStream);
    }
    url.set_path(&format!("{base}{STREAM_PATH}{}", names.join(",")));
    let asked = [
        // Blocks that bring a place and no event: with them it comes back to where it was, also after hours without one.
        Some(("positions", "true".to_owned())),
        args.canary.then(|| ("canary", "true".to_owned())),
        args.since.as_ref().map(|since| ("since", absolute(since, now))),
    ];
    ask(&mut url, asked.into_iter().flatten());
    Ok(url)
}

/// As people write it. No stream is called so.
fn is_host_and_port(text: &str) -> bool {
    text.split_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok())
}

/// In place of what the address itself says of the same.
fn ask(url: &mut Url, asked: impl Iterator<Item = (&'static str, String)>) {
    let asked: Vec<_> = asked.collect();
    let kept = url.query_pairs().into_owned().filter(|(name, _)| asked.iter().all(|(own, _)| own != name));
    let kept: Vec<(String, String)> = kept.collect();
    url.query_pairs_mut().clear().extend_pairs(kept).extend_pairs(asked);
}

fn encoded(part: &str) -> String {
    form_urlencoded::byte_serialize(part.as_bytes()).collect::<String>().replace('+', "%20")
}

/// `10m` is ten minutes ago; everything else is the server's to read.
fn absolute(since: &str, now: Timestamp) -> String {
    let ago = units::parse_duration(since).filter(|_| since.ends_with(['s', 'm', 'h', 'd']));
    match ago.and_then(|ago| i64::try_from(ago.as_millis()).ok()) {
        Some(ago) => now.minus_ms(ago).0.max(0).to_string(),
        None => since.to_owned(),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    units::parse_duration(text).ok_or_else(|| format!("'{text}' is not a duration: write \"30s\", \"5m\" or 0"))
}
