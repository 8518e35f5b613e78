//! What is this engine's alone; what all engines promise is in `tests/log`.

mod successor;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use futures_util::FutureExt;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::log::{Opened, TailBatch};

const MIB: usize = 1 << 20;
/// The answer of a disk that has room.
const PLENTY: u64 = 1 << 40;
const ALL: Range<Offset> = Offset(0)..Offset(i64::MAX);

/// A log whose clock and disk the test holds in its hands.
struct Bench {
    log: Arc<SqliteLog>,
    clock: Arc<AtomicI64>,
    free_bytes: Arc<AtomicU64>,
    folder: TempDir,
}

fn no_limits() -> Options {
    Options { retention_age: Duration::ZERO, retention_bytes: 0, free_bytes_min: 0 }
}

impl Bench {
    fn new(options: Options) -> Self {
        let folder = TempDir::new().expect("a folder");
        let (clock, free_bytes) = (Arc::new(AtomicI64::new(1_000)), Arc::new(AtomicU64::new(PLENTY)));
        let (now, free) = (clock.clone(), free_bytes.clone());
        let world = World {
            now: Box::new(move || Timestamp(now.load(Ordering::SeqCst))),
            free_bytes: Box::new(move || Ok(free.load(Ordering::SeqCst))),
        };
        let log = Arc::new(SqliteLog::open_in(world, folder.path(), options, &[]).expect("the log opens"));
        Self { log, clock, free_bytes, folder }
    }

    fn at(&self, ms: i64) -> &Self {
        self.clock.store(ms, Ordering::SeqCst);
        self
    }

    async fn append(&self, topic: &str, value: &[u8]) -> Result<Offset, AppendError> {
        append(&self.log, topic, value).await
    }

    async fn first(&self, topic: &str) -> i64 {
        self.log.ends(&[Topic::new(topic)]).await.expect("the log is asked")[0].first.0
    }

    async fn values(&self, topic: &str) -> Vec<String> {
        let partition = Partition::new(&Topic::new(topic), PARTITION);
        let block = self.log.read(&partition, ALL, usize::MAX).await.expect("the log is read");
        block.records.iter().map(|record| text(record.value.as_deref())).collect()
    }

    fn shell(&self) -> Connection {
        shell(self.folder.path())
    }

    fn size(&self, file: &str) -> u64 {
        fs::metadata(self.folder.path().join(file)).map_or(0, |found| found.len())
    }
}

/// What a person does with the sqlite3 shell.
fn shell(folder: &Path) -> Connection {
    let connection = Connection::open(folder.join(schema::FILE_NAME)).expect("the file opens");
    connection.busy_timeout(Duration::from_secs(10)).expect("a wait is set");
    connection
}

fn text(value: Option<&[u8]>) -> String {
    String::from_utf8_lossy(value.unwrap_or(b"(none)")).into_owned()
}

fn record(topic: &str, value: &[u8]) -> NewRecord {
    let value = Some(value.to_vec().into());
    NewRecord { topic: Topic::new(topic), time: Timestamp(0), key: None, value }
}

async fn append(log: &SqliteLog, topic: &str, value: &[u8]) -> Result<Offset, AppendError> {
    let mut answers = log.append(vec![record(topic, value)]).await;
    answers.pop().expect("one answer").map(|appended| appended.offset)
}

#[tokio::test]
async fn age_counts_from_the_append() {
    let bench = Bench::new(Options { retention_age: Duration::from_millis(100), ..no_limits() });
    for now in [1_000, 1_050, 1_100] {
        bench.at(now).append("t", b"x").await.expect("appended");
    }

    bench.at(1_100).log.retain_now().await;
    assert_eq!(bench.first("t").await, 0);
    bench.at(1_101).log.retain_now().await;
    assert_eq!(bench.first("t").await, 1);
    bench.at(9_000).log.retain_now().await;
    assert_eq!(bench.first("t").await, 3);
}

#[tokio::test]
async fn bytes_take_the_oldest_of_all_topics_first() {
    let bench = Bench::new(Options { retention_bytes: 5 * MIB as u64 / 2, ..no_limits() });
    for (now, topic) in [(1, "a"), (2, "b"), (3, "a"), (4, "a"), (5, "b")] {
        bench.at(now).append(topic, &vec![b'x'; MIB]).await.expect("appended");
    }

    bench.log.retain_now().await;

    assert_eq!((bench.first("a").await, bench.first("b").await), (2, 1));
}

#[tokio::test]
async fn no_limits_delete_nothing() {
    let bench = Bench::new(no_limits());
    bench.at(0).append("t", &vec![b'x'; MIB]).await.expect("appended");

    bench.at(i64::MAX).log.retain_now().await;

    assert_eq!(bench.first("t").await, 0);
}

#[tokio::test]
async fn deleted_records_give_their_space_back_to_the_file_system() {
    let bench = Bench::new(Options { retention_age: Duration::from_millis(100), ..no_limits() });
    for _ in 0..12 {
        bench.at(0).append("large", &vec![b'x'; 4 * MIB]).await.expect("appended");
    }
    let small = (0..3_000).map(|_| record("small", &[b'x'; 2_000])).collect();
    assert!(bench.log.append(small).await.iter().all(Result::is_ok));
    let before = bench.size("log.db") + bench.size("log.db-wal");

    bench.at(1_000).append("kept", b"kept").await.expect("appended");
    bench.log.retain_now().await;

    let after = bench.size("log.db") + bench.size("log.db-wal");
    assert!(before > 48 * MIB as u64, "{before}");
    assert!(after < 2 * MIB as u64, "{after} of {before} bytes are still taken");
    assert_eq!(bench.values("kept").await, ["kept"]);
    let sound: String = bench.shell().query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
    assert_eq!(sound, "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_write_ahead_log_starts_over_though_somebody_always_reads() {
    let bench = Bench::new(no_limits());
    bench.append("t", &vec![b'x'; 4 * MIB]).await.expect("appended");
    let partition = Partition::new(&Topic::new("t"), PARTITION);
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (log, partition) = (bench.log.clone(), partition.clone());
            tokio::runtime::Handle::current()
                .spawn(async move { while log.read(&partition, ALL, MIB).await.is_ok() {} })
        })
        .collect();

    // A reader may be slow on a busy machine, and then the next pass does it.
    while bench.size("log.db-wal") > 0 {
        bench.log.retain_now().await;
    }

    bench.log.close().await;
    for reader in readers {
        reader.await.expect("it ends");
    }
}

#[tokio::test]
async fn the_file_stays_near_its_limit_without_being_asked() {
    let bench = Bench::new(Options { retention_bytes: 8 * MIB as u64, ..no_limits() });
    for number in 0..64 {
        bench.at(number).append("t", &vec![b'x'; MIB]).await.expect("appended");
    }
    // Only so that the pass under way is over; the file's size is the work of those before it.
    bench.log.retain_now().await;

    assert!((55..64).contains(&bench.first("t").await), "{}", bench.first("t").await);
    assert!(bench.size("log.db") < 16 * MIB as u64, "{}", bench.size("log.db"));
}

#[tokio::test]
async fn appends_are_refused_below_the_floor_and_recover_by_themselves() {
    let bench = Bench::new(Options { free_bytes_min: 1_000, ..no_limits() });
    bench.append("t", b"before").await.expect("appended");

    bench.free_bytes.store(999, Ordering::SeqCst);
    let refused = bench.append("t", b"during").await;
    assert!(matches!(&refused, Err(AppendError::NotWritten(why)) if why.contains("free space")), "{refused:?}");
    assert_eq!(bench.values("t").await, ["before"], "reads go on");
    assert_eq!(bench.log.check().await, Ok(()));

    bench.free_bytes.store(1_000, Ordering::SeqCst);
    assert_eq!(bench.append("t", b"after").await, Ok(Offset(1)));
    assert_eq!(bench.values("t").await, ["before", "after"]);
}

/// A disk that asks the test before every transaction.
struct Gate {
    log: Arc<SqliteLog>,
    asked: Receiver<()>,
    go_on: SyncSender<()>,
    folder: TempDir,
}

impl Gate {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let ((asks, asked), (go_on, gone_on)) = (sync_channel(100), sync_channel(100));
        let free_bytes = move || {
            let _ = asks.send(());
            gone_on.recv().map_or(Ok(PLENTY), |()| Ok(PLENTY))
        };
        let ticks = AtomicI64::new(0);
        let now = move || Timestamp(ticks.fetch_add(1, Ordering::SeqCst));
        let world = World { now: Box::new(now), free_bytes: Box::new(free_bytes) };
        let options = Options { free_bytes_min: 1, ..no_limits() };
        let log = Arc::new(SqliteLog::open_in(world, folder.path(), options, &[]).expect("the log opens"));
        Self { log, asked, go_on, folder }
    }

    /// Appends each value alone, all while the writer is held up by a first one; then lets it go on.
    async fn append_together(&self, values: &[&'static [u8]]) -> Vec<Result<Offset, AppendError>> {
        let append = |value: &'static [u8]| {
            let log = self.log.clone();
            tokio::runtime::Handle::current().spawn(async move { append(&log, "t", value).await })
        };
        let first = append(b"first");
        tokio::task::block_in_place(|| self.asked.recv()).expect("the writer is held up");
        let queued: Vec<_> = values.iter().map(|value| append(value)).collect();
        while self.log.queue.waiting() < 1 + values.len() {
            tokio::task::yield_now().await;
        }
        for _ in 0..2 {
            self.go_on.send(()).expect("the writer waits");
        }
        first.await.expect("it ends").expect("the first is appended");
        let mut answers = Vec::new();
        for append in queued {
            answers.push(append.await.expect("it ends"));
        }
        answers
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_one_transaction() {
    let gate = Gate::new();

    let answers = gate.append_together(&[b"x".as_slice(); 20]).await;

    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    // Every look at this clock moves it, and a transaction looks once.
    let count = "SELECT count(*), count(DISTINCT appended) FROM records_1 WHERE value = x'78'";
    let counts = shell(gate.folder.path()).query_row(count, [], |row| Ok((row.get(0)?, row.get(1)?)));
    assert_eq!(counts, Ok((20, 1)));
}

/// Stands for a full disk: the statement fails, and SQLite rolls the transaction back by itself.
const FULL_DISK: &str = "CREATE TRIGGER full BEFORE INSERT ON records_1 WHEN NEW.value = x'626164'
                         BEGIN SELECT RAISE(ROLLBACK, 'the disk is full'); END";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_fails_refuses_all_its_records_and_takes_no_offset() {
    let gate = Gate::new();
    gate.go_on.send(()).expect("the writer waits");
    assert_eq!(append(&gate.log, "t", b"zero").await, Ok(Offset(0)));
    gate.asked.recv().expect("the writer asked");
    shell(gate.folder.path()).execute_batch(FULL_DISK).expect("a trigger");

    let answers = gate.append_together(&[b"good", b"bad", b"good"]).await;

    let refused = |answer: &Result<_, _>| matches!(answer, Err(AppendError::NotWritten(why)) if why.contains("full"));
    assert!(answers.iter().all(refused), "{answers:?}");
    gate.go_on.send(()).expect("the writer waits");
    assert_eq!(append(&gate.log, "t", b"next").await, Ok(Offset(2)), "after zero and first");
    let partition = Partition::new(&Topic::new("t"), PARTITION);
    assert_eq!(gate.log.read(&partition, ALL, MIB).await.map(|block| block.records.len()), Ok(3));
}

#[tokio::test]
async fn a_topic_whose_first_transaction_fails_does_not_exist() {
    let bench = Bench::new(no_limits());
    bench.append("t", b"zero").await.expect("appended");
    bench.shell().execute_batch(FULL_DISK).expect("a trigger");

    let answers = bench.log.append(vec![record("new", b"good"), record("t", b"bad")]).await;

    assert!(answers.iter().all(|answer| matches!(answer, Err(AppendError::NotWritten(_)))), "{answers:?}");
    assert_eq!(bench.log.ends(&[Topic::new("new")]).await, Ok(vec![]));
    assert_eq!(bench.append("new", b"again").await, Ok(Offset(0)));
    assert_eq!(bench.append("t", b"one").await, Ok(Offset(1)));
}

#[tokio::test]
async fn a_second_server_is_refused_until_the_first_is_gone() {
    let bench = Bench::new(no_limits());
    let folder = bench.folder.path();
    let second = SqliteLog::open(folder, no_limits()).err().expect("refused").to_string();
    assert!(second.contains(&folder.display().to_string()), "{second}");
    assert!(second.contains(&format!("process {}", std::process::id())), "{second}");
    assert_eq!(bench.append("t", b"x").await, Ok(Offset(0)), "the first goes on");

    let Bench { log, folder, .. } = bench;
    drop(log);
    let third = SqliteLog::open(folder.path(), no_limits()).expect("the folder is free");
    third.close().await;
    drop(SqliteLog::open(folder.path(), no_limits()).expect("a closed log gives its folder back too"));
}

#[tokio::test]
async fn a_file_that_is_not_a_log_is_left_alone() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join(schema::FILE_NAME);
    let cause = || SqliteLog::open(folder.path(), no_limits()).err().map(|error| error.to_string()).unwrap_or_default();

    fs::write(&file, "a letter, and not a database at all").expect("written");
    assert!(cause().contains("not an SQLite database"), "{}", cause());
    assert_eq!(fs::read(&file).expect("read"), b"a letter, and not a database at all");

    fs::remove_file(&file).expect("removed");
    shell(folder.path()).execute_batch("CREATE TABLE accounts (name)").expect("a table");
    assert!(cause().contains("another program"), "{}", cause());

    fs::remove_file(&file).expect("removed");
    drop(SqliteLog::open(folder.path(), no_limits()).expect("a new log"));
    shell(folder.path()).execute_batch("PRAGMA user_version = 99").expect("set");
    assert!(cause().contains("newer sluice (format 99"), "{}", cause());
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let folder = TempDir::new().expect("a folder");
    fs::write(folder.path().join("taken"), "").expect("written");

    let error = SqliteLog::open(&folder.path().join("taken/data"), no_limits()).err().expect("refused").to_string();

    assert!(error.contains("taken/data cannot be used") && error.contains("--data"), "{error}");
}

#[tokio::test]
async fn a_commit_is_durable_and_the_file_can_shrink() {
    let bench = Bench::new(no_limits());
    let shell = bench.shell();
    assert_eq!(crate::database::pragma(&shell, "auto_vacuum"), Ok(2), "incremental");
    let mode: String = shell.pragma_query_value(None, "journal_mode", |row| row.get(0)).expect("asked");
    assert_eq!(mode, "wal");
    let file = bench.folder.path().join("other.db");
    assert_eq!(crate::database::pragma(&schema::open_writer(&file).expect("opened"), "synchronous"), Ok(2), "full");
}

async fn next(tail: &mut dyn Tail) -> TailBatch {
    tokio::time::timeout(Duration::from_secs(60), tail.next()).await.expect("the tail brings something")
}

#[tokio::test]
async fn a_sick_topic_does_not_hold_up_the_others_and_is_joined_again() {
    let bench = Bench::new(no_limits());
    bench.append("sick", b"0").await.expect("appended");
    bench.append("well", b"0").await.expect("appended");
    let mut tail = bench.log.tail(vec![Topic::new("sick"), Topic::new("well")], 0).await;
    assert!(next(&mut *tail).await.caught_up);

    bench.append("sick", b"1").await.expect("appended");
    bench.shell().execute_batch("ALTER TABLE records_1 RENAME TO away").expect("renamed");
    let away = next(&mut *tail).await;
    assert!(!away.caught_up && away.records.is_empty(), "{away:?}");
    bench.append("well", b"1").await.expect("appended");
    assert_eq!(next(&mut *tail).await.records[0].partition.topic.as_str(), "well");

    bench.shell().execute_batch("ALTER TABLE away RENAME TO records_1").expect("renamed");
    let again = next(&mut *tail).await;
    assert!(again.caught_up && again.opened.is_empty(), "{again:?}");
    assert_eq!(text(again.records[0].value.as_deref()), "1");
}

#[tokio::test]
async fn a_topic_left_and_followed_anew_is_opened_anew() {
    let bench = Bench::new(no_limits());
    bench.append("t", b"0").await.expect("appended");
    let mut tail = bench.log.tail(vec![Topic::new("t")], 0).await;
    next(&mut *tail).await;
    bench.append("t", b"1").await.expect("appended");
    // Polled once, so that a read is under way: its answer is of the life before.
    let _ = tail.next().now_or_never();

    tail.follow(vec![]);
    tail.follow(vec![Topic::new("t")]);

    let batch = next(&mut *tail).await;
    assert_eq!(batch.opened.iter().map(|opened| opened.next).collect::<Vec<_>>(), [Offset(0)]);
    assert_eq!(batch.records.len(), 2);
}

#[tokio::test]
async fn a_tail_that_retention_passed_goes_on_at_the_oldest_record() {
    let bench = Bench::new(Options { retention_age: Duration::from_millis(100), ..no_limits() });
    bench.at(0).append("t", b"0").await.expect("appended");
    let mut tail = bench.log.tail(vec![Topic::new("t")], 0).await;
    next(&mut *tail).await;
    for (now, value) in [(0, b"1"), (1_000, b"2")] {
        bench.at(now).append("t", value).await.expect("appended");
    }

    bench.log.retain_now().await;

    let batch = next(&mut *tail).await;
    assert_eq!(text(batch.records[0].value.as_deref()), "2");
}

#[tokio::test]
async fn a_closed_log_reads_no_more() {
    let bench = Bench::new(no_limits());
    bench.append("t", b"x").await.expect("appended");
    bench.log.close().await;

    assert!(matches!(bench.log.check().await, Err(ReadError::Unavailable(_))));
    assert!(matches!(bench.log.ends(&[Topic::new("t")]).await, Err(ReadError::Unavailable(_))));
}

#[test]
fn options_are_read_with_their_units_and_unknown_keys_are_faults() {
    let options: Options = toml::from_str("retention_age = '1h'\nretention_bytes = '2GiB'").expect("read");
    assert_eq!((options.retention_age, options.retention_bytes), (Duration::from_secs(3600), 2 << 30));
    assert_eq!(options.free_bytes_min, Options::default().free_bytes_min);
    assert!(toml::from_str::<Options>("retention = '1h'").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_are_asked_for_are_there_from_the_start_and_keep_their_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let topics = [Topic::new("a"), Topic::new("b")];
    let log = SqliteLog::open_with(folder.path(), no_limits(), &topics[..1]).expect("a log");
    let ends = log.ends(&topics).await.expect("ends");
    assert_eq!(ends, [PartitionEnds { partition: Partition::new(&topics[0], 0), first: Offset(0), next: Offset(0) }]);
    let record = NewRecord { topic: topics[0].clone(), time: Timestamp(1), key: None, value: None };
    assert!(log.append(vec![record]).await[0].is_ok());
    drop(log);
    let log = SqliteLog::open_with(folder.path(), no_limits(), &topics).expect("the same log");
    let ends = log.ends(&topics).await.expect("ends");
    assert_eq!(ends.iter().map(|ends| ends.next.0).collect::<Vec<_>>(), [1, 0]);
}

#[tokio::test]
async fn topics_that_are_made_later_stand_there_before_their_first_record() {
    let bench = Bench::new(no_limits());
    bench.append("a", b"1").await.expect("an offset");
    let topics = [Topic::new("a"), Topic::new("b")];
    let mut tail = bench.log.tail(topics.to_vec(), 0).await;
    assert_eq!(next(&mut *tail).await.opened.len(), 1);

    bench.log.prepare(&topics).await.expect("they are made");

    let opened = next(&mut *tail).await.opened;
    let expected = Opened { partition: Partition::new(&topics[1], PARTITION), next: Offset(0), before: None };
    assert_eq!(opened, [expected]);
    assert_eq!(bench.log.ends(&topics).await.expect("the log is asked").len(), 2);
    assert_eq!(bench.append("b", b"1").await, Ok(Offset(0)));
    assert_eq!(bench.values("a").await, ["1"], "what was there is kept");
}
