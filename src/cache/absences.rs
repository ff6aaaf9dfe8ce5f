use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::domain::CustomerId;

/// Watches how many customers are reported gone at once: that looks like a fault of the upstream's,
/// or of our credentials.
#[derive(Debug, Default)]
pub(super) struct AbsenceWatch {
    customers: HashMap<CustomerId, LastAnswer>,
    /// When answers that are too old were removed last.
    pruned_at: Option<Instant>,
}

/// The last answer about a customer.
#[derive(Clone, Copy, Debug)]
struct LastAnswer {
    at: Instant,
    /// It had data before, and is gone now.
    is_gone: bool,
}

// === impl AbsenceWatch ===

impl AbsenceWatch {
    /// Answers count for as long.
    const WINDOW: Duration = Duration::from_secs(5 * 60);

    /// So many customers may go at once.
    const FEW: usize = 10;

    /// And so many may, for each that is asked for.
    const SHARE: usize = 10;

    /// Customers that are counted, about a megabyte of them; the calls of five minutes are fewer.
    const MOST: usize = 16_384;

    /// Records an answer that has the customer.
    pub(super) fn saw(&mut self, customer: CustomerId, now: Instant) {
        self.note(customer, false, now);
    }

    /// Records that a customer whose data is cached is gone. Returns whether that is suspect because
    /// many are.
    pub(super) fn lost(&mut self, customer: CustomerId, now: Instant) -> bool {
        self.note(customer, true, now);
        self.prune(now);
        let gone = self.customers.values().filter(|last| last.is_gone).count();
        gone > Self::FEW && gone * Self::SHARE > self.customers.len()
    }

    fn note(&mut self, customer: CustomerId, is_gone: bool, now: Instant) {
        let is_due = |at| now.saturating_duration_since(at) >= Self::WINDOW;
        if self.pruned_at.is_none_or(is_due) {
            self.prune(now);
        }
        let last = LastAnswer { at: now, is_gone };
        if self.customers.len() < Self::MOST || self.customers.contains_key(&customer) {
            self.customers.insert(customer, last);
        }
    }

    fn prune(&mut self, now: Instant) {
        self.pruned_at = Some(now);
        self.customers
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
        let (mut watch, now) = (AbsenceWatch::default(), SystemClock.now());
        for number in 0..seen {
            watch.saw(customer(number), now);
        }
        let lost = (0..gone).map(|number| watch.lost(customer(seen + number), now));
        lost.last().unwrap()
    }

    #[test]
    fn more_than_ten_and_more_than_a_tenth_are_suspect() {
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
    fn the_same_customer_counts_once_and_an_answer_of_long_ago_not_at_all() {
        let (mut watch, start) = (AbsenceWatch::default(), SystemClock.now());
        let mut is_suspect = false;

        for number in 0..30 {
            is_suspect |= watch.lost(customer(number % 10), start);
        }
        let later = start + AbsenceWatch::WINDOW;
        for number in 10..20 {
            is_suspect |= watch.lost(customer(number), later);
        }

        assert!(!is_suspect);
        assert!(watch.lost(customer(20), later));
    }

    #[test]
    fn a_customer_that_is_back_is_not_gone() {
        let (mut watch, now) = (AbsenceWatch::default(), SystemClock.now());
        for number in 0..10 {
            watch.lost(customer(number), now);
        }
        watch.saw(customer(0), now);

        assert!(!watch.lost(customer(10), now));
    }

    #[test]
    fn the_customers_of_five_minutes_are_all_that_take_memory() {
        let (mut watch, mut now) = (AbsenceWatch::default(), SystemClock.now());

        for number in 0..100_000 {
            now += AbsenceWatch::WINDOW / 100;
            watch.saw(customer(number), now);
        }
        assert!(watch.customers.len() <= 200);
        for number in 0..100_000 {
            watch.saw(customer(number), now);
        }
        assert_eq!(watch.customers.len(), AbsenceWatch::MOST);
    }
}
