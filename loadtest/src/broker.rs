//! A real Kafka under the server that is measured, and what one message to it takes without any server.

use std::time::Duration;

use hdrhistogram::Histogram;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::readers::histogram;
use crate::support::{self, Broker, KafkaNode};

/// Topics of the streams that are built in. A peer may write to the bare name.
const TOPICS: [&str; 4] =
    ["eqiad.mediawiki.recentchange", "codfw.mediawiki.recentchange", "mediawiki.recentchange", "test.event"];
/// What is sent in minutes would fill disks: the broker keeps this much of each topic.
const TOPIC_CONFIG: [(&str, &str); 2] = [("retention.bytes", "536870912"), ("segment.bytes", "134217728")];
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// Stopped when the last clone is dropped, if it is one of our own. The server must be gone by then.
#[derive(Clone)]
pub(crate) struct Kafka {
    pub(crate) bootstrap: String,
    node: Option<KafkaNode>,
}

impl Kafka {
    /// `host:port` of one that runs, or nothing for one of our own.
    pub(crate) async fn at(address: &str) -> Result<Self, Failure> {
        if !address.is_empty() {
            return Ok(Self { bootstrap: address.to_owned(), node: None });
        }
        let node = KafkaNode::try_start().await.map_err(Failure::Start)?;
        for topic in TOPICS {
            node.broker().create_topic(topic, 1, &TOPIC_CONFIG).await;
        }
        Ok(Self { bootstrap: node.bootstrap(), node: Some(node) })
    }

    /// None: it is somebody else's, and not ours to stop.
    pub(crate) fn node(&self) -> Option<&KafkaNode> {
        self.node.as_ref()
    }
}

/// Microseconds from a message being handed to a bare client to the broker having acknowledged it, one at a time.
pub(crate) async fn round_trip(bootstrap: &str, bytes: usize, time: Duration) -> Result<Histogram<u64>, Failure> {
    let failed = |error: rdkafka::error::KafkaError| Failure::Start(format!("the bare Kafka client: {error}"));
    let broker = Broker::at(bootstrap);
    let topic = support::unique("loadtest-round-trip");
    broker.create_topic(&topic, 1, &[]).await;
    let mut config = broker.client();
    config.set("acks", "all").set("enable.idempotence", "true").set("linger.ms", "0");
    let producer: FutureProducer = config.create().map_err(failed)?;
    let payload = vec![b'x'; bytes];
    let mut latency = histogram();
    let mut warm = false;
    let mut start = Instant::now();
    while start.elapsed() < time {
        let sent = Instant::now();
        let record = FutureRecord::<(), _>::to(&topic).payload(&payload);
        producer.send(record, ANSWER_WAIT_MAX).await.map_err(|(error, _)| failed(error))?;
        if warm {
            latency.saturating_record(micros(sent.elapsed()));
        } else {
            // The first one also waits for the connection.
            (warm, start) = (true, Instant::now());
        }
    }
    broker.delete_topic(&topic).await;
    Ok(latency)
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
