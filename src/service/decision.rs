//! Decides between the cached answer and a call to upstream.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    CacheDirective, UsageAnswer, UsageError, UsageService,
    concurrency_limiter::FetchReason,
    fetcher::{EarlyResult, FetchOutcome},
    source::{CallTrace, SourceError},
    spans,
};
use crate::{
    cache::{CacheStatus, CachedAnswer, CachedFailure, FlightRole, ForwardReason, Freshness},
    domain::{Caller, CallerScope, Resource},
    observability::traces::TraceSpan,
};

/// The action for a query, given the cached answer.
enum CacheDecision {
    Serve(CachedAnswer),
    ServeAndRefresh(CachedAnswer),
    Fetch {
        forward: ForwardReason,
        cached: Option<CachedAnswer>,
    },
    Reject,
}

/// A request that has to ask upstream.
#[derive(Clone, Copy)]
struct FetchContext<'a> {
    resource: Resource,
    directive: CacheDirective,
    forward: ForwardReason,
    caller: &'a Caller,
    now: Instant,
}

// === impl UsageService ===

impl UsageService {
    /// Answers a caller whose rights were checked.
    pub(super) async fn answer_allowed(
        &self,
        resource: Resource,
        directive: CacheDirective,
        caller: &Caller,
        trace: impl FnOnce() -> CallTrace,
        now: Instant,
    ) -> Result<UsageAnswer, UsageError> {
        let is_ignored =
            directive == CacheDirective::NoCache && !caller.has_scope(CallerScope::CacheRefresh);
        let directive = if is_ignored {
            CacheDirective::Any
        } else {
            directive
        };
        let mut cached = self.inner.fetcher.look_up(resource, now);
        if cached.is_none() {
            // Boxed, so that the future of a hit is small.
            Box::pin(self.inner.level.load(resource)).await;
            cached = self.inner.fetcher.look_up(resource, now);
        }
        let result = match self.decide(resource, cached, directive, now) {
            CacheDecision::Serve(cached) => Ok(self.serve(cached, directive)),
            CacheDecision::ServeAndRefresh(cached) => {
                let span = trace().span;
                spans::record_decision(span.as_deref(), "serve-and-refresh", ForwardReason::Stale);
                self.refresh(resource, caller, span, now);
                Ok(self.serve_stale(cached))
            }
            CacheDecision::Fetch { forward, cached } => {
                let context = FetchContext {
                    resource,
                    directive,
                    forward,
                    caller,
                    now,
                };
                let trace = trace();
                spans::record_decision(trace.span.as_deref(), "ask", forward);
                // Boxed, so that the future of a hit is small.
                Box::pin(self.fetch_or_fall_back(context, cached, trace)).await
            }
            CacheDecision::Reject => Err(UsageError::not_cached()),
        };
        let cache_result = match &result {
            Ok(answer) => Some(answer.result),
            Err(error) => error.result,
        };
        if let Some(cache_result) = cache_result {
            self.inner.cache.metrics().record_request(cache_result);
        }
        if is_ignored {
            return result
                .map(UsageAnswer::with_refresh_ignored)
                .map_err(UsageError::with_refresh_ignored);
        }
        result
    }

    fn decide(
        &self,
        resource: Resource,
        cached: Option<CachedAnswer>,
        directive: CacheDirective,
        now: Instant,
    ) -> CacheDecision {
        let Some(cached) = cached else {
            return match directive {
                CacheDirective::OnlyIfCached => CacheDecision::Reject,
                CacheDirective::Any | CacheDirective::NoCache => CacheDecision::Fetch {
                    forward: ForwardReason::UriMiss,
                    cached: None,
                },
            };
        };
        match (directive, cached.freshness) {
            (CacheDirective::NoCache, _)
                if self.inner.fetcher.may_force_refresh(resource, &cached, now) =>
            {
                CacheDecision::Fetch {
                    forward: ForwardReason::Request,
                    cached: Some(cached),
                }
            }
            (_, Freshness::Fresh)
            | (CacheDirective::OnlyIfCached, Freshness::StaleWhileRevalidate) => {
                CacheDecision::Serve(cached)
            }
            (_, Freshness::StaleWhileRevalidate) => CacheDecision::ServeAndRefresh(cached),
            (CacheDirective::OnlyIfCached, Freshness::StaleIfError | Freshness::Expired) => {
                CacheDecision::Reject
            }
            (_, Freshness::StaleIfError | Freshness::Expired) => CacheDecision::Fetch {
                forward: ForwardReason::Stale,
                cached: Some(cached),
            },
        }
    }

    fn serve(&self, cached: CachedAnswer, directive: CacheDirective) -> UsageAnswer {
        if cached.freshness != Freshness::Fresh {
            return self.serve_stale(cached);
        }
        let detail = (directive == CacheDirective::NoCache).then_some("min-refresh-interval");
        UsageAnswer::hit(cached, detail)
    }

    fn serve_stale(&self, cached: CachedAnswer) -> UsageAnswer {
        self.inner.cache.metrics().stale_while_revalidate.inc();
        UsageAnswer::stale(cached, "stale-while-revalidate", CacheStatus::HIT)
    }

    /// Refreshes in the background, unless that failed a moment ago or too many calls wait.
    fn refresh(
        &self,
        resource: Resource,
        caller: &Caller,
        span: Option<Arc<TraceSpan>>,
        now: Instant,
    ) {
        let fetcher = &self.inner.fetcher;
        if fetcher.recent_failure(resource, now).is_none() {
            // No request waits for it: its task stores the answer.
            let trace = CallTrace {
                span,
                ..CallTrace::default()
            };
            drop(fetcher.join_or_lead(resource, caller, FetchReason::Refresh, trace, now));
        }
    }

    async fn fetch_or_fall_back(
        &self,
        context: FetchContext<'_>,
        cached: Option<CachedAnswer>,
        trace: CallTrace,
    ) -> Result<UsageAnswer, UsageError> {
        let FetchContext {
            resource,
            directive,
            forward,
            caller,
            now,
        } = context;
        let fetcher = &self.inner.fetcher;
        if let Some(failure) = fetcher.recent_failure(resource, now) {
            let may_retry = directive == CacheDirective::NoCache
                && fetcher.may_retry_absent_date(resource, &failure, now);
            if !may_retry {
                return self.answer_without_fetch(failure, cached, now, UsageError::recent_failure);
            }
        }
        if forward == ForwardReason::Stale
            && let Some(cached) = fetcher.load_fresh(resource).await
        {
            return Ok(UsageAnswer::hit(cached, None));
        }
        let led = CacheStatus {
            forward: Some(forward),
            ..CacheStatus::default()
        };
        let joined = CacheStatus {
            collapsed: true,
            ..led
        };
        let span = trace.span.clone();
        let flight = match fetcher.join_or_lead(resource, caller, FetchReason::Request, trace, now)
        {
            Ok(flight) => flight,
            Err(EarlyResult::Cached(cached)) => {
                return Ok(UsageAnswer::fetched(cached, joined));
            }
            Err(EarlyResult::Failed(failure)) => {
                return self.fall_back_to_stale(resource, failure, joined);
            }
            Err(EarlyResult::Shed(failure)) => {
                return self.answer_without_fetch(failure, cached, now, UsageError::shed);
            }
        };
        let is_leader = flight.role == FlightRole::Leader;
        let status = if is_leader { led } else { joined };
        if !is_leader {
            self.inner.cache.metrics().collapsed.inc();
            spans::link_to_call(span.as_deref(), flight.shared.span.as_deref());
        }
        let outcome = fetcher.wait_for_outcome(flight, caller, now);
        let outcome = self.outcome_or_stale(resource, cached.as_ref(), outcome, now);
        match outcome.await {
            Err(stale) => {
                self.inner.cache.metrics().soft_timeout.inc();
                Ok(UsageAnswer::stale(stale, "soft-timeout", status))
            }
            Ok(Ok(fetched)) => {
                let call_ids = fetched.call_ids.filter(|_| is_leader);
                let status = CacheStatus {
                    forward_status: fetched.forward_status,
                    stored: fetched.stored,
                    ..status
                };
                Ok(UsageAnswer {
                    call_ids,
                    ..UsageAnswer::fetched(fetched.cached, status)
                })
            }
            Ok(Err(failure)) => {
                let call_ids = failure.error.call_ids.filter(|_| is_leader);
                self.fall_back_to_stale(resource, failure, status)
                    .map(|answer| UsageAnswer { call_ids, ..answer })
                    .map_err(|error| UsageError { call_ids, ..error })
            }
        }
    }

    /// Waits for an outcome, and where stale data may be served, no longer than the soft timeout.
    ///
    /// # Errors
    ///
    /// The stale answer to serve; the call goes on.
    async fn outcome_or_stale(
        &self,
        resource: Resource,
        cached: Option<&CachedAnswer>,
        outcome: impl Future<Output = FetchOutcome>,
        now: Instant,
    ) -> Result<FetchOutcome, CachedAnswer> {
        let is_stale = |cached: &CachedAnswer| cached.freshness == Freshness::StaleIfError;
        let mut outcome = pin!(outcome);
        if cached.is_some_and(is_stale) {
            let clock = &self.inner.clock;
            tokio::select! {
                biased;
                outcome = &mut outcome => return Ok(outcome),
                () = clock.sleep_until(now + self.inner.soft_timeout) => {}
            }
            // It may have expired or been purged in the meantime.
            let cached = self.inner.fetcher.look_up(resource, clock.now());
            if let Some(cached) = cached.filter(is_stale) {
                return Err(cached);
            }
        }
        Ok(outcome.await)
    }

    /// Answers without a call, because of a cached failure or the concurrency limit: with the stale
    /// answer, if that may be served.
    fn answer_without_fetch(
        &self,
        failure: Arc<CachedFailure<SourceError>>,
        cached: Option<CachedAnswer>,
        now: Instant,
        otherwise: fn(Arc<CachedFailure<SourceError>>, Duration) -> UsageError,
    ) -> Result<UsageAnswer, UsageError> {
        if let Some(cached) = cached.filter(|cached| may_serve_stale(cached, &failure.error)) {
            return Ok(self.serve_despite_error(cached, &failure.error, CacheStatus::HIT));
        }
        let retry_after = failure.expires_at.saturating_duration_since(now);
        Err(otherwise(failure, retry_after))
    }

    /// Answers after a failed call, with the stale answer, if that may be served. It is looked up
    /// again, since it may have expired or been purged during the call.
    fn fall_back_to_stale(
        &self,
        resource: Resource,
        failure: Arc<CachedFailure<SourceError>>,
        status: CacheStatus,
    ) -> Result<UsageAnswer, UsageError> {
        let now = self.inner.clock.now();
        let cached = self.inner.fetcher.look_up(resource, now);
        let status = CacheStatus {
            forward_status: failure.error.status,
            ..status
        };
        if let Some(cached) = cached.filter(|cached| may_serve_stale(cached, &failure.error)) {
            return Ok(self.serve_despite_error(cached, &failure.error, status));
        }
        let retry_after = failure.expires_at.saturating_duration_since(now);
        Err(UsageError::failed(failure, retry_after, status))
    }

    fn serve_despite_error(
        &self,
        cached: CachedAnswer,
        error: &SourceError,
        status: CacheStatus,
    ) -> UsageAnswer {
        if cached.freshness == Freshness::Fresh {
            // The caller's `no-cache` call failed, but the cached answer is fresh.
            let detail = Some(error.kind.as_str());
            return if status.hit {
                UsageAnswer::hit(cached, detail)
            } else {
                UsageAnswer::fetched(cached, CacheStatus { detail, ..status })
            };
        }
        self.inner.cache.metrics().stale_if_error.inc();
        UsageAnswer::stale(cached, "stale-if-error", status)
    }
}

/// Returns whether the cached answer may be served in place of this failure.
fn may_serve_stale(cached: &CachedAnswer, error: &SourceError) -> bool {
    cached.freshness != Freshness::Expired && !error.kind.is_authoritative()
}
