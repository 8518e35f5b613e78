//! The operators' listener, with a thread and a pool of its own: a full public listener does not fill it. Over TCP, and
//! where the configuration says so over a Unix socket; the same routes on both.
//!
//! - this page: every route, and the server
//! - `access` who may: [`access::Operator`] is the proof, and each route but the probes' asks for one
//! - `socket` the Unix socket, private from its first moment
//! - `refusal` what is answered otherwise, and its status
//! - `ask` what a request says, read within limits; `note` what is remembered of a change
//! - `clients` who reads, and their end; `traffic` who did what in the last minutes; `table` both for people's eyes
//! - `deny`, `limits`, `levels`, `reload` what can be changed while the server runs
//! - `spool` what waits for the log, and what the log refuses for good
//! - `debug` where time and memory go; `metrics` what Prometheus gets
//!
//! Knows nothing of who reads the answers: `cli` has commands for all of it, and asks as everybody does.

mod access;
mod ask;
mod clients;
mod debug;
mod deny;
mod levels;
mod limits;
mod metrics;
mod note;
mod refusal;
mod reload;
mod socket;
mod spool;
mod table;
mod traffic;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::header;
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::{App, HttpServer, Resource, web};
use socket2::SockRef;
use tokio::net::TcpStream;

use self::access::{Gate, Peer};
use self::debug::Profiler;
use self::levels::Levels;
use super::{Services, fixed, get_or_head, health, info, nothing_here, only};
use crate::shutdown::Stop;

pub use self::access::is_token;
pub use self::levels::Logging;
pub use self::metrics::{Render, RenderError};
pub use self::reload::{CatalogBecame, Reload, Reloaded};
pub use self::socket::PrivateSocket;

/// Connections at once. The next one waits to be accepted.
const CONNECTIONS_MAX: usize = 1_000;
/// A connection whose peer has taken nothing of an answer for this long is cut: of a scraper that never reads no more than
/// a buffer is left, and soon not even that.
const UNREAD_MAX: Duration = Duration::from_secs(30);

/// What the operators' routes call.
pub struct Operators {
    pub services: Services,
    pub render: Render,
    pub logging: Logging,
    pub reload: Reload,
    /// What has to be shown over TCP. None: nothing, on a loopback address; elsewhere nobody may.
    pub token: Option<String>,
    pub stop: Stop,
}

/// Where they listen.
#[derive(Default)]
pub struct Doors {
    pub tcp: Option<TcpListener>,
    pub socket: Option<PrivateSocket>,
}

/// A listener that serves until its handle is told to stop.
pub struct Served {
    pub address: Option<SocketAddr>,
    pub handle: ServerHandle,
    /// Its file is removed with this.
    pub socket: Option<PrivateSocket>,
}

/// Serves at these doors; none if there are none.
pub fn serve(doors: Doors, operators: Operators) -> io::Result<Option<Served>> {
    if doors.tcp.is_none() && doors.socket.is_none() {
        return Ok(None);
    }
    let address = doors.tcp.as_ref().map(TcpListener::local_addr).transpose()?;
    let Operators { services, render, logging, reload, token, stop } = operators;
    let gate = web::Data::new(Gate::new(address, token));
    gate.warn_where_nobody_may();
    let levels = web::Data::new(Levels::new(logging, services.engine.clone()));
    let profiler = web::Data::new(Profiler::new(stop));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(services.clone()))
            .app_data(web::Data::new(render.clone()))
            .app_data(web::Data::new(reload.clone()))
            .app_data(gate.clone())
            .app_data(levels.clone())
            .app_data(profiler.clone())
            .wrap(from_fn(refusal::answered))
            .wrap(DefaultHeaders::new().add((header::X_CONTENT_TYPE_OPTIONS, "nosniff")))
            .configure(routes)
    });
    // Who leaves is not served on: a profile would go on to its end, and keep others from theirs.
    let mut server = server.workers(1).h1_allow_half_closed(false).disable_signals();
    server = server.max_connections(CONNECTIONS_MAX).on_connect(|io, connection| {
        Peer::note(io, connection);
        // Where it cannot be had, the connection is only kept for longer.
        if let Some(io) = io.downcast_ref::<TcpStream>() {
            let _ = SockRef::from(io).set_tcp_user_timeout(Some(UNREAD_MAX));
        }
    });
    if let Some(listener) = doors.tcp {
        server = server.listen(listener)?;
    }
    if let Some(socket) = &doors.socket {
        server = server.listen_uds(socket.listener()?)?;
    }
    let server = server.run();
    let handle = server.handle();
    actix_rt::spawn(server);
    Ok(Some(Served { address, handle, socket: doors.socket }))
}

/// Every route of the operators' listener. The first four are everybody's.
fn routes(app: &mut web::ServiceConfig) {
    app.service(fixed("/metrics").route(get_or_head().to(metrics::get)))
        .service(fixed("/healthz").route(get_or_head().to(info::healthz)))
        .service(fixed("/readyz").route(get_or_head().to(info::readyz)))
        .service(fixed("/health").route(get_or_head().to(health::get_for_operators)))
        .service(
            at("/clients", "GET, HEAD, DELETE")
                .route(get_or_head().to(clients::list))
                .route(web::delete().to(clients::end_of_key)),
        )
        .service(at("/clients/{id}", "DELETE").route(web::delete().to(clients::end_one)))
        .service(at("/deny", "GET, HEAD").route(get_or_head().to(deny::list)))
        .service(
            // With its slash as it is, or as %2F.
            at("/deny/{cidr:.+}", "PUT, DELETE").route(web::put().to(deny::put)).route(web::delete().to(deny::delete)),
        )
        .service(at("/limits", "GET, HEAD, PUT").route(get_or_head().to(limits::get)).route(web::put().to(limits::put)))
        .service(at("/reload", "POST").route(web::post().to(reload::post)))
        .service(
            at("/log-level", "GET, HEAD, PUT").route(get_or_head().to(levels::get)).route(web::put().to(levels::put)),
        )
        .service(at("/spool", "GET, HEAD").route(get_or_head().to(spool::get)))
        .service(at("/spool/retry", "POST").route(web::post().to(spool::retry)))
        .service(at("/spool/aside", "DELETE").route(web::delete().to(spool::drop_aside)))
        .service(at("/traffic", "GET, HEAD").route(get_or_head().to(traffic::get)))
        // Not for HEAD: it would profile, and throw the profile away.
        .service(at("/debug/profile", "GET").route(web::get().to(debug::profile)))
        .service(at("/debug/heap", "GET, HEAD").route(get_or_head().to(debug::heap)))
        .default_service(web::to(nothing_here));
}

fn at(path: &str, allowed: &'static str) -> Resource {
    web::resource(path).default_service(only(allowed))
}
