//! The limits over the routes that the server has, on a log that may be away: who gets in, and that nothing stays taken.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_server::ServerHandle;
use actix_web::HttpResponse;
use actix_web::test::TestRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::{Options, Patience, Posts, Services, panics, serve};
use crate::catalog::{Catalog, Live};
use crate::fetch::Fetcher;
use crate::health::{self, Health, SECRET_HEADER, Secret, Sides};
use crate::hub::testing::SharedLog;
use crate::hub::{self, Hub};
use crate::intake::auth::Guard;
use crate::intake::{self, Intake};
use crate::limits::{self, Limits};
use crate::model::{Partition, Topic};
use crate::schema::{self, Schemas};
use crate::shutdown::{Shutdown, Stage};

const PATIENCE: Duration = Duration::from_secs(20);
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Of a channel that the tail has opened; and a time, which is asked of the log.
const LIVE: &str = "/v2/stream/a";
const ASKS_THE_LOG: &str = "/v2/stream/a?since=2026-11-20";

struct Host {
    services: Services,
    log: SharedLog,
    shutdown: Shutdown,
    address: std::net::SocketAddr,
    server: ServerHandle,
}

impl Host {
    async fn start(limits: limits::Options) -> Self {
        let engine = Handle::current();
        let catalog = Catalog::parse("a: {topics: [a.t]}", "test").expect("a catalogue");
        let log = SharedLog::default();
        log.add_partition(&Partition::new(&Topic::new("a.t"), 0));
        let shutdown = Shutdown::default();
        let topics = catalog.topics();
        let limits = limits_of(limits);
        let stop = shutdown.watcher();
        let hub = Hub::start(hub::Options::default(), limits.clone(), log.clone(), topics, &[], &engine, stop);
        let schemas = Schemas::new(&schema::Options::default(), Fetcher::new().expect("a fetcher"), engine.clone());
        let schemas = Arc::new(schemas.expect("schemas"));
        let catalog = Live::fixed(catalog);
        let of_intake = intake::Options::default();
        let hub = hub.expect("a hub");
        let intake =
            Arc::new(Intake::new(of_intake.clone(), catalog.clone(), schemas.clone(), log.clone(), engine.clone()));
        let sides = Sides {
            limits: limits.clone(),
            catalog: catalog.clone(),
            hub: hub.clone(),
            intake: intake.clone(),
            log: log.clone(),
            gives_out: true,
        };
        let services = Services {
            hub,
            guard: Guard::new(&of_intake, true).expect("a guard"),
            intake,
            catalog,
            schemas,
            engine,
            health: Health::new(sides, health::Options::default()),
            stop: shutdown.watcher(),
            limits,
            probe: Secret::new(),
            patience: Patience::new(shutdown.watcher(), 1024),
            posts: Posts::default(),
            end_spread: Duration::ZERO,
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let options = Options { workers: 2, ..Options::default() };
        let server = serve(&options, listener, None, services.clone()).expect("a server");
        Self { services, log, shutdown, address, server }
    }

    /// A request that is not answered yet. `headers` are whole lines.
    async fn asks(&self, target: &str, headers: &str) -> TcpStream {
        let mut io = TcpStream::connect(self.address).await.expect("a connection");
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n{headers}\r\n");
        io.write_all(request.as_bytes()).await.expect("a reading server");
        io
    }

    /// The status, and the connection.
    async fn opens(&self, target: &str, headers: &str) -> (u16, TcpStream) {
        let mut io = self.asks(target, headers).await;
        let head = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
                head.push(io.read_u8().await.expect("a head"));
            }
            String::from_utf8(head).expect("UTF-8")
        };
        let head = timeout(PATIENCE, head).await.expect("a head in time");
        (head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"), io)
    }

    async fn until_in_use(&self, streams: usize) {
        let wait = async {
            while self.services.limits.streams_in_use() != streams {
                tokio::task::yield_now().await;
            }
        };
        let waited = timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "{} places are in use, and not {streams}", self.services.limits.streams_in_use());
    }
}

fn run(test: impl AsyncFnOnce()) {
    actix_rt::System::new().block_on(test());
}

fn limits_of(options: limits::Options) -> Limits {
    let limits = Limits::none();
    limits.set(options).expect("limits that make sense");
    limits
}

fn options(toml: &str) -> limits::Options {
    toml::from_str(toml).expect("options")
}

#[test]
fn a_full_server_takes_its_own_probe_and_nobody_who_guesses() {
    run(async || {
        let host = Host::start(options("streams_total = 2\nstreams_per_client = 2\nnew_streams_per_minute = 2")).await;
        let secret = format!("{SECRET_HEADER}: {}\r\n", host.services.probe.reveal());
        let guess = format!("{SECRET_HEADER}: {}\r\n", "0".repeat(64));
        let (first, second) = (host.opens(LIVE, "").await, host.opens(LIVE, "").await);
        assert_eq!((first.0, second.0), (200, 200));
        assert_eq!(host.opens(LIVE, "").await.0, 429);
        assert_eq!(host.opens(LIVE, &guess).await.0, 429);
        let mut probes = Vec::new();
        for _ in 0..4 {
            let (status, probe) = host.opens(LIVE, &secret).await;
            assert_eq!(status, 200);
            probes.push(probe);
        }
        assert_eq!(host.opens(LIVE, &secret).await.0, 503, "what is kept back is bounded, too");
        assert_eq!(host.services.limits.streams_in_use(), 2, "they count for nobody");
        drop(probes);
        let comes_back = async { while host.opens(LIVE, &secret).await.0 != 200 {} };
        assert!(timeout(PATIENCE, comes_back).await.is_ok(), "its places come back");
    });
}

#[test]
fn without_a_limit_of_its_own_the_host_has_that_of_its_descriptors() {
    let most = Limits::none().descriptors().streams;
    for (total, is) in [("", most), ("streams_total = 0", most), ("streams_total = 7", 7)] {
        assert_eq!(limits_of(options(total)).streams_total(), is, "{total}");
    }
}

#[test]
fn what_is_refused_after_it_had_a_place_leaves_none_behind_and_frees_nobody_elses() {
    run(async || {
        let host = Host::start(options("streams_per_client = 2\nnew_streams_per_minute = 0")).await;
        let open = host.opens(LIVE, "").await;
        // By the hub, by the log, and before either.
        let foreign = r#"[{"topic":"z","partition":0,"offset":1}]"#;
        let unknown = r#"[{"topic":"a.t","partition":7,"offset":1,"timestamp":1}]"#;
        for id in [foreign, unknown, "[]", "nonsense"] {
            let (status, _) = host.opens(LIVE, &format!("Last-Event-ID: {id}\r\n")).await;
            assert_eq!(status, 400, "{id}");
            host.until_in_use(1).await;
        }
        let second = host.opens(LIVE, "").await;
        assert_eq!((open.0, second.0), (200, 200));
        for _ in 0..5 {
            assert_eq!(host.opens(LIVE, "").await.0, 429);
            assert_eq!(host.services.limits.streams_in_use(), 2);
        }
    });
}

#[test]
fn a_client_that_leaves_while_its_place_is_looked_for_or_before_its_head_is_out_leaves_none_behind() {
    run(async || {
        // No limit: that they have left is seen a moment later.
        let host = Host::start(options("new_streams_per_minute = 0\nstreams_per_client = 0")).await;
        host.log.away.store(true, Ordering::Relaxed);
        let leaving = host.asks(ASKS_THE_LOG, "").await;
        host.until_in_use(1).await;
        drop(leaving);
        host.until_in_use(0).await;
        host.log.away.store(false, Ordering::Relaxed);
        for _ in 0..50 {
            drop(host.asks(LIVE, "").await);
        }
        let (status, open) = host.opens(LIVE, "").await;
        assert_eq!(status, 200);
        host.until_in_use(1).await;
        drop(open);
        host.until_in_use(0).await;
    });
}

#[test]
fn a_stop_and_the_end_of_a_worker_give_back_what_their_streams_had() {
    run(async || {
        for cut in [false, true] {
            let host = Host::start(limits::Options::default()).await;
            let (status, mut open) = host.opens(LIVE, "").await;
            let asks = host.opens(ASKS_THE_LOG, "").await;
            assert_eq!((status, asks.0), (200, 200));
            host.until_in_use(2).await;
            match cut {
                true => host.server.stop(false).await,
                false => host.shutdown.advance(Stage::EndStreams),
            }
            host.until_in_use(0).await;
            let mut rest = Vec::new();
            let ended = timeout(PATIENCE, open.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "the stream is over");
        }
    });
}

#[tokio::test]
async fn a_handler_that_panics_gives_back_what_it_had() {
    let limits = Limits::none();
    let request = TestRequest::get().to_http_request();
    let asker = limits.asker([127, 0, 0, 1].into(), None);
    let handler = async {
        let _place = limits.enter(&asker, false).expect("a place");
        assert_eq!(limits.streams_in_use(), 0, "injected");
        HttpResponse::Ok().finish()
    };
    assert_eq!(panics::caught(&request, handler).await.status(), 500);
    assert_eq!(limits.streams_in_use(), 0);
}
