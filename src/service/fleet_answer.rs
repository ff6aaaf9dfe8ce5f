//! Answers for all customers together.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, StatusCode};

use super::{
    CacheDirective, UsageError, UsageService,
    answer::REFRESH_NOT_ALLOWED,
    fleet::{DatedFailure, DatedFleet, FleetRefresher},
    source::{CallIds, CallTrace},
};
use crate::{
    cache::{CacheResult, CacheStatus, FlightRole, ForwardReason, UsageCache},
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
    /// The value of `Cache-Control`.
    pub cache_control: HeaderValue,
    /// The parameters of `Cache-Status`.
    pub status: CacheStatus,
    /// The label in metrics and logs.
    pub result: CacheResult,
    /// The upstream call's ids, on the answer that made the call and on no other.
    pub call_ids: Option<CallIds>,
}

/// A check of all customers together.
#[derive(Clone, Copy, Debug)]
pub struct FleetCheck {
    /// The time since the check.
    pub age: Duration,
    /// The time for which its data is fresh, counted from the check.
    pub lifetime: Duration,
}

// === impl UsageService ===

impl UsageService {
    /// Answers with the usage of all customers, each with its newest date, or all of one date. It never
    /// makes a call for each customer.
    ///
    /// The newest usage comes from memory, whatever the directive. A date that was never fetched for all
    /// customers is fetched by one call with all pages; so is one that is known, if the caller requests
    /// that by `no-cache` and has the scope.
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
        directive: CacheDirective,
        caller: &Caller,
        trace: impl Fn() -> CallTrace,
        now: Instant,
    ) -> Result<FleetAnswer, UsageError> {
        if !caller.has_scope(CallerScope::UsageRead) {
            return Err(UsageError::not_allowed());
        }
        let inner = &self.inner;
        if inner.level.book.customers().is_none() {
            let directive = match directive {
                CacheDirective::OnlyIfCached => CacheDirective::OnlyIfCached,
                CacheDirective::Any | CacheDirective::NoCache => CacheDirective::Any,
            };
            self.customer_list(directive, caller, &trace, now).await?;
        }
        if let Some(date) = date {
            return self
                .dated_fleet(date, directive, caller, trace(), now)
                .await;
        }
        let usage = inner
            .level
            .book
            .usage()
            .ok_or_else(UsageError::not_cached)?;
        let coverage = inner.level.coverage(inner.clock.now());
        let (age, lifetime) = coverage.unwrap_or_else(|| {
            let age = self.oldest_fleet_age();
            (age, age + Self::MIN_FLEET_LIFETIME)
        });
        let answer = FleetAnswer::hit(usage, &inner.cache, age, lifetime);
        inner.cache.metrics().record_request(answer.result);
        Ok(answer)
    }

    async fn dated_fleet(
        &self,
        date: ProcessedDate,
        directive: CacheDirective,
        caller: &Caller,
        trace: CallTrace,
        now: Instant,
    ) -> Result<FleetAnswer, UsageError> {
        let (inner, fleets) = (&self.inner, &self.inner.dated_fleets);
        let may_refresh = caller.has_scope(CallerScope::CacheRefresh);
        let refresh = directive == CacheDirective::NoCache;
        let found = match directive {
            CacheDirective::OnlyIfCached => {
                let known = fleets.known_usage(date).await;
                Ok(known.ok_or_else(UsageError::not_cached)?)
            }
            CacheDirective::Any | CacheDirective::NoCache => {
                fleets
                    .usage(date, refresh && may_refresh, caller, trace)
                    .await
            }
        };
        let forward = if refresh && may_refresh {
            ForwardReason::Request
        } else {
            ForwardReason::UriMiss
        };
        let result = match &found {
            Ok(fleet) if fleet.call.is_none() => CacheResult::Hit,
            Err(failed) if failed.call.is_none() => CacheResult::Negative,
            _ if forward == ForwardReason::Request => CacheResult::Bypass,
            _ => CacheResult::Miss,
        };
        inner.cache.metrics().record_request(result);
        let DatedFleet {
            usage,
            read_at,
            call,
        } = found.map_err(|failed| failed.into_error(forward, now))?;
        let age = inner.clock.now().saturating_duration_since(read_at);
        // A date that was fetched whole hardly changes.
        let lifetime = age + inner.cache.fresh_for();
        let mut answer = FleetAnswer::hit(usage, &inner.cache, age, lifetime);
        if let Some(call) = call {
            answer.status = CacheStatus {
                hit: false,
                forward: Some(forward),
                forward_status: call.ids.map(|_| StatusCode::OK.as_u16()),
                stored: call.ids.is_some(),
                collapsed: call.role == FlightRole::Follower,
                detail: call.ids.is_none().then_some("stale-if-error"),
                ..answer.status
            };
            answer.call_ids = call.ids.filter(|_| call.role == FlightRole::Leader);
        }
        if refresh && !may_refresh {
            answer.status.detail = REFRESH_NOT_ALLOWED;
        }
        Ok(FleetAnswer { result, ..answer })
    }

    /// The age of the oldest rows, where no refresh covers all customers.
    fn oldest_fleet_age(&self) -> Duration {
        let oldest = self.inner.level.book.oldest_confirmation();
        let now = self.inner.clock.wall_time();
        let age = oldest.map(|oldest| Duration::try_from(now.duration_since(oldest)));
        age.and_then(Result::ok).unwrap_or_default()
    }

    /// A fleet that is filled customer by customer changes at any time.
    const MIN_FLEET_LIFETIME: Duration = Duration::from_secs(10);

    /// Returns the usage of all customers from memory, without any call; `None` while the list of
    /// customers is unknown.
    pub fn fleet_usage(&self) -> Option<Arc<FleetUsage>> {
        self.inner.level.book.usage()
    }

    /// Returns the last check of all customers together; `None` if there was none.
    pub fn fleet_check(&self, now: Instant) -> Option<FleetCheck> {
        let (age, lifetime) = self.inner.level.coverage(now)?;
        Some(FleetCheck { age, lifetime })
    }

    /// Returns true if all customers are refreshed together.
    pub fn refreshes_fleet(&self, config: &FleetConfig) -> bool {
        let is_commercial = self.inner.newest_api == UpstreamApi::Commercial;
        config.refresh.unwrap_or(is_commercial)
    }

    /// Creates the task that refreshes all customers together; `None` if it is off.
    pub fn fleet_refresher(&self, config: &FleetConfig, jitter: Jitter) -> Option<FleetRefresher> {
        let inner = &self.inner;
        self.refreshes_fleet(config).then(|| FleetRefresher {
            fetcher: Arc::clone(&inner.fetcher),
            level: Arc::clone(&inner.level),
            cache: Arc::clone(&inner.cache),
            api: inner.newest_api,
            interval: config.check_interval,
            confirm_after: inner.suspect_confirm_after,
            clock: Arc::clone(&inner.clock),
            jitter,
            metrics: inner.fleet_metrics.clone(),
            shutdown: inner.shutdown.clone(),
        })
    }
}

// === impl FleetAnswer ===

impl FleetAnswer {
    fn hit(usage: Arc<FleetUsage>, cache: &UsageCache, age: Duration, lifetime: Duration) -> Self {
        let lifetime = Duration::from_secs(lifetime.as_secs());
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let ttl = seconds(lifetime) - seconds(age);
        let is_fresh = ttl >= 0;
        Self {
            usage,
            age,
            cache_control: cache.cache_control(lifetime),
            status: CacheStatus {
                ttl: Some(ttl),
                detail: (!is_fresh).then_some("stale-if-error"),
                ..CacheStatus::HIT
            },
            result: if is_fresh {
                CacheResult::Hit
            } else {
                CacheResult::Stale
            },
            call_ids: None,
        }
    }
}

// === impl DatedFailure ===

impl DatedFailure {
    fn into_error(self, forward: ForwardReason, now: Instant) -> UsageError {
        let failure = self.failure;
        let retry_after = failure.expires_at.saturating_duration_since(now);
        let Some(role) = self.call else {
            return UsageError::recent_failure(failure, retry_after);
        };
        let status = CacheStatus {
            forward: Some(forward),
            forward_status: failure.error.status,
            collapsed: role == FlightRole::Follower,
            ..CacheStatus::default()
        };
        let own_ids = failure.error.call_ids;
        UsageError {
            call_ids: own_ids.filter(|_| role == FlightRole::Leader),
            ..UsageError::failed(failure, retry_after, status)
        }
    }
}
