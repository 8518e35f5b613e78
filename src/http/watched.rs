//! Every request of the public listener: how long its answer takes, and what becomes of it where a handler fails.

use std::time::Instant;

use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;

use super::panics;
use crate::metrics as names;

/// What is told apart in the metrics: a path is what a client sent, and there is no end of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Events,
    TestEvents,
    StreamConfigs,
    Stream,
    Health,
    Other,
}

impl Route {
    fn of(path: &str) -> Self {
        let path = if path.starts_with("//") { &path[1..] } else { path };
        let is_below =
            |route: &str| path.strip_prefix(route).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        match path.strip_suffix('/').unwrap_or(path) {
            "/v1/events" => Self::Events,
            "/v1/_test/events" => Self::TestEvents,
            "/healthz" | "/readyz" | "/health" => Self::Health,
            _ if is_below("/v2/stream") => Self::Stream,
            _ if is_below("/v1/stream-configs") => Self::StreamConfigs,
            _ => Self::Other,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::TestEvents => "test_events",
            Self::StreamConfigs => "stream_configs",
            Self::Stream => "stream",
            Self::Health => "health",
            Self::Other => "other",
        }
    }
}

pub(super) async fn watched(request: ServiceRequest, next: Next<BoxBody>) -> Result<ServiceResponse<BoxBody>, Error> {
    let (began, route) = (Instant::now(), Route::of(request.path()));
    let answer = panics::fenced(next.call(request)).await;
    let status = match &answer {
        Ok(answer) => answer.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    let class = match status.as_u16() {
        ..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500.. => "5xx",
    };
    metrics::histogram!(names::HTTP_REQUEST_SECONDS, "route" => route.as_str(), "status" => class)
        .record(began.elapsed());
    answer
}

#[cfg(test)]
mod tests {
    use actix_web::http::StatusCode;
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, init_service};
    use actix_web::{App, HttpRequest, HttpResponse, dev::Service, web};

    use super::*;

    #[test]
    fn a_route_is_one_of_six_whatever_was_sent() {
        for (path, route) in [
            ("/v1/events", Route::Events),
            ("//v1/events/", Route::Events),
            ("/v1/_test/events", Route::TestEvents),
            ("/v1/stream-configs", Route::StreamConfigs),
            ("/v1/stream-configs/a,b", Route::StreamConfigs),
            ("/v2/stream/a", Route::Stream),
            ("//v2/stream", Route::Stream),
            ("/v2/streams", Route::Other),
            ("/readyz", Route::Health),
            ("/", Route::Other),
            ("", Route::Other),
            ("/wp-admin/setup.php", Route::Other),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    async fn odd(request: HttpRequest) -> HttpResponse {
        assert!(!request.path().ends_with('3'), "injected");
        HttpResponse::Ok().finish()
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_that_requests_500_and_the_next_thousand_are_served() {
        let app = App::new().wrap(from_fn(watched)).route("/{number}", web::get().to(odd));
        let app = init_service(app).await;
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let _counting = metrics::set_default_local_recorder(&recorder);
        let mut statuses = Vec::new();
        for number in (0..=1_003).filter(|number| number % 10 != 3 || *number == 3) {
            let answer = app.call(TestRequest::get().uri(&format!("/{number}")).to_request()).await;
            statuses.push(match answer {
                Ok(answer) => answer.status(),
                Err(error) => error.error_response().status(),
            });
        }
        assert_eq!(statuses[3], StatusCode::INTERNAL_SERVER_ERROR);
        assert!(statuses.iter().enumerate().all(|(at, status)| at == 3 || *status == StatusCode::OK), "{statuses:?}");
        app.call(TestRequest::get().uri("/no/route").to_request()).await.expect("an answer");
        let text = recorder.handle().render();
        for (class, count) in [("2xx", statuses.len() - 1), ("4xx", 1), ("5xx", 1)] {
            let counted = format!("_seconds_count{{route=\"other\",status=\"{class}\"}} {count}\n");
            assert!(text.contains(&counted), "{counted}{text}");
        }
    }
}
