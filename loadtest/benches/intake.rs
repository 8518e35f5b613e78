//! What an event costs between the body and the log: parsed, filled, judged, spliced.
//!
//! `cargo bench -p loadtest`. The event is as a producer sends it, 800 bytes, without `meta.id` and `meta.dt`.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};
use sluice::fetch::Fetcher;
use sluice::model::{Document, Step, steps_of};
use sluice::schema::{Options, Schema, SchemaUri, Schemas};

const EVENT_BYTES: usize = 800;

fn event(schema: &str, stream: &str) -> Bytes {
    let page = "Category:Pages_that_link_to_%C3%84nderung";
    let mut event = json!({
        "$schema": schema,
        "meta": {
            "uri": format!("https://commons.wikimedia.org/wiki/{page}"),
            "request_id": "8f3c1d1e-6a52-4c8e-9d1a-1f0a3f1f2f11",
            "domain": "commons.wikimedia.org",
            "stream": stream,
        },
        "id": 2_857_135_903_u64, "type": "edit", "namespace": 14, "title": "Category:Pages that link to Änderung",
        "timestamp": 1_756_449_917, "user": "A user", "bot": true, "minor": false, "patrolled": true,
        "length": {"old": 1_021, "new": 1_055}, "revision": {"old": 1_078_901_237_u64, "new": 1_079_012_341_u64},
        "server_url": "https://commons.wikimedia.org", "server_name": "commons.wikimedia.org",
        "server_script_path": "/w", "wiki": "commonswiki", "comment": "",
    });
    let bare = event.to_string().len();
    event["comment"] = "a word ".chars().cycle().take(EVENT_BYTES - bare).collect::<String>().into();
    event.to_string().into()
}

/// What intake adds to every event.
fn stamps() -> [(Vec<Step>, Value); 2] {
    let (id, dt) = ("01990000-0000-7000-8000-000000000000", "2025-08-29T06:45:17.001Z");
    [(steps_of("meta.id"), id.into()), (steps_of("meta.dt"), dt.into())]
}

fn parsed(text: &Bytes) -> Document {
    Document::parse(text.clone()).expect("an event")
}

fn stamped(text: &Bytes, stamps: &[(Vec<Step>, Value)]) -> Document {
    let mut document = parsed(text);
    for (path, value) in stamps {
        assert!(document.set(path, value.clone()), "the field can be set");
    }
    document
}

fn splicing(criterion: &mut Criterion) {
    let (text, stamps) = (event("/test/event/1.0.0", "test.event"), stamps());
    assert_eq!(text.len(), EVENT_BYTES);
    let mut group = criterion.benchmark_group("splice");
    group.throughput(Throughput::Elements(1));
    group.bench_function("parse", |bench| bench.iter(|| parsed(black_box(&text))));
    group.bench_function("parse, stamp, text", |bench| bench.iter(|| stamped(black_box(&text), &stamps).text()));
    group.finish();
}

fn judging(criterion: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let fetcher = Fetcher::new().expect("a client");
    let schemas = Schemas::new(&Options::default(), fetcher, runtime.handle().clone()).expect("the built-in schemas");
    let load = |uri: &str| -> Arc<Schema> {
        let uri = SchemaUri::parse(uri).expect("a schema URI");
        runtime.block_on(schemas.load(&uri)).expect("a schema")
    };
    let (stamps, mut group) = (stamps(), criterion.benchmark_group("judge"));
    group.throughput(Throughput::Elements(1));
    for (uri, stream) in
        [("/test/event/1.0.0", "test.event"), ("/mediawiki/recentchange/1.0.0", "mediawiki.recentchange")]
    {
        let (text, schema) = (event(uri, stream), load(uri));
        let ready = || {
            let mut document = stamped(&text, &stamps);
            schema.fill_defaults(&mut document);
            document
        };
        assert_eq!(schema.violations(ready().value()), [], "{stream}: the event is valid");
        let document = ready();
        group.bench_function(format!("{stream}: violations"), |bench| {
            bench.iter(|| schema.violations(black_box(document.value())));
        });
        group.bench_function(format!("{stream}: fill defaults"), |bench| {
            let fill = |mut document: Document| {
                schema.fill_defaults(&mut document);
                document
            };
            bench.iter_batched(|| stamped(&text, &stamps), fill, BatchSize::SmallInput);
        });
        group.bench_function(format!("{stream}: all"), |bench| {
            bench.iter(|| {
                let document = ready();
                assert!(schema.violations(document.value()).is_empty(), "the event is valid");
                document.text()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, splicing, judging);
criterion_main!(benches);
