//! The times that readers ask for: `since` in a query.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::Timestamp;

/// Plain numbers below this are seconds, from it on milliseconds: 10^11 ms is 1973, 10^11 s is the year 5138.
const SECONDS_BELOW: i64 = 100_000_000_000;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`since` is not a time: '{0}'. Use ISO 8601 (2026-11-20T08:00:00Z), a date (2026-11-20) or milliseconds since 1970"
)]
pub struct SinceError(String);

/// ISO 8601 with any offset (none means UTC), a date alone, RFC 2822, or a number since 1970. `None` for an empty
/// text, which means: not asked. A `+` that form decoding turned into a space is understood.
pub fn parse_since(text: &str) -> Result<Option<Timestamp>, SinceError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    parse(text).map(Some).ok_or_else(|| SinceError(text.chars().take(64).collect()))
}

fn parse(text: &str) -> Option<Timestamp> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: i64 = text.parse().ok()?;
        let ms = if number < SECONDS_BELOW { number * 1000 } else { number };
        return Some(Timestamp(ms));
    }
    let restored = restore_plus(text);
    let text = restored.as_deref().unwrap_or(text);
    let zoned = text.parse::<jiff::Timestamp>().ok();
    // The calendar's last days are past the library's last moment; whoever asks for them means the end of time.
    let utc = |naive: DateTime| naive.to_zoned(TimeZone::UTC).map_or(jiff::Timestamp::MAX, |zoned| zoned.timestamp());
    let naive = || text.parse::<DateTime>().ok().map(utc);
    let mail = || jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
    let time = zoned.or_else(naive).or_else(mail)?;
    Some(Timestamp(time.as_millisecond()))
}

/// `…T06:45:17 02:00` was `…T06:45:17+02:00` before somebody forgot to escape the plus.
fn restore_plus(text: &str) -> Option<String> {
    let (time, offset) = text.rsplit_once(' ')?;
    let looks_like_offset = offset.len() >= 2 && offset.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
    (time.contains(['T', 't']) && time.starts_with(|c: char| c.is_ascii_digit()) && looks_like_offset)
        .then(|| format!("{time}+{offset}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_is_the_same_moment() {
        let forms = [
            "2025-08-29T06:45:17.001Z",
            "2025-08-29T08:45:17.001+02:00",
            "2025-08-29T08:45:17.001 02:00",
            "2025-08-29T08:45:17.001+0200",
            "2025-08-29T06:45:17.001",
            "2025-08-29 06:45:17.001",
            "1756449917001",
        ];
        for form in forms {
            assert_eq!(parse_since(form), Ok(Some(Timestamp(1_756_449_917_001))), "{form}");
        }
        assert_eq!(parse_since("2025-08-29"), Ok(Some(Timestamp(1_756_425_600_000))));
        assert_eq!(parse_since("1756449917"), Ok(Some(Timestamp(1_756_449_917_000))));
        assert_eq!(parse_since("Fri, 29 Aug 2025 06:45:17 GMT"), Ok(Some(Timestamp(1_756_449_917_000))));
        assert_eq!(parse_since(" "), Ok(None));
        let future = Ok(Some(Timestamp(jiff::Timestamp::MAX.as_millisecond())));
        assert_eq!(parse_since("9999-12-31"), future);
        assert!(parse_since("253402300799999").is_ok());
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in ["yesterday", "1h", "-1h", "2018-W24-99", "1e12", "0x10", "99999999999999999999", "2025-13-01"] {
            assert!(parse_since(text).is_err(), "{text}");
        }
    }
}
