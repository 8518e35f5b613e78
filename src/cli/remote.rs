//! What the commands share that talk to a server: how they begin, its address, the client, and when to try again.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{ClientBuilder, Url};
use tokio::runtime::{Builder, Runtime};

use super::{EXIT_FAILURE, EXIT_USAGE, complain};
use crate::fetch;

pub(super) const TOKEN_BYTES_MAX: usize = 8 << 10;
/// A server that asks for a longer wait is asked again after this one.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub(super) enum AddressError {
    #[error("{0}: it is no http:// or https:// address, such as http://127.0.0.1:8888")]
    Wrong(String),
    #[error("it holds a password, which others can see")]
    Password,
}

/// Goes on with the client, if there is one: that there is none is the caller's fault.
pub(super) fn run<C>(client: Result<C, impl Display>, command: impl FnOnce(C, Runtime) -> ExitCode) -> ExitCode {
    let client = match client {
        Ok(client) => client,
        Err(fault) => {
            complain(&fault);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => command(client, runtime),
        Err(e) => {
            complain(&format!("the client cannot run: {e}"));
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

/// The address of a server, or of something on it.
pub(super) fn address(text: &str) -> Result<Url, AddressError> {
    let wrong = || AddressError::Wrong(text.to_owned());
    let mut url = Url::parse(text).map_err(|_| wrong())?;
    if url.password().is_some() || !url.username().is_empty() {
        return Err(AddressError::Password);
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong());
    }
    url.set_fragment(None);
    Ok(url)
}

/// A client for this server.
pub(super) fn client_builder(url: &Url) -> ClientBuilder {
    let http = fetch::client_builder();
    match url.host_str() {
        // No proxy reaches this machine's own addresses.
        Some("127.0.0.1" | "[::1]" | "localhost") => http.no_proxy(),
        _ => http,
    }
}

/// What the header says of this token. `None`: it is none.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    let legal = (1..=TOKEN_BYTES_MAX).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok().filter(|_| legal)?;
    value.set_sensitive(true);
    Some(value)
}

/// In seconds; a date is left to the back-off.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// How long to wait before something is tried again.
#[derive(Debug, Clone, Copy)]
pub(super) struct BackOff {
    pub(super) first: Duration,
    pub(super) most: Duration,
}

impl BackOff {
    /// Twice as long each time, and up to half of it left out, so that clients that failed together do not come back
    /// together. Never sooner than the server says.
    pub(super) fn wait(&self, retry: u32, asked: Option<Duration>) -> Duration {
        let full = self.first.saturating_mul(2_u32.saturating_pow(retry)).min(self.most);
        full.mul_f64(1.0 - fastrand::f64() / 2.0).max(asked.unwrap_or_default().min(RETRY_AFTER_MOST))
    }
}
