//! Serves usage, the list of customers and the native documents from the cache or from upstream.
//!
//! [`UsageService::fresh_usage`] serves a hit. [`UsageService::answer`] decides everything else: serve
//! the cached answer, serve it and refresh it, or ask upstream and fall back on the cached answer.

mod answer;
mod backfill;
mod brief_reads;
mod call_leases;
mod concurrency_limiter;
mod customers;
mod dated_call_limits;
mod decision;
mod fetcher;
mod fleet;
mod fleet_answer;
mod history;
mod purge_marks;
mod recent_trends;
mod rendering;
mod second_level;
pub mod source;
mod spans;
mod store_follower;
mod stored_past;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

pub use self::{
    answer::{ErrorKind, UsageAnswer, UsageError},
    backfill::{
        BackfillError, BackfillProgress, BackfillRangeError, BackfillRequest, BackfillState,
        FailedDate,
    },
    concurrency_limiter::CallLimits,
    fleet::{FleetMetrics, FleetRefresher},
    fleet_answer::{FleetAnswer, FleetCheck},
    history::{ComparedDates, FleetHistory, HistoryError, HistoryPage, HistoryReader},
    recent_trends::{TrendAnswer, TrendPoints, TrendRequest},
    store_follower::{PurgeOutcome, StoreFollower},
    stored_past::{EarlierUsage, StoredPast},
};
use self::{
    backfill::Backfill,
    fetcher::Fetcher,
    fleet::DatedFleets,
    purge_marks::PurgedBy,
    recent_trends::RecentTrends,
    rendering::SharedRenderer,
    second_level::SecondLevel,
    source::{CallTrace, UsageSource},
    stored_past::RecentPasts,
};
use crate::{
    cache::{CacheResult, CachedAnswer, Freshness, PurgeMode, PurgeScope, UsageCache},
    clock::{OffsetClock, SharedClock},
    config::CacheConfig,
    domain::{Caller, CustomerId, ProcessedDate, Resource, UpstreamApi},
    jitter::Jitter,
    portfolio_file::CurrentPortfolio,
    render::{ContentCoding, Format, RenderError, Rendered},
    shutdown::Shutdown,
    store::{DurableStore, StoreWrite, UsageStore},
};

/// Answers for license usage; clones share everything.
#[derive(Clone, Debug)]
pub struct UsageService {
    inner: Arc<UsageServiceInner>,
}

#[derive(Debug)]
struct UsageServiceInner {
    cache: Arc<UsageCache>,
    level: Arc<SecondLevel>,
    fetcher: Arc<Fetcher>,
    dated_fleets: Arc<DatedFleets>,
    backfill: Arc<Backfill>,
    history_readers: Semaphore,
    renderer: SharedRenderer,
    trends: RecentTrends,
    pasts: RecentPasts,
    /// The call for the newest date of our own formats.
    newest_api: UpstreamApi,
    soft_timeout: Duration,
    suspect_confirm_after: Duration,
    portfolio: CurrentPortfolio,
    fleet_metrics: FleetMetrics,
    clock: SharedClock,
    /// The same clock: its wall time follows that of a store that several processes share.
    shared_clock: Arc<OffsetClock>,
    shutdown: Shutdown,
}

/// The dependencies of the service.
#[derive(Debug)]
pub struct ServiceParts<'a> {
    /// The times for which answers may be served.
    pub config: &'a CacheConfig,
    /// The limits of calls.
    pub limits: CallLimits,
    /// The call for the newest date of our own formats.
    pub newest_api: UpstreamApi,
    /// The cache.
    pub cache: UsageCache,
    /// The source of usage and customers.
    pub source: Arc<dyn UsageSource>,
    /// The store; `None`: memory only.
    pub durable: Option<DurableStore>,
    /// The partner's own names, prices and groups.
    pub portfolio: CurrentPortfolio,
    /// The time.
    pub clock: SharedClock,
    /// The metrics of all customers together.
    pub fleet_metrics: FleetMetrics,
    /// Ends the tasks of calls.
    pub shutdown: &'a Shutdown,
}

/// A request for usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageQuery {
    /// The customer.
    pub customer_id: CustomerId,
    /// The format. The native one exists for the newest date only.
    pub format: Format,
    /// The processed date; the newest where absent.
    pub date: Option<ProcessedDate>,
    /// The caller's `Cache-Control`.
    pub directive: CacheDirective,
}

/// A caller's `Cache-Control` (RFC 9111 §5.2.1), as far as it has an effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheDirective {
    /// None.
    #[default]
    Any,
    /// `no-cache`: ask upstream, at most once per configured interval.
    NoCache,
    /// `only-if-cached`: never ask upstream.
    OnlyIfCached,
}

// === impl UsageService ===

impl UsageService {
    /// Creates a service over a cache.
    pub fn new(parts: ServiceParts<'_>) -> Self {
        let ServiceParts {
            config,
            limits,
            newest_api,
            cache,
            source,
            durable,
            portfolio,
            clock,
            fleet_metrics,
            shutdown,
        } = parts;
        let shared_clock = Arc::new(OffsetClock::new(clock));
        let clock: SharedClock = Arc::clone(&shared_clock) as _;
        let cache = Arc::new(cache);
        let level = Arc::new(SecondLevel::new(
            Arc::clone(&cache),
            newest_api,
            durable,
            Arc::clone(&clock),
            shutdown.clone(),
        ));
        let fetcher = Arc::new(Fetcher::new(
            config,
            limits,
            Arc::clone(&cache),
            Arc::clone(&level),
            source,
            Arc::clone(&clock),
            shutdown.clone(),
        ));
        let dated_fleets = Arc::new(DatedFleets::new(
            Arc::clone(&fetcher),
            Arc::clone(&level),
            Arc::clone(&cache),
            config,
            Arc::clone(&clock),
            shutdown.clone(),
        ));
        let backfill = Backfill::new(
            Arc::clone(&fetcher),
            Arc::clone(&level),
            Arc::clone(&dated_fleets),
            Arc::clone(&clock),
            shutdown.clone(),
        );
        Self {
            inner: Arc::new(UsageServiceInner {
                renderer: SharedRenderer::new(Arc::clone(&cache), shutdown.clone()),
                trends: RecentTrends::new(Arc::clone(&clock), shutdown.clone()),
                pasts: RecentPasts::new(Arc::clone(&clock), shutdown.clone()),
                cache,
                level,
                fetcher,
                dated_fleets,
                backfill: Arc::new(backfill),
                history_readers: Semaphore::new(Self::MAX_HISTORY_READERS),
                newest_api,
                soft_timeout: config.soft_timeout,
                suspect_confirm_after: config.suspect_confirm_after,
                portfolio,
                fleet_metrics,
                clock,
                shared_clock,
                shutdown: shutdown.clone(),
            }),
        }
    }

    /// Takes over what earlier processes stored, so that it is served before any upstream call.
    pub async fn warm_start(&self) {
        self.follow_clock().await;
        self.inner.level.warm_start().await;
    }

    /// Answers a query that arrived at `now`.
    ///
    /// The caller's rights are checked before the cache. Its `no-cache` is ignored where it lacks the
    /// scope, and `Cache-Status` says so.
    ///
    /// # Errors
    ///
    /// [`UsageError`] where nothing may be served.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels no upstream call: the call goes on for other requests, and its
    /// answer is stored.
    pub async fn answer(
        &self,
        query: UsageQuery,
        caller: &Caller,
        trace: impl FnOnce() -> CallTrace,
        now: Instant,
    ) -> Result<UsageAnswer, UsageError> {
        if !caller.may_read(query.customer_id) {
            return Err(UsageError::not_allowed());
        }
        let resource = self.resource(query);
        let answer = self
            .answer_allowed(resource, query.directive, caller, trace, now)
            .await?;
        if query.format == Format::Native && !answer.cached.rendered.has_native() {
            return Err(UsageError::no_native_format(answer, now));
        }
        let cached = self.with_names(answer.cached, query.customer_id, now).await;
        Ok(UsageAnswer { cached, ..answer })
    }

    /// Adds the customer's name, if the rows have none, and the names of the portfolio.
    async fn with_names(
        &self,
        mut cached: CachedAnswer,
        customer: CustomerId,
        now: Instant,
    ) -> CachedAnswer {
        let renderer = &self.inner.renderer;
        if cached.rendered.lacks_customer_name() {
            let seen_at = self.inner.clock.wall_time();
            cached = renderer
                .with_customer_name(cached, customer, seen_at, now)
                .await;
        }
        if !self.has_current_names(&cached.rendered) {
            let portfolio = self.inner.portfolio.get();
            cached = renderer.with_portfolio(cached, portfolio).await;
        }
        cached
    }

    fn has_current_names(&self, rendered: &Rendered) -> bool {
        rendered.portfolio_version() == self.inner.portfolio.version()
    }

    /// The portfolio in use.
    pub fn portfolio(&self) -> &CurrentPortfolio {
        &self.inner.portfolio
    }

    /// Returns the newest processed date of a customer's usage, if it is cached and not expired.
    pub fn newest_date(&self, customer_id: CustomerId, now: Instant) -> Option<ProcessedDate> {
        let resource = Resource::newest_usage(customer_id, self.inner.newest_api);
        let cached = self.inner.fetcher.look_up(resource, now)?;
        let is_known = matches!(
            cached.freshness,
            Freshness::Fresh | Freshness::StaleWhileRevalidate
        );
        cached.rendered.processed_date().filter(|_| is_known)
    }

    /// Returns whether the absence of a customer's data on a date is cached.
    pub fn is_known_absent(
        &self,
        customer_id: CustomerId,
        date: ProcessedDate,
        now: Instant,
    ) -> bool {
        let resource = Resource::dated_usage(customer_id, date);
        let failure = self.inner.fetcher.recent_failure(resource, now);
        failure.is_some_and(|failure| failure.error.kind.is_authoritative())
    }

    /// Returns the cached usage for a query, if it is fresh and may be read. Everything else is decided by
    /// [`UsageService::answer`]. Record an answer that is sent with [`UsageService::record_hit`].
    pub fn fresh_usage(
        &self,
        query: UsageQuery,
        caller: &Caller,
        now: Instant,
    ) -> Option<UsageAnswer> {
        if !caller.may_read(query.customer_id) {
            return None;
        }
        let answer = self.fresh_answer(self.resource(query), query.directive, now)?;
        let rendered = &answer.cached.rendered;
        let is_complete = !rendered.lacks_customer_name() && self.has_current_names(rendered);
        is_complete.then_some(answer)
    }

    /// Answers with a document, in its native form.
    ///
    /// # Errors
    ///
    /// As [`UsageService::answer`].
    ///
    /// # Cancel safety
    ///
    /// As [`UsageService::answer`].
    pub async fn document(
        &self,
        document: Resource,
        directive: CacheDirective,
        caller: &Caller,
        trace: impl FnOnce() -> CallTrace,
        now: Instant,
    ) -> Result<UsageAnswer, UsageError> {
        if !may_read(caller, document) {
            return Err(UsageError::not_allowed());
        }
        self.answer_allowed(document, directive, caller, trace, now)
            .await
    }

    /// Returns the cached document, if it is fresh and may be read, as [`UsageService::fresh_usage`].
    pub fn fresh_document(
        &self,
        document: Resource,
        directive: CacheDirective,
        caller: &Caller,
        now: Instant,
    ) -> Option<UsageAnswer> {
        if !may_read(caller, document) {
            return None;
        }
        self.fresh_answer(document, directive, now)
    }

    /// Records an answer of [`UsageService::fresh_usage`] that was sent.
    pub fn record_hit(&self) {
        self.inner.cache.metrics().record_request(CacheResult::Hit);
    }

    fn fresh_answer(
        &self,
        resource: Resource,
        directive: CacheDirective,
        now: Instant,
    ) -> Option<UsageAnswer> {
        if directive == CacheDirective::NoCache {
            return None;
        }
        let cached = self.inner.fetcher.look_up(resource, now)?;
        let is_fresh = cached.freshness == Freshness::Fresh;
        is_fresh.then(|| UsageAnswer::hit(cached, None))
    }

    /// Renders an answer in a format and coding, once for all concurrent requests.
    ///
    /// # Errors
    ///
    /// [`RenderError`] where it cannot be rendered.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the wait, not the rendering.
    pub async fn render(
        &self,
        rendered: &Arc<Rendered>,
        format: Format,
        coding: ContentCoding,
    ) -> Result<(), Arc<RenderError>> {
        self.inner.renderer.render(rendered, format, coding).await
    }

    /// Marks cached data stale or removes it. Calls in progress store nothing, and no request joins
    /// them. Returns the number of snapshots.
    pub fn purge(&self, scope: PurgeScope, mode: PurgeMode) -> usize {
        self.inner.fetcher.purge(scope);
        self.inner.level.purge(scope, mode, PurgedBy::ThisProcess);
        self.inner.dated_fleets.purge();
        self.inner.cache.purge(scope, mode)
    }

    /// Applies a purge that another process has made and stored.
    fn apply_purge(&self, scope: PurgeScope, mode: PurgeMode) {
        self.inner.fetcher.purge(scope);
        self.inner
            .level
            .purge(scope, mode, PurgedBy::AnotherProcess);
        // The store knows which dates were fetched again since.
        self.inner.dated_fleets.forget();
        self.inner.cache.purge(scope, mode);
    }

    /// Marks all data stale, because the store may have lost purges since this generation. Processes that
    /// know of none of them learn it from the store.
    fn apply_lost_purges(&self, applied: i64) {
        let (scope, mode) = (PurgeScope::default(), PurgeMode::Soft);
        self.inner.fetcher.purge(scope);
        self.inner.level.purge(scope, mode, PurgedBy::Unknown);
        self.inner.level.write(StoreWrite::LostPurges { applied });
        self.inner.dated_fleets.purge();
        self.inner.cache.purge(scope, mode);
    }

    /// Lets the wall time be that of the server of the store, so that all its processes agree.
    async fn follow_clock(&self) {
        /// An answer that took longer says too little.
        const MAX_ROUND_TRIP: Duration = Duration::from_millis(50);

        let clock = &self.inner.clock;
        let asked_at = clock.now();
        if let Some(coordination) = self.store().and_then(|store| store.coordination())
            && let Ok(time) = coordination.server_time().await
        {
            let took = clock.now().saturating_duration_since(asked_at);
            if took <= MAX_ROUND_TRIP {
                self.inner.shared_clock.follow(time + took / 2);
            }
        }
    }

    /// Returns the task that applies the purges of other processes and takes over what they changed; `None`
    /// without a store.
    pub fn store_follower(&self, jitter: Jitter) -> Option<StoreFollower> {
        let durable = self.inner.level.durable()?.clone();
        Some(StoreFollower::new(self.clone(), durable, jitter))
    }

    /// The store; `None`: memory only.
    pub fn store(&self) -> Option<&Arc<dyn UsageStore>> {
        self.inner.level.durable().map(|durable| &durable.store)
    }

    /// Returns the number of processes that use the store, with this one.
    pub fn replicas(&self) -> usize {
        self.inner.level.other_replicas() + 1
    }

    /// Returns the reason why the store cannot be read or written; `None` if it can, or there is none.
    pub fn store_problem(&self) -> Option<String> {
        self.inner.level.durable()?.health.problem()
    }

    /// The cache.
    pub fn cache(&self) -> &UsageCache {
        &self.inner.cache
    }

    /// Sets the gauges of the cache and of cached failures. Call it before a scrape.
    pub fn update_gauges(&self) {
        self.inner.cache.update_gauges();
        self.inner.fetcher.update_gauges();
        if let Some(durable) = self.inner.level.durable() {
            durable.health.update_gauges(self.inner.clock.now());
        }
        if let Some(usage) = self.fleet_usage() {
            self.inner.fleet_metrics.update(&usage);
        }
    }

    fn resource(&self, query: UsageQuery) -> Resource {
        let customer = query.customer_id;
        match (query.date, query.format) {
            (Some(date), _) => Resource::dated_usage(customer, date),
            (None, Format::Native) => Resource::InsightsUsage(customer),
            (None, Format::Simplified | Format::Csv | Format::Table | Format::Chart(_)) => {
                Resource::newest_usage(customer, self.inner.newest_api)
            }
        }
    }
}

/// Returns whether a caller may read a document. Totals over all customers are for callers that may read
/// all of them: a caller that knows some could compute the others.
fn may_read(caller: &Caller, document: Resource) -> bool {
    match document.customer() {
        Some(customer) => caller.may_read(customer),
        None => caller.may_read_all(),
    }
}

#[cfg(test)]
mod tests;
