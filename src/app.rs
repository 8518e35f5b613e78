//! Wiring: start order, stop order, and the one place that names concrete engines.
//!
//! Two runtimes: the engine, where the tail, log reads and appends run; and actix's workers, one thread each, where
//! requests and readers live. Nothing that must outlive a request is spawned on a worker.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use actix_server::ServerHandle;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use crate::catalog::{Catalog, CatalogError};
use crate::config::Config;
use crate::http::{self, Services};
use crate::hub::{Hub, SubscribeError};
use crate::intake::Intake;
use crate::log::Log;
use crate::log::kafka::{self, KafkaLog};
use crate::log::sqlite::{self, SqliteLog};
use crate::metrics;
use crate::shutdown::{Shutdown, Stage};

/// Where operators look first. Taken, and nobody named it: a free one.
const ADMIN_DEFAULT: &str = "127.0.0.1:9102";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// How often the open streams are counted at a stop.
const STOP_POLL: Duration = Duration::from_millis(50);

/// Why the server cannot start. Each names its cause and its cure.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Sqlite(#[from] sqlite::OpenError),
    #[error(transparent)]
    Kafka(#[from] kafka::OpenError),
    #[error("cannot listen on {address}: {cause}; stop what holds it, or name another address with {flag}")]
    Listen { address: String, flag: &'static str, cause: io::Error },
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
        matches!(self, Self::Catalog(_) | Self::Kafka(_) | Self::Streams(_))
    }
}

/// A server that serves.
pub struct Running {
    pub address: SocketAddr,
    pub admin: Option<SocketAddr>,
    pub log: String,
    pub streams: usize,
    pub intake: Arc<Intake>,
    hub: Hub,
    store: Arc<dyn Log>,
    shutdown: Shutdown,
    public: ServerHandle,
    operators: Option<ServerHandle>,
    deadline: Duration,
}

/// Checks everything, and only then opens the ports. Call it within an actix system.
pub fn start(config: &Config, engine: &Handle) -> Result<Running, StartError> {
    let catalog = Arc::new(match &config.catalog.source {
        Some(path) => Catalog::from_file(path)?,
        None => Catalog::built_in(),
    });
    let listener = bind(&config.http.listen, "--listen")?;
    let address = listener.local_addr()?;
    let admin_listener = bind_admin(config.admin.listen.as_deref())?;
    let render = install_metrics(engine)?;
    let log = open_log(config, address, engine)?;
    let shutdown = Shutdown::default();
    let warm: Vec<_> =
        catalog.streams().filter_map(|stream| catalog.resolve(std::slice::from_ref(&stream.name)).ok()).collect();
    let hub = Hub::start(config.hub.clone(), log.clone(), catalog.topics(), &warm, engine, shutdown.watcher())?;
    let intake = Arc::new(Intake::new(config.intake.clone(), catalog.clone(), log.clone(), engine.clone()));
    let services = Services {
        hub: hub.clone(),
        intake: intake.clone(),
        catalog: catalog.clone(),
        client_prefixes: config.limits,
        end_spread: config.stop.drain_spread,
        stop: shutdown.watcher(),
    };
    let operators = match admin_listener {
        Some(listener) => Some(http::serve_admin(listener, services.clone(), Arc::new(move || render.render()))?),
        None => None,
    };
    let public = http::serve(&config.http, listener, services)?;
    Ok(Running {
        address,
        admin: operators.as_ref().map(|(address, _)| *address),
        log: log.describe(),
        streams: warm.len(),
        intake,
        hub,
        store: log,
        shutdown,
        public,
        operators: operators.map(|(_, handle)| handle),
        deadline: config.stop.deadline,
    })
}

impl Running {
    /// Serves until a signal, and then stops: no new connections, requests finish, readers end after a whole event,
    /// the log is closed. A second signal, or the deadline, cuts what is left.
    pub async fn until_stopped(self) -> io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!(streams = self.hub.registry().open(), "stopping");
        let drained = async {
            self.public.pause().await;
            self.shutdown.advance(Stage::EndStreams);
            // First the readers, then the workers: to actix a socket that was handed over is no connection, so it stops
            // a worker that has nothing else, and its readers with it.
            while self.hub.registry().open() > 0 {
                tokio::time::sleep(STOP_POLL).await;
            }
            self.public.stop(true).await;
        };
        tokio::select! {
            () = drained => {}
            () = tokio::time::sleep(self.deadline) => tracing::warn!("the deadline has come: what is left is cut"),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        self.shutdown.advance(Stage::Over);
        self.store.close().await;
        if let Some(operators) = self.operators {
            operators.stop(false).await;
        }
        tracing::info!("stopped");
        Ok(())
    }
}

fn open_log(config: &Config, address: SocketAddr, engine: &Handle) -> Result<Arc<dyn Log>, StartError> {
    if !config.log.kafka.chosen() {
        return Ok(Arc::new(SqliteLog::open(&config.data_dir, config.log.sqlite.clone())?));
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let group = format!("sluice-{host}-{}", address.port());
    let event_bytes_max = usize::try_from(config.intake.max_event_bytes).unwrap_or(usize::MAX);
    let log =
        KafkaLog::open(config.log.kafka.clone(), &group, event_bytes_max, config.intake.deadline, engine.clone())?;
    Ok(Arc::new(log))
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

/// The recorder is installed once; a second one in the same process is a fault at the start, never later.
fn install_metrics(engine: &Handle) -> Result<PrometheusHandle, StartError> {
    const UPKEEP_EVERY: Duration = Duration::from_secs(5);
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    ::metrics::set_global_recorder(recorder).map_err(|e| StartError::Metrics(e.to_string()))?;
    metrics::describe();
    let upkeep = handle.clone();
    engine.spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}
