//! How the flow probe is told from everybody else: by a secret that this process made for itself at its start.
//!
//! Who brings it gets one of the streams that are kept back, so that a full server can still be seen to be full. It is
//! written nowhere: not to logs, answers or metrics, and its `Debug` does not show it.

use std::fmt;
use std::sync::Arc;

use actix_web::HttpRequest;
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// Where a request brings it.
pub const SLUICE_PROBE: &str = "sluice-probe";

/// Cheap to clone.
#[derive(Clone)]
pub struct ProbeSecret(Arc<str>);

impl ProbeSecret {
    /// Another one each time: 244 random bits.
    pub fn random() -> Self {
        let [first, second] = [(); 2].map(|()| Uuid::new_v4().simple());
        Self(format!("{first}{second}").into())
    }

    /// For who sends it, and nobody else.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub(super) fn is_brought_by(&self, request: &HttpRequest) -> bool {
        let brought = request.headers().get(SLUICE_PROBE);
        // In constant time: how long a guess takes says nothing of how good it is.
        brought.is_some_and(|brought| bool::from(brought.as_bytes().ct_eq(self.0.as_bytes())))
    }
}

impl fmt::Debug for ProbeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn only_the_whole_secret_of_this_process_is_one_and_it_is_not_shown() {
        let (secret, other) = (ProbeSecret::random(), ProbeSecret::random());
        let brings = |value: &str| {
            secret.is_brought_by(&TestRequest::get().insert_header((SLUICE_PROBE, value)).to_http_request())
        };
        assert!(brings(secret.reveal()));
        assert!(!secret.is_brought_by(&TestRequest::get().to_http_request()));
        for guess in ["", &secret.reveal()[1..], &format!("{}0", secret.reveal()), other.reveal()] {
            assert!(!brings(guess), "{guess}");
        }
        assert!(!format!("{secret:?}").contains(secret.reveal()));
        assert_eq!(secret.reveal().len(), 64);
    }
}
