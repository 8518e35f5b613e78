//! The edge: requests into calls, results into bytes.
//!
//! - this page: every route, and the server
//! - `conn` accept stages; `quiet` ends those on which nothing moves
//! - `handover` the socket leaves actix; `reader` a reader's loop on it; `sse` its bytes
//! - `stream` and `resume` the readers' route; `events` and `sentence` the producers'; `info` the small answers
//! - `client_ip` who is asking; `error` the one status table; `admin` the operators' listener
//!
//! Knows no engine, no ring, no offsets: it passes `From` and ids through.

mod admin;
mod client_ip;
mod conn;
mod error;
mod events;
mod handover;
mod info;
mod quiet;
mod reader;
mod resume;
mod sentence;
mod sse;
mod stream;

#[cfg(test)]
mod handover_test;
#[cfg(test)]
mod reader_test;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_server::{Server, ServerHandle};
use actix_web::http::header;
use actix_web::middleware::DefaultHeaders;
use actix_web::{App, HttpRequest, HttpResponse, Resource, Route, guard, web};
use serde::Deserialize;

use self::error::Refusal;
use crate::catalog::Live;
use crate::hub::Hub;
use crate::intake::Intake;
use crate::intake::auth::Guard;

pub use self::admin::{Render, serve as serve_admin};
pub use self::client_ip::ClientPrefixes;

/// The section `http` of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Address and port of the public listener; port 0 picks a free one.
    pub listen: String,
    /// Worker threads; 0 means one per core.
    pub workers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8888".into(), workers: 0 }
    }
}

/// What the routes call.
#[derive(Clone)]
pub struct Services {
    pub hub: Hub,
    pub intake: Arc<Intake>,
    pub catalog: Live,
    /// Who may post.
    pub guard: Guard,
    pub client_prefixes: ClientPrefixes,
    /// Time over which open streams end at a stop.
    pub end_spread: Duration,
}

/// Serves the public listener until the handle is told to stop. Call it within an actix system.
pub fn serve(options: &Options, listener: TcpListener, services: Services) -> io::Result<ServerHandle> {
    let mut server = Server::build().disable_signals();
    if options.workers > 0 {
        server = server.workers(options.workers);
    }
    let stopping = server.graceful_shutdown_signal();
    let server = server.listen("public", listener, move || {
        let worker = services.hub.worker(services.end_spread);
        actix_rt::spawn(worker.clone().run());
        let app = App::new()
            .app_data(web::Data::new(services.clone()))
            .app_data(web::Data::new(worker))
            .wrap(default_headers())
            .configure(routes);
        conn::pipeline(app, stopping.clone())
    })?;
    let server = server.run();
    let handle = server.handle();
    actix_rt::spawn(server);
    Ok(handle)
}

/// On every answer that a route gives.
fn default_headers() -> DefaultHeaders {
    DefaultHeaders::new()
        .add((header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"))
        .add((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
}

/// Every route of the public listener.
fn routes(app: &mut web::ServiceConfig) {
    app.service(fixed("/v2/stream/{streams:.+}").route(web::get().to(stream::get)).route(web::head().to(stream::head)))
        .service(
            web::resource(["/v1/events", "/v1/events/"])
                .route(web::post().to(events::post))
                .default_service(only("POST")),
        )
        .service(fixed("/_info").route(get_or_head().to(info::info)))
        .service(fixed("/_info/").route(get_or_head().to(info::info)))
        .service(fixed("/_info/name").route(get_or_head().to(info::name)))
        .service(fixed("/_info/version").route(get_or_head().to(info::version)))
        .service(fixed("/robots.txt").route(get_or_head().to(info::robots)))
        .service(fixed("/healthz").route(get_or_head().to(info::healthz)))
        .service(fixed("/readyz").route(get_or_head().to(info::readyz)))
        .default_service(web::to(nothing_here));
}

/// A resource that can only be looked at.
fn fixed(path: &str) -> Resource {
    web::resource(path.to_owned()).default_service(only("GET, HEAD"))
}

async fn nothing_here(request: HttpRequest) -> HttpResponse {
    Refusal::UnknownRoute.answer(&request)
}

fn get_or_head() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// Answers every method that a resource does not have.
fn only(allowed: &'static str) -> Route {
    web::to(move |request: HttpRequest| async move { Refusal::WrongMethod(allowed).answer(&request) })
}
