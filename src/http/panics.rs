//! A handler that panics answers 500, and only that request is lost.
//!
//! Without this the worker's runtime would swallow the panic together with the connection, and the client would see neither.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use actix_web::dev::ServiceResponse;
use actix_web::error::InternalError;
use actix_web::{Error, HttpRequest, HttpResponse};
use futures_util::FutureExt;
use serde_json::json;

use super::error::Refusal;

/// The answer of a handler, or 500. What panicked, and where, is counted and logged by the hook that `app` installs.
pub(super) async fn caught(request: &HttpRequest, answer: impl Future<Output = HttpResponse>) -> HttpResponse {
    // What a handler shares with others is behind locks that do not poison, or is not changed.
    let answered = AssertUnwindSafe(answer).catch_unwind().await;
    answered.unwrap_or_else(|_| Refusal::Internal("see the server's log".into()).answer(request))
}

/// The same around everything, where the request is no longer at hand.
pub(super) async fn fenced<B>(
    answer: impl Future<Output = Result<ServiceResponse<B>, Error>>,
) -> Result<ServiceResponse<B>, Error> {
    let answered = AssertUnwindSafe(answer).catch_unwind().await;
    answered.unwrap_or_else(|_| {
        let body = json!({ "status": 500, "title": "Internal Error", "detail": "see the server's log" });
        let mut answer = HttpResponse::InternalServerError();
        let answer = answer.content_type("application/problem+json").body(body.to_string());
        Err(InternalError::from_response("a handler has failed", answer).into())
    })
}

#[cfg(test)]
mod tests {
    use actix_web::http::StatusCode;
    use actix_web::test::{TestRequest, call_service, init_service};
    use actix_web::{App, web};

    use super::*;

    async fn odd(request: HttpRequest) -> HttpResponse {
        let answer = async {
            assert!(!request.path().ends_with('3'), "injected");
            HttpResponse::Created().finish()
        };
        caught(&request, answer).await
    }

    #[tokio::test]
    async fn a_panic_is_that_requests_500_and_the_next_thousand_are_served() {
        let app = init_service(App::new().route("/{number}", web::get().to(odd))).await;
        for number in 0..1_000 {
            let answer = call_service(&app, TestRequest::get().uri(&format!("/{number}")).to_request()).await;
            let panics = number % 10 == 3;
            let expected = if panics { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::CREATED };
            assert_eq!(answer.status(), expected, "{number}");
        }
    }
}
