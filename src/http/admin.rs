//! The operators' listener, with a thread and a pool of its own: a full public listener does not fill it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};

use super::error::Refusal;
use super::{Services, info};

/// Renders the metrics.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Serves until its handle is told to stop.
pub fn serve(listener: TcpListener, services: Services, render: Render) -> io::Result<(SocketAddr, ServerHandle)> {
    let address = listener.local_addr()?;
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(services.clone()))
            .app_data(web::Data::new(render.clone()))
            .route("/metrics", web::get().to(metrics))
            .route("/healthz", web::get().to(info::healthz))
            .route("/readyz", web::get().to(info::readyz))
            .default_service(web::to(async |request: HttpRequest| Refusal::UnknownRoute.answer(&request)))
    });
    let server = server.workers(1).disable_signals().listen(listener)?.run();
    let handle = server.handle();
    actix_rt::spawn(server);
    Ok((address, handle))
}

async fn metrics(render: web::Data<Render>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(render())
}
