//! Where readers start: the rules of ids, times and notices, on a log in memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::testing::{MemLog, two_topics, who};
use super::{From, Hub, Next, Options, SubscribeError, Subscription};
use crate::limits::{self, Limits};
use crate::log::TailBatch;
use crate::model::{ClientId, ClientKey, Offset, Partition, StreamSet, Timestamp, Topic};
use crate::shutdown::Shutdown;

const DAY_MS: i64 = 86_400_000;

/// `a.t/0` has offsets 0..10 at times 1000 s, 1001 s, …; `b.t/0` one record at 1005 s. The tail has been fed nothing, so
/// that every answer comes from the log.
pub(super) struct Host {
    pub(super) log: Arc<MemLog>,
    pub(super) hub: Hub,
    pub(super) set: StreamSet,
    pub(super) a: Partition,
    pub(super) b: Partition,
    _shutdown: Shutdown,
}

pub(super) fn host() -> Host {
    let (topics, set) = two_topics();
    let log = Arc::new(MemLog::default());
    let (a, b) = (Partition::new(&topics[0], 0), Partition::new(&topics[1], 0));
    log.add_partition(&a);
    log.add_partition(&b);
    for at in 0..10 {
        log.put(&a, 0, 1_000_000 + at * 1000, Some("{}"));
    }
    log.put(&b, 0, 1_005_000, Some("{}"));
    let shutdown = Shutdown::default();
    let engine = tokio::runtime::Handle::current();
    let hub = Hub::start(Options::default(), Limits::none(), log.clone(), topics, &[], &engine, shutdown.watcher())
        .expect("a hub");
    Host { log, hub, set, a, b, _shutdown: shutdown }
}

impl Host {
    pub(super) async fn subscribe(&self, from: From) -> Result<Subscription, SubscribeError> {
        self.told(from).await.map(|(subscription, _)| subscription)
    }

    /// And what it is told.
    async fn told(&self, from: From) -> Result<(Subscription, Option<Box<str>>), SubscribeError> {
        let mut subscription = self.hub.subscribe(&self.set, from, who())?;
        let notice = subscription.settle(Duration::from_secs(2)).await?;
        Ok((subscription, notice))
    }

    async fn by_id(&self, id: &str) -> (i64, i64, Option<String>) {
        let id = ClientId::parse(id, self.set.topics()).expect("a well-formed id");
        self.places_and_notice(From::Id(id)).await
    }

    async fn since(&self, ms: i64) -> (i64, i64, Option<String>) {
        self.places_and_notice(From::Since(Timestamp(ms))).await
    }

    /// Returns when the hub has taken the batch over.
    pub(super) async fn feed(&self, batch: TailBatch) {
        let feed = loop {
            match self.log.last_tail() {
                Some(feed) => break feed,
                None => tokio::task::yield_now().await,
            }
        };
        let caught_up = batch.caught_up;
        feed.send(batch).await.expect("the tail listens");
        while self.hub.caught_up() != caught_up {
            tokio::task::yield_now().await;
        }
    }

    pub(super) async fn places_and_notice(&self, from: From) -> (i64, i64, Option<String>) {
        let (subscription, notice) = self.told(from).await.expect("a place");
        let (a, b) = self.places(&subscription);
        (a, b, notice.map(String::from))
    }

    fn places(&self, subscription: &Subscription) -> (i64, i64) {
        let places = subscription.places();
        (places[&self.a].0, places[&self.b].0)
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_of_our_own_is_exact() {
    let host = host();
    let id =
        r#"[{"topic":"a.t","partition":0,"offset":4,"timestamp":1003000},{"topic":"b.t","partition":0,"offset":0}]"#;
    assert_eq!(host.by_id(id).await, (4, 0, None));
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_the_id_does_not_mention_starts_a_minute_before_its_newest_time() {
    let host = host();
    let id = r#"[{"topic":"a.t","partition":0,"offset":4,"timestamp":1003000}]"#;
    assert_eq!(host.by_id(id).await, (4, 0, None));
    let later = r#"[{"topic":"a.t","partition":0,"offset":10,"timestamp":1009000}]"#;
    host.log.put(&host.b, 0, 900_000, Some("{}"));
    assert_eq!(host.by_id(later).await, (10, 0, None));
    let without_time = r#"[{"topic":"a.t","partition":0,"offset":4}]"#;
    assert_eq!(host.by_id(without_time).await, (4, 2, None), "no time in the id at all: the live end");
}

#[tokio::test(start_paused = true)]
async fn ids_of_eventstreams_lose_nothing_and_repeat_at_most_one() {
    let host = host();
    // It holds the time of the last record plus one; -1 is a partition that was quiet.
    let both = r#"[{"topic":"a.t","partition":0,"timestamp":1003001},{"topic":"b.t","partition":0,"offset":-1}]"#;
    assert_eq!(host.by_id(both).await, (3, 0, None));
    let looked_up = r#"[{"offset":-1,"partition":0,"topic":"b.t"},{"topic":"a.t","partition":0,"timestamp":1009001}]"#;
    assert_eq!(host.by_id(looked_up).await, (9, 0, None));
    let fresh = r#"[{"topic":"a.t","partition":0,"offset":-1},{"topic":"b.t","partition":0,"offset":-1}]"#;
    assert_eq!(host.by_id(fresh).await, (10, 1, None), "nothing seen anywhere: live");
    let oldest = r#"[{"topic":"a.t","partition":0,"offset":-2},{"topic":"b.t","partition":0,"offset":-1}]"#;
    assert_eq!(host.by_id(oldest).await, (0, 1, None));
}

#[tokio::test(start_paused = true)]
async fn another_clusters_id_is_known_by_its_time_and_resumed_by_it() {
    let host = host();
    let id = r#"[{"topic":"a.t","partition":0,"offset":8,"timestamp":1003000},{"topic":"b.t","partition":0,"offset":1,"timestamp":1005000}]"#;
    let (a, b, notice) = host.by_id(id).await;
    assert_eq!((a, b), (3, 1));
    assert!(notice.is_some_and(|text| text.contains("a.t/0 offset 8 is another record here")));
}

#[tokio::test(start_paused = true)]
async fn an_offset_beside_a_time_is_exact_where_it_fits_and_else_the_time_counts() {
    let host = host();
    let beside = |offset: i64, time: i64| {
        format!(
            r#"[{{"topic":"a.t","partition":0,"offset":{offset},"timestamp":{time}}},{{"topic":"b.t","partition":0,"offset":1}}]"#
        )
    };
    assert_eq!(host.by_id(&beside(4, 1_003_001)).await, (4, 1, None), "the last record's time plus one");
    for offset in [2, 8, 99] {
        let (a, _, notice) = host.by_id(&beside(offset, 1_003_000)).await;
        assert_eq!(a, 3, "offset {offset}: the record of 1003000 may have siblings");
        assert!(notice.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_notice_is_one_line_of_ascii_and_not_long_whatever_an_id_names() {
    let host = host();
    let foreign: Vec<String> =
        (0..60).map(|n| format!(r#"{{"topic":"x\né\u0007{n}","partition":0,"offset":1}}"#)).collect();
    let id = format!(r#"[{{"topic":"a.t","partition":0,"offset":4}},{}]"#, foreign.join(","));
    let (_, _, notice) = host.by_id(&id).await;
    let notice = notice.expect("what is left out");
    assert!(notice.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{notice}");
    assert!(notice.starts_with("x???0/0 is not part") && notice.len() <= 1024, "{}: {notice}", notice.len());
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_no_longer_kept_starts_at_the_oldest_and_says_so() {
    let host = host();
    host.log.retain_from(&host.a, Offset(6));
    let id = r#"[{"topic":"a.t","partition":0,"offset":2,"timestamp":1001000},{"topic":"b.t","partition":0,"offset":1,"timestamp":1005000}]"#;
    let (a, b, notice) = host.by_id(id).await;
    assert_eq!((a, b), (6, 1));
    assert_eq!(notice.as_deref(), Some("a.t/0 asked offset 2, the oldest kept is 6"));
    let (a, b, notice) = host.since(1_000_000).await;
    assert_eq!((a, b), (6, 0));
    assert!(notice.is_some_and(|text| text.contains("asked since") && text.contains("the oldest kept is of")));
    let at_the_floor =
        r#"[{"topic":"a.t","partition":0,"offset":6,"timestamp":1005000},{"topic":"b.t","partition":0,"offset":1}]"#;
    assert_eq!(host.by_id(at_the_floor).await, (6, 1, None));
}

#[tokio::test(start_paused = true)]
async fn a_place_past_the_end_is_resumed_by_its_time_or_live() {
    let host = host();
    let timed =
        r#"[{"topic":"a.t","partition":0,"offset":99,"timestamp":1007000},{"topic":"b.t","partition":0,"offset":1}]"#;
    let (a, _, notice) = host.by_id(timed).await;
    assert_eq!(a, 7);
    assert!(notice.is_some_and(|text| text.contains("past the end")));
    let bare = r#"[{"topic":"a.t","partition":0,"offset":99},{"topic":"b.t","partition":0,"offset":1}]"#;
    assert_eq!(host.by_id(bare).await.0, 10);
}

#[tokio::test(start_paused = true)]
async fn entries_of_other_streams_are_left_out_and_named() {
    let host = host();
    let id = r#"[{"topic":"a.t","partition":0,"offset":4,"timestamp":1003000},{"topic":"x","partition":0,"offset":1},{"topic":"b.t","partition":7,"offset":1}]"#;
    let (a, b, notice) = host.by_id(id).await;
    assert_eq!((a, b), (4, 0));
    let notice = notice.expect("a notice");
    assert!(notice.contains("x/0 is not part") && notice.contains("b.t/7 is not part"), "{notice}");
    for foreign in [r#"[{"topic":"x","partition":0,"offset":1}]"#, r#"[{"topic":"b.t","partition":7,"offset":1}]"#] {
        let id = ClientId::parse(foreign, host.set.topics()).expect("well-formed");
        assert_eq!(host.subscribe(From::Id(id)).await.err(), Some(SubscribeError::ForeignId), "{foreign}");
    }
}

/// The stream `a`, whose own topic is `a.t` and which allows `b.t` and one that the log does not have.
fn double() -> StreamSet {
    let topics = |names: &[&str]| names.iter().map(|name| Topic::new(name)).collect();
    let name = crate::model::StreamName::parse("a").expect("a name");
    StreamSet::new(vec![name], topics(&["a.t"]), topics(&["b.t", "absent"]))
}

#[tokio::test(start_paused = true)]
async fn an_id_that_names_an_allowed_topic_is_followed_on_exactly_the_topics_that_it_names() {
    let host = host();
    let own = r#"{"topic":"a.t","partition":0,"offset":4,"timestamp":1003000}"#;
    let allowed = r#"{"topic":"b.t","partition":0,"timestamp":1005001}"#;
    let absent = r#"{"topic":"absent","partition":0,"offset":3}"#;
    let foreign = r#"{"topic":"x","partition":0,"offset":1}"#;
    let (a, b) = (("a.t", 4), ("b.t", 0));
    let table = [
        (vec![own], vec![a], ""),
        (vec![own, foreign], vec![a], "x/0 is not part"),
        (vec![allowed], vec![b], ""),
        (vec![own, allowed], vec![a, b], ""),
        (vec![allowed, own, foreign], vec![a, b], "x/0 is not part"),
        (vec![own, absent], vec![a], "absent/0 is not part"),
        (vec![absent], vec![], "absent/0 is not part"),
    ];
    for (entries, expected, told) in table {
        let id = format!("[{}]", entries.join(","));
        let parsed = ClientId::parse(&id, []).expect("well-formed");
        let mut subscription = host.hub.subscribe(&double(), From::Id(parsed), who()).expect("a reader");
        let notice = subscription.settle(Duration::from_secs(2)).await.expect("nobody is refused");
        let places = subscription.places();
        let places: Vec<_> = places.iter().map(|(partition, next)| (partition.topic.as_str(), next.0)).collect();
        assert_eq!(places, expected, "{id}");
        let notice = notice.unwrap_or_default();
        assert!(notice.contains(told) && notice.is_empty() == told.is_empty(), "{id}: {notice}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_chosen_topic_comes_live_and_only_to_those_who_chose_it() {
    let host = host();
    let opened = vec![host.log.opened(&host.a, Offset(10)), host.log.opened(&host.b, Offset(1))];
    host.feed(TailBatch { opened, records: vec![], caught_up: true }).await;
    let id = r#"[{"topic":"b.t","partition":0,"offset":1,"timestamp":1005000}]"#;
    let id = ClientId::parse(id, []).expect("well-formed");
    let mut chose = host.hub.subscribe(&double(), From::Id(id), who()).expect("a reader");
    let mut plain = host.hub.subscribe(&double(), From::Live, who()).expect("a reader");
    host.log.put(&host.a, 0, 1_010_000, Some(r#"{"n":"own"}"#));
    host.log.put(&host.b, 0, 1_011_000, Some(r#"{"n":"chosen"}"#));
    let mut records = host.log.records(&host.a, Offset(10)..Offset(11));
    records.extend(host.log.records(&host.b, Offset(1)..Offset(2)));
    host.feed(TailBatch { opened: vec![], records, caught_up: false }).await;
    let worker = host.hub.worker(Duration::ZERO);
    for (reader, number, id) in [
        (&mut chose, "chosen", r#"id: [{"topic":"b.t","partition":0,"offset":2,"timestamp":1011000}]"#),
        (&mut plain, "own", r#"id: [{"topic":"a.t","partition":0,"offset":11,"timestamp":1010000}]"#),
    ] {
        reader.settle(Duration::from_secs(2)).await.expect("a place");
        let turn = reader.enter(&worker);
        let mut found = Vec::new();
        let next = std::future::poll_fn(|context| reader.poll_next(context, &turn, &mut found)).await;
        assert_eq!((next, found.len()), (Next::Frames, 1), "{number}");
        let sent = [found[0].head().raw(), found[0].body().raw()].concat();
        let sent = String::from_utf8(sent).expect("UTF-8");
        assert!(sent.contains(number) && sent.contains(id), "{sent}");
    }
}

#[tokio::test(start_paused = true)]
async fn since_is_the_first_record_at_or_after_that_time_in_every_partition() {
    let host = host();
    assert_eq!(host.since(1_004_500).await, (5, 0, None));
    assert_eq!(host.since(1_005_001).await, (6, 1, None));
    assert_eq!(host.since(0).await, (0, 0, None), "nothing was lost before offset 0: no notice");
    assert_eq!(host.since(Timestamp::now().0 + DAY_MS).await, (10, 1, None), "the future is live");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_away_never_refuses_a_reader() {
    let host = host();
    host.log.away.store(true, Ordering::Relaxed);
    let id =
        r#"[{"topic":"a.t","partition":0,"offset":4,"timestamp":1003000},{"topic":"b.t","partition":0,"offset":1}]"#;
    let id = ClientId::parse(id, host.set.topics()).expect("well-formed");
    let (mut waiting, notice) = host.told(From::Id(id)).await.expect("a reader all the same");
    assert_eq!(notice, None);
    host.log.away.store(false, Ordering::Relaxed);
    assert_eq!(waiting.settle(Duration::from_secs(5)).await, Ok(None));
    assert_eq!(host.places(&waiting), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn a_live_reader_that_comes_while_the_log_is_away_gets_what_comes_after_it() {
    let host = host();
    let _reader = host.hub.subscribe(&host.set, From::Live, who()).expect("the channel opens with its first reader");
    let opened = vec![host.log.opened(&host.a, Offset(10)), host.log.opened(&host.b, Offset(1))];
    host.feed(TailBatch { opened, records: vec![], caught_up: true }).await;
    host.log.away.store(true, Ordering::Relaxed);
    host.feed(TailBatch { opened: vec![], records: vec![], caught_up: false }).await;
    let mut live = host.subscribe(From::Live).await.expect("a reader all the same");
    host.log.put(&host.a, 0, 2_000_000, Some("{}"));
    host.log.away.store(false, Ordering::Relaxed);
    live.settle(Duration::from_secs(5)).await.expect("a place");
    assert_eq!(host.places(&live), (10, 1), "the record that came meanwhile is not left out");
}

#[tokio::test(start_paused = true)]
async fn places_within_the_ring_are_resolved_without_the_log() {
    let host = host();
    // The channel opens with its first reader.
    let _reader = host.subscribe(From::Live).await.expect("a reader");
    let opened = vec![host.log.opened(&host.a, Offset(2)), host.log.opened(&host.b, Offset(0))];
    let mut records = host.log.records(&host.a, Offset(2)..Offset(10));
    records.extend(host.log.records(&host.b, Offset(0)..Offset(1)));
    host.feed(TailBatch { opened, records, caught_up: true }).await;
    host.log.away.store(true, Ordering::Relaxed);
    let id = r#"[{"topic":"a.t","partition":0,"offset":5,"timestamp":1004000},{"topic":"b.t","partition":0,"offset":1,"timestamp":1005000}]"#;
    assert_eq!(host.by_id(id).await, (5, 1, None));
    let live = host.subscribe(From::Live).await.expect("a place");
    assert_eq!(host.places(&live), (10, 1));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_readers_from_one_place_cost_one_read_of_the_gap() {
    let host = host();
    for at in 0..5_000 {
        host.log.put(&host.a, 0, 2_000_000 + at, Some(r#"{"meta":{}}"#));
    }
    let id = |offset: i64| {
        let time = 1_000_000 + (offset - 1) * 1000;
        format!(
            r#"[{{"topic":"a.t","partition":0,"offset":{offset},"timestamp":{time}}},{{"topic":"b.t","partition":0,"offset":1}}]"#
        )
    };
    for reader in 0..1_000 {
        assert_eq!(host.by_id(&id(1 + reader % 9)).await.0, 1 + reader % 9);
    }
    assert_eq!(host.log.reads.load(Ordering::Relaxed), 2, "one block of each partition, which readers want anyway");
    let catchup = &host.hub.shared.catchup;
    for _ in 0..1_000 {
        let mut from = Offset(1);
        while from < Offset(5_010) {
            from = catchup.block(&who().asker.key, &host.a, from).await.expect("a block").next;
        }
    }
    assert_eq!(host.log.reads.load(Ordering::Relaxed), 2 + 9, "5,010 records are ten blocks");
}

#[tokio::test(start_paused = true)]
async fn a_set_whose_id_would_not_fit_is_refused() {
    let host = host();
    let many = Topic::new("a.t");
    for index in 1..400 {
        let partition = Partition::new(&many, index);
        host.log.add_partition(&partition);
        host.log.put(&partition, 6_000_000_000, 1_756_449_917_002 - i64::from(index) * 77_777, Some("{}"));
    }
    let refused = host.subscribe(From::Live).await.err();
    assert!(matches!(refused, Some(SubscribeError::TooManyPartitions(401))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn an_id_of_an_empty_partition_needs_no_log() {
    let host = host();
    let _reader = host.hub.subscribe(&host.set, From::Live, who()).expect("the channel opens with its first reader");
    let opened = vec![host.log.opened(&host.a, Offset(2)), host.log.opened(&host.b, Offset(0))];
    let records = host.log.records(&host.a, Offset(2)..Offset(10));
    host.feed(TailBatch { opened, records, caught_up: true }).await;
    host.log.away.store(true, Ordering::Relaxed);
    let id =
        r#"[{"topic":"a.t","partition":0,"offset":5,"timestamp":1004000},{"topic":"b.t","partition":0,"offset":0}]"#;
    assert_eq!(host.by_id(id).await, (5, 0, None));
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_turns_are_taken_waits_and_another_reads_also_for_it() {
    let host = host();
    let limits = &host.hub.shared.limits;
    let options = limits::Options { catchup_reads_per_client: 1, ..limits::Options::unlimited() };
    limits.set(options).expect("limits");
    let (catchup, client) = (&host.hub.shared.catchup, who().asker.key);
    let other = ClientKey::of([192, 0, 2, 1].into(), 32, 64);
    let taken = limits.turns().take(&client).await;
    let mut waits = Box::pin(catchup.block(&client, &host.a, Offset(0)));
    assert!(tokio::time::timeout(Duration::from_secs(60), &mut waits).await.is_err(), "it is not its turn");
    assert_eq!(host.log.reads.load(Ordering::Relaxed), 0);
    assert!(catchup.block(&other, &host.a, Offset(0)).await.is_ok(), "nobody waits for another's turn");
    let joined = catchup.block(&client, &host.a, Offset(0));
    assert!(tokio::time::timeout(Duration::from_secs(60), joined).await.is_ok(), "what is there needs no turn");
    drop(taken);
    assert!(waits.await.is_ok());
    assert_eq!(host.log.reads.load(Ordering::Relaxed), 1, "it is read once");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_line_keeps_no_turn() {
    let host = host();
    let (catchup, turns, client) = (&host.hub.shared.catchup, host.hub.shared.limits.turns(), who().asker.key);
    let mut taken = Vec::new();
    while let Ok(turn) = tokio::time::timeout(Duration::from_secs(1), turns.take(&client)).await {
        taken.push(turn);
    }
    let left = tokio::time::timeout(Duration::from_secs(1), catchup.block(&client, &host.a, Offset(0)));
    assert!(left.await.is_err());
    taken.pop();
    tokio::time::timeout(Duration::from_secs(1), turns.take(&client)).await.expect("the turn that was given back");
    assert_eq!(host.log.reads.load(Ordering::Relaxed), 0, "nobody reads for who has left");
}

#[tokio::test(start_paused = true)]
async fn a_joined_read_hands_nobody_another_readers_loss() {
    let host = host();
    host.log.retain_from(&host.a, Offset(5));
    let catchup = &host.hub.shared.catchup;
    let client = who().asker.key;
    let (before, block) =
        tokio::join!(catchup.time_before(&client, &host.a, Offset(5)), catchup.block(&client, &host.a, Offset(7)));
    assert_eq!(before, Ok(None));
    assert_eq!(block.map(|block| block.entries_from(Offset(7)).len()), Ok(3), "what is kept is read");
}

#[tokio::test(start_paused = true)]
async fn retention_that_passes_a_reader_is_told_and_the_ring_still_gives_what_it_has() {
    let host = host();
    let _reader = host.hub.subscribe(&host.set, From::Live, who()).expect("the channel opens with its first reader");
    let opened = vec![host.log.opened(&host.a, Offset(5)), host.log.opened(&host.b, Offset(1))];
    let records = host.log.records(&host.a, Offset(5)..Offset(10));
    host.feed(TailBatch { opened, records, caught_up: true }).await;
    let id = r#"[{"topic":"a.t","partition":0,"offset":2},{"topic":"b.t","partition":0,"offset":1}]"#;
    let id = ClientId::parse(id, host.set.topics()).expect("well-formed");
    let mut reader = host.subscribe(From::Id(id)).await.expect("a place");
    host.hub.shared.catchup.forget(&host.a);
    host.log.retain_from(&host.a, Offset(8));
    let worker = host.hub.worker(Duration::ZERO);
    let turn = reader.enter(&worker);
    let mut found = Vec::new();
    let next = std::future::poll_fn(|context| reader.poll_next(context, &turn, &mut found)).await;
    let told = "a.t/0 was at offset 2, the oldest kept is 5: what lies between is lost";
    assert_eq!(next, Next::Notice(told.into()));
    let next = std::future::poll_fn(|context| reader.poll_next(context, &turn, &mut found)).await;
    assert_eq!((next, found.len()), (Next::Frames, 5), "offsets 5 to 9, from memory");
}

#[tokio::test(start_paused = true)]
async fn a_set_that_nobody_reads_any_more_makes_room_for_another() {
    let host = host();
    let mut channels = super::channels::Channels::new(1 << 20);
    let set = |number: usize| {
        let name = crate::model::StreamName::parse(&format!("s{number}")).expect("a name");
        StreamSet::new(vec![name], vec![host.a.topic.clone()], vec![])
    };
    let read: Vec<_> = (0..1024).map(|number| channels.get_or_open(&set(number), false).expect("room")).collect();
    assert_eq!(channels.get_or_open(&set(5_000), false).err(), Some(SubscribeError::TooManyChannels(1024)));
    drop(read);
    assert!((1024..4096).all(|number| channels.get_or_open(&set(number), false).is_ok()));
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_the_streams_have_just_got_starts_where_the_log_says() {
    let host = host();
    host.log.put(&host.a, 0, 2_000_000, Some("{}"));
    let opened = vec![host.log.opened(&host.a, Offset(0))];
    let records = host.log.records(&host.a, Offset(0)..Offset(11));
    host.feed(TailBatch { opened, records, caught_up: true }).await;
    let alone =
        |at: usize| StreamSet::new(vec![host.set.streams()[at].clone()], vec![host.set.topics()[at].clone()], vec![]);
    let following = super::following::Following::of(vec![alone(0), alone(1)]);
    host.hub.shared.channels.lock().follow(Arc::new(following));
    // The tail has not opened `b.t` yet, and will open it at its first record.
    let id = r#"[{"topic":"a.t","partition":0,"offset":11,"timestamp":2000000}]"#;
    assert_eq!(host.by_id(id).await, (11, 1, None), "more than a minute after the record of b.t");
    let live = host.subscribe(From::Live).await.expect("a place");
    assert_eq!(host.places(&live), (11, 1));
}
