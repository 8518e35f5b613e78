//! Who may post, and to which streams.
//!
//! Knows no HTTP: a bearer token comes in, a [`Grant`] comes out.

/// What a producer may post to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {}

/// Why a producer may not post at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("posting is closed here: set intake.auth to open, tokens or jwt")]
    Closed,
    #[error("a bearer token is needed: send Authorization: Bearer …")]
    NoToken,
    #[error("the bearer token is not one that may post here")]
    BadToken,
}

/// Admits producers.
#[derive(Debug, Clone)]
pub struct Guard {}

impl Guard {
    /// Everybody may post everything.
    pub fn open() -> Self {
        Self {}
    }

    /// What the bearer of this token may post to; `None`: no token was sent.
    pub fn admit(&self, _bearer: Option<&str>) -> Result<Grant, Denied> {
        Ok(Grant::everything())
    }
}

impl Grant {
    pub fn everything() -> Self {
        Self {}
    }

    pub fn allows(&self, _stream: &str) -> bool {
        true
    }
}
