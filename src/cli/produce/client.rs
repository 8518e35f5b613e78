//! Batches to the server, one request at a time, again where that can help.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};

use super::lines::Event;
use super::report::Report;
use super::verdict::{Answer, Cause, Fate, Verdict, judge};
use crate::cli::remote::{BackOff, retry_after};
use crate::fetch::{body_at_most, with_causes};
use crate::shutdown::{Stage, Stop};

/// Bytes of an answer. It may repeat a whole batch.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Posts batches.
pub(super) struct Poster {
    pub(super) http: Client,
    /// With the parameters of every request.
    pub(super) url: Url,
    pub(super) dry_run: bool,
    pub(super) patience: Patience,
}

/// How often something is tried again that brings nothing on, and after how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) retries: u32,
    pub(super) back_off: BackOff,
}

/// The server takes no more, or somebody asked to stop: what is left is not sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GaveUp;

/// What is to be done about events that are not decided.
enum Next {
    Done,
    /// Because one event spoils the whole: the halves, each by itself.
    Halve,
    Retry {
        cause: Cause,
        after: Option<Duration>,
    },
    Never(String),
}

impl Poster {
    /// Sends a batch until every event of it is accepted or refused.
    pub(super) async fn send(&self, batch: Vec<Event>, stop: &mut Stop, report: &mut Report) -> Result<(), GaveUp> {
        // The parts of the batch that are left, the first one last.
        let mut left = vec![batch];
        let mut retry = 0;
        while let Some(mut events) = left.pop() {
            let before = events.len();
            let next = tokio::select! {
                next = self.attempt(&mut events, report) => next,
                () = stop.reached(Stage::Over) => {
                    events.iter_mut().for_each(|event| event.unsure = true);
                    Next::Never("a second signal: the request in flight is cut".into())
                }
            };
            report.progress();
            retry = if events.len() < before { 0 } else { retry };
            match next {
                Next::Done => retry = 0,
                Next::Halve => {
                    left.push(events.split_off(events.len() / 2));
                    left.push(events);
                }
                Next::Retry { cause, after } => {
                    let wait = self.patience.back_off.wait(retry, after);
                    let why = format!("{}: {}", cause.code, cause.message);
                    let count = events.len();
                    left.push(events);
                    if retry == self.patience.retries {
                        return give_up(left, &format!("gave up after {retry} retries: {why}"), report);
                    }
                    if stop.stage() == Stage::Running {
                        report.retrying(count, &why, wait);
                    }
                    tokio::select! {
                        biased;
                        () = stop.reached(Stage::EndStreams) => return give_up(left, &format!("stopped: {why}"), report),
                        () = tokio::time::sleep(wait) => retry += 1,
                    }
                }
                Next::Never(why) => {
                    left.push(events);
                    return give_up(left, &why, report);
                }
            }
        }
        Ok(())
    }

    /// One request. Leaves those events that are not decided.
    async fn attempt(&self, events: &mut Vec<Event>, report: &mut Report) -> Next {
        let answer = match self.post(body(events)).await {
            Ok(answer) => answer,
            Err(error) => {
                let sent = !error.is_connect();
                events.iter_mut().for_each(|event| event.unsure |= sent);
                let message = with_causes(error);
                return Next::Retry { cause: Cause::new("no-answer", &message), after: None };
            }
        };
        match judge(&answer, events.len(), self.dry_run) {
            Verdict::Each(fates) => match settle(events, fates, report) {
                None => Next::Done,
                Some(cause) => Next::Retry { cause, after: answer.retry_after },
            },
            Verdict::Whole(cause) if events.len() == 1 => {
                settle(events, vec![Fate::Refused(cause)], report);
                Next::Done
            }
            Verdict::Whole(_) => Next::Halve,
            Verdict::Later(cause) => {
                events.iter_mut().for_each(|event| event.unsure |= cause.is_unsure());
                Next::Retry { cause, after: answer.retry_after }
            }
            Verdict::Never(why) => Next::Never(why),
        }
    }

    async fn post(&self, body: Vec<u8>) -> Result<Answer, reqwest::Error> {
        let request = self.http.post(self.url.clone()).header(CONTENT_TYPE, "application/json").body(body);
        let mut response = request.send().await?;
        let (status, retry_after) = (response.status().as_u16(), retry_after(response.headers()));
        // Nothing is no JSON, and then only the status counts.
        let body = body_at_most(&mut response, ANSWER_BYTES_MAX).await?.unwrap_or_default();
        Ok(Answer { status, retry_after, body })
    }
}

/// Tells what became of each, and leaves those that are to be sent again, and why.
fn settle(events: &mut Vec<Event>, fates: Vec<Fate>, report: &mut Report) -> Option<Cause> {
    let mut again = None;
    let mut left = Vec::new();
    for (mut event, fate) in events.drain(..).zip(fates) {
        match fate {
            Fate::Accepted => report.accepted(&event),
            Fate::Refused(cause) => report.refused(event.line, &cause.code, &cause.message),
            Fate::Again(cause) => {
                event.unsure |= cause.is_unsure();
                left.push(event);
                again = again.or(Some(cause));
            }
        }
    }
    *events = left;
    again
}

fn give_up(left: Vec<Vec<Event>>, why: &str, report: &mut Report) -> Result<(), GaveUp> {
    let left: Vec<Event> = left.into_iter().rev().flatten().collect();
    report.gave_up(&left, why);
    Err(GaveUp)
}

/// An array, the events as they were written.
fn body(events: &[Event]) -> Vec<u8> {
    let bytes: usize = events.iter().map(|event| event.json.len() + 1).sum();
    let mut body = Vec::with_capacity(bytes + 1);
    for event in events {
        body.push(if body.is_empty() { b'[' } else { b',' });
        body.extend_from_slice(&event.json);
    }
    body.push(b']');
    body
}
