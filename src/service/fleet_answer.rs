//! Answers for all customers together.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{CacheDirective, UsageError, UsageService, fleet::FleetRefresher, source::CallTrace};
use crate::{
    cache::CacheResult,
    config::FleetConfig,
    domain::{Caller, CallerScope, FleetUsage, ProcessedDate, UpstreamApi},
    jitter::Jitter,
};

/// The usage of all customers, with its age.
#[derive(Clone, Debug)]
pub struct FleetAnswer {
    /// Every customer, whoever may read it: the caller's rights apply to it.
    pub usage: Arc<FleetUsage>,
    /// The time since it was last refreshed or confirmed; zero where customers are fetched one by one.
    pub age: Duration,
    /// The time for which it is fresh, counted from its age zero.
    pub lifetime: Duration,
}

// === impl UsageService ===

impl UsageService {
    /// Answers with the usage of all customers, each with its newest date, or all of one date. It never
    /// makes a call for each customer.
    ///
    /// The newest usage comes from memory. A date that was never fetched for all customers is fetched
    /// by one call with all pages.
    ///
    /// # Errors
    ///
    /// [`UsageError`] while the list of customers is unknown, and where nothing of a date is known and
    /// its call fails.
    ///
    /// # Cancel safety
    ///
    /// As [`UsageService::answer`].
    pub async fn fleet(
        &self,
        date: Option<ProcessedDate>,
        caller: &Caller,
        trace: impl Fn() -> CallTrace,
        now: Instant,
    ) -> Result<FleetAnswer, UsageError> {
        if !caller.has_scope(CallerScope::UsageRead) {
            return Err(UsageError::not_allowed());
        }
        let inner = &self.inner;
        if inner.level.book.customers().is_none() {
            self.customer_list(CacheDirective::Any, caller, &trace, now)
                .await?;
        }
        let fresh_for = inner.cache.fresh_for();
        if let Some(date) = date {
            let dated = inner.dated_fleets.usage(date, caller, trace()).await;
            let (usage, read_at) = dated.map_err(|failure| {
                let retry_after = failure.expires_at.saturating_duration_since(now);
                UsageError::recent_failure(failure, retry_after)
            })?;
            return Ok(FleetAnswer {
                usage: Arc::new(usage),
                age: inner.clock.now().saturating_duration_since(read_at),
                lifetime: fresh_for,
            });
        }
        inner.cache.metrics().record_request(CacheResult::Hit);
        let usage = inner
            .level
            .book
            .usage()
            .ok_or_else(UsageError::not_cached)?;
        let (age, lifetime) = inner.level.coverage(inner.clock.now()).unwrap_or_default();
        Ok(FleetAnswer {
            usage,
            age,
            lifetime: lifetime.max(age + Self::MIN_FLEET_LIFETIME),
        })
    }

    /// A fleet that is filled customer by customer changes at any time.
    const MIN_FLEET_LIFETIME: Duration = Duration::from_secs(10);

    /// Returns the usage of all customers from memory, without any call; `None` while the list of
    /// customers is unknown.
    pub fn fleet_usage(&self) -> Option<Arc<FleetUsage>> {
        self.inner.level.book.usage()
    }

    /// Creates the task that refreshes all customers together; `None` if it is off.
    pub fn fleet_refresher(&self, config: &FleetConfig, jitter: Jitter) -> Option<FleetRefresher> {
        let inner = &self.inner;
        let is_commercial = inner.newest_api == UpstreamApi::Commercial;
        config
            .refresh
            .unwrap_or(is_commercial)
            .then(|| FleetRefresher {
                fetcher: Arc::clone(&inner.fetcher),
                level: Arc::clone(&inner.level),
                cache: Arc::clone(&inner.cache),
                api: inner.newest_api,
                interval: config.check_interval,
                confirm_after: inner.suspect_confirm_after,
                clock: Arc::clone(&inner.clock),
                jitter,
                metrics: inner.fleet_metrics.clone(),
            })
    }
}
