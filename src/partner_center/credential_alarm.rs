//! One error in the log for credentials that Partner Center refuses, however many calls meet it.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::domain::UpstreamApi;

/// Remembers which calls are refused because of our credentials.
#[derive(Debug, Default)]
pub(super) struct CredentialAlarm {
    /// A bit for each call, by its discriminant.
    raised: AtomicU32,
}

// === impl CredentialAlarm ===

impl CredentialAlarm {
    /// Takes note of a refusal; returns whether it is the first since the call was accepted.
    pub(super) fn raise(&self, api: UpstreamApi) -> bool {
        self.raised.fetch_or(bit(api), Ordering::Relaxed) & bit(api) == 0
    }

    /// Takes note that the call was accepted.
    pub(super) fn clear(&self, api: UpstreamApi) {
        self.raised.fetch_and(!bit(api), Ordering::Relaxed);
    }
}

const fn bit(api: UpstreamApi) -> u32 {
    1 << api as u32
}
