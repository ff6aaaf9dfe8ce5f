//! Usage, served from what is held or fetched from its source.
//!
//! [`UsageService::answer`] is the whole decision: serve what is held, serve it and refresh, or
//! ask upstream and fall back on what is held.

pub mod source;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use self::source::{Call, CallIds, CallTrace, Fetched, SourceError, SourceErrorKind, UsageSource};
use crate::{
    cache::{
        CacheResult, CacheStatus, Change, Failure, Failures, Forward, Freshness, Held, PurgeMode,
        PurgeScope, Role, SingleFlight, Ticket, UsageCache,
    },
    clock::SharedClock,
    config::CacheConfig,
    domain::{CustomerId, ProcessedDate, Question, UpstreamApi},
    representation::{Coding, Form, Prepared, RenderError},
    shutdown::Shutdown,
};

/// Answers for license usage; clones share everything.
#[derive(Clone, Debug)]
pub struct UsageService {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cache: UsageCache,
    source: Arc<dyn UsageSource>,
    /// What answers for the newest date of our own forms.
    newest_from: UpstreamApi,
    fetches: SingleFlight<Fetch, Outcome>,
    failures: Failures<Fetch, SourceError>,
    renderings: SingleFlight<Rendering, Result<(), Arc<RenderError>>>,
    negative_fresh_for: Duration,
    min_refresh_interval: Duration,
    clock: SharedClock,
}

/// What a caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Whose usage.
    pub customer_id: CustomerId,
    /// In which form; the native one is of the newest date only.
    pub form: Form,
    /// Of which date; the newest where absent.
    pub date: Option<ProcessedDate>,
    /// What the caller says of caching.
    pub directive: Directive,
}

/// A caller's `Cache-Control` (RFC 9111 §5.2.1), as far as it is honoured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Directive {
    /// None.
    #[default]
    Any,
    /// `no-cache`: ask upstream, though not more often than configured.
    NoCache,
    /// `only-if-cached`: never ask upstream.
    OnlyIfCached,
}

/// Usage, and how it came about.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Every form of it, with its age and lifetime.
    pub held: Held,
    /// For `Cache-Status`.
    pub status: CacheStatus,
    /// For metrics and logs.
    pub result: CacheResult,
    /// The upstream call's ids, on the answer that made the call and on no other.
    pub ids: Option<CallIds>,
}

/// Why there is no usage to hand out.
#[derive(Clone, Debug)]
pub struct Unanswered {
    /// What stands in the way.
    pub cause: Cause,
    /// For `Cache-Status`.
    pub status: CacheStatus,
    /// For metrics and logs.
    pub result: CacheResult,
    /// The upstream call's ids, on the answer that made the call and on no other.
    pub ids: Option<CallIds>,
}

/// What stands in the way of an answer.
#[derive(Clone, Debug)]
pub enum Cause {
    /// Nothing that may be served is held, and the caller wants no call made.
    NotHeld,
    /// The source failed, now or shortly before.
    Source {
        /// How and when.
        failure: Arc<Failure<SourceError>>,
        /// Until asking again may help.
        retry_after: Duration,
    },
}

/// One thing to fetch: what concurrent requests share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Fetch {
    customer_id: CustomerId,
    question: Question,
}

type Outcome = Result<Filled, Arc<Failure<SourceError>>>;

/// What a fetch brought.
#[derive(Clone, Debug)]
struct Filled {
    held: Held,
    stored: bool,
    ids: CallIds,
}

/// What was found between a request's look-up and its place in a flight.
enum Settled {
    Held(Held),
    Failed(Arc<Failure<SourceError>>),
}

/// One form and coding to make of one snapshot, known by its address: whoever renders it keeps it
/// alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rendering {
    prepared: usize,
    form: Form,
    coding: Coding,
}

/// What to do for a query, given what is held.
enum Decision {
    Serve(Held),
    ServeAndRefresh(Held),
    Ask { why: Forward, held: Option<Held> },
    Refuse,
}

// === impl UsageService ===

impl UsageService {
    /// A service over an empty cache.
    pub fn new(
        config: &CacheConfig,
        newest_from: UpstreamApi,
        cache: UsageCache,
        source: Arc<dyn UsageSource>,
        clock: SharedClock,
        shutdown: &Shutdown,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                cache,
                source,
                newest_from,
                fetches: SingleFlight::new(shutdown.clone()),
                failures: Failures::new(),
                renderings: SingleFlight::new(shutdown.clone()),
                negative_fresh_for: config.negative_fresh_for,
                min_refresh_interval: config.min_refresh_interval,
                clock,
            }),
        }
    }

    /// Answers a query that arrived at `now`.
    ///
    /// # Errors
    ///
    /// [`Unanswered`] when nothing may be served: it says what stands in the way.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels no upstream call: it goes on for whoever else wants it, and its
    /// answer is stored.
    pub async fn answer(
        &self,
        query: Query,
        trace: impl FnOnce() -> CallTrace,
        now: Instant,
    ) -> Result<Answer, Unanswered> {
        let fetch = self.fetch_for(query);
        let held = self.inner.look_up(fetch, now);
        let answered = match self.decide(fetch, held, query.directive, now) {
            Decision::Serve(held) => Ok(self.serve(held, query.directive)),
            Decision::ServeAndRefresh(held) => {
                self.refresh(fetch, now);
                Ok(self.serve_stale(held))
            }
            Decision::Ask { why, held } => self.ask(fetch, why, held, trace(), now).await,
            Decision::Refuse => Err(not_held()),
        };
        let result = match &answered {
            Ok(answer) => answer.result,
            Err(unanswered) => unanswered.result,
        };
        self.inner.cache.metrics().requested(result);
        answered
    }

    /// Makes a form and coding of an answer ready, once however many ask.
    ///
    /// # Errors
    ///
    /// When it could not be rendered, or the process is ending.
    pub async fn render(
        &self,
        prepared: &Arc<Prepared>,
        form: Form,
        coding: Coding,
    ) -> Result<(), Arc<RenderError>> {
        let rendering = Rendering {
            prepared: Arc::as_ptr(prepared).addr(),
            form,
            coding,
        };
        let ready = || prepared.ready(form, coding).is_some().then_some(());
        let boarding = self.inner.renderings.board(rendering, ready, |ticket| {
            let (inner, prepared) = (Arc::clone(&self.inner), Arc::clone(prepared));
            async move {
                let rendered = {
                    let prepared = Arc::clone(&prepared);
                    off_the_async_threads(move || prepared.render(form, coding).map(|_| ())).await
                };
                inner.cache.reweigh(&prepared);
                let _landed = ticket.land((), |()| ());
                rendered.map_err(Arc::new)
            }
        });
        match boarding {
            Ok(boarding) => boarding.outcome().await.unwrap_or(Ok(())),
            Err(()) => Ok(()),
        }
    }

    /// Marks stale or drops what is held; calls under way neither store what they bring nor are
    /// joined any more. Returns how many snapshots it found.
    pub fn purge(&self, scope: PurgeScope, mode: PurgeMode) -> usize {
        // A call for the newest date may bring any date.
        let covers = |fetch: &Fetch| match fetch.question {
            Question::Dated(date) => scope.covers(fetch.customer_id, Some(date)),
            Question::Newest(_) => scope
                .customer_id
                .is_none_or(|wanted| wanted == fetch.customer_id),
        };
        self.inner.fetches.detach(covers);
        self.inner.failures.forget_if(covers);
        self.inner.cache.purge(scope, mode)
    }

    /// What is held.
    pub fn cache(&self) -> &UsageCache {
        &self.inner.cache
    }

    fn fetch_for(&self, query: Query) -> Fetch {
        let question = match (query.date, query.form) {
            (Some(date), _) => Question::Dated(date),
            (None, Form::Native) => Question::Newest(UpstreamApi::Insights),
            (None, Form::Simplified | Form::Csv) => Question::Newest(self.inner.newest_from),
        };
        Fetch {
            customer_id: query.customer_id,
            question,
        }
    }

    fn decide(
        &self,
        fetch: Fetch,
        held: Option<Held>,
        directive: Directive,
        now: Instant,
    ) -> Decision {
        let Some(held) = held else {
            return match directive {
                Directive::OnlyIfCached => Decision::Refuse,
                Directive::Any | Directive::NoCache => Decision::Ask {
                    why: Forward::UriMiss,
                    held: None,
                },
            };
        };
        match (directive, held.freshness) {
            (Directive::NoCache, _) if self.inner.may_be_forced(fetch, &held, now) => {
                Decision::Ask {
                    why: Forward::Request,
                    held: Some(held),
                }
            }
            (_, Freshness::Fresh) | (Directive::OnlyIfCached, Freshness::StaleWhileRevalidate) => {
                Decision::Serve(held)
            }
            (_, Freshness::StaleWhileRevalidate) => Decision::ServeAndRefresh(held),
            (Directive::OnlyIfCached, Freshness::StaleIfError | Freshness::Expired) => {
                Decision::Refuse
            }
            (_, Freshness::StaleIfError | Freshness::Expired) => Decision::Ask {
                why: Forward::Stale,
                held: Some(held),
            },
        }
    }

    fn serve(&self, held: Held, directive: Directive) -> Answer {
        if held.freshness != Freshness::Fresh {
            return self.serve_stale(held);
        }
        let detail = (directive == Directive::NoCache).then_some("min-refresh-interval");
        Answer {
            status: CacheStatus {
                hit: true,
                ttl: Some(held.ttl),
                detail,
                ..CacheStatus::default()
            },
            result: CacheResult::Hit,
            ids: None,
            held,
        }
    }

    fn serve_stale(&self, held: Held) -> Answer {
        self.inner.cache.metrics().stale_while_revalidate.inc();
        Answer {
            status: CacheStatus {
                hit: true,
                ttl: Some(held.ttl),
                detail: Some("stale-while-revalidate"),
                ..CacheStatus::default()
            },
            result: CacheResult::Stale,
            ids: None,
            held,
        }
    }

    /// Refreshes behind the caller's back, unless that failed a moment ago.
    fn refresh(&self, fetch: Fetch, now: Instant) {
        if self.inner.failures.get(&fetch, now).is_none() {
            // Nobody waits for it: the task it runs in stores what it brings.
            drop(self.board(fetch, CallTrace::default(), now));
        }
    }

    async fn ask(
        &self,
        fetch: Fetch,
        why: Forward,
        held: Option<Held>,
        trace: CallTrace,
        now: Instant,
    ) -> Result<Answer, Unanswered> {
        if let Some(failure) = self.inner.failures.get(&fetch, now) {
            return self.remembered(&failure, held, now);
        }
        let (outcome, role) = match self.board(fetch, trace, now) {
            Ok(boarding) => {
                let role = boarding.role;
                if role == Role::Follower {
                    self.inner.cache.metrics().collapsed.inc();
                }
                let outcome = boarding.outcome().await;
                (
                    outcome.unwrap_or_else(|_lost| Err(Arc::new(interrupted(now)))),
                    role,
                )
            }
            Err(Settled::Held(held)) => return Ok(collapsed(held, why)),
            Err(Settled::Failed(failure)) => (Err(failure), Role::Follower),
        };
        let forwarded = CacheStatus {
            forward: Some(why),
            collapsed: role == Role::Follower,
            ..CacheStatus::default()
        };
        match outcome {
            Ok(filled) => Ok(answered(filled, forwarded, role)),
            Err(failure) => self.fall_back(&failure, held, forwarded, role),
        }
    }

    /// Joins or begins the fetch, unless its answer arrived since `now`.
    fn board(
        &self,
        fetch: Fetch,
        trace: CallTrace,
        now: Instant,
    ) -> Result<crate::cache::Boarding<Outcome>, Settled> {
        let settled = || {
            let arrived = |held: &Held| held.stored_at > now && held.freshness == Freshness::Fresh;
            let inner = &self.inner;
            inner
                .look_up(fetch, inner.clock.now())
                .filter(arrived)
                .map(Settled::Held)
                .or_else(|| inner.failures.since(&fetch, now).map(Settled::Failed))
        };
        self.inner.fetches.board(fetch, settled, |ticket| {
            Arc::clone(&self.inner).fill(fetch, trace, ticket)
        })
    }

    /// Answers from a failure that is remembered, without asking upstream.
    fn remembered(
        &self,
        failure: &Arc<Failure<SourceError>>,
        held: Option<Held>,
        now: Instant,
    ) -> Result<Answer, Unanswered> {
        if let Some(held) = held.filter(|held| may_stand_in(held, &failure.error)) {
            let status = CacheStatus {
                hit: true,
                ..CacheStatus::default()
            };
            return Ok(self.stale_if_error(held, status));
        }
        let retry_after = failure.until.saturating_duration_since(now);
        Err(Unanswered {
            cause: Cause::Source {
                failure: Arc::clone(failure),
                retry_after,
            },
            status: CacheStatus {
                hit: true,
                ttl: Some(i64::try_from(retry_after.as_secs()).unwrap_or(i64::MAX)),
                detail: Some(failure.error.kind.as_str()),
                ..CacheStatus::default()
            },
            result: CacheResult::Negative,
            ids: None,
        })
    }

    fn fall_back(
        &self,
        failure: &Arc<Failure<SourceError>>,
        held: Option<Held>,
        forwarded: CacheStatus,
        role: Role,
    ) -> Result<Answer, Unanswered> {
        let error = &failure.error;
        let ids = error.ids.filter(|_| role == Role::Leader);
        let forwarded = CacheStatus {
            forward_status: error.refusal.as_ref().map(|refusal| refusal.status),
            ..forwarded
        };
        if let Some(held) = held.filter(|held| may_stand_in(held, error)) {
            return Ok(Answer {
                ids,
                ..self.stale_if_error(held, forwarded)
            });
        }
        Err(Unanswered {
            cause: Cause::Source {
                failure: Arc::clone(failure),
                retry_after: failure
                    .until
                    .saturating_duration_since(self.inner.clock.now()),
            },
            result: result_of(forwarded.forward),
            status: CacheStatus {
                detail: Some(error.kind.as_str()),
                ..forwarded
            },
            ids,
        })
    }

    fn stale_if_error(&self, held: Held, status: CacheStatus) -> Answer {
        self.inner.cache.metrics().stale_if_error.inc();
        Answer {
            status: CacheStatus {
                ttl: Some(held.ttl),
                detail: Some("stale-if-error"),
                ..status
            },
            result: CacheResult::Stale,
            ids: None,
            held,
        }
    }
}

// === impl Inner ===

impl Inner {
    /// Rendering this many rows takes less time than handing them to another thread.
    const ROWS_AT_ONCE: usize = 100;

    fn look_up(&self, fetch: Fetch, now: Instant) -> Option<Held> {
        self.cache
            .look_up(fetch.customer_id, fetch.question, self.newest_from, now)
    }

    /// Whether a caller's `no-cache` is honoured: upstream was not asked too lately, be it in vain.
    fn may_be_forced(&self, fetch: Fetch, held: &Held, now: Instant) -> bool {
        let interval = self.min_refresh_interval;
        let failed_lately = || {
            self.failures
                .get_last(&fetch)
                .is_some_and(|failure| now < failure.failed_at + interval)
        };
        held.age >= interval && !failed_lately()
    }

    /// Asks the source and stores what it says. Runs in a task of its own.
    async fn fill(
        self: Arc<Self>,
        fetch: Fetch,
        trace: CallTrace,
        ticket: Ticket<Fetch, Outcome>,
    ) -> Outcome {
        let _in_flight = InFlight::enter(&self.cache.metrics().fills_in_flight);
        let call = Call {
            customer_id: fetch.customer_id,
            question: fetch.question,
            trace,
        };
        let prepared = match self.source.fetch(call).await {
            Ok(fetched) => {
                let ids = fetched.ids;
                self.prepare(fetched).await.map(|prepared| (prepared, ids))
            }
            Err(error) => Err(error),
        };
        match prepared {
            Ok((prepared, ids)) => Ok(self.keep(fetch, prepared, ids, ticket)),
            Err(error) => Err(self.remember(fetch, error, ticket)),
        }
    }

    async fn prepare(&self, fetched: Fetched) -> Result<Prepared, SourceError> {
        let seen_at = self.clock.wall();
        let ids = fetched.ids;
        let rows = fetched.snapshot.rows().len();
        let render = move || Prepared::new(&fetched.snapshot, fetched.native.as_deref(), seen_at);
        let rendered = if rows > Self::ROWS_AT_ONCE {
            off_the_async_threads(render).await
        } else {
            render()
        };
        rendered.map_err(|error| SourceError {
            kind: SourceErrorKind::Malformed,
            detail: error.to_string().into(),
            refusal: None,
            ids: Some(ids),
        })
    }

    fn keep(
        &self,
        fetch: Fetch,
        prepared: Prepared,
        ids: CallIds,
        ticket: Ticket<Fetch, Outcome>,
    ) -> Filled {
        let now = self.clock.now();
        let stored = ticket.land(prepared, |prepared| {
            self.failures.forget(&fetch);
            self.cache.store(fetch.question, prepared, now)
        });
        match stored {
            Ok(stored) => {
                if stored.change == Change::WentBackwards {
                    tracing::warn!(
                        customer.id = %fetch.customer_id,
                        held = ?stored.held.prepared.processed_date(),
                        "upstream answered with an older processed date than before; the newer is kept"
                    );
                }
                Filled {
                    held: stored.held,
                    stored: stored.stored,
                    ids,
                }
            }
            // A purge overtook the call: its answer serves who waited, and nobody after.
            Err(prepared) => Filled {
                held: self.cache.pass_through(prepared, now),
                stored: false,
                ids,
            },
        }
    }

    fn remember(
        &self,
        fetch: Fetch,
        error: SourceError,
        ticket: Ticket<Fetch, Outcome>,
    ) -> Arc<Failure<SourceError>> {
        let now = self.clock.now();
        let kind = error.kind;
        let remembered = ticket.land(error, |error| {
            if let Question::Newest(api) = fetch.question
                && kind.is_authoritative()
            {
                self.cache.forget_newest(fetch.customer_id, api);
            }
            self.failures
                .remember(fetch, error, now, |streak| self.remember_for(kind, streak))
        });
        remembered
            .unwrap_or_else(|error| Arc::new(Failure::once(error, now, self.remember_for(kind, 1))))
    }

    /// How long a failure answers for its fetch.
    ///
    /// What the upstream settled lasts as configured, a throttle as long as it said. A fault is
    /// remembered for a second at first, so that a recovery is noticed at once, and for longer the
    /// more often it has come in a row, so that an outage costs few calls.
    fn remember_for(&self, kind: SourceErrorKind, streak: u32) -> Duration {
        const FIRST: Duration = Duration::from_secs(1);
        let backoff = FIRST
            .saturating_mul(2_u32.saturating_pow(streak.saturating_sub(1)))
            .min(self.min_refresh_interval);
        match kind {
            SourceErrorKind::UnknownCustomer
            | SourceErrorKind::NoRelationship
            | SourceErrorKind::NothingProcessed => self.negative_fresh_for,
            SourceErrorKind::Throttled { retry_after } => retry_after,
            SourceErrorKind::Unavailable {
                retry_after: Some(retry_after),
            } => retry_after.max(backoff),
            SourceErrorKind::Unavailable { retry_after: None }
            | SourceErrorKind::TimedOut
            | SourceErrorKind::CredentialsRefused
            | SourceErrorKind::Rejected
            | SourceErrorKind::Malformed => backoff,
            SourceErrorKind::Interrupted => Duration::ZERO,
        }
    }
}

fn may_stand_in(held: &Held, error: &SourceError) -> bool {
    held.freshness != Freshness::Expired && !error.kind.is_authoritative()
}

fn answered(filled: Filled, forwarded: CacheStatus, role: Role) -> Answer {
    Answer {
        status: CacheStatus {
            forward_status: Some(200),
            stored: filled.stored,
            ttl: Some(filled.held.ttl),
            ..forwarded
        },
        result: result_of(forwarded.forward),
        ids: (role == Role::Leader).then_some(filled.ids),
        held: filled.held,
    }
}

/// The answer to another request's call, which arrived before this request could wait for it.
fn collapsed(held: Held, why: Forward) -> Answer {
    Answer {
        status: CacheStatus {
            forward: Some(why),
            collapsed: true,
            ttl: Some(held.ttl),
            ..CacheStatus::default()
        },
        result: result_of(Some(why)),
        ids: None,
        held,
    }
}

fn result_of(forward: Option<Forward>) -> CacheResult {
    match forward {
        Some(Forward::Request) => CacheResult::Bypass,
        Some(Forward::UriMiss | Forward::Stale) | None => CacheResult::Miss,
    }
}

fn not_held() -> Unanswered {
    Unanswered {
        cause: Cause::NotHeld,
        status: CacheStatus {
            detail: Some("only-if-cached"),
            ..CacheStatus::default()
        },
        result: CacheResult::Miss,
        ids: None,
    }
}

fn interrupted(now: Instant) -> Failure<SourceError> {
    let error = SourceError {
        kind: SourceErrorKind::Interrupted,
        detail: "the call to Partner Center ended without an answer".into(),
        refusal: None,
        ids: None,
    };
    Failure::once(error, now, Duration::ZERO)
}

/// Runs CPU-bound work where it holds up nobody's I/O. A panic in it goes on here.
async fn off_the_async_threads<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending, and this task with it.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}

/// Counts one more for as long as it lives.
struct InFlight<'a>(&'a prometheus::IntGauge);

// === impl InFlight ===

impl<'a> InFlight<'a> {
    fn enter(gauge: &'a prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests;
