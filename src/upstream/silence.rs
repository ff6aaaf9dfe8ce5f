//! Noticing that the insights call has gone silent: it still answers, but says nothing any more.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use crate::domain::{CustomerId, Snapshot};

/// Distinct customers without a row that are no coincidence any more.
const SUSPICIOUS: usize = 3;

/// What a person can do about it.
pub(super) const ADVICE: &str = "the insights call answered with no rows for every customer so \
     far; Microsoft has superseded it: set upstream.source = \"commercial\"";

/// Watches the answers of the insights call, where that is the source.
#[derive(Debug, Default)]
pub(super) struct Silence {
    // Held for a few instructions, never across an await.
    heard: Mutex<Heard>,
}

#[derive(Debug)]
enum Heard {
    /// Every answer so far was empty; at most [`SUSPICIOUS`] customers are remembered.
    Nothing(HashSet<CustomerId>),
    /// A row, so the call speaks.
    Something,
}

impl Default for Heard {
    fn default() -> Self {
        Self::Nothing(HashSet::new())
    }
}

// === impl Silence ===

impl Silence {
    /// Takes note of an answer, and warns of the one that makes it suspicious.
    pub(super) fn heard(&self, snapshot: &Snapshot) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if !snapshot.rows().is_empty() {
            *heard = Heard::Something;
            return;
        }
        if let Heard::Nothing(customers) = &mut *heard
            && customers.len() < SUSPICIOUS
            && customers.insert(snapshot.customer_id())
            && customers.len() == SUSPICIOUS
        {
            tracing::warn!("{ADVICE}");
        }
    }

    /// [`ADVICE`], while there is reason for it.
    pub(super) fn advice(&self) -> Option<&'static str> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match &*heard {
            Heard::Nothing(customers) if customers.len() >= SUSPICIOUS => Some(ADVICE),
            Heard::Nothing(_) | Heard::Something => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ProcessedAt, UsageRow};

    fn answer(customer: u32, rows: usize) -> Snapshot {
        let customer = format!("00000000-0000-0000-0000-{customer:012}");
        let row = UsageRow {
            service_code: None,
            service_name: "o365".into(),
            product_id: None,
            product_name: "A".into(),
            channel: None,
            workload_code: None,
            workload_name: "Exchange".into(),
            licenses_active: 1,
            licenses_qualified: 2,
            usage_percent: None,
            processed_at: ProcessedAt("2017-03-09T00:00:00Z".parse().unwrap()),
        };
        let customer = CustomerId::parse(&customer).unwrap();
        Snapshot::new(customer, None, vec![row; rows]).unwrap()
    }

    #[test]
    fn three_customers_without_a_row_are_suspicious() {
        let silence = Silence::default();

        for customer in [1, 2, 2, 2] {
            silence.heard(&answer(customer, 0));
        }
        let before = silence.advice();
        silence.heard(&answer(3, 0));

        assert_eq!(before, None);
        assert!(silence.advice().unwrap().contains("commercial"));
    }

    #[test]
    fn one_row_lifts_the_suspicion_for_good() {
        let silence = Silence::default();
        for customer in 1..=3 {
            silence.heard(&answer(customer, 0));
        }

        silence.heard(&answer(4, 1));
        for customer in 5..=9 {
            silence.heard(&answer(customer, 0));
        }

        assert_eq!(silence.advice(), None);
    }
}
