//! The operators' listener, with a thread and a pool of its own: a full public listener does not fill it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use actix_web::dev::ServerHandle;
use actix_web::http::header;
use actix_web::middleware::DefaultHeaders;
use actix_web::{App, HttpResponse, HttpServer, web};

use super::{Reload, Services, admin_reload, fixed, get_or_head, health, info, nothing_here};

/// Renders the metrics.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Serves until its handle is told to stop.
pub fn serve(
    listener: TcpListener,
    services: Services,
    render: Render,
    reload: Reload,
) -> io::Result<(SocketAddr, ServerHandle)> {
    let address = listener.local_addr()?;
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(services.clone()))
            .app_data(web::Data::new(render.clone()))
            .app_data(web::Data::new(reload.clone()))
            .wrap(DefaultHeaders::new().add((header::X_CONTENT_TYPE_OPTIONS, "nosniff")))
            .service(fixed("/metrics").route(get_or_head().to(metrics)))
            .service(fixed("/healthz").route(get_or_head().to(info::healthz)))
            .service(fixed("/readyz").route(get_or_head().to(info::readyz)))
            .service(fixed("/health").route(get_or_head().to(health::get)))
            .service(
                web::resource("/reload")
                    .route(web::post().to(admin_reload::post))
                    .default_service(web::to(admin_reload::wrong_method)),
            )
            .default_service(web::to(nothing_here))
    });
    let server = server.workers(1).disable_signals().listen(listener)?.run();
    let handle = server.handle();
    actix_rt::spawn(server);
    Ok((address, handle))
}

async fn metrics(render: web::Data<Render>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(render())
}
