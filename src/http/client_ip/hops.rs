//! What forwarding headers say: a list of hops, the nearest last.
//!
//! Only as much of a list is believed, or read at all, as trusted proxies have written: what stands before the first
//! stranger, seen from this end, is that stranger's own word. RFC 7239 lets a proxy hide who came to it (`unknown`, `_x`),
//! and some write `unknown` in `X-Forwarded-For`: then the proxy that hides somebody is counted itself.

use std::net::{IpAddr, Ipv6Addr};

/// Hops that are looked at. A longer chain of trusted proxies is a loop.
const HOPS_MAX: usize = 64;
/// What a complaint quotes.
const QUOTED_CHARS_MAX: usize = 100;

/// Who came to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hop {
    Address(IpAddr),
    /// It does not tell.
    Hidden,
}

/// From this end on, the first address that is not trusted; the farthest where all are.
pub(super) fn nearest_stranger(
    socket: IpAddr,
    hops: impl Iterator<Item = Result<Hop, String>>,
    trusts: impl Fn(IpAddr) -> bool,
) -> Result<IpAddr, String> {
    let mut nearest = socket;
    for (passed, hop) in hops.enumerate() {
        if passed == HOPS_MAX {
            return Err(format!("it names more than {HOPS_MAX} hops"));
        }
        match hop? {
            Hop::Hidden => return Ok(nearest),
            Hop::Address(address) if trusts(address) => nearest = address,
            Hop::Address(address) => return Ok(address),
        }
    }
    Ok(nearest)
}

/// A line of `X-Forwarded-For`, from its end.
pub(super) fn of_list(line: &str) -> impl Iterator<Item = Result<Hop, String>> {
    // RFC 9110, 5.6.1: members of a list may be empty, and mean nothing.
    line.rsplit(',').map(str::trim).filter(|member| !member.is_empty()).map(hop)
}

/// A line of `Forwarded` (RFC 7239), from its end. It is read from its start: quotes can hide what looks like its end.
pub(super) fn of_forwarded(line: &str) -> impl Iterator<Item = Result<Hop, String>> {
    let hops = match elements(line) {
        Ok(nodes) => nodes.iter().map(|node| node.as_deref().map_or(Ok(Hop::Hidden), hop)).collect(),
        Err(fault) => vec![Err(fault)],
    };
    hops.into_iter().rev()
}

/// An address, with or without a port.
pub(super) fn hop(text: &str) -> Result<Hop, String> {
    parse(text).ok_or_else(|| format!("'{}' is no address", text.chars().take(QUOTED_CHARS_MAX).collect::<String>()))
}

fn parse(text: &str) -> Option<Hop> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Hop::Address(address.to_canonical()));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let fits = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return fits.then_some(Hop::Address(IpAddr::from(address).to_canonical()));
    }
    let (node, port) = text.split_once(':').map_or((text, None), |(node, port)| (node, Some(port)));
    if !port.is_none_or(is_port) {
        return None;
    }
    if node.eq_ignore_ascii_case("unknown") || is_obfuscated(node) {
        return Some(Hop::Hidden);
    }
    node.parse().ok().map(|v4: std::net::Ipv4Addr| Hop::Address(v4.into()))
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok() || is_obfuscated(text)
}

fn is_obfuscated(text: &str) -> bool {
    let legal = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    text.strip_prefix('_').is_some_and(|rest| !rest.is_empty() && legal(rest))
}

/// What each element says of `for`, if it does.
fn elements(line: &str) -> Result<Vec<Option<String>>, String> {
    let mut elements = Vec::new();
    let (mut node, mut is_empty) = (None, true);
    let mut rest = line.trim_start();
    loop {
        if !rest.is_empty() && !rest.starts_with([',', ';']) {
            let (name, value, behind) = parameter(rest)?;
            is_empty = false;
            if name.eq_ignore_ascii_case("for") && node.replace(value).is_some() {
                return Err("one of its elements has `for` twice".to_owned());
            }
            rest = behind;
        }
        let end = rest.chars().next();
        if end != Some(';') && !std::mem::replace(&mut is_empty, true) {
            elements.push(node.take());
        }
        match end {
            None => return Ok(elements),
            Some(',' | ';') => rest = rest[1..].trim_start(),
            Some(_) => return Err(not_a_parameter(rest)),
        }
    }
}

/// Name, value, and what stands behind them.
fn parameter(text: &str) -> Result<(&str, String, &str), String> {
    let (name, rest) = text.split_once('=').ok_or_else(|| not_a_parameter(text))?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)) {
        return Err(not_a_parameter(text));
    }
    let (value, rest) = match rest.strip_prefix('"') {
        Some(quoted) => unquoted(quoted)?,
        // Addresses with colons and brackets should have quotes, and often have none.
        None => {
            let end = rest.find([',', ';', ' ', '\t', '"']).unwrap_or(rest.len());
            (rest[..end].to_owned(), &rest[end..])
        }
    };
    Ok((name, value, rest.trim_start()))
}

/// What stands in quotes whose first has been read, and what stands behind them.
fn unquoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    Err("one of its quotes does not end".to_owned())
}

fn not_a_parameter(text: &str) -> String {
    format!("'{}' is no parameter", text.chars().take(QUOTED_CHARS_MAX).collect::<String>())
}
