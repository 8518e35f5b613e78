//! Faults that a real broker shows rarely, injected into librdkafka's mock of a cluster.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use sluice::log::{AppendError, Log, MakeError, ReadError, Sick, Surveyed};
use sluice::model::Topic;
use tokio::time::Instant;

use crate::support::{Broker, PATIENCE, eventually};
use crate::{DEADLINE, MARGIN, Watched, append_one, counted, metrics, open, record};

/// A survey ends within this, and a busy machine's margin.
const SURVEY_WITHIN: Duration = Duration::from_secs(3);
const REBUILT: &str = "sluice_kafka_tails_rebuilt_total";
/// More than a client asks while it is refused.
const MANY: usize = 100_000;

type Mock = MockCluster<'static, DefaultProducerContext>;

fn cluster(brokers: i32) -> Mock {
    MockCluster::new(brokers).expect("a mock cluster")
}

fn broker(cluster: &Mock) -> Broker {
    Broker::at(&cluster.bootstrap_servers())
}

fn sick(surveyed: &[Surveyed]) -> Vec<(i32, &Sick)> {
    let sick = surveyed.iter().filter_map(|one| Some((one.partition.index, one.ends.as_ref().err()?)));
    let mut sick: Vec<_> = sick.collect();
    sick.sort_by_key(|(index, _)| *index);
    sick
}

#[tokio::test(flavor = "multi_thread")]
async fn a_survey_names_the_partition_that_nobody_leads_and_no_other() {
    let cluster = cluster(2);
    cluster.create_topic("t", 3, 1).expect("a topic");
    (0..3).for_each(|index| cluster.partition_leader("t", index, Some(1)).expect("a leader"));
    let log = open(&broker(&cluster));
    let topics = [Topic::new("t"), Topic::new("none")];
    let healthy = log.survey(&topics).await.expect("the log is asked");
    assert_eq!((healthy.len(), sick(&healthy)), (3, vec![]));

    cluster.partition_leader("t", 1, None).expect("no leader");
    let surveyed = log.survey(&topics).await.expect("the log is asked");

    assert!(matches!(sick(&surveyed)[..], [(1, Sick { broker: None, .. })]), "{surveyed:?}");
    cluster.partition_leader("t", 1, Some(2)).expect("a leader");
    let surveyed = log.survey(&topics).await.expect("the log is asked");
    assert_eq!(sick(&surveyed), [], "{surveyed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_survey_names_the_broker_that_does_not_answer_and_ends_in_time() {
    let cluster = cluster(2);
    cluster.create_topic("t", 2, 1).expect("a topic");
    (0..2).for_each(|index| cluster.partition_leader("t", index, Some(index + 1)).expect("a leader"));
    let log = open(&broker(&cluster));
    let topics = [Topic::new("t")];
    log.survey(&topics).await.expect("the log is asked");

    for slow in [Duration::from_secs(30), Duration::ZERO] {
        if slow.is_zero() {
            cluster.broker_down(2).expect("it goes");
        } else {
            cluster.broker_round_trip_time(2, slow).expect("it is slow");
        }
        let started = Instant::now();
        let surveyed = log.survey(&topics).await.expect("one broker answers");
        assert!(started.elapsed() < SURVEY_WITHIN + MARGIN, "{:?}", started.elapsed());
        let told = sick(&surveyed);
        let [(1, Sick { broker: Some(broker), .. })] = &told[..] else { panic!("{surveyed:?}") };
        assert!(broker.starts_with("2 (127.0.0.1:"), "{broker}");
    }
    cluster.broker_down(-1).expect("they go");
    let started = Instant::now();
    let surveyed = log.survey(&topics).await;
    assert!(matches!(surveyed, Err(ReadError::Unavailable(_))), "{surveyed:?}");
    assert!(started.elapsed() < SURVEY_WITHIN + MARGIN, "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_whose_fetches_are_all_refused_is_made_anew_and_then_brings_everything_once() {
    metrics();
    let cluster = cluster(1);
    cluster.create_topic("t", 2, 1).expect("a topic");
    let log = open(&broker(&cluster));
    let topic = Topic::new("t");
    let mut tail = Watched::open(&log, &[&topic], 0).await;
    for number in 0..20 {
        append_one(&log, record(&topic, format!("before {number}"))).await.expect("appended");
    }
    tail.until("what came before", |seen| seen.values.len() == 20).await;
    let before = counted(REBUILT);

    cluster.request_errors(RDKafkaApiKey::Fetch, &vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN; MANY]);
    for number in 0..20 {
        append_one(&log, record(&topic, format!("while {number}"))).await.expect("appended");
    }
    let started = Instant::now();
    assert!(eventually(PATIENCE, async || counted(REBUILT) > before).await, "it is never made anew");
    println!("the tail was made anew after {:?}", started.elapsed());
    cluster.clear_request_errors(RDKafkaApiKey::Fetch);

    tail.until("what came meanwhile", |seen| seen.values.len() == 40).await;
    append_one(&log, record(&topic, "after")).await.expect("appended");
    tail.until("what came after", |seen| seen.values.contains_key("after") && seen.caught_up).await;
    assert!(tail.values.values().all(|times| *times == 1), "nothing twice: {:?}", tail.values);
    assert_eq!(tail.opened.len(), 2, "nothing was opened anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_says_for_a_moment_is_not_for_good_and_what_it_goes_on_to_say_is() {
    let cluster = cluster(1);
    let log = open(&broker(&cluster));
    let topic = Topic::new("t");
    cluster.create_topic("t", 1, 1).expect("a topic");
    append_one(&log, record(&topic, "at first")).await.expect("appended");

    let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    cluster.topic_error("t", unknown).expect("it is denied");
    let mut answers = Vec::new();
    let given_up = eventually(PATIENCE, async || {
        let answer = append_one(&log, record(&topic, "denied")).await;
        let refused = matches!(answer, Err(AppendError::Refused(_)));
        answers.push((Instant::now(), answer));
        refused
    });
    assert!(given_up.await, "the topic is never given up");
    let denied = answers.iter().find(|(_, answer)| answer.is_err()).expect("it was denied").0;
    let (last, _) = answers.last().expect("an answer");
    println!("a topic that is not there was given up after {:?}", *last - denied);
    assert!(*last - denied >= Duration::from_secs(8), "not at the first word");

    cluster.topic_error("t", RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).expect("it is there again");
    let back = eventually(PATIENCE, async || append_one(&log, record(&topic, "back")).await.is_ok());
    assert!(back.await, "the topic takes records again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_cluster_has_no_right_for_is_refused_and_a_slow_broker_takes_its_time() {
    let cluster = cluster(1);
    cluster.create_topic("t", 1, 1).expect("a topic");
    let log = open(&broker(&cluster));
    let topic = Topic::new("t");
    append_one(&log, record(&topic, "at first")).await.expect("appended");

    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::Produce, &[denied]);
    let answer = append_one(&log, record(&topic, "denied")).await;
    assert!(matches!(answer, Err(AppendError::Refused(_))), "{answer:?}");

    // The client remembers it until it asks what the topic is like.
    let started = Instant::now();
    let back = eventually(PATIENCE, async || append_one(&log, record(&topic, "again")).await.is_ok());
    assert!(back.await, "the topic takes records again");
    println!("what was denied is taken again after {:?}", started.elapsed());

    let passing = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
    cluster.request_errors(RDKafkaApiKey::Produce, &[passing, passing]);
    let answer = append_one(&log, record(&topic, "again")).await;
    assert!(matches!(answer, Ok(_) | Err(AppendError::NotWritten(_))), "{answer:?}");

    cluster.broker_round_trip_time(1, DEADLINE / 6).expect("it is slow");
    append_one(&log, record(&topic, "slowly")).await.expect("appended all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_our_own_that_cannot_be_made_names_the_command_that_makes_it() {
    let cluster = cluster(1);
    // The mock makes no topics for administrators; then it is gone.
    let log = open(&broker(&cluster));
    let started = Instant::now();
    let answer = log.make_own(&Topic::new("sluice.canary")).await;
    let Err(MakeError { why, by_hand: Some(by_hand) }) = answer else { panic!("{answer:?}") };
    println!("{why}");
    let expected = format!(
        "kafka-topics.sh --bootstrap-server {} --create --topic sluice.canary --partitions 1 --config \
         retention.ms=3600000",
        cluster.bootstrap_servers()
    );
    assert_eq!(by_hand, expected);
    assert!(started.elapsed() < Duration::from_secs(10) + MARGIN, "{:?}", started.elapsed());

    // Who is not there has refused nothing.
    cluster.broker_down(-1).expect("it goes");
    let started = Instant::now();
    let answer = log.make_own(&Topic::new("sluice.canary")).await;
    assert!(matches!(answer, Err(MakeError { by_hand: None, .. })), "{answer:?}");
    assert!(started.elapsed() < Duration::from_secs(10) + MARGIN, "{:?}", started.elapsed());
}
