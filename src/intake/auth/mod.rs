//! Who may post, and to which streams.
//!
//! - this page: [`Guard`], which admits and counts whom it does not admit
//! - `grant` what somebody who is admitted may post to
//! - `tokens` bearer tokens that the configuration lists by their hashes
//! - `jwt` and `keys` tokens that somebody signed, and what they are signed with
//! - `options` the configuration
//!
//! Knows no HTTP: a bearer token comes in, [`Shown`] and a [`Grant`] come out. What is said to who is refused holds nothing of the
//! token.

mod grant;
mod jwt;
mod keys;
mod options;
mod tokens;

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Options;
use crate::metrics as names;

pub use self::grant::Grant;
pub use self::keys::KeyError;
pub use self::options::{Auth, JwtOptions, SignedWith, faults};
pub use self::tokens::Tokens;

/// Bytes of a token. A longer one is refused unread.
const TOKEN_BYTES_MAX: usize = 8 << 10;

/// Why a producer may not post at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("posting is closed here: set intake.auth to tokens, jwt or open")]
    Closed,
    #[error("a bearer token is needed: send Authorization: Bearer …")]
    NoToken,
    #[error("the bearer token has more than {TOKEN_BYTES_MAX} bytes: use one with fewer claims")]
    TooLong,
    #[error("the bearer token is not one that may post here: see intake.tokens")]
    BadToken,
    #[error("the bearer token is no signed JWT of a kind that is understood here: ask for another")]
    NotJwt,
    #[error("the bearer token is signed with an algorithm that is not taken here: see intake.jwt.algorithms")]
    Algorithm,
    #[error("the bearer token's kid names none of the keys here: have it signed with one of them, or add its key")]
    UnknownKey,
    #[error("the bearer token's signature is wrong: have it signed with a key of intake.jwt")]
    Signature,
    #[error("the bearer token has no valid exp claim: only tokens that expire are taken")]
    NoExpiry,
    #[error("the bearer token has expired: ask for another")]
    Expired,
    #[error("the bearer token is not valid yet: wait, or set the clock of who signed it")]
    NotYet,
    #[error("the bearer token's iss claim is not the issuer that is trusted here: see intake.jwt.issuer")]
    Issuer,
    #[error("the bearer token is meant for another audience: ask for one whose aud claim is intake.jwt.audience")]
    Audience,
    #[error("the bearer token allows no stream: ask for one with a claim that lists them (intake.jwt.streams_claim)")]
    NoStreams,
    #[error(
        "the bearer token's list of streams cannot be read: it holds names and /patterns/ (intake.jwt.streams_claim)"
    )]
    BadStreams,
}

/// What a token shows: whose it is, where that is known, and what may be posted with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Of one of `intake.tokens`, or the `sub` claim of a JWT: also of one with which nothing may be posted.
    pub name: Option<Arc<str>>,
    grant: Result<Grant, Denied>,
}

/// Admits producers. Cheap to clone; what one of the clones is given holds for all of them.
#[derive(Debug, Clone)]
pub struct Guard(Arc<ArcSwap<Way>>);

#[derive(Debug)]
enum Way {
    Open,
    Closed,
    Tokens(Tokens),
    Jwt(jwt::Verifier),
}

impl Guard {
    /// Everybody may post everything.
    pub fn open() -> Self {
        Self::of(Way::Open)
    }

    /// As configured; where nothing is, open if only this machine can reach the listener. Reads the key files.
    pub fn new(options: &Options, on_loopback: bool) -> Result<Self, KeyError> {
        let not_given = if on_loopback { Auth::Open } else { Auth::Closed };
        Ok(Self::of(match options.auth.unwrap_or(not_given) {
            Auth::Open => Way::Open,
            Auth::Closed => Way::Closed,
            Auth::Tokens => Way::Tokens(options.tokens.clone()),
            Auth::Jwt => Way::Jwt(jwt::Verifier::new(&options.jwt)?),
        }))
    }

    fn of(way: Way) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(way)))
    }

    /// Admits as the other one does from now on. Who has been admitted stays so to the end of the request.
    pub fn replace(&self, by: &Self) {
        self.0.store(by.0.load_full());
    }

    pub fn is_open(&self) -> bool {
        matches!(**self.0.load(), Way::Open)
    }

    pub fn is_closed(&self) -> bool {
        matches!(**self.0.load(), Way::Closed)
    }

    /// What the bearer of this token may post to. Refusals are counted here, and only here.
    pub fn admit(&self, shown: Shown) -> Result<Grant, Denied> {
        if let Err(denied) = &shown.grant {
            metrics::counter!(names::POSTS_DENIED, "cause" => denied.cause()).increment(1);
        }
        shown.grant
    }

    /// Whose token it is, whatever it is shown for; `None`: no token was sent. Counts nothing.
    pub fn look(&self, bearer: Option<&str>) -> Shown {
        let token = match bearer {
            None | Some("") => Err(Denied::NoToken),
            Some(token) if token.len() > TOKEN_BYTES_MAX => Err(Denied::TooLong),
            Some(token) => Ok(token),
        };
        match (&**self.0.load(), token) {
            (Way::Open, _) => Shown::nobody(Ok(Grant::everything())),
            (Way::Closed, _) => Shown::nobody(Err(Denied::Closed)),
            (_, Err(denied)) => Shown::nobody(Err(denied)),
            (Way::Tokens(tokens), Ok(token)) => match tokens.find(token) {
                Some((name, grant)) => Shown { name: Some(name), grant: Ok(grant) },
                None => Shown::nobody(Err(Denied::BadToken)),
            },
            (Way::Jwt(verifier), Ok(token)) => {
                verifier.verify(token).unwrap_or_else(|denied| Shown::nobody(Err(denied)))
            }
        }
    }
}

impl Shown {
    /// The secret of this start: whatever `intake.auth` says, canaries get in.
    pub fn canary() -> Self {
        Self::nobody(Ok(Grant::canary()))
    }

    fn nobody(grant: Result<Grant, Denied>) -> Self {
        Self { name: None, grant }
    }
}

impl Denied {
    /// The word in metrics.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::NoToken => "no-token",
            Self::TooLong => "too-long",
            Self::BadToken => "bad-token",
            Self::NotJwt => "not-jwt",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown-key",
            Self::Signature => "signature",
            Self::NoExpiry => "no-expiry",
            Self::Expired => "expired",
            Self::NotYet => "not-yet",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::NoStreams => "no-streams",
            Self::BadStreams => "bad-streams",
        }
    }

    /// Whether it makes no difference who asks (403), rather than that it is not known who does (401).
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Closed | Self::NoStreams | Self::BadStreams)
    }
}

#[cfg(test)]
mod tests;
