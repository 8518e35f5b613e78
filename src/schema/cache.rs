//! What has been looked for: schemas that are kept, and failures that are not tried again for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::LoadError;
use super::compiled::Schema;
use super::uri::SchemaUri;
use crate::metrics::SCHEMAS_CACHED;

/// Compiled schemas, of 30 to 300 KiB each. Beyond it the one that was not used for the longest time goes.
const SCHEMAS_MAX: usize = 500;
/// Failures remembered, in two halves: when the newer half is full, the older one is forgotten.
const FAILURES_MAX: usize = 4_096;
/// How long a schema that is not there, or is no good, is not looked for again.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// The same for a base that does not answer, which has a back-off of its own.
const UNAVAILABLE_FOR: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Cache {
    schemas: DashMap<SchemaUri, Kept>,
    /// Counts looks that ended: by it the use of schemas is dated.
    clock: AtomicU64,
    failures: Mutex<[HashMap<SchemaUri, (LoadError, Instant)>; 2]>,
}

#[derive(Debug)]
struct Kept {
    schema: Arc<Schema>,
    used: AtomicU64,
    /// From when on it is to be looked for again; only for names whose schema may change.
    stale_from: Option<Instant>,
}

/// What is known of a URI.
#[derive(Debug)]
pub(super) enum Known {
    Nothing,
    Schema(Arc<Schema>),
    /// It serves, and is to be looked for again.
    Stale(Arc<Schema>),
    Failure(LoadError),
}

impl Cache {
    pub(super) fn get(&self, uri: &SchemaUri) -> Known {
        if let Some(kept) = self.schemas.get(uri) {
            let now = self.clock.load(Ordering::Relaxed);
            // Not written at every event: that would make the workers' cores pass it around.
            if kept.used.load(Ordering::Relaxed) != now {
                kept.used.store(now, Ordering::Relaxed);
            }
            let schema = kept.schema.clone();
            let stale = kept.stale_from.is_some_and(|stale_from| Instant::now() >= stale_from);
            return if stale { Known::Stale(schema) } else { Known::Schema(schema) };
        }
        let failures = self.failures.lock();
        let known = failures.iter().find_map(|half| half.get(uri));
        match known.filter(|(_, until)| Instant::now() < *until) {
            Some((failure, _)) => Known::Failure(failure.clone()),
            None => Known::Nothing,
        }
    }

    /// Keeps what a look brought. What is good already stays when a later look fails.
    pub(super) fn settle(&self, uri: &SchemaUri, outcome: &Result<Arc<Schema>, LoadError>, latest_ttl: Duration) {
        let now = self.clock.fetch_add(1, Ordering::Relaxed) + 1;
        let stale_from = uri.is_latest().then(|| Instant::now() + latest_ttl);
        match outcome {
            Ok(schema) => {
                let kept = Kept { schema: schema.clone(), used: AtomicU64::new(now), stale_from };
                self.schemas.insert(uri.clone(), kept);
                self.failures.lock().iter_mut().for_each(|half| {
                    half.remove(uri);
                });
                self.evict();
            }
            Err(failure) => match self.schemas.get_mut(uri) {
                Some(mut kept) => kept.stale_from = stale_from,
                None => self.fail(uri, failure),
            },
        }
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        metrics::gauge!(SCHEMAS_CACHED).set(self.schemas.len() as f64);
    }

    fn fail(&self, uri: &SchemaUri, failure: &LoadError) {
        let lasts = match failure {
            LoadError::Unavailable { .. } => UNAVAILABLE_FOR,
            LoadError::Unknown(_) | LoadError::Refused { .. } => UNKNOWN_FOR,
        };
        let mut failures = self.failures.lock();
        if failures[0].len() >= FAILURES_MAX / 2 {
            failures[1] = std::mem::take(&mut failures[0]);
        }
        failures[0].insert(uri.clone(), (failure.clone(), Instant::now() + lasts));
    }

    /// Looks through all: it comes after a look, which is dearer.
    fn evict(&self) {
        while self.schemas.len() > SCHEMAS_MAX {
            let used = |kept: &Kept| kept.used.load(Ordering::Relaxed);
            let Some(oldest) = self.schemas.iter().min_by_key(|kept| used(kept.value())).map(|kept| kept.key().clone())
            else {
                return;
            };
            self.schemas.remove(&oldest);
        }
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.schemas.len(), self.failures.lock().iter().map(HashMap::len).sum())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{schema, uri};
    use super::*;

    #[test]
    fn the_cache_is_bounded_and_what_is_used_stays() {
        let cache = Cache::default();
        let good: Result<Arc<Schema>, LoadError> = Ok(Arc::new(schema(json!({}))));
        let used = uri("/used/1.0.0");
        cache.settle(&used, &good, Duration::ZERO);
        for number in 0..SCHEMAS_MAX + 50 {
            cache.settle(&uri(&format!("/a/{number}")), &good, Duration::ZERO);
            assert!(matches!(cache.get(&used), Known::Schema(_)));
        }
        for number in 0..2 * FAILURES_MAX {
            let unknown = uri(&format!("/u/{number}"));
            cache.settle(&unknown, &Err(LoadError::Unknown(unknown.clone())), Duration::ZERO);
        }
        let (schemas, failures) = cache.sizes();
        assert_eq!(schemas, SCHEMAS_MAX);
        assert!(failures <= FAILURES_MAX, "{failures}");
        assert!(matches!(cache.get(&uri("/a/0")), Known::Nothing));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_remembered_for_a_while() {
        let cache = Cache::default();
        let (unknown, away) = (uri("/unknown/1.0.0"), uri("/away/1.0.0"));
        cache.settle(&unknown, &Err(LoadError::Unknown(unknown.clone())), Duration::ZERO);
        let failure = LoadError::Unavailable { uri: away.clone(), why: "x".into() };
        cache.settle(&away, &Err(failure.clone()), Duration::ZERO);
        assert!(matches!(cache.get(&away), Known::Failure(known) if known == failure));
        tokio::time::advance(UNAVAILABLE_FOR).await;
        assert!(matches!(cache.get(&away), Known::Nothing));
        assert!(matches!(cache.get(&unknown), Known::Failure(_)));
        tokio::time::advance(UNKNOWN_FOR).await;
        assert!(matches!(cache.get(&unknown), Known::Nothing));
    }

    #[tokio::test(start_paused = true)]
    async fn latest_goes_stale_and_stays_when_a_look_fails() {
        let cache = Cache::default();
        let ttl = Duration::from_secs(60);
        let good: Result<Arc<Schema>, LoadError> = Ok(Arc::new(schema(json!({}))));
        let (latest, fixed) = (uri("/a/latest"), uri("/a/1.0.0"));
        cache.settle(&latest, &good, ttl);
        cache.settle(&fixed, &good, ttl);
        assert!(matches!(cache.get(&latest), Known::Schema(_)));
        tokio::time::advance(ttl).await;
        assert!(matches!(cache.get(&latest), Known::Stale(_)));
        assert!(matches!(cache.get(&fixed), Known::Schema(_)));
        cache.settle(&latest, &Err(LoadError::Unknown(latest.clone())), ttl);
        assert!(matches!(cache.get(&latest), Known::Schema(_)));
    }
}
