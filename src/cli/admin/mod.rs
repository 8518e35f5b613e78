//! `sluice admin`: the operators' listener from the command line, with its own words.
//!
//! - this page: the words, what each asks, the exit code
//! - `client` one request, and what can go wrong with it
//! - `table` an answer for people
//!
//! On a terminal there are tables, in a pipe what the server has sent. Exit codes: 0; 2 wrong usage, or a refusal that is
//! the caller's fault; 1 anything else.

mod client;
mod table;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use self::client::{Failure, Operator, Request};
use super::complain;
use super::remote::{self, AddressError, TOKEN_BYTES_MAX};
use super::tail::columns;
use crate::model::{printable, units};

const URL_DEFAULT: &str = "http://127.0.0.1:9102";
/// Holds the token where no flag does: a flag is seen by everybody who lists processes.
const TOKEN_VARIABLE: &str = "SLUICE_ADMIN_TOKEN";

/// See and act: who reads and posts, limits, the deny list, a new configuration. Tables on a terminal, JSON in a pipe.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Address of the operators' listener.
    #[arg(long, global = true, value_name = "URL", default_value = URL_DEFAULT, conflicts_with = "socket")]
    url: String,
    /// Its Unix socket instead (admin.socket in the server's configuration).
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The server's admin.token; without it the variable SLUICE_ADMIN_TOKEN.
    #[arg(long, global = true, value_name = "TOKEN")]
    token: Option<String>,
    /// JSON on a terminal, too.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Who reads, by key: count, age, streams, bytes, lag, user agent.
    Clients(ClientsArgs),
    /// The networks that get nothing.
    Deny(DenyArgs),
    /// The limits that hold.
    Limits(LimitsArgs),
    /// Have the server read its configuration again: whole or not at all.
    Reload,
    /// The log levels; with a level, set it for a while.
    LogLevel(LogLevelArgs),
    /// A flame graph (SVG) of what the server's processors do.
    Profile(ProfileArgs),
    /// What the allocator says.
    Heap,
    /// Who posted and who read in the last minutes.
    Traffic,
    /// What waits for the log, and what the log refuses for good.
    Spool(SpoolArgs),
}

#[derive(Debug, ClapArgs)]
struct SpoolArgs {
    #[command(subcommand)]
    command: Option<SpoolCommand>,
}

#[derive(Debug, Subcommand)]
enum SpoolCommand {
    /// Send what the log has refused to it again, behind what waits.
    Retry,
    /// Delete what the log has refused.
    Drop,
}

#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
struct ClientsArgs {
    #[command(subcommand)]
    command: Option<ClientsCommand>,
    /// What the first ones have most of (default: count).
    #[arg(long, value_name = "WHAT")]
    by: Option<By>,
    /// How many keys.
    #[arg(long, value_name = "N")]
    top: Option<u32>,
    /// Only those of this key.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

#[derive(Debug, Subcommand)]
enum ClientsCommand {
    /// End readers after a whole event, asked to come back a little later.
    End {
        /// Their ids, as `clients` lists them.
        #[arg(value_name = "ID", required_unless_present = "key")]
        ids: Vec<u64>,
        /// All of this key.
        #[arg(long, value_name = "KEY", conflicts_with = "ids")]
        key: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    Count,
    Bytes,
    Refusals,
}

#[derive(Debug, ClapArgs)]
struct DenyArgs {
    #[command(subcommand)]
    command: Option<DenyCommand>,
}

#[derive(Debug, Subcommand)]
enum DenyCommand {
    /// Refuse this network or address, and end its readers.
    Add {
        #[arg(value_name = "CIDR")]
        cidr: String,
        /// For those who read the list later.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// For so long (30m, 1h, 7d). Not given: until it is removed.
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        expires_in: Option<String>,
    },
    /// Let it in again.
    Remove {
        #[arg(value_name = "CIDR")]
        cidr: String,
    },
}

#[derive(Debug, ClapArgs)]
struct LimitsArgs {
    #[command(subcommand)]
    command: Option<LimitsCommand>,
}

#[derive(Debug, Subcommand)]
enum LimitsCommand {
    /// Set some, all or nothing. They hold until a restart or a reload.
    Set {
        /// Such as streams_per_client=5, shadow=true, trusted_proxies=10.0.0.0/8,::1; JSON where a value is no text.
        #[arg(value_name = "KEY=VALUE", required = true, value_parser = limit)]
        limits: Vec<(String, Value)>,
    },
}

#[derive(Debug, ClapArgs)]
struct LogLevelArgs {
    /// error, warn, info, debug or trace.
    #[arg(value_name = "LEVEL")]
    level: Option<String>,
    /// Of this module alone, such as sluice::intake.
    #[arg(long, value_name = "MODULE", requires = "level")]
    module: Option<String>,
    /// For so long; after it the level is what it was.
    #[arg(long = "for", value_name = "DURATION", requires = "level", value_parser = duration)]
    time: Option<String>,
}

#[derive(Debug, ClapArgs)]
struct ProfileArgs {
    /// How long to look.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Where the picture goes; without it to stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Why the command cannot begin. Each names its cure.
#[derive(Debug, thiserror::Error)]
enum UsageError {
    #[error("--url: {0}")]
    Url(#[from] AddressError),
    #[error("the token of {0} is no bearer token: it has 1 to {TOKEN_BYTES_MAX} visible ASCII characters")]
    Token(&'static str),
    #[error("a picture cannot be shown here: name a file with --out FILE")]
    PictureOnTerminal,
    #[error("the client cannot be set up: {0}")]
    Client(String),
}

pub(super) fn run(args: &Args) -> ExitCode {
    remote::run(operator(args), |operator, runtime| ask_all(args, &operator, &runtime))
}

fn ask_all(args: &Args, operator: &Operator, runtime: &Runtime) -> ExitCode {
    let mut code = 0;
    for request in requests(&args.command) {
        let outcome = runtime.block_on(operator.ask(&request));
        if let Err(failure) = outcome.and_then(|body| print(args, &body)) {
            complain(&failure);
            code = failure.exit_code();
        }
    }
    ExitCode::from(code)
}

fn operator(args: &Args) -> Result<Operator, UsageError> {
    if matches!(&args.command, Command::Profile(ProfileArgs { out: None, .. })) && io::stdout().is_terminal() {
        return Err(UsageError::PictureOnTerminal);
    }
    let url = remote::address(&args.url)?;
    let of_variable = || std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
    let token = match (&args.token, of_variable()) {
        (Some(token), _) => Some(remote::bearer(token).ok_or(UsageError::Token("--token"))?),
        (None, Some(token)) => Some(remote::bearer(token.trim()).ok_or(UsageError::Token(TOKEN_VARIABLE))?),
        (None, None) => None,
    };
    Operator::new(url, args.socket.as_deref(), token).map_err(UsageError::Client)
}

/// What is to be asked, one after the other.
fn requests(command: &Command) -> Vec<Request> {
    match command {
        Command::Clients(args) => of_clients(args),
        Command::Deny(args) => vec![of_deny(args)],
        Command::Limits(LimitsArgs { command: None }) => vec![Request::get(&["limits"])],
        Command::Limits(LimitsArgs { command: Some(LimitsCommand::Set { limits }) }) => {
            let limits: Map<String, Value> = limits.iter().cloned().collect();
            vec![Request::new(Method::PUT, &["limits"]).with(Value::Object(limits))]
        }
        Command::Reload => vec![Request::new(Method::POST, &["reload"])],
        Command::LogLevel(args) => vec![of_log_level(args)],
        Command::Profile(args) => {
            let request = Request::get(&["debug", "profile"]).asking("seconds", args.seconds.to_string());
            vec![request.lasting(Duration::from_secs(args.seconds))]
        }
        Command::Heap => vec![Request::get(&["debug", "heap"])],
        Command::Traffic => vec![Request::get(&["traffic"])],
        Command::Spool(args) => vec![of_spool(args)],
    }
}

fn of_clients(args: &ClientsArgs) -> Vec<Request> {
    match &args.command {
        Some(ClientsCommand::End { key: Some(key), .. }) => {
            vec![Request::new(Method::DELETE, &["clients"]).asking("key", key.clone())]
        }
        Some(ClientsCommand::End { ids, key: None }) => {
            ids.iter().map(|id| Request::new(Method::DELETE, &["clients", &id.to_string()])).collect()
        }
        None => {
            let by = args.by.and_then(|by| Some(by.to_possible_value()?.get_name().to_owned()));
            let asked = [("by", by), ("top", args.top.map(|top| top.to_string())), ("key", args.key.clone())];
            let asked = asked.into_iter().filter_map(|(name, value)| Some((name, value?)));
            vec![asked.fold(Request::get(&["clients"]), |request, (name, value)| request.asking(name, value))]
        }
    }
}

fn of_deny(args: &DenyArgs) -> Request {
    match &args.command {
        None => Request::get(&["deny"]),
        Some(DenyCommand::Remove { cidr }) => Request::new(Method::DELETE, &["deny", cidr]),
        Some(DenyCommand::Add { cidr, reason, expires_in }) => {
            let said = [("reason", reason), ("expires_in", expires_in)];
            Request::new(Method::PUT, &["deny", cidr]).with(given(&said))
        }
    }
}

fn of_spool(args: &SpoolArgs) -> Request {
    match args.command {
        None => Request::get(&["spool"]),
        Some(SpoolCommand::Retry) => Request::new(Method::POST, &["spool", "retry"]),
        Some(SpoolCommand::Drop) => Request::new(Method::DELETE, &["spool", "aside"]),
    }
}

fn of_log_level(args: &LogLevelArgs) -> Request {
    let Some(level) = &args.level else { return Request::get(&["log-level"]) };
    let mut said = given(&[("module", &args.module), ("for", &args.time)]);
    said["level"] = json!(level);
    Request::new(Method::PUT, &["log-level"]).with(said)
}

/// A map of those that are there.
fn given(members: &[(&str, &Option<String>)]) -> Value {
    let given = members.iter().filter_map(|(name, value)| Some(((*name).to_owned(), json!(value.as_ref()?))));
    Value::Object(given.collect())
}

/// `KEY=VALUE`, the key also as it stands in the file. What is JSON and no text is taken as that.
fn limit(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("not KEY=VALUE, such as streams_per_client=5")?;
    let key = key.trim().trim_start_matches("limits.");
    if key.is_empty() {
        return Err("no key before the '='".to_owned());
    }
    let value = value.trim();
    let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
    Ok((key.to_owned(), value))
}

/// As it was written: the server reads it again.
fn duration(text: &str) -> Result<String, String> {
    let right = units::parse_duration(text).map(|_| text.to_owned());
    right.ok_or_else(|| format!("'{text}' is not a duration: write \"30s\", \"10m\" or \"1h\""))
}

fn print(args: &Args, body: &[u8]) -> Result<(), Failure> {
    if let Command::Profile(ProfileArgs { out: Some(path), .. }) = &args.command {
        return keep(path, body);
    }
    let mut stdout = io::stdout();
    let text = match (stdout.is_terminal(), serde_json::from_slice::<Value>(body)) {
        (true, Ok(answer)) if !args.json => table::of(&answer, columns()).into_bytes(),
        (true, _) => shown_as_it_is(&String::from_utf8_lossy(body)).into_bytes(),
        (false, _) => body.to_vec(),
    };
    let end: &[u8] = if text.ends_with(b"\n") { b"" } else { b"\n" };
    let written = stdout.write_all(&text).and_then(|()| stdout.write_all(end)).and_then(|()| stdout.flush());
    match written {
        // Somebody who no longer reads it (`| head -1`) is no reason to complain.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output("stdout".into(), e)),
        _ => Ok(()),
    }
}

fn keep(path: &Path, body: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, body).map_err(|e| Failure::Output(path.display().to_string(), e))
}

/// Line by line, so that nothing of it moves the cursor.
fn shown_as_it_is(text: &str) -> String {
    text.lines().map(|line| printable(line) + "\n").collect()
}
