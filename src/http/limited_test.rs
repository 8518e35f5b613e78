//! Readers that are ended, slowed down, or seen to be behind.

use std::sync::Arc;
use std::time::Duration;

use super::reader;
use super::reader_test::{EVENT, LONG, Stream, manners, open, open_from, patience, run, socket};
use super::sse::Framing;
use crate::hub::testing::Feeder;
use crate::hub::{From, Reader};
use crate::limits;
use crate::model::Timestamp;

/// Feeds until the socket of the only reader is full, and a few events more. Says how many.
async fn feed_until_it_is_stuck(host: &Feeder) -> usize {
    let reader = only(host);
    let mut fed = 0;
    while reader.lag_events() < 3 {
        feed_large(host, fed).await;
        fed += 1;
    }
    fed
}

async fn feed_large(host: &Feeder, number: usize) {
    let padding = "x".repeat(10_000);
    host.feed(&format!(r#"{{"n":{number},"pad":"{padding}"}}"#)).await;
    tokio::task::yield_now().await;
}

fn only(host: &Feeder) -> Arc<Reader> {
    host.hub.registry().readers().pop().expect("a reader")
}

fn set_limits(host: &Feeder, change: impl FnOnce(&mut limits::Options)) {
    let mut options = limits::Options::unlimited();
    change(&mut options);
    host.limits.set(options).expect("limits");
}

/// The stream ends well: after a whole event, with a farewell. Says how many events it had, which are the first ones.
fn events_of_a_clean_end(text: &str) -> usize {
    let (events, farewell) = text.rsplit_once("\n\n").expect("the last event's end");
    assert!(farewell.contains("retry: ") && farewell.ends_with("\n\r\n0\r\n\r\n"), "{farewell}");
    let data: Vec<&str> = events.lines().filter(|line| line.starts_with("data: ")).collect();
    for (number, line) in data.iter().enumerate() {
        assert!(line.starts_with(&format!("data: {{\"n\":{number},")) && line.ends_with("}"), "{number}");
    }
    data.len()
}

#[test]
fn an_operator_ends_whom_he_chooses_once_and_nobody_else() {
    run(async |host| {
        let mut chosen = open(&host, Framing::Chunked).await;
        let id = only(&host).id;
        let mut other = open(&host, Framing::Raw).await;
        host.feed(EVENT).await;
        assert_eq!(host.hub.registry().end(&|reader| reader.id == id), 1);
        assert_eq!(host.hub.registry().end(&|reader| reader.id == id), 0, "it was told already");
        let rest = chosen.rest().await;
        assert!(rest.contains("data: ") && rest.ends_with("\n\r\n0\r\n\r\n"), "{rest}");
        host.feed(EVENT).await;
        other.expect(":ok\n\nevent: message\n").await;
        assert_eq!(host.hub.registry().open(), 1);
    });
}

#[test]
fn an_operator_ends_also_who_waits_for_the_log_and_who_has_not_begun() {
    run(async |host| {
        host.feed(EVENT).await;
        host.take_the_log_away();
        let long_ago = From::Since(Timestamp(0));
        let mut waits = open_from(&host, manners(Framing::Chunked), long_ago, &patience(&host)).await;
        waits.expect("5\r\n:ok\n\n\r\n").await;
        let (client, io) = socket().await;
        let late = host.subscribe(From::Live).await;
        assert_eq!(host.hub.registry().end(&|_| true), 2);
        assert!(waits.rest().await.ends_with("\n\r\n0\r\n\r\n"));
        let patience = patience(&host);
        let reader = reader::run(io, late, None, &host.worker, manners(Framing::Chunked), &patience);
        let rest = Stream { client, reader: tokio::task::spawn_local(reader) }.rest().await;
        assert!(rest.starts_with("5\r\n:ok\n\n\r\nc\r\nretry: "), "{rest}");
    });
}

#[test]
fn an_operator_ends_also_whose_socket_is_full_at_once_and_after_a_whole_event() {
    run(async |host| {
        let mut stream = open(&host, Framing::Chunked).await;
        let fed = feed_until_it_is_stuck(&host).await;
        host.hub.registry().end(&|_| true);
        (&mut stream.reader).await.expect("it ended by itself");
        assert_eq!(host.hub.registry().open(), 0);
        let had = events_of_a_clean_end(&stream.rest().await);
        assert!(had > 0 && had < fed, "{had} of {fed}");
    });
}

#[test]
fn the_lag_of_a_stuck_reader_grows_and_one_that_has_everything_has_none() {
    run(async |host| {
        let mut stream = open(&host, Framing::Raw).await;
        let reader = only(&host);
        host.feed(EVENT).await;
        stream.expect(":ok\n\nevent: message\n").await;
        assert_eq!(reader.lag_events(), 0);
        let fed = feed_until_it_is_stuck(&host).await;
        let (lag, sent) = (reader.lag_events(), reader.sent_bytes());
        assert!(sent > 0);
        for number in fed..fed + 10 {
            feed_large(&host, number).await;
        }
        assert_eq!((reader.lag_events(), reader.sent_bytes()), (lag + 10, sent));
        // It has come to the end when a heartbeat follows.
        stream.until(&format!("\"n\":{},", fed + 9)).await;
        stream.until("\n:\n").await;
        assert_eq!(reader.lag_events(), 0);
        assert!(reader.sent_bytes() > sent + 100_000);
    });
}

#[test]
fn who_is_behind_and_takes_nothing_is_ended_after_a_whole_event_and_its_place_is_free_before_it_reads() {
    run(async |host| {
        let patience = patience(&host);
        let mut stream = open_from(&host, manners(Framing::Chunked), From::Live, &patience).await;
        let fed = feed_until_it_is_stuck(&host).await;
        set_limits(&host, |limits| limits.slow_after = Duration::from_secs(5));
        let start = tokio::time::Instant::now();
        (&mut stream.reader).await.expect("it ended by itself");
        let waited = start.elapsed();
        assert!(waited >= Duration::from_secs(5) && waited <= Duration::from_secs(7), "{waited:?}");
        assert_eq!((host.hub.registry().open(), patience.held()), (0, 1));
        let had = events_of_a_clean_end(&stream.rest().await);
        assert!(had > 0 && had < fed, "{had} of {fed}");
    });
}

#[test]
fn what_a_slow_reader_never_takes_is_not_kept_for_ever() {
    run(async |host| {
        let patience = patience(&host);
        let stream = open_from(&host, manners(Framing::Chunked), From::Live, &patience).await;
        feed_until_it_is_stuck(&host).await;
        set_limits(&host, |limits| limits.slow_after = Duration::from_secs(1));
        stream.reader.await.expect("it ended by itself");
        assert_eq!(patience.held(), 1);
        tokio::time::timeout(Duration::from_secs(31), until(|| patience.held() == 0)).await.expect("it is cut");
    });
}

#[test]
fn who_takes_something_now_and_then_is_not_ended() {
    run(async |host| {
        set_limits(&host, |limits| limits.slow_after = Duration::from_secs(60));
        let mut stream = open(&host, Framing::Chunked).await;
        let reader = only(&host);
        for _ in 0..10 {
            feed_until_it_is_stuck(&host).await;
            tokio::time::sleep(Duration::from_secs(40)).await;
            // The kernel makes room only when much has been read.
            let before = reader.sent_bytes();
            while reader.sent_bytes() == before {
                stream.some().await;
                feed_large(&host, 0).await;
            }
        }
        assert_eq!(host.hub.registry().open(), 1);
        feed_until_it_is_stuck(&host).await;
    });
}

#[test]
fn a_slow_reader_in_shadow_is_counted_and_stays() {
    run(async |host| {
        let stream = open(&host, Framing::Chunked).await;
        feed_until_it_is_stuck(&host).await;
        let shadow = toml::from_str("shadow = ['slow_after']\nslow_after = '5s'").expect("options");
        host.limits.set(shadow).expect("limits");
        let counted = || host.limits.ledger().accounts().iter().map(|of| of.total.would_be_refused).sum::<u64>();
        tokio::time::timeout(LONG, until(|| counted() >= 2)).await.expect("each standstill is counted");
        assert!(!stream.reader.is_finished());
    });
}

#[test]
fn a_paced_reader_gets_all_in_its_time_with_heartbeats_between_and_a_new_rate_holds_for_it() {
    run(async |host| {
        set_limits(&host, |limits| limits.bytes_out_per_second = 1_000);
        let mut stream = open(&host, Framing::Raw).await;
        let start = tokio::time::Instant::now();
        for number in 0..10 {
            feed_large(&host, number).await;
        }
        // What is counted together goes out together.
        let mut read = stream.until("\"n\":9,").await;
        let waited = start.elapsed().as_secs();
        assert!((15..=25).contains(&waited), "{waited} seconds for 20,000 bytes");
        feed_large(&host, 10).await;
        read.push_str(&stream.until("\"n\":10,").await);
        let waited = start.elapsed().as_secs();
        assert!((95..=110).contains(&waited), "{waited} seconds for 100,000 bytes");
        assert!(read.lines().filter(|line| *line == ":").count() >= 7, "heartbeats");
        feed_large(&host, 11).await;
        feed_large(&host, 12).await;
        set_limits(&host, |limits| limits.bytes_out_per_second = 0);
        let changed = tokio::time::Instant::now();
        read.push_str(&stream.until("\"n\":12,").await);
        assert!(changed.elapsed() <= Duration::from_secs(6), "{:?}", changed.elapsed());
        assert_eq!(read.matches("data: ").count(), 13);
    });
}

#[test]
fn a_paced_reader_ends_at_once_when_it_is_to() {
    run(async |host| {
        set_limits(&host, |limits| limits.bytes_out_per_second = 1);
        let mut stream = open(&host, Framing::Chunked).await;
        for number in 0..10 {
            feed_large(&host, number).await;
        }
        let start = tokio::time::Instant::now();
        host.hub.registry().end(&|_| true);
        let had = events_of_a_clean_end(&stream.rest().await);
        assert!(had < 10, "{had}");
        assert!(start.elapsed() < Duration::from_secs(1));
    });
}

/// Waits for what nobody announces.
async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
