//! The ids that EventStreams has sent from 2018 to 2026, each followed by the right next event, on the socket.
//!
//! An id of EventStreams holds the time of the last record seen, plus one. Records may share a millisecond or go back in
//! time, and then such an id cannot say which of them was the last: the first record of that time or later comes, and
//! all behind it. So some may repeat, and none is ever lost.

use crate::engine::{DAWN_MS, Engine, Topics, event_at, on_both_engines};
use crate::server::{Options, Server};
use crate::support::unique;

const BASE_MS: i64 = 600_000;
/// What `eqiad` gets, in this order: siblings of one millisecond, and two that are dated before what is there already.
/// The number of an event is its offset.
const EQIAD_MS: [i64; 8] = [
    BASE_MS,
    BASE_MS + 1_000,
    BASE_MS + 2_000,
    BASE_MS + 2_000,
    BASE_MS + 1_994,
    BASE_MS + 2_000,
    BASE_MS + 1_990,
    BASE_MS + 3_000,
];
/// What `codfw` gets, numbered from 10: one long before, and four while the reader is away, of which one is dated by a
/// clock that is half a minute late.
const CODFW_MS: [i64; 5] = [0, BASE_MS + 2_500, BASE_MS - 30_000, BASE_MS + 2_500, BASE_MS + 3_000];
const CODFW_FROM: i64 = 10;
/// The last event of `eqiad` that a reader has had, and the first that comes when it returns with that one's time.
const LEFT_AFTER: [(usize, i64); 5] = [(0, 0), (1, 1), (2, 2), (3, 2), (4, 2)];

/// What must come, of each topic in this order and nothing else of it.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    eqiad: Vec<i64>,
    codfw: Vec<i64>,
}

impl Expected {
    fn from(eqiad: i64, codfw: i64) -> Self {
        Self { eqiad: (eqiad..8).collect(), codfw: (CODFW_FROM + codfw..CODFW_FROM + 5).collect() }
    }
}

async fn tell_the_story(server: &Server) {
    let eqiad = EQIAD_MS.iter().enumerate().map(|(number, ms)| event_at("eqiad", number, *ms));
    let codfw = CODFW_MS.iter().enumerate().map(|(number, ms)| event_at("codfw", 10 + number, *ms));
    for event in eqiad.chain(codfw) {
        server.put(&event).await;
    }
}

/// Every shape in which a reader may have left after this event, and what follows it. `E` and `C` are the topics, `T` is
/// EventStreams' time of `eqiad`, `L` the record's own, `N` the next offset; `O` EventStreams' time of the old one of `codfw`.
fn shapes(last: usize, first_by_time: i64) -> Vec<(&'static str, Expected)> {
    let next = last as i64 + 1;
    let by_time = || Expected::from(first_by_time, 1);
    let exact = || Expected::from(next, 1);
    vec![
        // A fresh connection: the other data centre has not sent anything yet. In either order.
        (r#"[{"topic":"E","partition":0,"timestamp":T},{"topic":"C","partition":0,"offset":-1}]"#, by_time()),
        (r#"[{"topic":"C","partition":0,"offset":-1},{"topic":"E","partition":0,"timestamp":T}]"#, by_time()),
        // After a lookup by time: other keys first, and the entries flipped.
        (r#"[{"offset":-1,"partition":0,"topic":"C"},{"topic":"E","partition":0,"timestamp":T}]"#, by_time()),
        (r#"[{"offset":1,"partition":0,"topic":"C"},{"topic":"E","partition":0,"timestamp":T}]"#, by_time()),
        (r#"[{"topic":"E","partition":0,"timestamp":T},{"offset":1,"partition":0,"topic":"C"}]"#, by_time()),
        // Both have sent.
        (
            r#"[{"topic":"E","partition":0,"timestamp":T},{"topic":"C","partition":0,"timestamp":O}]"#,
            Expected::from(first_by_time, 0),
        ),
        // A reader that took only what it knew, or whose stream had no other data centre yet.
        (r#"[{"topic":"E","partition":0,"timestamp":T}]"#, by_time()),
        // What a client gave of its own is sent back with its keys, its order and its spaces.
        (
            r#"[ {"mine": {"a": [1, null]}, "timestamp": T, "partition": 0, "topic": "E"}, {"offset": -1, "topic": "C", "partition": 0} ]"#,
            by_time(),
        ),
        (
            r#"[{"topic":"E","partition":0,"timestamp":T,"offset":-1},{"topic":"C","partition":0,"offset":1}]"#,
            by_time(),
        ),
        (
            r#"[{"topic":"E","partition":0,"timestamp":T,"offset":null},{"topic":"C","partition":0,"offset":1}]"#,
            by_time(),
        ),
        // Its library's offset mode, in use until 2018-08.
        (r#"[{"topic":"E","partition":0,"offset":N},{"topic":"C","partition":0,"offset":1}]"#, exact()),
        (r#"[{"offset":1,"partition":0,"topic":"C"},{"offset":N,"partition":0,"topic":"E"}]"#, exact()),
        (
            r#"[{"topic":"E","partition":0,"offset":N,"timestamp":null},{"topic":"C","partition":0,"offset":1}]"#,
            exact(),
        ),
        // Offset and time: the offset counts, whosever time stands beside it.
        (r#"[{"topic":"E","partition":0,"offset":N,"timestamp":L},{"topic":"C","partition":0,"offset":-1}]"#, exact()),
        (
            r#"[{"topic":"E","partition":0,"timestamp":T,"offset":N},{"topic":"C","partition":0,"timestamp":O,"offset":1}]"#,
            exact(),
        ),
        // An offset of another cluster: the time counts.
        (
            r#"[{"topic":"E","partition":0,"offset":5891112554,"timestamp":L},{"topic":"C","partition":0,"offset":-1}]"#,
            by_time(),
        ),
        // A record without a time, as no broker keeps them any more, makes a 1: nobody knows where that was.
        (r#"[{"topic":"E","partition":0,"timestamp":1},{"topic":"C","partition":0,"offset":1}]"#, Expected::from(0, 1)),
        (r#"[{"topic":"E","partition":0,"timestamp":T},{"topic":"C","partition":0,"offset":-2}]"#, {
            Expected::from(first_by_time, 0)
        }),
    ]
}

fn written(shape: &str, topics: &Topics, last: usize) -> String {
    let time = DAWN_MS + EQIAD_MS[last];
    let old = DAWN_MS + CODFW_MS[0] + 1;
    shape
        .replace(r#""E""#, &format!("{:?}", topics.eqiad))
        .replace(r#""C""#, &format!("{:?}", topics.codfw))
        .replace(r#""timestamp":T"#, &format!(r#""timestamp":{}"#, time + 1))
        .replace(r#""timestamp": T"#, &format!(r#""timestamp": {}"#, time + 1))
        .replace(r#""timestamp":L"#, &format!(r#""timestamp":{time}"#))
        .replace(r#""timestamp":O"#, &format!(r#""timestamp":{old}"#))
        .replace(r#""offset":N"#, &format!(r#""offset":{}"#, last + 1))
}

async fn follow(server: &Server, list: &str, id: &str) -> Expected {
    let mut stream = server.stream(&format!("/v2/stream/{list}"), &format!("Last-Event-ID: {id}\r\n")).await;
    let read = stream.numbers_until(|read| read.contains(&7) && read.contains(&14)).await;
    let (eqiad, codfw) = read.into_iter().partition(|number| *number < CODFW_FROM);
    Expected { eqiad, codfw }
}

async fn every_shape_of_id_is_followed_by_the_right_next_event_and_nothing_is_missing(engine: Engine) {
    let (server, topics) = engine.serve(Options::default()).await;
    tell_the_story(&server).await;
    for (last, first_by_time) in LEFT_AFTER {
        for (shape, expected) in shapes(last, first_by_time) {
            let id = written(shape, &topics, last);
            for list in ["both", "codfw,eqiad"] {
                assert_eq!(follow(&server, list, &id).await, expected, "{list} after {last} behind {id}");
            }
        }
    }
}

/// The same ids when the rings have all of it, and when a server that has just started has none in its rings but what it
/// read when it did.
async fn a_restart_makes_no_difference_to_an_id_of_eventstreams(engine: Engine) {
    let (mut server, topics) = engine.serve(Options::default()).await;
    tell_the_story(&server).await;
    assert!(server.stop().await.success());
    server.start_again().await;
    for (last, first_by_time) in LEFT_AFTER {
        let (shape, expected) = &shapes(last, first_by_time)[0];
        let id = written(shape, &topics, last);
        assert_eq!(follow(&server, "both", &id).await, *expected, "{id}");
    }
}

async fn minus_one_everywhere_is_live_and_minus_two_is_the_oldest(engine: Engine) {
    let (server, Topics { eqiad, codfw }) = engine.serve(Options::default()).await;
    tell_the_story(&server).await;
    let all = |offset: i64| {
        let entry = |topic| format!(r#"{{"topic":"{topic}","partition":0,"offset":{offset}}}"#);
        format!("[{},{}]", entry(&eqiad), entry(&codfw))
    };
    assert_eq!(follow(&server, "both", &all(-2)).await, Expected::from(0, 0));
    let mut live = server.stream("/v2/stream/both", &format!("Last-Event-ID: {}\r\n", all(-1))).await;
    server.put(&event_at("eqiad", 20, BASE_MS + 4_000)).await;
    assert_eq!(live.numbers_until(|read| !read.is_empty()).await, [20]);
}

/// Topics whose names are so long that thirty of them make no id in JSON.
fn long_topics() -> Vec<String> {
    (0..30).map(|number| unique(&format!("t{number}.{}", "long.".repeat(30)))).collect()
}

/// As a set too large for JSON is written. The same id goes to a stream that has the first topic alone and allows the
/// others: it names them all, so all are read.
async fn an_id_in_the_compact_form_is_followed_by_exactly_what_comes_after_it(engine: Engine) {
    let topics = long_topics();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let (all, first, others) = (names.join(", "), names[0], names[1..].join(", "));
    let catalogue = format!(
        "wide: {{schema_title: test/event, topics: [{all}]}}\nnarrow: {{schema_title: test/event, topics: [{first}], topics_allowed: [{others}]}}\none: {{schema_title: test/event, topics: [{first}]}}\nlast: {{schema_title: test/event, topics: [{}]}}\n",
        names[29]
    );
    let server = Server::start(engine.options(Options::default().streams(&catalogue), &names).await).await;
    for number in 0..6 {
        server.put(&event_at(["one", "last"][number % 2], number, 10 * number as i64)).await;
    }
    let mut whole = server.stream("/v2/stream/wide?since=0", "").await;
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(whole.event().await);
    }
    let number = |at: usize| seen[at].json()["number"].as_i64().expect("a number");
    for (at, event) in seen.iter().enumerate().take(5) {
        assert!(event.id.starts_with("c1.") && event.id.is_ascii() && event.id.len() <= 4096, "{}", event.id);
        for list in ["wide", "narrow"] {
            let id = format!("Last-Event-ID: {}\r\n", event.id);
            let mut resumed = server.stream(&format!("/v2/stream/{list}"), &id).await;
            assert_eq!(resumed.head.header("sluice-notice"), None, "{list}");
            let mut rest = resumed.numbers_until(|read| read.len() == 5 - at).await;
            rest.sort_unstable();
            let mut expected: Vec<i64> = (at + 1..6).map(number).collect();
            expected.sort_unstable();
            assert_eq!(rest, expected, "{list} behind {}", number(at));
        }
    }
}

on_both_engines!(
    every_shape_of_id_is_followed_by_the_right_next_event_and_nothing_is_missing,
    a_restart_makes_no_difference_to_an_id_of_eventstreams,
    minus_one_everywhere_is_live_and_minus_two_is_the_oldest,
    an_id_in_the_compact_form_is_followed_by_exactly_what_comes_after_it,
);
