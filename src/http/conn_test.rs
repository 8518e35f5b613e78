//! How long connections are waited for, over the pipeline that the server uses, with times that a test can wait for.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use actix_server::Server;
use actix_web::dev::ServiceRequest;
use actix_web::middleware::Next;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpResponse, web};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, interval, timeout};

use super::conn::{self, Times};
use super::quiet::Busy;
use crate::limits::{Descriptors, Limits, Options};
use crate::shutdown::{Shutdown, Stage};
use crate::tls::{Tls, testing};

const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(3_600);
const PATIENT: Times = Times { head: LONG, idle: LONG, coming: LONG, refused: Duration::ZERO };
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
/// What one head may have.
const HEAD_BYTES_MAX: usize = 128 * 1024;

fn serve(times: Times, limits: &Limits) -> SocketAddr {
    let (address, shutdown) = serve_with(None, times, limits);
    // Dropped, it would be a stop.
    std::mem::forget(shutdown);
    address
}

fn serve_with(tls: Option<Tls>, times: Times, limits: &Limits) -> (SocketAddr, Shutdown) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = Server::build().disable_signals().workers(1);
    let shutdown = Shutdown::default();
    let (limits, stop) = (limits.clone(), shutdown.watcher());
    let server = server.listen("test", listener, move || {
        let busy = from_fn(async |request: ServiceRequest, next: Next<_>| {
            let _answering = request.request().conn_data::<Busy>().map(Busy::begin);
            next.call(request).await
        });
        let app = App::new().wrap(busy).default_service(web::to(async || HttpResponse::Ok().body("ok")));
        conn::pipeline(app, tls.clone(), limits.clone(), times, stop.clone())
    });
    actix_rt::spawn(server.expect("a server").run());
    (address, shutdown)
}

/// A host with room for so many connections, and for so many beyond them that wait for their ends.
fn limits(connections: usize, refused: usize) -> Limits {
    let folder = tempfile::tempdir().expect("a folder");
    let descriptors = Descriptors { streams: 10, connections, held: 0, refused };
    // Nobody is denied here: the folder is read, and not written to.
    Limits::open(Options::unlimited(), descriptors, folder.path()).expect("limits")
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("a connection")
}

/// From this one of the loopback's addresses.
async fn connect_as(client: u8, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, client], 0).into()).expect("an address of the loopback");
    socket.connect(address).await.expect("a connection")
}

async fn rest(io: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, io.read_to_end(&mut rest)).await.expect("an end in time");
    read.expect("no reset");
    String::from_utf8(rest).expect("UTF-8")
}

async fn answer(io: &mut TcpStream) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") {
        let read = timeout(PATIENCE, io.read_buf(&mut answer)).await.expect("an answer in time");
        assert!(read.is_ok_and(|bytes| bytes > 0), "{}", String::from_utf8_lossy(&answer));
    }
}

fn run(test: impl AsyncFnOnce()) {
    actix_rt::System::new().block_on(test());
}

#[test]
fn a_first_head_that_does_not_come_in_time_is_told_so() {
    run(async || {
        let address = serve(Times { head: SHORT, ..PATIENT }, &Limits::none());
        for begun in [&b""[..], b"GET / HTTP/1.1\r\nho"] {
            let mut io = connect(address).await;
            io.write_all(begun).await.expect("written");
            assert!(rest(&mut io).await.starts_with("HTTP/1.1 408 "));
        }
    });
}

#[test]
fn tls_that_is_not_begun_or_not_ended_in_time_ends_its_connection() {
    run(async || {
        let tls = Tls::new(testing::identity());
        let (address, _shutdown) = serve_with(Some(tls), Times { head: SHORT, ..PATIENT }, &Limits::none());
        // A record of a handshake, and the first of its bytes.
        for begun in [&b""[..], b"\x16\x03\x01\x00\xff\x01"] {
            let mut io = connect(address).await;
            io.write_all(begun).await.expect("written");
            assert_eq!(timeout(PATIENCE, io.read(&mut [0; 64])).await.expect("an end in time").unwrap_or(0), 0);
        }
    });
}

#[test]
fn a_stop_waits_for_nobody_who_has_not_come_through_all_stages() {
    run(async || {
        let tls = Tls::new(testing::identity());
        let (address, shutdown) = serve_with(Some(tls), PATIENT, &Limits::none());
        let mut silent = connect(address).await;
        let mut begun = connect(address).await;
        begun.write_all(b"\x16\x03\x01\x00\xff\x01").await.expect("written");
        shutdown.advance(Stage::Finishing);
        for io in [&mut silent, &mut begun] {
            assert_eq!(timeout(PATIENCE, io.read(&mut [0; 64])).await.expect("an end in time").unwrap_or(0), 0);
        }
    });
}

#[test]
fn who_is_denied_waits_before_its_handshake_and_others_do_not() {
    run(async || {
        let limits = limits(64, 0);
        let options =
            Options { trusted_proxies: vec!["127.0.0.3/32".parse().expect("a network")], ..Options::unlimited() };
        limits.set(options).expect("no faults");
        limits.deny().add("127.0.0.2/31", "", None).expect("denied");
        let tls = Tls::new(testing::identity());
        let connector = tls.connector().expect("a connector");
        let (address, _shutdown) = serve_with(Some(tls), Times { refused: SHORT, ..PATIENT }, &limits);
        let mut took = Vec::new();
        for client in [1, 2, 3] {
            let io = connect_as(client, address).await;
            let begun = Instant::now();
            connector.connect(address.ip().into(), io).await.expect("a connection with TLS");
            took.push(begun.elapsed());
        }
        assert!(took[1] >= SHORT && took[0] < took[1], "{took:?}");
        assert!(took[2] < took[1], "a proxy carries others, too: {took:?}");
    });
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    run(async || {
        let address = serve(Times { idle: SHORT, ..PATIENT }, &Limits::none());
        let mut io = connect(address).await;
        io.write_all(GET).await.expect("written");
        answer(&mut io).await;
        assert_eq!(rest(&mut io).await, "");
    });
}

#[test]
fn a_later_head_that_comes_drop_by_drop_ends_its_connection() {
    run(async || {
        let address = serve(Times { coming: SHORT, ..PATIENT }, &Limits::none());
        let mut io = connect(address).await;
        for _ in 0..2 {
            io.write_all(GET).await.expect("written");
            answer(&mut io).await;
        }
        let began = Instant::now();
        let mut drops = interval(SHORT / 20);
        // Each comes soon after the other, and it is no head after so many of them.
        let closed = async {
            loop {
                let mut byte = [0; 1];
                tokio::select! {
                    _ = drops.tick() => if io.write_all(b"x").await.is_err() { return },
                    read = io.read(&mut byte) => return assert!(matches!(read, Ok(0) | Err(_))),
                }
            }
        };
        timeout(PATIENCE, closed).await.expect("closed in time");
        assert!(began.elapsed() >= SHORT);
    });
}

#[test]
fn a_head_that_is_too_large_is_told_so_before_its_end() {
    run(async || {
        let address = serve(PATIENT, &Limits::none());
        let many: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
        let large = format!("x: {}\r\n", "y".repeat(2 * HEAD_BYTES_MAX));
        for headers in [many, large] {
            let mut io = connect(address).await;
            let head = format!("GET / HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
            let (mut reads, mut writes) = io.split();
            let mut told = vec![0; b"HTTP/1.1 431 ".len()];
            // What is not read of a head that is too large may end the writing.
            let (read, _) =
                tokio::join!(timeout(PATIENCE, reads.read_exact(&mut told)), writes.write_all(head.as_bytes()));
            read.expect("an answer in time").expect("an answer");
            assert_eq!(String::from_utf8_lossy(&told), "HTTP/1.1 431 ");
        }
        let mut io = connect(address).await;
        io.write_all(GET).await.expect("written");
        answer(&mut io).await;
    });
}

#[test]
fn one_connection_too_many_waits_for_its_end_where_there_is_room() {
    run(async || {
        let limits = limits(2, 1);
        let address = serve(Times { refused: LONG, ..PATIENT }, &limits);
        let mut first = connect(address).await;
        first.write_all(GET).await.expect("written");
        answer(&mut first).await;
        let waits = connect(address).await;
        assert_eq!(rest(&mut connect(address).await).await, "", "there is room for one");
        let mut byte = [0; 1];
        assert!(waits.try_read(&mut byte).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
        drop(waits);
    });
}

#[test]
fn one_connection_too_many_is_closed_when_it_has_waited() {
    run(async || {
        let limits = limits(2, 1);
        let address = serve(Times { refused: SHORT, ..PATIENT }, &limits);
        let _first = connect(address).await;
        let began = Instant::now();
        assert_eq!(rest(&mut connect(address).await).await, "");
        assert!(began.elapsed() >= SHORT);
        assert!(limits.turn_away([127, 0, 0, 1].into()).is_some(), "and its room is free again");
    });
}

#[test]
fn the_hosts_connections_are_bounded_and_come_back_with_their_ends() {
    run(async || {
        let limits = limits(6, 0);
        let address = serve(PATIENT, &limits);
        let mut open = Vec::new();
        for client in [1, 2] {
            for _ in 0..3 {
                let mut io = connect_as(client, address).await;
                io.write_all(GET).await.expect("written");
                answer(&mut io).await;
                open.push(io);
            }
            assert_eq!(rest(&mut connect_as(client, address).await).await, "", "it has half of them");
        }
        assert_eq!(rest(&mut connect_as(3, address).await).await, "");
        open.pop();
        let comes_back = async {
            let mut byte = [0; 1];
            loop {
                let mut io = connect_as(3, address).await;
                let _ = io.write_all(GET).await;
                if let Ok(1) = io.read(&mut byte).await {
                    return;
                }
            }
        };
        timeout(PATIENCE, comes_back).await.expect("a place in time");
    });
}
