//! What is logged, for a while: a level that somebody has set goes back by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::access::Operator;
use super::ask::{self, Span};
use super::note::What;
use super::refusal::Refusal;
use crate::http::info::json_of;
use crate::model::Timestamp;

const FOR_DEFAULT: Span = Span(Duration::from_secs(600));
const FOR_MOST: Duration = Duration::from_secs(86_400);
/// Modules that have levels of their own at once. Each is looked at for every line that may be logged.
const MODULES_MOST: usize = 32;
const MODULE_BYTES_MAX: usize = 128;
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The log, as this needs it. Who has set it up makes this.
pub struct Logging {
    /// Directives that hold when nobody has changed anything, as `RUST_LOG` has them.
    pub directives: String,
    pub set: SetDirectives,
}

/// Puts other directives in their place.
pub(super) type SetDirectives = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

pub(super) struct Levels(Arc<Shared>);

struct Shared {
    logging: Logging,
    engine: Handle,
    set: Mutex<Set>,
}

#[derive(Default)]
struct Set {
    /// By module; all that the directives do not name, where there is none.
    modules: BTreeMap<Option<String>, Level>,
    /// How often somebody has set one.
    number: u64,
}

struct Level {
    level: &'static str,
    until: Timestamp,
    /// Tells it from one that was set later for the same module.
    number: u64,
    timer: AbortHandle,
}

impl Drop for Level {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    module: Option<String>,
    level: String,
    #[serde(rename = "for")]
    span: Option<Span>,
}

pub(super) async fn get(_: Operator, levels: web::Data<Levels>) -> HttpResponse {
    let set = levels.0.set.lock();
    let modules: Vec<Value> = set.modules.iter().map(|(module, level)| level.shown(module.as_deref())).collect();
    json_of(&json!({ "default": levels.0.logging.directives, "modules": modules }))
}

pub(super) async fn put(
    payload: web::Payload,
    operator: Operator,
    levels: web::Data<Levels>,
) -> Result<HttpResponse, Refusal> {
    let wanted: Option<Wanted> = ask::body(payload).await?;
    let wanted = wanted.ok_or_else(|| Refusal::Body(r#"send {"level":"debug"}, and module and for"#.into()))?;
    let shown = levels.put(wanted)?;
    operator.did(What::LogLevel, &shown.to_string());
    Ok(json_of(&shown))
}

impl Levels {
    pub(super) fn new(logging: Logging, engine: Handle) -> Self {
        Self(Arc::new(Shared { logging, engine, set: Mutex::default() }))
    }

    fn put(&self, wanted: Wanted) -> Result<Value, Refusal> {
        let level = LEVELS.into_iter().find(|level| level.eq_ignore_ascii_case(&wanted.level));
        let level = level.ok_or_else(|| Refusal::Body(format!("there is no such level: use {}", LEVELS.join(", "))))?;
        if !wanted.module.as_deref().is_none_or(is_module) {
            return Err(Refusal::Body("this is no module: write it as in sluice::intake".into()));
        }
        let span = wanted.span.unwrap_or(FOR_DEFAULT);
        if span.0 > FOR_MOST {
            return Err(Refusal::Body("for is more than 24h".into()));
        }
        let mut set = self.0.set.lock();
        if set.modules.len() >= MODULES_MOST && !set.modules.contains_key(&wanted.module) {
            return Err(Refusal::Conflict(format!("{MODULES_MOST} modules have levels of their own already")));
        }
        set.number += 1;
        let number = set.number;
        let (shared, module) = (self.0.clone(), wanted.module.clone());
        let over_at = tokio::time::Instant::now() + span.0;
        let timer = self.0.engine.spawn(async move {
            tokio::time::sleep_until(over_at).await;
            shared.revert(&module, number);
        });
        let until = Timestamp(Timestamp::now().0.saturating_add(span.ms()));
        let level = Level { level, until, number, timer: timer.abort_handle() };
        let shown = level.shown(wanted.module.as_deref());
        let before = set.modules.insert(wanted.module.clone(), level);
        if let Err(error) = self.0.apply(&set) {
            match before {
                Some(before) => set.modules.insert(wanted.module, before),
                None => set.modules.remove(&wanted.module),
            };
            return Err(Refusal::Internal(format!("the level cannot be set: {error}")));
        }
        Ok(shown)
    }
}

impl Shared {
    /// Unless somebody has set it again since.
    fn revert(&self, module: &Option<String>, number: u64) {
        let mut set = self.set.lock();
        if set.modules.get(module).is_none_or(|level| level.number != number) {
            return;
        }
        set.modules.remove(module);
        if let Err(error) = self.apply(&set) {
            tracing::error!(error, "the log level stays what somebody has set it to");
        }
        drop(set);
        tracing::info!(module = module.as_deref().unwrap_or("everything"), "the log level is what it was");
    }

    /// Of two directives for the same the later holds.
    fn apply(&self, set: &Set) -> Result<(), String> {
        let changes = set.modules.iter().map(|(module, level)| match module {
            Some(module) => format!("{module}={}", level.level),
            None => level.level.to_owned(),
        });
        let directives: Vec<String> = std::iter::once(self.logging.directives.clone()).chain(changes).collect();
        (self.logging.set)(&directives.join(","))
    }
}

impl Level {
    fn shown(&self, module: Option<&str>) -> Value {
        json!({ "module": module, "level": self.level, "until": self.until.to_string() })
    }
}

/// `one::of::these`: nothing in it means anything else to who reads directives.
fn is_module(text: &str) -> bool {
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    text.len() <= MODULE_BYTES_MAX && !LEVELS.contains(&text) && text.split("::").all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(module: Option<&str>, level: &str, span: &str) -> Wanted {
        serde_json::from_value(json!({ "module": module, "level": level, "for": span })).expect("a wish")
    }

    /// Levels, and what was last set.
    fn levels() -> (Levels, Arc<Mutex<String>>) {
        let last = Arc::<Mutex<String>>::default();
        let to = last.clone();
        let set = Box::new(move |directives: &str| {
            directives.clone_into(&mut to.lock());
            Ok(())
        });
        (Levels::new(Logging { directives: "info,actix_http=off".into(), set }, Handle::current()), last)
    }

    async fn after(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_level_goes_back_by_itself_and_the_newest_wish_for_a_module_wins() {
        let (levels, last) = levels();
        levels.put(wanted(Some("sluice::intake"), "debug", "10s")).expect("set");
        levels.put(wanted(None, "WARN", "60s")).expect("set");
        assert_eq!(*last.lock(), "info,actix_http=off,warn,sluice::intake=debug");
        after(5).await;
        levels.put(wanted(Some("sluice::intake"), "trace", "10s")).expect("set");
        after(6).await;
        assert_eq!(*last.lock(), "info,actix_http=off,warn,sluice::intake=trace", "the first wish's time is over");
        after(5).await;
        assert_eq!(*last.lock(), "info,actix_http=off,warn");
        after(60).await;
        assert_eq!(*last.lock(), "info,actix_http=off");
        assert!(levels.0.set.lock().modules.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nonsense_is_refused_and_there_are_not_endlessly_many() {
        let (levels, last) = levels();
        for (module, level) in [(None, "loud"), (Some(""), "info"), (Some("a,b=trace"), "info"), (Some("a[x]"), "info")]
        {
            assert!(matches!(levels.put(wanted(module, level, "1s")), Err(Refusal::Body(_))), "{module:?} {level}");
        }
        assert!(matches!(levels.put(wanted(None, "info", "25h")), Err(Refusal::Body(_))));
        for number in 0..MODULES_MOST {
            levels.put(wanted(Some(&format!("m{number}")), "debug", "1h")).expect("set");
        }
        assert!(matches!(levels.put(wanted(Some("more"), "debug", "1h")), Err(Refusal::Conflict(_))));
        levels.put(wanted(Some("m0"), "trace", "1h")).expect("one that is there can be changed");
        assert!(last.lock().contains("m0=trace") && !last.lock().contains("more"));
    }
}
