//! The same server on either engine, with two topics that nobody else uses.

use serde_json::{Value, json};

use crate::server::{Options, Server};
use crate::support::{self, unique};

/// The time of the first event; see [`event_at`].
pub const DAWN_MS: i64 = 1_767_225_600_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Kafka,
}

/// Topics of one partition, and the streams `both`, `eqiad` and `codfw` on them.
#[derive(Clone, Debug)]
pub struct Topics {
    pub eqiad: String,
    pub codfw: String,
}

impl Engine {
    pub async fn serve(self, options: Options) -> (Server, Topics) {
        let topics = Topics { eqiad: unique("eqiad.it"), codfw: unique("codfw.it") };
        let Topics { eqiad, codfw } = &topics;
        let streams = format!(
            "both: {{schema_title: test/event, topics: [{eqiad}, {codfw}]}}\neqiad: {{schema_title: test/event, topics: [{eqiad}]}}\ncodfw: {{schema_title: test/event, topics: [{codfw}]}}\n"
        );
        let options = self.options(options, &[eqiad, codfw]).await.streams(&streams);
        (Server::start(options).await, topics)
    }

    /// The options with this engine, on which these topics are there.
    pub async fn options(self, options: Options, topics: &[&str]) -> Options {
        if self == Self::Sqlite {
            return options;
        }
        let broker = support::kafka().await;
        for topic in topics {
            broker.create_topic(topic, 1, &[]).await;
        }
        options.kafka(broker.bootstrap())
    }
}

/// An event of this stream, `ms` after [`DAWN_MS`], with the number as its id. It has all that its schema would fill in.
pub fn event_at(stream: &str, number: usize, ms: i64) -> Value {
    let time = jiff::Timestamp::from_millisecond(DAWN_MS + ms).expect("a time");
    let meta = json!({ "stream": stream, "id": format!("e{number}"), "dt": format!("{time:.3}") });
    json!({ "$schema": "/test/event/1.0.0", "meta": meta, "test": "whole", "number": number })
}

/// Both engines, a test each. The fact is an `async fn(Engine)` beside this.
macro_rules! on_both_engines {
    ($($fact:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            async fn $fact() {
                super::$fact($crate::engine::Engine::Sqlite).await;
            })+
        }
        mod on_kafka {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            #[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
            async fn $fact() {
                super::$fact($crate::engine::Engine::Kafka).await;
            })+
        }
    };
}
pub(crate) use on_both_engines;
