//! Bearer tokens that the configuration lists, each by its hash.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, de::Error};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::grant::Grant;

/// Tokens that may be listed. Each costs time at every request, whichever token was sent.
const TOKENS_MAX: usize = 1_000;

/// The key `intake.tokens`: `{name, sha256 = "<hex>", streams = ["name", "/regex/"]}` each. Without `streams` a token
/// may post to all.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Vec<Token>);

#[derive(Debug, Clone)]
struct Token {
    hash: Hash,
    grant: Grant,
    name: Arc<str>,
}

/// SHA-256 of a token.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Hash([u8; 32]);

/// As the file writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    sha256: String,
    streams: Option<Vec<String>>,
}

impl Tokens {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The token's name, and what its bearer may post to. How long it takes says nothing about the tokens: all are compared, by
    /// hashes, and each to its end.
    pub(super) fn find(&self, bearer: &str) -> Option<(Arc<str>, Grant)> {
        let sent = Sha256::digest(bearer.as_bytes());
        let mut found = u32::MAX;
        for (index, token) in (0_u32..).zip(&self.0) {
            found.conditional_assign(&index, token.hash.0.as_slice().ct_eq(sent.as_slice()));
        }
        let found = self.0.get(usize::try_from(found).ok()?)?;
        Some((found.name.clone(), found.grant.clone()))
    }

    /// The tokens, or all that is wrong with them.
    fn read(written: Vec<Written>) -> Result<Self, String> {
        if written.len() > TOKENS_MAX {
            return Err(format!("more than {TOKENS_MAX} tokens: use intake.auth = \"jwt\" for so many producers"));
        }
        let mut tokens = Vec::with_capacity(written.len());
        let mut faults = Vec::new();
        let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
        for written in written {
            let name = written.name.clone();
            let mut fault = |what: String| faults.push(format!("token '{name}': {what}"));
            match Token::read(written) {
                Ok(token) if !hashes.insert(token.hash.clone()) => fault("another token has the same sha256".into()),
                Ok(token) => tokens.push(token),
                Err(what) => fault(what),
            }
            if !names.insert(name.clone()) {
                fault("the name is given twice".into());
            }
        }
        if faults.is_empty() { Ok(Self(tokens)) } else { Err(faults.join("; ")) }
    }
}

impl Token {
    fn read(written: Written) -> Result<Self, String> {
        if written.name.trim().is_empty() {
            return Err("it has no name".into());
        }
        let hash = Hash::parse(&written.sha256)
            .ok_or("sha256 is not 64 hexadecimal digits: printf %s \"$TOKEN\" | sha256sum prints them")?;
        let grant = match &written.streams {
            None => Grant::everything(),
            Some(streams) => Grant::of(streams.iter().map(String::as_str)).map_err(|e| format!("streams: {e}"))?,
        };
        Ok(Self { hash, grant, name: written.name.into() })
    }
}

impl Hash {
    fn parse(hex: &str) -> Option<Self> {
        let digits: Vec<u8> = hex.chars().map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect::<Option<_>>()?;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        (digits.len() == 64).then_some(bytes)?.try_into().ok().map(Self)
    }
}

/// A short token can be guessed from its hash.
impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(redacted)")
    }
}

impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // serde's complaint about a value of the wrong type quotes the value, which may be a token.
        let unquoted = |error: D::Error| {
            let text = error.to_string();
            let about_keys = text.starts_with("unknown field") || text.starts_with("missing field");
            let help = "not a list of {name = \"…\", sha256 = \"<hex>\", streams = [\"name\", \"/regex/\"]}";
            D::Error::custom(if about_keys { text.lines().next().unwrap_or_default() } else { help })
        };
        Self::read(Vec::deserialize(from).map_err(unquoted)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn every_byte_of_the_hash_counts() {
        let right: Vec<u8> = Sha256::digest(b"secret").to_vec();
        for wrong in 0..right.len() {
            let mut hash = right.clone();
            hash[wrong] ^= 1;
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let listed = |hash: &[u8]| {
                let written = Written { name: "a".into(), sha256: hex(hash), streams: None };
                Tokens::read(vec![written]).expect("tokens")
            };
            assert!(listed(&hash).find("secret").is_none(), "byte {wrong}");
            assert!(listed(&right).find("secret").is_some());
        }
    }
}
