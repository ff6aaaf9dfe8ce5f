//! Fetches resources from the source, by one call at a time for each.
//!
//! A call waits for its turn among replicas and for a permit, asks the source, and stores what it got.

mod failures;
pub(super) mod fleet_calls;
mod rendering;
mod storing;

use std::{
    num::NonZeroUsize,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;

use self::{failures::suspect_error, storing::NewestFallback};
use super::{
    call_leases::{CallLease, CallLeases, Turn},
    concurrency_limiter::{
        CallLimits, CallPermit, ConcurrencyLimiter, FetchReason, GaugeGuard, Overloaded,
        PastDeadline, PendingCall,
    },
    dated_call_limits::DatedCallLimits,
    second_level::SecondLevel,
    source::{CallIds, CallTrace, SourceAnswer, SourceCall, SourceError, UsageSource},
    spans,
};
use crate::{
    cache::{
        AbsenceKind, CachedAnswer, CachedFailure, FailureCache, Flight, Freshness, LeaderGuard,
        NewerData, PurgeScope, SingleFlight, UsageCache,
    },
    clock::{SharedClock, with_deadline},
    config::CacheConfig,
    domain::{Caller, CustomerId, Resource},
    lru_map::LruMap,
    observability::traces::TraceSpan,
    shutdown::Shutdown,
};

/// The most customers for which the time of the last `no-cache` fetch is stored. Each takes some
/// hundred bytes. The concurrency limit bounds how many can be asked for at once.
const MAX_FORCED_SUBJECTS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// The longest wait for the list of customers that another process has stored.
const MAX_LIST_TIME: Duration = Duration::from_secs(1);

/// The calls in progress, and the cached failures of earlier ones.
#[derive(Debug)]
pub(super) struct Fetcher {
    source: Arc<dyn UsageSource>,
    cache: Arc<UsageCache>,
    level: Arc<SecondLevel>,
    flights: SingleFlight<Resource, FetchOutcome, SharedFetch>,
    leases: CallLeases,
    limiter: Arc<ConcurrencyLimiter>,
    failures: FailureCache<Resource, SourceError>,
    /// The time of the last `no-cache` fetch of each customer.
    forced_refreshes: LruMap<Option<CustomerId>, Instant>,
    dated_call_limits: DatedCallLimits,
    negative_fresh_for: Duration,
    past_absence_fresh_for: Duration,
    min_refresh_interval: Duration,
    clock: SharedClock,
}

/// The outcome of a fetch, shared by all requests that waited for it.
pub(super) type FetchOutcome = Result<FetchedAnswer, Arc<CachedFailure<SourceError>>>;

/// The answer of a fetch.
#[derive(Clone, Debug)]
pub(super) struct FetchedAnswer {
    pub(super) cached: CachedAnswer,
    pub(super) stored: bool,
    /// The status of the upstream reply.
    pub(super) forward_status: Option<u16>,
    pub(super) call_ids: Option<CallIds>,
}

/// The part of a call that all its requests share.
#[derive(Clone, Debug)]
pub(super) struct SharedFetch {
    pending: Arc<PendingCall>,
    /// The call may take longer than any request waits.
    may_outlast_deadline: bool,
    /// The span of the call; `None` where nothing is traced.
    pub(super) span: Option<Arc<TraceSpan>>,
}

/// A call that a request or a refresh wants.
#[derive(Clone, Debug)]
struct WantedCall {
    resource: Resource,
    trace: CallTrace,
    reason: FetchReason,
    /// The time of the request: it has looked into the cache and the store after that.
    asked_at: Instant,
    /// The last check of the answer that was cached then, and was not good enough.
    checked_at: Option<Instant>,
}

/// The right to make a call now.
struct CallTurn {
    /// As in [`Turn::Own`].
    lease: Option<CallLease>,
    permit: CallPermit,
    /// The time at which the call was last asked for.
    requested_at: Instant,
}

/// A result without a call of this process.
enum EarlierResult {
    /// Another process has the answer.
    Answered(CachedAnswer),
    /// Another process made the call, and it failed.
    Failed(SourceError),
    /// There was no permit in time.
    Overloaded(Overloaded),
}

/// The request's handle on a call.
pub(super) type JoinedFetch = Flight<FetchOutcome, SharedFetch>;

/// The call's own handle.
type FetchGuard = LeaderGuard<Resource, FetchOutcome, SharedFetch>;

/// A result that ends a request before it joins a call.
pub(super) enum EarlyResult {
    Cached(CachedAnswer),
    Failed(Arc<CachedFailure<SourceError>>),
    /// No call can be made in time.
    Shed(Arc<CachedFailure<SourceError>>),
}

// === impl Fetcher ===

impl Fetcher {
    pub(super) fn new(
        config: &CacheConfig,
        limits: CallLimits,
        cache: Arc<UsageCache>,
        level: Arc<SecondLevel>,
        source: Arc<dyn UsageSource>,
        clock: SharedClock,
        shutdown: Shutdown,
    ) -> Self {
        let metrics = cache.metrics().clone();
        let limiter = ConcurrencyLimiter::new(limits, Arc::clone(&clock), metrics.clone());
        let leases = CallLeases::new(level.durable(), Arc::clone(&clock), shutdown.clone());
        Self {
            source,
            cache,
            level,
            leases,
            flights: SingleFlight::new(shutdown),
            limiter: Arc::new(limiter),
            failures: FailureCache::new(metrics),
            forced_refreshes: LruMap::new(MAX_FORCED_SUBJECTS),
            dated_call_limits: DatedCallLimits::new(),
            negative_fresh_for: config.negative_fresh_for,
            past_absence_fresh_for: config.past_absence_fresh_for,
            min_refresh_interval: config.min_refresh_interval,
            clock,
        }
    }

    /// The leases of calls.
    pub(super) fn leases(&self) -> &CallLeases {
        &self.leases
    }

    /// Returns the cached answer, whatever its age.
    pub(super) fn look_up(&self, resource: Resource, now: Instant) -> Option<CachedAnswer> {
        self.cache.look_up(resource, now)
    }

    /// Returns the cached failure, unless it has expired.
    pub(super) fn recent_failure(
        &self,
        resource: Resource,
        now: Instant,
    ) -> Option<Arc<CachedFailure<SourceError>>> {
        self.failures.get(&resource, now)
    }

    /// Returns whether `no-cache` may ask upstream again for a date that had no data: the absence of
    /// a date is cached for up to a day.
    pub(super) fn may_retry_absent_date(
        &self,
        resource: Resource,
        failure: &CachedFailure<SourceError>,
        now: Instant,
    ) -> bool {
        failure.error.kind.absence() == Some(AbsenceKind::Date)
            && now >= failure.failed_at + self.min_refresh_interval
            && self.record_forced_refresh(resource.customer(), now)
    }

    /// Returns whether `no-cache` may ask upstream, and records that it does. It may not where
    /// upstream was asked for this, or for the same customer by `no-cache`, a moment ago.
    pub(super) fn may_force_refresh(
        &self,
        resource: Resource,
        cached: &CachedAnswer,
        now: Instant,
    ) -> bool {
        let interval = self.min_refresh_interval;
        let failed_lately = || {
            self.failures
                .get_last(&resource)
                .is_some_and(|failure| now < failure.failed_at + interval)
        };
        now.saturating_duration_since(cached.checked_at) >= interval
            && !failed_lately()
            && self.record_forced_refresh(resource.customer(), now)
    }

    /// Records a `no-cache` fetch of this customer, unless there was one a moment ago. Of concurrent
    /// requests, one succeeds.
    fn record_forced_refresh(&self, customer: Option<CustomerId>, now: Instant) -> bool {
        let is_recent = |last: &Instant| now < *last + self.min_refresh_interval;
        self.forced_refreshes
            .insert_unless(customer, now, is_recent)
    }

    /// Joins the call in progress, or starts one.
    ///
    /// A call takes one permit, of whichever of its callers gets one first. A request that joins a
    /// running call needs none.
    ///
    /// # Errors
    ///
    /// [`EarlyResult`]: a result that arrived since `now`, or no call can be made in time.
    pub(super) fn join_or_lead(
        self: &Arc<Self>,
        resource: Resource,
        caller: &Caller,
        reason: FetchReason,
        trace: CallTrace,
        now: Instant,
    ) -> Result<JoinedFetch, EarlyResult> {
        let join = |shared: &SharedFetch| {
            if reason == FetchReason::Request {
                shared.pending.join(caller, now);
            }
        };
        let lead = || match self.result_since(resource, now) {
            Some(result) => Err(result),
            None => self
                .acquire_permit(resource, caller, reason, now)
                .map(|pending| SharedFetch {
                    pending,
                    may_outlast_deadline: resource == Resource::Customers,
                    span: spans::start_call_span(&trace, resource, reason),
                })
                .map_err(EarlyResult::Shed),
        };
        self.flights
            .join_or_lead(resource, join, lead, |guard, shared| {
                let SharedFetch { pending, span, .. } = shared;
                let trace = CallTrace {
                    span,
                    ..trace.clone()
                };
                let cached = self.look_up(resource, now);
                let call = WantedCall {
                    resource,
                    trace,
                    reason,
                    asked_at: now,
                    checked_at: cached.map(|cached| cached.checked_at),
                };
                Arc::clone(self).run_fetch(call, pending, guard)
            })
    }

    /// Queues a call of `caller`.
    fn acquire_permit(
        &self,
        resource: Resource,
        caller: &Caller,
        reason: FetchReason,
        now: Instant,
    ) -> Result<Arc<PendingCall>, Arc<CachedFailure<SourceError>>> {
        let pending = self
            .limiter
            .enqueue(caller, reason, now)
            .map_err(|overloaded| self.overloaded_failure(overloaded))?;
        if resource.date().is_some()
            && let Err(exhausted) = self.dated_call_limits.acquire(caller, now)
        {
            return Err(self.rate_limited_failure(exhausted));
        }
        Ok(pending)
    }

    /// Waits for the outcome of a call that `caller` joined at `now`, until the deadline of this
    /// request. The call may go on for a later request, or for the cache.
    pub(super) async fn wait_for_outcome(
        &self,
        flight: JoinedFetch,
        caller: &Caller,
        now: Instant,
    ) -> FetchOutcome {
        let SharedFetch {
            pending,
            may_outlast_deadline,
            ..
        } = flight.shared.clone();
        tokio::select! {
            biased;
            outcome = flight.outcome() => outcome.unwrap_or_else(|_aborted| Err(self.aborted_failure())),
            state = pending.past_deadline(now, may_outlast_deadline) => match state {
                PastDeadline::Queued => Err(self.overloaded_failure(self.limiter.overloaded(caller.name()))),
                PastDeadline::Running => Err(self.still_running_failure()),
            },
        }
    }

    fn result_since(&self, resource: Resource, now: Instant) -> Option<EarlyResult> {
        let has_arrived =
            |cached: &CachedAnswer| cached.checked_at > now && cached.freshness == Freshness::Fresh;
        self.look_up(resource, self.clock.now())
            .filter(has_arrived)
            .map(EarlyResult::Cached)
            .or_else(|| {
                self.failures
                    .failed_since(&resource, now)
                    .map(EarlyResult::Failed)
            })
    }

    /// Detaches calls in progress, so that they store nothing and no request joins them, and removes
    /// cached failures.
    pub(super) fn purge(&self, scope: PurgeScope) {
        // A call for the newest date may bring any date.
        let covers = |resource: &Resource| match resource.date() {
            date @ Some(_) => scope.covers(resource.customer(), date),
            None => scope.covers_customer(resource.customer()),
        };
        self.flights.detach(covers);
        self.failures.remove_if(covers);
    }

    /// Sets the gauges of cached failures and of the source. Call it before a scrape.
    pub(super) fn update_gauges(&self) {
        self.failures.update_gauges();
        self.source.update_gauges();
    }

    /// Fetches a resource unless the cached answer is fresh, and waits for the outcome.
    pub(super) async fn fetch_if_stale(
        self: &Arc<Self>,
        resource: Resource,
        caller: &Caller,
    ) -> Result<(), Arc<CachedFailure<SourceError>>> {
        let now = self.clock.now();
        let cached = self.look_up(resource, now);
        if cached.is_some_and(|cached| cached.freshness == Freshness::Fresh) {
            return Ok(());
        }
        let trace = CallTrace::default();
        match self.join_or_lead(resource, caller, FetchReason::Refresh, trace, now) {
            Ok(flight) => self.wait_for_outcome(flight, caller, now).await.map(drop),
            Err(EarlyResult::Cached(_)) => Ok(()),
            Err(EarlyResult::Failed(failure) | EarlyResult::Shed(failure)) => Err(failure),
        }
    }

    /// Waits for a permit, calls the source and stores the answer. This runs in a task of its own,
    /// which holds the permit: a caller that disconnects gets no other one before the call has ended.
    async fn run_fetch(
        self: Arc<Self>,
        wanted: WantedCall,
        pending: Arc<PendingCall>,
        guard: FetchGuard,
    ) -> FetchOutcome {
        let WantedCall {
            resource, trace, ..
        } = wanted.clone();
        let _in_flight = GaugeGuard::increment(&self.cache.metrics().fills_in_flight);
        let turn = match self.wait_for_turn(&wanted, &pending).await {
            Ok(turn) => turn,
            Err(EarlierResult::Answered(cached)) => {
                spans::end_unused_span(trace.span.as_deref());
                return Ok(FetchedAnswer {
                    cached,
                    stored: true,
                    forward_status: None,
                    call_ids: None,
                });
            }
            Err(EarlierResult::Failed(error)) => {
                spans::end_call_span(trace.span.as_deref(), Err(&error));
                return self.store_failure(resource, error, guard);
            }
            Err(EarlierResult::Overloaded(overloaded)) => {
                let failure = self.overloaded_failure(overloaded);
                spans::end_call_span(trace.span.as_deref(), Err(&failure.error));
                return Err(failure);
            }
        };
        let CallTurn {
            lease,
            permit,
            requested_at,
        } = turn;
        let span = trace.span.clone();
        // A purge while it waited is older than the answer that it asks for from here on.
        if let Some(other) = guard.reattach() {
            drop((lease, permit));
            spans::end_unused_span(span.as_deref());
            let outcome = other.outcome().await;
            let outcome = outcome.unwrap_or_else(|_aborted| Err(self.aborted_failure()));
            // Only one answer has the ids of a call.
            return outcome
                .map(|answer| FetchedAnswer {
                    call_ids: None,
                    ..answer
                })
                .map_err(|failure| {
                    Arc::new(failure.with_error(SourceError {
                        call_ids: None,
                        ..failure.error.clone()
                    }))
                });
        }
        let call = SourceCall {
            resource,
            trace,
            requested_at,
        };
        let fetched = self.fetch_with_fallback(resource, call).await;
        spans::end_call_span(span.as_deref(), fetched.as_ref().map(|(answer, _)| answer));
        let rendered = match fetched {
            Ok((answer, newest)) => {
                let call_ids = answer.call_ids;
                let rendered = self.render_content(resource.customer(), answer).await;
                rendered.map(|rendered| (rendered, newest, call_ids))
            }
            Err(error) => Err(error),
        };
        // Answers that wait to be rendered take memory, so they count as calls.
        drop(permit);
        match rendered {
            Ok((rendered, newest, call_ids)) => {
                Ok(self.store_answer(resource, rendered, newest, call_ids, guard, lease))
            }
            Err(error) => {
                let outcome = self.store_failure(resource, error, guard);
                if let Err(failure) = &outcome {
                    self.fail_lease(lease, failure);
                }
                outcome
            }
        }
    }

    /// Waits for the turn of this process and for a permit, unless another has made the call by then.
    async fn wait_for_turn(
        &self,
        wanted: &WantedCall,
        pending: &PendingCall,
    ) -> Result<CallTurn, EarlierResult> {
        let lease = self.turn_or_result(wanted).await?;
        let mut acquiring = pin!(pending.acquire());
        let (acquired, lease) = match acquiring.as_mut().now_or_never() {
            Some(acquired) => (acquired, Some(lease)),
            None => {
                // Meanwhile another process may ask, which has a permit sooner.
                drop(lease);
                (acquiring.await, None)
            }
        };
        let (permit, requested_at) = acquired.map_err(EarlierResult::Overloaded)?;
        let lease = match lease {
            Some(lease) => lease,
            None => match self.turn_or_result(wanted).await {
                Ok(lease) => lease,
                Err(earlier) => {
                    drop(permit.uncounted());
                    return Err(earlier);
                }
            },
        };
        Ok(CallTurn {
            lease,
            permit,
            requested_at,
        })
    }

    /// Waits for the turn of this process, unless another has made the call by then.
    async fn turn_or_result(
        &self,
        wanted: &WantedCall,
    ) -> Result<Option<CallLease>, EarlierResult> {
        let resource = wanted.resource;
        let mut unknown_since = wanted.asked_at;
        if wanted.reason == FetchReason::Refresh {
            unknown_since = self.clock.now();
            if let Some(cached) = self.load_fresh(resource).await {
                return Err(EarlierResult::Answered(cached));
            }
        }
        let mut is_answered = false;
        loop {
            let lease = match self.leases.turn(resource, unknown_since).await {
                Turn::Own(lease) => return Ok(lease),
                Turn::Failed(error) => return Err(EarlierResult::Failed(error)),
                Turn::Next(lease) => Some(lease),
                Turn::Answered => None,
            };
            unknown_since = self.clock.now();
            if resource == Resource::Customers {
                let latest = unknown_since + MAX_LIST_TIME;
                with_deadline(&self.clock, latest, self.level.load_customers()).await;
            }
            let found = self.load_fresh(resource).await;
            if let Some(cached) =
                found.filter(|cached| Some(cached.checked_at) != wanted.checked_at)
            {
                return Err(EarlierResult::Answered(cached));
            }
            // An answer that is said to be there, and is not, is not waited for again.
            if lease.is_some() || is_answered {
                return Ok(lease);
            }
            is_answered = true;
        }
    }

    /// Returns the answer that another process accepted after the cached one, if it is fresh.
    pub(super) async fn load_fresh(&self, resource: Resource) -> Option<CachedAnswer> {
        self.level.load_newer(resource).await;
        let cached = self.look_up(resource, self.clock.now());
        cached.filter(|cached| cached.freshness == Freshness::Fresh)
    }

    /// Calls the source. An answer that is older than an earlier one, or has no rows, is not the
    /// customer's newest. Then the newest date is fetched by its date, or else taken from the cache.
    async fn fetch_with_fallback(
        &self,
        resource: Resource,
        call: SourceCall,
    ) -> Result<(SourceAnswer, Option<NewestFallback>), SourceError> {
        let answer = self.source.fetch(call.clone()).await?;
        let date = answer.content.processed_date();
        let newer = self.cache.newer_data(resource, date, self.clock.now());
        let (customer, newest) = match (newer, resource.customer()) {
            (Some(NewerData::Cached(newest)), _) => {
                return Ok((answer, Some(NewestFallback::Current(newest))));
            }
            (Some(NewerData::Evicted(newest)), Some(customer)) => (customer, newest),
            (Some(NewerData::Evicted(_)), None) | (None, _) => return Ok((answer, None)),
        };
        let resource = Resource::dated_usage(customer, newest);
        let fallback = match self.source.fetch(SourceCall { resource, ..call }).await {
            Ok(fetched) => {
                let rendered = self.render_content(Some(customer), fetched).await?;
                NewestFallback::Fetched(resource, Box::new(rendered))
            }
            Err(error) => {
                let cached = self.cache.look_up(resource, self.clock.now());
                let is_missing = error.kind.absence() == Some(AbsenceKind::Date);
                match cached {
                    Some(cached) => NewestFallback::Cached(cached),
                    None if date.is_none() && is_missing => NewestFallback::Missing,
                    None => return Err(suspect_error(date, newest, error)),
                }
            }
        };
        Ok((answer, Some(fallback)))
    }
}
