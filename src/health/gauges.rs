//! What is known, as numbers.
//!
//! Those of each stream and each partition are written at a scrape, from the last look: a recorder would keep the ones of
//! streams that are gone.

use std::fmt::Write;
use std::time::Instant;

use super::Shared;
use super::report::on_the_clock;
use super::seen::{Last, Seen};
use super::state::State;
use crate::metrics as names;

/// Those that there is one of each.
pub(super) fn set(shared: &Shared, seen: &Seen) {
    let proven_ago = shared.trips.lock().told(seen.at).proven_ago;
    let age = proven_ago.unwrap_or_else(|| seen.at.saturating_duration_since(shared.started_at));
    metrics::gauge!(names::CANARY_AGE).set(age.as_secs_f64());
    let partitions = &seen.facts.partitions;
    metrics::gauge!(names::PARTITIONS_SICK).set((partitions.sick.len() + partitions.gone.len()) as f64);
    metrics::gauge!(names::EXPECTATIONS_UNMET).set(seen.facts.unmet.len() as f64);
}

/// The state that holds is one, and all others are none.
pub(super) fn say(now: State) {
    for state in State::ALL {
        metrics::gauge!(names::VERDICT, "state" => state.as_str()).set(if state == now { 1.0 } else { 0.0 });
    }
}

/// The others, as Prometheus reads them. Names of topics and streams have nothing that would have to be escaped.
pub(super) fn written(seen: &Seen) -> String {
    let mut text = String::new();
    let now = Instant::now();
    head(&mut text, names::STREAM_LAST_EVENT);
    for stream in &seen.streams {
        let Last { came_at, time } = stream.last;
        let Some(time) = came_at.map(|at| on_the_clock(at, now)).or(time) else { continue };
        let seconds = time.0 as f64 / 1_000.0;
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{}{{stream=\"{}\"}} {seconds}", names::STREAM_LAST_EVENT.0, stream.name);
    }
    head(&mut text, names::CONSUMER_LAG);
    for (partition, seat) in seen.partitions.iter().filter(|(_, seat)| seat.is_public) {
        let Some(lag) = seat.lag else { continue };
        let (name, topic, index) = (names::CONSUMER_LAG.0, &partition.topic, partition.index);
        let _ = writeln!(text, "{name}{{topic=\"{topic}\",partition=\"{index}\"}} {lag}");
    }
    text
}

fn head(text: &mut String, (name, help): (&str, &str)) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
}
