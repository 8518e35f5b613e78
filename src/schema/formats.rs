//! The formats of AJV 6 in its `fast` mode: shapes rather than meanings, each checked in one pass.

use std::net::Ipv6Addr;

/// Bytes of an expression that the format `regex` looks at; a longer one is not one.
const REGEX_BYTES_MAX: usize = 10_000;
const REGEX_COMPILED_BYTES_MAX: usize = 1 << 20;

pub(super) type Check = fn(&str) -> bool;

/// Every format there is: those of AJV 6, and those that drafts since 07 added.
pub(super) const ALL: &[(&str, Check)] = &[
    ("date", is_date),
    ("time", is_time),
    ("date-time", is_date_time),
    ("duration", is_duration),
    ("uri", is_uri),
    ("iri", is_uri),
    ("uri-reference", is_uri_reference),
    ("iri-reference", is_uri_reference),
    ("uri-template", is_uri_template),
    ("url", is_url),
    ("email", is_email),
    ("hostname", is_hostname),
    ("ipv4", is_ipv4),
    ("ipv6", is_ipv6),
    ("regex", is_regex),
    ("uuid", is_uuid),
    ("json-pointer", is_json_pointer),
    ("json-pointer-uri-fragment", is_json_pointer_uri_fragment),
    ("relative-json-pointer", is_relative_json_pointer),
];

pub(super) fn check_of(name: &str) -> Option<Check> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, check)| *check)
}

/// Takes what has this shape from the front: `d` is a digit, a digit one up to it, anything else itself.
fn shaped<'a>(text: &'a str, shape: &str) -> Option<&'a str> {
    let bytes = text.as_bytes();
    let fits = bytes.len() >= shape.len()
        && shape.bytes().zip(bytes).all(|(wanted, &found)| match wanted {
            b'd' => found.is_ascii_digit(),
            b'0'..=b'9' => (b'0'..=wanted).contains(&found),
            other => found == other,
        });
    fits.then(|| &text[shape.len()..])
}

fn is_date(text: &str) -> bool {
    after_date(text).is_some_and(str::is_empty)
}

fn after_date(text: &str) -> Option<&str> {
    shaped(text, "dddd-1d-3d")
}

fn is_time(text: &str) -> bool {
    after_clock(text).is_some_and(|zone| zone.is_empty() || is_zone(zone))
}

fn is_date_time(text: &str) -> bool {
    let clock = after_date(text).and_then(|rest| {
        let mut chars = rest.chars();
        let separator = chars.next()?;
        (matches!(separator, 't' | 'T') || is_white_space(separator)).then_some(chars.as_str())
    });
    clock.and_then(after_clock).is_some_and(is_zone)
}

fn after_clock(text: &str) -> Option<&str> {
    let rest = shaped(text, "2d:5d:5d").or_else(|| text.strip_prefix("23:59:60"))?;
    let Some(fraction) = rest.strip_prefix('.') else { return Some(rest) };
    let end = fraction.bytes().take_while(u8::is_ascii_digit).count();
    // A dot with no digit is no fraction, and no zone either.
    if end == 0 { None } else { Some(&fraction[end..]) }
}

fn is_zone(text: &str) -> bool {
    match text.as_bytes() {
        [b'z' | b'Z'] => true,
        [b'+' | b'-', digits @ ..] => match digits {
            [hours @ .., b':', a, b] => hours.len() == 2 && all_digits(hours) && all_digits(&[*a, *b]),
            plain => matches!(plain.len(), 2 | 4) && all_digits(plain),
        },
        _ => false,
    }
}

fn all_digits(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_digit)
}

/// What `\s` means in JavaScript.
fn is_white_space(char: char) -> bool {
    (char.is_whitespace() && char != '\u{85}') || char == '\u{feff}'
}

/// ISO 8601 as RFC 3339 has it: `P3Y6M4DT12H30M5S`, `P4W`.
fn is_duration(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('P') else { return false };
    let (date, time) = rest.split_once('T').map_or((rest, None), |(date, time)| (date, Some(time)));
    let weeks = time.is_none() && units_of(date, "W") == Some(1);
    let date = units_of(date, "YMD");
    let time = time.map(|time| units_of(time, "HMS").filter(|&count| count > 0));
    weeks
        || match (date, time) {
            (Some(count), None) => count > 0,
            (Some(_), Some(Some(_))) => true,
            _ => false,
        }
}

/// How many numbers with a unit there are, if there is nothing else and the units are in order.
fn units_of(text: &str, units: &str) -> Option<usize> {
    let mut units = units.chars();
    let mut rest = text;
    let mut count = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit = rest[digits..].chars().next().filter(|_| digits > 0)?;
        units.by_ref().find(|&known| known == unit)?;
        rest = &rest[digits + 1..];
        count += 1;
    }
    Some(count)
}

/// What follows the scheme's colon.
fn after_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(':')?;
    let mut bytes = scheme.bytes();
    let fits = bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    fits.then_some(rest)
}

fn is_uri(text: &str) -> bool {
    after_scheme(text).is_some_and(|rest| !rest.contains(is_white_space))
}

/// A path with at most one fragment; no backslash before, none in the fragment, no white space anywhere.
fn is_uri_reference(text: &str) -> bool {
    let (path, fragment) = text.split_once('#').map_or((text, None), |(path, fragment)| (path, Some(fragment)));
    // What stands before a path may end anywhere, so its first character is the first one that can be read as one.
    let begins_well = !path.starts_with('\\') || path.is_empty();
    begins_well
        && !path.contains(is_white_space)
        && fragment.is_none_or(|rest| !rest.contains(|char| is_white_space(char) || char == '\\'))
}

fn is_uri_template(text: &str) -> bool {
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let taken = match char {
            '{' => rest.find('}').filter(|&end| is_expression(&rest[1..end])).map(|end| end + 1),
            '%' => is_escaped(rest).then_some(3),
            '\0'..=' ' | '"' | '\'' | '<' | '>' | '\\' | '^' | '`' | '|' | '}' => None,
            other => Some(other.len_utf8()),
        };
        let Some(taken) = taken else { return false };
        rest = &rest[taken..];
    }
    true
}

/// Inside the braces of a template.
fn is_expression(text: &str) -> bool {
    let names = text.strip_prefix(['+', '#', '.', '/', ';', '?', '&', '=', ',', '!', '@', '|']).unwrap_or(text);
    names.split(',').all(|name| {
        let name = match name.split_once(':') {
            Some((name, length)) => {
                let fits = (1..=4).contains(&length.len()) && all_digits(length.as_bytes()) && !length.starts_with('0');
                if fits { name } else { "" }
            }
            None => name.strip_suffix('*').unwrap_or(name),
        };
        let mut rest = name;
        while let Some(byte) = rest.bytes().next() {
            let taken = match byte {
                b'%' if is_escaped(rest) => 3,
                b'_' => 1,
                other if other.is_ascii_alphanumeric() => 1,
                _ => return false,
            };
            rest = &rest[taken..];
        }
        !name.is_empty()
    })
}

/// Whether it begins with `%` and two hex digits.
fn is_escaped(text: &str) -> bool {
    matches!(text.as_bytes(), [b'%', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
}

/// http, https or ftp, with a host that anybody could reach.
fn is_url(text: &str) -> bool {
    let after =
        |scheme: &str| text.get(..scheme.len()).filter(|start| start.eq_ignore_ascii_case(scheme)).map(str::len);
    let Some(start) = ["http://", "https://", "ftp://"].into_iter().find_map(after) else { return false };
    let rest = &text[start..];
    if rest.contains(is_white_space) {
        return false;
    }
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = host_and_port.split_once(':').map_or((host_and_port, None), |(host, port)| (host, Some(port)));
    let port_fits = port.is_none_or(|port| (2..=5).contains(&port.len()) && all_digits(port.as_bytes()));
    port_fits && (host.parse().is_ok_and(is_public) || is_named_host(host))
}

fn is_public(address: std::net::Ipv4Addr) -> bool {
    let [first, .., last] = address.octets();
    let reachable = !address.is_private() && !address.is_loopback() && !address.is_link_local();
    reachable && (1..=223).contains(&first) && (1..=254).contains(&last)
}

/// Labels of letters and digits of any script, the last of two letters or more.
fn is_named_host(host: &str) -> bool {
    let fits = |char: char| char.is_ascii_alphanumeric() || ('\u{a1}'..='\u{ffff}').contains(&char);
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c == '-' || fits(c))
    };
    host.rsplit_once('.').is_some_and(|(labels, last)| {
        let last_fits = last.chars().count() >= 2 && last.chars().all(|char| fits(char) && !char.is_ascii_digit());
        last_fits && labels.split('.').all(label)
    })
}

fn is_email(text: &str) -> bool {
    text.split_once('@').is_some_and(|(local, domain)| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&byte);
        !local.is_empty() && local.bytes().all(fits) && domain.split('.').all(is_label)
    })
}

fn is_hostname(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    name.len() <= 253 && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_ipv4(text: &str) -> bool {
    let mut parts = 0;
    text.split('.').all(|part| {
        parts += 1;
        (1..=3).contains(&part.len()) && all_digits(part.as_bytes()) && part.parse::<u8>().is_ok()
    }) && parts == 4
}

fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    zone.is_none_or(|zone| !zone.is_empty()) && address.parse::<Ipv6Addr>().is_ok()
}

/// What JavaScript takes as an expression, as far as an engine without look-around and back references can tell: those
/// are read as plain groups, and as nothing.
fn is_regex(text: &str) -> bool {
    if text.len() > REGEX_BYTES_MAX || text.ends_with("\\Z") {
        return false;
    }
    let plain = ["(?=", "(?!", "(?<=", "(?<!"].iter().fold(text.to_owned(), |text, around| text.replace(around, "(?:"));
    let mut readable = String::with_capacity(plain.len());
    let mut chars = plain.chars().peekable();
    while let Some(char) = chars.next() {
        match (char, chars.peek()) {
            ('\\', Some('1'..='9' | '/')) => {
                let escaped = chars.next().unwrap_or_default();
                readable.push_str(if escaped == '/' { "/" } else { "(?:)" });
            }
            ('\\', Some(&escaped)) => {
                chars.next();
                readable.extend(['\\', escaped]);
            }
            _ => readable.push(char),
        }
    }
    regex::RegexBuilder::new(&readable).size_limit(REGEX_COMPILED_BYTES_MAX).build().is_ok()
}

fn is_uuid(text: &str) -> bool {
    const URN: &str = "urn:uuid:";
    let has_urn = text.get(..URN.len()).is_some_and(|start| start.eq_ignore_ascii_case(URN));
    let bytes = if has_urn { &text.as_bytes()[URN.len()..] } else { text.as_bytes() };
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn is_json_pointer(text: &str) -> bool {
    (text.is_empty() || text.starts_with('/')) && tildes_fit(text)
}

/// A tilde stands before 0 or 1 only.
fn tildes_fit(text: &str) -> bool {
    text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']))
}

fn is_json_pointer_uri_fragment(text: &str) -> bool {
    let Some(pointer) = text.strip_prefix('#') else { return false };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.!$&'()*+,;:=@/~%".contains(&byte);
    is_json_pointer(pointer)
        && pointer.bytes().all(fits)
        && pointer.match_indices('%').all(|(at, _)| is_escaped(&pointer[at..]))
}

fn is_relative_json_pointer(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    let number_fits = number == "0" || (!number.is_empty() && !number.starts_with('0'));
    number_fits && (rest == "#" || is_json_pointer(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Format, texts that have it, texts that do not.
    type Case = (&'static str, &'static [&'static str], &'static [&'static str]);

    const CASES: &[Case] = &[
        (
            "date",
            &["2020-01-01", "9999-19-39"],
            &["2020-1-1", "2020-20-01", "2020-01-40", "2020-01-01T", "", "２020-01-01"],
        ),
        (
            "time",
            &["23:59:60", "29:59:59Z", "12:00:00.5+01:00", "12:00:00"],
            &["3:00:00", "12:60:00", "12:00:00.", "12:00:00 Z"],
        ),
        (
            "date-time",
            &[
                "2020-01-01T00:00:00Z",
                "2020-01-01t00:00:00z",
                "2020-01-01 00:00:00+00:00",
                "2020-01-01\t00:00:00+0000",
                "2020-01-01T00:00:00.123456789+00",
                "2020-19-39T29:59:59Z",
                "2020-01-01T23:59:60Z",
                "2020-01-01\u{a0}00:00:00Z",
            ],
            &[
                "2020-01-01",
                "2020-01-01T00:00:00",
                "2020-01-01T00:00:00.Z",
                "2020-01-01X00:00:00Z",
                "yesterday",
                "2020-01-01T00:00:00+000",
                "2020-01-01T00:00:00+0:00",
                "2020-01-01T00:00:00ZZ",
                " 2020-01-01T00:00:00Z",
                "2020-01-01T00:00:00+00:0",
                "2020-01-01é0:00:00Z",
                "",
            ],
        ),
        (
            "duration",
            &["P3Y6M4DT12H30M5S", "P4W", "PT1M", "P1D"],
            &["P", "PT", "P1", "P1H", "PT1D", "P1D1Y", "1D", "P1W1D", "Pé"],
        ),
        ("uri", &["http://x/y", "urn:a", "a:", "a:b\\c"], &["/x", "x y:z", "http://a b", "1a:b", ""]),
        (
            "uri-reference",
            &["", "/a/b?c=d#e", "//host/x", "http://x", "a\\b", "#", "https://x/y_(z)?a=[1]"],
            &["\\a", "a b", "a#b#\\c", "#\\", "a\tb"],
        ),
        (
            "uri-template",
            &["http://x/{a}", "{?a,b*}", "{+a:3}", "", "x{a%20}", "é"],
            &["{", "}", "{}", "{a", "a b", "%2", "{a:0}", "{a:12345}", "{é}"],
        ),
        (
            "url",
            &["http://example.com", "https://a.b.co:8080/x?y#z", "ftp://u:p@x.org/a", "http://8.8.8.8/"],
            &[
                "http://localhost",
                "http://10.0.0.1",
                "mailto:x@y.zz",
                "http://x .com",
                "http://-a.com",
                "http://a.b:1",
                "x",
            ],
        ),
        ("email", &["a@b", "a.b+c@d.example"], &["a", "@b", "a@", "a@b@c", "a@-b", "a b@c", "é@b"]),
        ("hostname", &["a", "a.b.", "x-1.example"], &["", "-a", "a-", "a..b", "a_b", "é", "."]),
        (
            "ipv4",
            &["1.2.3.4", "255.255.255.255", "01.02.03.004"],
            &["1.2.3", "256.1.1.1", "1.2.3.4.5", "1.2.3.+4", "0001.2.3.4"],
        ),
        ("ipv6", &["::1", "1::", "fe80::1%eth0", "::ffff:1.2.3.4"], &["", ":", "1::2::3", "g::", "::1%"]),
        ("regex", &["^a+$", "(?=a)b", r"(a)\1", r"\/x", r"\d{1,3}", "[a-z]"], &["(", "[", "a{2,1}", r"a\Z", "*"]),
        (
            "uuid",
            &["12345678-1234-1234-1234-123456789abc", "URN:UUID:12345678-1234-1234-1234-123456789ABC"],
            &[
                "12345678123412341234123456789abc",
                "g2345678-1234-1234-1234-123456789abc",
                "12345678-1234-1234-1234-123456789é",
            ],
        ),
        ("json-pointer", &["", "/", "/a/~0~1/é"], &["a", "/~", "/~2"]),
        ("json-pointer-uri-fragment", &["#", "#/a%20b", "#/~1"], &["", "/a", "#a", "#/%2", "#/é", "#/~"]),
        ("relative-json-pointer", &["0", "1/a", "10#", "0#"], &["", "01", "/a", "1#a", "-1", "1a"]),
    ];

    #[test]
    fn formats_are_checked_by_their_shape() {
        for (format, right, wrong) in CASES {
            let check = check_of(format).expect(format);
            for text in *right {
                assert!(check(text), "{format}: {text:?}");
            }
            for text in *wrong {
                assert!(!check(text), "{format}: {text:?}");
            }
        }
    }

    #[test]
    fn no_text_makes_a_format_panic() {
        let pieces = [
            "é", "{", "}", "%", "2", "0:", "-", "T", "Z", "P", "~", "#", "/", "\\", " ", "@", ".", "(", "\u{feff}", "d",
        ];
        for seed in 0..3_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let text: String = (0..random.usize(..12)).map(|_| pieces[random.usize(..pieces.len())]).collect();
            for (_, check) in ALL {
                check(&text);
            }
        }
    }
}
