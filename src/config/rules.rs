//! What a value may be, beyond its type.

use std::time::Duration;

use super::Config;
use crate::health::CANARY_EVERY_LEAST;
use crate::http::is_token;
use crate::{intake, schema};

/// Worker threads that anybody could mean.
const WORKERS_MOST: usize = 1024;
/// A reader whose place is settled late may not be told of it for longer than this.
const HEARTBEAT_LEAST: Duration = Duration::from_secs(1);
/// Canaries that come more seldom say nothing of now.
const CANARY_EVERY_MOST: Duration = Duration::from_secs(3_600);
/// Canaries that have to be lost before silence means something.
const CANARIES_LEAST: u32 = 3;
/// What sluice's own canary needs, and more: without it /health would never be well.
const CANARY_ROOM: u64 = 512;
const NO_ROOM: &str = "less than 512 bytes: the canary by which /health knows that events flow would not fit";
/// Deepest nesting that every JSON parser on the way can follow.
const DEPTH_MOST: usize = 128;

/// A key, and what is wrong with it.
type Fault = (String, String);

/// Every rule that is broken.
pub(super) fn broken(config: &Config) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut check = |key: &str, holds: bool, fault: &str| {
        if !holds {
            faults.push((key.to_owned(), fault.to_owned()));
        }
    };
    let Config { http, admin, catalog, schema, hub, intake, limits, stop, health, .. } = config;
    check("http.listen", is_address(&http.listen), "not ADDRESS:PORT, such as 127.0.0.1:8888");
    check("http.workers", http.workers <= WORKERS_MOST, "more than 1024");
    let (cert, key) = (http.tls_cert.is_some(), http.tls_key.is_some());
    check("http.tls_key", key || !cert, "not given, and http.tls_cert is: HTTPS needs both");
    check("http.tls_cert", cert || !key, "not given, and http.tls_key is: HTTPS needs both");
    check("http.serve", !http.serve.is_empty(), "nothing: name \"in\", \"out\" or both");
    let admin_is_right = admin.listen.as_deref().is_none_or(|listen| listen == "off" || is_address(listen));
    check("admin.listen", admin_is_right, "not ADDRESS:PORT, such as 127.0.0.1:9102, and not \"off\"");
    let token_is_right = admin.token.as_ref().is_none_or(|token| is_token(&token.0));
    check("admin.token", token_is_right, "fewer than 16 bytes, or others than printable ASCII without spaces");
    let socket_is_right = admin.socket.as_ref().is_none_or(|path| !path.as_os_str().is_empty());
    check("admin.socket", socket_is_right, "empty: name a file, such as /run/sluice/admin.sock");
    let handover_is_right = stop.handover_socket.as_ref().is_none_or(|path| !path.as_os_str().is_empty());
    check("stop.handover_socket", handover_is_right, "empty: name a file, such as /run/sluice/handover.sock");
    check("stop.deadline", !stop.deadline.is_zero(), "0: nothing could be finished");
    let place = catalog.place().err().unwrap_or_default();
    check("catalog.source", place.is_empty(), &place);
    let service_is_right = catalog.destination_event_service.as_deref().is_none_or(is_service);
    check("catalog.destination_event_service", service_is_right, "not a service's name, such as eventgate-main");
    check("catalog.shrink_max_percent", catalog.shrink_max_percent <= 100, "more than 100");
    check(
        "schema.bases",
        schema.bases.iter().all(|base| schema::Options::is_base(base)),
        "neither folders nor addresses that begin with http:// or https://",
    );
    check("schema.latest_ttl", !schema.latest_ttl.is_zero(), "0: latest would be looked for at every event");
    check("hub.heartbeat", hub.heartbeat >= HEARTBEAT_LEAST, "less than 1s");
    check("hub.ring_bytes", hub.ring_bytes != Some(0), "0: readers could not be served from memory at all");
    let most = intake::BYTES_MOST;
    let has_room = |bytes| bytes == 0 || bytes >= CANARY_ROOM;
    check("intake.max_body_bytes", intake.max_body_bytes <= most, "more than 512MiB, the most there is (0 means that)");
    check("intake.max_body_bytes", has_room(intake.max_body_bytes), NO_ROOM);
    check("intake.max_event_bytes", intake.max_event_bytes <= most, "more than 512MiB, the most there is");
    check("intake.max_event_bytes", has_room(intake.max_event_bytes), NO_ROOM);
    check("intake.max_depth", (2..=DEPTH_MOST).contains(&intake.max_depth), "not between 2 (meta is one) and 128");
    check("intake.deadline", !intake.deadline.is_zero(), "0: no event could be taken in time");
    let often_enough = (CANARY_EVERY_LEAST..=CANARY_EVERY_MOST).contains(&health.canary_every);
    check("health.canary_every", often_enough, "not between 250ms and 1h");
    let time_for_some = health.stall_after >= health.canary_every.saturating_mul(CANARIES_LEAST);
    check(
        "health.stall_after",
        time_for_some,
        "less than three times health.canary_every: one lost canary would be a verdict",
    );
    let of_kafka = config.log.kafka.faults(config.intake.log_deadline()).into_iter();
    faults.extend(intake::auth::faults(intake));
    faults.extend(limits.faults(None).into_iter().map(|(key, fault)| (format!("limits.{key}"), fault)));
    faults.extend(of_kafka.map(|fault| (format!("log.kafka.properties.{}", fault.key), fault.why)));
    faults
}

fn is_service(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}
