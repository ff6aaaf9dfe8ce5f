//! The failures of calls, and the time that they stay cached.

use std::{sync::Arc, time::Duration};

use super::Fetcher;
use crate::{
    cache::CachedFailure,
    domain::ProcessedDate,
    service::{
        call_leases::CallLease,
        concurrency_limiter::Overloaded,
        dated_call_limits::DatedCallLimits,
        source::{SourceError, SourceErrorKind},
    },
    token_bucket::BucketExhausted,
};

impl Fetcher {
    /// Returns the failure of a call for all customers.
    pub(in crate::service) fn uncached_source_failure(
        &self,
        error: SourceError,
    ) -> Arc<CachedFailure<SourceError>> {
        let lifetime = self.failure_lifetime(error.kind, error.retry_after, 1);
        Arc::new(CachedFailure::uncached(error, self.clock.now(), lifetime))
    }

    /// Lets the failure of a call count for other processes too.
    pub(in crate::service) fn fail_lease(
        &self,
        lease: Option<CallLease>,
        failure: &CachedFailure<SourceError>,
    ) {
        if let Some(lease) = lease {
            lease.fail(&failure.error, self.shared_lifetime(failure));
        }
    }

    /// Returns the failure of a call that ended without an outcome.
    pub(in crate::service) fn aborted_failure(&self) -> Arc<CachedFailure<SourceError>> {
        self.uncached_failure(
            SourceErrorKind::Interrupted,
            "the call to Partner Center ended without an answer",
            Duration::ZERO,
        )
    }

    /// Returns the failure of a call that was not made because too many wait.
    pub(super) fn overloaded_failure(
        &self,
        overloaded: Overloaded,
    ) -> Arc<CachedFailure<SourceError>> {
        self.uncached_failure(
            SourceErrorKind::Overloaded,
            "more requests wait for Partner Center than can be answered in time",
            overloaded.retry_after,
        )
    }

    /// Returns the failure of a call that was not made because its caller caused too many for given
    /// dates.
    pub(super) fn rate_limited_failure(
        &self,
        exhausted: BucketExhausted,
    ) -> Arc<CachedFailure<SourceError>> {
        let detail = format!(
            "this caller may cause {} calls to Partner Center for given dates in a minute, and has \
             caused more: wait, or have the scope cache:refresh added",
            DatedCallLimits::PER_MINUTE
        );
        self.uncached_failure(SourceErrorKind::RateLimited, &detail, exhausted.retry_after)
    }

    /// Returns the failure of a request whose call goes on after its deadline.
    pub(super) fn still_running_failure(&self) -> Arc<CachedFailure<SourceError>> {
        /// About the time of a few pages.
        const RETRY_AFTER: Duration = Duration::from_secs(5);

        self.uncached_failure(
            SourceErrorKind::TimedOut,
            "Partner Center has not sent all pages in time; the others are still being read, and \
             will be cached",
            RETRY_AFTER,
        )
    }

    /// A failure that concerns one request or caller alone, so that it is not cached.
    fn uncached_failure(
        &self,
        kind: SourceErrorKind,
        detail: &str,
        retry_after: Duration,
    ) -> Arc<CachedFailure<SourceError>> {
        let error = SourceError::without_reply(kind, detail);
        Arc::new(CachedFailure::uncached(
            error,
            self.clock.now(),
            retry_after,
        ))
    }

    /// Returns the failure of a refresh whose newest date is older than before, or that has no rows.
    pub(in crate::service) fn suspect_fleet_failure(
        &self,
        date: Option<ProcessedDate>,
        known: Option<ProcessedDate>,
    ) -> Arc<CachedFailure<SourceError>> {
        let detail = match (date, known) {
            (Some(date), Some(known)) => format!(
                "Partner Center's newest data of all customers is of {date}, but it had data of \
                 {known} before"
            ),
            _ => "Partner Center has no usage of any customer".to_owned(),
        };
        self.uncached_failure(SourceErrorKind::Suspect, &detail, Duration::ZERO)
    }

    /// Returns the failure of a call whose answer cannot be stored.
    pub(in crate::service) fn not_stored_failure(
        &self,
        detail: &str,
    ) -> Arc<CachedFailure<SourceError>> {
        self.uncached_failure(SourceErrorKind::Unavailable, detail, Duration::ZERO)
    }

    /// Returns the failure of a call for all customers with an answer that cannot be used.
    pub(in crate::service) fn malformed_fleet_failure(
        &self,
        detail: &str,
    ) -> Arc<CachedFailure<SourceError>> {
        self.uncached_failure(SourceErrorKind::Malformed, detail, Duration::ZERO)
    }

    /// Returns the failure of a call whose answer has other data than was asked for.
    pub(super) fn other_content_failure(&self) -> Arc<CachedFailure<SourceError>> {
        self.malformed_fleet_failure("the answer has other data than was asked for")
    }

    /// The time for which a failure counts for other processes too: no longer than `no-cache` has to wait.
    fn shared_lifetime(&self, failure: &CachedFailure<SourceError>) -> Duration {
        let left = failure
            .expires_at
            .saturating_duration_since(self.clock.now());
        left.min(self.min_refresh_interval)
    }

    /// The time that a failure stays cached.
    ///
    /// An absence lasts as configured, a throttle as long as `Retry-After`. Other faults last a second
    /// at first, so that a recovery is noticed at once, and longer each time in a row, so that an
    /// outage costs few calls.
    pub(super) fn failure_lifetime(
        &self,
        kind: SourceErrorKind,
        retry_after: Option<Duration>,
        streak: u32,
    ) -> Duration {
        const INITIAL: Duration = Duration::from_secs(1);
        const MAX: Duration = Duration::from_secs(30);
        let backoff = INITIAL
            .saturating_mul(2_u32.saturating_pow(streak.saturating_sub(1)))
            .min(MAX);
        match kind {
            _ if kind.is_authoritative() => self.negative_fresh_for,
            SourceErrorKind::Interrupted => Duration::ZERO,
            SourceErrorKind::Unavailable => retry_after.unwrap_or_default().max(backoff),
            _ => retry_after.unwrap_or(backoff),
        }
    }
}

/// The failure of a call whose answer is older than an earlier one, where the newer data cannot be
/// fetched.
pub(super) fn suspect_error(
    answer: Option<ProcessedDate>,
    newest: ProcessedDate,
    error: SourceError,
) -> SourceError {
    let answer = answer.map_or_else(|| "no date".to_owned(), |date| date.to_string());
    let detail = format!(
        "Partner Center's newest data is of {answer}, but it had data of {newest} before, and the \
         call for that date failed: {}; if the older date is right, purge the customer with hard=true",
        error.detail
    );
    SourceError {
        kind: SourceErrorKind::Suspect,
        detail: detail.into(),
        // It was the dated call that was to wait.
        retry_after: None,
        ..error
    }
}
