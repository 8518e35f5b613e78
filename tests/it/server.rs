//! A sluice of the test's own, and HTTP by hand, so that a test sees every byte.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// How long a test waits for something that must happen. Generous: it is only spent when the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Killed when dropped, and its folder deleted.
pub(crate) struct Server {
    child: Child,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) folder: TempDir,
    _stdout: Lines<BufReader<ChildStdout>>,
}

pub(crate) fn sluice(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

impl Server {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder"), arguments).await
    }

    pub(crate) async fn start_in(folder: TempDir, arguments: &[&str]) -> Self {
        let mut command = sluice(&["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]);
        let mut child =
            command.arg(folder.path()).args(arguments).stderr(Stdio::inherit()).spawn().expect("the program");
        let mut stdout = BufReader::new(child.stdout.take().expect("its stdout")).lines();
        let admin = address_after(&mut stdout, "sluice admin on http://").await;
        let public = address_after(&mut stdout, "sluice listening on http://").await;
        Self { child, public, admin, folder, _stdout: stdout }
    }

    pub(crate) fn signal(&self) {
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).expect("a running process");
        kill_process(id, Signal::TERM).expect("a signal");
    }

    /// How it ended, and its folder.
    pub(crate) async fn ended(mut self) -> (ExitStatus, TempDir) {
        let ended = timeout(PATIENCE, self.child.wait()).await.expect("it ends").expect("a status");
        (ended, self.folder)
    }

    pub(crate) async fn send(&self, request: &str) -> Connection {
        let mut socket = TcpStream::connect(self.public).await.expect("a connection");
        socket.write_all(request.as_bytes()).await.expect("a request");
        Connection { socket, seen: String::new() }
    }

    pub(crate) async fn post(&self, event: &str) -> String {
        let head = "POST /v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json";
        let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{event}", event.len());
        self.send(&request).await.to_the_end().await
    }
}

/// Lines that were not announced may stand before it.
async fn address_after(lines: &mut Lines<BufReader<ChildStdout>>, words: &str) -> SocketAddr {
    loop {
        let line = timeout(PATIENCE, lines.next_line()).await.expect("it starts").expect("its stdout");
        let line = line.expect("a line before it ends");
        if let Some(address) = line.strip_prefix(words) {
            return address.parse().expect("an address");
        }
    }
}

/// One connection, and all that came over it so far.
pub(crate) struct Connection {
    socket: TcpStream,
    pub(crate) seen: String,
}

impl Connection {
    pub(crate) async fn until(&mut self, words: &str) {
        while !self.seen.contains(words) {
            assert!(self.read().await > 0, "'{words}' did not come: {}", self.seen);
        }
    }

    /// Reads until the server closes. A connection that is cut is a failure.
    pub(crate) async fn to_the_end(mut self) -> String {
        while self.read().await > 0 {}
        self.seen
    }

    async fn read(&mut self) -> usize {
        let mut bytes = [0; 4096];
        let read = timeout(PATIENCE, self.socket.read(&mut bytes)).await.expect("bytes").expect("a whole connection");
        self.seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        read
    }
}
