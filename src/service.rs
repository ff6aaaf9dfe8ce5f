//! Usage, the list of customers and what else Partner Center tells of licenses, served from what is held or fetched from their source.
//!
//! [`UsageService::answer`] is the whole decision: serve what is held, serve it and refresh, or
//! ask upstream and fall back on what is held.

mod answer;
mod counted;
mod customers;
mod dated_calls;
mod documents;
mod fetches;
mod places;
mod renderings;
pub mod source;
mod spans;

use std::{
    future::Future,
    num::NonZeroUsize,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::{
    answer::{Answer, Cause, Unanswered},
    documents::NativeDocument,
};
use self::{
    fetches::{Fetch, Fetches, Filled, Outcome, Settled},
    places::Errand,
    renderings::Renderings,
    source::{CallTrace, SourceError, UsageSource},
};
use crate::{
    cache::{
        CacheStatus, Failure, Forward, Freshness, Held, PurgeMode, PurgeScope, Role, UsageCache,
    },
    clock::SharedClock,
    config::CacheConfig,
    domain::{Caller, CustomerId, ProcessedDate, Question, Scope, UpstreamApi},
    observability::traces::Span,
    render::{Coding, Form, Prepared, RenderError},
    shutdown::Shutdown,
};

/// Answers for license usage; clones share everything.
#[derive(Clone, Debug)]
pub struct UsageService {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cache: Arc<UsageCache>,
    fetches: Arc<Fetches>,
    renderings: Renderings,
    /// What answers for the newest date of our own forms.
    newest_from: UpstreamApi,
    soft_timeout: Duration,
    clock: SharedClock,
}

/// How much may be asked of the source at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Calls under way. A caller that is told apart from others has half of them at most.
    pub max_concurrency: NonZeroUsize,
    /// From when a call is asked for until its answer is of no use any more.
    pub deadline: Duration,
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

/// What to do for a query, given what is held.
enum Decision {
    Serve(Held),
    ServeAndRefresh(Held),
    Ask { why: Forward, held: Option<Held> },
    Refuse,
}

/// A request that has to ask upstream.
#[derive(Clone, Copy)]
struct Asking<'a> {
    fetch: Fetch,
    directive: Directive,
    why: Forward,
    caller: &'a Caller,
    now: Instant,
}

// === impl UsageService ===

impl UsageService {
    /// A service over an empty cache.
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
        let fetches = Fetches::new(
            config,
            limits,
            Arc::clone(&cache),
            source,
            Arc::clone(&clock),
            shutdown.clone(),
        );
        Self {
            inner: Arc::new(Inner {
                fetches: Arc::new(fetches),
                renderings: Renderings::new(Arc::clone(&cache), shutdown.clone()),
                cache,
                newest_from,
                soft_timeout: config.soft_timeout,
                clock,
            }),
        }
    }

    /// Answers a query that arrived at `now`.
    ///
    /// What the caller may not read is refused before anything is looked at. Its `no-cache` is
    /// ignored, and `Cache-Status` says so, where it may not have upstream asked.
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
        caller: &Caller,
        trace: impl FnOnce() -> CallTrace,
        now: Instant,
    ) -> Result<Answer, Unanswered> {
        if !caller.may_read(query.customer_id) {
            return Err(Unanswered::not_allowed());
        }
        let fetch = self.fetch_for(query);
        let answer = self
            .answer_allowed(fetch, query.directive, caller, trace, now)
            .await?;
        if query.form == Form::Native && !answer.held.prepared.has_native() {
            return Err(Unanswered::without_native(answer, now));
        }
        if !answer.held.prepared.lacks_name() {
            return Ok(answer);
        }
        let renderings = &self.inner.renderings;
        let seen_at = self.inner.clock.wall();
        let held = renderings
            .named(answer.held, query.customer_id, seen_at, now)
            .await;
        Ok(Answer { held, ..answer })
    }

    /// The newest processed date of a customer's usage, where it is held and not expired.
    pub fn newest_date(&self, customer_id: CustomerId, now: Instant) -> Option<ProcessedDate> {
        let fetch = Fetch {
            subject: customer_id.into(),
            question: Question::Newest(self.inner.newest_from),
        };
        let held = self.inner.fetches.look_up(fetch, now)?;
        let is_known = matches!(
            held.freshness,
            Freshness::Fresh | Freshness::StaleWhileRevalidate
        );
        held.prepared.processed_date().filter(|_| is_known)
    }

    /// Whether Partner Center answered lately that it has nothing of a customer on a date.
    pub fn is_known_absent(
        &self,
        customer_id: CustomerId,
        date: ProcessedDate,
        now: Instant,
    ) -> bool {
        let fetch = Fetch {
            subject: customer_id.into(),
            question: Question::Dated(date),
        };
        let failure = self.inner.fetches.remembered(fetch, now);
        failure.is_some_and(|failure| failure.error.kind.is_authoritative())
    }

    /// Answers a caller who may have what it asks for.
    async fn answer_allowed(
        &self,
        fetch: Fetch,
        directive: Directive,
        caller: &Caller,
        trace: impl FnOnce() -> CallTrace,
        now: Instant,
    ) -> Result<Answer, Unanswered> {
        let ignored = directive == Directive::NoCache && !caller.holds(Scope::CacheRefresh);
        let directive = if ignored { Directive::Any } else { directive };
        let held = self.inner.fetches.look_up(fetch, now);
        let answered = match self.decide(fetch, held, directive, now) {
            Decision::Serve(held) => Ok(self.serve(held, directive)),
            Decision::ServeAndRefresh(held) => {
                let span = trace().span;
                spans::tell_decision(span.as_deref(), "serve-and-refresh", Forward::Stale);
                self.refresh(fetch, caller, span, now);
                Ok(self.serve_stale(held))
            }
            Decision::Ask { why, held } => {
                let asking = Asking {
                    fetch,
                    directive,
                    why,
                    caller,
                    now,
                };
                let trace = trace();
                spans::tell_decision(trace.span.as_deref(), "ask", why);
                // Boxed, so that a hit does without its place.
                Box::pin(self.ask(asking, held, trace)).await
            }
            Decision::Refuse => Err(Unanswered::not_held()),
        };
        let result = match &answered {
            Ok(answer) => Some(answer.result),
            Err(unanswered) => unanswered.result,
        };
        if let Some(result) = result {
            self.inner.cache.metrics().requested(result);
        }
        if ignored {
            return answered
                .map(Answer::without_refresh)
                .map_err(Unanswered::without_refresh);
        }
        answered
    }

    /// Makes a form and coding of an answer ready, once however many ask.
    ///
    /// # Errors
    ///
    /// When it could not be rendered.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the wait, and never the rendering.
    pub async fn render(
        &self,
        prepared: &Arc<Prepared>,
        form: Form,
        coding: Coding,
    ) -> Result<(), Arc<RenderError>> {
        self.inner.renderings.render(prepared, form, coding).await
    }

    /// Marks stale or drops what is held; calls under way neither store what they bring nor are
    /// joined any more. Returns how many snapshots it found.
    pub fn purge(&self, scope: PurgeScope, mode: PurgeMode) -> usize {
        self.inner.fetches.purge(scope);
        self.inner.cache.purge(scope, mode)
    }

    /// What is held.
    pub fn cache(&self) -> &UsageCache {
        &self.inner.cache
    }

    /// Sets the gauges that are read from what is held and remembered; to be called before a scrape.
    pub fn update_gauges(&self) {
        self.inner.cache.update_gauges();
        self.inner.fetches.update_gauges();
    }

    fn fetch_for(&self, query: Query) -> Fetch {
        let question = match (query.date, query.form) {
            (Some(date), _) => Question::Dated(date),
            (None, Form::Native) => Question::Newest(UpstreamApi::Insights),
            (None, Form::Simplified | Form::Csv | Form::Table | Form::Chart(_)) => {
                Question::Newest(self.inner.newest_from)
            }
        };
        Fetch {
            subject: query.customer_id.into(),
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
            (Directive::NoCache, _) if self.inner.fetches.may_be_forced(fetch, &held, now) => {
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
        Answer::hit(held, detail)
    }

    fn serve_stale(&self, held: Held) -> Answer {
        self.inner.cache.metrics().stale_while_revalidate.inc();
        Answer::stale_while_revalidate(held)
    }

    /// Refreshes behind the caller's back, unless that failed a moment ago or too many calls wait.
    fn refresh(&self, fetch: Fetch, caller: &Caller, span: Option<Arc<Span>>, now: Instant) {
        let fetches = &self.inner.fetches;
        if fetches.remembered(fetch, now).is_none() {
            // Nobody waits for it: the task it runs in stores what it brings.
            let trace = CallTrace {
                span,
                ..CallTrace::default()
            };
            drop(fetches.board(fetch, caller, Errand::Refresh, trace, now));
        }
    }

    async fn ask(
        &self,
        asking: Asking<'_>,
        held: Option<Held>,
        trace: CallTrace,
    ) -> Result<Answer, Unanswered> {
        let Asking {
            fetch,
            directive,
            why,
            caller,
            now,
        } = asking;
        let fetches = &self.inner.fetches;
        if let Some(failure) = fetches.remembered(fetch, now) {
            let asks_again =
                directive == Directive::NoCache && fetches.may_ask_again(fetch, &failure, now);
            if !asks_again {
                return self.answer_without_asking(failure, held, now, Unanswered::remembered);
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
        let boarding = match fetches.board(fetch, caller, Errand::Answer, trace, now) {
            Ok(boarding) => boarding,
            Err(Settled::Held(held)) => return Ok(Answer::fetched(held, joined)),
            Err(Settled::Failed(failure)) => return self.fall_back(fetch, failure, joined),
            Err(Settled::Shed(failure)) => {
                return self.answer_without_asking(failure, held, now, Unanswered::shed);
            }
        };
        let role = boarding.role;
        if role == Role::Follower {
            self.inner.cache.metrics().collapsed.inc();
            spans::link_to_call(span.as_deref(), &boarding.shared);
        }
        let outcome = fetches.outcome(boarding, caller, now);
        let outcome = match self.or_stale(fetch, held.as_ref(), outcome, now).await {
            Ok(outcome) => outcome,
            Err(stale) => {
                self.inner.cache.metrics().soft_timeout.inc();
                let status = match role {
                    Role::Leader => forwarded,
                    Role::Follower => joined,
                };
                return Ok(Answer::soft_timeout(stale, status));
            }
        };
        match (outcome, role) {
            (Ok(filled), Role::Leader) => {
                let ids = filled.ids;
                Ok(Answer {
                    ids,
                    ..answered(filled, forwarded)
                })
            }
            (Ok(filled), Role::Follower) => Ok(answered(filled, joined)),
            (Err(failure), Role::Leader) => {
                let ids = failure.error.ids;
                self.fall_back(fetch, failure, forwarded)
                    .map(|answer| Answer { ids, ..answer })
                    .map_err(|unanswered| Unanswered { ids, ..unanswered })
            }
            (Err(failure), Role::Follower) => self.fall_back(fetch, failure, joined),
        }
    }

    /// Waits for an outcome, and where stale data may be served, no longer than the soft timeout.
    ///
    /// # Errors
    ///
    /// The stale data to serve; the call goes on.
    async fn or_stale(
        &self,
        fetch: Fetch,
        held: Option<&Held>,
        outcome: impl Future<Output = Outcome>,
        now: Instant,
    ) -> Result<Outcome, Held> {
        let is_stale = |held: &Held| held.freshness == Freshness::StaleIfError;
        let mut outcome = pin!(outcome);
        if held.is_some_and(is_stale) {
            let clock = &self.inner.clock;
            tokio::select! {
                biased;
                outcome = &mut outcome => return Ok(outcome),
                () = clock.sleep_until(now + self.inner.soft_timeout) => {}
            }
            // It has aged meanwhile, and may have been purged.
            let held = self.inner.fetches.look_up(fetch, clock.now());
            if let Some(held) = held.filter(is_stale) {
                return Err(held);
            }
        }
        Ok(outcome.await)
    }

    /// Answers although upstream is not asked, because of a failure: by what is held, where that may
    /// stand in.
    fn answer_without_asking(
        &self,
        failure: Arc<Failure<SourceError>>,
        held: Option<Held>,
        now: Instant,
        otherwise: fn(Arc<Failure<SourceError>>, Duration) -> Unanswered,
    ) -> Result<Answer, Unanswered> {
        if let Some(held) = held.filter(|held| may_stand_in(held, &failure.error)) {
            let status = CacheStatus {
                hit: true,
                ..CacheStatus::default()
            };
            return Ok(self.stand_in(held, &failure.error, status));
        }
        let retry_after = failure.until.saturating_duration_since(now);
        Err(otherwise(failure, retry_after))
    }

    /// Answers after upstream was asked in vain, by what is held by now: while this request waited,
    /// it has aged, and may have been purged.
    fn fall_back(
        &self,
        fetch: Fetch,
        failure: Arc<Failure<SourceError>>,
        forwarded: CacheStatus,
    ) -> Result<Answer, Unanswered> {
        let now = self.inner.clock.now();
        let held = self.inner.fetches.look_up(fetch, now);
        let status = CacheStatus {
            forward_status: failure.error.status,
            ..forwarded
        };
        if let Some(held) = held.filter(|held| may_stand_in(held, &failure.error)) {
            return Ok(self.stand_in(held, &failure.error, status));
        }
        let retry_after = failure.until.saturating_duration_since(now);
        Err(Unanswered::failed(failure, retry_after, status))
    }

    fn stand_in(&self, held: Held, error: &SourceError, status: CacheStatus) -> Answer {
        if held.freshness == Freshness::Fresh {
            // The caller had upstream asked in vain; what is held needs no excuse.
            let detail = Some(error.kind.as_str());
            return if status.hit {
                Answer::hit(held, detail)
            } else {
                Answer::fetched(held, CacheStatus { detail, ..status })
            };
        }
        self.inner.cache.metrics().stale_if_error.inc();
        Answer::stale_if_error(held, status)
    }
}

/// Whether what is held may be served in place of this failure.
fn may_stand_in(held: &Held, error: &SourceError) -> bool {
    held.freshness != Freshness::Expired && !error.kind.is_authoritative()
}

fn answered(filled: Filled, forwarded: CacheStatus) -> Answer {
    let status = CacheStatus {
        forward_status: filled.forward_status,
        stored: filled.stored,
        ..forwarded
    };
    Answer::fetched(filled.held, status)
}

#[cfg(test)]
mod tests;
