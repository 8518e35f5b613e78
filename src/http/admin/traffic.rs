//! Who did what in the last minutes.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::access::Operator;
use super::ask::{self, ROWS_MOST};
use super::refusal::Refusal;
use super::table::{self, Table, bytes};
use crate::http::Services;
use crate::hub::Reader;
use crate::limits::{Account, MINUTES};
use crate::model::{ClientKey, StreamName};

const STREAMS_SHOWN: usize = 20;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    top: usize,
}

impl Default for Asked {
    fn default() -> Self {
        Self { top: 100 }
    }
}

#[derive(Serialize)]
struct Traffic {
    minutes: usize,
    posting: Vec<Posting>,
    reading: Vec<Reading>,
}

#[derive(Serialize)]
struct Posting {
    key: String,
    posts: u64,
    events: u64,
    bytes: u64,
    /// The minute of it.
    last_seen: String,
}

#[derive(Serialize)]
struct Reading {
    key: String,
    streams: Vec<String>,
    /// Open now.
    count: usize,
    /// In these minutes.
    opened: u64,
    /// To those that are open.
    sent_bytes: u64,
}

pub(super) async fn get(
    request: HttpRequest,
    _: Operator,
    services: web::Data<Services>,
) -> Result<HttpResponse, Refusal> {
    let Asked { top } = ask::query(&request)?;
    if top > ROWS_MOST {
        return Err(Refusal::Query(format!("top is {ROWS_MOST} at most")));
    }
    let accounts = services.limits.ledger().accounts();
    let readers = services.hub.registry().readers();
    let posting = posting(&accounts, top);
    let reading = reading(readers.iter().map(AsRef::as_ref), &accounts, top);
    let traffic = Traffic { minutes: MINUTES, posting, reading };
    Ok(table::answer(&request, &traffic, Traffic::text))
}

fn posting(accounts: &[Account], top: usize) -> Vec<Posting> {
    let mut accounts: Vec<&Account> = accounts.iter().filter(|account| account.total.posts > 0).collect();
    accounts.sort_by_key(|account| Reverse((account.total.events, account.total.posts, account.total.bytes)));
    let shown = |account: &&Account| Posting {
        key: name(account.client.as_ref()),
        posts: account.total.posts,
        events: account.total.events,
        bytes: account.total.bytes,
        last_seen: account.last_seen.to_string(),
    };
    accounts.iter().take(top).map(shown).collect()
}

#[derive(Default)]
struct Open<'a> {
    streams: BTreeSet<&'a StreamName>,
    count: usize,
    opened: u64,
    sent_bytes: u64,
}

fn reading<'a>(readers: impl Iterator<Item = &'a Reader>, accounts: &'a [Account], top: usize) -> Vec<Reading> {
    let mut all: HashMap<Option<&ClientKey>, Open<'_>> = HashMap::new();
    for reader in readers {
        let open = all.entry(Some(&reader.asker.key)).or_default();
        open.streams.extend(reader.set.streams());
        open.count += 1;
        open.sent_bytes += reader.sent_bytes();
    }
    for account in accounts.iter().filter(|account| account.total.opened > 0) {
        all.entry(account.client.as_ref()).or_default().opened = account.total.opened;
    }
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|(_, open)| Reverse((open.count, open.opened, open.sent_bytes)));
    let shown = |(key, open): (Option<&ClientKey>, Open<'_>)| Reading {
        key: name(key),
        streams: open.streams.into_iter().take(STREAMS_SHOWN).map(ToString::to_string).collect(),
        count: open.count,
        opened: open.opened,
        sent_bytes: open.sent_bytes,
    };
    all.into_iter().take(top).map(shown).collect()
}

/// Those that the ledger had no place for are one.
pub(super) fn name(key: Option<&ClientKey>) -> String {
    key.map_or("others".to_owned(), ToString::to_string)
}

impl Traffic {
    fn text(&self) -> String {
        let mut posting = Table::new(&["POSTS", ">REQUESTS", ">EVENTS", ">BYTES", "LAST SEEN"]);
        for of in &self.posting {
            posting.row([
                of.key.clone(),
                of.posts.to_string(),
                of.events.to_string(),
                bytes(of.bytes),
                of.last_seen.clone(),
            ]);
        }
        let mut reading = Table::new(&["READS", ">OPEN", ">OPENED", ">SENT", "STREAMS"]);
        for of in &self.reading {
            reading.row([
                of.key.clone(),
                of.count.to_string(),
                of.opened.to_string(),
                bytes(of.sent_bytes),
                of.streams.join(","),
            ]);
        }
        format!("the last {} minutes\n\n{posting}\n{reading}", self.minutes)
    }
}
