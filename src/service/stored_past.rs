//! A customer's past beside its usage of one date, for the page.

use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    HistoryError, UsageService,
    brief_reads::BriefReads,
    history::{date_to_compare, neighbors, rows_of},
};
use crate::{
    clock::SharedClock,
    domain::{Caller, CustomerId, DateRange, ProcessedDate, UsageRow},
    shutdown::Shutdown,
    store::{StoreError, UsageStore},
};

/// The stored dates of a customer, and its usage some weeks before one date.
#[derive(Clone, Debug)]
pub struct StoredPast {
    /// The stored dates, oldest first.
    pub dates: Vec<ProcessedDate>,
    /// The newest usage that is old enough to be compared.
    pub earlier: Option<EarlierUsage>,
}

/// The stored rows of an earlier date.
#[derive(Clone, Debug)]
pub struct EarlierUsage {
    /// The date, at least [`UsageService::COMPARED_DAYS`] before the other.
    pub date: ProcessedDate,
    /// The rows.
    pub rows: Vec<UsageRow>,
}

/// Pasts that were read a moment ago, each of a customer and date.
#[derive(Debug)]
pub(super) struct RecentPasts(BriefReads<(CustomerId, ProcessedDate), Arc<StoredPast>>);

// === impl UsageService ===

impl UsageService {
    /// Returns the stored past of a customer beside its usage of `date`. It waits for the store for some
    /// milliseconds at most. `None`: the store did not answer in time. The read is finished, for a later
    /// request.
    ///
    /// # Errors
    ///
    /// [`HistoryError`].
    pub async fn stored_past(
        &self,
        customer: CustomerId,
        date: ProcessedDate,
        caller: &Caller,
        now: Instant,
    ) -> Result<Option<Arc<StoredPast>>, HistoryError> {
        let store = self.store_for(customer, caller)?;
        let RecentPasts(reads) = &self.inner.pasts;
        let key = (customer, date);
        if let Some(past) = reads.get(&key, now) {
            return Ok(Some(past));
        }
        let store = Arc::clone(store);
        let read = async move {
            // The store counts its failures.
            let past = StoredPast::read(&*store, customer, date).await.ok()?;
            Some([(key, Arc::new(past))])
        };
        let is_in_time = reads.read(vec![key], read, now).await;
        match reads.get(&key, now) {
            None if is_in_time => Err(StoreError::Unavailable.into()),
            past => Ok(past),
        }
    }
}

// === impl StoredPast ===

impl StoredPast {
    async fn read(
        store: &dyn UsageStore,
        customer: CustomerId,
        date: ProcessedDate,
    ) -> Result<Self, StoreError> {
        let dates = store.dates(customer, DateRange::ALL).await?;
        let dates: Vec<_> = dates.iter().map(|stored| stored.date).collect();
        let earlier = match date_to_compare(&dates, date) {
            Some(date) => Some(EarlierUsage {
                date,
                rows: rows_of(store, customer, date).await?,
            }),
            None => None,
        };
        Ok(Self { dates, earlier })
    }

    /// The nearest stored dates before and after a date.
    pub fn neighbors(&self, date: ProcessedDate) -> [Option<ProcessedDate>; 2] {
        neighbors(&self.dates, date)
    }
}

// === impl RecentPasts ===

impl RecentPasts {
    /// The time for which a past is not read again: another date may be stored at any moment, and a reader
    /// who reloads the page expects it.
    const FRESH_FOR: Duration = Duration::from_secs(5);

    const MAX_PASTS: NonZeroUsize = NonZeroUsize::new(128).unwrap();

    pub(super) fn new(clock: SharedClock, shutdown: Shutdown) -> Self {
        let reads = BriefReads::new(Self::MAX_PASTS, Self::FRESH_FOR, clock, shutdown);
        Self(reads)
    }
}
