//! The stream of sluice's own canaries. It stands in no catalogue, so that no list, page or pattern has it, and no entry of
//! a catalogue may say its name: only who has proved to be sluice itself is given it.

use std::sync::LazyLock;

use serde_json::json;

use super::settings::{Settings, settings_of};
use super::{Route, Stream};
use crate::model::{CANARY, StreamName, StreamSet, Topic};

static STREAM: LazyLock<Stream> = LazyLock::new(|| {
    let settings = json!({ "schema_title": "sluice/canary", "topics": [CANARY], "canary_events_enabled": false });
    let settings = settings_of(settings).and_then(|settings| Settings::read(&settings));
    Stream {
        name: StreamName::parse(CANARY).expect("it is a name: a test reads it"),
        topics: vec![Topic::new(CANARY)],
        settings: settings.expect("these are settings: a test reads them"),
    }
});

/// What a reader of the canaries reads.
pub fn canary_set() -> StreamSet {
    StreamSet::new(vec![STREAM.name.clone()], STREAM.topics.clone(), vec![])
}

/// Where a canary goes, whatever `intake.topic_prefix` says.
pub fn canary_route() -> Route<'static> {
    Route { topic: STREAM.topics[0].clone(), entry: STREAM.name.as_str(), settings: &STREAM.settings }
}

/// An entry that says the name would make a stream of the canaries.
pub(super) fn check(name: &str, settings: &Settings) -> Result<(), String> {
    let is_own = |text: &str| text == CANARY;
    let topics = settings.topics_of(name);
    let mut topics = topics.iter().chain(&settings.topics_allowed).map(Topic::as_str);
    let mut aliases = settings.stream_aliases.iter().map(String::as_str);
    if is_own(name) || topics.any(is_own) || aliases.any(is_own) {
        return Err(format!("'{CANARY}' is reserved: there sluice tries whether events flow; take another name"));
    }
    Ok(())
}
