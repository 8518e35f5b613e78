//! One call to append, on its way: its records until they are handed over, its answers as they come.

use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::oneshot;

use crate::log::{AppendError, Appended};
use crate::model::{NewRecord, Topic};

pub(super) type Answer = Result<Appended, AppendError>;

/// Completed once, not record by record: one wake for the task that waits.
pub(super) struct Batch {
    pub(super) load: Load,
    /// Gone once they were handed over, or taken back at the deadline: whoever takes them decides which.
    records: Mutex<Option<Vec<NewRecord>>>,
    answers: Mutex<Answers>,
}

struct Answers {
    given: Vec<Option<Answer>>,
    missing: usize,
    all: Option<oneshot::Sender<()>>,
}

/// What a batch, or a queue of them, weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl std::ops::AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

impl std::ops::SubAssign for Load {
    fn sub_assign(&mut self, other: Self) {
        self.records -= other.records;
        self.bytes -= other.bytes;
    }
}

impl Batch {
    /// The receiver is told when every record has its answer.
    pub(super) fn new(records: Vec<NewRecord>) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (all, answered) = oneshot::channel();
        let load = Load { records: records.len(), bytes: records.iter().map(NewRecord::bytes).sum() };
        let answers = Answers { given: vec![None; records.len()], missing: records.len(), all: Some(all) };
        (Arc::new(Self { load, records: Mutex::new(Some(records)), answers: Mutex::new(answers) }), answered)
    }

    pub(super) fn take_records(&self) -> Option<Vec<NewRecord>> {
        self.records.lock().take()
    }

    fn answer(&self, index: usize, answer: Answer) {
        let mut answers = self.answers.lock();
        // An answer after the deadline has come too late to matter.
        let Some(place @ None) = answers.given.get_mut(index) else { return };
        *place = Some(answer);
        answers.missing -= 1;
        if answers.missing == 0
            && let Some(all) = answers.all.take()
        {
            let _ = all.send(());
        }
    }

    /// The answers; what has none gets this error.
    pub(super) fn take_answers(&self, unanswered: &AppendError) -> Vec<Answer> {
        let given = std::mem::take(&mut self.answers.lock().given);
        given.into_iter().map(|answer| answer.unwrap_or_else(|| Err(unanswered.clone()))).collect()
    }
}

/// Travels with a record through librdkafka and comes back with its fate.
pub(super) struct Ticket {
    pub(super) batch: Arc<Batch>,
    pub(super) index: usize,
    pub(super) topic: Topic,
    pub(super) bytes: usize,
}

impl Ticket {
    pub(super) fn answer(&self, answer: Answer) {
        self.batch.answer(self.index, answer);
    }
}

pub(super) fn is_too_large(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{InvalidMessageSize, MessageBatchTooLarge, MessageSizeTooLarge};
    matches!(error.rdkafka_error_code(), Some(MessageSizeTooLarge | MessageBatchTooLarge | InvalidMessageSize))
}

/// What a broker also says for a moment, when it is just coming back.
pub(super) fn is_unknown_topic(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{UnknownTopic, UnknownTopicOrPartition};
    matches!(error.rdkafka_error_code(), Some(UnknownTopic | UnknownTopicOrPartition))
}

/// Of this topic, or of this record, and not to be mended by waiting. What is wrong with the whole cluster or with sluice's
/// own login is not among it: it holds up everything, and everything goes once an operator has mended it.
fn is_for_good(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::InvalidTopic
                | Code::TopicAuthorizationFailed
                | Code::PolicyViolation
                | Code::InvalidRecord
                | Code::InvalidTimestamp
        )
    )
}

/// The client did not take the record at all.
pub(super) fn refused(error: &KafkaError, bytes: usize) -> AppendError {
    if is_too_large(error) {
        AppendError::TooLarge(format!("{bytes} bytes, and Kafka says: {error}"))
    } else if is_for_good(error) {
        AppendError::Refused(error.to_string())
    } else {
        not_taken(error)
    }
}

fn not_taken(error: &KafkaError) -> AppendError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => AppendError::Busy(error.to_string()),
        _ => AppendError::NotWritten(error.to_string()),
    }
}

/// What an error says of the record's fate. `placed`: a partition was chosen, so it may have been sent.
///
/// librdkafka knows for each record whether it was ever sent, but its Rust binding does not tell; so a time-out counts as
/// sent as soon as there is a partition. What must not be guessed is the other way round.
pub(super) fn fate(error: &KafkaError, placed: bool, bytes: usize) -> AppendError {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        _ if is_too_large(error) || is_for_good(error) => refused(error, bytes),
        Some(Code::MessageTimedOut) if !placed => {
            AppendError::NotWritten("no broker told in time where the topic's partitions are".to_owned())
        }
        // Refused by the broker or by the client before it was written.
        Some(
            Code::QueueFull
            | Code::PurgeQueue
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicOrPartition
            | Code::ClusterAuthorizationFailed
            | Code::InvalidMessage
            | Code::NotEnoughReplicas
            | Code::UnsupportedCompressionType
            | Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::InvalidArgument,
        ) => not_taken(error),
        // On a fatal error the client refuses before it sends, but says the same of what it had sent.
        Some(Code::Fatal) if !placed => AppendError::NotWritten(error.to_string()),
        _ => AppendError::Unknown(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use RDKafkaErrorCode as Code;

    use super::*;

    fn fate_of(code: Code, placed: bool) -> AppendError {
        fate(&KafkaError::MessageProduction(code), placed, 7)
    }

    #[test]
    fn what_only_an_operator_can_mend_is_refused_and_what_passes_is_not() {
        let for_good = [
            Code::InvalidTopic,
            Code::TopicAuthorizationFailed,
            Code::PolicyViolation,
            Code::InvalidRecord,
            Code::InvalidTimestamp,
        ];
        for code in for_good {
            assert!(matches!(fate_of(code, true), AppendError::Refused(_)), "{code}");
            assert!(matches!(refused(&KafkaError::MessageProduction(code), 7), AppendError::Refused(_)), "{code}");
        }
        let passing = [
            Code::PurgeQueue,
            Code::UnknownTopic,
            Code::UnknownPartition,
            Code::UnknownTopicOrPartition,
            Code::NotEnoughReplicas,
            Code::ClusterAuthorizationFailed,
            Code::SaslAuthenticationFailed,
        ];
        for code in passing {
            assert!(matches!(fate_of(code, true), AppendError::NotWritten(_)), "{code}");
        }
        assert!(matches!(fate_of(Code::QueueFull, true), AppendError::Busy(_)));
        assert!(matches!(fate_of(Code::MessageSizeTooLarge, true), AppendError::TooLarge(_)));
    }

    #[test]
    fn a_time_out_is_not_written_only_where_nothing_can_have_been_sent() {
        assert!(matches!(fate_of(Code::MessageTimedOut, false), AppendError::NotWritten(_)));
        assert!(matches!(fate_of(Code::MessageTimedOut, true), AppendError::Unknown(_)));
        assert!(matches!(fate_of(Code::PurgeInflight, true), AppendError::Unknown(_)));
    }
}
