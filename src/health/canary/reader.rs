//! The canary's reader: one stream, kept open, and opened again where the last one ended.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use tokio::time::Instant;

use super::line::{Answer, Line};
use super::sse::Events;
use super::{Lost, SECRET_HEADER};
use crate::health::Step;
use crate::model::CANARY;

pub(super) struct Reader {
    line: Arc<Line>,
    stream: Option<Stream>,
    last_id: Option<String>,
    /// How long the newest stream took to open.
    pub(super) opening: Duration,
}

struct Stream {
    answer: Answer,
    events: Events,
}

impl Reader {
    pub(super) fn new(line: Arc<Line>) -> Self {
        Self { line, stream: None, last_id: None, opening: Duration::ZERO }
    }

    pub(super) fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    pub(super) fn close(&mut self) {
        self.stream = None;
    }

    /// Another stream, from where the last one ended; open when its first bytes are here.
    pub(super) async fn open(&mut self) -> Result<(), Lost> {
        self.stream = None;
        let began = Instant::now();
        let resumed = self.last_id.as_deref().map(|id| ("last-event-id", id));
        let headers: Vec<_> = [("accept", "text/event-stream")].into_iter().chain(resumed).collect();
        let target = format!("/v2/stream/{CANARY}");
        let answer = self.line.ask(Step::Open, Method::GET, &target, &headers, String::new()).await?;
        if answer.status != StatusCode::OK {
            if answer.status == StatusCode::BAD_REQUEST {
                // The log may be another one: its ids are nobody's any more.
                self.last_id = None;
            }
            return Err(Lost::at(Step::Open, &format!("the answer is {}", answer.status)));
        }
        if !answer.headers.contains_key(SECRET_HEADER) {
            let why = "it is told to come back later, although it has a place of its own";
            return Err(Lost::at(Step::Open, &why));
        }
        let mut stream = Stream { answer, events: Events::default() };
        while !stream.events.has_begun() {
            stream.take(Step::Open).await?;
        }
        self.stream = Some(stream);
        self.opening = began.elapsed();
        Ok(())
    }

    /// The data of the next event; an error where the stream has ended. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<String, Lost> {
        loop {
            let Some(stream) = &mut self.stream else { return Err(Lost::at(Step::Open, &"no stream is open")) };
            if let Some(event) = stream.events.next() {
                self.last_id = event.id.or(self.last_id.take());
                return Ok(event.data);
            }
            if let Err(lost) = stream.take(Step::Read).await {
                self.stream = None;
                return Err(lost);
            }
        }
    }
}

impl Stream {
    async fn take(&mut self, at: Step) -> Result<(), Lost> {
        let frame = self.answer.body.frame().await.ok_or_else(|| Lost::at(at, &"the stream has ended"))?;
        let frame = frame.map_err(|error| Lost::at(at, &format!("the stream has broken off: {error}")))?;
        let Some(bytes) = frame.data_ref() else { return Ok(()) };
        self.events.push(bytes).map_err(|error| Lost::at(at, &error))
    }
}
