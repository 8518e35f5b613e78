//! `--demo`: synthetic `recentchange` events through the real intake path, so that the first curl shows life. Fields,
//! mix and sizes as measured on stream.wikimedia.org.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use crate::intake::{Intake, Outcome};
use crate::model::Timestamp;

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
const TITLES: [&str; 6] =
    ["Q64", "File:Fallen giant - geograph.org.uk - 1676905.jpg", "Écluse", "Sokajy:espaniola", "水門", "Шлюз"];
const USERS: [&str; 5] = ["GeographBot", "Ikotobaity", "BrookTheHumming", "Zoë", "217.0.113.9"];
const COMMENTS: [&str; 4] = [
    "/* wbeditentity-update-languages-and-other-short:0||en */ Adding structured data to this newly uploaded image",
    "Nampiana tamin'ny sokajy [[:erradiquémosles]]",
    "typo",
    "Undid revision 1078664490 by [[Special:Contributions/Example|Example]] ([[User talk:Example|talk]]): see the talk page",
];

/// Feeds events until the process ends.
pub(super) async fn feed(intake: Arc<Intake>) {
    let mut random = Rng::new();
    let mut number = 3_000_000_000_u64;
    let mut tick = tokio::time::interval(EVENT_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        number += 1;
        let event = event(&mut random, number).to_string();
        let refused = match intake.accept(Bytes::from(event)).await {
            Ok(outcomes) => outcomes.into_iter().find_map(|outcome| match outcome {
                Outcome::Refused(refusal) => Some(refusal.message),
                Outcome::Accepted => None,
            }),
            Err(e) => Some(e.to_string()),
        };
        if let Some(refused) = refused {
            tracing::warn!(refused, "a demo event was not taken");
        }
    }
}

fn event(random: &mut Rng, number: u64) -> Value {
    let (wiki, domain) = weighted(random, &WIKIS.map(|(wiki, domain, share)| ((wiki, domain), share)));
    let kind = weighted(random, &TYPES);
    let title = any(random, &TITLES);
    let comment = any(random, &COMMENTS);
    let now = Timestamp::now();
    let uri = format!("https://{domain}/wiki/{}", title.replace(' ', "_"));
    let mut event = json!({
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
        "namespace": if title.contains(':') { 14 } else { 0 },
        "title": title,
        "title_url": uri,
        "comment": comment,
        "timestamp": now.0 / 1000,
        "user": any(random, &USERS),
        "bot": random.u32(0..100) < BOTS_IN_A_HUNDRED,
        "notify_url": format!("https://{domain}/w/index.php?diff={number}&oldid={}", number - 7),
    });
    let more = match kind {
        "edit" | "new" => json!({
            "minor": random.bool(),
            "length": { "old": random.u32(0..90_000), "new": random.u32(0..90_000) },
            "revision": { "old": number - 7, "new": number },
        }),
        "log" => {
            json!({ "log_id": number, "log_type": "move", "log_action": "move", "log_params": { "noredir": "1" }, "log_action_comment": comment })
        }
        _ => json!({}),
    };
    let tail = json!({
        "server_url": format!("https://{domain}"),
        "server_name": domain,
        "server_script_path": "/w",
        "wiki": wiki,
        "parsedcomment": format!("<span dir=\"auto\">{comment}</span> <a href=\"/wiki/{title}\" title=\"{title}\">{title}</a>"),
    });
    if let Value::Object(fields) = &mut event {
        for part in [more, tail] {
            if let Value::Object(part) = part {
                fields.extend(part);
            }
        }
    }
    event
}

fn any<'a>(random: &mut Rng, of: &[&'a str]) -> &'a str {
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
        let sizes: Vec<usize> =
            (0..1_000).map(|number| event(&mut random, 3_000_000_000 + number).to_string().len()).collect();
        let average = sizes.iter().sum::<usize>() / sizes.len();
        assert!((800..=1_400).contains(&average), "{average}");
    }
}
