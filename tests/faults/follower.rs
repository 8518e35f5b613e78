//! A reader that stays connected, on one connection, and waiting on what it has seen.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::ledger::Ledger;
use crate::raw::{Event, Stream};
use crate::support::PATIENCE;

#[derive(Debug, Default)]
pub struct Seen {
    pub ledger: Ledger,
    pub heartbeats: usize,
    pub last_id: Option<String>,
}

pub struct Follower {
    name: &'static str,
    seen: watch::Receiver<Seen>,
    /// Ends with the follower.
    _task: JoinSet<()>,
}

impl Follower {
    /// Follows the stream from now on. `credit` gets one permit for each event.
    pub fn start(name: &'static str, mut stream: Stream, ledger: Ledger, credit: Option<Arc<Semaphore>>) -> Self {
        let (sender, seen) = watch::channel(Seen { ledger, ..Seen::default() });
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let chunk = stream.raw.chunk().await;
                let text = String::from_utf8(chunk).expect("UTF-8");
                assert!(!text.is_empty(), "the server ended the stream of the {name}");
                sender.send_modify(|seen| seen.hear(name, &text));
                if let Some(credit) = credit.as_ref().filter(|_| !text.starts_with(':')) {
                    credit.add_permits(1);
                }
            }
        });
        Self { name, seen, _task: task }
    }

    pub fn last_id(&self) -> Option<String> {
        self.seen.borrow().last_id.clone()
    }

    pub fn heartbeats(&self) -> usize {
        self.seen.borrow().heartbeats
    }

    /// Events so far.
    pub fn count(&self) -> usize {
        self.seen.borrow().ledger.count()
    }

    /// Waits until this is so. A reader whose connection has ended fails.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&Seen) -> bool) {
        match timeout(PATIENCE, self.seen.wait_for(|seen| holds(seen))).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => panic!("the {} was cut off, or got what it must not get", self.name),
            Err(_) => panic!("the {} waits in vain for {what}", self.name),
        }
    }
}

impl Seen {
    fn hear(&mut self, name: &str, chunk: &str) {
        if chunk == ":\n" {
            self.heartbeats += 1;
        } else if !chunk.starts_with(':') {
            let event = Event::parse(chunk);
            self.ledger.enter(&event).unwrap_or_else(|fault| panic!("the {name}: {fault}"));
            self.last_id = Some(event.id);
        }
    }
}
