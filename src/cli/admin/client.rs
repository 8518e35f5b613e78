//! One request to the operators' listener, and what can go wrong with it.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, StatusCode, Url};
use serde_json::Value;

use crate::cli::{EXIT_FAILURE, EXIT_USAGE, remote};
use crate::fetch::{self, body_at_most, with_causes};
use crate::model::printable;

const CONNECT_AT_MOST: Duration = Duration::from_secs(5);
/// A whole answer, beyond the time that the request itself asks for. A reload may wait for an address.
const ANSWER_AT_MOST: Duration = Duration::from_secs(60);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Who acts, for the server's log.
const OPERATOR: &str = "sluice-operator";
const OPERATOR_CHARS_MAX: usize = 100;

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) method: Method,
    /// Parts of the path, as they are meant.
    pub(super) path: Vec<String>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
    lasts: Duration,
}

/// Why there is no answer, or none that was wanted. Each names its cure.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(
        "nothing answers at {at}: {cause}; is the server there? It says at its start where its operators' listener is: name \
         that with --url, or its admin.socket with --socket"
    )]
    Unreachable { at: String, cause: String },
    #[error("the answer of {at} did not come whole: {cause}; try again")]
    Cut { at: String, cause: String },
    #[error("the answer of {0} is larger than 64 MiB: ask for less (--top, --key)")]
    TooLarge(String),
    #[error("{at} wants a token: give its admin.token with --token or the variable SLUICE_ADMIN_TOKEN ({detail})")]
    Token { at: String, detail: String },
    #[error("{at} refuses ({status}): {detail}")]
    Refused { at: String, status: StatusCode, detail: String },
    #[error("{0}: it cannot be written: {1}; name another place, or make room")]
    Output(String, io::Error),
}

impl Failure {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Token { .. } => EXIT_USAGE,
            // Somebody else is at it: nothing is wrong with what was asked for.
            Self::Refused { status: StatusCode::CONFLICT, .. } => EXIT_FAILURE,
            Self::Refused { status, .. } if status.is_client_error() => EXIT_USAGE,
            _ => EXIT_FAILURE,
        }
    }
}

impl Request {
    pub(super) fn new(method: Method, path: &[&str]) -> Self {
        let path = path.iter().map(|part| (*part).to_owned()).collect();
        Self { method, path, query: Vec::new(), body: None, lasts: Duration::ZERO }
    }

    pub(super) fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn asking(mut self, name: &'static str, value: String) -> Self {
        self.query.push((name, value));
        self
    }

    pub(super) fn with(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// The server takes so long for what is asked.
    pub(super) fn lasting(mut self, time: Duration) -> Self {
        self.lasts = time;
        self
    }
}

/// Asks one server.
pub(super) struct Operator {
    http: Client,
    url: Url,
    /// For people.
    at: String,
}

impl Operator {
    pub(super) fn new(url: Url, socket: Option<&Path>, token: Option<HeaderValue>) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Ok(who) = HeaderValue::from_str(&who()) {
            headers.insert(OPERATOR, who);
        }
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, token);
        }
        let http = match socket {
            Some(path) => fetch::client_builder().unix_socket(path).no_proxy(),
            None => remote::client_builder(&url),
        };
        // A request that is sent elsewhere would take its token there.
        let http = http.default_headers(headers).redirect(Policy::none()).connect_timeout(CONNECT_AT_MOST);
        let http = http.build().map_err(with_causes)?;
        Ok(match socket {
            Some(path) => {
                let url = Url::parse("http://localhost/").map_err(|e| e.to_string())?;
                Self { http, url, at: path.display().to_string() }
            }
            None => Self { http, at: url.as_str().trim_end_matches('/').to_owned(), url },
        })
    }

    /// The body of a good answer.
    pub(super) async fn ask(&self, request: &Request) -> Result<Bytes, Failure> {
        let asked = self.http.request(request.method.clone(), self.address(request));
        let mut asked = asked.timeout(ANSWER_AT_MOST + request.lasts);
        if let Some(body) = &request.body {
            asked = asked.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let mut answer = asked.send().await.map_err(|e| self.failed(e))?;
        let status = answer.status();
        let body = body_at_most(&mut answer, ANSWER_BYTES_MAX).await.map_err(|e| self.failed(e))?;
        let body = body.ok_or_else(|| Failure::TooLarge(self.at.clone()))?;
        if status.is_success() { Ok(body) } else { Err(self.refused(status, &body)) }
    }

    fn address(&self, request: &Request) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(&request.path);
        }
        if !request.query.is_empty() {
            url.query_pairs_mut().clear().extend_pairs(&request.query);
        }
        url
    }

    fn failed(&self, error: reqwest::Error) -> Failure {
        let (at, reached) = (self.at.clone(), !error.is_connect());
        let cause = printable(&with_causes(error));
        if reached { Failure::Cut { at, cause } } else { Failure::Unreachable { at, cause } }
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Failure {
        let (at, detail) = (self.at.clone(), detail(body));
        match status {
            StatusCode::UNAUTHORIZED => Failure::Token { at, detail },
            _ => Failure::Refused { at, status, detail },
        }
    }
}

/// What a problem says of itself, all faults included; of anything else only what it must be.
fn detail(body: &[u8]) -> String {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(detail) = problem["detail"].as_str() else {
        return "it says no more; is this the operators' listener of sluice?".to_owned();
    };
    let errors = problem["errors"].as_array().into_iter().flatten();
    let errors = errors.map(|error| error.as_str().map_or_else(|| error.to_string(), str::to_owned));
    let lines = std::iter::once(detail.to_owned()).chain(errors).map(|line| printable(&line));
    lines.collect::<Vec<_>>().join("\n  ")
}

/// `user@host`, as far as it can stand in a header.
fn who() -> String {
    let user =
        ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let user = user.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let who = format!("{user}@{host}");
    who.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(OPERATOR_CHARS_MAX).collect()
}
