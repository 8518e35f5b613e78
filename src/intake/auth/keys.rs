//! Keys that tokens are signed with, read and checked at the start, and at a reload.

use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};

use super::options::{JwtOptions, SignedWith};

/// Bytes of a key file. A larger one is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Keys of a set.
const KEYS_MAX: usize = 100;
/// RFC 7518 §3.2: as many as the hash has.
const SECRET_BYTES_MIN: usize = 32;
const ED25519_BYTES: usize = 32;
/// RFC 7518 §3.3 wants the least; the verifier takes no key above the most, and would say no to each of its signatures.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 2048 / 8..=4096 / 8;

/// A key, and the one algorithm that it is ever used for: that is what rules out that a public key is taken for a secret.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// Why a key file cannot be used. Names the file and the cure, and nothing of what stands in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("intake.jwt: the key file {} cannot be used: {why}", path.display())]
pub struct KeyError {
    pub path: PathBuf,
    pub why: String,
}

/// The keys that the section names. Never empty.
pub(super) fn load(options: &JwtOptions) -> Result<Vec<Key>, KeyError> {
    let refused = |path: &Path, why: String| KeyError { path: path.to_owned(), why };
    let (path, keys) = match (&options.key_file, &options.jwks_file) {
        (Some(path), _) => {
            let text = read(path).map_err(|why| refused(path, why))?;
            (path, options.algorithms.iter().map(|with| from_file(&text, *with)).collect::<Result<Vec<_>, _>>())
        }
        (None, Some(path)) => (path, read(path).and_then(|text| from_set(&text, &options.algorithms))),
        (None, None) => return Err(refused(Path::new(""), "name one with key_file or jwks_file".into())),
    };
    match keys {
        Ok(keys) if keys.is_empty() => Err(refused(path, "it has no key for these algorithms".into())),
        Ok(keys) => Ok(keys),
        Err(why) => Err(refused(path, why)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path).map_err(|e| format!("it cannot be read ({e})"))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| format!("it cannot be read ({e})"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX { Err("it is larger than 1 MiB".into()) } else { Ok(bytes) }
}

/// PEM for public keys; for HS256 the secret itself, without its last line break.
fn from_file(bytes: &[u8], with: SignedWith) -> Result<Key, String> {
    let begins = |tag: &str| bytes.trim_ascii_start().starts_with(format!("-----BEGIN {tag}").as_bytes());
    let key = match with {
        SignedWith::Hs256 if begins("") => {
            return Err(
                "it is PEM, and HS256 needs a secret that nobody else has: set algorithms to what signs with this key"
                    .into(),
            );
        }
        SignedWith::Hs256 => {
            let secret = bytes.strip_suffix(b"\n").unwrap_or(bytes);
            DecodingKey::from_secret(secret.strip_suffix(b"\r").unwrap_or(secret))
        }
        _ if !begins("PUBLIC KEY-----") && !begins("RSA PUBLIC KEY-----") => {
            return Err(
                "it is no public key in PEM: openssl pkey -in PRIVATE -pubout (for a certificate: openssl x509 \
                        -in CERT -noout -pubkey) prints one"
                    .into(),
            );
        }
        SignedWith::Rs256 => {
            DecodingKey::from_rsa_pem(bytes).map_err(|_| "it is no RSA key, which RS256 needs".to_owned())?
        }
        SignedWith::EdDsa => {
            DecodingKey::from_ed_pem(bytes).map_err(|_| "it is no Ed25519 key, which EdDSA needs".to_owned())?
        }
    };
    check(&key)?;
    Ok(Key { id: None, algorithm: with.algorithm(), key })
}

/// The keys of a JWKS that are for verifying signatures of these algorithms. Sets hold others too, which are left out.
fn from_set(text: &[u8], algorithms: &[SignedWith]) -> Result<Vec<Key>, String> {
    // Not the error's own text: it quotes what stands there.
    let set: JwkSet = serde_json::from_slice(text)
        .map_err(|e| format!("it is no JSON Web Key Set (line {}, column {})", e.line(), e.column()))?;
    if set.keys.len() > KEYS_MAX {
        return Err(format!("it has more than {KEYS_MAX} keys"));
    }
    let mut keys: Vec<Key> = Vec::new();
    for jwk in &set.keys {
        let Some(with) = algorithms.iter().copied().find(|with| is_for(jwk, *with)) else { continue };
        let id = jwk.common.key_id.clone();
        let named = |why: String| format!("key '{}': {why}", id.as_deref().unwrap_or("(no kid)"));
        let key = DecodingKey::from_jwk(jwk).map_err(|_| named("it is malformed".into()))?;
        check(&key).map_err(named)?;
        if keys.iter().any(|other| other.id == id && other.algorithm == with.algorithm()) {
            return Err(named(format!("there are two of this kid for {with}")));
        }
        keys.push(Key { id, algorithm: with.algorithm(), key });
    }
    Ok(keys)
}

fn is_for(jwk: &Jwk, with: SignedWith) -> bool {
    let of_kind = match (&jwk.algorithm, with) {
        (AlgorithmParameters::OctetKey(_), SignedWith::Hs256) | (AlgorithmParameters::RSA(_), SignedWith::Rs256) => {
            true
        }
        (AlgorithmParameters::OctetKeyPair(pair), SignedWith::EdDsa) => pair.curve == EllipticCurve::Ed25519,
        _ => false,
    };
    let common = &jwk.common;
    of_kind
        && common.key_algorithm.is_none_or(|algorithm| algorithm == with.algorithm().into())
        && common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify))
}

/// What the verifier would only say by refusing every signature, or worse.
fn check(key: &DecodingKey) -> Result<(), String> {
    let bytes = key.try_get_as_bytes().map_or(0, <[u8]>::len);
    match key.family() {
        AlgorithmFamily::Hmac if bytes < SECRET_BYTES_MIN => {
            Err(format!("a secret has at least {SECRET_BYTES_MIN} bytes: openssl rand -base64 32 prints one"))
        }
        AlgorithmFamily::Ed if bytes != ED25519_BYTES => Err(format!("an Ed25519 key has {ED25519_BYTES} bytes")),
        AlgorithmFamily::Rsa => match modulus_bytes(key) {
            Some(bytes) if RSA_BYTES.contains(&bytes) => Ok(()),
            Some(bytes) => Err(format!("an RSA key has 2048 to 4096 bits, and this one {}", bytes * 8)),
            None => Err("it is malformed".into()),
        },
        _ => Ok(()),
    }
}

fn modulus_bytes(key: &DecodingKey) -> Option<usize> {
    match Jwk::from_decoding_key(key, Some(Algorithm::RS256)).ok()?.algorithm {
        AlgorithmParameters::RSA(public) => {
            let modulus = BASE64_URL_SAFE_NO_PAD.decode(public.n).ok()?;
            Some(modulus.iter().skip_while(|byte| **byte == 0).count())
        }
        _ => None,
    }
}
