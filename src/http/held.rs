//! Answers that wait before they go out: no thread, no buffers of actix, a task and a few hundred bytes each.
//!
//! - [`answer`] refuses: at once, or held where the client has been refused too often
//! - [`run`] is the wait, on a socket that has left actix; `soft` has it too

use std::io;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::http::{ConnectionType, Method, header};
use actix_web::{HttpRequest, HttpResponse, web};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::Services;
use super::client_ip;
use super::error::Refusal;
use super::handover::{Handover, HandoverBody};
use super::options::Half;
use super::patience::Held;
use super::soft;
use super::transport::Transport;
use crate::metrics as names;

/// How long an answer is held, a fifth more or less: those who came together do not come back together.
const HOLD: Duration = Duration::from_secs(5);
/// How long one is held that comes while the server stops.
const HOLD_AT_STOP: Duration = Duration::from_secs(1);
/// How long a client may take to read what it has waited for.
const WRITE_AT_MOST: Duration = Duration::from_secs(5);
/// How long a client is given to close its side. Closed over bytes that nobody has read, the connection is reset, and takes
/// the answer with it.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// What a client may send while it waits.
const STRAY_BYTES_MAX: usize = 64 * 1024;

/// A refusal of the readers' route.
pub(super) fn answer(request: &HttpRequest, services: &Services, refusal: &Refusal) -> HttpResponse {
    if refusal.will_pass() && soft::suits(request) {
        return soft::refuse(request, services);
    }
    let mut answer = refusal.answer(request);
    // A 404 may be kept by caches otherwise, and what a stream is depends on what is accepted.
    answer.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    answer.headers_mut().insert(header::VARY, header::HeaderValue::from_static("Accept"));
    metrics::counter!(names::REFUSALS, "status" => answer.status().as_str().to_owned()).increment(1);
    let client = client_ip::asker(request, &services.limits).key;
    if *request.method() != Method::GET || !services.patience.is_tried_by(&client) {
        return answer;
    }
    // Held or not, a repeat offender needs a new connection for its next request.
    answer.head_mut().set_connection_type(ConnectionType::Close);
    if services.patience.is_stopping() {
        return answer;
    }
    match (request.conn_data::<Handover>(), services.patience.hold(&client)) {
        (Some(to), Some(held)) => kept(answer, to.clone(), held),
        _ => answer,
    }
}

/// For an instance without readers: others ask here by mistake, and as often.
pub(super) async fn of_other_half(request: HttpRequest, services: web::Data<Services>) -> HttpResponse {
    answer(&request, &services, &Refusal::OtherHalf(Half::Out))
}

/// Takes the answer along when the socket leaves.
fn kept(answer: HttpResponse, to: Handover, held: Held) -> HttpResponse {
    let (head, body) = answer.into_parts();
    match body.try_into_bytes() {
        Ok(body) => {
            let wait = wait(HOLD);
            let then = move |io, place, bytes| drop(actix_rt::spawn(run(io, bytes, held.on(place), wait)));
            head.set_body(HandoverBody::kept(to, body, then)).map_into_boxed_body()
        }
        Err(body) => head.set_body(body),
    }
}

/// How long an answer is held that comes now.
pub(super) fn wait_now(services: &Services) -> Duration {
    wait(if services.patience.is_stopping() { HOLD_AT_STOP } else { HOLD })
}

fn wait(about: Duration) -> Duration {
    about.mul_f64(0.8 + 0.4 * fastrand::f64())
}

/// Waits, writes the bytes, and ends the connection. A client that leaves meanwhile is sent nothing; a stop ends the wait.
pub(super) async fn run(mut io: Transport, last: Vec<u8>, held: Held, wait: Duration) {
    // Nothing to write: it did not fit, and is out already.
    if !last.is_empty() {
        tokio::select! {
            () = sleep(wait) => {}
            () = held.let_go() => {}
            () = peer_left(&mut io) => return,
        }
    }
    let written = async {
        io.write_all(&last).await?;
        io.shutdown().await
    };
    if let Ok(Ok(())) = timeout(WRITE_AT_MOST, written).await {
        tokio::select! {
            () = sleep(LINGER) => {}
            () = held.let_go() => {}
            () = peer_left(&mut io) => {}
        }
    }
}

/// For a connection that never was one of HTTP: says this, and closes.
pub(super) async fn say_last(mut io: TcpStream, bytes: &[u8]) {
    let said = async {
        io.write_all(bytes).await?;
        io.shutdown().await?;
        peer_left(&mut io).await;
        io::Result::Ok(())
    };
    let _ = timeout(LINGER, said).await;
}

/// Until the peer leaves, or sends more than it should. Not by `readable()`: that would leave actix's read waker in place,
/// and with it the memory of its finished task.
pub(super) async fn peer_left(io: &mut (impl AsyncRead + Unpin)) {
    let mut stray_bytes = 0;
    let mut stray = [0; 256];
    while stray_bytes <= STRAY_BYTES_MAX {
        match io.read(&mut stray).await {
            Ok(0) | Err(_) => return,
            Ok(bytes) => stray_bytes += bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;
    use tokio::time::Instant;

    use super::super::patience::Patience;
    use super::*;
    use crate::model::ClientKey;
    use crate::shutdown::{Shutdown, Stage};

    /// The two ends of a held answer's connection, and the task that holds it.
    struct Holding {
        client: TcpStream,
        task: tokio::task::JoinHandle<()>,
        shutdown: Shutdown,
        began: Instant,
    }

    const ANSWER: &[u8] = b"HTTP/1.1 404 Not Found\r\n\r\n";

    async fn hold() -> Holding {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (io, _) = listener.accept().await.expect("a connection");
        let shutdown = Shutdown::default();
        let address = std::net::IpAddr::from([127, 0, 0, 1]);
        let held = Patience::new(shutdown.watcher(), 1).hold(&ClientKey::of(address, 32, 64)).expect("a place");
        let began = Instant::now();
        let task = tokio::task::spawn_local(run(io.into(), ANSWER.to_vec(), held, HOLD));
        tokio::task::yield_now().await;
        Holding { client, task, shutdown, began }
    }

    fn in_paused_time(test: impl AsyncFnOnce(Holding)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        LocalSet::new().block_on(&runtime.expect("a runtime"), async { test(hold().await).await });
    }

    #[test]
    fn an_answer_waits_is_written_whole_and_then_its_client_has_time_to_read_it() {
        in_paused_time(async |mut holding| {
            let mut read = Vec::new();
            holding.client.read_to_end(&mut read).await.expect("a clean end");
            assert_eq!(read, ANSWER);
            assert!(holding.began.elapsed() >= HOLD);
            holding.task.await.expect("it ends");
            assert!(holding.began.elapsed() >= HOLD + LINGER, "closed over bytes that come now, it would be reset");
        });
    }

    #[test]
    fn a_client_that_leaves_is_waited_for_no_longer() {
        in_paused_time(async |holding| {
            drop(holding.client);
            holding.task.await.expect("it ends");
            assert!(holding.began.elapsed() < HOLD, "{:?}", holding.began.elapsed());
        });
    }

    #[test]
    fn a_client_that_has_its_answer_and_closes_is_waited_for_no_longer() {
        in_paused_time(async |mut holding| {
            let mut read = vec![0; ANSWER.len()];
            holding.client.read_exact(&mut read).await.expect("an answer");
            drop(holding.client);
            holding.task.await.expect("it ends");
            assert!(holding.began.elapsed() < HOLD + LINGER, "{:?}", holding.began.elapsed());
        });
    }

    #[test]
    fn a_stop_has_it_out_at_once() {
        in_paused_time(async |mut holding| {
            holding.shutdown.advance(Stage::EndStreams);
            let mut read = Vec::new();
            holding.client.read_to_end(&mut read).await.expect("a clean end");
            assert_eq!(read, ANSWER);
            assert!(holding.began.elapsed() < HOLD, "{:?}", holding.began.elapsed());
        });
    }

    fn returned<R, F: Fn(Transport, Vec<u8>, Held, Duration) -> R>(_: F) -> usize {
        size_of::<R>()
    }

    #[test]
    fn what_waits_is_small() {
        let bytes = returned(run);
        assert!(bytes <= 1024, "{bytes}");
    }

    #[test]
    fn waits_are_spread_by_a_fifth() {
        let waits: Vec<Duration> = (0..1_000).map(|_| wait(HOLD)).collect();
        let (least, most) = (waits.iter().min().expect("one"), waits.iter().max().expect("one"));
        assert!(*least >= HOLD.mul_f64(0.8) && *most <= HOLD.mul_f64(1.2) && *most - *least > HOLD / 5);
    }
}
