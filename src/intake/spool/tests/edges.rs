//! What one sees only at the right moment.

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::*;
use crate::intake::spool::gate::{Pace, Replayed};
use crate::intake::spool::store::{Load, Settled, weight};
use crate::intake::spool::writer::REPLAY_BYTES_MAX;

fn paced(pace: Pace, log: Arc<Fake>) -> World {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let place = Place { folder: folder.path().to_owned(), free_bytes_min: 0, waits: false };
    let spool = Spool::open_at(pace, &enabled(), &place, DEADLINE, log.clone(), Handle::current());
    World { log, spool: spool.expect("a spool").expect("it is wanted"), folder }
}

/// By then the log has had its time, and the spool has its own still.
fn soon(world: &World) -> Instant {
    Instant::now() + world.spool.shared.reserve + pace().suspect
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_hangs_leaves_the_spool_its_time() {
    let world = World::new(Mood::Hangs);
    let fates = world.spool.append(vec![record("t", "", "a")], Arc::new(()), soon(&world)).await;
    assert_eq!(fates, [Ok(Kept::Spool)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_and_not_answered_may_be_there_also_if_the_spool_refuses_it() {
    let world = World::of_bytes(1);
    world.log.is(Mood::Hangs);
    let fate = world.spool.append(vec![record("t", "", "a")], Arc::new(()), soon(&world)).await.remove(0);
    let said = why(fate);
    assert!(said.contains("Unknown") && said.contains("no answer in time") && said.contains("max_bytes"), "{said}");
}

/// Who can take nothing out of the file until the trigger is dropped.
async fn stuck(world: &World) -> rusqlite::Connection {
    let other = world.somebody_else();
    let stuck = "CREATE TRIGGER stuck BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'stuck'); END";
    other.execute_batch(stuck).expect("a trigger");
    world.log.is(Mood::Takes);
    let fails = |status: &Status| status.fault.as_ref().is_some_and(|fault| fault.contains("written: stuck"));
    world.until("it cannot be deleted", fails).await;
    other
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_has_is_not_sent_again_because_the_disk_fails() {
    // Nobody looks: that it is written at last shows that the disk works.
    let world = paced(Pace { look: PATIENCE * 2, ..pace() }, Fake::new(Mood::Away));
    assert_eq!(world.one("a").await, Ok(Kept::Spool));
    let other = stuck(&world).await;
    other.execute_batch("DROP TRIGGER stuck").expect("it is dropped");
    world.until_empty().await;
    world.until("the disk works", |status| status.fault.is_none()).await;
    assert_eq!(world.log.values(), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_disk_that_fails_and_the_next_start_sends_again_what_is_still_there() {
    let world = World::new(Mood::Away);
    assert_eq!(world.one("a").await, Ok(Kept::Spool));
    let other = stuck(&world).await;
    let closed = tokio::time::timeout(CLOSE_WITHIN / 2, world.spool.close()).await;
    assert!(closed.is_ok(), "it gives up");
    other.execute_batch("DROP TRIGGER stuck").expect("it is dropped");
    let world = world.again(&enabled()).await;
    world.until_empty().await;
    assert_eq!(world.log.values(), ["a", "a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_a_disk_that_still_fails_ends_no_fault() {
    // Nobody else looks.
    let world = paced(Pace { look: PATIENCE * 2, ..pace() }, Fake::new(Mood::Away));
    let other = world.somebody_else();
    other.execute_batch("BEGIN IMMEDIATE").expect("somebody writes");
    assert!(why(world.one("a").await).contains("cannot be written"));
    let looked = async || {
        let shared = &world.spool.shared;
        shared.give(Job::Look).expect("it is taken");
        // Whose answer comes after the look.
        shared.ask(|answer| Job::LookAside { events_max: 1, answer }).await.expect("a list");
        world.spool.status().fault
    };
    assert!(looked().await.is_some_and(|fault| fault.contains("cannot be written")));
    other.execute_batch("ROLLBACK").expect("and stops");
    assert_eq!(looked().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_not_set_aside_on_the_word_of_a_log_that_cannot_be_asked() {
    let world = World::new(Mood::Away);
    assert_eq!(world.one("a").await, Ok(Kept::Spool));
    world.log.is(Mood::CutOff);
    let asked = || *world.log.asked.lock();
    let mut long_enough_at = None;
    let considered = |status: &Status| {
        let gate = world.spool.shared.gate.lock();
        if long_enough_at.is_none() && gate.is_refused_for_good(&Topic::new("t"), true, Instant::now()) {
            long_enough_at = Some(asked());
        }
        // The one after the next begins when the next has been considered.
        status.aside > 0 || long_enough_at.is_some_and(|before| asked() >= before + 2)
    };
    world.until("it has been refused for long enough", considered).await;
    assert_eq!((world.spool.status().events, world.spool.status().aside), (1, 0));
    world.log.is(Mood::Lacks(Topic::new("t")));
    world.until("it can be asked", |status| status.aside == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_replayed_at_once_is_bounded_by_bytes_too() {
    let world = World::new(Mood::Away);
    let half = "x".repeat(usize::try_from(REPLAY_BYTES_MAX / 2).expect("it fits"));
    for _ in 0..3 {
        assert_eq!(world.one(&half).await, Ok(Kept::Spool));
    }
    let topic = Topic::new("t");
    let found = world.spool.shared.ask(|answer| Job::Oldest { topic, events_max: 9, answer }).await;
    assert_eq!(found.expect("events").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_large_is_small_when_it_is_empty() {
    let world = World::new(Mood::Away);
    for _ in 0..12 {
        assert_eq!(world.one(&"x".repeat(1 << 20)).await, Ok(Kept::Spool));
    }
    world.log.is(Mood::Takes);
    world.until_empty().await;
    world.spool.close().await;
    let file = std::fs::metadata(world.folder.path().join(store::FILE_NAME)).expect("it is there");
    assert!(file.len() < 6 << 20, "{} bytes", file.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_is_a_fault_until_it_can_be() {
    let world = World::new(Mood::Away);
    assert_eq!(world.one("a").await, Ok(Kept::Spool));
    let other = world.somebody_else();
    other.execute_batch("ALTER TABLE events RENAME TO elsewhere").expect("it is renamed");
    let fails = |status: &Status| status.fault.as_ref().is_some_and(|fault| fault.contains("cannot be read"));
    world.until("it cannot be read", fails).await;
    other.execute_batch("ALTER TABLE elsewhere RENAME TO events").expect("it is renamed");
    world.until("it can be read", |status| status.fault.is_none()).await;
    assert_eq!(world.spool.status().events, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_takes_nothing_is_not_asked_without_a_pause() {
    let world = World::new(Mood::Away);
    assert_eq!(world.one("a").await, Ok(Kept::Spool));
    let later = || world.spool.shared.gate.lock().next_at().is_some_and(|at| at > Instant::now());
    world.until("the next replay is later", |_| later()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_is_always_the_first_that_waits() {
    let world = World::new(Mood::Away);
    assert_eq!(world.one("a").await, Ok(Kept::Spool));
    let first = world.spool.status().oldest.expect("something waits");
    while Timestamp::now() == first {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.one("b").await, Ok(Kept::Spool));
    let (topic, shared) = (Topic::new("t"), &world.spool.shared);
    let found = shared.ask(|answer| Job::Oldest { topic: topic.clone(), events_max: 9, answer }).await;
    let [a, b] = &found.expect("events")[..] else { panic!("two wait") };
    let settle = async |settled| {
        let done = shared.ask(|answer| Job::Settle { topic: topic.clone(), settled, answer }).await;
        done.expect("it is written");
        world.spool.status().oldest
    };
    let refused = vec![(a.seq, weight(&a.record), "so".to_owned())];
    let second = settle(Settled { refused, ..Settled::default() }).await;
    assert!(second > Some(first), "{second:?}");
    let appended = vec![(b.seq, weight(&b.record))];
    assert_eq!(settle(Settled { appended, ..Settled::default() }).await, None);
    assert_eq!(shared.ask(|answer| Job::Retry { answer }).await, Ok(1));
    assert_eq!(world.spool.status().oldest, Some(first));
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_are_written_together_do_not_overfill_it_together() {
    const MANY: usize = 20;
    const BYTES_MAX: u64 = 1_000;
    let first = World::new(Mood::Away);
    let log = Fake::new(Mood::Away);
    let options = Options { enabled: true, max_bytes: BYTES_MAX };
    // What is given to it before it has the file is one group.
    let second = open(&log, &first.folder, &options, 0, true).expect("it waits").expect("it is wanted");
    let shared = &second.shared;
    let put = |_| {
        let coming = shared.expect(vec![Topic::new("t")]);
        shared.put(vec![record("t", "", "x")], coming, Instant::now() + DEADLINE)
    };
    let (answers, ()) = join(join_all((0..MANY).map(put)), first.spool.close()).await;
    let taken = answers.iter().filter(|answer| answer.is_ok()).count() as u64;
    assert_eq!(taken, BYTES_MAX / weight(&record("t", "", "x")), "{answers:?}");
    assert!(second.status().bytes <= BYTES_MAX && taken < MANY as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requests_place_is_held_as_long_as_the_log_or_the_spool_has_it() {
    let world = World::new(Mood::Hangs);
    let place = Arc::new(());
    let fates = world.spool.append(vec![record("t", "", "a")], place.clone(), soon(&world)).await;
    assert_eq!((fates, Arc::strong_count(&place)), (vec![Ok(Kept::Spool)], 2), "the log has it still");
    world.log.is(Mood::Away);
    world.until("the log has answered", |_| Arc::strong_count(&place) == 1).await;
    let other = world.somebody_else();
    other.execute_batch("BEGIN IMMEDIATE").expect("somebody writes");
    let later = Instant::now() + DEADLINE;
    let mut appending = Box::pin(world.spool.append(vec![record("t", "", "b")], place.clone(), later));
    assert!(appending.as_mut().now_or_never().is_none());
    assert_eq!(Arc::strong_count(&place), 2, "the spool has it");
    other.execute_batch("ROLLBACK").expect("and stops");
    assert_eq!((appending.await, Arc::strong_count(&place)), (vec![Ok(Kept::Spool)], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_last_write_lets_those_in_that_waited_for_it() {
    let world = paced(Pace { closing: PATIENCE, ..pace() }, Fake::new(Mood::Takes));
    let spool = &world.spool;
    let (topic, load) = (Topic::new("t"), Load { events: 1, bytes: 1 });
    let coming = spool.shared.expect(vec![topic.clone()]);
    {
        // The lane closes, while another write is on its way.
        let (mut gate, now) = (spool.shared.gate.lock(), Instant::now());
        gate.added(&topic, load, now);
        gate.turn(now).expect("a turn");
        gate.removed(&topic, load);
        gate.replayed(&topic, &Replayed::All, now);
    }
    let due = Instant::now() + spool.shared.reserve * 3;
    let mut appending = Box::pin(spool.append(vec![record("t", "", "a")], Arc::new(()), due));
    assert!(appending.as_mut().now_or_never().is_none());
    drop(coming);
    assert_eq!(appending.await, [Ok(Kept::Log)]);
}
