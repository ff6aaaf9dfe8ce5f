use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::domain::CustomerId;

/// Detects that many customers are gone at once: that looks like a fault of the upstream, or of our
/// credentials.
#[derive(Debug, Default)]
pub(super) struct MassAbsenceDetector {
    last_answers: HashMap<CustomerId, LastPresence>,
    /// The time when old answers were removed last.
    pruned_at: Option<Instant>,
}

/// The last answer about a customer.
#[derive(Clone, Copy, Debug)]
struct LastPresence {
    at: Instant,
    /// It had data before and has none now.
    is_absent: bool,
}

// === impl MassAbsenceDetector ===

impl MassAbsenceDetector {
    /// The time for which an answer counts.
    const WINDOW: Duration = Duration::from_secs(5 * 60);

    /// The number of customers that may go at once.
    const ALLOWED_ABSENCES: usize = 10;

    /// One of so many customers with answers may go.
    const ALLOWED_ABSENCE_SHARE: usize = 10;

    /// The most customers that are counted, about a megabyte of them; five minutes have fewer calls.
    const MAX_CUSTOMERS: usize = 16_384;

    /// Records an answer that has the customer.
    pub(super) fn observe_present(&mut self, customer: CustomerId, now: Instant) {
        self.record(customer, false, now);
    }

    /// Records that a customer with cached data is gone. Returns whether that is suspect.
    pub(super) fn observe_absent(&mut self, customer: CustomerId, now: Instant) -> bool {
        self.record(customer, true, now);
        self.prune(now);
        let absent = self
            .last_answers
            .values()
            .filter(|last| last.is_absent)
            .count();
        absent > Self::ALLOWED_ABSENCES
            && absent * Self::ALLOWED_ABSENCE_SHARE > self.last_answers.len()
    }

    fn record(&mut self, customer: CustomerId, is_absent: bool, now: Instant) {
        let is_due = |at| now.saturating_duration_since(at) >= Self::WINDOW;
        if self.pruned_at.is_none_or(is_due) {
            self.prune(now);
        }
        let last = LastPresence { at: now, is_absent };
        if self.last_answers.len() < Self::MAX_CUSTOMERS
            || self.last_answers.contains_key(&customer)
        {
            self.last_answers.insert(customer, last);
        }
    }

    fn prune(&mut self, now: Instant) {
        self.pruned_at = Some(now);
        self.last_answers
            .retain(|_, last| now.saturating_duration_since(last.at) < Self::WINDOW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};

    fn customer(number: u128) -> CustomerId {
        CustomerId::parse(&uuid::Uuid::from_u128(number).to_string()).unwrap()
    }

    /// Returns whether the last of so many that go is suspect, after as many were seen.
    fn is_suspect(gone: u128, seen: u128) -> bool {
        let (mut detector, now) = (MassAbsenceDetector::default(), SystemClock.now());
        for number in 0..seen {
            detector.observe_present(customer(number), now);
        }
        let lost = (0..gone).map(|number| detector.observe_absent(customer(seen + number), now));
        lost.last().unwrap()
    }

    #[test]
    fn more_than_ten_absences_and_more_than_a_tenth_are_suspect() {
        for (gone, seen, expected) in [
            (10, 0, false),
            (11, 0, true),
            (11, 98, true),
            (11, 99, false),
            (100, 900, false),
            (101, 900, true),
        ] {
            assert_eq!(
                is_suspect(gone, seen),
                expected,
                "{gone} of {gone} + {seen}"
            );
        }
    }

    #[test]
    fn a_customer_counts_once_and_an_old_answer_does_not_count() {
        let (mut detector, start) = (MassAbsenceDetector::default(), SystemClock.now());
        let mut is_suspect = false;

        for number in 0..30 {
            is_suspect |= detector.observe_absent(customer(number % 10), start);
        }
        let later = start + MassAbsenceDetector::WINDOW;
        for number in 10..20 {
            is_suspect |= detector.observe_absent(customer(number), later);
        }

        assert!(!is_suspect);
        assert!(detector.observe_absent(customer(20), later));
    }

    #[test]
    fn a_customer_that_returns_is_not_absent() {
        let (mut detector, now) = (MassAbsenceDetector::default(), SystemClock.now());
        for number in 0..10 {
            detector.observe_absent(customer(number), now);
        }
        detector.observe_present(customer(0), now);

        assert!(!detector.observe_absent(customer(10), now));
    }

    #[test]
    fn only_the_customers_of_the_last_five_minutes_take_memory() {
        let (mut detector, mut now) = (MassAbsenceDetector::default(), SystemClock.now());

        for number in 0..100_000 {
            now += MassAbsenceDetector::WINDOW / 100;
            detector.observe_present(customer(number), now);
        }
        assert!(detector.last_answers.len() <= 200);
        for number in 0..100_000 {
            detector.observe_present(customer(number), now);
        }
        assert_eq!(
            detector.last_answers.len(),
            MassAbsenceDetector::MAX_CUSTOMERS
        );
    }
}
