//! The results of a query, with the `Cache-Status` of each.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::source::{CallIds, SourceError, SourceErrorKind};
use crate::cache::{CacheResult, CacheStatus, CachedAnswer, CachedFailure, ForwardReason};

/// A cached answer, and its source.
#[derive(Clone, Debug)]
pub struct UsageAnswer {
    /// Every form of it, with its age and lifetime.
    pub cached: CachedAnswer,
    /// The parameters of `Cache-Status`.
    pub status: CacheStatus,
    /// The label in metrics and logs.
    pub result: CacheResult,
    /// The upstream call's ids, on the answer that made the call and on no other.
    pub call_ids: Option<CallIds>,
}

/// A query that was not answered.
#[derive(Clone, Debug)]
pub struct UsageError {
    /// The reason.
    pub kind: ErrorKind,
    /// The parameters of `Cache-Status`.
    pub status: CacheStatus,
    /// The label in metrics and logs; `None` where the cache was not consulted.
    pub result: Option<CacheResult>,
    /// The upstream call's ids, on the answer that made the call and on no other.
    pub call_ids: Option<CallIds>,
}

/// The reason why a query was not answered.
#[derive(Clone, Debug)]
pub enum ErrorKind {
    /// The caller may not read this customer's usage, whether there is any or not.
    NotAllowed,
    /// Nothing in the cache may be served, and the caller allows no call.
    NotCached,
    /// The source failed, now or shortly before.
    Source {
        /// The failure, and its time.
        failure: Arc<CachedFailure<SourceError>>,
        /// The time until asking again may help.
        retry_after: Duration,
    },
}

pub(super) const REFRESH_NOT_ALLOWED: Option<&str> = Some("refresh-not-allowed");

// === impl UsageAnswer ===

impl UsageAnswer {
    /// Creates a fresh answer from the cache.
    pub(super) fn hit(cached: CachedAnswer, detail: Option<&'static str>) -> Self {
        let status = CacheStatus {
            detail,
            ..CacheStatus::HIT
        };
        Self::new(cached, CacheResult::Hit, status)
    }

    /// Creates a stale answer from the cache. `status` says whether upstream was asked.
    pub(super) fn stale(cached: CachedAnswer, detail: &'static str, status: CacheStatus) -> Self {
        let detail = Some(detail);
        Self::new(cached, CacheResult::Stale, CacheStatus { detail, ..status })
    }

    /// Creates the answer of a call of this request, or of another that it joined; or the cached answer,
    /// where the fetched one is suspect.
    pub(super) fn fetched(cached: CachedAnswer, status: CacheStatus) -> Self {
        Self::new(cached, cache_result(status.forward), status)
    }

    /// `suspect` takes precedence over any other detail.
    fn new(cached: CachedAnswer, result: CacheResult, status: CacheStatus) -> Self {
        Self {
            status: CacheStatus {
                ttl: Some(cached.ttl),
                detail: anomaly_detail(&cached).or(status.detail),
                ..status
            },
            cached,
            result,
            call_ids: None,
        }
    }

    /// Adds that `no-cache` was ignored, since the caller lacks the scope. `suspect` takes precedence;
    /// a stale answer shows by its negative `ttl`.
    pub(super) fn with_refresh_ignored(mut self) -> Self {
        self.status.detail = anomaly_detail(&self.cached).or(REFRESH_NOT_ALLOWED);
        self
    }
}

// === impl UsageError ===

impl UsageError {
    /// The caller has no right to ask.
    pub(super) fn not_allowed() -> Self {
        Self {
            kind: ErrorKind::NotAllowed,
            status: CacheStatus::NOT_CONSULTED,
            result: None,
            call_ids: None,
        }
    }

    /// The caller allows no call, and nothing in the cache may be served.
    pub(super) fn not_cached() -> Self {
        Self {
            kind: ErrorKind::NotCached,
            status: CacheStatus {
                detail: Some("only-if-cached"),
                ..CacheStatus::default()
            },
            result: Some(CacheResult::Miss),
            call_ids: None,
        }
    }

    /// An earlier failure is still cached.
    pub(super) fn recent_failure(
        failure: Arc<CachedFailure<SourceError>>,
        retry_after: Duration,
    ) -> Self {
        let status = CacheStatus {
            ttl: Some(i64::try_from(retry_after.as_secs()).unwrap_or(i64::MAX)),
            ..CacheStatus::HIT
        };
        Self::of_source(failure, retry_after, status, CacheResult::Negative)
    }

    /// No call could be made in time.
    pub(super) fn shed(failure: Arc<CachedFailure<SourceError>>, retry_after: Duration) -> Self {
        let status = CacheStatus::default();
        Self::of_source(failure, retry_after, status, CacheResult::Miss)
    }

    /// Upstream was asked, and failed.
    pub(super) fn failed(
        failure: Arc<CachedFailure<SourceError>>,
        retry_after: Duration,
        status: CacheStatus,
    ) -> Self {
        let result = cache_result(status.forward);
        Self::of_source(failure, retry_after, status, result)
    }

    fn of_source(
        failure: Arc<CachedFailure<SourceError>>,
        retry_after: Duration,
        status: CacheStatus,
        result: CacheResult,
    ) -> Self {
        Self {
            status: CacheStatus {
                detail: Some(failure.error.kind.as_str()),
                ..status
            },
            kind: ErrorKind::Source {
                failure,
                retry_after,
            },
            result: Some(result),
            call_ids: None,
        }
    }

    /// The native form was requested, and the newest data has none: it came from the dated call.
    pub(super) fn no_native_format(answer: UsageAnswer, now: Instant) -> Self {
        let retry_after = Duration::from_secs(u64::try_from(answer.cached.ttl).unwrap_or(0));
        let error = SourceError {
            status: answer.status.forward_status,
            call_ids: answer.call_ids,
            ..SourceError::without_reply(
                SourceErrorKind::Suspect,
                "Partner Center's newest data is older than what it sent before, and what it sent \
                 before is not available in this form: ask for the simplified one",
            )
        };
        let failure = Arc::new(CachedFailure::uncached(error, now, retry_after));
        Self {
            call_ids: answer.call_ids,
            ..Self::of_source(failure, retry_after, answer.status, answer.result)
        }
    }

    /// Adds that `no-cache` was ignored, since the caller lacks the scope. The problem's type says
    /// the failure.
    pub(super) fn with_refresh_ignored(mut self) -> Self {
        self.status.detail = REFRESH_NOT_ALLOWED;
        self
    }
}

/// The detail of suspect data, which takes precedence over any other.
fn anomaly_detail(cached: &CachedAnswer) -> Option<&'static str> {
    cached.suspect.then_some("suspect")
}

fn cache_result(forward: Option<ForwardReason>) -> CacheResult {
    match forward {
        Some(ForwardReason::Request) => CacheResult::Bypass,
        Some(ForwardReason::UriMiss | ForwardReason::Stale) | None => CacheResult::Miss,
    }
}
