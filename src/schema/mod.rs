//! Schemas: a URI that an event names → a compiled validator.
//!
//! - this page: [`Schemas`], which finds them, and keeps them
//! - `uri` what an event may name
//! - `bases` where it is looked for: folders, addresses, `built_in`
//! - `cache` what has been found, and what not
//! - `source` from a file to a schema: YAML, JSON, the drafts; `secure` whether it can be used against us
//! - `compiled` one schema, ready; the crate `jsonschema` says whether an event is valid
//! - `tree` the same schema as rules in AJV 6's order (`rules`, `refs`), from which come:
//!   - `judge` what is wrong with an event, in AJV 6's words (`violation`, `same`; `unmapped` for what it cannot tell)
//!   - `defaults` what an event lacks
//! - `formats` the formats, as AJV 6's fast mode has them
//!
//! Knows no streams, no intake, no HTTP server.

#[cfg(test)]
mod agree_test;
mod bases;
mod built_in;
mod cache;
mod compiled;
mod defaults;
#[cfg(test)]
mod families_test;
mod formats;
mod judge;
#[cfg(test)]
mod judge_test;
#[cfg(test)]
mod load_test;
mod refs;
mod rules;
mod same;
mod secure;
mod source;
#[cfg(test)]
mod testing;
mod tree;
mod unmapped;
mod uri;
mod violation;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use self::bases::{Bases, Miss};
use self::cache::{Cache, Known};
use self::source::Source;
use self::tree::Fault;
use crate::fetch::Fetcher;
use crate::metrics::{SCHEMA_LAST_LOADED, SCHEMA_LOADS};
use crate::model::Timestamp;
use crate::model::units;

pub use self::compiled::Schema;
pub use self::source::each_subschema;
pub use self::uri::{SchemaUri, UriError};
pub use self::violation::{Violation, errors_text};

/// Schemas looked for at once. The others wait.
const LOOKS_AT_ONCE: usize = 8;
/// Schemas that are looked for or wait for it. Beyond it the answer is [`LoadError::Unavailable`] at once.
const LOOKS_MAX: usize = 256;
/// One look, the wait for its turn included. Below the time within which every POST is answered.
const LOOK_AT_MOST: Duration = Duration::from_secs(8);
/// Other schemas that one may refer to.
const REFERRED_MAX: usize = 16;

/// The section `schema` of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Folders and addresses under which schemas are looked for, in this order. None: those that are built in.
    #[serde(deserialize_with = "units::list")]
    pub bases: Vec<String>,
    /// After this a schema that was asked for as `latest` is looked for again.
    #[serde(deserialize_with = "units::duration")]
    pub latest_ttl: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { bases: Vec::new(), latest_ttl: Duration::from_secs(60) }
    }
}

impl Options {
    /// Whether a base is of a kind that there is. Whether it is there is seen at the start.
    pub fn is_base(text: &str) -> bool {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        !text.is_empty() && matches!(scheme, None | Some("file" | "http" | "https"))
    }
}

/// Why there is no validator for a URI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// No base has it. The client's fault.
    #[error("Failed loading schema at {0}")]
    Unknown(SchemaUri),
    /// It is there and cannot be used: no schema, or not a secure one. Trying again does not help.
    #[error("Failed loading schema at {uri}: {why}")]
    Refused { uri: SchemaUri, why: String },
    /// A base that may have it does not answer. Ours.
    #[error("Failed loading schema at {uri}: {why}")]
    Unavailable { uri: SchemaUri, why: String },
}

type Outcome = Result<Arc<Schema>, LoadError>;

/// All schemas that have been asked for.
pub struct Schemas(Arc<Shared>);

struct Shared {
    bases: Bases,
    cache: Cache,
    latest_ttl: Duration,
    engine: Handle,
    turns: Semaphore,
    looks: Mutex<HashMap<SchemaUri, watch::Receiver<Option<Outcome>>>>,
}

/// One look that is under way. Ends with it, however it ends.
struct Look {
    shared: Arc<Shared>,
    uri: SchemaUri,
    told: watch::Sender<Option<Outcome>>,
}

impl Schemas {
    /// Errors name what is wrong with the configuration.
    pub fn new(options: &Options, fetcher: Fetcher, engine: Handle) -> Result<Self, String> {
        Ok(Self(Arc::new(Shared {
            bases: Bases::new(&options.bases, fetcher, engine.clone())?,
            cache: Cache::default(),
            latest_ttl: options.latest_ttl,
            engine,
            turns: Semaphore::new(LOOKS_AT_ONCE),
            looks: Mutex::default(),
        })))
    }

    /// Without waiting: `None` if it must be looked for first.
    pub fn known(&self, uri: &SchemaUri) -> Option<Result<Arc<Schema>, LoadError>> {
        match self.0.cache.get(uri) {
            Known::Nothing => None,
            Known::Schema(schema) => Some(Ok(schema)),
            Known::Stale(schema) => {
                // Whoever asks gets the old one, and does not wait.
                let _ = self.0.look(uri);
                Some(Ok(schema))
            }
            Known::Failure(failure) => Some(Err(failure)),
        }
    }

    /// Looks for it where it is not known. One look for all who wait, on the engine; a caller that leaves ends nothing.
    pub async fn load(&self, uri: &SchemaUri) -> Result<Arc<Schema>, LoadError> {
        if let Some(known) = self.known(uri) {
            return known;
        }
        let cut_short = || LoadError::Unavailable { uri: uri.clone(), why: "the look for it was cut short".into() };
        let mut told = self.0.look(uri)?;
        let outcome = told.wait_for(Option::is_some).await.map_err(|_| cut_short())?;
        outcome.clone().unwrap_or_else(|| Err(cut_short()))
    }
}

impl Shared {
    /// Joins the look for a schema, or begins it.
    fn look(self: &Arc<Self>, uri: &SchemaUri) -> Result<watch::Receiver<Option<Outcome>>, LoadError> {
        let mut looks = self.looks.lock();
        if let Some(under_way) = looks.get(uri) {
            return Ok(under_way.clone());
        }
        if looks.len() >= LOOKS_MAX {
            let why = format!("{LOOKS_MAX} schemas are being looked for already");
            return Err(LoadError::Unavailable { uri: uri.clone(), why });
        }
        let (told, hears) = watch::channel(None);
        // One that ended between the caller's question and this lock has left its answer in the cache.
        if let Known::Schema(schema) = self.cache.get(uri) {
            told.send_replace(Some(Ok(schema)));
            return Ok(hears);
        }
        looks.insert(uri.clone(), hears.clone());
        let look = Look { shared: self.clone(), uri: uri.clone(), told };
        self.engine.spawn(look.run());
        Ok(hears)
    }

    async fn find(self: &Arc<Self>, uri: &SchemaUri) -> Outcome {
        let refused = |why| LoadError::Refused { uri: uri.clone(), why };
        let unavailable = |why| LoadError::Unavailable { uri: uri.clone(), why };
        let bytes = self.bases.find(uri).await.map_err(|miss| match miss {
            Miss::Absent => LoadError::Unknown(uri.clone()),
            Miss::Broken(why) => refused(why),
            Miss::Unavailable(why) => unavailable(why),
        })?;
        let mut files = vec![(uri.to_string(), bytes)];
        loop {
            let (work, name) = (files.clone(), uri.clone());
            // Compiling takes milliseconds.
            let compiled = self.engine.spawn_blocking(move || compile(&name, &work)).await;
            let compiled = compiled.map_err(|_| unavailable("compiling was cut short".into()))?;
            let missing = match compiled {
                Ok(schema) => return Ok(Arc::new(schema)),
                Err(Fault::Refused(why)) => return Err(refused(why)),
                Err(Fault::Junk(why)) => return Err(unavailable(why.into())),
                Err(Fault::Missing(missing)) => missing,
            };
            if files.len() > REFERRED_MAX {
                return Err(refused(format!("it refers to more than {REFERRED_MAX} other schemas")));
            }
            let unresolved = || refused(format!("can't resolve reference {missing} from id {uri}"));
            let other = SchemaUri::parse(&missing).map_err(|_| unresolved())?;
            match self.bases.find(&other).await {
                Ok(bytes) => files.push((missing, bytes)),
                Err(Miss::Unavailable(why)) => return Err(unavailable(why)),
                Err(_) => return Err(unresolved()),
            }
        }
    }
}

fn compile(uri: &SchemaUri, files: &[(String, bytes::Bytes)]) -> Result<Schema, Fault> {
    let read = |(name, bytes): &(String, bytes::Bytes)| Ok((name.clone(), source::read(bytes)?));
    let mut sources = files.iter().map(read).collect::<Result<Vec<(String, Source)>, Fault>>()?;
    let schema = Schema::compile(uri, &mut sources)?;
    let text = files.first().map(|(_, bytes)| bytes.clone());
    Ok(schema.written_as(text.unwrap_or_default()))
}

impl Look {
    async fn run(self) {
        let shared = &self.shared;
        let in_turn = async {
            let _turn = shared.turns.acquire().await;
            shared.find(&self.uri).await
        };
        let outcome = tokio::time::timeout(LOOK_AT_MOST, in_turn).await.unwrap_or_else(|_| {
            let why = "it could not be found in time".to_owned();
            Err(LoadError::Unavailable { uri: self.uri.clone(), why })
        });
        let result = match &outcome {
            Ok(_) => "loaded",
            Err(LoadError::Unknown(_)) => "unknown",
            Err(LoadError::Refused { .. }) => "refused",
            Err(LoadError::Unavailable { .. }) => "unavailable",
        };
        metrics::counter!(SCHEMA_LOADS, "result" => result).increment(1);
        if outcome.is_ok() {
            metrics::gauge!(SCHEMA_LAST_LOADED).set(Timestamp::now().0 as f64 / 1_000.0);
        }
        shared.cache.settle(&self.uri, &outcome, shared.latest_ttl);
        self.told.send_replace(Some(outcome));
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.shared.looks.lock().remove(&self.uri);
    }
}
