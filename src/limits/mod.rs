//! Who may have how much, counted once for the whole host whatever the number of workers.
//!
//! - this page: [`Limits`], what the edge and the hub ask, and [`Exceeded`], the answer that is no
//! - `options` the section of the configuration, which can change at run time; `rules` the same, looked up for one client
//! - `concurrency` what is open at once, given back by drop
//! - `rate` what comes per time
//! - `turns` what waits instead of being refused: reads of the log
//! - `pace` bytes out per time, which slow down and refuse nobody
//! - `deny` the list of networks that get nothing, kept over restarts
//! - `ledger` who did what in the last minutes, in bounded memory
//!
//! Does not know headers, actix, nor what is being limited.

mod concurrency;
mod deny;
mod ledger;
mod options;
mod pace;
mod rate;
mod rules;
mod turns;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use self::pace::Pace;
use self::rate::Rates;
use self::rules::{Quota, Rules};
use crate::metrics as names;
use crate::model::ClientKey;

pub use self::concurrency::{Concurrency, Full, Place};
pub use self::deny::{Change, Denial, Deny, DenyError};
pub use self::ledger::{Account, Did, Ledger, MINUTES, Minute};
pub use self::options::{ClientIpHeader, Fault, Limit, Options, Override, Shadow};
pub use self::rate::Keyed;
pub use self::turns::{Turn, Turns};

/// Streams beside `streams_total` for who proves to be the probe: a full host can still say that it is full.
const RESERVED_STREAMS: usize = 4;

/// Descriptors that the process needs for itself.
const OWN_DESCRIPTORS: usize = 64;
/// Connections of one client that is denied: it is to be told so, and no more.
const DENIED_CONNECTIONS: u32 = 16;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// Seconds' worth of bytes that may come at once: bodies are large.
const BYTES_BURST: NonZeroU32 = NonZeroU32::new(10).expect("more than none");

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    pub address: IpAddr,
    pub key: ClientKey,
}

/// A limit that has been reached: which, what it is, what is in use, and when to come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    pub limit: Limit,
    /// What the limit is, in its own unit.
    pub most: u64,
    pub in_use: Option<u64>,
    /// Known of rates.
    pub retry_after: Option<Duration>,
    key: ClientKey,
}

/// The limits of the host. Cheap to clone.
#[derive(Clone)]
pub struct Limits(Arc<Shared>);

struct Shared {
    rules: ArcSwap<Rules>,
    changing: Mutex<()>,
    descriptors: Descriptors,
    streams: Concurrency,
    /// Those of the probe, which are nobody's else and count for nobody.
    reserved: Concurrency,
    connections: Concurrency,
    probes: Concurrency,
    /// Connections of those who are denied, which take nobody else's.
    denied: Concurrency,
    refused: Concurrency,
    probe_ports: [AtomicU16; RESERVED_STREAMS],
    new_streams: Rates,
    posts: Rates,
    post_bytes: Rates,
    turns: Turns,
    pace: Pace,
    deny: Deny,
    ledger: Ledger,
}

/// How the descriptors of the process are shared out, so that none of the shares can take another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// Streams, and what `streams_total` may be at most.
    pub streams: usize,
    /// Connections that are not streams: requests, and who has not asked yet.
    pub connections: usize,
    /// Answers that wait before they go out.
    pub held: usize,
    /// Connections that are too many, and wait for their end.
    pub refused: usize,
}

impl Descriptors {
    /// Of so many in all. The rest is for the log, files, the operators, and what is being closed. Who is held is one of the
    /// connections.
    pub fn of(all: u64) -> Self {
        let all = usize::try_from(all).unwrap_or(usize::MAX).min(16 << 20);
        let all = all.saturating_sub(OWN_DESCRIPTORS).max(all / 2);
        Self { streams: all / 2, connections: all / 4, held: (all / 8).min(16_384), refused: (all / 8).min(16_384) }
    }
}

impl Limits {
    /// Reads the deny list from `folder`.
    pub fn open(options: Options, descriptors: Descriptors, folder: &Path) -> Result<Self, DenyError> {
        Ok(Self::with(options, descriptors, Deny::open(folder)?))
    }

    fn with(options: Options, descriptors: Descriptors, deny: Deny) -> Self {
        let turns = Turns::new(options.catchup_reads, options.catchup_reads_per_client);
        let rules = Rules::new(options);
        Self(Arc::new(Shared {
            rules: ArcSwap::from_pointee(rules),
            changing: Mutex::default(),
            descriptors,
            streams: Concurrency::default(),
            reserved: Concurrency::default(),
            connections: Concurrency::default(),
            probes: Concurrency::default(),
            denied: Concurrency::default(),
            refused: Concurrency::default(),
            probe_ports: Default::default(),
            new_streams: Rates::new(MINUTE, NonZeroU32::MIN),
            posts: Rates::new(SECOND, NonZeroU32::MIN),
            post_bytes: Rates::new(SECOND, BYTES_BURST),
            turns,
            pace: Pace::default(),
            deny,
            ledger: Ledger::default(),
        }))
    }

    /// For tests and tools that need none.
    pub fn none() -> Self {
        Self::with(Options::unlimited(), Descriptors::of(1 << 20), Deny::forgetful())
    }

    pub fn options(&self) -> Arc<Options> {
        self.0.rules.load().options.clone()
    }

    /// All of them at once, or none. What is open stays open.
    pub fn set(&self, options: Options) -> Result<(), Vec<String>> {
        self.change(|_| Ok(options))
    }

    /// From what they are to what they are to be, one change after the other.
    pub fn change(&self, to: impl FnOnce(&Options) -> Result<Options, Vec<String>>) -> Result<(), Vec<String>> {
        let _one_at_a_time = self.0.changing.lock();
        let options = to(&self.options())?;
        let faults = options.faults(Some(self.0.descriptors));
        if !faults.is_empty() {
            return Err(named(faults));
        }
        self.0.turns.set(options.catchup_reads, options.catchup_reads_per_client);
        self.0.rules.store(Arc::new(Rules::new(options)));
        Ok(())
    }

    pub fn descriptors(&self) -> Descriptors {
        self.0.descriptors
    }

    /// Never more than the descriptors are for: 0 is no limit of its own.
    pub fn streams_total(&self) -> usize {
        self.options().streams_total.filter(|total| *total > 0).unwrap_or(self.0.descriptors.streams)
    }

    pub fn streams_in_use(&self) -> usize {
        self.0.streams.in_use()
    }

    pub fn deny(&self) -> &Deny {
        &self.0.deny
    }

    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// Reads of the log for readers behind.
    pub fn turns(&self) -> &Turns {
        &self.0.turns
    }

    /// Counted by its network, or by its token where it has shown one that is known.
    pub fn asker(&self, address: IpAddr, token: Option<&Arc<str>>) -> Asker {
        let options = &self.0.rules.load().options;
        let address = address.to_canonical();
        let by_network = || ClientKey::of(address, options.ipv4_prefix, options.ipv6_prefix);
        Asker { address, key: token.map_or_else(by_network, ClientKey::token) }
    }

    /// Sluice itself, once it has shown that it is: a client of whom nothing is counted.
    pub fn own(&self, address: IpAddr) -> Asker {
        Asker { address: address.to_canonical(), key: ClientKey::own() }
    }

    /// Whether forwarding headers of this peer are believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.0.rules.load().trusts(peer)
    }

    /// Why this client gets nothing at all, if it does; counted.
    pub fn denied(&self, asker: &Asker) -> Option<Denial> {
        if asker.key.is_own() {
            return None;
        }
        let denial = self.0.deny.denies(asker.address)?;
        self.count(Limit::Denied, &asker.key, false);
        Some(denial)
    }

    /// Whether its connections are to cost little: it is denied, and is no proxy that carries others.
    pub fn is_held_back(&self, peer: IpAddr) -> bool {
        self.0.deny.denies(peer.to_canonical()).is_some() && !self.trusts(peer)
    }

    /// A connection that is no stream yet. Proxies that are trusted carry many clients, and are not counted as one; nobody else
    /// has more than half of what the host can have.
    pub fn connect(&self, peer: IpAddr) -> Result<Place, Exceeded> {
        let asker = self.asker(peer, None);
        let rules = self.0.rules.load();
        let all = self.0.descriptors.connections;
        let half = u32::try_from(all / 2).unwrap_or(u32::MAX).max(1);
        if self.is_held_back(peer) {
            let all = (Limit::Denied, all.div_ceil(16));
            return self.take(&self.0.denied, &asker, Limit::ConnectionsPerClient, DENIED_CONNECTIONS, all);
        }
        let per_client = match rules.options.connections_per_client {
            _ if rules.trusts(peer) => 0,
            0 => half,
            most => most.min(half),
        };
        self.take(&self.0.connections, &asker, Limit::ConnectionsPerClient, per_client, (Limit::ConnectionsTotal, all))
    }

    /// Where one connection too many may wait for its end. None: it is closed at once.
    pub fn turn_away(&self, client: IpAddr) -> Option<Place> {
        self.0.refused.enter(&self.asker(client, None).key, 0, self.0.descriptors.refused).ok()
    }

    /// The connection from this port of the host's own, which comes next, is the probe's. Past as many as there are places
    /// the one expected first is expected no more.
    pub fn expect_probe(&self, port: u16) {
        let ports = &self.0.probe_ports;
        let free =
            ports.iter().find(|free| free.compare_exchange(0, port, Ordering::AcqRel, Ordering::Acquire).is_ok());
        if free.is_none() {
            ports[usize::from(port) % ports.len()].store(port, Ordering::Release);
        }
    }

    /// That connection: counted for nobody, so that it comes in where there is room for nobody. Once for each that is
    /// expected. (Whoever has the same port by chance has gained a connection.)
    pub fn connect_probe(&self, peer: SocketAddr) -> Option<Place> {
        let is_it = |port: &AtomicU16| {
            port.load(Ordering::Acquire) == peer.port()
                && port.compare_exchange(peer.port(), 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
        };
        let is_expected = self.0.probe_ports.iter().any(is_it);
        let of_probes = || self.0.probes.enter(&self.asker(peer.ip(), None).key, 0, RESERVED_STREAMS).ok();
        if is_expected && peer.port() != 0 { of_probes() } else { None }
    }

    /// A stream. `reserved`: it has proved to be the probe.
    pub fn enter(&self, asker: &Asker, reserved: bool) -> Result<Place, Exceeded> {
        let quota = self.quota(asker);
        if reserved {
            let most = (Limit::StreamsTotal, RESERVED_STREAMS);
            return self.take(&self.0.reserved, asker, Limit::StreamsPerClient, 0, most);
        }
        let total = (Limit::StreamsTotal, self.streams_total());
        let place = self.take(&self.0.streams, asker, Limit::StreamsPerClient, quota.streams, total)?;
        // Last, so that who is refused for another reason spends nothing.
        self.spend(&self.0.new_streams, asker, Limit::NewStreams, quota.new_streams_per_minute, 0..1)?;
        Ok(place)
    }

    /// One request to post.
    pub fn post(&self, asker: &Asker) -> Result<(), Exceeded> {
        self.spend(&self.0.posts, asker, Limit::Posts, self.quota(asker).posts_per_second, 0..1)
    }

    /// Bytes of its body: from those that have been counted to as many as there are, as far as that is known.
    pub fn post_bytes(&self, asker: &Asker, bytes: Range<u64>) -> Result<(), Exceeded> {
        let quota = self.quota(asker).post_bytes_per_second;
        self.spend(&self.0.post_bytes, asker, Limit::PostBytes, quota, bytes)
    }

    /// How long a reader waits before it is sent more than these bytes.
    pub fn pace(&self, asker: &Asker, bytes: u64) -> Option<Duration> {
        let quota = self.quota(asker).bytes_out_per_second;
        let wait = self.0.pace.wait(&asker.key, quota, bytes)?;
        // Asked again after a wait it is the same time that the limit was reached.
        let shadowed = match bytes {
            0 => self.0.rules.load().options.shadow.covers(Limit::BytesOut),
            _ => self.allow(Limit::BytesOut, &asker.key),
        };
        (!shadowed).then_some(wait)
    }

    /// A reader is behind, and its socket has stood still for too long: whether it is ended.
    pub fn slow(&self, asker: &Asker) -> bool {
        asker.key.is_own() || !self.allow(Limit::Slow, &asker.key)
    }

    fn quota(&self, asker: &Asker) -> Quota {
        if asker.key.is_own() {
            return Quota::default();
        }
        self.0.rules.load().quota(asker)
    }

    fn take(
        &self,
        what: &Concurrency,
        asker: &Asker,
        limit: Limit,
        per_client: u32,
        (limit_of_all, total): (Limit, usize),
    ) -> Result<Place, Exceeded> {
        let refused = |limit, most: usize, in_use: usize| Exceeded {
            limit,
            most: most as u64,
            in_use: Some(in_use as u64),
            retry_after: None,
            key: asker.key.clone(),
        };
        let per_client = per_client as usize;
        let place = match what.enter(&asker.key, per_client, total) {
            // Not enforced: it gets in all the same, as long as the host has room.
            Err(Full::OfClient(in_use)) if !self.allow(limit, &asker.key) => {
                return Err(refused(limit, per_client, in_use));
            }
            Err(Full::OfClient(_)) => what.enter(&asker.key, 0, total),
            entered => entered,
        };
        place.map_err(|_| {
            self.count(limit_of_all, &asker.key, false);
            refused(limit_of_all, total, what.in_use())
        })
    }

    fn spend(&self, rates: &Rates, asker: &Asker, limit: Limit, quota: u32, cells: Range<u64>) -> Result<(), Exceeded> {
        let Some(quota) = NonZeroU32::new(quota) else { return Ok(()) };
        match rates.spend(&asker.key, quota, cells) {
            Err(retry_after) if !self.allow(limit, &asker.key) => Err(Exceeded {
                limit,
                most: quota.get().into(),
                in_use: None,
                retry_after: Some(retry_after),
                key: asker.key.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// A limit has been reached: whether that is only to be counted.
    fn allow(&self, limit: Limit, key: &ClientKey) -> bool {
        let shadowed = self.0.rules.load().options.shadow.covers(limit);
        self.count(limit, key, shadowed);
        shadowed
    }

    fn count(&self, limit: Limit, key: &ClientKey, shadowed: bool) {
        if key.is_own() {
            return;
        }
        let mode = if shadowed { "shadow" } else { "enforced" };
        metrics::counter!(names::LIMITED, "limit" => limit.as_str(), "mode" => mode).increment(1);
        self.0.ledger.note(key, if shadowed { Did::WouldBeRefused } else { Did::Refused });
    }
}

/// Faults of the section, each with its whole key.
pub fn named(faults: Vec<Fault>) -> Vec<String> {
    faults.into_iter().map(|(key, why)| format!("limits.{key}: {why}")).collect()
}

impl Exceeded {
    /// What to do about it.
    fn cure(&self) -> String {
        match self.limit {
            Limit::StreamsPerClient => {
                "close one, or ask for several streams in one request (/v2/stream/a,b)".to_owned()
            }
            Limit::NewStreams => "keep the ones that are open; reconnect with growing waits".to_owned(),
            Limit::Posts | Limit::PostBytes => "wait, and send more events in one request".to_owned(),
            _ => "come back later".to_owned(),
        }
    }
}

impl std::error::Error for Exceeded {}

impl std::fmt::Display for Exceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (key, most, in_use) = (&self.key, self.most, self.in_use.unwrap_or_default());
        match self.limit {
            Limit::StreamsPerClient => write!(f, "{key} has {in_use} streams open, and may have {most}"),
            Limit::StreamsTotal => write!(f, "all {most} streams of this server are in use"),
            Limit::NewStreams => write!(f, "{key} has opened {most} streams within a minute, and may not open more"),
            Limit::Posts => write!(f, "{key} has posted more than {most} requests in a second"),
            Limit::PostBytes => write!(f, "{key} has posted more than {most} bytes a second"),
            limit => write!(f, "{key} has reached {}, which is {most}", limit.as_str()),
        }?;
        write!(f, ": {}", self.cure())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const FEW: Descriptors = Descriptors { streams: 20, connections: 10, held: 5, refused: 2 };

    fn limits(toml: &str) -> Limits {
        let limits = Limits::none();
        limits.set(toml::from_str(toml).expect("options")).expect("limits");
        limits
    }

    fn asker(limits: &Limits, address: &str) -> Asker {
        limits.asker(address.parse().expect("an address"), None)
    }

    #[test]
    fn a_full_host_has_room_for_the_probe_and_for_nobody_else() {
        let limits = limits("streams_total = 2\nstreams_per_client = 1");
        let (one, two, three) = (asker(&limits, "192.0.2.1"), asker(&limits, "192.0.2.2"), asker(&limits, "192.0.2.3"));
        let _places = [limits.enter(&one, false).expect("a place"), limits.enter(&two, false).expect("a place")];
        let refused = limits.enter(&three, false).expect_err("full");
        assert_eq!((refused.limit, refused.most, refused.in_use), (Limit::StreamsTotal, 2, Some(2)));
        let probes: Vec<Place> = std::iter::from_fn(|| limits.enter(&one, true).ok()).take(100).collect();
        assert_eq!((probes.len(), limits.streams_in_use()), (RESERVED_STREAMS, 2), "and they are nobody's");
    }

    #[test]
    fn one_client_has_half_of_the_hosts_connections_at_most_and_the_probe_comes_in_where_nobody_does() {
        let limits = Limits::with(Options::default(), FEW, Deny::forgetful());
        let connect = |address: [u8; 4]| limits.connect(address.into()).ok();
        let of_one: Vec<Place> = std::iter::from_fn(|| connect([192, 0, 2, 1])).take(100).collect();
        assert_eq!(of_one.len(), 5);
        let of_others: Vec<Place> = (2..100).map_while(|host| connect([192, 0, 2, host])).collect();
        assert_eq!(of_others.len(), 5);
        let probe = SocketAddr::from(([127, 0, 0, 1], 4321));
        assert!(limits.connect_probe(probe).is_none(), "it is not expected");
        limits.expect_probe(4321);
        assert!(limits.connect_probe(SocketAddr::from(([127, 0, 0, 1], 4322))).is_none());
        let _place = limits.connect_probe(probe).expect("a place");
        assert!(limits.connect_probe(probe).is_none(), "once");
        assert!(limits.connect(probe.ip()).is_err());
    }

    #[test]
    fn sluice_itself_is_over_no_limit_and_in_no_account() {
        let limits = limits(
            "streams_total = 1\nnew_streams_per_minute = 1\nposts_per_second = 1\npost_bytes_per_second = 1\nbytes_out_per_second = 1",
        );
        limits.deny().add("127.0.0.0/8", "", None).expect("denied");
        let own = limits.own([127, 0, 0, 1].into());
        for _ in 0..100 {
            drop(limits.enter(&own, true).expect("a place"));
            assert!(limits.post(&own).is_ok() && limits.post_bytes(&own, 0..1_000).is_ok());
            assert!(limits.pace(&own, 1_000).is_none() && limits.denied(&own).is_none());
            limits.ledger().note(&own.key, Did::Opened);
        }
        assert!(limits.denied(&limits.asker(own.address, None)).is_some(), "others from there are");
        let accounts = limits.ledger().accounts();
        assert!(accounts.iter().all(|account| account.client.as_ref() != Some(&own.key)), "{accounts:?}");
    }

    #[test]
    fn several_probes_are_expected_at_once_and_as_many_as_there_are_places() {
        let limits = Limits::with(Options::default(), FEW, Deny::forgetful());
        let from = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        (1..=4).for_each(|port| limits.expect_probe(port));
        let _one = limits.connect_probe(from(3)).expect("a place");
        (5..=9).for_each(|port| limits.expect_probe(port));
        assert!(limits.connect_probe(from(9)).is_some(), "the newest is expected");
        assert!(limits.connect_probe(from(0)).is_none());
    }

    #[test]
    fn who_is_denied_takes_no_connection_from_anybody() {
        let limits = Limits::with(Options::default(), FEW, Deny::forgetful());
        for host in 1..=3 {
            limits.deny().add(&format!("192.0.2.{host}"), "", None).expect("denied");
        }
        let connect = |host: u8| limits.connect([192, 0, 2, host].into()).ok();
        let of_denied: Vec<Place> =
            (1..=3).flat_map(|host| std::iter::from_fn(move || connect(host)).take(100)).collect();
        assert_eq!(of_denied.len(), 1, "one can be told");
        let of_others: Vec<Place> = (4..100).map_while(connect).collect();
        assert_eq!(of_others.len(), FEW.connections);
    }

    #[test]
    fn so_many_wait_for_their_end_and_no_more() {
        let limits = Limits::with(Options::default(), FEW, Deny::forgetful());
        let waiting: Vec<Place> = std::iter::from_fn(|| limits.turn_away([192, 0, 2, 1].into())).take(100).collect();
        assert_eq!(waiting.len(), FEW.refused);
        drop(waiting);
        assert!(limits.turn_away([192, 0, 2, 1].into()).is_some());
    }

    #[test]
    fn sixty_four_addresses_of_one_network_are_one_client_and_mapped_ones_are_ipv4() {
        let limits = limits("streams_per_client = 5");
        let places: Vec<Place> = (0..64)
            .filter_map(|host| limits.enter(&asker(&limits, &format!("2001:db8:1:2::{host:x}")), false).ok())
            .collect();
        assert_eq!(places.len(), 5);
        let other = limits.enter(&asker(&limits, "2001:db8:1:3::1"), false);
        assert!(other.is_ok(), "another network");
        let v4: Vec<Place> = ["192.0.2.1", "::ffff:192.0.2.1"]
            .iter()
            .cycle()
            .take(10)
            .filter_map(|address| limits.enter(&asker(&limits, address), false).ok())
            .collect();
        assert_eq!(v4.len(), 5);
    }

    #[test]
    fn who_is_only_counted_is_served_and_the_host_is_protected_all_the_same() {
        let limits = limits("streams_per_client = 1\nnew_streams_per_minute = 1\nstreams_total = 3\nshadow = true");
        let one = asker(&limits, "192.0.2.1");
        let places: Vec<Place> = (0..10).filter_map(|_| limits.enter(&one, false).ok()).collect();
        assert_eq!(places.len(), 3);
        let account = limits.ledger().accounts().into_iter().find(|account| account.client.as_ref() == Some(&one.key));
        let total = account.expect("an account").total;
        // Two were over both limits, and the other seven met a full host.
        assert_eq!((total.would_be_refused, total.refused), (2 + 2 + 7, 7));
    }

    #[test]
    fn a_rate_says_when_to_come_back_and_a_refused_stream_costs_nothing_of_it() {
        let limits = limits("streams_per_client = 1\nnew_streams_per_minute = 2");
        let one = asker(&limits, "192.0.2.1");
        let place = limits.enter(&one, false).expect("a place");
        for _ in 0..10 {
            assert_eq!(limits.enter(&one, false).expect_err("one").limit, Limit::StreamsPerClient);
        }
        drop(place);
        drop(limits.enter(&one, false).expect("the second of the minute"));
        let refused = limits.enter(&one, false).expect_err("too many of a minute");
        assert_eq!((refused.limit, refused.most), (Limit::NewStreams, 2));
        assert!(refused.retry_after.is_some_and(|wait| wait > Duration::from_secs(20)));
        assert_eq!(limits.streams_in_use(), 0, "what was refused holds no place");
    }

    #[test]
    fn bytes_out_are_paced_and_in_shadow_only_counted() {
        for (shadow, waits) in [(false, true), (true, false)] {
            let limits = limits(&format!("bytes_out_per_second = 1000\nshadow = {shadow}"));
            let one = asker(&limits, "192.0.2.1");
            assert_eq!(limits.pace(&one, 1_000), None, "a second's worth");
            assert_eq!(limits.pace(&one, 1_000).is_some(), waits);
            let total = limits.ledger().accounts()[0].total;
            assert_eq!((total.refused, total.would_be_refused), (u64::from(waits), u64::from(!waits)));
        }
    }

    #[tokio::test]
    async fn turns_follow_the_limits() {
        let limits = limits("catchup_reads = 2\ncatchup_reads_per_client = 1");
        let (one, two) = (asker(&limits, "192.0.2.1").key, asker(&limits, "192.0.2.2").key);
        let _first = limits.turns().take(&one).await;
        assert!(limits.turns().take(&one).now_or_never().is_none());
        let _second = limits.turns().take(&two).await;
        limits.set(Options::unlimited()).expect("limits");
        assert!(limits.turns().take(&one).now_or_never().is_some());
    }

    #[test]
    fn proxies_that_are_trusted_carry_many_and_the_descriptors_are_shared_out() {
        let limits = limits("connections_per_client = 3\ntrusted_proxies = ['192.0.2.0/24']");
        let connections = |address: &str| {
            let address = address.parse().expect("an address");
            std::iter::from_fn(|| limits.connect(address).ok()).take(10).collect::<Vec<_>>().len()
        };
        assert_eq!((connections("192.0.2.1"), connections("198.51.100.1")), (10, 3));
        assert_eq!(Descriptors::of(1_024), Descriptors { streams: 480, connections: 240, held: 120, refused: 120 });
    }

    #[test]
    fn limits_change_while_streams_are_open_and_wrong_ones_change_nothing() {
        let limits = limits("streams_per_client = 2");
        let one = asker(&limits, "192.0.2.1");
        let _places = [limits.enter(&one, false).expect("a place"), limits.enter(&one, false).expect("a place")];
        limits.set(Options { streams_per_client: 1, ..Options::unlimited() }).expect("limits");
        assert_eq!(limits.enter(&one, false).expect_err("one").in_use, Some(2), "what is open stays open");
        let faults = limits.set(Options { streams_per_client: 9, ipv4_prefix: 33, ..Options::unlimited() });
        assert!(faults.expect_err("a fault")[0].starts_with("limits.ipv4_prefix: "));
        assert_eq!(limits.options().streams_per_client, 1);
    }
}
