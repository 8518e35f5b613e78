//! Tokens that somebody signed, and what their claims allow.

use std::sync::Arc;

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Header, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::grant::Grant;
use super::keys::{self, Key, KeyError};
use super::options::JwtOptions;
use super::{Denied, Shown};

/// How far the clocks of who signs and who checks may be apart.
const LEEWAY_SECONDS: u64 = 60;
/// Bytes of a `sub` claim by which a client is known. One with more is known by its address.
const NAME_BYTES_MAX: usize = 100;

/// Checks signed tokens.
#[derive(Debug)]
pub(super) struct Verifier {
    keys: Vec<Key>,
    streams_claim: String,
    issuer: Option<String>,
    audience: Option<String>,
}

impl Verifier {
    pub(super) fn new(options: &JwtOptions) -> Result<Self, KeyError> {
        Ok(Self {
            keys: keys::load(options)?,
            streams_claim: options.streams_claim.clone(),
            issuer: options.issuer.clone(),
            audience: options.audience.clone(),
        })
    }

    /// Whose it is, where it says so, and what may be posted with it. `Err`: it is worth nothing.
    pub(super) fn verify(&self, token: &str) -> Result<Shown, Denied> {
        let header = decode_header(token).map_err(|e| denied(&e))?;
        // RFC 7515 §4.1.11: who does not understand what it names must refuse. The library leaves that to its callers.
        if header.crit.is_some() {
            return Err(Denied::NotJwt);
        }
        let key = self.key(&header)?;
        let claims = decode::<Map<String, Value>>(token, &key.key, &self.rules(key)).map_err(|e| denied(&e))?.claims;
        Ok(Shown { name: name(claims.get("sub")), grant: streams(claims.get(&self.streams_claim)) })
    }

    /// Only keys of the token's own algorithm. A key without an id, and a token without one, are for each other where
    /// there is no choice.
    fn key(&self, header: &Header) -> Result<&Key, Denied> {
        let fitting: Vec<&Key> = self.keys.iter().filter(|key| key.algorithm == header.alg).collect();
        let named = fitting.iter().find(|key| key.id.is_some() && key.id == header.kid);
        match (named, fitting.as_slice()) {
            (_, []) => Err(Denied::Algorithm),
            (Some(key), _) => Ok(key),
            (None, [only]) if only.id.is_none() || header.kid.is_none() => Ok(only),
            _ => Err(Denied::UnknownKey),
        }
    }

    /// One algorithm, the key's: what the token says of itself decides nothing.
    fn rules(&self, key: &Key) -> Validation {
        let mut rules = Validation::new(key.algorithm);
        rules.leeway = LEEWAY_SECONDS;
        rules.validate_nbf = true;
        let mut required = vec!["exp"];
        if let Some(issuer) = &self.issuer {
            rules.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = &self.audience {
            rules.set_audience(&[audience]);
            required.push("aud");
        }
        rules.set_required_spec_claims(&required);
        rules
    }
}

/// Not one with what a terminal would act upon: operators see it.
fn name(claim: Option<&Value>) -> Option<Arc<str>> {
    let name = claim?.as_str()?;
    let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control);
    fits.then(|| name.into())
}

/// An array, or a text split at spaces and commas. A pattern that has those itself needs the array.
fn streams(claim: Option<&Value>) -> Result<Grant, Denied> {
    let entries: Vec<&str> = match claim {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => {
            text.split(|c: char| c.is_whitespace() || c == ',').filter(|entry| !entry.is_empty()).collect()
        }
        Some(Value::Array(list)) => list.iter().map(Value::as_str).collect::<Option<_>>().ok_or(Denied::BadStreams)?,
        Some(_) => return Err(Denied::BadStreams),
    };
    if entries.is_empty() {
        return Err(Denied::NoStreams);
    }
    Grant::of(entries).map_err(|_| Denied::BadStreams)
}

fn denied(error: &Error) -> Denied {
    match error.kind() {
        ErrorKind::ExpiredSignature => Denied::Expired,
        ErrorKind::ImmatureSignature => Denied::NotYet,
        ErrorKind::InvalidIssuer => Denied::Issuer,
        ErrorKind::InvalidAudience => Denied::Audience,
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "iss" => Denied::Issuer,
            "aud" => Denied::Audience,
            _ => Denied::NoExpiry,
        },
        ErrorKind::InvalidSignature => Denied::Signature,
        ErrorKind::InvalidAlgorithm => Denied::Algorithm,
        _ => Denied::NotJwt,
    }
}
