//! Serves usage, the list of customers and the native documents from the cache or from upstream.
//!
//! [`UsageService::answer`] is the whole decision: serve the cached answer, serve it and refresh it,
//! or ask upstream and fall back on the cached answer.

mod answer;
mod concurrency_limiter;
mod customers;
mod dated_call_limits;
mod documents;
mod fetcher;
mod gauge_guard;
mod rendering;
pub mod source;
mod spans;

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::{
    answer::{ErrorKind, UsageAnswer, UsageError},
    concurrency_limiter::CallLimits,
};
use self::{
    concurrency_limiter::FetchReason,
    fetcher::{EarlyResult, FetchOutcome, FetchedAnswer, Fetcher},
    rendering::SharedRenderer,
    source::{CallTrace, SourceError, UsageSource},
};
use crate::{
    cache::{
        CacheResult, CacheStatus, CachedAnswer, CachedFailure, FlightRole, ForwardReason,
        Freshness, PurgeMode, PurgeScope, UsageCache,
    },
    clock::SharedClock,
    config::CacheConfig,
    domain::{Caller, CallerScope, CustomerId, ProcessedDate, Resource, UpstreamApi},
    observability::traces::TraceSpan,
    render::{ContentCoding, Format, RenderError, Rendered},
    shutdown::Shutdown,
};

/// Answers for license usage; clones share everything.
#[derive(Clone, Debug)]
pub struct UsageService {
    inner: Arc<UsageServiceInner>,
}

#[derive(Debug)]
struct UsageServiceInner {
    cache: Arc<UsageCache>,
    fetcher: Arc<Fetcher>,
    renderer: SharedRenderer,
    /// The call for the newest date of our own formats.
    newest_api: UpstreamApi,
    soft_timeout: Duration,
    clock: SharedClock,
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
    /// Creates a service over a cache.
    pub fn new(
        config: &CacheConfig,
        limits: CallLimits,
        newest_from: UpstreamApi,
        cache: UsageCache,
        source: Arc<dyn UsageSource>,
        clock: SharedClock,
        shutdown: &Shutdown,
    ) -> Self {
        let cache = Arc::new(cache);
        let fetches = Fetcher::new(
            config,
            limits,
            Arc::clone(&cache),
            source,
            Arc::clone(&clock),
            shutdown.clone(),
        );
        Self {
            inner: Arc::new(UsageServiceInner {
                fetcher: Arc::new(fetches),
                renderer: SharedRenderer::new(Arc::clone(&cache), shutdown.clone()),
                cache,
                newest_api: newest_from,
                soft_timeout: config.soft_timeout,
                clock,
            }),
        }
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
        if !answer.cached.rendered.lacks_customer_name() {
            return Ok(answer);
        }
        let renderings = &self.inner.renderer;
        let seen_at = self.inner.clock.wall_time();
        let held = renderings
            .with_customer_name(answer.cached, query.customer_id, seen_at, now)
            .await;
        Ok(UsageAnswer {
            cached: held,
            ..answer
        })
    }

    /// The newest processed date of a customer's usage, if cached and not expired.
    pub fn newest_date(&self, customer_id: CustomerId, now: Instant) -> Option<ProcessedDate> {
        let resource = Resource::newest_usage(customer_id, self.inner.newest_api);
        let held = self.inner.fetcher.look_up(resource, now)?;
        let is_known = matches!(
            held.freshness,
            Freshness::Fresh | Freshness::StaleWhileRevalidate
        );
        held.rendered.processed_date().filter(|_| is_known)
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

    /// The cached usage for a query, where that is fresh and may be read; `None` for everything that
    /// [`UsageService::answer`] has to decide. A hit of an answer that is sent is recorded with
    /// [`UsageService::record_hit`].
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
        let is_complete = !answer.cached.rendered.lacks_customer_name();
        is_complete.then_some(answer)
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

    /// Answers a caller whose rights were checked.
    async fn answer_allowed(
        &self,
        resource: Resource,
        directive: CacheDirective,
        caller: &Caller,
        trace: impl FnOnce() -> CallTrace,
        now: Instant,
    ) -> Result<UsageAnswer, UsageError> {
        let ignored =
            directive == CacheDirective::NoCache && !caller.has_scope(CallerScope::CacheRefresh);
        let directive = if ignored {
            CacheDirective::Any
        } else {
            directive
        };
        let held = self.inner.fetcher.look_up(resource, now);
        let answered = match self.decide(resource, held, directive, now) {
            CacheDecision::Serve(held) => Ok(self.serve(held, directive)),
            CacheDecision::ServeAndRefresh(held) => {
                let span = trace().span;
                spans::record_decision(span.as_deref(), "serve-and-refresh", ForwardReason::Stale);
                self.refresh(resource, caller, span, now);
                Ok(self.serve_stale(held))
            }
            CacheDecision::Fetch {
                forward: why,
                cached: held,
            } => {
                let asking = FetchContext {
                    resource,
                    directive,
                    forward: why,
                    caller,
                    now,
                };
                let trace = trace();
                spans::record_decision(trace.span.as_deref(), "ask", why);
                // Boxed, so that a hit does without its place.
                Box::pin(self.fetch_or_fall_back(asking, held, trace)).await
            }
            CacheDecision::Reject => Err(UsageError::not_cached()),
        };
        let result = match &answered {
            Ok(answer) => Some(answer.result),
            Err(unanswered) => unanswered.result,
        };
        if let Some(result) = result {
            self.inner.cache.metrics().record_request(result);
        }
        if ignored {
            return answered
                .map(UsageAnswer::with_refresh_ignored)
                .map_err(UsageError::with_refresh_ignored);
        }
        answered
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
        prepared: &Arc<Rendered>,
        form: Format,
        coding: ContentCoding,
    ) -> Result<(), Arc<RenderError>> {
        self.inner.renderer.render(prepared, form, coding).await
    }

    /// Marks cached data stale or removes it. Calls in progress store nothing, and no request joins
    /// them. Returns the number of snapshots.
    pub fn purge(&self, scope: PurgeScope, mode: PurgeMode) -> usize {
        self.inner.fetcher.purge(scope);
        self.inner.cache.purge(scope, mode)
    }

    /// The cache.
    pub fn cache(&self) -> &UsageCache {
        &self.inner.cache
    }

    /// Sets the gauges of the cache and of cached failures. Call it before a scrape.
    pub fn update_gauges(&self) {
        self.inner.cache.update_gauges();
        self.inner.fetcher.update_gauges();
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

    fn decide(
        &self,
        resource: Resource,
        held: Option<CachedAnswer>,
        directive: CacheDirective,
        now: Instant,
    ) -> CacheDecision {
        let Some(held) = held else {
            return match directive {
                CacheDirective::OnlyIfCached => CacheDecision::Reject,
                CacheDirective::Any | CacheDirective::NoCache => CacheDecision::Fetch {
                    forward: ForwardReason::UriMiss,
                    cached: None,
                },
            };
        };
        match (directive, held.freshness) {
            (CacheDirective::NoCache, _)
                if self.inner.fetcher.may_force_refresh(resource, &held, now) =>
            {
                CacheDecision::Fetch {
                    forward: ForwardReason::Request,
                    cached: Some(held),
                }
            }
            (_, Freshness::Fresh)
            | (CacheDirective::OnlyIfCached, Freshness::StaleWhileRevalidate) => {
                CacheDecision::Serve(held)
            }
            (_, Freshness::StaleWhileRevalidate) => CacheDecision::ServeAndRefresh(held),
            (CacheDirective::OnlyIfCached, Freshness::StaleIfError | Freshness::Expired) => {
                CacheDecision::Reject
            }
            (_, Freshness::StaleIfError | Freshness::Expired) => CacheDecision::Fetch {
                forward: ForwardReason::Stale,
                cached: Some(held),
            },
        }
    }

    fn serve(&self, held: CachedAnswer, directive: CacheDirective) -> UsageAnswer {
        if held.freshness != Freshness::Fresh {
            return self.serve_stale(held);
        }
        let detail = (directive == CacheDirective::NoCache).then_some("min-refresh-interval");
        UsageAnswer::hit(held, detail)
    }

    fn serve_stale(&self, held: CachedAnswer) -> UsageAnswer {
        self.inner.cache.metrics().stale_while_revalidate.inc();
        UsageAnswer::stale_while_revalidate(held)
    }

    /// Refreshes in the background, unless that failed a moment ago or too many calls wait.
    fn refresh(
        &self,
        resource: Resource,
        caller: &Caller,
        span: Option<Arc<TraceSpan>>,
        now: Instant,
    ) {
        let fetches = &self.inner.fetcher;
        if fetches.recent_failure(resource, now).is_none() {
            // No request waits for it: its task stores the answer.
            let trace = CallTrace {
                span,
                ..CallTrace::default()
            };
            drop(fetches.join_or_lead(resource, caller, FetchReason::Refresh, trace, now));
        }
    }

    async fn fetch_or_fall_back(
        &self,
        asking: FetchContext<'_>,
        held: Option<CachedAnswer>,
        trace: CallTrace,
    ) -> Result<UsageAnswer, UsageError> {
        let FetchContext {
            resource,
            directive,
            forward: why,
            caller,
            now,
        } = asking;
        let fetches = &self.inner.fetcher;
        if let Some(failure) = fetches.recent_failure(resource, now) {
            let asks_again = directive == CacheDirective::NoCache
                && fetches.may_retry_absent_date(resource, &failure, now);
            if !asks_again {
                return self.answer_without_fetch(failure, held, now, UsageError::recent_failure);
            }
        }
        let forwarded = CacheStatus {
            forward: Some(why),
            ..CacheStatus::default()
        };
        let joined = CacheStatus {
            collapsed: true,
            ..forwarded
        };
        let span = trace.span.clone();
        let boarding =
            match fetches.join_or_lead(resource, caller, FetchReason::Request, trace, now) {
                Ok(boarding) => boarding,
                Err(EarlyResult::Cached(held)) => return Ok(UsageAnswer::fetched(held, joined)),
                Err(EarlyResult::Failed(failure)) => {
                    return self.fall_back_to_stale(resource, failure, joined);
                }
                Err(EarlyResult::Shed(failure)) => {
                    return self.answer_without_fetch(failure, held, now, UsageError::shed);
                }
            };
        let role = boarding.role;
        if role == FlightRole::Follower {
            self.inner.cache.metrics().collapsed.inc();
            spans::link_to_call(span.as_deref(), boarding.shared.span.as_deref());
        }
        let outcome = fetches.wait_for_outcome(boarding, caller, now);
        let outcome = match self
            .outcome_or_stale(resource, held.as_ref(), outcome, now)
            .await
        {
            Ok(outcome) => outcome,
            Err(stale) => {
                self.inner.cache.metrics().soft_timeout.inc();
                let status = match role {
                    FlightRole::Leader => forwarded,
                    FlightRole::Follower => joined,
                };
                return Ok(UsageAnswer::soft_timeout(stale, status));
            }
        };
        match (outcome, role) {
            (Ok(filled), FlightRole::Leader) => {
                let ids = filled.call_ids;
                Ok(UsageAnswer {
                    call_ids: ids,
                    ..answer_from_fetch(filled, forwarded)
                })
            }
            (Ok(filled), FlightRole::Follower) => Ok(answer_from_fetch(filled, joined)),
            (Err(failure), FlightRole::Leader) => {
                let ids = failure.error.call_ids;
                self.fall_back_to_stale(resource, failure, forwarded)
                    .map(|answer| UsageAnswer {
                        call_ids: ids,
                        ..answer
                    })
                    .map_err(|unanswered| UsageError {
                        call_ids: ids,
                        ..unanswered
                    })
            }
            (Err(failure), FlightRole::Follower) => {
                self.fall_back_to_stale(resource, failure, joined)
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
        held: Option<&CachedAnswer>,
        outcome: impl Future<Output = FetchOutcome>,
        now: Instant,
    ) -> Result<FetchOutcome, CachedAnswer> {
        let is_stale = |held: &CachedAnswer| held.freshness == Freshness::StaleIfError;
        let mut outcome = pin!(outcome);
        if held.is_some_and(is_stale) {
            let clock = &self.inner.clock;
            tokio::select! {
                biased;
                outcome = &mut outcome => return Ok(outcome),
                () = clock.sleep_until(now + self.inner.soft_timeout) => {}
            }
            // It may have expired or been purged in the meantime.
            let held = self.inner.fetcher.look_up(resource, clock.now());
            if let Some(held) = held.filter(is_stale) {
                return Err(held);
            }
        }
        Ok(outcome.await)
    }

    /// Answers without a call, because of a cached failure or the concurrency limit: with the stale
    /// answer, if that may be served.
    fn answer_without_fetch(
        &self,
        failure: Arc<CachedFailure<SourceError>>,
        held: Option<CachedAnswer>,
        now: Instant,
        otherwise: fn(Arc<CachedFailure<SourceError>>, Duration) -> UsageError,
    ) -> Result<UsageAnswer, UsageError> {
        if let Some(held) = held.filter(|held| may_serve_stale(held, &failure.error)) {
            let status = CacheStatus {
                hit: true,
                ..CacheStatus::default()
            };
            return Ok(self.serve_despite_error(held, &failure.error, status));
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
        forwarded: CacheStatus,
    ) -> Result<UsageAnswer, UsageError> {
        let now = self.inner.clock.now();
        let held = self.inner.fetcher.look_up(resource, now);
        let status = CacheStatus {
            forward_status: failure.error.status,
            ..forwarded
        };
        if let Some(held) = held.filter(|held| may_serve_stale(held, &failure.error)) {
            return Ok(self.serve_despite_error(held, &failure.error, status));
        }
        let retry_after = failure.expires_at.saturating_duration_since(now);
        Err(UsageError::failed(failure, retry_after, status))
    }

    fn serve_despite_error(
        &self,
        held: CachedAnswer,
        error: &SourceError,
        status: CacheStatus,
    ) -> UsageAnswer {
        if held.freshness == Freshness::Fresh {
            // The caller's `no-cache` call failed, but the cached answer is fresh.
            let detail = Some(error.kind.as_str());
            return if status.hit {
                UsageAnswer::hit(held, detail)
            } else {
                UsageAnswer::fetched(held, CacheStatus { detail, ..status })
            };
        }
        self.inner.cache.metrics().stale_if_error.inc();
        UsageAnswer::stale_if_error(held, status)
    }
}

/// Returns whether the cached answer may be served in place of this failure.
fn may_serve_stale(held: &CachedAnswer, error: &SourceError) -> bool {
    held.freshness != Freshness::Expired && !error.kind.is_authoritative()
}

fn answer_from_fetch(filled: FetchedAnswer, forwarded: CacheStatus) -> UsageAnswer {
    let status = CacheStatus {
        forward_status: filled.forward_status,
        stored: filled.stored,
        ..forwarded
    };
    UsageAnswer::fetched(filled.cached, status)
}

#[cfg(test)]
mod tests;
