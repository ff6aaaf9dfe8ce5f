//! Signs of problems in the replies of Partner Center, for readiness and the log: rejected credentials,
//! missing multi-factor proof, and an insights call that has gone silent.

use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
};

use http::HeaderMap;

use super::metrics::{MFA_UNKNOWN, UpstreamMetrics};
use crate::domain::{CustomerId, LicenseUsage, UpstreamApi};

const IS_MFA_COMPLIANT: &str = "ismfacompliant";

/// The advice about an access token without multi-factor proof.
pub(super) const MFA_ADVICE: &str = "Partner Center says (isMfaCompliant) that the access token \
     carries no multi-factor proof, and will refuse it with 900421: a person must sign in with \
     multi-factor authentication, consent again, and replace the refresh token";

/// The advice about an insights call that has gone silent.
const COMMERCIAL_ADVICE: &str = "the insights call answers with no rows for one customer after the \
     other; Microsoft has superseded it: set upstream.source = \"commercial\"";

/// The multi-factor proof of the access token, as far as Partner Center has said.
#[derive(Debug)]
pub(super) struct MultiFactorStatus {
    is_missing: AtomicBool,
    /// A refusal said it, and not `isMfaCompliant`.
    by_refusal: AtomicBool,
    metrics: UpstreamMetrics,
}

/// The calls that are refused because of our credentials. One error in the log is for all refusals of
/// a call.
#[derive(Debug, Default)]
pub(super) struct CredentialAlarm {
    /// A bit for each call, by its discriminant.
    raised: AtomicU32,
}

/// Detects an insights call that has gone silent: it still answers, but without rows.
#[derive(Debug, Default)]
pub(super) struct EmptyResponseDetector {
    // Locked for a few instructions, never across an await.
    observed: Mutex<ObservedResponses>,
}

#[derive(Debug, Default)]
struct ObservedResponses {
    /// There was a row once.
    had_rows: bool,
    /// The customers without a row since the last row, up to the number that is suspicious.
    empty: HashSet<CustomerId>,
}

// === impl MultiFactorStatus ===

impl MultiFactorStatus {
    pub(super) fn new(metrics: UpstreamMetrics) -> Self {
        Self {
            is_missing: AtomicBool::new(false),
            by_refusal: AtomicBool::new(false),
            metrics,
        }
    }

    /// Observes `isMfaCompliant`, which a reply has where `ValidateMfa` asked for it.
    pub(super) fn observe(&self, headers: &HeaderMap) {
        if let Some(is_compliant) = is_mfa_compliant(headers) {
            self.by_refusal.store(false, Relaxed);
            self.set(is_compliant);
        }
    }

    /// Records that a token was refused because the proof is missing.
    pub(super) fn record_rejection(&self) {
        self.by_refusal.store(true, Relaxed);
        self.set(false);
    }

    /// Records that a token was accepted. That takes back what a refusal said: where `isMfaCompliant`
    /// is not asked for, nothing else does.
    pub(super) fn record_success(&self) {
        if self.by_refusal.swap(false, Relaxed) && self.is_missing.swap(false, Relaxed) {
            self.metrics.mfa_compliant.set(MFA_UNKNOWN);
        }
    }

    /// Returns what a person must do, if the proof is missing.
    pub(super) fn advice(&self) -> Option<&'static str> {
        self.is_missing.load(Relaxed).then_some(MFA_ADVICE)
    }

    fn set(&self, is_compliant: bool) {
        self.metrics.mfa_compliant.set(i64::from(is_compliant));
        let was_missing = self.is_missing.swap(!is_compliant, Relaxed);
        if !is_compliant && !was_missing {
            tracing::warn!("{MFA_ADVICE}");
        }
    }
}

/// Returns the value of `isMfaCompliant`, if a reply has it.
pub(super) fn is_mfa_compliant(headers: &HeaderMap) -> Option<bool> {
    let value = headers.get(IS_MFA_COMPLIANT)?.to_str().ok()?.trim();
    value.to_ascii_lowercase().parse().ok()
}

// === impl CredentialAlarm ===

impl CredentialAlarm {
    /// Records a refusal. Returns true if it is the first since the call was accepted.
    pub(super) fn raise(&self, api: UpstreamApi) -> bool {
        let bit = 1 << api as u32;
        self.raised.fetch_or(bit, Relaxed) & bit == 0
    }

    /// Records that the call was accepted.
    pub(super) fn clear(&self, api: UpstreamApi) {
        self.raised.fetch_and(!(1 << api as u32), Relaxed);
    }
}

// === impl EmptyResponseDetector ===

impl EmptyResponseDetector {
    /// The different customers without a row that are no coincidence, before the first row.
    const SUSPICIOUS: usize = 3;

    /// The same after a row.
    const SUSPICIOUS_AFTER_ROWS: usize = 20;

    /// Observes an answer, and warns of the one that makes the call suspicious.
    pub(super) fn observe(&self, usage: &LicenseUsage) {
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        if !usage.rows().is_empty() {
            observed.had_rows = true;
            observed.empty.clear();
        } else if !observed.is_suspicious()
            && observed.empty.insert(usage.customer_id())
            && observed.is_suspicious()
        {
            tracing::warn!("{COMMERCIAL_ADVICE}");
        }
    }

    /// Returns what a person can do, while the call is suspicious.
    pub(super) fn advice(&self) -> Option<&'static str> {
        let observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        observed.is_suspicious().then_some(COMMERCIAL_ADVICE)
    }
}

// === impl ObservedResponses ===

impl ObservedResponses {
    fn is_suspicious(&self) -> bool {
        let enough = if self.had_rows {
            EmptyResponseDetector::SUSPICIOUS_AFTER_ROWS
        } else {
            EmptyResponseDetector::SUSPICIOUS
        };
        self.empty.len() >= enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{UsageRow, samples};

    fn answer(customer: u32, rows: usize) -> LicenseUsage {
        let customer = format!("00000000-0000-0000-0000-{customer:012}");
        let row = UsageRow {
            product_name: "A".into(),
            licenses_active: 1,
            licenses_qualified: 2,
            ..samples::row()
        };
        let customer = CustomerId::parse(&customer).unwrap();
        LicenseUsage::new(customer, None, vec![row; rows]).unwrap()
    }

    #[test]
    fn three_customers_without_rows_are_suspicious() {
        let detector = EmptyResponseDetector::default();

        for customer in [1, 2, 2, 2] {
            detector.observe(&answer(customer, 0));
        }
        let before = detector.advice();
        detector.observe(&answer(3, 0));

        assert_eq!(before, None);
        assert!(detector.advice().unwrap().contains("commercial"));
    }

    #[test]
    fn after_a_row_more_customers_must_be_empty() {
        let detector = EmptyResponseDetector::default();
        for customer in 1..=3 {
            detector.observe(&answer(customer, 0));
        }

        detector.observe(&answer(4, 1));
        for customer in 5..=23 {
            detector.observe(&answer(customer, 0));
        }
        let after_nineteen = detector.advice();
        detector.observe(&answer(24, 0));

        assert_eq!(after_nineteen, None);
        assert!(detector.advice().is_some());
    }
}
