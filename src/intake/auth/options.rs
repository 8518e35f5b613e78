//! The keys `intake.auth`, `intake.tokens` and the section `intake.jwt`.

use std::fmt;
use std::path::PathBuf;

use jsonwebtoken::Algorithm;
use serde::{Deserialize, Deserializer, de::Error};

use crate::intake::Options;
use crate::model::units;

/// Who may post.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Everybody, to every stream.
    Open,
    /// Nobody.
    Closed,
    /// Who has one of the tokens that are listed.
    Tokens,
    /// Who has a token that somebody signed.
    Jwt,
}

/// The section `intake.jwt`. Tokens must have `exp`; 60 s are allowed for clocks that differ.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JwtOptions {
    /// What tokens may be signed with; no other is taken, whatever a token says of itself.
    #[serde(deserialize_with = "algorithms")]
    pub algorithms: Vec<SignedWith>,
    /// A public key in PEM; for HS256 the secret itself, without its last line break. Read at the start, and at a reload.
    pub key_file: Option<PathBuf>,
    /// A JSON Web Key Set instead; a token's `kid` picks the key. Read at the start, and at a reload.
    pub jwks_file: Option<PathBuf>,
    /// The claim that lists streams, as `intake.tokens` does: an array, or a text split at spaces and commas.
    pub streams_claim: String,
    /// What `iss` must be. Not given: anything.
    pub issuer: Option<String>,
    /// What `aud` must hold. Not given: tokens that are meant for somebody in particular are refused.
    pub audience: Option<String>,
}

/// A way to sign that is taken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedWith {
    Hs256,
    Rs256,
    EdDsa,
}

impl Default for JwtOptions {
    fn default() -> Self {
        Self {
            algorithms: Vec::new(),
            key_file: None,
            jwks_file: None,
            streams_claim: "streams".into(),
            issuer: None,
            audience: None,
        }
    }
}

impl SignedWith {
    const ALL: [Self; 3] = [Self::Hs256, Self::Rs256, Self::EdDsa];

    pub(super) fn algorithm(self) -> Algorithm {
        match self {
            Self::Hs256 => Algorithm::HS256,
            Self::Rs256 => Algorithm::RS256,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

impl fmt::Display for SignedWith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.algorithm())
    }
}

fn algorithms<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SignedWith>, D::Error> {
    let named = |name: &String| SignedWith::ALL.into_iter().find(|with| with.to_string() == *name);
    let known = |name: &String| {
        named(name).ok_or_else(|| D::Error::custom(format!("'{name}' is none of HS256, RS256 and EdDSA")))
    };
    units::list(from)?.iter().map(known).collect()
}

/// A key that contradicts another, and what is wrong with it.
pub fn faults(options: &Options) -> Vec<(String, String)> {
    let Options { auth, tokens, jwt, .. } = options;
    let files = usize::from(jwt.key_file.is_some()) + usize::from(jwt.jwks_file.is_some());
    let by_tokens = *auth == Some(Auth::Tokens);
    let by_jwt = *auth == Some(Auth::Jwt);
    let unguarded = "given, and nothing says that it guards anything: set intake.auth as well";
    let rules = [
        ("intake.auth", !by_tokens || !tokens.is_empty(), "\"tokens\" needs intake.tokens: nobody could post"),
        ("intake.tokens", auth.is_some() || tokens.is_empty(), unguarded),
        ("intake.jwt.key_file", auth.is_some() || jwt.key_file.is_none(), unguarded),
        ("intake.jwt.jwks_file", auth.is_some() || jwt.jwks_file.is_none(), unguarded),
        ("intake.jwt.key_file", !by_jwt || files > 0, "intake.auth = \"jwt\" needs it, or intake.jwt.jwks_file"),
        ("intake.jwt.key_file", files < 2, "given beside intake.jwt.jwks_file: only one of them can hold the keys"),
        (
            "intake.jwt.algorithms",
            !by_jwt || !jwt.algorithms.is_empty(),
            "intake.auth = \"jwt\" needs it: some of HS256, RS256 and EdDSA",
        ),
        (
            "intake.jwt.algorithms",
            jwt.key_file.is_none() || jwt.algorithms.len() < 2,
            "more than one, and intake.jwt.key_file holds one key, which is of one kind",
        ),
        ("intake.jwt.streams_claim", !jwt.streams_claim.is_empty(), "empty: no claim has this name"),
    ];
    let broken = rules.into_iter().filter(|(_, holds, _)| !holds);
    broken.map(|(key, _, fault)| (key.to_owned(), fault.to_owned())).collect()
}
