//! A server of our own: started on free ports with a log in a temporary folder, killed when dropped.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::target::parse_url;

const START_WAIT_MAX: Duration = Duration::from_secs(60);
/// Lines of its log that are shown when it does not start.
const LOG_LINES_SHOWN: usize = 20;

pub(crate) struct Server {
    child: Child,
    folder: PathBuf,
    pub(crate) http: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
}

/// What a server is started with.
#[derive(Clone, Copy, Default)]
pub(crate) struct Given<'a> {
    pub(crate) config: Option<&'a Path>,
    pub(crate) kafka: Option<&'a str>,
    /// The text of a catalogue.
    pub(crate) catalog: Option<&'a str>,
    /// Its limits hold for us, too.
    pub(crate) limited: bool,
}

impl Server {
    pub(crate) fn start(program: &Path, given: Given<'_>) -> Result<Self, Failure> {
        let Given { config, kafka, catalog, limited } = given;
        let folder =
            std::env::temp_dir().join(format!("sluice-loadtest-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        let failed = |error: std::io::Error| Failure::Start(format!("{}: {error}", program.display()));
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let mut command = Command::new(program);
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]).arg(folder.join("data"));
        command.args(config.iter().flat_map(|config| [Path::new("--config"), config]));
        if let Some(catalog) = catalog {
            let file = folder.join("streams.yaml");
            std::fs::write(&file, catalog).map_err(failed)?;
            command.arg("--streams").arg(file);
        }
        if !limited {
            for limit in ["STREAMS_PER_CLIENT", "NEW_STREAMS_PER_MINUTE", "CONNECTIONS_PER_CLIENT"] {
                command.env(format!("SLUICE__LIMITS__{limit}"), "0");
            }
        }
        command.args(kafka.iter().flat_map(|kafka| ["--kafka", kafka]));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(File::create(folder.join("log")).map_err(failed)?);
        let child = command.spawn().map_err(failed)?;
        // From here on a failure kills it, because the guard exists.
        let mut server = Self { child, folder, http: SocketAddr::from(([127, 0, 0, 1], 0)), admin: None };
        server.learn_addresses().map_err(|why| Failure::Start(format!("{why}\n{}", server.log_end())))?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn learn_addresses(&mut self) -> Result<(), String> {
        let stdout = self.child.stdout.take().ok_or("it has no stdout")?;
        let (lines, next_line) = mpsc::sync_channel(64);
        // Reads on for as long as the server lives, so that its stdout never blocks it.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = lines.try_send(line);
            }
        });
        let deadline = Instant::now() + START_WAIT_MAX;
        loop {
            let line = next_line.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.map_err(|_| "it did not say `sluice listening on http://ADDR:PORT`")?;
            if let Some(url) = line.strip_prefix("sluice admin on ") {
                self.admin = Some(parse_url(url)?);
            } else if let Some(url) = line.strip_prefix("sluice listening on ") {
                self.http = parse_url(url)?;
                return Ok(());
            }
        }
    }

    fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
