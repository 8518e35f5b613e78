//! What a reader had, what the log holds, and whether these agree.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::raw::Event;
use crate::support::{Broker, PATIENCE};

pub type Partition = (String, i32);

/// Where a record stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub partition: Partition,
    pub offset: i64,
}

/// Records by their places: the number that the producer gave to each.
pub type Records = BTreeMap<Place, u64>;

/// What one reader had. Its topics have no gaps in their offsets, so every record tells which one comes next.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Where it began, as far as known.
    starts: BTreeMap<Partition, i64>,
    next: BTreeMap<Partition, i64>,
    had: Records,
    numbers: HashSet<u64>,
}

impl Ledger {
    /// Of a reader that must get every record after this place (an `id`).
    pub fn after(id: &str) -> Self {
        let places: Vec<Value> = serde_json::from_str(id).expect("an id");
        let starts: BTreeMap<_, _> = places.iter().map(|place| (partition_of(place), offset_of(place))).collect();
        Self { next: starts.clone(), starts, ..Self::default() }
    }

    /// The error says what is wrong with the event, here and now: a loss, a repeat, another order.
    pub fn enter(&mut self, event: &Event) -> Result<(), String> {
        let json = event.json();
        let place = Place { partition: partition_of(&json["meta"]), offset: offset_of(&json["meta"]) };
        let number = json["number"].as_u64().ok_or("it has no number")?;
        let next = self.next.entry(place.partition.clone()).or_insert(place.offset);
        if place.offset != *next {
            return Err(format!("{place:?} came where offset {next} was due, with the id {}", event.id));
        }
        *next += 1;
        self.starts.entry(place.partition.clone()).or_insert(place.offset);
        self.check_id(&event.id)?;
        self.numbers.insert(number);
        self.had.insert(place, number);
        Ok(())
    }

    /// An id tells where its reader stands in every partition.
    fn check_id(&self, id: &str) -> Result<(), String> {
        let says = Self::after(id).starts;
        let differs = self.next.iter().find(|(partition, next)| says.get(*partition) != Some(*next));
        match differs {
            Some((partition, next)) => Err(format!("the reader wants {next} of {partition:?} next, its id is {id}")),
            None => Ok(()),
        }
    }

    pub fn has_number(&self, number: u64) -> bool {
        self.numbers.contains(&number)
    }

    pub fn count(&self) -> usize {
        self.had.len()
    }

    pub fn partitions(&self) -> BTreeSet<Partition> {
        self.had.keys().map(|place| place.partition.clone()).collect()
    }

    /// Every record from where the reader began, and nothing else.
    pub fn is_complete(&self, log: &Records) -> bool {
        let began = |place: &Place| self.starts.get(&place.partition).is_some_and(|start| place.offset >= *start);
        let due = log.iter().filter(|(place, _)| began(place));
        due.eq(self.had.iter())
    }
}

fn partition_of(place: &Value) -> Partition {
    let topic = place["topic"].as_str().unwrap_or_else(|| panic!("no topic in {place}"));
    let partition = place["partition"].as_i64().and_then(|partition| i32::try_from(partition).ok());
    (topic.to_owned(), partition.unwrap_or_else(|| panic!("no partition in {place}")))
}

fn offset_of(place: &Value) -> i64 {
    place["offset"].as_i64().unwrap_or_else(|| panic!("no offset in {place}"))
}

/// The id of a reader that has had nothing yet.
pub fn from_the_first(topics: &[String], partitions: i32) -> String {
    let places = topics.iter().flat_map(|topic| {
        (0..partitions).map(move |partition| json!({"topic": topic, "partition": partition, "offset": 0}))
    });
    Value::from(places.collect::<Vec<_>>()).to_string()
}

/// All that the log holds in these topics now, as a bare client reads it.
pub async fn records(broker: &Broker, topics: &[String], partitions: i32) -> Records {
    let (broker, topics) = (broker.clone(), topics.to_vec());
    let reading = tokio::task::spawn_blocking(move || read_all(&broker, &topics, partitions));
    reading.await.expect("the log can be read")
}

fn read_all(broker: &Broker, topics: &[String], partitions: i32) -> Records {
    let mut config = broker.client();
    config.set("group.id", "of nobody").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().expect("a client");
    let (mut wanted, mut left, mut records) = (TopicPartitionList::new(), 0, Records::new());
    for topic in topics {
        for partition in 0..partitions {
            let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE).expect("the broker answers");
            assert_eq!(low, 0, "the tests' topics keep everything");
            left += high;
            wanted.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
        }
    }
    consumer.assign(&wanted).expect("the partitions are there");
    let end = Instant::now() + PATIENCE;
    while left > 0 {
        assert!(Instant::now() < end, "{left} records of {topics:?} do not come");
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let event: Value = serde_json::from_slice(message.payload().unwrap_or_default()).expect("an event");
        let place = Place { partition: (message.topic().to_owned(), message.partition()), offset: message.offset() };
        records.insert(place, event["number"].as_u64().expect("a number"));
        left -= 1;
    }
    records
}
