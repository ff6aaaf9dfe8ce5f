use std::collections::HashMap;

use super::{key::NewestKey, purge::PurgeScope};
use crate::domain::{CustomerId, ProcessedDate, UpstreamApi};

/// The newest date that each customer's usage ever had, which outlives the data.
///
/// A customer takes some fifty bytes, so there is room for many more customers than the cache has data
/// of. Beyond that, the customer with the oldest date is removed.
#[derive(Debug)]
pub(super) struct KnownDates {
    dates: HashMap<NewestKey, ProcessedDate>,
    max_entries: usize,
}

// === impl KnownDates ===

impl KnownDates {
    /// An upper bound of the bytes of one entry: key and value are 22 bytes, and a map that has just
    /// grown is half empty.
    const ENTRY_BYTES: u64 = 64;

    pub(super) fn new(max_bytes: u64) -> Self {
        let most = usize::try_from(max_bytes / Self::ENTRY_BYTES).unwrap_or(usize::MAX);
        Self {
            dates: HashMap::new(),
            max_entries: most.max(1),
        }
    }

    /// Returns the newest date of a customer, as sent by this call.
    pub(super) fn get(&self, key: &NewestKey) -> Option<ProcessedDate> {
        self.dates.get(key).copied()
    }

    /// Returns the newest date of a customer, as sent by any call.
    pub(super) fn newest_of(&self, customer: CustomerId) -> Option<ProcessedDate> {
        let date = |api| {
            self.get(&NewestKey {
                customer: Some(customer),
                api,
            })
        };
        UpstreamApi::OF_USAGE.into_iter().filter_map(date).max()
    }

    /// Records a date, unless a newer one is known.
    pub(super) fn observe(&mut self, key: NewestKey, date: ProcessedDate) {
        if let Some(known) = self.dates.get_mut(&key) {
            *known = date.max(*known);
            return;
        }
        if self.dates.len() >= self.max_entries
            && let Some(oldest) = self.dates.iter().min_by_key(|(_, date)| **date)
        {
            let oldest = *oldest.0;
            self.dates.remove(&oldest);
        }
        self.dates.insert(key, date);
    }

    /// Removes the newest date of a customer, which has no rows any more.
    pub(super) fn remove(&mut self, key: &NewestKey) {
        self.dates.remove(key);
    }

    /// Removes the dates of a hard purge.
    pub(super) fn purge(&mut self, scope: PurgeScope) {
        self.dates
            .retain(|key, date| !scope.covers(key.customer, Some(*date)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u128) -> NewestKey {
        let id = uuid::Uuid::from_u128(number).to_string();
        NewestKey {
            customer: Some(CustomerId::parse(&id).unwrap()),
            api: UpstreamApi::Insights,
        }
    }

    fn date(text: &str) -> ProcessedDate {
        ProcessedDate::parse(text).unwrap()
    }

    #[test]
    fn an_entry_is_no_larger_than_its_bound() {
        // Of a map that has just grown, half of seven eighths are in use; a bucket has a byte more.
        let bucket = size_of::<(NewestKey, ProcessedDate)>() + 1;

        assert!(bucket * 16 / 7 <= usize::try_from(KnownDates::ENTRY_BYTES).unwrap());
    }

    #[test]
    fn a_full_map_evicts_the_oldest_date() {
        let mut known = KnownDates::new(2 * KnownDates::ENTRY_BYTES);
        known.observe(key(1), date("2026-11-19"));
        known.observe(key(2), date("2026-11-18"));

        known.observe(key(3), date("2026-11-17"));

        let dates = [1, 2, 3].map(|number| known.get(&key(number)));
        assert_eq!(
            dates,
            [Some(date("2026-11-19")), None, Some(date("2026-11-17"))]
        );
    }

    #[test]
    fn a_date_is_not_replaced_by_an_older_one() {
        let mut known = KnownDates::new(1 << 10);
        known.observe(key(1), date("2026-11-19"));

        known.observe(key(1), date("2026-11-18"));

        assert_eq!(known.get(&key(1)), Some(date("2026-11-19")));
    }
}
