//! Sockets that leave actix, over the pipeline that the server uses.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_server::{Server, ServerHandle};
use actix_web::dev::ServiceRequest;
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpRequest, HttpResponse, web};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Duration, timeout};

use super::conn::{self, Times};
use super::handover::{Handover, HandoverBody, KEPT_BYTES_MAX};
use super::quiet::Busy;
use crate::limits::Limits;
use crate::shutdown::{Shutdown, Stage};

const PATIENCE: Duration = Duration::from_secs(20);
const GET: &str = "GET /stream HTTP/1.1\r\nhost: x\r\n\r\n";

/// What the handler waits for before its head, and who hears that its closure is gone.
#[derive(Clone)]
struct Probe {
    gate: Arc<Semaphore>,
    waiting: mpsc::Sender<()>,
    gone: mpsc::Sender<&'static str>,
}

/// Stands for a subscription: says how it ended.
struct Owned {
    end: &'static str,
    gone: mpsc::Sender<&'static str>,
}

impl Owned {
    fn is_served(&mut self) {
        self.end = "served";
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.gone.try_send(self.end);
    }
}

async fn stream(request: HttpRequest, probe: web::Data<Probe>) -> HttpResponse {
    let mut owned = Owned { end: "given back", gone: probe.gone.clone() };
    let _ = probe.waiting.try_send(());
    let permit = probe.gate.acquire().await.expect("the gate");
    permit.forget();
    let to = request.conn_data::<Handover>().expect("a connection of ours").clone();
    HttpResponse::Ok().body(HandoverBody::new(to, move |mut io, _| {
        actix_rt::spawn(async move {
            owned.is_served();
            let _ = io.write_all(b"5\r\nhello\r\n0\r\n\r\n").await;
        });
    }))
}

/// The answer is put in brackets on its way out.
async fn kept(request: HttpRequest, size: web::Path<usize>) -> HttpResponse {
    let to = request.conn_data::<Handover>().expect("a connection of ours").clone();
    let body = HandoverBody::kept(to, "x".repeat(*size).into(), |mut io, _, bytes| {
        actix_rt::spawn(async move {
            let _ = io.write_all(&[b"[", bytes.as_slice(), b"]"].concat()).await;
        });
    });
    HttpResponse::NotFound().body(body)
}

struct Host {
    address: SocketAddr,
    gate: Arc<Semaphore>,
    waiting: mpsc::Receiver<()>,
    gone: mpsc::Receiver<&'static str>,
    server: ServerHandle,
    shutdown: Shutdown,
}

impl Host {
    fn start(open_for: usize) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (waiting, waits) = mpsc::channel(8);
        let (gone, ends) = mpsc::channel(8);
        let gate = Arc::new(Semaphore::new(open_for));
        let probe = Probe { gate: gate.clone(), waiting, gone };
        let server = Server::build().disable_signals().workers(1);
        let shutdown = Shutdown::default();
        let stop = shutdown.watcher();
        let server = server.listen("test", listener, move || {
            let busy = from_fn(async |request: ServiceRequest, next: Next<_>| {
                let _answering = request.request().conn_data::<Busy>().map(Busy::begin);
                next.call(request).await
            });
            let app =
                App::new().wrap(busy).app_data(web::Data::new(probe.clone())).route("/stream", web::get().to(stream));
            let app = app.route("/kept/{size}", web::get().to(kept));
            conn::pipeline(app, None, Limits::none(), Times::default(), stop.clone())
        });
        let server = server.expect("a server").run();
        let handle = server.handle();
        actix_rt::spawn(server);
        Self { address, gate, waiting: waits, gone: ends, server: handle, shutdown }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    async fn end(&mut self) -> &'static str {
        timeout(PATIENCE, self.gone.recv()).await.expect("an end in time").expect("an end")
    }
}

async fn read_to_end(mut client: TcpStream) -> String {
    let mut text = String::new();
    timeout(PATIENCE, client.read_to_string(&mut text)).await.expect("an end in time").expect("UTF-8");
    text
}

fn run(test: impl AsyncFnOnce()) {
    actix_rt::System::new().block_on(test());
}

#[test]
fn the_head_goes_out_by_actix_and_the_rest_by_the_closure() {
    run(async || {
        let mut host = Host::start(1);
        let mut client = host.connect().await;
        client.write_all(GET.as_bytes()).await.expect("a reading server");
        let text = read_to_end(client).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{text}");
        assert_eq!(host.end().await, "served");
    });
}

#[test]
fn answers_before_it_on_the_same_connection_come_first() {
    run(async || {
        let mut host = Host::start(1);
        let mut client = host.connect().await;
        let nothing = GET.replace("/stream", "/nothing");
        let (first, second) = GET.split_at(9);
        client.write_all(format!("{nothing}{nothing}{first}").as_bytes()).await.expect("a reading server");
        // The two answers are out before the rest of the request line is sent.
        let mut answers = vec![0; 1];
        while answers.windows(4).filter(|bytes| bytes == b"\r\n\r\n").count() < 2 {
            answers.push(timeout(PATIENCE, client.read_u8()).await.expect("bytes in time").expect("a byte"));
        }
        client.write_all(second.as_bytes()).await.expect("a reading server");
        let text = read_to_end(client).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{text}");
        assert_eq!(host.end().await, "served");
    });
}

#[test]
fn what_is_pipelined_behind_it_is_never_answered() {
    run(async || {
        let mut host = Host::start(2);
        let mut client = host.connect().await;
        client.write_all(format!("{GET}{GET}").as_bytes()).await.expect("a reading server");
        let text = read_to_end(client).await;
        assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
        assert!(text.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{text}");
        assert_eq!(host.end().await, "served");
    });
}

#[test]
fn a_client_that_leaves_before_its_head_gives_everything_back() {
    run(async || {
        let mut host = Host::start(0);
        let mut client = host.connect().await;
        client.write_all(GET.as_bytes()).await.expect("a reading server");
        timeout(PATIENCE, host.waiting.recv()).await.expect("a handler in time");
        drop(client);
        assert_eq!(host.end().await, "given back");
    });
}

#[test]
fn a_stop_does_not_wait_for_idle_connections() {
    run(async || {
        let mut host = Host::start(0);
        let mut idle = host.connect().await;
        idle.write_all(GET.replace("/stream", "/nothing").as_bytes()).await.expect("a reading server");
        timeout(PATIENCE, idle.read_u8()).await.expect("an answer in time").expect("an answer");
        let mut busy = host.connect().await;
        busy.write_all(GET.as_bytes()).await.expect("a reading server");
        timeout(PATIENCE, host.waiting.recv()).await.expect("a handler in time");
        host.shutdown.advance(Stage::Finishing);
        let stopping = actix_rt::spawn(host.server.stop(true));
        read_to_end(idle).await;
        host.gate.add_permits(1);
        let text = read_to_end(busy).await;
        assert!(text.ends_with("5\r\nhello\r\n0\r\n\r\n"), "a request under way is answered: {text}");
        let before_any_timeout = Duration::from_secs(8);
        timeout(before_any_timeout, stopping).await.expect("a stop in time").expect("a stop");
    });
}

#[test]
fn an_answer_that_is_kept_goes_to_the_closure_whole() {
    run(async || {
        let host = Host::start(0);
        let mut client = host.connect().await;
        client.write_all(GET.replace("/stream", "/kept/3").repeat(2).as_bytes()).await.expect("a reading server");
        let text = read_to_end(client).await;
        assert!(text.starts_with("[HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\nxxx]"), "{text}");
    });
}

#[test]
fn an_answer_that_is_too_long_to_keep_goes_out_before_the_closure_runs() {
    run(async || {
        let host = Host::start(0);
        let mut client = host.connect().await;
        let size = KEPT_BYTES_MAX.to_string();
        let request = GET.replace("/stream", &format!("/kept/{size}"));
        client.write_all(request.as_bytes()).await.expect("a reading server");
        let text = read_to_end(client).await;
        assert!(text.starts_with("HTTP/1.1 404 Not Found\r\n") && text.ends_with("xxx[]"), "{text}");
        assert!(text.len() > KEPT_BYTES_MAX);
    });
}
