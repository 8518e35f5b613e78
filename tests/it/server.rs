//! A server process of the test's own, on a folder and a port that it keeps over restarts.

use std::fs::{self, File};
use std::future::ready;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use serde_json::Value;
use tempfile::TempDir;

use crate::raw::{Answer, Raw, Stream};
use crate::support::{PATIENCE, eventually};

/// How a server is started: on SQLite, with the built-in streams, and no other settings, unless told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    kafka: Option<String>,
    streams: Option<String>,
    config: Option<String>,
    environment: Vec<(String, String)>,
    listen: Option<String>,
    default_admin: bool,
    unready: bool,
    hands_over: bool,
}

impl Options {
    /// The log is this Kafka (`host:port`).
    pub fn kafka(mut self, bootstrap: &str) -> Self {
        self.kafka = Some(bootstrap.to_owned());
        self
    }

    /// The text of a catalogue file.
    pub fn streams(mut self, yaml: &str) -> Self {
        self.streams = Some(yaml.to_owned());
        self
    }

    /// The text of a configuration file.
    pub fn config(mut self, toml: &str) -> Self {
        self.config = Some(toml.to_owned());
        self
    }

    /// An environment variable, such as `SLUICE__HUB__RING_BYTES`.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Instead of a port of the test's choice.
    pub fn listen(mut self, address: &str) -> Self {
        self.listen = Some(address.to_owned());
        self
    }

    /// The operators' listener is not named.
    pub fn default_admin(mut self) -> Self {
        self.default_admin = true;
        self
    }

    /// It offers its sockets to the next one on the same folder.
    pub fn hands_over(mut self) -> Self {
        self.hands_over = true;
        self
    }

    /// `start` does not wait until the server is ready, only until it listens.
    pub fn unready(mut self) -> Self {
        self.unready = true;
        self
    }
}

/// A process whose place another one has taken. Killed when it is dropped.
pub struct Left(Child);

impl Left {
    /// Waits until it is gone.
    pub async fn ended(&mut self) -> ExitStatus {
        until_ended(&mut self.0).await.expect("it ends")
    }

    pub fn runs(&mut self) -> bool {
        self.0.try_wait().expect("a child").is_none()
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Killed, and its folder removed, when it is dropped.
pub struct Server {
    options: Options,
    folder: TempDir,
    process: Child,
    /// Where it listens; the same after a restart.
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

impl Server {
    pub async fn start(options: Options) -> Self {
        let folder = tempfile::Builder::new().prefix("sluice-it-").tempdir().expect("a folder");
        for (name, text) in [("streams.yaml", &options.streams), ("sluice.toml", &options.config)] {
            if let Some(text) = text {
                fs::write(folder.path().join(name), text).expect("the folder can be written");
            }
        }
        let address = free_address();
        let listen = options.listen.clone().unwrap_or_else(|| address.to_string());
        let process = spawn(&options, &folder, &listen);
        let mut server = Self { options, folder, process, address, admin: address };
        server.until_it_serves().await;
        server
    }

    /// On the same folder and the same port. What ran before must have been stopped or killed.
    pub async fn start_again(&mut self) {
        assert!(self.process.try_wait().expect("a child").is_some(), "the server still runs");
        self.process = spawn(&self.options, &self.folder, &self.address.to_string());
        self.until_it_serves().await;
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, signal).expect("the server runs");
    }

    /// Waits until the process is gone.
    pub async fn ended(&mut self) -> ExitStatus {
        let status = until_ended(&mut self.process).await;
        status.unwrap_or_else(|| panic!("the server does not end; its log:\n{}", self.stderr()))
    }

    /// Another process takes over from this one, which is brought back. Returns when the other one serves.
    pub async fn hand_over(&mut self) -> Left {
        let next = spawn(&self.options, &self.folder, &self.address.to_string());
        let before = Left(std::mem::replace(&mut self.process, next));
        self.until_it_serves().await;
        before
    }

    /// The arguments, environment and files with which it was started, for another process.
    pub fn command(&self) -> Command {
        command(&self.options, &self.folder, &self.address.to_string())
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Kilobytes that it has in memory.
    pub fn resident_kb(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its size");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// How many files and sockets it may have from now on; with `None` no more than it has. Brings what that was.
    pub fn limit_descriptors(&self, limit: Option<u64>) -> u64 {
        let descriptor = |number: &u64| fs::symlink_metadata(format!("/proc/{}/fd/{number}", self.pid())).is_ok();
        let current = limit.unwrap_or_else(|| (0..).find(|number| !descriptor(number)).expect("a number"));
        let (pid, kind) = (Some(Pid::from_child(&self.process)), Resource::Nofile);
        let maximum = getrlimit(kind).maximum;
        let before = prlimit(pid, kind, Rlimit { current: Some(current), maximum }).expect("the server runs");
        before.current.expect("a limit")
    }

    /// Another text for `sluice.toml` or `streams.yaml`, whole or not at all.
    pub fn rewrite(&self, name: &str, text: &str) {
        let next = self.folder.path().join("next");
        fs::write(&next, text).expect("the folder can be written");
        fs::rename(next, self.folder.path().join(name)).expect("the folder can be written");
    }

    /// A request to the operators' listener, on a connection of its own.
    pub async fn ask_admin(&self, method: &str, target: &str, body: &str) -> Answer {
        self.ask_admin_as(method, target, "", body).await
    }

    /// The same with `headers`, which are whole lines.
    pub async fn ask_admin_as(&self, method: &str, target: &str, headers: &str, body: &str) -> Answer {
        let mut raw = Raw::connect(self.admin).await;
        let length = body.len();
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n");
        raw.send(head + body).await;
        raw.answer().await
    }

    /// The folder of the SQLite log.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn stdout(&self) -> String {
        fs::read_to_string(self.folder.path().join("stdout")).unwrap_or_default()
    }

    /// What it has logged, of all its lives.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    pub async fn connect(&self) -> Raw {
        Raw::connect(self.address).await
    }

    /// One request on a connection of its own.
    pub async fn get(&self, target: &str) -> Answer {
        self.connect().await.get(target, "").await
    }

    /// POSTs to `/v1/events` on a connection of its own.
    pub async fn post(&self, body: &str) -> Answer {
        self.connect().await.post(body).await
    }

    /// POSTs an event and insists that it was taken.
    pub async fn put(&self, event: &Value) {
        let answer = self.post(&event.to_string()).await;
        assert_eq!(answer.status(), 201, "{answer:?}; the log:\n{}", self.stderr());
    }

    /// An open stream, its opening bytes read. `headers` are whole lines.
    pub async fn stream(&self, target: &str, headers: &str) -> Stream {
        Stream::open(self.address, target, headers).await
    }

    /// A metric's value, whatever its labels; 0 if it does not exist yet.
    pub async fn metric(&self, name: &str) -> f64 {
        self.metric_where(name, |labels| labels.starts_with(['{', ' '])).await
    }

    /// The same where a label has this value.
    pub async fn metric_of(&self, name: &str, value: &str) -> f64 {
        let label = format!("=\"{value}\"");
        self.metric_where(name, |labels| labels.starts_with('{') && labels.contains(&label)).await
    }

    /// The sum over the lines of which this holds, told what comes after the name.
    async fn metric_where(&self, name: &str, holds: impl Fn(&str) -> bool) -> f64 {
        let text = Raw::connect(self.admin).await.get("/metrics", "").await.text();
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(&holds);
        let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        text.lines().filter(of_name).filter_map(value).sum()
    }

    async fn until_it_serves(&mut self) {
        let mut lines = None;
        let spoke = eventually(PATIENCE, || {
            let stdout = self.stdout();
            let url = |start: &str| {
                let mut bases = stdout.lines().filter_map(|line| line.strip_prefix(start));
                bases.find_map(|base| base.split_once("://")?.1.parse().ok())
            };
            lines = url("sluice admin on ").zip(url("sluice listening on "));
            ready(lines.is_some() || self.process.try_wait().expect("a child").is_some())
        });
        let spoke = spoke.await;
        let Some((admin, address)) = lines else {
            panic!("the server does not serve ({spoke}): {}\n{}", self.stdout(), self.stderr());
        };
        (self.admin, self.address) = (admin, address);
        if !self.options.unready {
            self.until_ready().await;
        }
    }

    pub async fn until_ready(&self) {
        let ready = eventually(PATIENCE, async || self.get("/readyz").await.status() == 200).await;
        assert!(ready, "the server is not ready; its log:\n{}", self.stderr());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn until_ended(process: &mut Child) -> Option<ExitStatus> {
    let mut status = None;
    eventually(PATIENCE, || {
        status = process.try_wait().expect("a child");
        ready(status.is_some())
    })
    .await;
    status
}

fn spawn(options: &Options, folder: &TempDir, listen: &str) -> Child {
    command(options, folder, listen).spawn().expect("the server's binary runs")
}

fn command(options: &Options, folder: &TempDir, listen: &str) -> Command {
    let path = |name: &str| folder.path().join(name);
    let mut command = sluice();
    command.args(["--listen", listen, "--data"]).arg(path("data"));
    if !options.default_admin {
        command.args(["--admin", "127.0.0.1:0"]);
    }
    if let Some(bootstrap) = &options.kafka {
        command.args(["--kafka", bootstrap]);
    }
    if options.streams.is_some() {
        command.arg("--streams").arg(path("streams.yaml"));
    }
    if options.config.is_some() {
        command.arg("--config").arg(path("sluice.toml"));
    }
    if options.hands_over {
        command.env("SLUICE__STOP__HANDOVER_SOCKET", path("handover.sock"));
    }
    command.envs(options.environment.iter().map(|(name, value)| (name, value)));
    // Files and no pipes: nobody has to read them, and the last words of a killed server stay. stdout is this life's.
    let stderr = File::options().create(true).append(true).open(path("stderr")).expect("a file");
    command.stdout(File::create(path("stdout")).expect("a file")).stderr(stderr);
    command.stdin(Stdio::null());
    command
}

/// The binary, with streams that end at once when it stops, and without the limits of one client: all that a test does
/// comes from one address. (Tests of the limits set them.)
pub fn sluice() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.env("SLUICE__STOP__DRAIN_DELAY", "0s").env("SLUICE__STOP__DRAIN_SPREAD", "0s");
    for limit in ["STREAMS_PER_CLIENT", "NEW_STREAMS_PER_MINUTE", "CONNECTIONS_PER_CLIENT"] {
        command.env(format!("SLUICE__LIMITS__{limit}"), "0");
    }
    command
}

/// Below the range that outgoing connections use: a stopped server finds its port free when it starts again.
pub fn free_address() -> SocketAddr {
    std::iter::repeat_with(|| SocketAddr::from(([127, 0, 0, 1], fastrand::u16(12_000..32_000))))
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("one of them is free")
}
