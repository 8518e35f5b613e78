//! One connection after the other, until somebody has had enough.

use std::time::Duration;

use reqwest::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::recent::Recent;
use super::sink::{Full, Sink};
use super::sse::{EVENT_BYTES_MAX, Parser, Piece};
use crate::cli::complain;
use crate::cli::remote::{BackOff, retry_after};
use crate::fetch::with_causes;

const BACK_OFF: BackOff = BackOff { first: Duration::from_secs(1), most: Duration::from_secs(60) };
/// A connection that has lasted so long was a good one, though it brought no event.
const HELD_FOR: Duration = Duration::from_secs(30);
/// Longest id that is kept: servers do not read longer ones.
const ID_BYTES_MAX: usize = 16 << 10;
/// Bytes of a refusal that are read.
const PROBLEM_BYTES_MAX: usize = 64 << 10;

/// How it ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As somebody wished.
    Done,
    /// The server says that it is of no use to come again.
    Failed(String),
}

/// How one connection ends.
#[derive(Debug)]
enum Cut {
    Over(End),
    /// As the protocol has it; streams are not for ever.
    Clean,
    /// Something went wrong. Not sooner than then.
    Broken(String, Option<Duration>),
}

pub(super) struct Follower {
    http: Client,
    url: Url,
    /// Where it stands: the id that was sent last.
    id: Option<String>,
    /// What the server says is a good time to wait.
    retry: Option<Duration>,
    stall: Option<Duration>,
    recent: Recent,
    /// Connections in a row that brought nothing.
    failures: u32,
    /// Somebody was told that it does not go on.
    complained: bool,
}

impl Follower {
    pub(super) fn new(http: Client, url: Url, id: Option<String>, stall: Duration) -> Self {
        let stall = Some(stall).filter(|stall| !stall.is_zero());
        let recent = Recent::default();
        Self { http, url, id, retry: None, stall, recent, failures: 0, complained: false }
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref().filter(|id| !id.is_empty())
    }

    pub(super) async fn follow(&mut self, sink: &mut Sink) -> End {
        loop {
            let asked = match self.connection(sink).await {
                Cut::Over(end) => return end,
                Cut::Clean => None,
                Cut::Broken(why, asked) => {
                    self.complain(&why);
                    asked
                }
            };
            let wait = BACK_OFF.wait(self.failures, asked.max(self.retry));
            self.failures = self.failures.saturating_add(1);
            sleep(wait).await;
        }
    }

    async fn connection(&mut self, sink: &mut Sink) -> Cut {
        match self.within(self.request().send()).await {
            Ok(Ok(response)) => match self.accepted(response).await {
                Ok(response) => self.read(response, sink).await,
                Err(cut) => cut,
            },
            Ok(Err(error)) => Cut::Broken(with_causes(error), None),
            Err(stalled) => stalled,
        }
    }

    fn request(&self) -> reqwest::RequestBuilder {
        let request = self.http.get(self.url.clone()).header(ACCEPT, "text/event-stream");
        let request = request.header(CACHE_CONTROL, "no-cache");
        match self.id().map(HeaderValue::from_str) {
            Some(Ok(id)) => request.header("last-event-id", id),
            _ => request,
        }
    }

    /// Whether this is a stream.
    async fn accepted(&mut self, response: Response) -> Result<Response, Cut> {
        let status = response.status();
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if status == StatusCode::OK && kind.starts_with("text/event-stream") {
            return Ok(response);
        }
        let passes =
            status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        let after = retry_after(response.headers());
        let why = match status {
            StatusCode::OK => format!("the answer is no event stream but '{kind}': is this the right address?"),
            _ => match self.within(problem(response)).await {
                Ok(Some(detail)) => format!("{status}: {detail}"),
                _ => status.to_string(),
            },
        };
        Err(if passes { Cut::Broken(why, after) } else { Cut::Over(End::Failed(why)) })
    }

    async fn read(&mut self, mut response: Response, sink: &mut Sink) -> Cut {
        let mut parser = Parser::default();
        let began = Instant::now();
        loop {
            if began.elapsed() >= HELD_FOR {
                self.failures = 0;
            }
            let chunk = match self.within(response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => return Cut::Clean,
                Ok(Err(error)) => return Cut::Broken(with_causes(error), None),
                Err(stalled) => return stalled,
            };
            self.goes_on();
            let mut left = &chunk[..];
            let taken = self.take(&mut parser, &mut left, sink).and_then(|()| sink.flush());
            if let Err(Full) = taken {
                return Cut::Over(End::Done);
            }
        }
    }

    /// What the chunk brings.
    fn take(&mut self, parser: &mut Parser, left: &mut &[u8], sink: &mut Sink) -> Result<(), Full> {
        loop {
            let before = *left;
            let piece = parser.next(left);
            sink.wire(&before[..before.len() - left.len()])?;
            match piece {
                None => return Ok(()),
                Some(Piece::Place(id)) if id.len() <= ID_BYTES_MAX => self.id = Some(id),
                Some(Piece::Place(_)) => {}
                Some(Piece::Retry(retry)) => self.retry = Some(retry),
                Some(Piece::TooLong) => complain(&format!("an event over {EVENT_BYTES_MAX} bytes is left out")),
                Some(Piece::Event(data)) => {
                    self.failures = 0;
                    if !self.recent.is_again(&data) {
                        let more = sink.event(&data);
                        // The last event has a place, too, and may be the last that is wanted.
                        if more.is_err()
                            && let Some(Piece::Place(id)) = parser.next(left)
                        {
                            self.id = Some(id);
                        }
                        more?;
                    }
                }
            }
        }
    }

    /// Nothing that a server does may take for ever.
    async fn within<T>(&self, what: impl Future<Output = T>) -> Result<T, Cut> {
        let Some(stall) = self.stall else { return Ok(what.await) };
        let stalled = |_| Cut::Broken(format!("nothing came for {stall:?}, not even a keep-alive"), None);
        timeout(stall, what).await.map_err(stalled)
    }

    /// Once, and not for every attempt.
    fn complain(&mut self, why: &str) {
        if !std::mem::replace(&mut self.complained, true) {
            complain(&format!("{why}; trying again until it goes on"));
        }
    }

    fn goes_on(&mut self) {
        if std::mem::take(&mut self.complained) {
            complain(&"it goes on");
        }
    }
}

/// What a refusal says, for people.
async fn problem(mut response: Response) -> Option<String> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > PROBLEM_BYTES_MAX {
            break;
        }
    }
    let problem: Value = serde_json::from_slice(&body).ok()?;
    // EventStreams' second shape has a message.
    let detail = problem["detail"].as_str().or_else(|| problem["message"].as_str())?;
    Some(super::line::printable(detail))
}
