//! A reader that notes the ids of the first events, so that others can come back to just after them.

use std::ops::ControlFlow;

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::event::{self, Stamp};
use crate::failure::Failure;
use crate::ledger::Ledger;
use crate::stream::{Flow, Stream};
use crate::target::Target;
use crate::wire::Event;

const NOTES_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(60);

/// A place to come back to, and what a reader there has had.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) id: String,
    pub(super) had: Ledger,
}

/// A scout on its way; it sees all that is sent after it was sent out.
pub(super) struct Scout(JoinSet<Result<Vec<Place>, Failure>>);

impl Scout {
    /// Opens a live reader that will note the places after each of the first `places` events.
    pub(super) async fn send_out(target: &Target, places: usize) -> Result<Self, Failure> {
        let ask = target.ask(0);
        let (stream, run) = (Stream::open(&ask).await?, target.run);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let noted = timeout(NOTES_WAIT_MAX, note(stream, run, places)).await;
            let noted = noted.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
            noted.map_err(|source| Failure::Connection { address: ask.server, source })
        });
        Ok(Self(task))
    }

    pub(super) async fn places(mut self) -> Result<Vec<Place>, Failure> {
        let places = self.0.join_next().await.unwrap_or_else(|| unreachable!("one task was spawned"));
        places.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}

async fn note(mut stream: Stream, run: u32, places: usize) -> std::io::Result<Vec<Place>> {
    let (mut noted, mut had) = (Vec::new(), Ledger::default());
    while noted.len() < places {
        let flow = stream.next(|block| {
            let Some(event) = Event::parse(block) else { return ControlFlow::Continue(()) };
            let Some(stamp) = Stamp::find(event.data).filter(|stamp| stamp.run == run) else {
                return ControlFlow::Continue(());
            };
            had.enter(stamp, event::partition(event.data).unwrap_or(0));
            noted.push(Place { id: String::from_utf8_lossy(event.id).into_owned(), had: had.clone() });
            if noted.len() < places { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if flow.await? == Flow::Ended {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(noted)
}
