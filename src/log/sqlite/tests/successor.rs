//! A log whose folder another process still has, and gives back.

use super::*;

#[tokio::test]
async fn a_successor_reads_at_once_and_writes_when_the_one_before_has_finished() {
    let bench = Bench::new(no_limits());
    bench.append("t", b"0").await.expect("it is taken");
    let topics = [Topic::new("t"), Topic::new("new")];
    let next = SqliteLog::open_after(bench.folder.path(), no_limits(), &topics).expect("it waits");
    let mut tail = next.tail(vec![Topic::new("t")], 10).await;
    assert_eq!(bring(tail.as_mut(), 1).await, ["0"]);
    let waits = append(&next, "t", b"2");
    let mut waits = std::pin::pin!(waits);
    assert!(waits.as_mut().now_or_never().is_none(), "another one writes");
    bench.append("t", b"1").await.expect("that one goes on");
    assert_eq!(bring(tail.as_mut(), 1).await, ["1"], "what it takes is seen");
    bench.log.finish().await;
    assert_eq!(waits.await, Ok(Offset(2)), "no offset is taken twice");
    assert_eq!(bring(tail.as_mut(), 1).await, ["2"]);
    assert!(matches!(bench.append("t", b"3").await, Err(AppendError::Busy(_))), "it is closed");
    assert_eq!(bench.values("t").await, ["0", "1", "2"], "the one before can still be read");
    assert_eq!(next.ends(&topics).await.expect("the log is asked").len(), 2, "what was missing has been made");
}

#[tokio::test]
async fn a_successor_that_ends_before_its_turn_writes_nothing() {
    let bench = Bench::new(no_limits());
    let next = SqliteLog::open_after(bench.folder.path(), no_limits(), &[]).expect("it waits");
    let waits = append(&next, "t", b"never");
    let mut waits = std::pin::pin!(waits);
    assert!(waits.as_mut().now_or_never().is_none());
    next.close().await;
    assert!(matches!(waits.await, Err(AppendError::NotWritten(_))));
    bench.append("t", b"0").await.expect("it is undisturbed");
    assert_eq!(bench.values("t").await, ["0"]);
}

#[tokio::test]
async fn a_successor_of_nobody_is_a_log_like_any_other() {
    let folder = TempDir::new().expect("a folder");
    let log = SqliteLog::open_after(folder.path(), no_limits(), &[]).expect("the folder is free");
    assert_eq!(append(&log, "t", b"0").await, Ok(Offset(0)));
}

/// The turn comes at once, and before any look: what the one before has appended last is nevertheless seen.
#[tokio::test]
async fn what_was_appended_just_before_the_folder_was_free_is_there() {
    let bench = Bench::new(no_limits());
    bench.append("t", b"0").await.expect("it is taken");
    let world = World::real(bench.folder.path());
    let successor = Successor::new(bench.folder.path(), world, no_limits(), &[]).expect("it can be read");
    bench.append("t", b"1").await.expect("it is taken");
    bench.append("late", b"0").await.expect("it is taken");
    bench.log.finish().await;
    let file = bench.folder.path().join(schema::FILE_NAME);
    let next = SqliteLog::start(file, successor.heads(), move |jobs| successor.run(jobs)).expect("a thread");
    assert_eq!(append(&next, "t", b"2").await, Ok(Offset(2)));
    assert_eq!(append(&next, "late", b"1").await, Ok(Offset(1)));
}

#[tokio::test]
async fn a_log_that_cannot_be_opened_when_the_turn_comes_is_opened_later() {
    let bench = Bench::new(no_limits());
    bench.append("t", b"0").await.expect("it is taken");
    let folder = bench.folder.path();
    let next = SqliteLog::open_after(folder, no_limits(), &[]).expect("it waits");
    let (file, away) = (folder.join(schema::FILE_NAME), folder.join("away.db"));
    fs::rename(&file, &away).expect("it can be moved");
    fs::create_dir(&file).expect("the name is free");
    bench.log.finish().await;
    let waits = append(&next, "t", b"1");
    let mut waits = std::pin::pin!(waits);
    // It has its turn, and nothing to write to.
    while lock::FolderLock::take(folder).is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(waits.as_mut().now_or_never().is_none(), "it is not refused for that");
    fs::remove_dir(&file).expect("it is empty");
    fs::rename(&away, &file).expect("the name is free");
    assert_eq!(waits.await, Ok(Offset(1)));
}

/// The values of the next so many records.
async fn bring(tail: &mut dyn Tail, records: usize) -> Vec<String> {
    let mut values = Vec::new();
    while values.len() < records {
        values.extend(next(tail).await.records.iter().map(|record| text(record.value.as_deref())));
    }
    values
}
