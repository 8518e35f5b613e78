//! A canary makes the whole trip: every few seconds an event enters by the public listener, goes through intake and the log,
//! and is read back on the public listener. Nothing on its way knows a short cut; only the limits know that it is sluice.
//!
//! - this page: [`Canary`], trip after trip
//! - `line` a connection to the listener; `post` its producer; `reader` its reader, with `sse`
//! - `secret` what it proves itself with
//!
//! Knows the log only to have its own topic made. What the trips mean for the verdict is not said here.

mod line;
mod post;
mod reader;
mod secret;
mod sse;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use self::line::Line;
use self::reader::Reader;
use super::{Health, Options, Step, Trip};
use crate::limits::Limits;
use crate::log::{Log, MakeError};
use crate::metrics as names;
use crate::model::{CANARY, Topic};
use crate::shutdown::{Stage, Stop};

pub use self::secret::{SECRET_HEADER, Secret};

/// How long a trip may take: four fifths of the time between two, within these.
const TRIP_LEAST: Duration = Duration::from_secs(1);
const TRIP_MOST: Duration = Duration::from_secs(4);
/// How long a stream may take to open, before the canary sets out. While the log is away it takes 2 s, and then it is not the
/// stream that is wrong.
const OPEN_MOST: Duration = Duration::from_secs(4);
/// How long the log may take to make the topic. After it the canary goes all the same: the topic may be there.
const MAKE_MOST: Duration = Duration::from_secs(4);
/// The stream is opened anew every so many trips, so that opening stays proven, too.
const REOPEN_EVERY: u64 = 12;
/// Lost canaries that are remembered, in case that they come late.
const LOST_MAX: usize = 1_024;

/// What it needs of the server that it tries.
pub struct Parts {
    /// Where the public listener is.
    pub listener: SocketAddr,
    /// Where it speaks HTTPS.
    pub tls: Option<TlsConnector>,
    pub secret: Secret,
    pub limits: Limits,
    pub log: Arc<dyn Log>,
    pub engine: Handle,
    /// The halves that this instance serves.
    pub takes_in: bool,
    pub gives_out: bool,
}

/// Sends one canary after the other.
pub struct Canary {
    line: Arc<Line>,
    reader: Reader,
    log: Arc<dyn Log>,
    topic: OwnTopic,
    takes_in: bool,
    gives_out: bool,
    every: Duration,
    at_most: Duration,
    open_at_most: Duration,
    /// Of this start: instances that share a log see each other's canaries.
    instance: String,
    /// Of the newest canary.
    number: u64,
    lost: BTreeSet<u64>,
    /// Canaries of other instances since they were last told of.
    of_others: u64,
    /// Whether a stream that ends now is opened again before the next trip. Once: one that ends at once would be for ever.
    may_reopen: bool,
}

/// Whether there is a topic for the canaries, as far as is known.
enum OwnTopic {
    /// Or has been written to.
    Made,
    Missing(Option<MakeError>),
}

/// Where a canary was lost.
#[derive(Debug, PartialEq, Eq)]
struct Lost {
    at: Step,
    why: String,
    /// Until an operator has done something.
    log_refuses: bool,
}

/// A canary as it comes back.
#[derive(Deserialize)]
struct Seen {
    instance: String,
    number: u64,
}

impl Lost {
    fn at(at: Step, why: &impl Display) -> Self {
        Self { at, why: why.to_string(), log_refuses: false }
    }
}

impl From<Lost> for Trip {
    fn from(Lost { at, why, .. }: Lost) -> Self {
        Self::Failed { at, why }
    }
}

impl Canary {
    pub fn new(parts: Parts, options: &Options) -> Self {
        let Parts { listener, tls, secret, limits, log, engine, takes_in, gives_out } = parts;
        let line = Arc::new(Line::new((listener, tls), secret, limits, engine));
        Self {
            reader: Reader::new(line.clone()),
            line,
            log,
            topic: OwnTopic::Missing(None),
            takes_in,
            gives_out,
            every: options.canary_every,
            open_at_most: OPEN_MOST,
            at_most: (options.canary_every * 4 / 5).clamp(TRIP_LEAST, TRIP_MOST),
            instance: uuid::Uuid::new_v4().simple().to_string(),
            number: 0,
            lost: BTreeSet::new(),
            of_others: 0,
            may_reopen: false,
        }
    }

    /// Until a stop lets nobody in.
    pub async fn run(mut self, health: Health, mut stop: Stop) {
        let mut tick = interval(self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let trip = async {
                tokio::select! {
                    _ = tick.tick() => {}
                    () = health.log_is_back() => {}
                    () = self.read_on() => {}
                }
                self.travel().await
            };
            tokio::select! {
                trip = trip => {
                    count(&trip);
                    health.note(trip);
                }
                () = stop.reached(Stage::Finishing) => return,
            }
        }
    }

    /// One canary, over as much of the way as this instance has.
    async fn travel(&mut self) -> Trip {
        self.may_reopen = true;
        self.number += 1;
        if self.takes_in {
            self.make_topic().await;
        }
        let trip = match (self.takes_in, self.gives_out) {
            (true, true) => self.travel_whole().await,
            (true, false) => self.travel_in().await,
            (false, _) => self.travel_out().await,
        };
        if matches!(trip, Trip::Failed { .. }) && self.takes_in {
            self.lost.insert(self.number);
            if self.lost.len() > LOST_MAX {
                self.lost.pop_first();
            }
        }
        trip
    }

    async fn travel_whole(&mut self) -> Trip {
        if self.number.is_multiple_of(REOPEN_EVERY) {
            self.reader.close();
        }
        if !self.reader.is_open()
            && let Err(lost) = self.open().await
        {
            return lost.into();
        }
        let (line, instance, number) = (self.line.clone(), self.instance.clone(), self.number);
        let posting = post::post(&line, &instance, number);
        tokio::pin!(posting);
        let began = Instant::now();
        let over_at = began + self.at_most;
        let (mut is_taken, mut came_after) = (false, None);
        loop {
            tokio::select! {
                answer = &mut posting, if !is_taken => match answer {
                    Ok(()) => {
                        is_taken = true;
                        self.topic = OwnTopic::Made;
                    }
                    Err(lost) => return self.not_taken(lost),
                },
                data = self.reader.next() => match data {
                    Ok(data) if self.is_the_newest(&data) => came_after = Some(began.elapsed()),
                    Ok(_) => {}
                    Err(lost) => match self.open_again(lost).await {
                        Ok(()) => {}
                        Err(lost) => return lost.into(),
                    },
                },
                () = sleep_until(over_at) => return match is_taken {
                    true => self.late(Step::Read, "it was taken in, and has not come out").into(),
                    false => self.not_taken(self.late(Step::Append, "it was sent, and has not been acknowledged")),
                },
            }
            if let (true, Some(took)) = (is_taken, came_after) {
                return Trip::Made { took };
            }
        }
    }

    async fn travel_in(&mut self) -> Trip {
        let began = Instant::now();
        let posting = post::post(&self.line, &self.instance, self.number);
        let posted = timeout_at(began + self.at_most, posting).await;
        match posted.unwrap_or_else(|_| Err(self.late(Step::Append, "it was sent, and has not been acknowledged"))) {
            Ok(()) => {
                self.topic = OwnTopic::Made;
                let missing =
                    "http.serve has no \"out\": events get into the log; whether they come out is not proven here";
                Trip::Half { took: began.elapsed(), missing: missing.to_owned() }
            }
            Err(lost) => lost.into(),
        }
    }

    /// Others may send canaries, which come by here where the log is shared.
    async fn travel_out(&mut self) -> Trip {
        if let Err(lost) = self.open().await {
            return lost.into();
        }
        let others = match std::mem::take(&mut self.of_others) {
            0 => "no canary of another instance has come out since the last look".to_owned(),
            some => format!("{some} canaries of other instances have come out since the last look"),
        };
        let missing =
            format!("http.serve has no \"in\": streams open, and {others}; whether events get in is not proven here");
        Trip::Half { took: self.reader.opening, missing }
    }

    /// The log's no is not this instance's failure, as long as it can read. What is to be done stands in the answer.
    fn not_taken(&mut self, lost: Lost) -> Trip {
        let by_hand = match &self.topic {
            OwnTopic::Missing(Some(MakeError { why, by_hand: Some(command) })) if lost.at == Step::Append => {
                Some(format!("{why}; run: {command}"))
            }
            _ => None,
        };
        if lost.log_refuses && by_hand.is_none() {
            // It may have been there, and have gone.
            self.topic = OwnTopic::Missing(None);
        }
        let why = match by_hand {
            Some(by_hand) => by_hand,
            None if lost.log_refuses => lost.why,
            None => return lost.into(),
        };
        let missing = format!(
            "this instance may not write to the log's topic {CANARY}: {why}. Streams open; whether events get in and come \
             out is not proven"
        );
        Trip::Half { took: self.reader.opening, missing }
    }

    /// Before the first canary, and as long as none has been taken. Where it fails the canary goes all the same: the topic
    /// may be there, and another's to make.
    async fn make_topic(&mut self) {
        if matches!(self.topic, OwnTopic::Made) {
            return;
        }
        let made = timeout(MAKE_MOST, self.log.make_own(&Topic::new(CANARY))).await;
        self.topic = match made {
            Ok(Ok(())) => OwnTopic::Made,
            Ok(Err(error)) => OwnTopic::Missing(Some(error)),
            Err(_) => OwnTopic::Missing(None),
        };
    }

    /// Between two trips: late canaries and those of others, and a stream that is open again when the next one begins.
    async fn read_on(&mut self) {
        loop {
            if !self.reader.is_open() {
                if !self.gives_out || !std::mem::take(&mut self.may_reopen) {
                    return pending().await;
                }
                // What is wrong with it the next trip will say.
                let _ = self.open().await;
                continue;
            }
            if let Ok(data) = self.reader.next().await {
                self.is_the_newest(&data);
            }
        }
    }

    async fn open(&mut self) -> Result<(), Lost> {
        let at_most = self.open_at_most;
        let opened = timeout(at_most, self.reader.open()).await;
        opened.unwrap_or_else(|_| Err(Lost::at(Step::Open, &format!("the stream does not open within {at_most:?}"))))
    }

    /// The stream has ended on the way, as any may: its reader goes on where it was.
    async fn open_again(&mut self, ended: Lost) -> Result<(), Lost> {
        if !std::mem::take(&mut self.may_reopen) {
            return Err(ended);
        }
        self.open().await
    }

    /// Whether the canary that is under way has come. Others are counted.
    fn is_the_newest(&mut self, data: &str) -> bool {
        let Ok(Seen { instance, number }) = serde_json::from_str(data) else { return false };
        if instance != self.instance {
            self.of_others += 1;
        } else if number != self.number && self.lost.remove(&number) {
            metrics::counter!(names::CANARY_TRIPS, "result" => "late").increment(1);
        }
        instance == self.instance && number == self.number
    }

    fn late(&self, at: Step, what: &str) -> Lost {
        Lost::at(at, &format!("{what} within {:?}", self.at_most))
    }
}

fn count(trip: &Trip) {
    let result = match trip {
        Trip::Made { took } => {
            metrics::histogram!(names::CANARY_SECONDS).record(*took);
            "made"
        }
        Trip::Half { .. } => "half",
        Trip::Failed { .. } => "failed",
    };
    metrics::counter!(names::CANARY_TRIPS, "result" => result).increment(1);
}
