//! Wiring: start order, stop order, and the one place that names concrete engines.
//!
//! - this page: the start and the stop
//! - `reload` a new configuration without a restart
//! - `scrape` the metrics, and the thread that makes their text
//!
//! Two runtimes: the engine, where the tail, log reads and appends run; and actix's workers, one thread each, where
//! requests and readers live. Nothing that must outlive a request is spawned on a worker.

mod reload;
mod scrape;

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_server::ServerHandle;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::catalog::{self, Catalog, Live, canary_set};
use crate::config::{Config, Loaded};
use crate::fetch::{FetchError, Fetcher};
use crate::health::{self, Canary, Health, Secret, Sides};
use crate::http::{self, AdminSocket, Doors, Half, Logging, Operators, Patience, Services};
use crate::hub::{Hub, SubscribeError};
use crate::intake::auth::{Guard, KeyError};
use crate::intake::{self, Intake, spool};
use crate::limits::{DenyError, Descriptors, Limits};
use crate::log::Log;
use crate::log::kafka::{self, KafkaLog};
use crate::log::sqlite::{self, SqliteLog};
use crate::model::{StreamSet, Topic};
use crate::schema::Schemas;
use crate::shutdown::{Shutdown, Stage, Stop};

use self::reload::Reloader;

pub use self::reload::Settings;

/// Where operators look first. Taken, and nobody named it: a free one.
const ADMIN_DEFAULT: &str = "127.0.0.1:9102";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// How often the open streams are counted at a stop.
const STOP_POLL: Duration = Duration::from_millis(50);
/// What of a stop's deadline is kept for the log, so that it can finish what was appended: a fifth, this at most.
const CLOSE_RESERVE_MOST: Duration = Duration::from_secs(5);

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
    #[error("limits.{0}: {1}")]
    Limits(&'static str, String),
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
                    | Self::Limits(..)
            )
    }
}

/// A server that serves.
pub struct Running {
    pub address: SocketAddr,
    pub admin: Option<SocketAddr>,
    pub log: String,
    pub streams: usize,
    /// Whether anybody may post.
    pub takes_in: bool,
    pub intake: Arc<Intake>,
    hub: Hub,
    patience: Patience,
    store: Arc<dyn Log>,
    shutdown: Shutdown,
    signals: Signals,
    public: ServerHandle,
    operators: Option<http::Served>,
    deadline: Duration,
}

/// What asks the process to stop. Listened to before anybody is told that it serves: until then a signal kills it.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
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
    let listener = bind(&config.http.listen, "--listen")?;
    let address = listener.local_addr()?;
    let guard = Guard::new(&config.intake, is_loopback(address))?;
    tell_who_may_post(&guard, &config.intake, address);
    let doors = Doors {
        tcp: bind_admin(config.admin.listen.as_deref())?,
        socket: config.admin.socket.as_deref().map(bind_socket).transpose()?,
    };
    let recorder = scrape::install()?;
    scrape::count_panics();
    let shutdown = Shutdown::default();
    let checked = Checked { address, fetcher: fetcher.clone(), schemas: Arc::new(schemas), limits, guard };
    let (services, store) = services(config, checked, engine, &shutdown).await?;
    let reloader = Reloader::new(settings, loaded.clone(), address, fetcher, &services, store.clone());
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
    let operators = http::serve_admin(doors, operators)?;
    let public = http::serve(&config.http, listener, services.clone())?;
    send_canaries(config, address, &services, &store, &shutdown);
    Ok(Running {
        address,
        admin: operators.as_ref().and_then(|served| served.address),
        log: store.describe(),
        streams: services.catalog.now().streams().count(),
        takes_in: config.http.serve.contains(&Half::In) && !services.guard.is_closed(),
        intake: services.intake,
        hub: services.hub,
        patience: services.patience,
        store,
        shutdown,
        signals,
        public,
        operators,
        deadline: config.stop.deadline,
    })
}

/// What has been found to be right before anything runs.
struct Checked {
    address: SocketAddr,
    fetcher: Fetcher,
    schemas: Arc<Schemas>,
    limits: Limits,
    guard: Guard,
}

/// Both halves, and the log between them. After the metrics: they count what they do. After the ports, which fail sooner.
async fn services(
    config: &Config,
    checked: Checked,
    engine: &Handle,
    shutdown: &Shutdown,
) -> Result<(Services, Arc<dyn Log>), StartError> {
    let Checked { address, fetcher, schemas, limits, guard } = checked;
    let live = Live::open(&config.catalog, &config.data_dir, fetcher, engine).await?;
    let mut changes = live.changes();
    let catalog = changes.borrow_and_update().clone();
    let log = open_log(config, &catalog.topics(), address, engine)?;
    // An instance that gives nothing out need not read.
    let gives_out = config.http.serve.contains(&Half::Out);
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
        waits: false,
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
        stop: shutdown.watcher(),
        end_spread: config.stop.drain_spread.min(config.stop.deadline),
    };
    Ok((services, log))
}

/// Tries whether events flow, over as much of the way as this instance serves.
fn send_canaries(config: &Config, listener: SocketAddr, services: &Services, log: &Arc<dyn Log>, shutdown: &Shutdown) {
    let serve = &config.http.serve;
    let parts = health::Parts {
        listener,
        secret: services.probe.clone(),
        limits: services.limits.clone(),
        log: log.clone(),
        engine: services.engine.clone(),
        takes_in: serve.contains(&Half::In),
        gives_out: serve.contains(&Half::Out),
    };
    let canary = Canary::new(parts, &config.health);
    services.engine.spawn(canary.run(services.health.clone(), shutdown.watcher()));
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

    /// Serves until a signal, and then stops: no new connections, readers end after a whole event, requests finish,
    /// the log is closed. A second signal, or the deadline, cuts what is left.
    pub async fn until_stopped(mut self) {
        self.signals.next().await;
        let over_at = Instant::now() + self.deadline;
        tracing::info!(streams = self.hub.registry().open(), "stopping");
        let reserve = (self.deadline / 5).min(CLOSE_RESERVE_MOST);
        tokio::select! {
            () = drain(&self.public, &self.hub, &self.patience, &self.intake, &self.shutdown) => {}
            () = tokio::time::sleep_until(over_at - reserve) => {
                tracing::warn!(streams = self.hub.registry().open(), "the deadline has come: what is left is cut");
            }
            () = self.signals.next() => tracing::info!("a second signal: what is left is cut"),
        }
        self.shutdown.advance(Stage::Over);
        // Together: what goes from the spool to a log that is away ends with the log.
        let closed = futures_util::future::join(self.intake.close(), self.store.close());
        if tokio::time::timeout_at(over_at, closed).await.is_err() {
            tracing::error!("the log could not be closed in time: what it has not acknowledged may be lost");
        }
        if let Some(operators) = self.operators {
            operators.handle.stop(false).await;
        }
        tracing::info!("stopped");
    }
}

/// Readers first, and those who wait for a refusal, and only then the server: their tasks live on its workers, and would
/// be cut together with them.
async fn drain(public: &ServerHandle, hub: &Hub, patience: &Patience, intake: &Intake, shutdown: &Shutdown) {
    public.pause().await;
    shutdown.advance(Stage::EndStreams);
    while hub.registry().open() > 0 {
        tokio::time::sleep(STOP_POLL).await;
    }
    patience.hurry();
    while patience.held() > 0 {
        tokio::time::sleep(STOP_POLL).await;
    }
    public.stop(true).await;
    // Hasty events were answered before they were judged, and reports are nobody's request.
    intake.drained().await;
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn open_log(
    config: &Config,
    topics: &[Topic],
    address: SocketAddr,
    engine: &Handle,
) -> Result<Arc<dyn Log>, StartError> {
    if !config.log.kafka.chosen() {
        return Ok(Arc::new(SqliteLog::open_with(&config.data_dir, config.log.sqlite.clone(), topics)?));
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
    if let Some((key, fault)) = config.limits.faults(Some(descriptors)).into_iter().next() {
        return Err(StartError::Limits(key, fault));
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

fn bind(address: &str, flag: &'static str) -> Result<TcpListener, StartError> {
    let refused = |cause| StartError::Listen { address: address.to_owned(), flag, cause };
    let unresolved = || io::Error::new(io::ErrorKind::InvalidInput, "it is not ADDRESS:PORT");
    let resolved = address.to_socket_addrs().map_err(refused)?.next().ok_or_else(|| refused(unresolved()))?;
    listen(resolved).map_err(refused)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_admin(asked: Option<&str>) -> Result<Option<TcpListener>, StartError> {
    match asked {
        Some("off") => Ok(None),
        Some(address) => bind(address, "--admin").map(Some),
        None => match bind(ADMIN_DEFAULT, "--admin") {
            Err(StartError::Listen { cause, .. }) if cause.kind() == io::ErrorKind::AddrInUse => {
                tracing::warn!("{ADMIN_DEFAULT} is taken: the operators' listener takes a free port");
                bind("127.0.0.1:0", "--admin").map(Some)
            }
            bound => bound.map(Some),
        },
    }
}

fn bind_socket(path: &Path) -> Result<AdminSocket, StartError> {
    AdminSocket::bind(path).map_err(|cause| StartError::Listen {
        address: path.display().to_string(),
        flag: "admin.socket",
        cause,
    })
}
