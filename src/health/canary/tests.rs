//! The canary against a listener that does what a test tells it.

use std::ops::Range;

use async_trait::async_trait;
use hyper::Method;
use metrics_exporter_prometheus::PrometheusBuilder;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use crate::limits::ClientIpHeader;
use crate::log::{AppendError, Appended, Block, PartitionEnds, ReadError, Tail};
use crate::model::{NewRecord, Offset, Partition, Timestamp};

const OPEN: &str = "HTTP/1.1 200 OK\r\nsluice-probe: reserved\r\ntransfer-encoding: chunked\r\n\r\n5\r\n:ok\n\n\r\n";
const TAKEN: &str = "HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n";
/// What a test may take: nothing here waits for anything else.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of a trip that is to fail.
const SHORT: Duration = Duration::from_millis(300);

/// How the listener answers.
struct Plan {
    to_get: String,
    to_post: String,
    /// Whether what is posted comes out.
    delivers: bool,
    /// Whether the stream ends before it does.
    breaks_off: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { to_get: OPEN.into(), to_post: TAKEN.into(), delivers: true, breaks_off: false }
    }
}

#[derive(Default)]
struct World {
    plan: Mutex<Plan>,
    /// Heads of requests, in lower case.
    heads: Mutex<Vec<String>>,
    events: Mutex<Vec<String>>,
    /// How many events have been written to any stream.
    written: Mutex<usize>,
    streams: Mutex<u32>,
    peers: Mutex<Vec<SocketAddr>>,
    changed: tokio::sync::Notify,
}

impl World {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let (io, peer) = listener.accept().await.expect("a connection");
            self.peers.lock().push(peer);
            connections.spawn(self.clone().answer(io));
        }
    }

    async fn answer(self: Arc<Self>, mut io: TcpStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(io.read_u8().await.expect("a head"));
        }
        let head = String::from_utf8(request).expect("a text").to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
        io.read_exact(&mut body).await.expect("a body");
        let is_post = head.starts_with("post /v1/events");
        self.heads.lock().push(head);
        let (answer, breaks_off) = {
            let plan = self.plan.lock();
            (if is_post { plan.to_post.clone() } else { plan.to_get.clone() }, plan.breaks_off)
        };
        if is_post {
            self.events.lock().push(String::from_utf8(body).expect("a text"));
            self.changed.notify_waiters();
            // Nothing at all stands for a log that does not answer.
            match answer.is_empty() {
                true => pending().await,
                false => io.write_all(answer.as_bytes()).await.expect("written"),
            }
        } else {
            let own = {
                let mut streams = self.streams.lock();
                *streams += 1;
                *streams
            };
            io.write_all(answer.as_bytes()).await.expect("written");
            self.stream(io, own, breaks_off).await;
        }
    }

    /// The newest stream alone is read.
    async fn stream(&self, mut io: TcpStream, own: u32, breaks_off: bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if *self.streams.lock() != own {
                return;
            }
            let next = {
                let (events, mut written) = (self.events.lock(), self.written.lock());
                let next = events.get(*written).filter(|_| self.plan.lock().delivers).cloned();
                if next.is_some() && breaks_off {
                    self.plan.lock().breaks_off = false;
                    return;
                }
                *written += usize::from(next.is_some());
                next.map(|event| (*written, event))
            };
            match next {
                Some((id, event)) => {
                    let block = format!("event: message\nid: [{id}]\ndata: {event}\n\n");
                    let chunk = format!("{:x}\r\n{block}\r\n", block.len());
                    if io.write_all(chunk.as_bytes()).await.is_err() {
                        return;
                    }
                }
                None => changed.await,
            }
        }
    }

    fn deliver(&self, events: &[String]) {
        self.events.lock().extend_from_slice(events);
        self.plan.lock().delivers = true;
        self.changed.notify_waiters();
    }
}

/// A log in which the topic can or cannot be made, and which does nothing else.
struct Topics {
    refuses: bool,
    asked: Mutex<u32>,
}

#[async_trait]
impl Log for Topics {
    async fn make_own(&self, topic: &Topic) -> Result<(), MakeError> {
        *self.asked.lock() += 1;
        let by_hand = Some(format!("kafka-topics --create --topic {topic}"));
        if self.refuses { Err(MakeError { why: "not authorized".into(), by_hand }) } else { Ok(()) }
    }
    async fn append(&self, _: Vec<NewRecord>) -> Vec<Result<Appended, AppendError>> {
        vec![]
    }
    async fn read(&self, _: &Partition, range: Range<Offset>, _: usize) -> Result<Block, ReadError> {
        Ok(Block { records: vec![], next: range.start })
    }
    async fn ends(&self, _: &[Topic]) -> Result<Vec<PartitionEnds>, ReadError> {
        Ok(vec![])
    }
    async fn at_time(&self, _: &[(Partition, Timestamp)]) -> Result<Vec<Offset>, ReadError> {
        Ok(vec![])
    }
    async fn before(&self, _: &Partition, _: Offset) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        Ok(None)
    }
    async fn tail(&self, _: Vec<Topic>, _: u64) -> Box<dyn Tail> {
        unreachable!("nobody follows it")
    }
    async fn check(&self) -> Result<(), ReadError> {
        Ok(())
    }
    async fn close(&self) {}
    fn describe(&self) -> String {
        "topics".into()
    }
}

struct Rig {
    world: Arc<World>,
    topics: Arc<Topics>,
    canary: Canary,
    limits: Limits,
    _server: JoinSet<()>,
}

impl Rig {
    async fn new() -> Self {
        Self::serving(true, true, false).await
    }

    async fn serving(takes_in: bool, gives_out: bool, refuses: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let world = Arc::new(World::default());
        let mut server = JoinSet::new();
        server.spawn(world.clone().serve(listener));
        let topics = Arc::new(Topics { refuses, asked: Mutex::default() });
        let (secret, limits, log, engine) = (Secret::new(), Limits::none(), topics.clone(), Handle::current());
        let limits_of_all = limits.clone();
        let parts = Parts { listener: address, tls: None, secret, limits, log, engine, takes_in, gives_out };
        let mut canary = Canary::new(parts, &Options::default());
        canary.at_most = PATIENCE;
        Self { world, topics, canary, limits: limits_of_all, _server: server }
    }

    async fn travels(&mut self) -> Trip {
        timeout(PATIENCE, self.canary.travel()).await.expect("it ends")
    }

    async fn fails(&mut self) -> (Step, String) {
        (self.canary.at_most, self.canary.open_at_most) = (SHORT, SHORT);
        let trip = self.travels().await;
        (self.canary.at_most, self.canary.open_at_most) = (PATIENCE, PATIENCE);
        match trip {
            Trip::Failed { at, why } => (at, why),
            other => panic!("{other:?}"),
        }
    }

    async fn half(&mut self) -> String {
        match self.travels().await {
            Trip::Half { missing, .. } => missing,
            other => panic!("{other:?}"),
        }
    }

    fn heads(&self, method: &str) -> Vec<String> {
        self.world.heads.lock().iter().filter(|head| head.starts_with(method)).cloned().collect()
    }
}

fn refused(status: &str, code: &str) -> String {
    let body = format!(r#"{{"invalid":[],"error":[{{"code":"{code}","context":{{"message":"Why."}}}}]}}"#);
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_canary_that_comes_back_has_made_the_trip_on_a_stream_that_stays_open() {
    let mut rig = Rig::new().await;
    for number in 1..REOPEN_EVERY {
        assert!(matches!(rig.travels().await, Trip::Made { .. }));
        assert_eq!((rig.heads("post").len(), rig.heads("get").len()), (usize::try_from(number).expect("few"), 1));
    }
    assert!(matches!(rig.travels().await, Trip::Made { .. }));
    let gets = rig.heads("get");
    assert_eq!(gets.len(), 2, "now and then it is opened anew");
    assert!(!gets[0].contains("last-event-id"), "{gets:?}");
    assert!(gets[1].contains(&format!("last-event-id: [{}]\r\n", REOPEN_EVERY - 1)), "{gets:?}");
    assert_eq!(*rig.topics.asked.lock(), 1, "the topic is made once");
}

#[tokio::test]
async fn a_stream_that_ends_on_the_way_is_resumed_where_it_was() {
    let mut rig = Rig::new().await;
    assert!(matches!(rig.travels().await, Trip::Made { .. }));
    rig.canary.reader.close();
    rig.world.plan.lock().breaks_off = true;
    assert!(matches!(rig.travels().await, Trip::Made { .. }));
    let gets = rig.heads("get");
    assert!(gets.len() == 3 && gets[2].contains("last-event-id: [1]\r\n"), "{gets:?}");
}

#[tokio::test]
async fn a_canary_that_comes_late_is_not_taken_for_the_next_one() {
    let mut rig = Rig::new().await;
    rig.world.plan.lock().delivers = false;
    let (at, why) = rig.fails().await;
    assert!(at == Step::Read && why.contains("within 300ms"), "{why}");
    assert!(rig.canary.lost.contains(&1));
    let (at, _) = rig.fails().await;
    assert_eq!(at, Step::Read);
    // The first one comes, the second does not.
    let late = rig.world.events.lock()[0].clone();
    rig.world.events.lock().clear();
    rig.world.deliver(&[late]);
    assert!(matches!(rig.travels().await, Trip::Made { .. }));
    assert_eq!(rig.canary.lost.iter().copied().collect::<Vec<_>>(), [2], "only the first has come");
}

#[tokio::test]
async fn canaries_of_others_are_nobodys_own() {
    let mut rig = Rig::new().await;
    let of_another = r#"{"instance":"another","number":1}"#.to_owned();
    rig.world.deliver(&[of_another, "{}".to_owned(), "nonsense".to_owned()]);
    assert!(matches!(rig.travels().await, Trip::Made { .. }));
    assert_eq!(rig.canary.of_others, 1);
    // Also where it has the same number.
    let of_another = format!(r#"{{"instance":"another","number":{}}}"#, rig.canary.number);
    assert!(!rig.canary.is_the_newest(&of_another));
    assert!(rig.canary.is_the_newest(&of_another.replace("another", &rig.canary.instance)));
    assert_eq!(rig.canary.of_others, 2);
}

#[tokio::test]
async fn a_canary_that_was_lost_and_comes_is_counted_once_as_late() {
    let mut rig = Rig::new().await;
    rig.canary.number = 8;
    rig.canary.lost.insert(7);
    let canary = |number: u64| format!(r#"{{"instance":"{}","number":{number}}}"#, rig.canary.instance);
    let seen = [canary(7), canary(7), canary(6), canary(8)];
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || seen.map(|seen| rig.canary.is_the_newest(&seen)));
    let text = recorder.handle().render();
    assert!(text.contains("sluice_canary_trips_total{result=\"late\"} 1\n"), "{text}");
}

#[tokio::test]
async fn a_stream_that_ends_at_once_is_opened_again_once_for_each_trip() {
    let mut rig = Rig::new().await;
    rig.world.plan.lock().to_get = format!("{OPEN}0\r\n\r\n");
    rig.world.plan.lock().delivers = false;
    let (at, why) = rig.fails().await;
    assert!(at == Step::Read && why.contains("has ended"), "{at:?}: {why}");
    assert_eq!(rig.heads("get").len(), 2);
    // And between two trips.
    let mut rig = Rig::new().await;
    rig.world.plan.lock().to_get = format!("{OPEN}0\r\n\r\n");
    rig.canary.may_reopen = true;
    assert!(timeout(SHORT, rig.canary.read_on()).await.is_err(), "it waits for the next trip");
    assert_eq!(rig.heads("get").len(), 1);
}

#[tokio::test]
async fn an_id_that_the_log_does_not_know_is_not_shown_again() {
    let mut rig = Rig::new().await;
    assert!(matches!(rig.travels().await, Trip::Made { .. }));
    for (status, is_shown) in [("503 Service Unavailable", true), ("400 Bad Request", false)] {
        rig.canary.reader.close();
        rig.world.plan.lock().to_get = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(rig.fails().await.0, Step::Open);
        rig.fails().await;
        let gets = rig.heads("get");
        assert_eq!(gets.last().expect("some").contains("last-event-id"), is_shown, "{status}: {gets:?}");
    }
}

#[tokio::test]
async fn the_listener_is_told_which_connections_are_the_canarys() {
    let mut rig = Rig::new().await;
    assert!(matches!(rig.travels().await, Trip::Made { .. }));
    // As nobody lets them in here, they are expected still.
    let peers = rig.world.peers.lock().clone();
    assert_eq!(peers.len(), 2, "a post and a stream");
    assert!(peers.into_iter().all(|peer| rig.limits.connect_probe(peer).is_some()));
}

#[tokio::test]
async fn a_proxy_header_is_sent_only_where_the_listener_trusts_this_machine_to_send_one() {
    for (trusted, first) in [("127.0.0.0/8", "proxy tcp4 127.0.0.1 127.0.0.1 "), ("192.0.2.0/24", "get /up ")] {
        let rig = Rig::new().await;
        let options = crate::limits::Options {
            client_ip_header: ClientIpHeader::ProxyProtocol,
            trusted_proxies: vec![trusted.parse().expect("a network")],
            ..crate::limits::Options::unlimited()
        };
        rig.limits.set(options).expect("limits");
        let answer = rig.canary.line.ask(Step::Open, Method::GET, "/up", &[], String::new()).await;
        assert!(answer.is_ok());
        assert!(rig.heads(first).len() == 1, "{trusted}: {:?}", rig.world.heads.lock());
    }
}

#[tokio::test]
async fn it_is_said_where_a_canary_was_lost() {
    for (to_get, to_post, step, word) in [
        ("", TAKEN.to_owned(), Step::Open, "does not open"),
        ("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", TAKEN.to_owned(), Step::Open, "503"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n:ok\n", TAKEN.to_owned(), Step::Open, "come back later"),
        (OPEN, refused("400 Bad Request", "invalid"), Step::Post, "400 Bad Request: Why."),
        (OPEN, refused("503 Service Unavailable", "overloaded"), Step::Post, "503"),
        (OPEN, refused("503 Service Unavailable", "not-written"), Step::Append, "Why."),
        (OPEN, refused("503 Service Unavailable", "unknown"), Step::Append, "Why."),
        (OPEN, String::new(), Step::Append, "not been acknowledged"),
    ] {
        let mut rig = Rig::new().await;
        rig.world.plan.lock().to_get = to_get.to_owned();
        rig.world.plan.lock().to_post = to_post;
        let (at, why) = rig.fails().await;
        assert!(at == step && why.contains(word), "{at:?}: {why}");
    }
    let mut rig = Rig::new().await;
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let line = Arc::new(Line::new((gone, None), Secret::new(), Limits::none(), Handle::current()));
    (rig.canary.reader, rig.canary.line) = (Reader::new(line.clone()), line);
    assert_eq!(rig.fails().await.0, Step::Connect);
}

#[tokio::test]
async fn a_log_that_may_not_be_written_to_is_told_with_the_command_that_helps() {
    let mut rig = Rig::serving(true, true, true).await;
    rig.world.plan.lock().to_post = refused("503 Service Unavailable", "log-refused");
    for _ in 0..2 {
        let missing = rig.half().await;
        assert!(missing.contains("not authorized; run: kafka-topics --create --topic sluice.canary"), "{missing}");
    }
    assert_eq!(*rig.topics.asked.lock(), 2, "it is tried again");
    // Also where the log's client waits for a topic that does not come.
    rig.world.plan.lock().to_post = refused("503 Service Unavailable", "not-written");
    assert!(rig.half().await.contains("run: kafka-topics"));
    // Somebody has made it.
    rig.world.plan.lock().to_post = TAKEN.into();
    assert!(matches!(rig.travels().await, Trip::Made { .. }));
    assert!(matches!(rig.travels().await, Trip::Made { .. }));
    assert_eq!(*rig.topics.asked.lock(), 4);
}

#[tokio::test]
async fn a_topic_that_has_gone_is_made_again() {
    let mut rig = Rig::new().await;
    assert!(matches!(rig.travels().await, Trip::Made { .. }));
    rig.world.plan.lock().to_post = refused("503 Service Unavailable", "log-refused");
    let missing = rig.half().await;
    assert!(missing.contains("may not write") && missing.contains("Why.") && !missing.contains("run:"), "{missing}");
    rig.world.plan.lock().to_post = TAKEN.into();
    assert!(matches!(rig.travels().await, Trip::Made { .. }));
    assert_eq!(*rig.topics.asked.lock(), 2);
}

#[tokio::test]
async fn half_an_instance_says_which_half_is_proven() {
    let mut taking = Rig::serving(true, false, false).await;
    assert!(taking.half().await.contains("http.serve has no \"out\""));
    assert!(taking.heads("get").is_empty());
    let mut giving = Rig::serving(false, true, false).await;
    let missing = giving.half().await;
    assert!(missing.contains("http.serve has no \"in\"") && missing.contains("no canary of another"), "{missing}");
    giving.canary.of_others = 2;
    assert!(giving.half().await.contains("2 canaries of other instances"));
    assert!(giving.heads("post").is_empty() && *giving.topics.asked.lock() == 0);
    assert_eq!(giving.heads("get").len(), 2, "each trip opens a stream");
    giving.world.plan.lock().to_get = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".into();
    assert_eq!(giving.fails().await.0, Step::Open);
}
