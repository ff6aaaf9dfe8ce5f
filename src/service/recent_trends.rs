//! The unused licenses of customers on their last dates.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::UsageService;
use crate::{
    cache::SingleFlight,
    clock::{SharedClock, with_deadline},
    domain::{Caller, CustomerId, ProcessedDate},
    lru_map::LruMap,
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
pub(super) struct RecentTrends {
    cache: Arc<LruMap<TrendKey, CachedTrend>>,
    reads: SingleFlight<Vec<TrendKey>, ()>,
    clock: SharedClock,
}

/// All that a trend depends on, but for past dates that are stored later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TrendKey {
    customer: CustomerId,
    until: ProcessedDate,
    fetched_at: Option<Timestamp>,
    products_version: u64,
}

#[derive(Clone, Debug)]
struct CachedTrend {
    points: TrendPoints,
    read_at: Instant,
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

    /// The time that a request waits for the store.
    const BUDGET: Duration = Duration::from_millis(20);

    const MAX_CUSTOMERS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

    pub(super) fn new(clock: SharedClock, shutdown: Shutdown) -> Self {
        Self {
            cache: Arc::new(LruMap::new(Self::MAX_CUSTOMERS)),
            reads: SingleFlight::new(shutdown),
            clock,
        }
    }

    async fn find(
        &self,
        request: TrendRequest,
        store: &Arc<dyn UsageStore>,
        now: Instant,
    ) -> TrendAnswer {
        let keys = request.keys();
        let missing: Vec<_> = keys
            .iter()
            .filter(|key| self.cached(key, now).is_none())
            .cloned()
            .collect();
        if !missing.is_empty() {
            self.read(missing, request, Arc::clone(store), now).await;
        }
        let mut trends = HashMap::with_capacity(keys.len());
        let mut is_complete = true;
        for key in keys {
            match self.cached(&key, now) {
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

    fn cached(&self, key: &TrendKey, now: Instant) -> Option<TrendPoints> {
        let cached = self.cache.get(key)?;
        let age = now.saturating_duration_since(cached.read_at);
        (age < Self::FRESH_FOR).then_some(cached.points)
    }

    /// Reads trends into the cache, once for all requests that want the same, and waits for that.
    async fn read(
        &self,
        missing: Vec<TrendKey>,
        request: TrendRequest,
        store: Arc<dyn UsageStore>,
        now: Instant,
    ) {
        let cache = self.cache.clone();
        let query = RecentTotalsQuery {
            customers: missing.iter().map(|key| key.customer).collect(),
            until: request.until,
            dates: Self::DATES,
            products: request.products,
        };
        let read = {
            let missing = missing.clone();
            async move {
                let Ok(totals) = store.recent_totals(query).await else {
                    // The store counts its failures.
                    return;
                };
                let mut found: HashMap<_, _> = totals.into_iter().map(trend_points).collect();
                for key in missing {
                    let points = found.remove(&key.customer).unwrap_or_default();
                    let read_at = now;
                    cache.insert(key, CachedTrend { points, read_at });
                }
            }
        };
        let Ok(flight) = self.reads.join_or_lead(
            missing,
            |()| (),
            || Ok::<_, Infallible>(()),
            |guard, ()| async move {
                read.await;
                drop(guard);
            },
        );
        let deadline = self.clock.now() + Self::BUDGET;
        let _in_time = with_deadline(&self.clock, deadline, flight.outcome()).await;
    }
}

fn trend_points(of_customer: CustomerTotals) -> (CustomerId, TrendPoints) {
    let totals = of_customer.totals.iter();
    let points = totals.map(|totals| (totals.date, totals.licenses_unused));
    (of_customer.customer, points.collect())
}

impl fmt::Debug for RecentTrends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecentTrends")
            .field("trends", &self.cache.len())
            .finish_non_exhaustive()
    }
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
