//! Whether the access token carries multi-factor proof, as far as Partner Center has said.

use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;

use super::metrics::UpstreamMetrics;

const IS_MFA_COMPLIANT: &str = "ismfacompliant";

pub(super) const MISSING: &str = "Partner Center says (isMfaCompliant) that the access token carries no \
     multi-factor proof, and will refuse it with 900421: a person must sign in with multi-factor \
     authentication, consent again, and replace the refresh token";

/// What Partner Center last said of the access token's multi-factor proof.
#[derive(Debug)]
pub(super) struct MultiFactorStatus {
    missing: AtomicBool,
    /// Said by a refusal, and not by `isMfaCompliant`.
    refused: AtomicBool,
    metrics: UpstreamMetrics,
}

// === impl MultiFactor ===

impl MultiFactorStatus {
    /// Nothing was said yet.
    pub(super) fn new(metrics: UpstreamMetrics) -> Self {
        Self {
            missing: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            metrics,
        }
    }

    /// Takes note of `isMfaCompliant`, which an answer bears where `ValidateMfa` asked for it.
    pub(super) fn observe(&self, headers: &HeaderMap) {
        match told_by(headers) {
            Some(true) => {
                self.refused.store(false, Ordering::Relaxed);
                self.missing.store(false, Ordering::Relaxed);
                self.metrics.mfa_compliant(true);
            }
            Some(false) => {
                self.refused.store(false, Ordering::Relaxed);
                self.miss();
            }
            None => {}
        }
    }

    /// Takes note that a token was refused because the proof is missing.
    pub(super) fn is_refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
        self.miss();
    }

    /// Takes note that a token was accepted. Where a refusal had said that the proof is missing, and
    /// `isMfaCompliant` is not asked for, nothing else ever takes that back.
    pub(super) fn is_accepted(&self) {
        if self.refused.swap(false, Ordering::Relaxed)
            && self.missing.swap(false, Ordering::Relaxed)
        {
            self.metrics.mfa_unknown();
        }
    }

    fn miss(&self) {
        self.metrics.mfa_compliant(false);
        if !self.missing.swap(true, Ordering::Relaxed) {
            tracing::warn!("{MISSING}");
        }
    }

    /// What a person must do, where the proof is missing.
    pub(super) fn advice(&self) -> Option<&'static str> {
        self.missing.load(Ordering::Relaxed).then_some(MISSING)
    }
}

/// What an answer says of it; `None` where it says nothing.
pub(super) fn told_by(headers: &HeaderMap) -> Option<bool> {
    let told = headers.get(IS_MFA_COMPLIANT)?.to_str().ok()?.trim();
    let is = |word: &str| told.eq_ignore_ascii_case(word);
    (is("true") || is("false")).then(|| is("true"))
}
