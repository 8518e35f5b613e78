//! Every metric on one page: name, kind, labels, buckets, help. Units are in the names, and are base units: seconds, bytes.
//! Labels come from enums or the catalogue, never from what a client sent.
//!
//! README's table is this page, and `config/prometheus` and `config/grafana` name nothing that is not on it: tests compare.

use metrics::Unit;

pub const RECORDS_SKIPPED: &str = "sluice_records_skipped_total";
pub const CATCHUP_READS: &str = "sluice_catchup_reads_total";
pub const CATCHUP_READ_BYTES: &str = "sluice_catchup_read_bytes_total";
pub const CATCHUP_READ_SECONDS: &str = "sluice_catchup_read_seconds";
pub const CATCHUP_READS_WAITING: &str = "sluice_catchup_reads_waiting";
pub const STREAMS_OPEN: &str = "sluice_streams_open";
pub const STREAMS_OPENED: &str = "sluice_streams_opened_total";
pub const STREAMS_CLOSED: &str = "sluice_streams_closed_total";
pub const EVENTS_SENT: &str = "sluice_events_sent_total";
pub const EVENTS_SENT_BYTES: &str = "sluice_events_sent_bytes_total";
pub const DELIVERY_SECONDS: &str = "sluice_delivery_seconds";
pub const RING_BYTES: &str = "sluice_ring_bytes";
pub const RING_AGE_SECONDS: &str = "sluice_ring_age_seconds";
pub const CHANNELS: &str = "sluice_channels";
pub const TAIL_RESTARTS: &str = "sluice_tail_restarts_total";
pub const HTTP_REQUEST_SECONDS: &str = "sluice_http_request_seconds";
pub const EVENTS_ACCEPTED: &str = "sluice_events_accepted_total";
pub const EVENTS_ACCEPTED_BYTES: &str = "sluice_events_accepted_bytes_total";
pub const EVENTS_LAST_ACCEPTED: &str = "sluice_events_last_accepted_seconds";
pub const EVENTS_REFUSED: &str = "sluice_events_refused_total";
pub const POSTS_REFUSED: &str = "sluice_posts_refused_total";
pub const EVENTS_OF_THE_FUTURE: &str = "sluice_events_future_total";
/// Reports of invalid events.
pub const ERROR_EVENTS: &str = "sluice_error_events_total";
pub const PANICS: &str = "sluice_panics_total";
pub const POSTS_DENIED: &str = "sluice_posts_denied_total";
pub const REFUSALS: &str = "sluice_refusals_total";
pub const REFUSALS_HELD: &str = "sluice_refusals_held";
pub const RELOADS: &str = "sluice_reloads_total";
pub const LIMITED: &str = "sluice_limited_total";
pub const VERDICT: &str = "sluice_health_state";
pub const VERDICT_CHANGES: &str = "sluice_health_changes_total";
pub const ADMIN_CHANGES: &str = "sluice_admin_changes_total";
pub const APPEND_SECONDS: &str = "sluice_append_seconds";
pub const PRODUCERS_REBUILT: &str = "sluice_kafka_producers_rebuilt_total";
pub const CATALOG_REFRESHES: &str = "sluice_catalog_refreshes_total";
pub const CATALOG_AGE_SECONDS: &str = "sluice_catalog_age_seconds";
pub const CATALOG_STREAMS: &str = "sluice_catalog_streams";
pub const CATALOG_STREAMS_LEFT_OUT: &str = "sluice_catalog_streams_left_out";
pub const TLS_HANDSHAKES: &str = "sluice_tls_handshakes_total";
pub const TLS_EXPIRES: &str = "sluice_tls_certificate_expires_seconds";
pub const TAIL_MOVED: &str = "sluice_kafka_tail_moved_total";
pub const SCHEMAS_CACHED: &str = "sluice_schemas_cached";
pub const SCHEMA_LOADS: &str = "sluice_schema_loads_total";
pub const SCHEMA_LAST_LOADED: &str = "sluice_schema_last_loaded_seconds";
pub const CANARY_SECONDS: &str = "sluice_canary_seconds";
pub const CANARY_TRIPS: &str = "sluice_canary_trips_total";
pub const CANARY_AGE: &str = "sluice_canary_age_seconds";
pub const PARTITIONS_SICK: &str = "sluice_partitions_sick";
pub const EXPECTATIONS_UNMET: &str = "sluice_expectations_unmet";
/// Name and help of those that no recorder keeps: `health` writes them at a scrape.
pub const STREAM_LAST_EVENT: (&str, &str) = (
    "sluice_stream_last_event_seconds",
    "When an event of the stream came by last, in seconds since 1970; its own time if that was before the start",
);
pub const CONSUMER_LAG: (&str, &str) =
    ("sluice_consumer_lag", "Records of the partition that the tail has not brought yet");
pub const TAILS_REBUILT: &str = "sluice_kafka_tails_rebuilt_total";
pub const SPOOLED: &str = "sluice_spooled_total";
pub const SPOOL_REPLAYED: &str = "sluice_spool_replayed_total";
pub const SPOOL_FAULTS: &str = "sluice_spool_faults_total";
pub const SPOOL_EVENTS: &str = "sluice_spool_events";
pub const SPOOL_BYTES: &str = "sluice_spool_bytes";
pub const SPOOL_MAX_BYTES: &str = "sluice_spool_max_bytes";
pub const SPOOL_OLDEST_SECONDS: &str = "sluice_spool_oldest_seconds";
pub const SPOOL_ASIDE: &str = "sluice_spool_aside";
pub const BUILD_INFO: &str = "sluice_build_info";
pub const START_TIME: &str = "sluice_start_time_seconds";

/// The label `stream` of events that belong to no one stream of the catalogue: read in a set of several, or refused
/// before it was known which.
pub const SEVERAL_STREAMS: &str = "(several)";
pub const NO_STREAM: &str = "-";

/// From what an answer from memory takes to what nobody waits for any more.
const LATENCIES: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

#[rustfmt::skip]
pub const ALL: &[Metric] = &[
    // Readers.
    gauge(STREAMS_OPEN, &[], "Streams open now"),
    counter(STREAMS_OPENED, &[], "Streams opened"),
    counter(STREAMS_CLOSED, &["reason"], "Streams closed, by reason; cut is what ended without a word"),
    counter(EVENTS_SENT, &["stream"], "Events written to readers; those of readers of several streams together as (several)"),
    counter(EVENTS_SENT_BYTES, &["stream"], "Bytes written to readers, with all that goes around events"),
    histogram(DELIVERY_SECONDS, &[], LATENCIES, "From the tail bringing an event to its bytes being in a live reader's socket; a sample of all"),
    gauge(RING_BYTES, &[], "Bytes of frames held in all rings"),
    gauge(RING_AGE_SECONDS, &["stream"], "How long the oldest event that memory still has of a stream has been there: readers who were away longer cost a read of the log"),
    gauge(CHANNELS, &[], "Stream sets that have a ring"),
    counter(RECORDS_SKIPPED, &[], "Records that are not a JSON object, and so were not sent to readers"),
    counter(CATCHUP_READS, &[], "Blocks read from the log for readers behind the ring"),
    counter(CATCHUP_READ_BYTES, &[], "Bytes read from the log for readers behind the ring"),
    histogram(CATCHUP_READ_SECONDS, &[], LATENCIES, "How long such a read took the log"),
    gauge(CATCHUP_READS_WAITING, &[], "Such reads that wait for their turn now"),
    counter(REFUSALS, &["status"], "Streams refused, by status; 200 is a stream that only asks for patience"),
    gauge(REFUSALS_HELD, &[], "Refusals whose last byte waits now, so that the client does not come back at once; and farewells to full sockets"),
    // Producers.
    counter(EVENTS_ACCEPTED, &["stream", "mode"], "Events accepted, by the log or the spool, by stream and mode"),
    counter(EVENTS_ACCEPTED_BYTES, &["stream"], "Bytes of these events, as they were appended"),
    gauge(EVENTS_LAST_ACCEPTED, &[], "When an event was last accepted, in seconds since 1970"),
    counter(EVENTS_REFUSED, &["code", "stream", "mode"], "Events not accepted, by cause, stream and mode"),
    counter(POSTS_REFUSED, &["cause"], "Requests refused as a whole, whatever events they had, by cause"),
    counter(POSTS_DENIED, &["cause"], "Requests to post that were refused because of who sent them, by cause"),
    counter(EVENTS_OF_THE_FUTURE, &[], "Events whose time was in the future: their record has the time of arrival"),
    counter(ERROR_EVENTS, &["result"], "Reports of invalid events to the error stream, by result"),
    histogram(APPEND_SECONDS, &[], LATENCIES, "How long the log took to acknowledge a batch"),
    // Both.
    histogram(HTTP_REQUEST_SECONDS, &["route", "status"], LATENCIES, "From a request's head to its answer's, on the public listener, by route and class of status; a stream's is over when it begins"),
    counter(LIMITED, &["limit", "mode"], "Times that a limit was reached, by limit; in mode shadow it was only counted, and nobody was refused"),
    gauge(VERDICT, &["state"], "1 for the state that holds (see /health), 0 for the others"),
    counter(VERDICT_CHANGES, &["to"], "Changes of the state, by the new one"),
    gauge(CANARY_AGE, &[], "Since a canary last came through, or since the start"),
    histogram(CANARY_SECONDS, &[], LATENCIES, "From the post of a canary until it was read back from a stream"),
    counter(CANARY_TRIPS, &["result"], "Canaries by what became of them; late is one that came after it was given up"),
    gauge(PARTITIONS_SICK, &[], "Partitions that nobody answers for"),
    gauge(EXPECTATIONS_UNMET, &[], "Streams of which fewer events come than the catalogue's expect_every says"),
    gauge(STREAM_LAST_EVENT.0, &["stream"], STREAM_LAST_EVENT.1),
    // What waits on disk for a log that is away.
    counter(SPOOLED, &[], "Events that were kept in the spool because the log did not take them"),
    counter(SPOOL_REPLAYED, &[], "Events of the spool that the log has now"),
    counter(SPOOL_FAULTS, &[], "Times that the spool could not be written or read: it was full, or its disk failed"),
    gauge(SPOOL_EVENTS, &[], "Events in the spool that wait for the log"),
    gauge(SPOOL_BYTES, &[], "Bytes of the events in the spool, those that were set aside included"),
    gauge(SPOOL_MAX_BYTES, &[], "Bytes that the spool may have, past which events are refused; not told where there is no limit"),
    gauge(SPOOL_OLDEST_SECONDS, &[], "Since the event that has waited longest in the spool was accepted"),
    gauge(SPOOL_ASIDE, &[], "Events in the spool that the log refuses for good"),
    // The log.
    gauge(CONSUMER_LAG.0, &["topic", "partition"], CONSUMER_LAG.1),
    counter(TAILS_REBUILT, &[], "Times that the consumer of the tail was made anew because it stood still although the broker answered, or failed"),
    counter(TAIL_RESTARTS, &[], "Times that the reading of the log failed by a fault of sluice and was begun anew"),
    counter(PRODUCERS_REBUILT, &[], "Kafka producers made anew after a fatal error"),
    counter(TAIL_MOVED, &[], "Partitions where retention or a new topic of the same name made the tail jump"),
    // What is configured.
    counter(CATALOG_REFRESHES, &["result"], "Times that the catalogue's address was asked, by what came of it"),
    gauge(CATALOG_AGE_SECONDS, &[], "Since the catalogue's address last gave an answer that was taken"),
    gauge(CATALOG_STREAMS, &[], "Streams and patterns of the catalogue"),
    gauge(CATALOG_STREAMS_LEFT_OUT, &[], "Entries of the catalogue's address whose settings make no sense"),
    gauge(SCHEMAS_CACHED, &[], "Compiled schemas held in memory"),
    counter(SCHEMA_LOADS, &["result"], "Looks for a schema, by result"),
    gauge(SCHEMA_LAST_LOADED, &[], "When a schema was last looked for and found, in seconds since 1970"),
    counter(TLS_HANDSHAKES, &["result"], "Connections that began with TLS, or should have: done; distrusted (the client does not believe the certificate), plain (HTTP), gone, timeout, failed"),
    gauge(TLS_EXPIRES, &[], "When the certificate of the public listener expires, in seconds since 1970; told where HTTPS is spoken"),
    counter(RELOADS, &["result"], "Times that the configuration was read again, by result: swapped, or refused whole"),
    counter(ADMIN_CHANGES, &["what"], "Changes that operators have made, by what was changed"),
    // The process.
    gauge(BUILD_INFO, &["version"], "1, with the version that runs"),
    gauge(START_TIME, &[], "When the process began, in seconds since 1970"),
    counter(PANICS, &[], "Faults of sluice itself that ended a request or a task"),
];

/// Rare, and alerts wait for the first of them: they are there from the start, as counters without labels are.
const FROM_ZERO: &[(&str, &str, &[&str])] = &[
    (RELOADS, "result", &["swapped", "refused"]),
    (SCHEMA_LOADS, "result", &["loaded", "unknown", "refused", "unavailable"]),
];

/// One line of the page.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

impl Metric {
    /// As its name says.
    pub fn unit(&self) -> Unit {
        match self.name.strip_suffix("_total").unwrap_or(self.name) {
            name if name.ends_with("_seconds") => Unit::Seconds,
            name if name.ends_with("_bytes") => Unit::Bytes,
            _ => Unit::Count,
        }
    }

    /// Tells the recorder what it means. A counter without labels is 0 from the start: one that appears with its first
    /// count would hide that count from who asks for increases.
    fn describe(&self) {
        match self.kind {
            Kind::Counter => {
                metrics::describe_counter!(self.name, self.unit(), self.help);
                if self.labels.is_empty() {
                    metrics::counter!(self.name).increment(0);
                }
            }
            Kind::Gauge => metrics::describe_gauge!(self.name, self.unit(), self.help),
            Kind::Histogram(_) => metrics::describe_histogram!(self.name, self.unit(), self.help),
        }
    }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    buckets: &'static [f64],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Histogram(buckets), labels, help }
}

/// Tells the recorder the whole page. Once, at the start.
pub fn describe() {
    ALL.iter().for_each(Metric::describe);
    for (name, label, values) in FROM_ZERO {
        values.iter().for_each(|value| metrics::counter!(*name, *label => *value).increment(0));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_begin_with_sluice_and_end_with_their_unit() {
        let mut seen = HashSet::new();
        for Metric { name, kind, help, .. } in ALL {
            assert!(seen.insert(name), "{name} is on the page twice");
            assert!(name.starts_with("sluice_"), "{name}");
            assert_eq!(name.ends_with("_total"), matches!(kind, Kind::Counter), "{name} is a {}", kind.as_str());
            assert!(!help.is_empty() && !help.ends_with('.'), "{name}: help is a phrase");
            if let Kind::Histogram(buckets) = kind {
                assert!(name.ends_with("_seconds") || name.ends_with("_bytes"), "{name} has no unit");
                assert!(buckets.is_sorted(), "{name}: buckets grow");
            }
        }
    }

    #[test]
    fn every_constant_of_this_page_is_in_its_table() {
        let page = include_str!("metrics.rs");
        let named = page.lines().filter_map(|line| line.strip_prefix("pub const ")?.split_once(": &str = \"sluice_"));
        for (constant, name) in named {
            let name = format!("sluice_{}", name.trim_end_matches("\";"));
            assert!(ALL.iter().any(|metric| metric.name == name), "{constant} is missing in ALL");
        }
    }
}
