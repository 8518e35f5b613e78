//! Every shape of id that EventStreams has sent since 2018, each followed by the right next event.

use crate::engine::{DAWN_MS, Engine, Topics, event_at, on_both_engines};
use crate::server::{Options, Server};

/// Of `codfw`: long before what the ids speak of.
const OLD_MS: i64 = 0;
/// Of `eqiad`: the last event that the reader has had, and the one before it.
const LAST_MS: i64 = 600_000;
/// Behind it.
const NEXT_MS: i64 = 600_500;

/// Event 0 is old and of `codfw`; 1 and 2 were read, of `eqiad`; 3 (`eqiad`) and 4 (`codfw`) came while the reader was away.
async fn tell_the_story(server: &Server) {
    server.put(&event_at("codfw", 0, OLD_MS)).await;
    server.put(&event_at("eqiad", 1, LAST_MS - 1)).await;
    server.put(&event_at("eqiad", 2, LAST_MS)).await;
    server.put(&event_at("eqiad", 3, NEXT_MS)).await;
    server.put(&event_at("codfw", 4, NEXT_MS)).await;
}

/// What a shape is, and whether the last event may be repeated.
fn shapes(topics: &Topics) -> Vec<(String, bool)> {
    let time = DAWN_MS + LAST_MS + 1;
    let own_time = DAWN_MS + LAST_MS;
    let old_time = DAWN_MS + OLD_MS;
    let table = [
        // Fresh connections, one topic quiet.
        (
            format!(r#"[{{"topic":"E","partition":0,"timestamp":{time}}},{{"topic":"C","partition":0,"offset":-1}}]"#),
            true,
        ),
        // After a lookup by time: other order of entries and keys.
        (
            format!(r#"[{{"offset":-1,"partition":0,"topic":"C"}},{{"topic":"E","partition":0,"timestamp":{time}}}]"#),
            true,
        ),
        (
            format!(r#"[{{"offset":1,"partition":0,"topic":"C"}},{{"topic":"E","partition":0,"timestamp":{time}}}]"#),
            true,
        ),
        // The quiet topic not named at all.
        (format!(r#"[{{"topic":"E","partition":0,"timestamp":{time}}}]"#), true),
        // The offset mode of its library, before 2018-08.
        (r#"[{"topic":"E","partition":0,"offset":2},{"topic":"C","partition":0,"offset":1}]"#.into(), false),
        (r#"[{"offset":2,"partition":0,"topic":"E"},{"offset":1,"partition":0,"topic":"C"}]"#.into(), false),
        // What a client gave is echoed, with more keys.
        (
            format!(
                r#"[{{"topic":"E","partition":0,"offset":2,"timestamp":{own_time}}},{{"topic":"C","partition":0,"offset":1,"timestamp":{old_time},"x":[]}}]"#
            ),
            false,
        ),
        (
            format!(
                r#"[ {{"topic": "E", "partition": 0, "timestamp": {time}, "offset": -1}}, {{"topic": "C", "partition": 0, "offset": 1}} ]"#
            ),
            true,
        ),
        (
            format!(
                r#"[{{"topic":"E","partition":0,"timestamp":{time},"offset":null}},{{"topic":"C","partition":0,"offset":1}}]"#
            ),
            true,
        ),
    ];
    let named = |id: String| {
        id.replace(r#""E""#, &format!("{:?}", topics.eqiad)).replace(r#""C""#, &format!("{:?}", topics.codfw))
    };
    table.into_iter().map(|(id, repeats)| (named(id), repeats)).collect()
}

async fn every_shape_of_id_is_followed_by_the_right_event(engine: Engine) {
    let (server, topics) = engine.serve(Options::default()).await;
    tell_the_story(&server).await;
    for (id, may_repeat) in shapes(&topics) {
        let mut stream = server.stream("/v2/stream/both", &format!("Last-Event-ID: {id}\r\n")).await;
        let mut read = stream.numbers_until(|read| read.contains(&3) && read.contains(&4)).await;
        read.sort_unstable();
        assert!(read == [3, 4] || may_repeat && read == [2, 3, 4], "{read:?} behind {id}");
    }
}

async fn minus_one_everywhere_is_live_and_minus_two_is_the_oldest(engine: Engine) {
    let (server, Topics { eqiad, codfw }) = engine.serve(Options::default()).await;
    tell_the_story(&server).await;
    let all = |offset: i64| {
        let entry = |topic| format!(r#"{{"topic":"{topic}","partition":0,"offset":{offset}}}"#);
        format!("Last-Event-ID: [{},{}]\r\n", entry(&eqiad), entry(&codfw))
    };
    let mut oldest = server.stream("/v2/stream/both", &all(-2)).await;
    let mut read = oldest.numbers_until(|read| read.len() == 5).await;
    read.sort_unstable();
    assert_eq!(read, [0, 1, 2, 3, 4]);
    let mut live = server.stream("/v2/stream/both", &all(-1)).await;
    server.put(&event_at("eqiad", 5, NEXT_MS + 1)).await;
    assert_eq!(live.numbers_until(|read| !read.is_empty()).await, [5]);
}

on_both_engines!(
    every_shape_of_id_is_followed_by_the_right_event,
    minus_one_everywhere_is_live_and_minus_two_is_the_oldest,
);
