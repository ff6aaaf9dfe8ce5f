//! Answers from the durable store: what changed over time, for one customer or for all.

use std::{collections::BTreeSet, num::NonZeroUsize, sync::Arc, time::Instant};

use tokio::sync::SemaphorePermit;

use super::UsageService;
use crate::{
    domain::{Caller, CustomerId, DateRange, ProcessedAt, ProcessedDate, UsageRow},
    store::{
        FleetDateTotals, FleetHistoryQuery, HistoryPosition, HistoryQuery, HistoryRow, StoreError,
        StoredDate, UsageStore,
    },
};

/// A page of a customer's history.
#[derive(Clone, Debug)]
pub struct HistoryPage {
    /// The rows, oldest first.
    pub rows: Vec<HistoryRow>,
    /// The position of the last row, if more follow.
    pub next: Option<HistoryPosition>,
    /// True if upstream was asked for every date of the range.
    pub is_complete: bool,
}

/// A customer's history, page by page, so that it is never in memory as a whole.
///
/// Only a few exist at any moment; others wait for their end.
#[derive(Debug)]
pub struct HistoryReader<'a> {
    store: &'a Arc<dyn UsageStore>,
    query: HistoryQuery,
    /// The rows that may still be read.
    remaining: usize,
    is_finished: bool,
    _permit: SemaphorePermit<'a>,
}

/// The rows of two dates of a customer.
#[derive(Clone, Debug)]
pub struct ComparedDates {
    /// The earlier date.
    pub from: ProcessedDate,
    /// The later date, or the same.
    pub to: ProcessedDate,
    /// The rows of the earlier date.
    pub from_rows: Vec<UsageRow>,
    /// The rows of the later date.
    pub to_rows: Vec<UsageRow>,
}

/// The totals of all customers over time.
#[derive(Clone, Debug)]
pub struct FleetHistory {
    /// The totals, oldest first.
    pub totals: Vec<FleetDateTotals>,
    /// True if upstream was asked for every date of the range, for all customers together.
    pub is_complete: bool,
}

/// History cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The caller may not read a customer, whether there is anything or not.
    #[error("the caller may not read this customer")]
    NotAllowed,
    /// The service has no durable store.
    #[error("no store is configured")]
    NoStore,
    /// Nothing of this customer is stored.
    #[error("nothing is stored of this customer")]
    NothingStored,
    /// A date is not stored.
    #[error("{date} is not stored")]
    NotStored {
        /// The date.
        date: ProcessedDate,
        /// The newest stored date before it.
        before: Option<ProcessedDate>,
        /// The oldest stored date after it.
        after: Option<ProcessedDate>,
    },
    /// No stored date is old enough to be compared with another by default.
    #[error(
        "no date of at least {} days before {to} is stored",
        UsageService::COMPARED_DAYS
    )]
    NothingEarlier {
        /// The date to compare with.
        to: ProcessedDate,
        /// The oldest stored date.
        oldest: ProcessedDate,
    },
    /// The range has more rows than fit into one answer.
    #[error("the range has more than {} rows", HistoryReader::MAX_ROWS)]
    TooManyRows,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The facts that decide whether upstream was asked for each date of a range.
#[derive(Debug)]
struct AskedDates {
    /// The dates that have data, and those that upstream was asked for without having any.
    dates: BTreeSet<ProcessedDate>,
    /// The newest processed date by the last check.
    newest: Option<CheckedNewest>,
    today: ProcessedDate,
}

/// The newest processed date, and the day on which upstream said so.
#[derive(Clone, Copy, Debug)]
struct CheckedNewest {
    date: ProcessedDate,
    checked_on: ProcessedDate,
}

// === impl UsageService ===

impl UsageService {
    /// The least distance of the two dates that are compared by default: licenses are active if they
    /// were used within that time.
    pub const COMPARED_DAYS: i32 = 28;

    /// The histories that are read as a whole at the same time.
    pub(super) const MAX_HISTORY_READERS: usize = 4;

    /// Returns the stored dates of a customer, oldest first.
    ///
    /// # Errors
    ///
    /// [`HistoryError`].
    pub async fn stored_dates(
        &self,
        customer: CustomerId,
        range: DateRange,
        caller: &Caller,
    ) -> Result<Vec<StoredDate>, HistoryError> {
        let store = self.store_for(customer, caller)?;
        Ok(store.dates(customer, range).await?)
    }

    /// Returns a page of a customer's history, of at most `query.limit` rows.
    ///
    /// # Errors
    ///
    /// [`HistoryError`].
    pub async fn history_page(
        &self,
        mut query: HistoryQuery,
        caller: &Caller,
        now: Instant,
    ) -> Result<HistoryPage, HistoryError> {
        let (customer, range) = (query.customer, query.range);
        let store = self.store_for(customer, caller)?;
        let limit = query.limit;
        // One more, so that the last page is known to be the last.
        query.limit = limit.saturating_add(1);
        let mut rows = store.history(query).await?;
        let has_more = rows.len() > limit.get();
        rows.truncate(limit.get());
        let last = rows.last().map(|row| row.position.clone());
        Ok(HistoryPage {
            next: last.filter(|_| has_more),
            rows,
            is_complete: self
                .asked_of(store, customer, range, now)
                .await?
                .cover(range),
        })
    }

    /// Reads all rows of a range, page by page; `query.limit` is the size of a page.
    ///
    /// # Errors
    ///
    /// [`HistoryError`].
    pub async fn read_history(
        &self,
        query: HistoryQuery,
        caller: &Caller,
    ) -> Result<HistoryReader<'_>, HistoryError> {
        let store = self.store_for(query.customer, caller)?;
        let permit = self.inner.history_readers.acquire().await;
        Ok(HistoryReader {
            store,
            query,
            remaining: HistoryReader::MAX_ROWS.get(),
            is_finished: false,
            // Nothing closes the semaphore.
            _permit: permit.map_err(|_| StoreError::Unavailable)?,
        })
    }

    /// Returns the rows of two dates of a customer. By default, `to` is the newest stored date and `from`
    /// the newest one at least [`Self::COMPARED_DAYS`] before it.
    ///
    /// # Errors
    ///
    /// [`HistoryError`]; among them that a date is not stored.
    pub async fn compared_dates(
        &self,
        customer: CustomerId,
        from: Option<ProcessedDate>,
        to: Option<ProcessedDate>,
        caller: &Caller,
    ) -> Result<ComparedDates, HistoryError> {
        let store = self.store_for(customer, caller)?;
        let stored = store.dates(customer, DateRange::ALL).await?;
        let stored: Vec<_> = stored.iter().map(|stored| stored.date).collect();
        let (from, to) = choose_compared_dates(&stored, from, to)?;
        Ok(ComparedDates {
            from,
            to,
            from_rows: rows_of(&**store, customer, from).await?,
            to_rows: rows_of(&**store, customer, to).await?,
        })
    }

    /// Returns the totals of each date over the customers of the query that the caller may read.
    ///
    /// # Errors
    ///
    /// [`HistoryError`]; among them that the caller may read no customer.
    pub async fn fleet_history(
        &self,
        mut query: FleetHistoryQuery,
        caller: &Caller,
        now: Instant,
    ) -> Result<FleetHistory, HistoryError> {
        let readable = caller.readable_customers();
        if readable.as_ref().is_some_and(Vec::is_empty) {
            return Err(HistoryError::NotAllowed);
        }
        query.customers = match (query.customers, readable) {
            (None, readable) => readable,
            (Some(wanted), None) => Some(wanted),
            (Some(mut wanted), Some(_)) => {
                wanted.retain(|customer| caller.may_read(*customer));
                Some(wanted)
            }
        };
        let store = self.store().ok_or(HistoryError::NoStore)?;
        let range = query.range;
        let totals = store.fleet_history(query).await?;
        let asked = AskedDates {
            dates: BTreeSet::from_iter(store.asked_dates(None, range).await?),
            newest: self.newest_of_fleet(now),
            today: self.today(),
        };
        Ok(FleetHistory {
            totals,
            is_complete: asked.cover(range),
        })
    }

    /// Returns the name of a customer, if anything that is in memory has it.
    pub fn known_customer_name(&self, customer: CustomerId, now: Instant) -> Option<String> {
        let listed = self.inner.cache.customer_name(customer, now);
        listed.or_else(|| {
            let usage = self.inner.level.book.record_of(customer)?.usage?;
            usage.customer_name().map(str::to_owned)
        })
    }

    async fn asked_of(
        &self,
        store: &Arc<dyn UsageStore>,
        customer: CustomerId,
        range: DateRange,
        now: Instant,
    ) -> Result<AskedDates, HistoryError> {
        let asked = store.asked_dates(Some(customer), range).await?;
        let of_fleet = self.newest_of_fleet(now);
        Ok(AskedDates {
            dates: asked.into_iter().collect(),
            newest: of_fleet.or_else(|| self.newest_of_customer(customer)),
            today: self.today(),
        })
    }

    /// Returns the newest date by the last check for all customers together.
    fn newest_of_fleet(&self, now: Instant) -> Option<CheckedNewest> {
        let (age, _) = self.inner.level.coverage(now)?;
        let checked_at = self.inner.clock.wall_time().checked_sub(age).ok()?;
        Some(CheckedNewest {
            date: self.fleet_usage()?.processed_date?,
            checked_on: ProcessedDate::from_timestamp(checked_at),
        })
    }

    /// Returns the newest date of a customer by the last answer for the newest date.
    fn newest_of_customer(&self, customer: CustomerId) -> Option<CheckedNewest> {
        let record = self.inner.level.book.record_of(customer)?;
        Some(CheckedNewest {
            date: record.usage?.processed_date()?,
            checked_on: ProcessedDate::from_timestamp(record.confirmed_at?),
        })
    }

    /// Returns the store for data of a customer that the caller may read.
    pub(super) fn store_for(
        &self,
        customer: CustomerId,
        caller: &Caller,
    ) -> Result<&Arc<dyn UsageStore>, HistoryError> {
        if !caller.may_read(customer) {
            return Err(HistoryError::NotAllowed);
        }
        self.store().ok_or(HistoryError::NoStore)
    }

    fn today(&self) -> ProcessedDate {
        ProcessedDate::from_timestamp(self.inner.clock.wall_time())
    }
}

/// Returns the earlier and the later of the dates to compare. `stored` is sorted.
fn choose_compared_dates(
    stored: &[ProcessedDate],
    from: Option<ProcessedDate>,
    to: Option<ProcessedDate>,
) -> Result<(ProcessedDate, ProcessedDate), HistoryError> {
    let (Some(oldest), Some(newest)) = (stored.first(), stored.last()) else {
        return Err(HistoryError::NothingStored);
    };
    let to = to.unwrap_or(*newest);
    for date in from.into_iter().chain([to]) {
        if stored.binary_search(&date).is_err() {
            let [before, after] = neighbors(stored, date);
            return Err(HistoryError::NotStored {
                date,
                before,
                after,
            });
        }
    }
    let earlier = || date_to_compare(stored, to);
    let from = from.or_else(earlier).ok_or(HistoryError::NothingEarlier {
        to,
        oldest: *oldest,
    })?;
    Ok((from, to))
}

/// Returns the newest stored date that is early enough to be compared with `to` by default. `stored` is
/// sorted.
pub(super) fn date_to_compare(
    stored: &[ProcessedDate],
    to: ProcessedDate,
) -> Option<ProcessedDate> {
    let is_early = |date: &&ProcessedDate| date.days_until(to) >= UsageService::COMPARED_DAYS;
    stored.iter().rev().find(is_early).copied()
}

/// Returns the nearest stored dates before and after a date. `stored` is sorted.
pub(super) fn neighbors(
    stored: &[ProcessedDate],
    date: ProcessedDate,
) -> [Option<ProcessedDate>; 2] {
    let (before, rest) = stored.split_at(stored.partition_point(|stored| *stored < date));
    let after = rest.iter().find(|stored| **stored > date);
    [before.last().copied(), after.copied()]
}

/// Reads the rows of a customer and date.
pub(super) async fn rows_of(
    store: &dyn UsageStore,
    customer: CustomerId,
    date: ProcessedDate,
) -> Result<Vec<UsageRow>, StoreError> {
    let query = HistoryQuery {
        customer,
        range: DateRange::of(date),
        products: Vec::new(),
        workload: None,
        after: None,
        limit: HistoryReader::MAX_ROWS,
    };
    let rows = store.history(query).await?.into_iter();
    Ok(rows.map(usage_row).collect())
}

/// The stored part of a row.
fn usage_row(row: HistoryRow) -> UsageRow {
    UsageRow {
        service_code: None,
        service_name: row.service_name,
        product_id: row.product_id,
        product_name: row.product_name,
        channel: row.channel,
        workload_code: None,
        workload_name: row.workload_name,
        licenses_active: row.licenses_active,
        licenses_qualified: row.licenses_qualified,
        reported_usage_percent: None,
        processed_at: ProcessedAt(row.position.date.start()),
    }
}

// === impl HistoryReader ===

impl HistoryReader<'_> {
    /// The most rows of an answer that is not divided into pages.
    pub const MAX_ROWS: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();

    /// Returns the next rows; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`HistoryError`], where there are more than [`Self::MAX_ROWS`] rows or the store fails.
    pub async fn next_rows(&mut self) -> Result<Option<Vec<HistoryRow>>, HistoryError> {
        if self.is_finished {
            return Ok(None);
        }
        let rows = self.store.history(self.query.clone()).await?;
        self.is_finished = rows.len() < self.query.limit.get();
        self.query.after = rows.last().map(|row| row.position.clone());
        self.remaining = self
            .remaining
            .checked_sub(rows.len())
            .ok_or(HistoryError::TooManyRows)?;
        Ok(Some(rows))
    }
}

// === impl AskedDates ===

impl AskedDates {
    /// Returns true if upstream was asked for every date of a range, so that a gap means that it has
    /// nothing.
    ///
    /// A date was asked for if it has data, or if upstream was asked for it and had none. An answer
    /// for the newest date says that the dates after it, up to the day of that answer, have nothing.
    /// The current day is not over, so upstream cannot have counted it.
    fn cover(&self, range: DateRange) -> bool {
        range.dates().all(|date| {
            let is_newer = |newest: CheckedNewest| newest.date < date && date <= newest.checked_on;
            self.dates.contains(&date) || date >= self.today || self.newest.is_some_and(is_newer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> ProcessedDate {
        ProcessedDate::parse(text).unwrap()
    }

    fn november(days: &[i32]) -> Vec<ProcessedDate> {
        let first = date("2026-11-01");
        let dates = days.iter();
        dates.map(|day| first.plus_days(day - 1).unwrap()).collect()
    }

    /// Returns whether this range of November is complete on the 20th. `newest` is the newest date and
    /// the day on which upstream said so.
    fn is_complete(asked: &[i32], newest: Option<(i32, i32)>, from: i32, to: i32) -> bool {
        let day = |day| november(&[day])[0];
        let asked = AskedDates {
            dates: november(asked).into_iter().collect(),
            newest: newest.map(|(date, checked_on)| CheckedNewest {
                date: day(date),
                checked_on: day(checked_on),
            }),
            today: day(20),
        };
        asked.cover(DateRange {
            from: day(from),
            to: day(to),
        })
    }

    #[test]
    fn a_range_is_complete_if_every_date_was_asked_for() {
        let asked = [10, 11, 13, 14];

        assert!(is_complete(&asked, None, 10, 11));
        assert!(is_complete(&asked, None, 13, 14));
        assert!(!is_complete(&asked, None, 10, 14));
        assert!(!is_complete(&asked, None, 9, 11));
        assert!(!is_complete(&asked, None, 14, 15));
    }

    #[test]
    fn dates_after_the_newest_one_are_known_up_to_the_day_of_the_check() {
        let asked = [10, 11];

        assert!(is_complete(&asked, Some((11, 15)), 10, 15));
        assert!(!is_complete(&asked, Some((11, 15)), 10, 16));
        assert!(!is_complete(&asked, Some((11, 15)), 9, 15));
        // The twelfth was never asked for.
        assert!(!is_complete(&[10, 11], Some((13, 15)), 10, 15));
        assert!(!is_complete(&[], None, 18, 19));
    }

    #[test]
    fn the_current_day_is_not_over_and_so_not_missing() {
        assert!(is_complete(&[18, 19], None, 18, 20));
        assert!(is_complete(&[10], Some((10, 19)), 10, 20));
        assert!(!is_complete(&[10], Some((10, 18)), 10, 20));
    }

    #[test]
    fn the_newest_date_is_compared_with_one_at_least_four_weeks_before() {
        let stored = [date("2026-10-01"), date("2026-10-02"), date("2026-10-30")];

        let compared = choose_compared_dates(&stored, None, None).unwrap();

        assert_eq!(compared, (date("2026-10-02"), date("2026-10-30")));
        let later = [&stored[..], &[date("2026-10-31")]].concat();
        let compared = choose_compared_dates(&later, None, None).unwrap();
        assert_eq!(compared, (date("2026-10-02"), date("2026-10-31")));
    }

    #[test]
    fn without_an_earlier_date_there_is_nothing_to_compare_by_default() {
        let stored = november(&[1, 28]);

        let error = choose_compared_dates(&stored, None, None).unwrap_err();
        assert!(matches!(error, HistoryError::NothingEarlier { .. }));
        let compared = choose_compared_dates(&stored, Some(stored[0]), None).unwrap();
        assert_eq!(compared, (stored[0], stored[1]));
        let error = choose_compared_dates(&[], None, None).unwrap_err();
        assert!(matches!(error, HistoryError::NothingStored));
    }

    #[test]
    fn a_date_that_is_not_stored_names_its_neighbours() {
        let stored = november(&[10, 12, 15]);

        for (day, expected) in [
            (9, [None, Some(10)]),
            (11, [Some(10), Some(12)]),
            (14, [Some(12), Some(15)]),
            (16, [Some(15), None]),
        ] {
            let day = november(&[day])[0];
            let expected = expected.map(|day| day.map(|day| november(&[day])[0]));
            for (from, to) in [(Some(day), None), (None, Some(day))] {
                let error = choose_compared_dates(&stored, from, to).unwrap_err();
                let HistoryError::NotStored {
                    date,
                    before,
                    after,
                } = error
                else {
                    panic!("{error:?}");
                };
                assert_eq!((date, [before, after]), (day, expected));
            }
        }
    }
}
