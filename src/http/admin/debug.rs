//! Where time and memory go.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use pprof::{ProfilerGuard, ProfilerGuardBuilder};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tikv_jemalloc_ctl::{epoch, stats};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::Operator;
use super::ask;
use super::refusal::Refusal;
use crate::http::Services;
use crate::shutdown::{Stage, Stop};

const SECONDS_MOST: u64 = 60;
/// More often, and what is seen is the looking.
const HZ_MOST: u16 = 1000;
/// Code that cannot be unwound from: a sample that falls into it is left out.
const NOT_UNWOUND: [&str; 2] = ["libgcc", "vdso"];
const SVG: &str = "image/svg+xml";

/// There is one signal and one timer for it in a process, so there is one profile at a time.
pub(super) struct Profiler {
    free: Arc<Semaphore>,
    stop: Stop,
}

/// A profile that is being taken. Ends when it is dropped, and then another one may begin.
struct Taking {
    guard: ProfilerGuard<'static>,
    _only: OwnedSemaphorePermit,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    seconds: u64,
    hz: u16,
}

impl Default for Asked {
    fn default() -> Self {
        // Not a round number: what happens a hundred times a second would always be seen, or never.
        Self { seconds: 10, hz: 99 }
    }
}

impl Profiler {
    pub(super) fn new(stop: Stop) -> Self {
        Self { free: Arc::new(Semaphore::new(1)), stop }
    }
}

pub(super) async fn profile(
    request: HttpRequest,
    _: Operator,
    profiler: web::Data<Profiler>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Refusal> {
    let Asked { seconds, hz } = ask::query(&request)?;
    if !(1..=SECONDS_MOST).contains(&seconds) || !(1..=HZ_MOST).contains(&hz) {
        return Err(Refusal::Query(format!("seconds is 1 to {SECONDS_MOST}, hz is 1 to {HZ_MOST}")));
    }
    let only = profiler.free.clone().try_acquire_owned();
    let only =
        only.map_err(|_| Refusal::Conflict("another profile is being taken: ask again when it is done".into()))?;
    let failed = |error: &dyn std::fmt::Display| Refusal::Internal(format!("no profile could be taken: {error}"));
    let begun = services.engine.spawn_blocking(move || {
        let guard = ProfilerGuardBuilder::default().frequency(hz.into()).blocklist(&NOT_UNWOUND).build();
        guard.map(|guard| Taking { guard, _only: only })
    });
    let taking = begun.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    let mut stop = profiler.stop.clone();
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
        // A shorter one is better than none: what a server does while it stops may be the question.
        () = stop.reached(Stage::EndStreams) => {}
    }
    let drawn = services.engine.spawn_blocking(move || draw(taking)).await;
    let svg = drawn.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    Ok(HttpResponse::Ok().content_type(SVG).body(svg))
}

fn draw(taking: Taking) -> pprof::Result<Vec<u8>> {
    let report = taking.guard.report().build()?;
    let mut svg = Vec::new();
    // Of a process that has done nothing there is nothing to draw.
    report.flamegraph(&mut svg)?;
    if svg.is_empty() {
        const NOTHING: &str = r#"<svg xmlns="http://www.w3.org/2000/svg" width="600" height="40"><text x="10" y="25">No processor time was used.</text></svg>"#;
        svg.extend(NOTHING.bytes());
    }
    Ok(svg)
}

pub(super) async fn heap(_: Operator) -> HttpResponse {
    let mut facts = Map::from_iter([("allocator".to_owned(), json!("jemalloc"))]);
    // Its numbers stand still until somebody asks for new ones.
    if epoch::advance().is_ok() {
        let numbers = [
            ("allocated_bytes", stats::allocated::read()),
            ("active_bytes", stats::active::read()),
            ("metadata_bytes", stats::metadata::read()),
            ("resident_bytes", stats::resident::read()),
            ("mapped_bytes", stats::mapped::read()),
            ("retained_bytes", stats::retained::read()),
        ];
        let known = numbers.into_iter().filter_map(|(name, number)| Some((name.to_owned(), json!(number.ok()?))));
        facts.extend(known);
    }
    let status = web::block(|| std::fs::read_to_string("/proc/self/status")).await;
    if let Ok(Ok(status)) = status {
        facts.extend(of_process(&status));
    }
    HttpResponse::Ok().json(facts)
}

/// What the kernel says: what the allocator does not know of is in it, too.
fn of_process(status: &str) -> Map<String, Value> {
    const NAMES: [(&str, &str); 6] = [
        ("VmRSS", "process_resident_bytes"),
        ("VmHWM", "process_resident_peak_bytes"),
        ("RssAnon", "process_anonymous_bytes"),
        ("RssFile", "process_file_bytes"),
        ("VmSwap", "process_swapped_bytes"),
        ("VmSize", "process_virtual_bytes"),
    ];
    let fact = |line: &str| {
        let (name, size) = line.split_once(':')?;
        let (_, ours) = NAMES.iter().find(|(theirs, _)| *theirs == name)?;
        let kilobytes: u64 = size.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(((*ours).to_owned(), json!(kilobytes.saturating_mul(1024))))
    };
    status.lines().filter_map(fact).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_kilobytes_are_bytes() {
        let facts = of_process("Name:\tsluice\nVmSize:\t  2048 kB\nVmRSS:\t      12 kB\nThreads:\t4\nVmHWM: much\n");
        assert_eq!(
            Value::Object(facts),
            json!({ "process_virtual_bytes": 2_097_152, "process_resident_bytes": 12_288 })
        );
    }
}
