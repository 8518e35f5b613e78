//! Wiring: start order, stop order, and the one place that names concrete engines.
//!
//! - this page: the start
//! - `sockets` where it listens; `https` what it shows there; `handover` from one process to the next
//! - `stop` what ends, in which order
//! - `reload` a new configuration without a restart
//! - `scrape` the metrics, and the thread that makes their text
//!
//! Two runtimes: the engine, where the tail, log reads and appends run; and actix's workers, one thread each, where
//! requests and readers live. Nothing that must outlive a request is spawned on a worker.

mod handover;
mod https;
mod reload;
mod scrape;
mod sockets;
mod stop;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_server::ServerHandle;
use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use crate::catalog::{self, Catalog, Live, canary_set};
use crate::config::{Config, Loaded};
use crate::fetch::{FetchError, Fetcher};
use crate::health::{self, Canary, Health, Secret, Sides};
use crate::http::{self, Logging, Operators, Patience, Posts, Services};
use crate::hub::{Hub, SubscribeError};
use crate::intake::auth::{Guard, KeyError};
use crate::intake::{self, Intake, spool};
use crate::limits::{self, DenyError, Descriptors, Limits};
use crate::log::Log;
use crate::log::kafka::{self, KafkaLog};
use crate::log::sqlite::{self, SqliteLog};
use crate::model::{StreamSet, Topic};
use crate::schema::Schemas;
use crate::shutdown::{Shutdown, Stop};
use crate::tls::TlsError;

use self::handover::{Ending, Offer, Offered, Predecessor};
use self::https::Https;
use self::reload::Reloader;
use self::sockets::{Bound, Sockets};

pub use self::https::identity_of;
pub use self::reload::Settings;
pub use self::stop::{Ended, Signals};

/// How long a successor reads the log before it serves: the one before it serves meanwhile.
const CATCHES_UP_WITHIN: Duration = Duration::from_secs(20);
/// How often is looked whether it has.
const CATCHES_UP_POLL: Duration = Duration::from_millis(20);

/// Why the server cannot start. Each names its cause and its cure.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Catalog(#[from] catalog::OpenError),
    #[error("{0}")]
    Schemas(String),
    #[error("fetching cannot be set up: {0}")]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Auth(#[from] KeyError),
    #[error("http.tls_cert, http.tls_key: {0}")]
    Tls(#[from] TlsError),
    #[error("TLS cannot be set up: {0}")]
    TlsSetup(#[from] rustls::Error),
    #[error(transparent)]
    Sqlite(#[from] sqlite::OpenError),
    #[error(transparent)]
    Kafka(#[from] kafka::OpenError),
    #[error(transparent)]
    Spool(#[from] spool::OpenError),
    #[error("cannot listen on {address}: {cause}; stop what holds it, or name another address with {flag}")]
    Listen { address: String, flag: &'static str, cause: io::Error },
    #[error(transparent)]
    Deny(#[from] DenyError),
    #[error("{}", .0.join("\n"))]
    Limits(Vec<String>),
    #[error(
        "the socket {index} that systemd passes cannot be used: {cause}; see ListenStream= and FileDescriptorName= in its unit"
    )]
    Passed { index: usize, cause: io::Error },
    #[error(
        "cannot take over from the server that offers at {}: {cause}; stop that one, or set stop.handover_socket otherwise",
        path.display()
    )]
    Handover { path: PathBuf, cause: io::Error },
    #[error("the catalogue has too many streams: {0}")]
    Streams(#[from] SubscribeError),
    #[error("the metrics cannot be set up: {0}")]
    Metrics(String),
    #[error("the server cannot run: {0}")]
    Io(#[from] io::Error),
}

impl StartError {
    /// Whether what was asked for is wrong, rather than what was found.
    pub fn is_config(&self) -> bool {
        let catalog_is_away = matches!(self, Self::Catalog(catalog::OpenError::Away { .. }));
        !catalog_is_away
            && matches!(
                self,
                Self::Catalog(_)
                    | Self::Schemas(_)
                    | Self::Kafka(_)
                    | Self::Streams(_)
                    | Self::Auth(_)
                    | Self::Limits(_)
                    | Self::Tls(_)
            )
    }
}

/// A server that serves.
pub struct Running {
    pub address: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    pub admin: Option<SocketAddr>,
    pub log: String,
    pub streams: usize,
    /// Whether anybody may post.
    pub takes_in: bool,
    pub intake: Arc<Intake>,
    hub: Hub,
    patience: Patience,
    posts: Posts,
    store: Arc<dyn Log>,
    shutdown: Shutdown,
    signals: Signals,
    public: ServerHandle,
    public_socket: Bound,
    operators: Option<http::Served>,
    /// The server before this one, where it may still run.
    before: Option<Ending>,
    /// What a successor may take over.
    offer: Option<Offer>,
    times: stop::Times,
}

/// Checks everything, and only then opens the ports. Call it within an actix system.
/// `settings` reads again what was `loaded`.
pub async fn start(
    loaded: Loaded,
    settings: Settings,
    logging: Logging,
    engine: &Handle,
) -> Result<Running, StartError> {
    // Before anything that takes time: until it is listened to, it ends the process.
    let hangups = signal(SignalKind::hangup())?;
    let loaded = Arc::new(loaded);
    let config = &loaded.config;
    let fetcher = Fetcher::new()?;
    let schemas = Schemas::new(&config.schema, fetcher.clone(), engine.clone()).map_err(StartError::Schemas)?;
    let limits = limits(config)?;
    let recorder = scrape::install()?;
    let https = Https::open(config)?;
    let times = stop::Times::of(&config.stop, https.is_spoken());
    let (mut sockets, before) = Sockets::find(config)?;
    let address = sockets.public.address();
    let guard = Guard::new(&config.intake, is_loopback(address))?;
    tell_who_may_post(&guard, &config.intake, address);
    let shutdown = Shutdown::default();
    let succeeds = before.is_some();
    let checked = Checked { address, fetcher: fetcher.clone(), schemas: Arc::new(schemas), limits, guard, succeeds };
    let (services, store) = services(config, checked, times.spread, engine, &shutdown).await?;
    let reloader = Reloader::new(settings, loaded.clone(), address, (fetcher, https.clone()), &services, store.clone());
    let signals = Signals::listen()?;
    engine.spawn(reloader.clone().on_hangup(hangups));
    let health = services.health.clone();
    let operators = Operators {
        services: services.clone(),
        render: scrape::start(recorder, move || health.gauges())?,
        logging,
        reload: reloader.on_request(),
        token: config.admin.token.as_ref().map(|token| token.0.clone()),
        stop: shutdown.watcher(),
    };
    if config.http.gives_out() && before.is_some() {
        until_caught_up(&services.hub).await;
    }
    let operators = http::serve_admin(sockets.doors()?, operators)?;
    let public = http::serve(&config.http, sockets.public.open()?, https.tls(), services.clone())?;
    send_canaries(config, (address, https.connector()?), &services, &store, &shutdown);
    let offered = offered(config, &sockets, operators.as_ref(), succeeds, engine)?;
    // From here on nothing may fail: the one before may have stopped.
    let before = before.and_then(Predecessor::go);
    let offer = offered.map(|offered| handover::offer(offered, shutdown.watcher(), engine));
    stop::tell_systemd(&[NotifyState::Ready]);
    Ok(Running {
        address,
        scheme: https.scheme(),
        admin: operators.as_ref().and_then(|served| served.address),
        log: store.describe(),
        streams: services.catalog.now().streams().count(),
        takes_in: config.http.takes_in() && !services.guard.is_closed(),
        intake: services.intake,
        hub: services.hub,
        patience: services.patience,
        posts: services.posts,
        store,
        shutdown,
        signals,
        public,
        public_socket: sockets.public,
        operators,
        before,
        offer,
        times,
    })
}

/// What has been found to be right before anything runs.
struct Checked {
    address: SocketAddr,
    fetcher: Fetcher,
    schemas: Arc<Schemas>,
    limits: Limits,
    guard: Guard,
    /// Whether another process may still write where this one will.
    succeeds: bool,
}

/// Both halves, and the log between them. After the metrics: they count what they do. After the ports, which fail sooner.
async fn services(
    config: &Config,
    checked: Checked,
    end_spread: Duration,
    engine: &Handle,
    shutdown: &Shutdown,
) -> Result<(Services, Arc<dyn Log>), StartError> {
    let Checked { address, fetcher, schemas, limits, guard, succeeds } = checked;
    let live = Live::open(&config.catalog, &config.data_dir, fetcher, engine).await?;
    let mut changes = live.changes();
    let catalog = changes.borrow_and_update().clone();
    let log = open_log(config, &catalog.topics(), address, succeeds, engine)?;
    // An instance that gives nothing out need not read.
    let gives_out = config.http.gives_out();
    let warm = if gives_out { streams_of(&catalog) } else { vec![] };
    let topics = warm.iter().flat_map(|set| set.topics_nameable().cloned()).collect::<BTreeSet<_>>();
    let topics = topics.into_iter().collect();
    let hub = Hub::start(config.hub.clone(), limits.clone(), log.clone(), topics, &warm, engine, shutdown.watcher())?;
    if gives_out {
        engine.spawn(follow_the_catalog(hub.clone(), changes));
    }
    let place = spool::Place {
        folder: config.data_dir.clone(),
        free_bytes_min: config.log.sqlite.free_bytes_min,
        // What the server before this one spools is its own until it is done.
        waits: succeeds,
    };
    let options = config.intake.clone();
    let intake = Intake::open(options, live.clone(), schemas.clone(), log.clone(), &place, engine.clone())?;
    let intake = Arc::new(intake);
    let sides = Sides {
        limits: limits.clone(),
        catalog: live.clone(),
        hub: hub.clone(),
        intake: intake.clone(),
        log: log.clone(),
        gives_out,
    };
    let health = Health::new(sides, config.health.clone());
    health.start(engine, &shutdown.watcher());
    let services = Services {
        hub,
        intake,
        catalog: live,
        schemas,
        engine: engine.clone(),
        guard,
        health,
        probe: Secret::new(),
        patience: Patience::new(shutdown.watcher(), limits.descriptors().held),
        limits,
        posts: Posts::default(),
        stop: shutdown.watcher(),
        end_spread,
    };
    Ok((services, log))
}

/// Tries whether events flow, over as much of the way as this instance serves.
fn send_canaries(
    config: &Config,
    (listener, tls): (SocketAddr, Option<TlsConnector>),
    services: &Services,
    log: &Arc<dyn Log>,
    shutdown: &Shutdown,
) {
    let parts = health::Parts {
        listener,
        tls,
        secret: services.probe.clone(),
        limits: services.limits.clone(),
        log: log.clone(),
        engine: services.engine.clone(),
        takes_in: config.http.takes_in(),
        gives_out: config.http.gives_out(),
    };
    let canary = Canary::new(parts, &config.health);
    services.engine.spawn(canary.run(services.health.clone(), shutdown.watcher()));
}

/// So that nobody who comes from the one before waits for it. A log that is away is not waited for without end.
async fn until_caught_up(hub: &Hub) {
    let caught_up = async {
        while !hub.caught_up() {
            tokio::time::sleep(CATCHES_UP_POLL).await;
        }
    };
    if tokio::time::timeout(CATCHES_UP_WITHIN, caught_up).await.is_err() {
        tracing::warn!("the log has not been read yet: this server takes over all the same");
    }
}

/// Where the configuration says so, and systemd does not hold the port anyway.
fn offered(
    config: &Config,
    sockets: &Sockets,
    operators: Option<&http::Served>,
    succeeds: bool,
    engine: &Handle,
) -> Result<Option<Offered>, StartError> {
    let Some(path) = &config.stop.handover_socket else { return Ok(None) };
    if sockets.are_of_systemd {
        tracing::warn!("stop.handover_socket is not used: systemd holds the port, and a restart refuses nobody");
        return Ok(None);
    }
    let socket = operators.and_then(|operators| operators.socket.as_ref());
    Offered::new(path, sockets.to_pass(socket)?, succeeds, engine).map(Some)
}

/// Each stream as the set of itself alone, and that of the canaries, which no catalogue has.
fn streams_of(catalog: &Catalog) -> Vec<StreamSet> {
    let of_catalog = catalog.streams().filter_map(|stream| catalog.resolve(std::slice::from_ref(&stream.name)).ok());
    of_catalog.chain([canary_set()]).collect()
}

/// Intake asks the catalogue for every event; readers stay on what they began with, and are told.
async fn follow_the_catalog(hub: Hub, mut changes: watch::Receiver<Arc<Catalog>>) {
    while changes.changed().await.is_ok() {
        let catalog = changes.borrow_and_update().clone();
        hub.follow(streams_of(&catalog)).await;
        tracing::info!(streams = catalog.count(), "the catalogue has changed");
    }
}

impl Running {
    /// For what runs beside the server and is to end with it.
    pub fn stop(&self) -> Stop {
        self.shutdown.watcher()
    }
}

fn open_log(
    config: &Config,
    topics: &[Topic],
    address: SocketAddr,
    succeeds: bool,
    engine: &Handle,
) -> Result<Arc<dyn Log>, StartError> {
    if !config.log.kafka.chosen() {
        let open = if succeeds { SqliteLog::open_after } else { SqliteLog::open_with };
        return Ok(Arc::new(open(&config.data_dir, config.log.sqlite.clone(), topics)?));
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let group = format!("sluice-{host}-{}", address.port());
    let event_bytes_max = usize::try_from(config.intake.event_bytes_max()).unwrap_or(usize::MAX);
    let log = KafkaLog::open(
        config.log.kafka.clone(),
        &group,
        event_bytes_max,
        config.intake.log_deadline(),
        engine.clone(),
    )?;
    Ok(Arc::new(log))
}

/// With as many descriptors as the process may have: a limit of 1,024, which many systems start with, is a few hundred
/// readers.
fn limits(config: &Config) -> Result<Limits, StartError> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut may = getrlimit(Resource::Nofile);
    may.current = may.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, may) {
        tracing::warn!(%error, "the limit of open files (ulimit -n) stays where it is");
    }
    let descriptors = Descriptors::of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX));
    let faults = config.limits.faults(Some(descriptors));
    if !faults.is_empty() {
        return Err(StartError::Limits(limits::named(faults)));
    }
    Ok(Limits::open(config.limits.clone(), descriptors, &config.data_dir)?)
}

/// Says so where nobody can post, or everybody who comes by: the first is a surprise to some, the second to others.
fn tell_who_may_post(guard: &Guard, options: &intake::Options, address: SocketAddr) {
    if guard.is_closed() && options.auth.is_none() {
        tracing::warn!(
            "posting is closed: others than this machine reach {address}, and intake.auth is not set; set it to tokens or \
             jwt (or to open, and everybody who reaches this address may post)"
        );
    } else if guard.is_open() && !is_loopback(address) {
        tracing::warn!("posting is open: everybody who reaches {address} may post, as intake.auth says");
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
