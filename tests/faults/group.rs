//! The consumer group of a host, as Kafka's own tool shows it.

use std::collections::BTreeMap;

use crate::ledger::Partition;
use crate::load::{Fate, Load};
use crate::server::{Options, Server};
use crate::support::{self, KafkaNode, PATIENCE, eventually};

const TOOL: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const PARTITIONS: i32 = 3;

/// What the tool says of one partition.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    current: i64,
    end: i64,
    lag: i64,
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(without_kafka, ignore = "SLUICE_TEST_KAFKA=off")]
async fn kafkas_own_tool_shows_the_group_of_the_host_and_its_lag() {
    let node = KafkaNode::start().await;
    let topic = support::unique("lag");
    node.broker().create_topic(&topic, PARTITIONS, &[]).await;
    let options = Options::default()
        .kafka(&node.bootstrap())
        .streams(&format!("{topic}: {{schema_title: test/event, topics: [{topic}]}}"));
    let server = Server::start(options).await;
    let load = Load::new(std::slice::from_ref(&topic), 0);
    for _ in 0..30 {
        let told = load.post(server.address, 3).await;
        assert!(told.iter().all(|(_, fate)| *fate == Fate::Accepted), "{told:?}");
    }
    let rows = shows_no_lag(&node, &server, std::slice::from_ref(&topic), PARTITIONS).await;
    assert_eq!(rows, 90, "what was committed is what was posted");
}

/// Waits until the tool shows every partition with all of its records committed; how many these are.
pub async fn shows_no_lag(node: &KafkaNode, server: &Server, topics: &[String], partitions: i32) -> i64 {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let group = format!("sluice-{host}-{}", server.address.port());
    let (mut text, mut rows) = (String::new(), BTreeMap::new());
    let caught_up = eventually(PATIENCE, async || {
        let arguments = ["--bootstrap-server", &node.bootstrap(), "--describe", "--group", &group];
        text = node.tool(TOOL, arguments.map(str::to_owned).into()).await;
        rows = text.lines().filter_map(|line| row(&group, line)).collect::<BTreeMap<_, _>>();
        let all = topics.iter().flat_map(|topic| (0..partitions).map(move |partition| (topic.clone(), partition)));
        all.into_iter().all(|one| rows.get(&one).is_some_and(|row| row.lag == 0 && row.current == row.end))
    });
    assert!(caught_up.await, "the tool does not show {group} at the end of {topics:?}:\n{text}");
    // The group follows the canaries, too.
    rows.iter().filter(|((topic, _), _)| topics.contains(topic)).map(|(_, row)| row.current).sum()
}

/// `GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG …`
fn row(group: &str, line: &str) -> Option<(Partition, Row)> {
    let mut words = line.split_whitespace();
    (words.next()? == group).then_some(())?;
    let topic = words.next()?.to_owned();
    let partition = words.next()?.parse().ok()?;
    let mut number = || words.next()?.parse::<i64>().ok();
    Some(((topic, partition), Row { current: number()?, end: number()?, lag: number()? }))
}
