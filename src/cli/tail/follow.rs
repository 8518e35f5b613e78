//! One connection after the other, until somebody has had enough.

use std::time::Duration;

use futures_util::FutureExt;
use reqwest::header::{ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::recent::Recent;
use super::sink::{Full, Sink};
use super::sse::{Block, EVENT_BYTES_MAX, Parser};
use crate::cli::complain;
use crate::cli::remote::{BackOff, retry_after};
use crate::fetch::with_causes;
use crate::model::parse_since;

const BACK_OFF: BackOff = BackOff { first: Duration::from_secs(1), most: Duration::from_secs(60) };
/// A connection that has lasted so long was a good one, though it brought no event.
const HELD_FOR: Duration = Duration::from_secs(30);
/// Longest id that is kept: servers do not read longer ones.
const ID_BYTES_MAX: usize = 16 << 10;
/// Bytes of a refusal that are read.
const PROBLEM_BYTES_MAX: usize = 64 << 10;
/// What a server says is cut here: it is printed.
const REASON_CHARS_MAX: usize = 1_000;
const REASON_BYTES_MAX: usize = 4 * REASON_CHARS_MAX;

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
    Broken(Trouble, String, Option<Duration>),
}

/// What went wrong, as far as it is told apart: every kind is told once, and not for every attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    NoAnswer,
    Status(u16),
    Broken,
    Stalled,
    /// It ended at once. So does a server that has too many readers, or that stops.
    Empty,
}

pub(super) struct Follower {
    http: Client,
    url: Url,
    /// Where it stands: the id that came last.
    id: Option<HeaderValue>,
    /// Where that was when everything was printed.
    printed: Option<HeaderValue>,
    /// It began with what is new, and no id has come yet.
    is_live: bool,
    /// What the server says is a good time to wait.
    retry: Option<Duration>,
    stall: Option<Duration>,
    recent: Recent,
    /// Connections in a row that brought nothing.
    failures: u32,
    /// Why it does not go on, as it was told last.
    told: Option<Trouble>,
    /// What the server had to say last: the same is not said again after every reconnect.
    said: Vec<u8>,
}

impl Follower {
    pub(super) fn new(http: Client, url: Url, id: Option<HeaderValue>, stall: Duration) -> Self {
        let id = id.filter(|id| !id.is_empty());
        Self {
            http,
            is_live: id.is_none() && !url.query_pairs().any(|(name, _)| matches!(&*name, "since" | "lastEventId")),
            url,
            printed: id.clone(),
            id,
            retry: None,
            stall: Some(stall).filter(|stall| !stall.is_zero()),
            recent: Recent::default(),
            failures: 0,
            told: None,
            said: Vec::new(),
        }
    }

    /// After the last event that was printed.
    pub(super) fn id(&self) -> Option<String> {
        self.printed.as_ref().map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned())
    }

    #[cfg(test)]
    pub(super) fn attempts_in_vain(&self) -> u32 {
        self.failures
    }

    pub(super) async fn follow(&mut self, sink: &mut Sink) -> End {
        loop {
            let asked = match self.connection(sink).await {
                Cut::Over(end) => return end,
                Cut::Clean => None,
                Cut::Broken(trouble, why, asked) => {
                    self.tell(trouble, &why);
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
            Ok(Err(error)) => Cut::Broken(Trouble::NoAnswer, with_causes(error), None),
            Err(stalled) => stalled,
        }
    }

    fn request(&self) -> reqwest::RequestBuilder {
        let request = self.http.get(self.url.clone()).header(ACCEPT, "text/event-stream");
        let request = request.header(CACHE_CONTROL, "no-cache");
        match &self.id {
            Some(id) => request.header("last-event-id", id),
            None => request,
        }
    }

    /// Whether this is a stream.
    async fn accepted(&mut self, response: Response) -> Result<Response, Cut> {
        let status = response.status();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = header(CONTENT_TYPE);
        if !matches!(header(CONTENT_ENCODING), "" | "identity") {
            let why = format!("the answer is encoded as {}, which nobody asked for", reason(header(CONTENT_ENCODING)));
            return Err(Cut::Over(End::Failed(why)));
        }
        if status == StatusCode::OK && kind.starts_with("text/event-stream") {
            self.begin(response.headers());
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
        Err(if passes {
            Cut::Broken(Trouble::Status(status.as_u16()), why, after)
        } else {
            Cut::Over(End::Failed(why))
        })
    }

    /// Who begins with what is new has its beginning here, by the server's own clock, until an id says it better: what
    /// comes while the connection is cut would be lost.
    fn begin(&mut self, headers: &HeaderMap) {
        if !std::mem::take(&mut self.is_live) {
            return;
        }
        let date = headers.get(DATE).and_then(|date| date.to_str().ok());
        if let Some(Ok(Some(began))) = date.map(parse_since) {
            self.url.query_pairs_mut().append_pair("since", &began.0.to_string());
        }
    }

    async fn read(&mut self, mut response: Response, sink: &mut Sink) -> Cut {
        let mut parser = Parser::new(sink.wants_wire());
        let began = Instant::now();
        let mut has_brought = false;
        loop {
            // What is there already goes out together.
            let at_hand = if sink.is_full() { None } else { response.chunk().now_or_never() };
            let chunk = match at_hand {
                Some(chunk) => Ok(chunk),
                None => match self.print(sink).await {
                    Ok(()) => self.within(response.chunk()).await,
                    Err(end) => return Cut::Over(end),
                },
            };
            if began.elapsed() >= HELD_FOR {
                (self.failures, has_brought) = (0, true);
            }
            let ended = match chunk {
                Ok(Ok(Some(chunk))) => match self.take(&mut parser, &chunk, sink, &mut has_brought) {
                    Ok(()) => continue,
                    Err(full) => Cut::Over(End::from(full)),
                },
                Ok(Ok(None)) if has_brought => Cut::Clean,
                Ok(Ok(None)) => Cut::Broken(Trouble::Empty, "the stream ended before it brought anything".into(), None),
                Ok(Err(error)) => Cut::Broken(Trouble::Broken, with_causes(error), None),
                Err(stalled) => stalled,
            };
            return self.print(sink).await.map_or_else(Cut::Over, |()| ended);
        }
    }

    /// What the chunk brings.
    fn take(
        &mut self,
        parser: &mut Parser,
        mut chunk: &[u8],
        sink: &mut Sink,
        has_brought: &mut bool,
    ) -> Result<(), Full> {
        while let Some(block) = parser.next(&mut chunk) {
            if block.data.is_some() || block.id.is_some() {
                *has_brought = true;
                self.goes_on();
            }
            self.block(block, sink)?;
        }
        Ok(())
    }

    fn block(&mut self, block: Block, sink: &mut Sink) -> Result<(), Full> {
        self.retry = block.retry.or(self.retry);
        if block.is_cut {
            complain(&format!("an event over {EVENT_BYTES_MAX} bytes is left out"));
        }
        // Of places that it does not have any more, for one.
        if let Some(comment) = &block.comment {
            self.say(comment);
        }
        let mut again = false;
        if let Some(data) = &block.data {
            if block.is_error {
                self.say(data);
            } else {
                self.failures = 0;
                again = self.recent.is_again(block.id.as_deref(), data);
            }
        }
        let taken = if again { Ok(()) } else { sink.block(&block) };
        // One that no header can hold is as good as none: with the one before it no event is lost.
        let id = block.id.filter(|id| id.len() <= ID_BYTES_MAX).and_then(|id| HeaderValue::from_bytes(&id).ok());
        if let Some(id) = id {
            self.id = Some(id).filter(|id| !id.is_empty());
        }
        taken
    }

    async fn print(&mut self, sink: &mut Sink) -> Result<(), End> {
        sink.flush().await.map_err(End::from)?;
        self.printed.clone_from(&self.id);
        Ok(())
    }

    /// Nothing that a server does may take for ever.
    async fn within<T>(&self, what: impl Future<Output = T>) -> Result<T, Cut> {
        let Some(stall) = self.stall else { return Ok(what.await) };
        let why = || format!("nothing came for {stall:?}, not even a keep-alive");
        timeout(stall, what).await.map_err(|_| Cut::Broken(Trouble::Stalled, why(), None))
    }

    fn tell(&mut self, trouble: Trouble, why: &str) {
        if self.told.replace(trouble) != Some(trouble) {
            complain(&format!("{why}; trying again until it goes on"));
        }
    }

    fn say(&mut self, text: &[u8]) {
        let text = &text[..text.len().min(REASON_BYTES_MAX)];
        if self.said != text {
            complain(&format!("the server says: {}", reason(&String::from_utf8_lossy(text))));
            self.said = text.to_vec();
        }
    }

    fn goes_on(&mut self) {
        if self.told.take().is_some() {
            complain(&"it goes on");
        }
    }
}

impl From<Full> for End {
    fn from(full: Full) -> Self {
        match full {
            Full::Enough | Full::NobodyReads => Self::Done,
            Full::Failed(why) => Self::Failed(why),
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
    Some(reason(detail))
}

fn reason(text: &str) -> String {
    super::line::printable(&text.chars().take(REASON_CHARS_MAX).collect::<String>())
}
