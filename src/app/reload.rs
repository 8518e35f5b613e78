//! A new configuration without a restart: read as at the start, checked whole, and then swapped whole or refused whole.
//!
//! All that can fail comes first, and touches nothing that runs. What can change while the server runs: the section
//! `limits`, a catalogue that is a file, who may post, the listener's certificate, and the addresses of Kafka's brokers. Other
//! keys that differ are named, and wait for a restart.
//!
//! An address that a catalogue comes from is asked as well, and cannot refuse the rest: it is asked on a timer in any case,
//! is somebody else's server, and being away it would keep an operator from taking a stolen token out.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;

use rustix::process::{Signal as ToSend, getpid, kill_process};
use tokio::runtime::Handle;
use tokio::signal::unix::Signal;
use tokio::sync::Mutex;

use crate::catalog::{Catalog, Live, Place};
use crate::config::{Config, Loaded, Loader};
use crate::fetch::Fetcher;
use crate::http::{CatalogBecame, Reload, Reloaded, Services};
use crate::intake::auth::Guard;
use crate::limits::{self, Limits};
use crate::log::Log;
use crate::metrics as names;
use crate::schema::Schemas;
use crate::tls::Identity;

use super::https::{Https, identity_of};

/// Gathers the settings of file, environment and flags, as they are now.
pub type Settings = Arc<dyn Fn() -> Loader + Send + Sync>;

/// What runs and can be changed. One for the process; cheap to clone.
#[derive(Clone)]
pub(super) struct Reloader(Arc<Parts>);

struct Parts {
    settings: Settings,
    started_with: Arc<Loaded>,
    /// Held for as long as a reload takes: one after the other.
    given: Mutex<Given>,
    address: SocketAddr,
    engine: Handle,
    fetcher: Fetcher,
    https: Https,
    limits: Limits,
    guard: Guard,
    live: Live,
    log: Arc<dyn Log>,
}

/// What the parts were last given their values from.
struct Given {
    auth: Arc<Loaded>,
    catalog: Arc<Loaded>,
    log: Arc<Loaded>,
}

/// A configuration with nothing wrong in it, and what is made of it.
struct Prepared {
    loaded: Arc<Loaded>,
    guard: Guard,
    /// None where it comes from an address.
    catalog: Option<Catalog>,
    /// None where HTTPS is not asked for.
    identity: Option<Identity>,
}

impl Reloader {
    /// `address` is that of the public listener.
    pub(super) fn new(
        settings: Settings,
        started_with: Arc<Loaded>,
        address: SocketAddr,
        (fetcher, https): (Fetcher, Https),
        services: &Services,
        log: Arc<dyn Log>,
    ) -> Self {
        let [auth, catalog, of_log] = [(); 3].map(|()| started_with.clone());
        let given = Mutex::new(Given { auth, catalog, log: of_log });
        let Services { engine, limits, guard, catalog: live, .. } = services.clone();
        Self(Arc::new(Parts {
            settings,
            started_with,
            given,
            address,
            engine,
            fetcher,
            https,
            limits,
            guard,
            live,
            log,
        }))
    }

    /// For the operators' listener. On the engine: an operator who leaves ends nothing half-way.
    pub(super) fn on_request(&self) -> Reload {
        let this = self.clone();
        Arc::new(move || {
            let reload = this.clone();
            let reload = this.0.engine.spawn(async move { reload.0.reload().await });
            Box::pin(async move { reload.await.unwrap_or_else(|e| Err(vec![broke_off(&e)])) })
        })
    }

    /// At every SIGHUP. What comes of it stands in the log.
    pub(super) async fn on_hangup(self, mut hangups: Signal) {
        let had_a_terminal = std::io::stderr().is_terminal();
        while hangups.recv().await.is_some() {
            if had_a_terminal && !std::io::stderr().is_terminal() {
                // Nobody asks for a reload: a terminal was closed, and what runs in it ends with it.
                let _ = kill_process(getpid(), ToSend::TERM);
            } else {
                let reload = self.clone();
                // A task of its own: were it to fail, the next signal would still be heard.
                let _ = self.0.engine.spawn(async move { reload.0.reload().await }).await;
            }
        }
    }
}

impl Parts {
    async fn reload(self: &Arc<Self>) -> Result<Reloaded, Vec<String>> {
        let mut given = self.given.lock().await;
        let this = self.clone();
        let prepared = self.engine.spawn_blocking(move || this.prepare()).await;
        let outcome = match prepared.unwrap_or_else(|e| Err(vec![broke_off(&e)])) {
            Ok(prepared) => {
                let answer = self.ask_the_address(&prepared.loaded.config).await;
                let loaded = prepared.loaded.clone();
                let swapped = self.swap(&mut given, prepared, answer);
                if swapped.is_ok() {
                    self.swap_brokers(&mut given, loaded).await;
                }
                swapped
            }
            Err(faults) => Err(faults),
        };
        tell(&outcome);
        outcome
    }

    /// Everything that can fail. Blocks.
    fn prepare(&self) -> Result<Prepared, Vec<String>> {
        let loaded = (self.settings)().load().map_err(|e| e.0)?;
        let config = &loaded.config;
        let mut faults = limits::named(config.limits.faults(Some(self.limits.descriptors())));
        let guard = Guard::new(&config.intake, super::is_loopback(self.address));
        let guard = guard.map_err(|e| faults.push(e.to_string()));
        let catalog = catalog_of(config).map_err(|of_catalog| faults.extend(of_catalog));
        let identity = identity_of(config).map_err(|e| faults.push(e.to_string()));
        // Not swapped, but a restart would fail at it.
        let schemas = Schemas::new(&config.schema, self.fetcher.clone(), self.engine.clone());
        let schemas = schemas.map_err(|why| faults.push(why));
        match (guard, catalog, identity, schemas) {
            (Ok(guard), Ok(catalog), Ok(identity), Ok(_)) if faults.is_empty() => {
                Ok(Prepared { loaded: Arc::new(loaded), guard, catalog, identity })
            }
            _ => Err(faults),
        }
    }

    /// What became of the catalogue, where it comes from an address and is to go on so.
    async fn ask_the_address(&self, config: &Config) -> Option<Result<CatalogBecame, String>> {
        if self.live.is_fixed() || !comes_from_an_address(config) {
            return None;
        }
        let before = self.live.now();
        let asked = self.live.ask_now().await.map_err(|e| e.to_string());
        let same = Arc::ptr_eq(&before, &self.live.now());
        Some(asked.map(|()| if same { CatalogBecame::Unchanged } else { CatalogBecame::Refreshed }))
    }

    /// The limits first: they alone can still say no, and then nothing has been swapped.
    fn swap(
        &self,
        given: &mut Given,
        prepared: Prepared,
        answer: Option<Result<CatalogBecame, String>>,
    ) -> Result<Reloaded, Vec<String>> {
        let Prepared { loaded, guard, catalog, identity } = prepared;
        let catalog = catalog.filter(|_| self.live.is_fixed());
        // From HTTP to HTTPS, or back, is a restart.
        let identity = identity.filter(|_| self.https.is_spoken());
        // From one kind of log to the other is a restart.
        let stays_kafka = [&self.started_with, &loaded].iter().all(|one| one.config.log.kafka.chosen());
        let moves = |key: &str| stays_kafka && key == BROKERS;
        let can_change = |key: &String| {
            key.starts_with("limits.")
                || is_auth(key)
                || catalog.is_some() && is_catalog(key)
                || identity.is_some() && is_tls(key)
                || moves(key)
        };
        let needs_restart = loaded.keys_unlike(&self.started_with).into_iter().filter(|key| !can_change(key)).collect();
        let mut changed = self.swap_limits(&loaded.config.limits)?;
        changed.extend(self.swap_identity(identity));
        changed.extend(self.swap_guard(given, &loaded, &guard));
        changed.extend(loaded.keys_unlike(&given.log).into_iter().filter(|key| moves(key)));
        let (catalog, catalog_fault) = match (catalog, answer) {
            (Some(catalog), _) => {
                changed.extend(loaded.keys_unlike(&given.catalog).into_iter().filter(|key| is_catalog(key)));
                given.catalog = loaded;
                let is_another = self.live.replace(catalog);
                (if is_another { CatalogBecame::Reread } else { CatalogBecame::Unchanged }, None)
            }
            (None, Some(Ok(became))) => (became, None),
            (None, Some(Err(why))) => (CatalogBecame::Unchanged, Some(why)),
            (None, None) => (CatalogBecame::Unchanged, None),
        };
        changed.sort();
        Ok(Reloaded { changed, needs_restart, catalog, catalog_fault })
    }

    /// Those of the file hold, also in place of what was set since they were read last.
    fn swap_limits(&self, wanted: &limits::Options) -> Result<Vec<String>, Vec<String>> {
        let changed = limits_unlike(&self.limits.options(), wanted);
        if !changed.is_empty() {
            self.limits.set(wanted.clone())?;
        }
        Ok(changed)
    }

    /// Takes as long as what is under way to the old ones takes to be settled, and that is bounded.
    async fn swap_brokers(&self, given: &mut Given, loaded: Arc<Loaded>) {
        let [now, wanted] = [&given.log, &loaded].map(|one| &one.config.log.kafka);
        if now.chosen() && wanted.chosen() && now.bootstrap_servers != wanted.bootstrap_servers {
            self.log.reconnect(&wanted.bootstrap_servers).await;
            given.log = loaded;
        }
    }

    /// What stands in the files may have changed, and their names not: the name is given for it.
    fn swap_identity(&self, identity: Option<Identity>) -> Option<String> {
        let is_another = self.https.show(identity?);
        is_another.then(|| "http.tls_cert".to_owned())
    }

    /// Always: what stands in the key files may have changed, and their names not.
    fn swap_guard(&self, given: &mut Given, loaded: &Arc<Loaded>, guard: &Guard) -> Vec<String> {
        let changed: Vec<String> = loaded.keys_unlike(&given.auth).into_iter().filter(|key| is_auth(key)).collect();
        self.guard.replace(guard);
        given.auth = loaded.clone();
        if !changed.is_empty() {
            super::tell_who_may_post(&self.guard, &loaded.config.intake, self.address);
        }
        changed
    }
}

/// The catalogue of a file, or the one that is built in.
fn catalog_of(config: &Config) -> Result<Option<Catalog>, Vec<String>> {
    let service = config.catalog.destination_event_service.as_deref();
    match config.catalog.place().map_err(|why| vec![format!("catalog.source: {why}")])? {
        Place::Address(_) => Ok(None),
        Place::BuiltIn => Ok(Some(Catalog::built_in())),
        Place::File(path) => match Catalog::from_file(&path, service) {
            Ok(catalog) => Ok(Some(catalog)),
            Err(refused) => Err(refused.faults.iter().map(|why| format!("{}: {why}", refused.origin)).collect()),
        },
    }
}

fn comes_from_an_address(config: &Config) -> bool {
    matches!(config.catalog.place(), Ok(Place::Address(_)))
}

/// Where Kafka is.
const BROKERS: &str = "log.kafka.bootstrap_servers";

fn is_auth(key: &str) -> bool {
    matches!(key, "intake.auth" | "intake.tokens") || key.starts_with("intake.jwt.")
}

fn is_tls(key: &str) -> bool {
    matches!(key, "http.tls_cert" | "http.tls_key")
}

/// What says which streams a file has.
fn is_catalog(key: &str) -> bool {
    matches!(key, "catalog.source" | "catalog.destination_event_service")
}

/// The keys of the section that differ. Those that are set at run time are in no file, so that these are compared as they
/// are, and not as they were read.
fn limits_unlike(now: &limits::Options, wanted: &limits::Options) -> Vec<String> {
    let (now, wanted) = (now.by_key(), wanted.by_key());
    let differs = |key: &&String| now.get(*key) != wanted.get(*key);
    let mut keys: Vec<String> =
        now.keys().chain(wanted.keys()).filter(differs).map(|key| format!("limits.{key}")).collect();
    keys.sort();
    keys.dedup();
    keys
}

fn broke_off(error: &tokio::task::JoinError) -> String {
    format!("the configuration could not be read to its end, and nothing has changed: {error}")
}

fn tell(outcome: &Result<Reloaded, Vec<String>>) {
    let result = if outcome.is_ok() { "swapped" } else { "refused" };
    metrics::counter!(names::RELOADS, "result" => result).increment(1);
    match outcome {
        Err(faults) => {
            tracing::error!(
                "the configuration was read again, refused, and nothing has changed: {}",
                faults.join("; ")
            );
        }
        Ok(done) => {
            tracing::info!(changed = done.changed.join(", "), "the configuration was read again");
            if !done.needs_restart.is_empty() {
                tracing::warn!(keys = done.needs_restart.join(", "), "these keys have changed, and need a restart");
            }
            if let Some(why) = &done.catalog_fault {
                tracing::warn!("the catalogue stays as it is: {why}");
            }
        }
    }
}
