//! Fetches resources from the source, by one call at a time for each, and caches its failures.

use std::{
    error::Error,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    call_leases::{CallLease, CallLeases, Turn},
    concurrency_limiter::{
        CallLimits, ConcurrencyLimiter, FetchReason, GaugeGuard, Overloaded, PastDeadline,
        PendingCall,
    },
    dated_call_limits::DatedCallLimits,
    second_level::{AcceptedUsage, ROW_BYTES, SecondLevel},
    source::{
        AnswerContent, CallIds, CallTrace, SourceAnswer, SourceCall, SourceError, SourceErrorKind,
        UsageSource,
    },
    spans,
};
use crate::{
    cache::{
        AbsenceKind, CachedAnswer, CachedFailure, CachedFailureKind, FailureCache, Flight,
        Freshness, LeaderGuard, NewerData, PurgeScope, SingleFlight, StoreChange, StoreResult,
        UsageCache,
    },
    clock::SharedClock,
    config::CacheConfig,
    domain::{Caller, CustomerId, CustomerList, ProcessedDate, Resource},
    lru_map::LruMap,
    observability::traces::TraceSpan,
    offload,
    render::{RenderError, Rendered},
    shutdown::Shutdown,
    store::Lease,
    token_bucket::BucketExhausted,
};

/// The most customers for which the time of the last `no-cache` fetch is stored. Each takes some
/// hundred bytes. The concurrency limit bounds how many can be asked for at once.
const MAX_FORCED_SUBJECTS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

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

/// The data of a customer's newest date, where upstream's newest is older or has no rows.
enum NewestFallback {
    /// It was cached when the answer arrived.
    Current(CachedAnswer),
    /// It is cached for requests of its date.
    Cached(CachedAnswer),
    /// It was fetched by the call for its date.
    Fetched(Resource, Box<RenderedAnswer>),
    /// Upstream no longer has that date either.
    Missing,
}

/// An answer in the formats that are always kept, and the data that the second level keeps.
struct RenderedAnswer {
    rendered: Rendered,
    accepted: Option<AcceptedData>,
}

/// The data of an answer that the second level keeps.
enum AcceptedData {
    Usage(AcceptedUsage),
    Customers(Option<CustomerList>),
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
}

/// The result of a call that another process made.
enum EarlierResult {
    Answered(CachedAnswer),
    Failed(SourceError),
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

    /// Returns the failure of a call for all customers.
    pub(super) fn uncached_source_failure(
        &self,
        error: SourceError,
    ) -> Arc<CachedFailure<SourceError>> {
        let lifetime = self.failure_lifetime(error.kind, error.retry_after, 1);
        Arc::new(CachedFailure::uncached(error, self.clock.now(), lifetime))
    }

    /// Lets the failure of a call count for other processes too.
    pub(super) fn fail_lease(
        &self,
        lease: Option<CallLease>,
        failure: &CachedFailure<SourceError>,
    ) {
        if let Some(lease) = lease {
            lease.fail(&failure.error, self.shared_lifetime(failure));
        }
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
                let call = WantedCall {
                    resource,
                    trace,
                    reason,
                    asked_at: now,
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

    /// Returns the failure of a call that ended without an outcome.
    pub(super) fn aborted_failure(&self) -> Arc<CachedFailure<SourceError>> {
        self.uncached_failure(
            SourceErrorKind::Interrupted,
            "the call to Partner Center ended without an answer",
            Duration::ZERO,
        )
    }

    /// Returns the failure of a call that was not made because too many wait.
    fn overloaded_failure(&self, overloaded: Overloaded) -> Arc<CachedFailure<SourceError>> {
        self.uncached_failure(
            SourceErrorKind::Overloaded,
            "more requests wait for Partner Center than can be answered in time",
            overloaded.retry_after,
        )
    }

    /// Returns the failure of a call that was not made because its caller caused too many for given
    /// dates.
    fn rate_limited_failure(&self, exhausted: BucketExhausted) -> Arc<CachedFailure<SourceError>> {
        let detail = format!(
            "this caller may cause {} calls to Partner Center for given dates in a minute, and has \
             caused more: wait, or have the scope cache:refresh added",
            DatedCallLimits::PER_MINUTE
        );
        self.uncached_failure(SourceErrorKind::RateLimited, &detail, exhausted.retry_after)
    }

    /// Returns the failure of a request whose call goes on after its deadline.
    fn still_running_failure(&self) -> Arc<CachedFailure<SourceError>> {
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

    /// Returns the failure of a refresh whose newest date is older than before, or that has no rows.
    pub(super) fn suspect_fleet_failure(
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
    pub(super) fn not_stored_failure(&self, detail: &str) -> Arc<CachedFailure<SourceError>> {
        self.uncached_failure(SourceErrorKind::Unavailable, detail, Duration::ZERO)
    }

    /// Returns the failure of a refresh with an answer that cannot be rendered.
    pub(super) fn malformed_fleet_failure(
        &self,
        error: &RenderError,
    ) -> Arc<CachedFailure<SourceError>> {
        self.uncached_failure(
            SourceErrorKind::Malformed,
            &error.to_string(),
            Duration::ZERO,
        )
    }

    /// Makes a call for all customers, which is not cached as one answer.
    ///
    /// # Errors
    ///
    /// The failure, which is not cached either.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the call.
    pub(super) async fn fetch_fleet(
        &self,
        resource: Resource,
        caller: &Caller,
        reason: FetchReason,
        trace: CallTrace,
    ) -> Result<SourceAnswer, Arc<CachedFailure<SourceError>>> {
        let _in_flight = GaugeGuard::increment(&self.cache.metrics().fills_in_flight);
        let pending = self.acquire_permit(resource, caller, reason, self.clock.now())?;
        let (permit, requested_at) = pending
            .acquire()
            .await
            .map_err(|overloaded| self.overloaded_failure(overloaded))?;
        // Its many pages say nothing of the time that other calls take.
        let _permit = permit.uncounted();
        let call = SourceCall {
            resource,
            trace,
            requested_at,
        };
        let fetched = self.source.fetch(call).await;
        fetched.map_err(|error| self.uncached_source_failure(error))
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
        let lease = match self.turn_or_result(&wanted).await {
            Ok(lease) => lease,
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
        };
        let (permit, requested_at) = match pending.acquire().await {
            Ok(acquired) => acquired,
            Err(overloaded) => {
                let failure = self.overloaded_failure(overloaded);
                spans::end_call_span(trace.span.as_deref(), Err(&failure.error));
                return Err(failure);
            }
        };
        let span = trace.span.clone();
        // A purge while it waited is older than the answer that it asks for from here on.
        if let Some(other) = guard.reattach() {
            drop((lease, permit));
            spans::end_unused_span(span.as_deref());
            let outcome = other.outcome().await;
            return outcome.unwrap_or_else(|_aborted| Err(self.aborted_failure()));
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
        let before = self.look_up(resource, self.clock.now());
        let before = before.map(|cached| cached.checked_at);
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
                self.level.load_customers().await;
            }
            let found = self.load_fresh(resource).await;
            if let Some(cached) = found.filter(|cached| Some(cached.checked_at) != before) {
                return Err(EarlierResult::Answered(cached));
            }
            // An answer that is said to be there, and is not, is not waited for again.
            if lease.is_some() || is_answered {
                return Ok(lease);
            }
            is_answered = true;
        }
    }

    /// The time for which a failure counts for other processes too: no longer than `no-cache` has to wait.
    fn shared_lifetime(&self, failure: &CachedFailure<SourceError>) -> Duration {
        let left = failure
            .expires_at
            .saturating_duration_since(self.clock.now());
        left.min(self.min_refresh_interval)
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

    async fn render_content(
        &self,
        customer: Option<CustomerId>,
        fetched: SourceAnswer,
    ) -> Result<RenderedAnswer, SourceError> {
        let seen_at = self.clock.wall_time();
        let call_ids = fetched.call_ids;
        let rows = match &fetched.content {
            AnswerContent::Usage { usage, .. } => usage.rows().len(),
            AnswerContent::Customers(list) => list.customers().len(),
            AnswerContent::Fleet(_) | AnswerContent::FleetDate(_) => 0,
            AnswerContent::Document { summary, .. } => summary.rows().len(),
        };
        let listed_name = match &fetched.content {
            AnswerContent::Usage { usage, .. } if usage.customer_name().is_none() => self
                .cache
                .customer_name(usage.customer_id(), self.clock.now()),
            _ => None,
        };
        let has_store = self.level.durable().is_some();
        let render = move || -> Result<RenderedAnswer, Box<dyn Error + Send + Sync>> {
            match fetched.content {
                AnswerContent::Usage { usage, native } => {
                    let rendered = Rendered::new(&usage, native.as_deref(), seen_at)?;
                    let rendered = match listed_name {
                        Some(name) => rendered.with_customer_name(&name, seen_at)?,
                        None => rendered,
                    };
                    let usage = Arc::new(usage);
                    Ok(RenderedAnswer {
                        rendered,
                        accepted: Some(AcceptedData::Usage(AcceptedUsage { usage, native })),
                    })
                }
                AnswerContent::Customers(list) => {
                    let kept = has_store.then(|| list.clone());
                    Ok(RenderedAnswer {
                        rendered: Rendered::of_customers(list, seen_at),
                        accepted: Some(AcceptedData::Customers(kept)),
                    })
                }
                AnswerContent::Document { summary, body } => Ok(RenderedAnswer {
                    rendered: Rendered::of_document(customer, &summary, &body, seen_at),
                    accepted: None,
                }),
                AnswerContent::Fleet(_) | AnswerContent::FleetDate(_) => {
                    Err("an answer for all customers cannot be served as one".into())
                }
            }
        };
        let rendered = offload::run_cpu_bound(rows * ROW_BYTES, render).await;
        drop(fetched.memory);
        rendered.map_err(|error| SourceError {
            status: Some(200),
            call_ids: Some(call_ids),
            ..SourceError::without_reply(SourceErrorKind::Malformed, error.to_string())
        })
    }

    fn store_answer(
        &self,
        resource: Resource,
        answer: RenderedAnswer,
        newest: Option<NewestFallback>,
        call_ids: CallIds,
        guard: FetchGuard,
        call_lease: Option<CallLease>,
    ) -> FetchedAnswer {
        let lease = call_lease.as_ref().and_then(CallLease::lease);
        let now = self.clock.now();
        let rows = answer.rendered.rows();
        let completed = guard.complete((answer, newest), |(answer, newest)| {
            self.failures.remove(&resource);
            let RenderedAnswer { rendered, accepted } = answer;
            let stored = match newest {
                None => self.cache.store(resource, rendered, now),
                Some(NewestFallback::Current(cached)) => {
                    self.cache
                        .store_beside(resource, rendered, Some(&cached), now)
                }
                Some(NewestFallback::Missing) => {
                    self.cache.store_without_rows(resource, rendered, now)
                }
                Some(NewestFallback::Cached(cached)) => {
                    self.cache.store_older(resource, rendered, &cached, now)
                }
                Some(NewestFallback::Fetched(dated, fetched)) => {
                    let dated_result = self.store(dated, *fetched, now, lease);
                    self.cache
                        .store_older(resource, rendered, &dated_result.answer, now)
                }
            };
            self.record_accepted(resource, accepted, &stored, lease);
            stored
        });
        let (cached, stored) = match completed {
            Ok(stored) => {
                log_anomaly(resource, rows, &stored);
                if let Some(lease) = call_lease
                    && !matches!(stored.change, StoreChange::Suspect(_))
                {
                    lease.finish();
                }
                (stored.answer, stored.stored)
            }
            // Purged during the call: the answer is served to those who waited, and not stored.
            Err((_, Some(NewestFallback::Cached(cached)))) => (cached, false),
            Err((_, Some(NewestFallback::Fetched(_, answer)))) => {
                (self.cache.uncached_answer(answer.rendered, now), false)
            }
            Err((answer, _)) => (self.cache.uncached_answer(answer.rendered, now), false),
        };
        FetchedAnswer {
            cached,
            stored,
            forward_status: Some(200),
            call_ids: Some(call_ids),
        }
    }

    fn store(
        &self,
        resource: Resource,
        answer: RenderedAnswer,
        now: Instant,
        lease: Option<&Lease>,
    ) -> StoreResult {
        let stored = self.cache.store(resource, answer.rendered, now);
        self.record_accepted(resource, answer.accepted, &stored, lease);
        stored
    }

    /// Hands accepted data to the second level. It keeps no suspect answers.
    fn record_accepted(
        &self,
        resource: Resource,
        accepted: Option<AcceptedData>,
        stored: &StoreResult,
        lease: Option<&Lease>,
    ) {
        match accepted {
            Some(_) if matches!(stored.change, StoreChange::Suspect(_)) => {}
            Some(AcceptedData::Usage(usage)) => self.level.record_usage(resource, usage, lease),
            Some(AcceptedData::Customers(list)) => {
                self.level.record_customers(&stored.answer.rendered, list);
            }
            None => {}
        }
    }

    /// Ends a failed call: removes data that upstream no longer has, unless that is suspect, and
    /// caches the failure.
    fn store_failure(
        &self,
        resource: Resource,
        error: SourceError,
        guard: FetchGuard,
    ) -> FetchOutcome {
        let now = self.clock.now();
        let (kind, retry_after) = (error.kind, error.retry_after);
        let completed = guard.complete(error, |error| {
            let absence = kind.absence();
            if let Some(absence) = absence
                && let Some(stored) = self.cache.store_absence(resource, absence, now)
            {
                self.failures.remove(&resource);
                return Ok((stored, error));
            }
            let is_past = absence == Some(AbsenceKind::Date) && self.is_before_newest(resource);
            let failure_kind = match absence {
                Some(_) if is_past => CachedFailureKind::PastAbsence,
                Some(_) => CachedFailureKind::Absence,
                None => CachedFailureKind::Fault,
            };
            let remember_for = |streak| match failure_kind {
                CachedFailureKind::PastAbsence => self.past_absence_fresh_for,
                _ => self.failure_lifetime(kind, retry_after, streak),
            };
            Err(self
                .failures
                .record(failure_kind, resource, error, now, remember_for))
        });
        match completed {
            Ok(Ok((suspect, error))) => {
                log_anomaly(resource, 0, &suspect);
                Ok(FetchedAnswer {
                    cached: suspect.answer,
                    stored: false,
                    forward_status: error.status,
                    call_ids: error.call_ids,
                })
            }
            Ok(Err(failure)) => {
                self.level.record_absence(resource, kind);
                Err(failure)
            }
            Err(error) => Err(Arc::new(CachedFailure::uncached(
                error,
                now,
                self.failure_lifetime(kind, retry_after, 1),
            ))),
        }
    }

    /// Returns whether its date is older than the customer's newest: such a date gets no new data.
    fn is_before_newest(&self, resource: Resource) -> bool {
        let newest = |customer| self.cache.newest_known_date(customer);
        let dates = resource.date().zip(resource.customer().and_then(newest));
        dates.is_some_and(|(date, newest)| date < newest)
    }

    /// The time that a failure stays cached.
    ///
    /// An absence lasts as configured, a throttle as long as `Retry-After`. Other faults last a second
    /// at first, so that a recovery is noticed at once, and longer each time in a row, so that an
    /// outage costs few calls.
    fn failure_lifetime(
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
fn suspect_error(
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

/// Logs that an answer is withheld, and when one is accepted after all.
fn log_anomaly(resource: Resource, rows: usize, stored: &StoreResult) {
    let cached = &stored.answer.rendered;
    match stored.change {
        StoreChange::Suspect(kind) => tracing::warn!(
            api = resource.api().as_str(),
            customer.id = resource.customer().map(tracing::field::display),
            reason = kind.as_str(),
            upstream.rows = rows,
            held.rows = cached.rows(),
            held.processed_date = cached.processed_date().map(tracing::field::display),
            age_seconds = stored.answer.age.as_secs(),
            "Partner Center's answer is suspect: cached data is served in its place"
        ),
        StoreChange::AcceptedAfterRepeat => tracing::warn!(
            api = resource.api().as_str(),
            customer.id = resource.customer().map(tracing::field::display),
            upstream.rows = rows,
            "Partner Center has sent the same again, so the answer that was suspect is accepted"
        ),
        StoreChange::New | StoreChange::Unchanged | StoreChange::Replaced => {}
    }
}
