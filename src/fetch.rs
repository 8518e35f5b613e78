//! One bounded GET: what the catalogue and the schemas fetch over HTTP; and [`client_builder`], how every HTTP client of
//! this program begins.
//!
//! Knows nothing of what it fetches. Retries, caches and what a failure means are its callers'.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::StatusCode;

pub use reqwest::Url;

/// A whole fetch, redirects included.
const FETCH_AT_MOST: Duration = Duration::from_secs(5);
const CONNECT_AT_MOST: Duration = Duration::from_secs(2);
const REDIRECTS_MAX: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The server says that there is no such thing (404, 410).
    #[error("it is not there ({0})")]
    Absent(u16),
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
    /// No answer, or one that says nothing about what was asked for.
    #[error("it cannot be fetched: {0}")]
    Unavailable(String),
}

/// How the text begins that tells of an answer.
const ANSWERED: &str = "the answer is ";

impl FetchError {
    /// Whether the server is there and refuses just what was asked for (4xx). Says nothing against the server itself,
    /// unless it asks to be left alone (429).
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Unavailable(why) => {
                why.strip_prefix(ANSWERED).is_some_and(|s| s.starts_with('4') && !s.starts_with("429"))
            }
            Self::Absent(_) => true,
            Self::TooLarge(_) => false,
        }
    }
}

/// Fetches over http and https. Cheap to clone. Call it on the engine: its connections live on the caller's runtime.
#[derive(Debug, Clone)]
pub struct Fetcher(reqwest::Client);

impl Fetcher {
    pub fn new() -> Result<Self, FetchError> {
        let client = client_builder()
            .timeout(FETCH_AT_MOST)
            .connect_timeout(CONNECT_AT_MOST)
            .redirect(reqwest::redirect::Policy::limited(REDIRECTS_MAX))
            .build();
        client.map(Self).map_err(|e| FetchError::Unavailable(with_causes(e)))
    }

    /// The body of a 200 answer.
    pub async fn get(&self, url: &str, bytes_max: usize) -> Result<Bytes, FetchError> {
        let unavailable = |error: reqwest::Error| FetchError::Unavailable(with_causes(error));
        let mut answer = self.0.get(url).send().await.map_err(unavailable)?;
        match answer.status() {
            StatusCode::OK => {}
            absent @ (StatusCode::NOT_FOUND | StatusCode::GONE) => return Err(FetchError::Absent(absent.as_u16())),
            other => return Err(FetchError::Unavailable(format!("{ANSWERED}{other}"))),
        }
        let body = body_at_most(&mut answer, bytes_max).await.map_err(unavailable)?;
        body.ok_or(FetchError::TooLarge(bytes_max))
    }
}

/// None where it is longer than that; then no more of it is read.
pub async fn body_at_most(answer: &mut reqwest::Response, bytes_max: usize) -> Result<Option<Bytes>, reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > bytes_max {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.freeze()))
}

/// Says who asks, and can speak TLS. Times and limits are up to who builds it.
pub fn client_builder() -> reqwest::ClientBuilder {
    // Refused if there is one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
}

/// The error and what is under it, without the address: that may hold what is nobody's business.
pub fn with_causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = String::new();
    let mut at: Option<&dyn std::error::Error> = Some(&error);
    while let Some(cause) = at {
        text = format!("{text}{}{cause}", if text.is_empty() { "" } else { ": " });
        at = cause.source();
    }
    text
}
