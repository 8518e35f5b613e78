//! What the canary proves itself with.

use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;

/// The header that carries the secret.
pub const SECRET_HEADER: &str = "sluice-probe";

/// What earns the reserved places, and the stream that nobody else has: made at the start, and known to nobody outside of
/// the process.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    pub fn new() -> Self {
        let random = || uuid::Uuid::new_v4().simple().to_string();
        Self((random() + &random()).into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    pub fn is(&self, text: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(text).into()
    }
}

impl Default for Secret {
    fn default() -> Self {
        Self::new()
    }
}

/// It must not stand in any log.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_only_itself_and_does_not_show() {
        let secret = Secret::new();
        assert!(
            secret.is(secret.0.as_bytes())
                && !secret.is(b"")
                && !secret.is(&secret.0.as_bytes()[..8])
                && !secret.is(Secret::new().0.as_bytes())
        );
        assert_eq!(secret.0.len(), 64);
        assert!(!format!("{secret:?}").contains(&*secret.0));
    }
}
