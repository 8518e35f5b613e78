//! Events like those of `recentchange`, each with a stamp by which readers know it again.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Who sent an event, as which of its events, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Tells this run's events from all others in the log.
    pub(crate) run: u32,
    pub(crate) producer: u32,
    /// Counts a producer's events from 0, without gaps.
    pub(crate) seq: u64,
    pub(crate) sent_us: u64,
}

const FIELD: &str = "\"loadtest\":[";

impl Stamp {
    /// None: not an event of this tool.
    pub(crate) fn find(data: &[u8]) -> Option<Self> {
        let at = memchr::memmem::rfind(data, FIELD.as_bytes())?;
        let list = &data[at + FIELD.len()..];
        let list = std::str::from_utf8(&list[..memchr::memchr(b']', list)?]).ok()?;
        let mut numbers = list.split(',').map(|number| number.trim().parse::<u64>().ok());
        let mut number = || numbers.next().flatten();
        let (run, producer) = (number()?, number()?);
        let (run, producer) = (u32::try_from(run).ok()?, u32::try_from(producer).ok()?);
        Some(Self { run, producer, seq: number()?, sent_us: number()? })
    }
}

/// The partition that the server wrote into the event; the first mention is the one in `meta`.
pub(crate) fn partition(data: &[u8]) -> Option<u32> {
    const FIELD: &[u8] = b"\"partition\":";
    let at = memchr::memmem::find(data, FIELD)? + FIELD.len();
    let mut digits = data[at..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.try_fold(0u32, |sum, digit| sum.checked_mul(10)?.checked_add(u32::from(digit - b'0')))
}

/// Microseconds since 1970, so that processes agree on it.
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Writes one event of this stream: fields and sizes as recorded from the public service, 1.1 KB on average when the
/// server has added its part.
pub(crate) fn write(out: &mut String, stream: &str, stamp: Stamp) {
    let schema = schema_of(stream);
    let (domain, wiki) = WIKIS[fastrand::usize(..WIKIS.len())];
    let title = words(fastrand::usize(1..4), '_');
    let page = encoded(&title);
    let comment = words(fastrand::usize(3..16), ' ');
    let user = words(2, '_');
    let (request, id) = (fastrand::u128(..), fastrand::u128(..));
    let (rcid, old) = (fastrand::u32(..), fastrand::u32(..));
    let (length, seconds) = (fastrand::u16(..), stamp.sent_us / 1_000_000);
    let (bot, minor) = (fastrand::bool(), fastrand::bool());
    let Stamp { run, producer, seq, sent_us } = stamp;
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        r#"{{"$schema":"{schema}","meta":{{"uri":"https://{domain}/wiki/{page}","request_id":"{request}","id":"{id}","domain":"{domain}","stream":"{stream}","dt":"{dt}"}},"id":{rcid},"type":"edit","namespace":0,"title":"{title}","title_url":"https://{domain}/wiki/{page}","comment":"{comment}","timestamp":{seconds},"user":"{user}","bot":{bot},"notify_url":"https://{domain}/w/index.php?diff={new}&oldid={old}&rcid={rcid}","minor":{minor},"patrolled":true,"length":{{"old":{length},"new":{length}}},"revision":{{"old":{old},"new":{new}}},"server_url":"https://{domain}","server_name":"{domain}","server_script_path":"/w","wiki":"{wiki}","parsedcomment":"<span dir=\"auto\">{comment}</span>",{FIELD}{run},{producer},{seq},{sent_us}]}}"#,
        request = Uuid(request),
        id = Uuid(id),
        dt = iso(sent_us),
        new = u64::from(old) + 1,
    );
}

/// Writes one event of this stream in this many bytes, if it can be that small: what a producer posts when the server is to
/// add `meta.id`. Without a stamp, because nobody reads it here.
pub(crate) fn write_bare(out: &mut String, stream: &str, bytes: usize) {
    let schema = schema_of(stream);
    let (domain, wiki) = WIKIS[fastrand::usize(..WIKIS.len())];
    let title = words(2, '_');
    let (page, user, now_us) = (encoded(&title), words(2, '_'), now_us());
    let (rcid, old, length) = (fastrand::u32(..), fastrand::u32(..), fastrand::u16(..));
    let start = out.len();
    let _ = write!(
        out,
        r#"{{"$schema":"{schema}","meta":{{"uri":"https://{domain}/wiki/{page}","request_id":"{request}","domain":"{domain}","stream":"{stream}","dt":"{dt}"}},"id":{rcid},"type":"edit","namespace":0,"title":"{title}","timestamp":{seconds},"user":"{user}","bot":false,"minor":{minor},"length":{{"old":{length},"new":{length}}},"revision":{{"old":{old},"new":{new}}},"server_url":"https://{domain}","server_name":"{domain}","server_script_path":"/w","wiki":"{wiki}","comment":""#,
        request = Uuid(fastrand::u128(..)),
        dt = iso(now_us),
        seconds = now_us / 1_000_000,
        minor = fastrand::bool(),
        new = u64::from(old) + 1,
    );
    const END: &str = "\"}";
    while out.len() - start + END.len() < bytes {
        out.push_str(WORDS[fastrand::usize(..WORDS.len())]);
        out.push(' ');
    }
    while out.len() - start + END.len() > bytes && !out.ends_with(':') && !out.ends_with('"') {
        out.pop();
    }
    // A letter of several bytes may have gone for one.
    while out.len() - start + END.len() < bytes {
        out.push('.');
    }
    out.push_str(END);
}

/// Of the two that these events are valid by; both allow more fields than they name.
fn schema_of(stream: &str) -> &'static str {
    if stream == "test.event" { "/test/event/1.0.0" } else { "/mediawiki/recentchange/1.0.0" }
}

/// One SSE event of exactly this many bytes with its chunk framing, if it can be that small.
pub(crate) fn frame(bytes: usize, stamp: Stamp) -> Vec<u8> {
    let mut data = String::new();
    write(&mut data, "mediawiki.recentchange", stamp);
    let block = |padding: usize| format!("event: message\nid: [{:padding$}]\ndata: {data}\n\n", "");
    let framed = |block: &str| format!("{:x}\r\n{block}\r\n", block.len()).into_bytes();
    let bare = framed(&block(0)).len();
    framed(&block(bytes.saturating_sub(bare)))
}

const WIKIS: [(&str, &str); 6] = [
    ("www.wikidata.org", "wikidatawiki"),
    ("commons.wikimedia.org", "commonswiki"),
    ("en.wikipedia.org", "enwiki"),
    ("ja.wikipedia.org", "jawiki"),
    ("mg.wiktionary.org", "mgwiktionary"),
    ("fr.wikisource.org", "frwikisource"),
];
const WORDS: [&str; 12] = [
    "Änderung",
    "revision",
    "geograph",
    "матеріал",
    "added",
    "of",
    "category",
    "誘導",
    "the",
    "structured",
    "page",
    "un",
];

fn words(count: usize, between: char) -> String {
    let mut text = String::with_capacity(count * 10);
    for index in 0..count {
        text.extend((index > 0).then_some(between));
        text.push_str(WORDS[fastrand::usize(..WORDS.len())]);
    }
    text
}

/// As it may stand in a URI, which is what the schemas ask of `meta.uri`.
fn encoded(title: &str) -> String {
    let mut text = String::with_capacity(title.len() * 3);
    for byte in title.bytes() {
        match byte {
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => text.push(byte.into()),
            _ => _ = write!(text, "%{byte:02X}"),
        }
    }
    text
}

fn iso(us: u64) -> String {
    let time = i64::try_from(us).ok().and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
    format!("{:.3}", time.unwrap_or_default())
}

struct Uuid(u128);

impl std::fmt::Display for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hex = format!("{:032x}", self.0);
        write!(f, "{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_again() {
        let stamp = Stamp { run: 7, producer: 3, seq: 1 << 40, sent_us: now_us() };
        let mut event = String::new();
        write(&mut event, "mediawiki.recentchange", stamp);
        assert_eq!(Stamp::find(event.as_bytes()), Some(stamp));
        assert_eq!(Stamp::find(b"{\"loadtest\":[1,2]}"), None);
    }

    #[test]
    fn sizes_are_those_of_recorded_events() {
        let stamp = Stamp { run: 7, producer: 3, seq: 5, sent_us: now_us() };
        let sizes: Vec<usize> = (0..500)
            .map(|_| {
                let mut event = String::new();
                write(&mut event, "mediawiki.recentchange", stamp);
                event.len()
            })
            .collect();
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        // The server adds some 70 bytes; recorded ones have 881 to 1,368, and 1,111 on average.
        assert!((980..1_110).contains(&mean), "mean {mean}");
        assert!(sizes.iter().all(|size| (700..1_500).contains(size)), "{sizes:?}");
    }

    #[test]
    fn a_bare_event_has_the_size_asked_for() {
        for bytes in 780..840 {
            let mut event = String::from("[");
            write_bare(&mut event, "test.event", bytes);
            assert_eq!(event.len() - 1, bytes, "{event}");
        }
    }

    #[test]
    fn uris_have_only_what_a_uri_may_have() {
        assert_eq!(encoded("Änderung_of"), "%C3%84nderung_of");
    }

    #[tokio::test]
    async fn events_are_valid_by_their_schemas() {
        use sluice::schema::{Options, SchemaUri, Schemas};
        let fetcher = sluice::fetch::Fetcher::new().unwrap();
        let schemas = Schemas::new(&Options::default(), fetcher, tokio::runtime::Handle::current()).unwrap();
        for stream in ["test.event", "mediawiki.recentchange"] {
            let schema = schemas.load(&SchemaUri::parse(schema_of(stream)).unwrap()).await.unwrap();
            for seq in 0..100 {
                let mut event = String::new();
                match seq % 2 {
                    0 => write(&mut event, stream, Stamp { run: 7, producer: 3, seq, sent_us: now_us() }),
                    _ => write_bare(&mut event, stream, 800),
                }
                let value: serde_json::Value = serde_json::from_str(&event).unwrap();
                assert_eq!(schema.violations(&value), [], "{event}");
            }
        }
    }

    #[test]
    fn a_frame_has_the_size_asked_for() {
        let stamp = Stamp { run: 7, producer: 3, seq: 5, sent_us: now_us() };
        assert_eq!(frame(2_000, stamp).len(), 2_000);
    }

    #[test]
    fn the_partition_is_read_from_meta() {
        assert_eq!(partition(br#"{"meta":{"partition":12,"offset":5}}"#), Some(12));
        assert_eq!(partition(b"{}"), None);
    }
}
