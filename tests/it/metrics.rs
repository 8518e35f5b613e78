//! What `/metrics` says is what the page of names says: `src/metrics.rs`, README's table, and what a server tells that has
//! done some work.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::json;
use sluice::metrics::{ALL, Kind, Metric};

use crate::server::{Options, Server};
use crate::support::{PATIENCE, eventually};

const TABLE_BEGINS: &str = "| metric | kind | labels | what it says |\n|---|---|---|---|\n";
/// All that happens in these tests has told them.
const TOLD: &[&str] = &[
    "sluice_streams_open",
    "sluice_streams_opened_total",
    "sluice_streams_closed_total",
    "sluice_events_sent_total",
    "sluice_events_sent_bytes_total",
    "sluice_delivery_seconds",
    "sluice_ring_bytes",
    "sluice_ring_age_seconds",
    "sluice_catchup_reads_total",
    "sluice_catchup_read_seconds",
    "sluice_refusals_total",
    "sluice_events_accepted_total",
    "sluice_events_accepted_bytes_total",
    "sluice_events_refused_total",
    "sluice_append_seconds",
    "sluice_http_request_seconds",
    "sluice_health_state",
    "sluice_schema_loads_total",
    "sluice_schema_last_loaded_seconds",
    "sluice_reloads_total",
    "sluice_build_info",
    "sluice_start_time_seconds",
    "sluice_panics_total",
    "sluice_tail_restarts_total",
];

/// One name as a scraper sees it.
#[derive(Debug, Default)]
struct Family {
    help: String,
    kind: String,
    labels: BTreeSet<String>,
    /// Each with its labels, as it stands there.
    samples: BTreeMap<String, f64>,
}

fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help");
            families.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else {
            let (sample, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let name = of_histogram.filter(|name| families.contains_key(*name)).unwrap_or(name);
            let family = families.get_mut(name).unwrap_or_else(|| panic!("{line} has no type"));
            let labels = labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty());
            family.labels.extend(labels.map(|label| label.split('=').next().expect("a label").to_owned()));
            family.samples.insert(sample.to_owned(), value.parse().expect("a number"));
        }
    }
    families
}

fn on_the_page(name: &str) -> &'static Metric {
    ALL.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{name} is not in src/metrics.rs"))
}

async fn scraped(server: &Server) -> BTreeMap<String, Family> {
    let answer = server.ask_admin("GET", "/metrics", "").await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    families(&answer.text())
}

fn event(stream: &str, number: i64) -> serde_json::Value {
    json!({ "$schema": "/test/event/1.0.0", "meta": { "stream": stream }, "n": number })
}

/// One of everything that is quickly had: events accepted and refused, a live reader, one who comes back, one who is
/// refused, requests for what is not there.
async fn work(server: &Server) {
    let mut live = server.stream("/v2/stream/test.event", "").await;
    for number in 0..3 {
        server.put(&event("test.event", number)).await;
        live.event().await;
    }
    let mut past = server.stream("/v2/stream/test.event?since=2020-01-01T00:00:00Z", "").await;
    past.event().await;
    server.post(&event("no.such.stream", 0).to_string()).await;
    for target in ["/v2/stream/no.such.stream", "/no/such/route", "/v1/stream-configs", "/"] {
        server.get(target).await;
    }
}

#[tokio::test]
async fn a_server_tells_nothing_that_is_not_on_the_page_and_tells_it_as_it_stands_there() {
    // What the ring has no longer is read from the log.
    let server = Server::start(Options::default().env("SLUICE__HUB__RING_BYTES", "64KiB")).await;
    let batch: Vec<_> = (0..400).map(|number| event("test.event", number)).collect();
    assert_eq!(server.post(&json!(batch).to_string()).await.status(), 201);
    work(&server).await;
    let all_told = eventually(PATIENCE, async || {
        let told = scraped(&server).await;
        TOLD.iter().all(|name| told.contains_key(*name))
    });
    let all_told = all_told.await;
    let told = scraped(&server).await;
    let missing: Vec<_> = TOLD.iter().filter(|name| !told.contains_key(**name)).collect();
    assert!(all_told, "never told: {missing:?}");
    for (name, family) in &told {
        let metric = on_the_page(name);
        assert_eq!(family.kind, metric.kind.as_str(), "{name}");
        assert_eq!(family.help, metric.help, "{name}");
        let of_histogram = matches!(metric.kind, Kind::Histogram(_)).then_some("le");
        let page: BTreeSet<String> = metric.labels.iter().copied().chain(of_histogram).map(str::to_owned).collect();
        // A name may stand there before there is anything to tell of it.
        if !family.samples.is_empty() {
            assert_eq!(family.labels, page, "the labels of {name}");
        }
    }
}

#[tokio::test]
async fn events_and_bytes_are_counted_in_and_out_by_stream() {
    let server = Server::start(Options::default()).await;
    let mut readers = Vec::new();
    for streams in ["test.event", "test.event", "test.event,mediawiki.recentchange"] {
        readers.push(server.stream(&format!("/v2/stream/{streams}"), "").await);
    }
    const EVENTS: i64 = 5;
    for number in 0..EVENTS {
        server.put(&event("test.event", number)).await;
        for reader in &mut readers {
            reader.event().await;
        }
    }
    let value = |told: &BTreeMap<String, Family>, name: &str, labels: &str| {
        told.get(name)
            .and_then(|family| family.samples.get(&format!("{name}{{{labels}}}")).copied())
            .unwrap_or_default()
    };
    let sent = eventually(PATIENCE, async || {
        let told = scraped(&server).await;
        value(&told, "sluice_events_sent_total", "stream=\"test.event\"") == 2.0 * EVENTS as f64
            && value(&told, "sluice_events_sent_total", "stream=\"(several)\"") == EVENTS as f64
    });
    assert!(
        sent.await,
        "two readers of one stream, one of two: {:?}",
        scraped(&server).await["sluice_events_sent_total"]
    );
    let told = scraped(&server).await;
    assert_eq!(
        value(&told, "sluice_events_accepted_total", "stream=\"test.event\",mode=\"guaranteed\""),
        EVENTS as f64
    );
    let taken = value(&told, "sluice_events_accepted_bytes_total", "stream=\"test.event\"");
    assert!(taken > 80.0 * EVENTS as f64 && taken < 1_000.0 * EVENTS as f64, "{taken}");
    let given = value(&told, "sluice_events_sent_bytes_total", "stream=\"test.event\"");
    assert!(given > 2.0 * taken, "an event weighs more on its way out: {given}");
    let delays = &told["sluice_delivery_seconds"].samples["sluice_delivery_seconds_count"];
    assert!(*delays >= 1.0 && *delays < 3.0 * EVENTS as f64, "a sample of what was sent: {delays}");
}

#[tokio::test]
async fn labels_are_bounded_whatever_clients_send() {
    let server = Server::start(Options::default()).await;
    // Canaries come and go meanwhile, and bring series of their own to others.
    const COUNTED: [&str; 2] = ["sluice_events_refused_total", "sluice_refusals_total"];
    let series = async || {
        let told = scraped(&server).await;
        let samples = told.values().flat_map(|family| family.samples.keys());
        let of_clients: Vec<&String> =
            samples.filter(|sample| sample.contains("none.") || sample.contains("/x")).collect();
        assert!(of_clients.is_empty(), "{of_clients:?}");
        COUNTED.map(|name| told[name].samples.len())
    };
    let ask = async |number: usize| {
        server.get(&format!("/{number}/x")).await;
        // Few: who is refused again and again waits for it.
        if number < 3 {
            server.get(&format!("/v2/stream/none.{number}")).await;
        }
        server.post(&event(&format!("none.{number}"), 0).to_string()).await;
    };
    ask(0).await;
    let before = series().await;
    for number in 1..40 {
        ask(number).await;
    }
    let counted = eventually(PATIENCE, async || server.metric("sluice_events_refused_total").await == 40.0);
    assert!(counted.await, "all are counted");
    assert_eq!(series().await, before, "39 more names are no more series");
}

fn table() -> String {
    let row = |metric: &Metric| {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {} | {} | {} |\n", metric.name, metric.kind.as_str(), labels.join(", "), metric.help)
    };
    ALL.iter().map(row).collect()
}

#[test]
fn the_readmes_table_is_the_page() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(&path).expect("the README");
    let (before, rest) = text.split_once(TABLE_BEGINS).expect("the README's table of metrics");
    let rows: usize = rest.lines().take_while(|line| line.starts_with('|')).map(|line| line.len() + 1).sum();
    if std::env::var("SLUICE_TEST_SNAPSHOTS").is_ok_and(|value| value == "write") {
        let text = format!("{before}{TABLE_BEGINS}{}{}", table(), &rest[rows..]);
        return fs::write(&path, text).expect("the README can be written");
    }
    for (told, is) in rest[..rows].lines().zip(table().lines()) {
        assert_eq!(
            told, is,
            "src/metrics.rs says otherwise; SLUICE_TEST_SNAPSHOTS=write writes the README's table anew"
        );
    }
    assert_eq!(rest[..rows].lines().count(), ALL.len(), "SLUICE_TEST_SNAPSHOTS=write writes the README's table anew");
}
