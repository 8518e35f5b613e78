//! What only the Kafka engine has: brokers that stop, stall and move, topics that come, groups that tools can see.

#[path = "../support/mod.rs"]
mod support;

use support::KafkaNode;

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn a_node_stops_stalls_moves_and_keeps_its_data() {
    support::kafka().await;
    let node = KafkaNode::start().await;
    let broker = node.broker();
    let topic = support::unique("obeys");
    broker.create_topic(&topic, 2, &[]).await;
    broker.add_partitions(&topic, 3).await;
    node.stop().await;
    node.start_again().await;
    node.pause().await;
    assert!(!broker.answers_within(std::time::Duration::from_secs(1)));
    node.resume().await;
    broker.delete_records(&topic, 0, 0).await;
    node.kill().await;
    node.start_again().await;
    node.restart_at_new_address().await;
    node.broker().delete_topic(&topic).await;
    drop(node);
}
