//! `--demo`: synthetic `recentchange` events through the real intake path, so that the first curl shows life. Fields,
//! mix and sizes as measured on stream.wikimedia.org.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use crate::intake::{BodyError, Intake, Outcome, Request};
use crate::model::Timestamp;
use crate::shutdown::{Stage, Stop};

/// About 30 a second.
const EVENT_EVERY: Duration = Duration::from_millis(33);

/// Wiki, domain, and its share in a hundred.
const WIKIS: [(&str, &str, u32); 5] = [
    ("wikidatawiki", "www.wikidata.org", 33),
    ("commonswiki", "commons.wikimedia.org", 29),
    ("enwiki", "en.wikipedia.org", 15),
    ("frwiki", "fr.wikipedia.org", 12),
    ("mgwiktionary", "mg.wiktionary.org", 11),
];
/// Type, and its share in a hundred.
const TYPES: [(&str, u32); 4] = [("categorize", 49), ("edit", 41), ("log", 8), ("new", 2)];
const BOTS_IN_A_HUNDRED: u32 = 32;
const TITLES: [(&str, u32); 6] = [
    ("Q115322407", 0),
    ("File:Fallen giant - geograph.org.uk - 1676905.jpg", 6),
    ("Écluse du canal de Briare", 0),
    ("Sokajy:espaniola", 14),
    ("水門", 0),
    ("Шлюз", 0),
];
const USERS: [&str; 5] = ["GeographBot", "Ikotobaity", "BrookTheHumming", "Zoë", "~2026-31415-92"];
const COMMENTS: [&str; 4] = [
    "/* wbeditentity-update-languages-and-other-short:0||en */ Adding structured data to this newly uploaded image",
    "Nampiana tamin'ny sokajy [[:erradiquémosles]], jereo ny pejin-dresaka",
    "/* History */ typo, and the date of the second lock",
    "Undid revision 1078664490 by [[Special:Contributions/Zoë|Zoë]] ([[User talk:Zoë|talk]]): see the talk page",
];
/// What stays as it is in the path of a wiki's address.
const KEPT_IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b':');

/// Feeds events until the process stops.
pub(super) async fn feed(intake: Arc<Intake>, stop: Stop) {
    let mut random = Rng::new();
    let mut number = 3_000_000_000_u64;
    let mut tick = tokio::time::interval(EVENT_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut taken = true;
    loop {
        tick.tick().await;
        if stop.stage() > Stage::Running {
            return;
        }
        number += 1;
        let answer = intake.accept(Request::of_ours(event(&mut random, number).to_string().into())).await;
        let refused = refusal(answer);
        // Once, and not thirty times a second.
        if let Some(refused) = refused.as_ref().filter(|_| taken) {
            tracing::warn!(refused, "the demo's events are not taken");
        }
        taken = refused.is_none();
    }
}

fn refusal(answer: Result<Vec<Outcome>, BodyError>) -> Option<String> {
    match answer {
        Ok(outcomes) => outcomes.into_iter().find_map(|outcome| match outcome {
            Outcome::Refused(refusal) => Some(refusal.message),
            Outcome::Accepted | Outcome::Spooled => None,
        }),
        Err(e) => Some(e.to_string()),
    }
}

/// One event, its fields in the order of the real ones.
fn event(random: &mut Rng, number: u64) -> Value {
    let (wiki, domain) = weighted(random, &WIKIS.map(|(wiki, domain, share)| ((wiki, domain), share)));
    let kind = weighted(random, &TYPES);
    let (title, namespace) = any(random, &TITLES);
    let comment = any(random, &COMMENTS);
    let now = Timestamp::now();
    let server = format!("https://{domain}");
    let uri = format!("{server}/wiki/{}", utf8_percent_encode(&title.replace(' ', "_"), KEPT_IN_PATHS));
    let old = number - random.u64(1..1_000_000);
    let parts = [
        json!({
            "$schema": "/mediawiki/recentchange/1.0.0",
            "meta": {
                "uri": uri,
                "request_id": Uuid::new_v4(),
                "id": Uuid::new_v4(),
                "domain": domain,
                "stream": "mediawiki.recentchange",
                "dt": now.to_string(),
            },
            "id": number,
            "type": kind,
            "namespace": namespace,
            "title": title,
            "title_url": uri,
            "comment": comment,
            "timestamp": now.0 / 1000,
            "user": any(random, &USERS),
            "bot": random.u32(0..100) < BOTS_IN_A_HUNDRED,
            "notify_url": format!("{server}/w/index.php?diff={number}&oldid={old}&rcid={number}"),
        }),
        of_kind(random, kind, number, old),
        json!({
            "server_url": server,
            "server_name": domain,
            "server_script_path": "/w",
            "wiki": wiki,
            "parsedcomment": format!("<span dir=\"auto\"><span class=\"autocomment\">{title}: </span></span> {comment}"),
        }),
    ];
    parts.into_iter().filter_map(|part| part.as_object().cloned()).flatten().collect()
}

/// What only events of this type have.
fn of_kind(random: &mut Rng, kind: &str, number: u64, old: u64) -> Value {
    let bytes = random.u32(40..90_000);
    match kind {
        "edit" => json!({
            "minor": random.bool(),
            "patrolled": random.bool(),
            "length": { "old": bytes, "new": bytes + random.u32(0..900) },
            "revision": { "old": old, "new": number },
        }),
        "new" => json!({ "minor": false, "length": { "new": bytes }, "revision": { "new": number } }),
        "log" => json!({
            "log_id": number,
            "log_type": "move",
            "log_action": "move",
            "log_params": { "target": "水門 (disambiguation)", "noredir": "1" },
            "log_action_comment": "moved to a name of its own",
        }),
        _ => json!({}),
    }
}

fn any<T: Copy>(random: &mut Rng, of: &[T]) -> T {
    of[random.usize(0..of.len())]
}

fn weighted<T: Copy>(random: &mut Rng, of: &[(T, u32)]) -> T {
    let mut at = random.u32(0..of.iter().map(|(_, share)| share).sum());
    for (one, share) in of {
        if at < *share {
            return *one;
        }
        at -= share;
    }
    of[0].0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_sizes_that_were_measured() {
        let mut random = Rng::with_seed(7);
        let events: Vec<Value> = (0..1_000).map(|number| event(&mut random, 3_000_000_000 + number)).collect();
        let sizes: Vec<usize> = events.iter().map(|event| event.to_string().len()).collect();
        let (least, most) = (sizes.iter().min().copied(), sizes.iter().max().copied());
        assert!(least >= Some(800) && most <= Some(1_450), "{least:?} to {most:?}");
        let average = sizes.iter().sum::<usize>() / sizes.len();
        assert!((1_000..=1_200).contains(&average), "{average}");
        let share = |kind: &str| events.iter().filter(|event| event["type"] == kind).count();
        assert!((440..=540).contains(&share("categorize")) && (360..=460).contains(&share("edit")));
    }
}
