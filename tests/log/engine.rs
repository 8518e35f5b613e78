//! What a case needs of an engine beside the log itself.

use std::sync::Arc;

use async_trait::async_trait;
use sluice::log::Log;
use sluice::model::{Offset, Partition, Topic};

/// One case's own log, or its own client of a log that all cases share. Everything made here is gone when it is dropped,
/// or at the latest when the tests end.
#[async_trait]
pub(crate) trait Engine: Sized + Send + Sync {
    async fn start() -> Self;

    fn log(&self) -> Arc<dyn Log>;

    /// A topic name that no other case and no earlier run has used. The topic does not exist yet.
    fn unused_topic(&self) -> Topic;

    /// Brings a topic with so many partitions into being, as far as this engine needs that before the first append.
    /// It takes values of 4 MiB.
    async fn create(&self, topic: &Topic, partitions: i32);

    /// The size of a value that a topic made by `create` never takes.
    fn too_large(&self) -> usize;

    /// The log's process ends and starts again: the old `log()` is closed, a new one stands on the same data.
    async fn restart(&mut self);

    /// Retention takes the records below this offset; `at` may be the partition's end.
    async fn delete_before(&self, partition: &Partition, at: Offset);

    /// The topic has so many partitions from now on. Only asked of engines that can (`partitions_added` of the suite).
    async fn add_partitions(&self, topic: &Topic, partitions: i32);

    /// Uses up at least one offset at the partition's end that no reader will ever see.
    async fn make_gap(&self, partition: &Partition);
}
