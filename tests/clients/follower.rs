//! One client that reads a stream, in a process or a task of its own, and what it has been given.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::PATIENCE;

/// An event as the client's user has it: with the id that a resume would name, and the number that the test gave it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Given {
    pub id: String,
    pub number: u64,
}

pub type Giving = watch::Sender<Vec<Given>>;

pub struct Follower {
    pub name: &'static str,
    given: watch::Receiver<Vec<Given>>,
    /// What the client itself has to say.
    complaints: Option<PathBuf>,
    /// Ends with the follower.
    _task: JoinSet<()>,
}

impl Follower {
    /// A program that prints a line of JSON for each event. Killed when the follower is dropped.
    pub fn run(name: &'static str, mut command: Command, folder: &Path) -> Self {
        let complaints = folder.join(name);
        let stderr = File::create(&complaints).expect("a file");
        let process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).kill_on_drop(true).spawn();
        let mut process = process.unwrap_or_else(|fault| panic!("{name} cannot be started: {fault}"));
        let lines = process.stdout.take().expect("it is piped");
        let mut follower = Self::on(name, async move |giving| {
            let mut lines = BufReader::new(lines).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let given = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{name} prints {line:?}: {e}"));
                giving.send_modify(|all| all.push(given));
            }
            drop(process);
        });
        follower.complaints = Some(complaints);
        follower
    }

    /// A client in this process.
    pub fn on<F>(name: &'static str, client: impl FnOnce(Giving) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (giving, given) = watch::channel(Vec::new());
        let mut task = JoinSet::new();
        task.spawn(client(giving));
        Self { name, given, complaints: None, _task: task }
    }

    /// Waits until it has been given the event of this number.
    pub async fn until(&mut self, number: u64) -> Result<(), String> {
        let there = self.given.wait_for(|all| all.last().is_some_and(|last| last.number >= number));
        let fault = match timeout(PATIENCE, there).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(_)) => "has ended",
            Err(_) => "waits in vain",
        };
        let (name, all) = (self.name, self.given());
        let last = all.last().map(|last| last.number);
        let complaints = self.complaints.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        Err(format!("{name} {fault} for {number}: {} events, the last is {last:?}; {complaints:?}", all.len()))
    }

    pub fn given(&self) -> Vec<Given> {
        self.given.borrow().clone()
    }
}
