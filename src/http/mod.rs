//! The edge: requests into calls, results into bytes.
//!
//! - this page: every route, and the server
//! - `conn` accept stages (`handshake` is that of TLS), which end in a `transport`; `quiet` ends those on which nothing moves; `door` who comes in, on the word of `client_ip`
//! - `handover` the socket leaves actix; `reader` a reader's loop on it; `head` and `sse` its bytes
//! - `stream`, `resume` and `wishes` the readers' route; `held` its refusals, `patience` whose are held and how many, `soft`
//!   those that look like a stream
//! - `events` the producers', with `query` what they ask for, `body` what they send, `sentence` what they are told, `posts`
//!   those that wait for it; `configs` their streams' settings
//! - `openapi` what the service says of itself; `doc` the same as a page, and the front door
//! - `health` the verdict; `info` the small answers; `cors` what browsers need to be told
//! - `watched` how long requests take; `panics` what becomes of one whose handler fails
//! - `error` the one status table; `admin` the operators' listener; `options` the section
//!
//! Knows no engine, no ring, no offsets: it passes `From` and ids through.

mod admin;
mod body;
mod client_ip;
mod configs;
mod conn;
mod cors;
mod doc;
mod door;
mod error;
mod events;
mod handover;
mod handshake;
mod head;
mod health;
mod held;
mod info;
mod openapi;
mod options;
mod panics;
mod patience;
mod posts;
mod query;
mod quiet;
mod reader;
mod rest;
mod resume;
mod sentence;
mod soft;
mod sse;
mod stream;
mod transport;
mod watched;
mod wishes;

#[cfg(test)]
mod conn_test;
#[cfg(test)]
mod handover_test;
#[cfg(test)]
mod limited_test;
#[cfg(test)]
mod limits_test;
#[cfg(test)]
mod reader_test;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_server::{Server, ServerHandle};
use actix_web::http::Method;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpRequest, HttpResponse, Resource, Route, guard, web};
use tokio::runtime::Handle;

use self::conn::Times;
use self::error::Refusal;
use crate::catalog::Live;
use crate::health::{Health, Secret};
use crate::hub::Hub;
use crate::intake::Intake;
use crate::intake::auth::Guard;
use crate::limits::{Descriptors, Limits};
use crate::schema::Schemas;
use crate::shutdown::Stop;
use crate::tls::Tls;

pub use self::admin::{
    CatalogBecame, Doors, Logging, Operators, PrivateSocket, Reload, Reloaded, Render, RenderError, Served, is_token,
    serve as serve_admin,
};
pub use self::options::{Half, Options};
pub use self::patience::Patience;
pub use self::posts::Posts;

/// Connections of one worker that are being closed because there are too many.
const REFUSED_AT_ONCE_MAX: usize = 4096;

/// What the routes call.
#[derive(Clone)]
pub struct Services {
    pub hub: Hub,
    pub intake: Arc<Intake>,
    pub catalog: Live,
    pub schemas: Arc<Schemas>,
    /// For what must outlive a request.
    pub engine: Handle,
    /// Who may post.
    pub guard: Guard,
    pub limits: Limits,
    pub health: Health,
    pub stop: Stop,
    /// What the probe proves itself with.
    pub probe: Secret,
    /// With readers who keep being refused.
    pub patience: Patience,
    /// Those that a stop waits for.
    pub posts: Posts,
    /// Time over which open streams end at a stop.
    pub end_spread: Duration,
}

/// Serves the public listener until the handle is told to stop. Call it within an actix system.
pub fn serve(
    options: &Options,
    listener: TcpListener,
    tls: Option<Tls>,
    services: Services,
) -> io::Result<ServerHandle> {
    // One that is full stops taking connections, also those of the probe: so ours is reached before it, and those beyond it
    // are closed.
    let Descriptors { connections, refused, .. } = services.limits.descriptors();
    let mut server = Server::build()
        .disable_signals()
        .max_concurrent_connections(connections.saturating_add(refused).saturating_add(REFUSED_AT_ONCE_MAX));
    if options.workers > 0 {
        server = server.workers(options.workers);
    }
    let served = options.serve.clone();
    let room = body::Room::new(services.intake.options().max_inflight_bytes);
    let specification = openapi::Specification::new(&services, &options.serve);
    let server = server.listen("public", listener, move || {
        let worker = services.hub.worker(services.end_spread);
        actix_rt::spawn(worker.clone().run());
        let services = web::Data::new(services.clone());
        let (limits, stop, door) = (services.limits.clone(), services.stop.clone(), services.clone());
        let app = App::new()
            .app_data(services)
            .app_data(web::Data::new(worker))
            .app_data(web::Data::new(room.clone()))
            .app_data(web::Data::new(specification.clone()))
            .wrap(from_fn(move |request, next| door::enter(door.clone(), request, next)))
            .wrap(from_fn(watched::watched))
            // Outermost: refusals at the door have them, too.
            .wrap(cors::headers())
            .configure(|app| routes(app, &served));
        conn::pipeline(app, tls.clone(), limits, Times::default(), stop)
    })?;
    let server = server.run();
    let handle = server.handle();
    actix_rt::spawn(server);
    Ok(handle)
}

/// Every route of the public listener.
fn routes(app: &mut web::ServiceConfig, served: &[Half]) {
    if served.contains(&Half::Out) {
        for path in STREAMS {
            app.service(web::scope(path).default_service(web::to(stream::asked)));
        }
    } else {
        for path in STREAMS {
            app.service(web::scope(path).default_service(web::to(held::of_other_half)));
        }
    }
    if served.contains(&Half::In) {
        app.service(
            web::resource(tolerant("/v1/events")).route(web::post().to(events::post)).default_service(only("POST")),
        )
        .service(fixed_at(tolerant("/v1/_test/events")).route(get_or_head().to(events::post_test_events)))
        .service(fixed_at(stream_configs()).route(get_or_head().to(configs::get)));
    } else {
        for paths in [tolerant("/v1/events"), tolerant("/v1/_test/events"), stream_configs()] {
            app.service(web::resource(paths).default_service(of_other_half(Half::In)));
        }
    }
    app.service(fixed("/_info").route(get_or_head().to(info::info)))
        .service(fixed("/_info/").route(get_or_head().to(info::info)))
        .service(fixed("/_info/name").route(get_or_head().to(info::name)))
        .service(fixed("/_info/version").route(get_or_head().to(info::version)))
        .service(web::resource("/_info/home").route(web::to(info::home)))
        .service(fixed("/").route(get_or_head().to(doc::front)))
        .service(fixed("/rc").route(get_or_head().to(doc::rc)))
        .service(fixed("/openapi.json").route(get_or_head().to(openapi::get)))
        .service(fixed("/robots.txt").route(get_or_head().to(info::robots)))
        .service(fixed("/healthz").route(get_or_head().to(info::healthz)))
        .service(fixed("/readyz").route(get_or_head().to(info::readyz)))
        .service(fixed("/health").route(get_or_head().to(health::get)))
        .default_service(web::to(nothing_here));
}

/// As clients write it: with a slash at the end, or with two in front where a base address ends in one.
fn tolerant(path: &str) -> Vec<String> {
    vec![path.to_owned(), format!("{path}/"), format!("/{path}"), format!("/{path}/")]
}

/// The paths that these begin, and no patterns: one that catches a list of names takes 60 ns for each of its bytes, and
/// there may be 64 KB of them. With no name at all they are answered, too: with what is missing.
const STREAMS: [&str; 2] = ["/v2/stream", "//v2/stream"];

fn stream_configs() -> Vec<String> {
    let mut paths = tolerant("/v1/stream-configs");
    paths.extend(["/v1/stream-configs/{streams:.+}", "//v1/stream-configs/{streams:.+}"].map(str::to_owned));
    paths
}

/// A resource that can only be looked at.
fn fixed(path: &str) -> Resource {
    fixed_at(vec![path.to_owned()])
}

fn fixed_at(paths: Vec<String>) -> Resource {
    web::resource(paths).default_service(only("GET, HEAD"))
}

async fn nothing_here(request: HttpRequest) -> HttpResponse {
    Refusal::UnknownRoute.answer(&request)
}

fn get_or_head() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// Answers every method that a resource does not have, `OPTIONS` with what it has.
fn only(allowed: &'static str) -> Route {
    web::to(move |request: HttpRequest| async move {
        match *request.method() {
            Method::OPTIONS => cors::preflight(allowed),
            _ => Refusal::WrongMethod(allowed).answer(&request),
        }
    })
}

/// Answers for the half that is not served.
fn of_other_half(half: Half) -> Route {
    web::to(move |request: HttpRequest| async move { Refusal::OtherHalf(half).answer(&request) })
}
