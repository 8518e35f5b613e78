//! Asks an address for everything it has.

use std::time::Duration;

use serde_json::{Map, Value};

use super::answer::{self, Refused};
use super::request::Request;
use crate::fetch::{Fetcher, Url};

/// All answers of one refresh together.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// All requests of one refresh together. Each has its own, shorter time.
const ANSWER_AT_MOST: Duration = Duration::from_secs(60);
/// Parts that one request's answer may come in.
const PARTS_MAX: usize = 1_000;
/// Entries of a catalogue.
const ENTRIES_MAX: usize = 20_000;

/// An EventStreamConfig API, or an address that answers such a map.
#[derive(Debug)]
pub(super) struct Source {
    fetcher: Fetcher,
    requests: Vec<Request>,
    is_api: bool,
    address: Url,
    service: Option<String>,
}

impl Source {
    pub(super) fn new(fetcher: Fetcher, address: Url, service: Option<String>) -> Self {
        let (requests, is_api) = Request::all(&address, service.as_deref());
        Self { fetcher, requests, is_api, address, service }
    }

    /// For people: without what may be a secret, or a list of thousands.
    pub(super) fn shown(&self) -> String {
        let port = self.address.port().map(|port| format!(":{port}")).unwrap_or_default();
        let host = self.address.host_str().unwrap_or_default();
        format!("{}://{host}{port}{}", self.address.scheme(), self.address.path())
    }

    /// What tells this source's answers from another one's. Holds no password.
    pub(super) fn identity(&self) -> String {
        let mut address = self.address.clone();
        // Refused for addresses that cannot have one.
        let _ = address.set_password(None);
        match &self.service {
            Some(service) => format!("{address} for {service}"),
            None => address.to_string(),
        }
    }

    pub(super) fn service(&self) -> Option<&str> {
        self.service.as_deref()
    }

    /// All entries, or none. Call it on the engine.
    pub(super) async fn fetch(&self) -> Result<Map<String, Value>, Refused> {
        let all = tokio::time::timeout(ANSWER_AT_MOST, self.fetch_all());
        all.await.unwrap_or(Err(Refused::TooSlow(ANSWER_AT_MOST)))
    }

    async fn fetch_all(&self) -> Result<Map<String, Value>, Refused> {
        let mut entries = Map::new();
        let mut bytes_left = ANSWER_BYTES_MAX;
        for request in &self.requests {
            let mut next = Some(request.clone());
            for _ in 0..PARTS_MAX {
                let Some(part) = next else { break };
                let body = self.fetcher.get(part.url().as_str(), bytes_left).await?;
                bytes_left -= body.len();
                let page = answer::read(&body, self.is_api)?;
                entries.extend(page.entries);
                if entries.len() > ENTRIES_MAX {
                    return Err(Refused::TooMany(ENTRIES_MAX));
                }
                next = match page.more {
                    None => None,
                    Some(more) => Some(
                        request
                            .continued(&more)
                            .ok_or_else(|| Refused::NotJson("what continues it is no text".into()))?,
                    ),
                };
            }
            if next.is_some() {
                return Err(Refused::Endless(PARTS_MAX));
            }
        }
        Ok(entries)
    }
}
