//! The unused licenses of customers on their last dates.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{UsageService, brief_reads::BriefReads};
use crate::{
    clock::SharedClock,
    domain::{Caller, CustomerId, ProcessedDate},
    shutdown::Shutdown,
    store::{CustomerTotals, ProductFilter, RecentTotalsQuery, UsageStore},
};

/// The unused licenses of a customer on its last dates, oldest first.
pub type TrendPoints = Arc<[(ProcessedDate, u64)]>;

/// A request for the trends of customers.
#[derive(Clone, Debug)]
pub struct TrendRequest {
    /// The customers, each with the arrival of its data: after another arrival its trend is read again.
    pub customers: Vec<(CustomerId, Option<Timestamp>)>,
    /// The last date.
    pub until: ProcessedDate,
    /// The products that count.
    pub products: ProductFilter,
    /// Different for each content of `products`.
    pub products_version: u64,
}

/// The trends of customers.
#[derive(Clone, Debug, Default)]
pub struct TrendAnswer {
    /// The customers of which something is stored.
    pub trends: HashMap<CustomerId, TrendPoints>,
    /// False if the store did not answer in time. A read that takes longer is finished, for a later
    /// request.
    pub is_complete: bool,
}

/// Trends that were read lately.
#[derive(Debug)]
pub(super) struct RecentTrends(BriefReads<TrendKey, TrendPoints>);

/// All that a trend depends on, but for past dates that are stored later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TrendKey {
    customer: CustomerId,
    until: ProcessedDate,
    fetched_at: Option<Timestamp>,
    products_version: u64,
}

// === impl UsageService ===

impl UsageService {
    /// Returns the trends of the customers that the caller may read; `None` without a store. It makes no
    /// upstream call, and waits for the store for some milliseconds at most.
    pub async fn recent_trends(
        &self,
        mut request: TrendRequest,
        caller: &Caller,
        now: Instant,
    ) -> Option<TrendAnswer> {
        let durable = self.inner.level.durable()?;
        let readable = |(customer, _): &(CustomerId, _)| caller.may_read(*customer);
        request.customers.retain(readable);
        let trends = &self.inner.trends;
        Some(trends.find(request, &durable.store, now).await)
    }
}

// === impl RecentTrends ===

impl RecentTrends {
    /// The dates of a trend.
    const DATES: NonZeroUsize = NonZeroUsize::new(12).unwrap();

    /// The time for which a trend is not read again: a backfill may have stored past dates.
    const FRESH_FOR: Duration = Duration::from_secs(300);

    const MAX_CUSTOMERS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

    pub(super) fn new(clock: SharedClock, shutdown: Shutdown) -> Self {
        let reads = BriefReads::new(Self::MAX_CUSTOMERS, Self::FRESH_FOR, clock, shutdown);
        Self(reads)
    }

    async fn find(
        &self,
        request: TrendRequest,
        store: &Arc<dyn UsageStore>,
        now: Instant,
    ) -> TrendAnswer {
        let Self(reads) = self;
        let keys = request.keys();
        let missing = keys.iter().filter(|key| reads.get(key, now).is_none());
        let missing: Vec<_> = missing.cloned().collect();
        if !missing.is_empty() {
            let read = read_trends(Arc::clone(store), missing.clone(), request);
            reads.read(missing, read, now).await;
        }
        let mut trends = HashMap::with_capacity(keys.len());
        let mut is_complete = true;
        for key in keys {
            match reads.get(&key, now) {
                Some(points) if points.is_empty() => {}
                Some(points) => drop(trends.insert(key.customer, points)),
                None => is_complete = false,
            }
        }
        TrendAnswer {
            trends,
            is_complete,
        }
    }
}

/// Reads the trends of some of the requested customers, each with its key. The store counts its failures.
async fn read_trends(
    store: Arc<dyn UsageStore>,
    keys: Vec<TrendKey>,
    request: TrendRequest,
) -> Option<Vec<(TrendKey, TrendPoints)>> {
    let query = RecentTotalsQuery {
        customers: keys.iter().map(|key| key.customer).collect(),
        until: request.until,
        dates: RecentTrends::DATES,
        products: request.products,
    };
    let totals = store.recent_totals(query).await.ok()?;
    let mut found: HashMap<_, _> = totals.into_iter().map(trend_points).collect();
    let of_key = |key: TrendKey| {
        let points = found.remove(&key.customer).unwrap_or_default();
        (key, points)
    };
    Some(keys.into_iter().map(of_key).collect())
}

fn trend_points(of_customer: CustomerTotals) -> (CustomerId, TrendPoints) {
    let totals = of_customer.totals.iter();
    let points = totals.map(|totals| (totals.date, totals.licenses_unused));
    (of_customer.customer, points.collect())
}

// === impl TrendRequest ===

impl TrendRequest {
    fn keys(&self) -> Vec<TrendKey> {
        let customers = self.customers.iter();
        customers
            .map(|(customer, fetched_at)| TrendKey {
                customer: *customer,
                until: self.until,
                fetched_at: *fetched_at,
                products_version: self.products_version,
            })
            .collect()
    }
}
