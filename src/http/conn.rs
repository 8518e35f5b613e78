//! From an accepted socket to a connection that actix serves: a pipeline of accept stages.
//!
//! A place → socket options → PROXY header → TLS → HTTP; each gets the connection of the stage before it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use actix_http::{HttpService, Protocol};
use actix_service::{IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, ServiceRequest, ServiceResponse};
use actix_web::{App, Error};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::client_ip::{Told, proxy};
use super::handover::{Conn, Handover};
use super::handshake::shake_hands;
use super::quiet::{Busy, Quiet};
use super::transport::Transport;
use crate::limits::{ClientIpHeader, Limits, Place};
use crate::shutdown::{Stage, Stop};
use crate::tls::Tls;

/// What may wait unsent in the kernel for one reader. Without it a stuck reader takes 4 MB there; unlike a small send
/// buffer it leaves the window alone, and with it the throughput of readers far away.
const UNSENT_BYTES_MAX: u32 = 16 * 1024;
/// How long the rest of a refused body is read and dropped. A connection that is closed over unread bytes is reset, and
/// takes the refusal with it before the client has read it.
const LINGER: Duration = Duration::from_secs(5);

/// How long a connection is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// For a PROXY header, for TLS, and for the head of the first request: then it is told so (408).
    pub(super) head: Duration,
    /// For the next request to begin: then it is closed.
    pub(super) idle: Duration,
    /// From then on, for what is left of a body that was refused and for its own head: then it is closed.
    pub(super) coming: Duration,
    /// How long one too many is left waiting, up to twice as long, before it is closed: who comes back at once comes less often.
    pub(super) refused: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(15),
            coming: Duration::from_secs(30),
            refused: Duration::from_secs(3),
        }
    }
}

/// The whole pipeline. When a stop finishes what is under way, idle connections close, and busy ones after their answer.
pub(super) fn pipeline<T, B>(
    app: App<T>,
    tls: Option<Tls>,
    limits: Limits,
    times: Times,
    stop: Stop,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = (), InitError = ()>
where
    T: ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<B>, Error = Error, InitError = ()>
        + 'static,
    T::Future: 'static,
    B: MessageBody + 'static,
{
    let of_connections = stop.clone();
    let http = HttpService::build()
        .client_request_timeout(times.head)
        .client_disconnect_timeout(LINGER)
        .keep_alive(times.idle)
        .h1_allow_half_closed(false)
        // Only wakes the connection, which then sees for itself ([`Conn`] reads): where it said more, actix would drop a
        // request that is in the socket already. Hidden in actix-http's docs, but what actix-web's own server calls:
        // where a release took it away, this would not compile.
        .graceful_shutdown_signal(move || {
            let mut stop = of_connections.clone();
            async move {
                stop.reached(Stage::Finishing).await;
                std::future::pending().await
            }
        })
        .on_connect_ext(|conn: &Conn, data| {
            data.insert::<Handover>(conn.handover());
            data.insert::<Busy>(conn.busy());
            if let Some(told) = conn.told() {
                data.insert::<Told>(told);
            }
        })
        .finish(map_config(app.into_factory().map_err(|e| e.error_response()), |()| AppConfig::default()));
    fn_service(move |io| accept(io, tls.clone(), limits.clone(), times, stop.clone()))
        .map_err(|_| ())
        .and_then(http.map_err(|_| ()))
}

/// What actix serves: the transport, its protocol, and who is on the other end.
type Accepted = (Conn, Protocol, Option<SocketAddr>);

/// Who has not come through all stages when a stop finishes what is under way has asked nothing, and is closed as an idle
/// connection is.
async fn accept(io: TcpStream, tls: Option<Tls>, limits: Limits, times: Times, stop: Stop) -> io::Result<Accepted> {
    let mut stopping = stop.clone();
    tokio::select! {
        biased;
        accepted = stages(io, tls, limits, times, stop) => accepted,
        () = stopping.reached(Stage::Finishing) => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

/// Closed where there are too many, and those who are gone already.
async fn stages(mut io: TcpStream, tls: Option<Tls>, limits: Limits, times: Times, stop: Stop) -> io::Result<Accepted> {
    let peer = io.peer_addr()?;
    let address = peer.ip().to_canonical();
    let of_probe = limits.connect_probe(peer);
    let is_probe = of_probe.is_some();
    let mut place = match of_probe {
        Some(place) => place,
        None => counted(&limits, address, times.refused).await?,
    };
    let options = limits.options();
    set_options(&io, options.dead_after)?;
    let mut told = None;
    if options.client_ip_header == ClientIpHeader::ProxyProtocol && limits.trusts(address) {
        match proxy::read(&mut io, times.head).await {
            Ok(client) => told = client.map(Told),
            Err(fault) => {
                proxy::refuse(io, &fault).await;
                return Err(io::Error::other(fault));
            }
        }
        // The probe says it as the balancer does, and keeps its own place.
        if let Some(Told(client)) = told.filter(|_| !is_probe) {
            // Not both at once: it would take two of what the host has.
            drop(place);
            place = counted(&limits, client, times.refused).await?;
        }
    }
    let io = match &tls {
        Some(tls) => {
            let client = told.map_or(address, |Told(client)| client);
            if !is_probe && limits.is_held_back(client) {
                // What it is told costs a signature: not as often as it likes.
                sleep(times.refused).await;
            }
            // Apart, as it is large and soon over: what is in here is kept for as long as the connection.
            Box::pin(shake_hands(io, &tls.acceptor(), times.head, is_probe)).await?
        }
        None => Transport::Plain(io),
    };
    Ok((Conn::new(io, Quiet::new(times.coming), told, place, stop), Protocol::Http1, Some(peer)))
}

/// One too many waits a moment for its end, where there is room for that: it costs a socket, and its client a connection.
async fn counted(limits: &Limits, client: IpAddr, refused: Duration) -> io::Result<Place> {
    let exceeded = match limits.connect(client) {
        Ok(place) => return Ok(place),
        Err(exceeded) => exceeded,
    };
    if let Some(_waits) = limits.turn_away(client) {
        // Spread, so that those who were closed together do not come back together.
        sleep(refused.mul_f64(1.0 + fastrand::f64())).await;
    }
    Err(io::Error::other(exceeded))
}

/// `dead_after`: a peer that acknowledges nothing for this long is gone, whether it said so or not. The kernel counts a
/// reader that has merely stopped reading (a shut window) in the same way.
fn set_options(io: &TcpStream, dead_after: Duration) -> io::Result<()> {
    io.set_nodelay(true)?;
    let socket = SockRef::from(io);
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    socket.set_tcp_user_timeout(Some(dead_after))
}
