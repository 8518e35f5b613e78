//! Topics that a stream only allows (`topics_allowed`): the other data centre of what each computes for itself.

use serde_json::{Value, json};

use crate::engine::{DAWN_MS, Engine, event_at, on_both_engines};
use crate::raw::Event;
use crate::server::{Options, Server};
use crate::support::{PATIENCE, eventually, kafka, unique};

/// The stream `double`: `eqiad` is its own, `codfw` and `absent` are allowed. The streams `eqiad`, `codfw` and `absent` post to
/// them. Kafka does not have `absent`.
struct Double {
    server: Server,
    eqiad: String,
    codfw: String,
    absent: String,
}

async fn serve(engine: Engine, options: Options) -> Double {
    let [eqiad, codfw, absent] = ["eqiad.double", "codfw.double", "absent.double"].map(unique);
    let own = |name: &str, topic: &str| format!("{name}: {{schema_title: test/event, topics: [{topic}]}}\n");
    let streams = [
        format!("double: {{schema_title: test/event, topics: [{eqiad}], topics_allowed: [{codfw}, {absent}]}}\n"),
        own("eqiad", &eqiad),
        own("codfw", &codfw),
    ];
    let options = engine.options(options.streams(&streams.concat()), &[&eqiad, &codfw]).await;
    Double { server: Server::start(options).await, eqiad, codfw, absent }
}

fn entry(topic: &str, offset: i64) -> String {
    format!(r#"{{"topic":"{topic}","partition":0,"offset":{offset}}}"#)
}

fn header(entries: &[String]) -> String {
    format!("Last-Event-ID: [{}]\r\n", entries.join(","))
}

fn topics_of(event: &Event) -> Vec<String> {
    let id: Value = serde_json::from_str(&event.id).expect("an id in JSON");
    let entries = id.as_array().expect("a list").iter();
    entries.map(|entry| entry["topic"].as_str().expect("a topic").to_owned()).collect()
}

async fn who_names_the_other_data_centre_is_there_and_stays_there(engine: Engine) {
    let Double { server, eqiad, codfw, .. } = serve(engine, Options::default()).await;
    for number in 0..6 {
        server.put(&event_at(["eqiad", "codfw"][number % 2], number, number as i64)).await;
    }
    let both = [codfw.clone(), eqiad.clone()];
    let at_time = format!(r#"{{"topic":"{codfw}","partition":0,"timestamp":{}}}"#, DAWN_MS + 3);
    let table = [
        (vec![entry(&codfw, 0)], vec![codfw.clone()], vec![1, 3, 5, 7]),
        (vec![entry(&codfw, -1)], vec![codfw.clone()], vec![7]),
        (vec![at_time], vec![codfw.clone()], vec![3, 5, 7]),
        (vec![entry(&eqiad, 0)], vec![eqiad.clone()], vec![0, 2, 4, 6]),
        (vec![entry(&eqiad, 1), entry(&codfw, 2)], both.to_vec(), vec![2, 4, 5, 6, 7]),
    ];
    let mut readers = Vec::new();
    for (entries, ..) in &table {
        readers.push(server.stream("/v2/stream/double", &header(entries)).await);
    }
    let mut plain = server.stream("/v2/stream/double?since=0", "").await;
    server.put(&event_at("eqiad", 6, 6)).await;
    server.put(&event_at("codfw", 7, 7)).await;
    for (reader, (entries, topics, expected)) in readers.iter_mut().zip(&table) {
        let mut read = Vec::new();
        for _ in expected {
            let event = reader.event().await;
            assert_eq!(topics_of(&event), *topics, "{entries:?}");
            // Every id leads back to the same topics.
            let back = server.stream("/v2/stream/double", &format!("Last-Event-ID: {}\r\n", event.id)).await;
            read.push((event.json()["number"].as_i64().expect("a number"), back));
        }
        let last = read.len() - 1;
        for (at, (_, back)) in read.iter_mut().enumerate().take(last) {
            let next = back.event().await;
            assert_eq!(topics_of(&next), *topics, "back behind {at} of {entries:?}");
        }
        let mut numbers: Vec<i64> = read.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, *expected, "{entries:?}");
    }
    assert_eq!(plain.numbers_until(|read| read.len() == 4).await, [0, 2, 4, 6], "the stream's own topic alone");
}

async fn entries_of_others_beside_it_are_left_out_and_named(engine: Engine) {
    let Double { server, eqiad, codfw, .. } = serve(engine, Options::default()).await;
    server.put(&event_at("codfw", 1, 1)).await;
    let id = header(&[entry("foreign", 5), entry(&codfw, 0)]);
    let mut reader = server.stream("/v2/stream/double", &id).await;
    let notice = reader.head.header("sluice-notice").unwrap_or_default().to_owned();
    assert!(notice.contains("foreign/0") && !notice.contains(&codfw), "{notice}");
    assert_eq!(topics_of(&reader.event().await), [codfw.as_str()]);
    let answer = server.connect().await.get("/v2/stream/double", &header(&[entry("foreign", 5)])).await;
    assert_eq!(answer.status(), 400, "{answer:?}");
    // What one stream allows is foreign to another.
    let answer = server.connect().await.get("/v2/stream/eqiad", &header(&[entry(&codfw, 0)])).await;
    assert_eq!(answer.status(), 400, "{answer:?}");
    let metric = eventually(PATIENCE, async || server.metric("sluice_streams_open").await == 1.0).await;
    assert!(metric, "the refused have left nothing behind: {eqiad}");
}

/// Not only at the start: it is asked for again and again while it is not there.
async fn an_allowed_topic_that_does_not_exist_refuses_nobody_and_is_read_when_it_comes(engine: Engine) {
    let Double { server, eqiad, codfw, absent } = serve(engine, Options::default()).await;
    server.put(&event_at("eqiad", 0, 0)).await;
    server.put(&event_at("codfw", 1, 1)).await;
    let mut alone = server.stream("/v2/stream/double", &header(&[entry(&absent, 0)])).await;
    let mut beside = server.stream("/v2/stream/double", &header(&[entry(&absent, 0), entry(&codfw, 0)])).await;
    let mut plain = server.stream("/v2/stream/double", &header(&[entry(&eqiad, 0)])).await;
    assert_eq!(beside.event().await.json()["number"], 1);
    assert_eq!(plain.event().await.json()["number"], 0);
    assert_eq!(server.get("/readyz").await.status(), 200);
    if engine == Engine::Kafka {
        kafka().await.create_topic(&absent, 1, &[]).await;
        let said = server.stderr();
        let complaints = said.lines().filter(|line| line.contains(&absent)).count();
        assert!(complaints <= 1, "said once at most, not in a loop: {said}");
        append(&absent, 2).await;
        for reader in [&mut alone, &mut beside] {
            let event = reader.event_where(|event| event.json()["number"] == 2).await;
            assert!(topics_of(&event).contains(&absent), "{event:?}");
        }
    }
    server.put(&event_at("eqiad", 3, 3)).await;
    assert_eq!(plain.event().await.json()["number"], 3, "who did not name it does not get it");
}

/// An id that names nothing would be refused when it comes back.
async fn who_asks_for_positions_and_stands_in_nothing_yet_is_told_no_place(engine: Engine) {
    let options = Options::default().env("SLUICE__HUB__HEARTBEAT", "1s");
    let Double { server, absent, .. } = serve(engine, options).await;
    let mut reader = server.stream("/v2/stream/double?positions=true", &header(&[entry(&absent, 0)])).await;
    loop {
        let chunk = String::from_utf8(reader.raw.chunk().await).expect("UTF-8");
        assert!(!chunk.contains("[]"), "{chunk:?}");
        if chunk == ":\n" {
            return;
        }
    }
}

/// Straight into Kafka: no stream posts there.
async fn append(topic: &str, number: usize) {
    use rdkafka::producer::{FutureProducer, FutureRecord};
    let producer: FutureProducer = kafka().await.client().create().expect("a producer");
    let event = json!({"meta": {"id": "x"}, "number": number}).to_string();
    let sent = producer.send(FutureRecord::<(), _>::to(topic).payload(&event), PATIENCE).await;
    sent.expect("the record is written");
}

on_both_engines!(
    who_names_the_other_data_centre_is_there_and_stays_there,
    entries_of_others_beside_it_are_left_out_and_named,
    an_allowed_topic_that_does_not_exist_refuses_nobody_and_is_read_when_it_comes,
    who_asks_for_positions_and_stands_in_nothing_yet_is_told_no_place,
);
