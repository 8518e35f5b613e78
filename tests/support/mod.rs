//! What the test binaries share: a real Kafka to run against, and waiting on conditions.
//!
//! - this page: [`kafka`] the one broker that the tests of a binary share, [`eventually`], [`unique`]
//! - `broker` a running Kafka as tests use it: topics made, grown, cut
//! - `kafka_node` a Kafka of the test's own, which it may stop, stall and start again
//! - `kafka_jars` where a Kafka comes from: Maven, into the cache
//! - `cache` a folder outside the tree for what is fetched
//! - `build.rs` is the package's build script: it leaves tests out where a variable says so
//!
//! | variable | what it does |
//! |---|---|
//! | `SLUICE_TEST_KAFKA=host:port` | tests that need not stop their broker use this one |
//! | `SLUICE_TEST_KAFKA=off` | the Kafka tests are shown as ignored (not where `CI` is set) |
//! | `SLUICE_TEST_CLIENTS=off` | the tests with real clients are shown as ignored (not where `CI` is set) |
//! | `SLUICE_TEST_CACHE=DIR` | where Apache Kafka and the clients are kept; `~/.cache/sluice-tests` |
//!
//! A test that needs Kafka carries `#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]`, one that needs real
//! clients `#[cfg_attr(without_clients, ignore = "SLUICE_TEST_CLIENTS=off")]`.

#![allow(dead_code, reason = "every test binary uses its own part of this")]
#![allow(unreachable_pub, reason = "every test binary includes this as a private module")]

mod broker;
pub mod cache;
mod kafka_jars;
mod kafka_node;

use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

pub use broker::Broker;
pub use kafka_node::KafkaNode;

/// How long a test waits for something that must happen. Generous: it is only spent when the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at a condition that cannot be awaited.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The broker that all tests of this binary share: a node that ends with the process, or the one that
/// `SLUICE_TEST_KAFKA` names.
pub async fn kafka() -> Broker {
    static SHARED: OnceCell<Result<(Broker, Option<KafkaNode>), String>> = OnceCell::const_new();
    match SHARED.get_or_init(start_shared).await {
        Ok((broker, _node)) => broker.clone(),
        Err(fault) => panic!("{fault}"),
    }
}

async fn start_shared() -> Result<(Broker, Option<KafkaNode>), String> {
    match std::env::var("SLUICE_TEST_KAFKA") {
        Ok(address) if address.contains(':') => Ok((Broker::at(&address), None)),
        _ => {
            let node = KafkaNode::try_start().await?;
            Ok((node.broker(), Some(node)))
        }
    }
}

/// Waits until the condition holds; says whether it did before the deadline.
pub async fn eventually(deadline: Duration, mut holds: impl AsyncFnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if holds().await {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The same where the wait must be `Send`, which the compiler cannot see of an `async` closure that borrows.
pub async fn eventually_send<F: Future<Output = bool>>(deadline: Duration, mut holds: impl FnMut() -> F) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if holds().await {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// A name that no other test, and no earlier run on the same broker, has used.
pub fn unique(name: &str) -> String {
    format!("{name}-{:08x}", fastrand::u32(..))
}
