//! Noticing that the insights call has gone silent: it still answers, but says nothing any more.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use crate::domain::{CustomerId, LicenseUsage};

/// Distinct customers without a row, one after the other, that are no coincidence any more: before
/// the first row, and after one.
const SUSPICIOUS: usize = 3;
const SUSPICIOUS_AFTER_A_ROW: usize = 20;

/// What a person can do about it.
pub(super) const ADVICE: &str = "the insights call answers with no rows for one customer after \
     the other; Microsoft has superseded it: set upstream.source = \"commercial\"";

/// Watches the answers of the insights call, where that is the source.
#[derive(Debug, Default)]
pub(super) struct EmptyResponseDetector {
    // Held for a few instructions, never across an await.
    heard: Mutex<ObservedResponses>,
}

#[derive(Debug, Default)]
struct ObservedResponses {
    /// There was a row, ever.
    spoke: bool,
    /// Customers without a row since the last row; no more than are suspicious.
    empty: HashSet<CustomerId>,
}

// === impl Silence ===

impl EmptyResponseDetector {
    /// Takes note of an answer, and warns of the one that makes it suspicious.
    pub(super) fn observe(&self, snapshot: &LicenseUsage) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if !snapshot.rows().is_empty() {
            heard.spoke = true;
            heard.empty.clear();
            return;
        }
        if !heard.is_suspicious()
            && heard.empty.insert(snapshot.customer_id())
            && heard.is_suspicious()
        {
            tracing::warn!("{ADVICE}");
        }
    }

    /// [`ADVICE`], while there is reason for it.
    pub(super) fn advice(&self) -> Option<&'static str> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.is_suspicious().then_some(ADVICE)
    }
}

// === impl Heard ===

impl ObservedResponses {
    fn is_suspicious(&self) -> bool {
        let enough = if self.spoke {
            SUSPICIOUS_AFTER_A_ROW
        } else {
            SUSPICIOUS
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
    fn three_customers_without_a_row_are_suspicious() {
        let silence = EmptyResponseDetector::default();

        for customer in [1, 2, 2, 2] {
            silence.observe(&answer(customer, 0));
        }
        let before = silence.advice();
        silence.observe(&answer(3, 0));

        assert_eq!(before, None);
        assert!(silence.advice().unwrap().contains("commercial"));
    }

    #[test]
    fn a_row_lifts_the_suspicion_until_there_is_far_more_reason_for_it() {
        let silence = EmptyResponseDetector::default();
        for customer in 1..=3 {
            silence.observe(&answer(customer, 0));
        }

        silence.observe(&answer(4, 1));
        for customer in 5..=23 {
            silence.observe(&answer(customer, 0));
        }
        let after_nineteen = silence.advice();
        silence.observe(&answer(24, 0));

        assert_eq!(after_nineteen, None);
        assert!(silence.advice().is_some());
    }
}
