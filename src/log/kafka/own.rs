//! Makes a topic of sluice's own, as an administrator would.

use std::fmt::Display;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::runtime::Handle;

use super::clients::{Clients, make as make_client};
use super::context::Context;
use super::reader::{Reader, Until};
use crate::log::MakeError;
use crate::model::Topic;

/// What is in it is old after seconds.
const RETENTION_MS: &str = "3600000";
/// The broker's own default.
const REPLICATION: TopicReplication<'static> = TopicReplication::Fixed(-1);
/// To look whether it is there; then to make it.
const LOOK_WITHIN: Duration = Duration::from_secs(3);
const MADE_WITHIN: Duration = Duration::from_secs(5);
const NAME: &str = "kafka-admin";

/// As [`crate::log::Log::make_own`]. Its clients live for this call.
pub(super) async fn make(clients: &Clients, topic: &Topic, engine: &Handle) -> Result<(), MakeError> {
    let (of_thread, wanted, runs_on) = (clients.clone(), topic.clone(), engine.clone());
    // On a thread that may block: so does the end of a client.
    let made = engine.spawn_blocking(move || runs_on.block_on(make_now(&of_thread, &wanted)));
    let made = made.await.unwrap_or_else(|_| Err(Fault::no_answer("the process is stopping")));
    made.map_err(|fault| match fault {
        Fault::NoAnswer(why) => MakeError { why, by_hand: None },
        Fault::Refused(why) => MakeError { why, by_hand: Some(by_hand(clients, topic)) },
    })
}

/// Why the topic is not made: a cluster that says nothing may have it.
enum Fault {
    NoAnswer(String),
    Refused(String),
}

impl Fault {
    fn no_answer(fault: impl Display) -> Self {
        Self::NoAnswer(fault.to_string())
    }

    fn of_creation(fault: &KafkaError) -> Self {
        let silent =
            [Code::OperationTimedOut, Code::RequestTimedOut, Code::BrokerTransportFailure, Code::AllBrokersDown];
        match fault.rdkafka_error_code() {
            Some(code) if silent.contains(&code) => Self::no_answer(fault),
            _ => Self::Refused(fault.to_string()),
        }
    }
}

async fn make_now(clients: &Clients, topic: &Topic) -> Result<(), Fault> {
    // Where it is there nobody needs the right to make it.
    let looker = Reader::new(clients, NAME).map_err(Fault::no_answer)?;
    let there = looker.partitions(std::slice::from_ref(topic), Until::after(LOOK_WITHIN));
    if !there.map_err(Fault::no_answer)?.is_empty() {
        return Ok(());
    }
    let admin: AdminClient<Context> =
        make_client(&clients.admin(), Context::new(NAME, |_| ())).map_err(Fault::no_answer)?;
    let wanted = NewTopic::new(topic.as_str(), 1, REPLICATION).set("retention.ms", RETENTION_MS);
    let options = AdminOptions::new().request_timeout(Some(MADE_WITHIN)).operation_timeout(Some(MADE_WITHIN));
    let answers = admin.create_topics([&wanted], &options).await.map_err(|fault| Fault::of_creation(&fault))?;
    match answers.into_iter().next() {
        Some(Ok(_) | Err((_, Code::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(Fault::Refused(format!("Kafka does not make the topic {topic}: {code}"))),
        None => Err(Fault::no_answer(format!("Kafka says nothing of the topic {topic}"))),
    }
}

fn by_hand(clients: &Clients, topic: &Topic) -> String {
    format!(
        "kafka-topics.sh --bootstrap-server {} --create --topic {topic} --partitions 1 --config retention.ms={RETENTION_MS}",
        clients.bootstrap_servers()
    )
}
