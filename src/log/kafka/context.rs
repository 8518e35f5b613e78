//! What librdkafka tells on its own: log lines and client-wide errors, into tracing and to the owner of the client.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;

/// A broker that is away is reported by every connection attempt: one line of a kind per this time says enough.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Kinds of lines remembered; librdkafka has some forty.
const KINDS_MAX: usize = 128;

/// What the owner of a client has to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No broker can be reached.
    Away,
    /// A place that was read from does not exist (any more).
    OutOfRange,
}

/// Told from librdkafka's poll, so on the thread that polls.
pub(super) struct Context {
    client: &'static str,
    lines: Mutex<HashMap<String, Said>>,
    on_trouble: Box<dyn Fn(Trouble) + Send + Sync>,
}

struct Said {
    at: Instant,
    since: u32,
}

impl Context {
    /// `client` is the client's name in log lines.
    pub(super) fn new(client: &'static str, on_trouble: impl Fn(Trouble) + Send + Sync + 'static) -> Self {
        Self { client, lines: Mutex::default(), on_trouble: Box::new(on_trouble) }
    }

    /// How many lines of this kind were swallowed since the last one said, if one may be said now.
    fn may_say(&self, kind: &str) -> Option<u32> {
        let mut lines = self.lines.lock();
        let now = Instant::now();
        match lines.get_mut(kind) {
            Some(said) if now - said.at < LINE_EVERY => {
                said.since += 1;
                None
            }
            Some(said) => Some(std::mem::replace(said, Said { at: now, since: 0 }).since),
            None => {
                if lines.len() < KINDS_MAX {
                    lines.insert(kind.to_owned(), Said { at: now, since: 0 });
                }
                Some(0)
            }
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, kind: &str, line: &str) {
        // A property of the other kind of client: the operator's properties are given to all of them.
        if kind == "CONFWARN" {
            tracing::debug!(client = self.client, line, "librdkafka");
            return;
        }
        let Some(swallowed) = self.may_say(kind) else { return };
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(client = self.client, kind, line, swallowed, "librdkafka");
            }
            // Its errors are mostly lost connections, which it repairs itself: surprising, nothing lost.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::warn!(client = self.client, kind, line, swallowed, "librdkafka");
            }
            _ => tracing::debug!(client = self.client, kind, line, "librdkafka"),
        }
    }

    /// Only if the operator turns them on; there is nowhere to put them.
    fn stats(&self, _: Statistics) {}
    fn stats_raw(&self, _: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let trouble = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => Some(Trouble::Away),
            Some(RDKafkaErrorCode::AutoOffsetReset) => Some(Trouble::OutOfRange),
            // An end is not an error, and what one partition is missing is told where it is read.
            Some(RDKafkaErrorCode::PartitionEOF) => return,
            _ => None,
        };
        match trouble {
            Some(Trouble::OutOfRange) => {}
            _ => {
                if let Some(swallowed) = self.may_say("error") {
                    tracing::warn!(client = self.client, reason, swallowed, "kafka: {error}");
                }
            }
        }
        if let Some(trouble) = trouble {
            (self.on_trouble)(trouble);
        }
    }
}

impl ConsumerContext for Context {
    fn commit_callback(&self, result: Result<(), KafkaError>, _: &TopicPartitionList) {
        if let Err(fault) = result
            && self.may_say("commit").is_some()
        {
            tracing::debug!(client = self.client, "offsets were not committed: {fault}");
        }
    }
}
