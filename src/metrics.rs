//! Every metric's name, kind and help on one page. Labels come from enums or the catalogue, never from what a client sent.

use metrics::Unit;

pub const RECORDS_SKIPPED: &str = "sluice_records_skipped_total";
pub const CATCHUP_READS: &str = "sluice_catchup_reads_total";
pub const CATCHUP_READ_BYTES: &str = "sluice_catchup_read_bytes_total";
pub const STREAMS_OPEN: &str = "sluice_streams_open";
pub const STREAMS_OPENED: &str = "sluice_streams_opened_total";
pub const STREAMS_CLOSED: &str = "sluice_streams_closed_total";
pub const RING_BYTES: &str = "sluice_ring_bytes";
pub const CHANNELS: &str = "sluice_channels";
pub const EVENTS_ACCEPTED: &str = "sluice_events_accepted_total";
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
pub const SPOOLED: &str = "sluice_spooled_total";
pub const SPOOL_REPLAYED: &str = "sluice_spool_replayed_total";
pub const SPOOL_FAULTS: &str = "sluice_spool_faults_total";
pub const SPOOL_EVENTS: &str = "sluice_spool_events";
pub const SPOOL_BYTES: &str = "sluice_spool_bytes";
pub const SPOOL_OLDEST_SECONDS: &str = "sluice_spool_oldest_seconds";
pub const SPOOL_ASIDE: &str = "sluice_spool_aside";
pub const PRODUCERS_REBUILT: &str = "sluice_kafka_producers_rebuilt_total";
pub const CATALOG_REFRESHES: &str = "sluice_catalog_refreshes_total";
pub const CATALOG_AGE_SECONDS: &str = "sluice_catalog_age_seconds";
pub const CATALOG_STREAMS: &str = "sluice_catalog_streams";
pub const CATALOG_STREAMS_LEFT_OUT: &str = "sluice_catalog_streams_left_out";
pub const TAIL_MOVED: &str = "sluice_kafka_tail_moved_total";
pub const SCHEMAS_CACHED: &str = "sluice_schemas_cached";
pub const SCHEMA_LOADS: &str = "sluice_schema_loads_total";

/// Tells the recorder what each metric means. Once, at the start.
pub fn describe() {
    use metrics::{describe_counter as counter, describe_gauge as gauge, describe_histogram as histogram};
    counter!(RECORDS_SKIPPED, Unit::Count, "Records that are not a JSON object, and so were not sent to readers");
    counter!(CATCHUP_READS, Unit::Count, "Blocks read from the log for readers behind the ring");
    counter!(CATCHUP_READ_BYTES, Unit::Bytes, "Bytes read from the log for readers behind the ring");
    gauge!(STREAMS_OPEN, Unit::Count, "Streams open now");
    counter!(STREAMS_OPENED, Unit::Count, "Streams opened");
    counter!(STREAMS_CLOSED, Unit::Count, "Streams closed, by reason; cut is what ended without a word");
    gauge!(RING_BYTES, Unit::Bytes, "Bytes of frames held in all rings");
    gauge!(CHANNELS, Unit::Count, "Stream sets that have a ring");
    counter!(EVENTS_ACCEPTED, Unit::Count, "Events accepted, by the log or the spool, by stream and mode");
    gauge!(EVENTS_LAST_ACCEPTED, Unit::Seconds, "When an event was last accepted, in seconds since 1970");
    counter!(EVENTS_REFUSED, Unit::Count, "Events not accepted, by cause, stream and mode");
    counter!(POSTS_REFUSED, Unit::Count, "Requests refused as a whole, whatever events they had, by cause");
    counter!(
        EVENTS_OF_THE_FUTURE,
        Unit::Count,
        "Events whose time was in the future: their record has the time of arrival"
    );
    counter!(ERROR_EVENTS, Unit::Count, "Reports of invalid events to the error stream, by result");
    counter!(PANICS, Unit::Count, "Faults of sluice itself that ended a request or a task");
    counter!(POSTS_DENIED, Unit::Count, "Requests to post that were refused because of who sent them, by cause");
    counter!(REFUSALS, Unit::Count, "Streams refused, by status; 200 is a stream that only asks for patience");
    gauge!(
        REFUSALS_HELD,
        Unit::Count,
        "Refusals whose last byte waits now, so that the client does not come back at once; and farewells to full sockets"
    );
    counter!(
        LIMITED,
        Unit::Count,
        "Times that a limit was reached, by limit; in mode shadow it was only counted, and nobody was refused"
    );
    gauge!(VERDICT, Unit::Count, "1 for the state that holds (see /health), 0 for the others");
    counter!(VERDICT_CHANGES, Unit::Count, "Changes of the state, by the new one");
    counter!(RELOADS, Unit::Count, "Times that the configuration was read again, by result: swapped, or refused whole");
    counter!(ADMIN_CHANGES, Unit::Count, "Changes that operators have made, by what was changed");
    histogram!(APPEND_SECONDS, Unit::Seconds, "How long the log took to acknowledge a batch");
    counter!(SPOOLED, Unit::Count, "Events that were kept in the spool because the log did not take them");
    counter!(SPOOL_REPLAYED, Unit::Count, "Events of the spool that the log has now");
    counter!(
        SPOOL_FAULTS,
        Unit::Count,
        "Times that the spool could not be written or read: it was full, or its disk failed"
    );
    gauge!(SPOOL_EVENTS, Unit::Count, "Events in the spool that wait for the log");
    gauge!(SPOOL_BYTES, Unit::Bytes, "Bytes of the events in the spool, those that were set aside included");
    gauge!(SPOOL_OLDEST_SECONDS, Unit::Seconds, "Since the event that has waited longest in the spool was accepted");
    gauge!(SPOOL_ASIDE, Unit::Count, "Events in the spool that the log refuses for good");
    counter!(PRODUCERS_REBUILT, Unit::Count, "Kafka producers made anew after a fatal error");
    counter!(CATALOG_REFRESHES, Unit::Count, "Times that the catalogue's address was asked, by what came of it");
    gauge!(CATALOG_AGE_SECONDS, Unit::Seconds, "Since the catalogue's address last gave an answer that was taken");
    gauge!(CATALOG_STREAMS, Unit::Count, "Streams and patterns of the catalogue");
    gauge!(CATALOG_STREAMS_LEFT_OUT, Unit::Count, "Entries of the catalogue's address whose settings make no sense");
    counter!(TAIL_MOVED, Unit::Count, "Partitions where retention or a new topic of the same name made the tail jump");
    gauge!(SCHEMAS_CACHED, Unit::Count, "Compiled schemas held in memory");
    counter!(SCHEMA_LOADS, Unit::Count, "Looks for a schema, by result");
}
