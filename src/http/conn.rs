//! From an accepted socket to a connection that actix serves: a pipeline of accept stages.
//!
//! Today: socket options → HTTP. A PROXY header and TLS are further stages between the two; each gets the connection
//! of the stage before it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_http::{HttpService, Protocol};
use actix_server::GracefulShutdownSignal;
use actix_service::{IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, ServiceRequest, ServiceResponse};
use actix_web::{App, Error};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::handover::{Conn, Handover};
use crate::limits::Limits;

/// What may wait unsent in the kernel for one reader. Without it a stuck reader takes 4 MB there; unlike a small send
/// buffer it leaves the window alone, and with it the throughput of readers far away.
const UNSENT_BYTES_MAX: u32 = 16 * 1024;
/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept for another request.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long the rest of a refused body is read and dropped. A connection that is closed over unread bytes is reset, and
/// takes the refusal with it before the client has read it.
const LINGER: Duration = Duration::from_secs(5);

/// The whole pipeline. Once `stopping`, idle connections close, and busy ones after their answer.
pub(super) fn pipeline<T, B>(
    app: App<T>,
    limits: Limits,
    stopping: GracefulShutdownSignal,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = (), InitError = ()>
where
    T: ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<B>, Error = Error, InitError = ()>
        + 'static,
    T::Future: 'static,
    B: MessageBody + 'static,
{
    let http = HttpService::build()
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(LINGER)
        .keep_alive(KEEP_ALIVE)
        .h1_allow_half_closed(false)
        // Without it a stop waits for every idle connection to time out. Hidden in actix-http's docs, but what actix-web's
        // own server calls: where a release took it away, this would not compile.
        .graceful_shutdown_signal(move || {
            let stopping = stopping.clone();
            async move { stopping.notified().await }
        })
        .on_connect_ext(|conn: &Conn, data| {
            data.insert::<Handover>(conn.handover());
        })
        .finish(map_config(app.into_factory().map_err(|e| e.error_response()), |()| AppConfig::default()));
    let accept = move |io| {
        let accepted = accept(io, &limits);
        async { accepted }
    };
    fn_service(accept).map_err(|_| ()).and_then(http.map_err(|_| ()))
}

/// What actix serves: the transport, its protocol, and who is on the other end.
type Accepted = (Conn, Protocol, Option<SocketAddr>);

fn accept(io: TcpStream, limits: &Limits) -> io::Result<Accepted> {
    let peer = io.peer_addr().ok();
    set_options(&io, limits)?;
    Ok((Conn::new(io), Protocol::Http1, peer))
}

fn set_options(io: &TcpStream, limits: &Limits) -> io::Result<()> {
    io.set_nodelay(true)?;
    let socket = SockRef::from(io);
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    // A peer that acknowledges nothing for so long is gone, whether it said so or not.
    socket.set_tcp_user_timeout(Some(limits.options().dead_after))
}
