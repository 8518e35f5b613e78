//! The command line: `serve` (the default), `check`, `tail`, `produce`, `admin`, `config`, `version`.
//!
//! Exit codes: 0 a clean stop, or all events accepted; 2 wrong usage or configuration; 1 anything else. `check` has its own.

mod admin;
mod check;
mod config;
mod demo;
mod produce;
mod remote;
mod serve;
mod tail;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::Loader;

/// Wrong usage or configuration.
const EXIT_USAGE: u8 = 2;
/// Anything else that ends the process.
const EXIT_FAILURE: u8 = 1;
const EXIT_CODES: &str = "Exit codes: 0 a clean stop (SIGTERM, SIGINT), or all done; 2 wrong usage or configuration; 1 anything \
                          else: a taken port, a log that cannot be used, or that could not be closed before stop.deadline";

/// Events in over HTTP, a log between, endless Server-Sent-Events streams out.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default).
    Serve(ServeArgs),
    /// Find out from outside whether events flow: a Nagios plug-in.
    Check(check::Args),
    /// Follow streams: a line for each event on a terminal, newline-delimited JSON in a pipe.
    Tail(tail::Args),
    /// Post the events on stdin, a JSON object on each line.
    Produce(produce::Args),
    /// See and act: who reads and posts, limits, the deny list, a new configuration.
    Admin(admin::Args),
    /// Look at a configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print the version.
    Version,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report all that is wrong with a file; exit 2 if anything is.
    Check { file: PathBuf },
    /// Print what holds with these flags, a file and the environment, and where each value comes from.
    Show(ServeArgs),
}

#[derive(Debug, Clone, Default, Args)]
struct ServeArgs {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Public listener; port 0 picks a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Operators' listener, or "off".
    #[arg(long, value_name = "ADDR:PORT|off")]
    admin: Option<String>,
    /// Folder of the SQLite log.
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Kafka's bootstrap servers; without them the log is SQLite.
    #[arg(long, value_name = "HOST:PORT[,…]")]
    kafka: Option<String>,
    /// Catalogue instead of the built-in streams: a file (YAML or JSON), or the address of an EventStreamConfig API.
    #[arg(long, value_name = "FILE|URL")]
    streams: Option<String>,
    /// Folder or address of schemas instead of the built-in ones; may be repeated, and the first that has one wins.
    #[arg(long, value_name = "DIR|URL")]
    schemas: Vec<String>,
    /// Feed synthetic recentchange events, about 30 a second.
    #[arg(long)]
    demo: bool,
}

impl ServeArgs {
    /// The settings of file, environment and flags, in this order.
    fn settings(&self) -> Loader {
        let mut loader = Loader::default();
        if let Some(file) = &self.config {
            loader.file(file);
        }
        loader.environment(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))),
        );
        loader.flag("--listen", &["http", "listen"], self.listen.clone());
        loader.flag("--admin", &["admin", "listen"], self.admin.clone());
        loader.flag("--data", &["data_dir"], self.data.clone());
        loader.flag("--kafka", &["log", "kafka", "bootstrap_servers"], self.kafka.clone());
        loader.flag("--streams", &["catalog", "source"], self.streams.clone());
        let schemas = (!self.schemas.is_empty()).then(|| self.schemas.join(","));
        loader.flag("--schemas", &["schema", "bases"], schemas);
        loader
    }
}

pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Produce(args) => produce::run(&args),
        Command::Admin(args) => admin::run(&args),
        Command::Config { command: ConfigCommand::Check { file } } => config::check(&file),
        Command::Config { command: ConfigCommand::Show(args) } => config::show(&args),
        Command::Version => {
            say(concat!("sluice ", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
    }
}

/// A line on stdout. Somebody who no longer reads it (`| head -1`) is no reason to end.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Every line of it, where people look for what went wrong.
fn complain(what: &dyn std::fmt::Display) {
    for line in what.to_string().lines() {
        let _ = writeln!(std::io::stderr(), "sluice: {line}");
    }
}
