//! Who reads, and their end.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::access::Operator;
use super::ask::{self, ROWS_MOST};
use super::note::What;
use super::refusal::Refusal;
use super::table::{self, Table, bytes, span};
use super::traffic::name;
use crate::http::Services;
use crate::http::info::json_of;
use crate::hub::Reader;
use crate::limits::Account;
use crate::model::{ClientKey, StreamName, Timestamp};

/// Names that are listed of what somebody reads. The others are counted.
const STREAMS_SHOWN: usize = 20;

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    top: usize,
    by: By,
    key: Option<String>,
    limit: usize,
}

impl Default for Asked {
    fn default() -> Self {
        Self { top: 20, by: By::Count, key: None, limit: 1000 }
    }
}

/// What the first of a list have most of.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    Count,
    Bytes,
    Refusals,
}

#[derive(Serialize)]
struct Listing {
    streams: Streams,
    keys: Vec<Key>,
    clients: Vec<Client>,
    /// Readers that were found, and are not listed.
    truncated: bool,
}

#[derive(Serialize)]
struct Streams {
    in_use: usize,
    limit: usize,
    held: usize,
}

#[derive(Serialize)]
struct Key {
    key: String,
    count: usize,
    oldest_seconds: i64,
    #[serde(flatten)]
    streams: Names,
    sent_bytes: u64,
    /// Of the one that is furthest behind.
    lag_events: u64,
    /// The one that most of them send.
    user_agent: Option<String>,
    refused: u64,
    would_be_refused: u64,
}

#[derive(Serialize)]
struct Client {
    id: u64,
    key: String,
    address: String,
    since: String,
    age_seconds: i64,
    #[serde(flatten)]
    streams: Names,
    sent_bytes: u64,
    lag_events: u64,
    user_agent: Option<Box<str>>,
}

#[derive(Serialize)]
struct Names {
    streams: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    streams_left_out: usize,
}

/// A client: its readers, the oldest first, and what it was refused.
#[derive(Default)]
struct Group<'a> {
    readers: Vec<&'a Reader>,
    refused: u64,
    would_be_refused: u64,
}

pub(super) async fn list(
    request: HttpRequest,
    _: Operator,
    services: web::Data<Services>,
) -> Result<HttpResponse, Refusal> {
    let asked: Asked = ask::query(&request)?;
    if asked.top > ROWS_MOST || asked.limit > ROWS_MOST {
        return Err(Refusal::Query(format!("top and limit are {ROWS_MOST} at most")));
    }
    let readers = services.hub.registry().readers();
    let streams = Streams {
        in_use: services.limits.streams_in_use(),
        limit: services.limits.streams_total(),
        held: services.patience.held(),
    };
    let readers = readers.iter().map(AsRef::as_ref);
    let listing = listing(readers, &services.limits.ledger().accounts(), &asked, streams);
    Ok(table::answer(&request, &listing, Listing::text))
}

fn listing<'a>(
    readers: impl Iterator<Item = &'a Reader>,
    accounts: &'a [Account],
    asked: &Asked,
    streams: Streams,
) -> Listing {
    let now = Timestamp::now();
    let mut groups = groups(readers, accounts);
    if let Some(wanted) = &asked.key {
        groups.retain(|key, _| name(*key) == *wanted);
    }
    let mut groups: Vec<(String, Group<'_>)> = groups.into_iter().map(|(key, group)| (name(key), group)).collect();
    let measure = |group: &Group<'_>| match asked.by {
        By::Count => group.readers.len() as u64,
        By::Bytes => group.sent_bytes(),
        By::Refusals => group.refused + group.would_be_refused,
    };
    groups.sort_by_cached_key(|(key, group)| (Reverse(measure(group)), Reverse(group.readers.len()), key.clone()));
    let open: usize = groups.iter().map(|(_, group)| group.readers.len()).sum();
    let all = groups.iter().flat_map(|(key, group)| group.readers.iter().map(move |reader| (key, *reader)));
    let clients: Vec<Client> = all.take(asked.limit).map(|(key, reader)| Client::new(key, reader, now)).collect();
    let keys = groups.iter().take(asked.top).map(|(key, group)| Key::new(key, group, now)).collect();
    Listing { streams, keys, truncated: clients.len() < open, clients }
}

/// Those who read, and those who were refused. `None`: whom the ledger could not tell apart.
fn groups<'a>(
    readers: impl Iterator<Item = &'a Reader>,
    accounts: &'a [Account],
) -> HashMap<Option<&'a ClientKey>, Group<'a>> {
    let mut groups: HashMap<_, Group<'_>> = HashMap::new();
    for reader in readers {
        groups.entry(Some(&reader.asker.key)).or_default().readers.push(reader);
    }
    for account in accounts {
        let (refused, would_be_refused) = (account.total.refused, account.total.would_be_refused);
        if refused + would_be_refused > 0 {
            let group = groups.entry(account.client.as_ref()).or_default();
            (group.refused, group.would_be_refused) = (refused, would_be_refused);
        }
    }
    groups.values_mut().for_each(|group| group.readers.sort_by_key(|reader| (reader.since, reader.id)));
    groups
}

impl Group<'_> {
    fn sent_bytes(&self) -> u64 {
        self.readers.iter().map(|reader| reader.sent_bytes()).sum()
    }

    fn user_agent(&self) -> Option<String> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for agent in self.readers.iter().filter_map(|reader| reader.user_agent.as_deref()) {
            *counts.entry(agent).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(agent, count)| (*count, Reverse(*agent))).map(|(agent, _)| agent.to_owned())
    }
}

impl Key {
    fn new(key: &str, group: &Group<'_>, now: Timestamp) -> Self {
        let names: BTreeSet<&StreamName> = group.readers.iter().flat_map(|reader| reader.set.streams()).collect();
        Self {
            key: key.to_owned(),
            count: group.readers.len(),
            oldest_seconds: group.readers.first().map_or(0, |reader| age_seconds(reader, now)),
            streams: Names::of(names.into_iter()),
            sent_bytes: group.sent_bytes(),
            lag_events: group.readers.iter().map(|reader| reader.lag_events()).max().unwrap_or_default(),
            user_agent: group.user_agent(),
            refused: group.refused,
            would_be_refused: group.would_be_refused,
        }
    }
}

impl Client {
    fn new(key: &str, reader: &Reader, now: Timestamp) -> Self {
        Self {
            id: reader.id,
            key: key.to_owned(),
            address: reader.asker.address.to_string(),
            since: reader.since.to_string(),
            age_seconds: age_seconds(reader, now),
            streams: Names::of(reader.set.streams().iter()),
            sent_bytes: reader.sent_bytes(),
            lag_events: reader.lag_events(),
            user_agent: reader.user_agent.clone(),
        }
    }
}

impl Names {
    fn of<'a>(mut names: impl Iterator<Item = &'a StreamName>) -> Self {
        let streams: Vec<String> = names.by_ref().take(STREAMS_SHOWN).map(ToString::to_string).collect();
        Self { streams_left_out: names.count(), streams }
    }

    fn text(&self) -> String {
        let mut names = self.streams.clone();
        if self.streams_left_out > 0 {
            names.push(format!("{} more", self.streams_left_out));
        }
        names.join(",")
    }
}

fn age_seconds(reader: &Reader, now: Timestamp) -> i64 {
    (now.0 - reader.since.0).max(0) / 1000
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Listing {
    fn text(&self) -> String {
        let Streams { in_use, limit, held } = self.streams;
        let mut keys = Table::new(&[
            "CLIENT",
            ">STREAMS",
            ">OLDEST",
            ">SENT",
            ">LAG",
            ">REFUSED",
            ">WOULD BE",
            "READS",
            "USER AGENT",
        ]);
        for key in &self.keys {
            keys.row([
                key.key.clone(),
                key.count.to_string(),
                span(key.oldest_seconds),
                bytes(key.sent_bytes),
                key.lag_events.to_string(),
                key.refused.to_string(),
                key.would_be_refused.to_string(),
                key.streams.text(),
                key.user_agent.clone().unwrap_or_default(),
            ]);
        }
        let mut clients = Table::new(&[">ID", "CLIENT", "ADDRESS", ">AGE", ">SENT", ">LAG", "READS", "USER AGENT"]);
        for client in &self.clients {
            clients.row([
                client.id.to_string(),
                client.key.clone(),
                client.address.clone(),
                span(client.age_seconds),
                bytes(client.sent_bytes),
                client.lag_events.to_string(),
                client.streams.text(),
                client.user_agent.as_deref().unwrap_or_default().to_owned(),
            ]);
        }
        let more = if self.truncated { "(there are more: ask with limit=…, or for one with key=…)\n" } else { "" };
        format!("{in_use} of {limit} streams are open, {held} refusals are held\n\n{keys}\n{clients}{more}")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OfKey {
    key: Option<String>,
}

/// All of one client. Without saying whose it would be everybody's.
pub(super) async fn end_of_key(
    request: HttpRequest,
    operator: Operator,
    services: web::Data<Services>,
) -> Result<HttpResponse, Refusal> {
    let key = ask::query::<OfKey>(&request)?.key.filter(|key| !key.is_empty());
    let key = key.ok_or_else(|| Refusal::Query("name the client whose streams are to end: ?key=…".into()))?;
    let ended = services.hub.registry().end(&|reader| reader.asker.key.to_string() == key);
    if ended > 0 {
        operator.did(What::Ended, &format!("{ended} of {key}"));
    }
    Ok(json_of(&json!({ "ended": ended })))
}

pub(super) async fn end_one(
    path: web::Path<String>,
    operator: Operator,
    services: web::Data<Services>,
) -> Result<HttpResponse, Refusal> {
    let id = path.into_inner();
    let ended = match id.parse::<u64>() {
        Ok(id) => services.hub.registry().end(&|reader| reader.id == id),
        Err(_) => 0,
    };
    if ended == 0 {
        return Err(Refusal::NoSuchClient(id));
    }
    operator.did(What::Ended, &format!("reader {id}"));
    Ok(json_of(&json!({ "ended": ended })))
}
