//! Asking the source: one call at a time for each thing to fetch, and its failures remembered.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use moka::ops::compute::{CompResult, Op};

use super::{
    CallLimits,
    counted::Counted,
    dated_calls::DatedCalls,
    places::{Errand, Outlasts, Overloaded, Places, Turn, Wanted},
    source::{
        Call, CallIds, CallTrace, Content, Fetched, SourceError, SourceErrorKind, UsageSource,
    },
    spans,
};
use crate::{
    cache::{
        AbsenceKind, Boarding, Change, Failure, FailureKind, Failures, Freshness, Held, PurgeScope,
        SingleFlight, Stored, Ticket, UsageCache,
    },
    clock::SharedClock,
    config::CacheConfig,
    domain::{Caller, ProcessedDate, Question, Subject, UpstreamApi},
    observability::traces::Span,
    offload,
    render::Prepared,
    resilience::token_bucket::Exhausted,
    shutdown::Shutdown,
};

/// Subjects of which it is remembered when `no-cache` was last honoured. Each takes some hundred
/// bytes; whoever has more than so many asked for at once is held by the places for calls.
const FORCED_SUBJECTS: u64 = 10_000;

/// The calls under way and the failures of those that ended.
#[derive(Debug)]
pub(super) struct Fetches {
    source: Arc<dyn UsageSource>,
    cache: Arc<UsageCache>,
    flights: SingleFlight<Fetch, Outcome, Shared>,
    places: Arc<Places>,
    failures: Failures<Fetch, SourceError>,
    /// When a caller last had upstream asked for a subject by `no-cache`.
    forced: moka::sync::Cache<Subject, Instant>,
    dated_calls: DatedCalls,
    negative_fresh_for: Duration,
    past_absence_fresh_for: Duration,
    min_refresh_interval: Duration,
    clock: SharedClock,
}

/// One thing to fetch: what concurrent requests share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fetch {
    pub(super) subject: Subject,
    pub(super) question: Question,
}

/// What became of a fetch; all who waited share it.
pub(super) type Outcome = Result<Filled, Arc<Failure<SourceError>>>;

/// What a fetch brought.
#[derive(Clone, Debug)]
pub(super) struct Filled {
    pub(super) held: Held,
    pub(super) stored: bool,
    /// The status that upstream answered with.
    pub(super) forward_status: Option<u16>,
    pub(super) ids: Option<CallIds>,
}

/// The data of a customer's newest date, where upstream's newest is older or has no rows.
enum KnownNewest<T> {
    Cached(Held),
    /// Of this date, as the dated call sent it.
    Fetched(ProcessedDate, T),
    /// Upstream has nothing of that date any more either.
    Gone,
}

/// An answer, and the data to serve in its place where it is older than one before.
type Brought<T> = (T, Option<KnownNewest<T>>);

/// What a call shares with all who want it.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    wanted: Arc<Wanted>,
    /// Longer than anybody waits for it.
    may_last: bool,
    /// The call's own; `None` where nothing is traced.
    pub(super) span: Option<Arc<Span>>,
}

/// A request's part in a call.
pub(super) type Boarded = Boarding<Outcome, Shared>;

/// The call's own part in it.
type Own = Ticket<Fetch, Outcome, Shared>;

/// What was found between a request's look-up and its place in a flight.
pub(super) enum Settled {
    Held(Held),
    Failed(Arc<Failure<SourceError>>),
    /// Nothing: no call can be made in time.
    Shed(Arc<Failure<SourceError>>),
}

// === impl Fetch ===

impl Fetch {
    /// Whether it is read page by page, each in a time of its own.
    fn may_last(self) -> bool {
        self.question == Question::Newest(UpstreamApi::Customers)
    }
}

// === impl Fetches ===

impl Fetches {
    pub(super) fn new(
        config: &CacheConfig,
        limits: CallLimits,
        cache: Arc<UsageCache>,
        source: Arc<dyn UsageSource>,
        clock: SharedClock,
        shutdown: Shutdown,
    ) -> Self {
        let metrics = cache.metrics().clone();
        let places = Places::new(
            limits.max_concurrency,
            limits.deadline,
            Arc::clone(&clock),
            metrics.clone(),
        );
        Self {
            source,
            cache,
            flights: SingleFlight::new(shutdown),
            places: Arc::new(places),
            failures: Failures::new(metrics),
            forced: moka::sync::Cache::new(FORCED_SUBJECTS),
            dated_calls: DatedCalls::new(),
            negative_fresh_for: config.negative_fresh_for,
            past_absence_fresh_for: config.past_absence_fresh_for,
            min_refresh_interval: config.min_refresh_interval,
            clock,
        }
    }

    /// What is held of it, whatever its age.
    pub(super) fn look_up(&self, fetch: Fetch, now: Instant) -> Option<Held> {
        self.cache.look_up(fetch.subject, fetch.question, now)
    }

    /// The failure that still answers for it.
    pub(super) fn remembered(
        &self,
        fetch: Fetch,
        now: Instant,
    ) -> Option<Arc<Failure<SourceError>>> {
        self.failures.get(&fetch, now)
    }

    /// Returns whether a caller's `no-cache` has upstream asked again for a date that had no data: an
    /// absence may be remembered for a day.
    pub(super) fn may_ask_again(
        &self,
        fetch: Fetch,
        failure: &Failure<SourceError>,
        now: Instant,
    ) -> bool {
        failure.error.kind.absence() == Some(AbsenceKind::Date)
            && now >= failure.failed_at + self.min_refresh_interval
            && self.force(fetch.subject, now)
    }

    /// Whether a caller's `no-cache` is honoured: upstream was not asked this too lately, be it in
    /// vain, nor anything else of the subject at a caller's wish. Where it is, it counts as asked.
    pub(super) fn may_be_forced(&self, fetch: Fetch, held: &Held, now: Instant) -> bool {
        let interval = self.min_refresh_interval;
        let failed_lately = || {
            self.failures
                .get_last(&fetch)
                .is_some_and(|failure| now < failure.failed_at + interval)
        };
        now.saturating_duration_since(held.checked_at) >= interval
            && !failed_lately()
            && self.force(fetch.subject, now)
    }

    /// Takes note that upstream is asked for this subject at a caller's wish, unless it was too
    /// lately; of requests that come together, one does.
    fn force(&self, subject: Subject, now: Instant) -> bool {
        let lately = |last: Instant| now < last + self.min_refresh_interval;
        let noted = self.forced.entry(subject).and_compute_with(|last| {
            if last.is_some_and(|last| lately(last.into_value())) {
                Op::Nop
            } else {
                Op::Put(now)
            }
        });
        matches!(noted, CompResult::Inserted(_) | CompResult::ReplacedWith(_))
    }

    /// Joins or begins the call.
    ///
    /// A call takes one place for as long as it lasts, of the first of its callers whose turn comes;
    /// one that is joined under way takes none. So nobody's answer waits in another's line.
    ///
    /// # Errors
    ///
    /// What arrived since `now`, which is as good as an answer to a call of one's own; or that no
    /// call can be begun in time.
    pub(super) fn board(
        self: &Arc<Self>,
        fetch: Fetch,
        caller: &Caller,
        errand: Errand,
        trace: CallTrace,
        now: Instant,
    ) -> Result<Boarded, Settled> {
        let join = |shared: &Shared| {
            if errand == Errand::Answer {
                shared.wanted.join(caller, now);
            }
        };
        let leave = || match self.settled_since(fetch, now) {
            Some(settled) => Err(settled),
            None => self
                .permit(fetch, caller, errand, now)
                .map(|wanted| Shared {
                    wanted,
                    may_last: fetch.may_last(),
                    span: spans::begin_call(&trace, fetch, errand),
                })
                .map_err(Settled::Shed),
        };
        self.flights.board(fetch, join, leave, |ticket, shared| {
            let Shared { wanted, span, .. } = shared;
            let trace = CallTrace {
                span,
                ..trace.clone()
            };
            Arc::clone(self).fill(fetch, trace, Turn::of(wanted), ticket)
        })
    }

    /// Wants a place for a call that `caller` causes.
    fn permit(
        &self,
        fetch: Fetch,
        caller: &Caller,
        errand: Errand,
        now: Instant,
    ) -> Result<Arc<Wanted>, Arc<Failure<SourceError>>> {
        let wanted = self
            .places
            .enter(caller, errand, now)
            .map_err(|overloaded| self.overloaded(overloaded))?;
        if let Question::Dated(_) = fetch.question
            && let Err(exhausted) = self.dated_calls.take(caller, now)
        {
            // Gives the place back.
            drop(Turn::of(wanted));
            return Err(self.rate_limited(exhausted));
        }
        Ok(wanted)
    }

    /// What becomes of a call that was boarded for `caller` at `now`; it is waited for no longer
    /// than the answer is of use, though the call may go on for who asked later, or for the cache.
    pub(super) async fn outcome(&self, boarded: Boarded, caller: &Caller, now: Instant) -> Outcome {
        let Shared {
            wanted, may_last, ..
        } = boarded.shared.clone();
        tokio::select! {
            biased;
            outcome = boarded.outcome() => outcome.unwrap_or_else(|_lost| Err(self.lost())),
            outlasts = wanted.outlasts(now, may_last) => match outlasts {
                Outlasts::InLine => Err(self.overloaded(self.places.overloaded(caller.name()))),
                Outlasts::UnderWay => Err(self.goes_on()),
            },
        }
    }

    fn settled_since(&self, fetch: Fetch, now: Instant) -> Option<Settled> {
        let arrived = |held: &Held| held.checked_at > now && held.freshness == Freshness::Fresh;
        self.look_up(fetch, self.clock.now())
            .filter(arrived)
            .map(Settled::Held)
            .or_else(|| self.failures.since(&fetch, now).map(Settled::Failed))
    }

    /// Has calls under way neither store what they bring nor be joined any more, and forgets
    /// failures.
    pub(super) fn purge(&self, scope: PurgeScope) {
        // A call for the newest date may bring any date.
        let covers = |fetch: &Fetch| match fetch.question {
            Question::Dated(date) => scope.covers(fetch.subject, Some(date)),
            Question::Newest(_) => scope.covers_dates_of(fetch.subject),
        };
        self.flights.detach(covers);
        self.failures.forget_if(covers);
    }

    /// Sets the gauges that are read from what is remembered; to be called before a scrape.
    pub(super) fn update_gauges(&self) {
        self.failures.update_gauges();
    }

    /// What a call that ended without an outcome comes to.
    fn lost(&self) -> Arc<Failure<SourceError>> {
        let error = SourceError {
            kind: SourceErrorKind::Interrupted,
            detail: "the call to Partner Center ended without an answer".into(),
            status: None,
            refusal: None,
            ids: None,
        };
        Arc::new(Failure::once(error, self.clock.now(), Duration::ZERO))
    }

    /// What a call that was not made comes to. It is nobody's failure but this request's, so it is
    /// not remembered.
    fn overloaded(&self, Overloaded { retry_after }: Overloaded) -> Arc<Failure<SourceError>> {
        let error = SourceError {
            kind: SourceErrorKind::Overloaded { retry_after },
            detail: "more requests wait for Partner Center than can be answered in time".into(),
            status: None,
            refusal: None,
            ids: None,
        };
        Arc::new(Failure::once(error, self.clock.now(), retry_after))
    }

    /// The failure of a call that is not made because its caller caused too many for given dates. It
    /// concerns this caller alone, so it is not remembered.
    fn rate_limited(&self, Exhausted { retry_after }: Exhausted) -> Arc<Failure<SourceError>> {
        let error = SourceError {
            kind: SourceErrorKind::RateLimited { retry_after },
            detail: format!(
                "this caller may cause {} calls to Partner Center for given dates in a minute, and \
                 has caused more: wait, or have the scope cache:refresh added",
                DatedCalls::PER_MINUTE
            )
            .into(),
            status: None,
            refusal: None,
            ids: None,
        };
        Arc::new(Failure::once(error, self.clock.now(), retry_after))
    }

    /// What who waits is told of a call that takes longer than that. The call itself has not failed,
    /// so nothing is remembered.
    fn goes_on(&self) -> Arc<Failure<SourceError>> {
        /// About what a few pages take.
        const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);

        let error = SourceError {
            kind: SourceErrorKind::TimedOut,
            detail: "Partner Center has not told all of it in time; the rest is still being read, \
                     and will be held"
                .into(),
            status: None,
            refusal: None,
            ids: None,
        };
        Arc::new(Failure::once(error, self.clock.now(), ASK_AGAIN_AFTER))
    }

    /// Waits for its turn, asks the source and stores what it says. Runs in a task of its own, which
    /// holds the place: a caller that hangs up makes no room for its next request before the call
    /// has ended.
    async fn fill(
        self: Arc<Self>,
        fetch: Fetch,
        trace: CallTrace,
        turn: Turn,
        ticket: Own,
    ) -> Outcome {
        let _in_flight = Counted::on(&self.cache.metrics().fills_in_flight);
        let (place, asked_at) = match turn.come().await {
            Ok(come) => come,
            Err(overloaded) => {
                let failure = self.overloaded(overloaded);
                spans::end_call(trace.span.as_deref(), Err(&failure.error));
                return Err(failure);
            }
        };
        let span = trace.span.clone();
        let call = Call {
            subject: fetch.subject,
            question: fetch.question,
            trace,
            asked_at,
        };
        let fetched = self.ask(fetch, call).await;
        spans::end_call(span.as_deref(), fetched.as_ref().map(|(answer, _)| answer));
        let prepared = match fetched {
            Ok(fetched) => {
                let ids = fetched.0.ids;
                self.prepare_all(fetch.subject, fetched)
                    .await
                    .map(|prepared| (prepared, ids))
            }
            Err(error) => Err(error),
        };
        // Not before, or answers that wait to be rendered would take memory without end.
        drop(place);
        match prepared {
            Ok((prepared, ids)) => Ok(self.keep(fetch, prepared, ids, ticket)),
            Err(error) => self.fail(fetch, error, ticket),
        }
    }

    /// Asks the source. An answer that is older than one before, or has no rows, is not the
    /// customer's newest: then the newest date is asked for by name. Where that fails, data of that
    /// date answers that is cached for its own sake.
    async fn ask(&self, fetch: Fetch, call: Call) -> Result<Brought<Fetched>, SourceError> {
        let answer = self.source.fetch(call.clone()).await?;
        let date = answer.content.processed_date();
        let Some(newest) = self.cache.lost_newest(fetch.subject, fetch.question, date) else {
            return Ok((answer, None));
        };
        let question = Question::Dated(newest);
        let known = match self.source.fetch(Call { question, ..call }).await {
            Ok(fetched) => KnownNewest::Fetched(newest, fetched),
            Err(error) => {
                let now = self.clock.now();
                match self.cache.look_up(fetch.subject, question, now) {
                    Some(held) => KnownNewest::Cached(held),
                    None if date.is_none() && error.kind.absence() == Some(AbsenceKind::Date) => {
                        KnownNewest::Gone
                    }
                    None => return Err(suspect(date, newest, error)),
                }
            }
        };
        Ok((answer, Some(known)))
    }

    async fn prepare_all(
        &self,
        subject: Subject,
        (answer, known): Brought<Fetched>,
    ) -> Result<Brought<Prepared>, SourceError> {
        let answer = self.prepare(subject, answer).await?;
        let known = match known {
            None => None,
            Some(KnownNewest::Cached(held)) => Some(KnownNewest::Cached(held)),
            Some(KnownNewest::Fetched(date, fetched)) => {
                let prepared = self.prepare(subject, fetched).await?;
                Some(KnownNewest::Fetched(date, prepared))
            }
            Some(KnownNewest::Gone) => Some(KnownNewest::Gone),
        };
        Ok((answer, known))
    }

    async fn prepare(&self, subject: Subject, fetched: Fetched) -> Result<Prepared, SourceError> {
        /// About what a row takes, rendered.
        const ROW_BYTES: usize = 300;

        let seen_at = self.clock.wall();
        let ids = fetched.ids;
        let rows = match &fetched.content {
            Content::Usage { snapshot, .. } => snapshot.rows().len(),
            Content::Customers(list) => list.customers().len(),
            Content::Document { outline, .. } => outline.rows().len(),
        };
        let bytes = rows * ROW_BYTES;
        let listed_name = match &fetched.content {
            Content::Usage { snapshot, .. } if snapshot.customer_name().is_none() => {
                let customer = snapshot.customer_id();
                self.cache.listed_name(customer, self.clock.now())
            }
            _ => None,
        };
        let render = move || match fetched.content {
            Content::Usage { snapshot, native } => {
                let prepared = Prepared::new(&snapshot, native.as_deref(), seen_at)?;
                match listed_name {
                    Some(name) => prepared.named(&name, seen_at),
                    None => Ok(prepared),
                }
            }
            Content::Customers(list) => Prepared::of_customers(list, seen_at),
            Content::Document { outline, body } => {
                Ok(Prepared::of_document(subject, &outline, &body, seen_at))
            }
        };
        let rendered = offload::run_cpu_bound(bytes, render).await;
        drop(fetched.memory);
        rendered.map_err(|error| SourceError {
            kind: SourceErrorKind::Malformed,
            detail: error.to_string().into(),
            status: Some(200),
            refusal: None,
            ids: Some(ids),
        })
    }

    fn keep(&self, fetch: Fetch, brought: Brought<Prepared>, ids: CallIds, ticket: Own) -> Filled {
        let now = self.clock.now();
        let rows = brought.0.rows();
        let landed = ticket.land(brought, |(answer, known)| {
            self.failures.forget(&fetch);
            let known = match known {
                None => return self.cache.store(fetch.question, answer, now),
                Some(KnownNewest::Gone) => {
                    return self.cache.store_in_place_of(fetch.question, answer, now);
                }
                Some(KnownNewest::Cached(held)) => held,
                Some(KnownNewest::Fetched(date, prepared)) => {
                    let question = Question::Dated(date);
                    self.cache.store(question, prepared, now).held
                }
            };
            self.cache.store_older(fetch.question, answer, &known, now)
        });
        let (held, stored) = match landed {
            Ok(stored) => {
                log_doubt(fetch, rows, &stored);
                (stored.held, stored.stored)
            }
            // A purge overtook the call: its answer serves who waited, and nobody after.
            Err((answer, None | Some(KnownNewest::Gone))) => {
                (self.cache.pass_through(answer, now), false)
            }
            Err((_, Some(KnownNewest::Cached(held)))) => (held, false),
            Err((_, Some(KnownNewest::Fetched(_, prepared)))) => {
                (self.cache.pass_through(prepared, now), false)
            }
        };
        Filled {
            held,
            stored,
            forward_status: Some(200),
            ids: Some(ids),
        }
    }

    /// Ends a call that failed: what upstream does not have any more is dropped, unless that is
    /// doubted, and the failure is remembered.
    fn fail(&self, fetch: Fetch, error: SourceError, ticket: Own) -> Outcome {
        let now = self.clock.now();
        let kind = error.kind;
        let landed = ticket.land(error, |error| {
            let absence = kind.absence();
            if let Some(absence) = absence
                && let Some(stored) =
                    self.cache
                        .store_absence(fetch.subject, fetch.question, absence, now)
            {
                self.failures.forget(&fetch);
                return Ok((stored, error));
            }
            let failures = &self.failures;
            Err(
                if absence == Some(AbsenceKind::Date) && self.is_past(fetch) {
                    let remember_for = |_| self.past_absence_fresh_for;
                    failures.remember(FailureKind::PastAbsence, fetch, error, now, remember_for)
                } else {
                    let remembered = match absence {
                        Some(_) => FailureKind::Absence,
                        None => FailureKind::Fault,
                    };
                    let remember_for = |streak| self.remember_for(kind, streak);
                    failures.remember(remembered, fetch, error, now, remember_for)
                },
            )
        });
        match landed {
            Ok(Ok((doubted, error))) => {
                log_doubt(fetch, 0, &doubted);
                Ok(Filled {
                    held: doubted.held,
                    stored: false,
                    forward_status: error.status,
                    ids: error.ids,
                })
            }
            Ok(Err(failure)) => Err(failure),
            Err(error) => Err(Arc::new(Failure::once(
                error,
                now,
                self.remember_for(kind, 1),
            ))),
        }
    }

    /// Returns whether it asks for a date older than the customer's newest: such a date gets no new
    /// data.
    fn is_past(&self, fetch: Fetch) -> bool {
        match fetch.question {
            Question::Dated(date) => self
                .cache
                .newest_known(fetch.subject)
                .is_some_and(|newest| date < newest),
            Question::Newest(_) => false,
        }
    }

    /// How long a failure answers for its fetch.
    ///
    /// What the upstream settled lasts as configured, a throttle as long as it said. A fault is
    /// remembered for a second at first, so that a recovery is noticed at once, and for longer the
    /// more often it has come in a row, so that an outage costs few calls.
    fn remember_for(&self, kind: SourceErrorKind, streak: u32) -> Duration {
        const FIRST: Duration = Duration::from_secs(1);
        const LONGEST: Duration = Duration::from_secs(30);
        let backoff = FIRST
            .saturating_mul(2_u32.saturating_pow(streak.saturating_sub(1)))
            .min(LONGEST);
        match kind {
            SourceErrorKind::UnknownCustomer
            | SourceErrorKind::NoRelationship
            | SourceErrorKind::NothingProcessed => self.negative_fresh_for,
            SourceErrorKind::Throttled { retry_after }
            | SourceErrorKind::CircuitOpen { retry_after }
            | SourceErrorKind::Overloaded { retry_after }
            | SourceErrorKind::RateLimited { retry_after } => retry_after,
            SourceErrorKind::Unavailable {
                retry_after: Some(retry_after),
            } => retry_after.max(backoff),
            SourceErrorKind::Unavailable { retry_after: None }
            | SourceErrorKind::TimedOut
            | SourceErrorKind::CredentialsRefused
            | SourceErrorKind::Rejected
            | SourceErrorKind::Malformed
            | SourceErrorKind::Suspect => backoff,
            SourceErrorKind::Interrupted => Duration::ZERO,
        }
    }
}

/// The failure of a call whose answer is older than one before, where the newest cannot be had.
fn suspect(
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
        ..error
    }
}

/// Tells a person that data is withheld, and when it no longer is.
fn log_doubt(fetch: Fetch, rows: usize, stored: &Stored) {
    let held = &stored.held.prepared;
    match stored.change {
        Change::Doubted(suspicion) => tracing::warn!(
            api = fetch.question.api().as_str(),
            customer.id = fetch.subject.customer().map(tracing::field::display),
            reason = suspicion.as_str(),
            upstream.rows = rows,
            held.rows = held.rows(),
            held.processed_date = held.processed_date().map(tracing::field::display),
            age_seconds = stored.held.age.as_secs(),
            "upstream's answer is doubted: what is held is served in its place"
        ),
        Change::Conceded => tracing::warn!(
            api = fetch.question.api().as_str(),
            customer.id = fetch.subject.customer().map(tracing::field::display),
            upstream.rows = rows,
            "upstream has told the same again, so the answer that was doubted is taken"
        ),
        Change::New | Change::Confirmed | Change::Replaced => {}
    }
}
