//! Getting one page, whatever it takes: a turn, a token, the request, and more of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode};
use uuid::Uuid;

use super::{
    call::LogicalCall,
    deps::UpstreamDeps,
    error::{RefusalMeaning, UpstreamError},
    limits::{FailingScope, UpstreamLimits},
    metrics::{RetryReason, StatusClass, UpstreamMetrics},
    multi_factor::MultiFactorStatus,
    paging::PageRequest,
    refusal, request, spans, throttle,
    token::{AccessToken, AccessTokenSource, RejectedToken, TokenRenewal},
    wire::MalformedResponse,
};
use crate::{
    clock::SharedClock,
    config::UpstreamConfig,
    domain::UpstreamApi,
    http_client::{ExchangeError, HttpClient, HttpReply},
    jitter::Jitter,
    observability::traces,
    resilience::{
        backoff::Backoff,
        circuit_breaker::CircuitPermit,
        memory_pool::{MemoryLimitError, MemoryPool, MemoryShare},
    },
    service::source::UpstreamErrorBody,
};

/// A pause that Partner Center asks for is waited for up to this; where it is longer, the call fails
/// at once and says until when. A call holds a caller's place while it lasts, so calls for one
/// customer that is silenced would otherwise keep all others from being asked for.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Pauses between the attempts of one call.
const BACKOFF: Backoff = match Backoff::new(Duration::from_millis(200), Duration::from_secs(10)) {
    Ok(backoff) => backoff,
    Err(_) => panic!("not a backoff"),
};

/// Bytes of answers that each call may keep, whatever others do; beyond that, all calls together may
/// keep `upstream.max_body`. Most answers have far less.
const FREE_BYTES: usize = 1024 * 1024;

/// Sends the requests of all calls, as many at once and as often as allowed.
#[derive(Debug)]
pub(super) struct AttemptRunner {
    http: HttpClient,
    tokens: AccessTokenSource,
    limits: Arc<UpstreamLimits>,
    /// What every request says.
    headers: HeaderMap,
    /// The call that answers for the newest date.
    source: UpstreamApi,
    attempt_timeout: Duration,
    /// What the bodies of all calls take.
    memory: Arc<MemoryPool>,
    max_body: usize,
    multi_factor: MultiFactorStatus,
    clock: SharedClock,
    jitter: Jitter,
    metrics: UpstreamMetrics,
}

/// Leave to send one request.
struct AttemptPermit<'a> {
    token: AccessToken,
    permit: CircuitPermit<'a, FailingScope>,
}

/// What comes after an attempt that failed.
enum NextAttempt {
    Retry,
    GiveUp,
}

// === impl AttemptRunner ===

impl AttemptRunner {
    /// `headers` are what every request says, from [`request::common_headers`].
    pub(super) fn new(
        config: &UpstreamConfig,
        headers: HeaderMap,
        http: HttpClient,
        tokens: AccessTokenSource,
        restraint: Arc<UpstreamLimits>,
        metrics: UpstreamMetrics,
        deps: &UpstreamDeps<'_>,
    ) -> Self {
        Self {
            http,
            tokens,
            limits: restraint,
            headers,
            source: config.source,
            attempt_timeout: config.attempt_timeout,
            memory: MemoryPool::new(FREE_BYTES.min(config.max_body), config.max_body),
            max_body: config.max_body,
            multi_factor: MultiFactorStatus::new(metrics.clone()),
            clock: deps.clock.clone(),
            jitter: deps.jitter,
            metrics,
        }
    }

    /// Gets one page, and answers only with 200.
    ///
    /// `request_id` stays the same over the attempts.
    ///
    /// # Errors
    ///
    /// The [`UpstreamError`] of the last attempt, once another would not help or not fit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub(super) async fn get(
        &self,
        call: &mut LogicalCall,
        page: &PageRequest,
        request_id: Uuid,
    ) -> Result<HttpReply, UpstreamError> {
        let mut failed = None;
        call.resends = 0;
        let used = call.memory.used();
        loop {
            // What an earlier attempt had read of its answer is gone.
            call.memory.shrink_to(used);
            let turn = match self.acquire(call).await {
                Ok(turn) => turn,
                // What this call has met says more than that others have met the same.
                Err(open @ UpstreamError::CircuitOpen { .. }) => {
                    return Err(failed.unwrap_or(open));
                }
                Err(error) => return Err(error),
            };
            if failed.is_none() {
                self.limits.first_attempt();
            }
            let AttemptPermit { token, permit } = turn;
            let attempt = self.attempt(call, page, request_id, &token, permit);
            let error = match attempt.await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            match self.next(call, &error, &token).await? {
                NextAttempt::Retry => {
                    call.resends += 1;
                    failed = Some(error);
                }
                NextAttempt::GiveUp => return Err(error),
            }
        }
    }

    /// What Partner Center has said of the access token's multi-factor proof.
    pub(super) fn multi_factor(&self) -> &MultiFactorStatus {
        &self.multi_factor
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// What the bodies of one more call take.
    pub(super) fn memory(&self) -> MemoryShare {
        self.memory.new_share()
    }

    /// Takes memory for what a call has read of one page and keeps while it reads the next.
    ///
    /// # Errors
    ///
    /// [`UpstreamError`] where there is none left.
    pub(super) fn reserve_memory<T>(
        &self,
        call: &mut LogicalCall,
        kept: usize,
    ) -> Result<(), UpstreamError> {
        let bytes = kept.saturating_mul(size_of::<T>());
        call.memory
            .acquire(bytes)
            .map_err(|refusal| self.memory_error(refusal))
    }

    /// What an answer comes to that there is no memory for.
    fn memory_error(&self, refusal: MemoryLimitError) -> UpstreamError {
        let most = self.max_body;
        match refusal {
            MemoryLimitError::ShareFull => MalformedResponse(format!(
                "all pages together: expected at most {most} bytes (upstream.max_body)"
            ))
            .into(),
            MemoryLimitError::PoolFull => UpstreamError::OutOfMemory,
        }
    }

    /// Waits until the circuit is not open, the call is not throttled, and there is a usable token.
    async fn acquire(&self, call: &LogicalCall) -> Result<AttemptPermit<'_>, UpstreamError> {
        loop {
            self.limits.check_circuit(call)?;
            self.wait_while_throttled(call).await?;
            self.tokens.ready(call.deadline).await?;
            // The throttle may have changed while this call waited for its token.
            if self.clock.now() >= call.deadline {
                return Err(UpstreamError::DeadlinePassed);
            }
            if self.limits.throttled_until(call).is_some() {
                continue;
            }
            if let Some(token) = self.tokens.current() {
                let permit = self.limits.enter_circuit(call)?;
                return Ok(AttemptPermit { token, permit });
            }
        }
    }

    async fn wait_while_throttled(&self, call: &LogicalCall) -> Result<(), UpstreamError> {
        // Looked at again after each pause: another call may have been throttled meanwhile.
        while let Some(until) = self.limits.throttled_until(call) {
            if until >= call.deadline || until > self.clock.now() + LONGEST_PAUSE {
                return Err(UpstreamError::Throttled {
                    until,
                    refusal: None,
                });
            }
            self.clock.sleep_until(until).await;
        }
        Ok(())
    }

    /// Sends one request and judges its answer.
    async fn attempt(
        &self,
        call: &mut LogicalCall,
        page: &PageRequest,
        request_id: Uuid,
        token: &AccessToken,
        permit: CircuitPermit<'_, FailingScope>,
    ) -> Result<HttpReply, UpstreamError> {
        let span = spans::begin_attempt(call, page, request_id);
        let mut request = request::build(&self.headers, call, page, request_id, token)?;
        if let Some(span) = &span {
            traces::inject(span.context(), request.headers_mut());
        }
        let judged = self
            .exchange(call, request, request_id, token, permit)
            .await;
        if let Some(span) = &span {
            spans::end_attempt(span, call.last_status(), judged.as_ref().err());
        }
        judged
    }

    async fn exchange(
        &self,
        call: &mut LogicalCall,
        request: reqwest::Request,
        request_id: Uuid,
        token: &AccessToken,
        permit: CircuitPermit<'_, FailingScope>,
    ) -> Result<HttpReply, UpstreamError> {
        let sent_at = self.clock.now();
        let ends = call.deadline.min(sent_at + self.attempt_timeout);
        call.record_request(request_id, self.clock.wall_time());
        let exchanged = self.http.exchange(request, &mut call.memory, ends).await;
        self.limits
            .record_outcome(permit, call, is_reachable(&exchanged));
        let took = self.clock.now().saturating_duration_since(sent_at);
        let answer = match exchanged {
            Ok(answer) => answer,
            Err(error) => {
                self.metrics
                    .request_ended(call.api(), StatusClass::Error, None, took);
                return Err(error.into());
            }
        };
        call.record_reply(answer.status.as_u16(), &answer.headers);
        self.multi_factor.observe(&answer.headers);
        let judged = self.check_reply(call, answer, token);
        let (class, code) = match &judged {
            Ok(answer) => (StatusClass::of(answer.status), None),
            Err(error) => error.status_and_code(),
        };
        self.metrics.request_ended(call.api(), class, code, took);
        judged
    }

    /// Tells answers from refusals.
    fn check_reply(
        &self,
        call: &LogicalCall,
        answer: HttpReply,
        token: &AccessToken,
    ) -> Result<HttpReply, UpstreamError> {
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            let refusal = refusal::parse_refusal(&answer, token.token_text());
            return Err(self.record_throttle(call, &answer, refusal));
        }
        self.limits.record_not_throttled(call);
        if !answer.status.is_success() {
            let refusal = refusal::parse_refusal(&answer, token.token_text());
            if RefusalMeaning::of(&refusal).is_about_customer() {
                self.accept(call.api());
            }
            return Err(UpstreamError::Refused {
                refusal: Arc::new(refusal),
                retry_after: throttle::retry_after(&answer.headers, self.clock.wall_time()),
            });
        }
        if answer.status != StatusCode::OK {
            let status = answer.status;
            return Err(MalformedResponse(format!("status {status}: expected 200")).into());
        }
        if let Some(refusal) = answer.unread {
            return Err(self.memory_error(refusal));
        }
        self.accept(call.api());
        Ok(answer)
    }

    fn record_throttle(
        &self,
        call: &LogicalCall,
        answer: &HttpReply,
        refusal: UpstreamErrorBody,
    ) -> UpstreamError {
        let now = self.clock.now();
        let wall = self.clock.wall_time();
        let asked = throttle::retry_after(&answer.headers, wall).or_else(|| {
            let description = refusal.description.as_deref()?;
            throttle::retry_after_in(description)
        });
        let until = self.limits.record_throttle(call, asked);
        if let Ok(until) = wall.checked_add(until.saturating_duration_since(now)) {
            self.metrics.throttled_until(until);
        }
        UpstreamError::Throttled {
            until,
            refusal: Some(Arc::new(refusal)),
        }
    }

    /// Gets ready for another attempt, pause included, or gives up: where another would not help,
    /// does not fit the deadline, is asked to wait for long, or is more than all calls together may make.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::Token`] where a token that was refused has no successor, and
    /// [`UpstreamError::TokenReplaced`] where it has one that this call may not try.
    async fn next(
        &self,
        call: &mut LogicalCall,
        error: &UpstreamError,
        token: &AccessToken,
    ) -> Result<NextAttempt, UpstreamError> {
        match error.meaning() {
            Some(RefusalMeaning::Unauthorized) if !call.renewed => {
                return self.renew(call, token).await;
            }
            Some(refused) if refused.is_about_credentials() => {
                self.disown(call, token, refused);
                return Ok(NextAttempt::GiveUp);
            }
            _ => {}
        }
        let Some(reason) = error.retry_reason().filter(|_| call.retries_left > 0) else {
            return Ok(NextAttempt::GiveUp);
        };
        let now = self.clock.now();
        let (resume, asked) = if let UpstreamError::Throttled { until, .. } = error {
            (*until, until.saturating_duration_since(now))
        } else {
            let drawn = BACKOFF.delay(call.retries, self.jitter.fraction());
            let asked = error.retry_after();
            (now + drawn.max(asked), asked)
        };
        if resume >= call.deadline
            || asked > LONGEST_PAUSE
            || self.limits.check_circuit(call).is_err()
            || !self.limits.may_retry()
        {
            return Ok(NextAttempt::GiveUp);
        }
        call.retries_left -= 1;
        call.retries += 1;
        tracing::debug!(
            api = call.api().as_str(),
            %error,
            pause_seconds = (resume - now).as_secs_f64(),
            attempts = call.attempts,
            "upstream is asked again after a pause"
        );
        spans::record_pause(call, error, resume - now);
        self.clock.sleep_until(resume).await;
        self.metrics.retried(reason);
        Ok(NextAttempt::Retry)
    }

    /// Gets another token in answer to a 401, once for each call. Asking with it is a retry like
    /// any other, or tokens refused one and all would double the load.
    async fn renew(
        &self,
        call: &mut LogicalCall,
        token: &AccessToken,
    ) -> Result<NextAttempt, UpstreamError> {
        call.renewed = true;
        match self.tokens.renew(token.generation, call.deadline).await? {
            TokenRenewal::Fresh if self.limits.may_retry() => {
                self.metrics.retried(RetryReason::Unauthorized);
                Ok(NextAttempt::Retry)
            }
            // No person need act: the next call has the new token.
            TokenRenewal::Fresh => Err(UpstreamError::TokenReplaced),
            TokenRenewal::Same => {
                self.disown(call, token, RefusalMeaning::Unauthorized);
                Ok(NextAttempt::GiveUp)
            }
        }
    }

    /// Has readiness say that the token is refused. Only the call that the service depends on counts,
    /// unless the refusal is about the token itself: one call may be denied to us while another works.
    fn disown(&self, call: &LogicalCall, token: &AccessToken, refused: RefusalMeaning) {
        if refused == RefusalMeaning::ProofMissing {
            self.multi_factor.is_refused();
        }
        let of_any_call = matches!(
            refused,
            RefusalMeaning::ProofMissing | RefusalMeaning::WrongAudience
        );
        if call.api() == self.source || of_any_call {
            self.tokens.mark_rejected(RejectedToken {
                generation: token.generation,
                action: refused.sentence(),
                resource: call.call.resource,
                may_need_renewal: matches!(refused, RefusalMeaning::AccessDenied(_)),
            });
        }
    }

    /// Takes note that a call was let through to its data.
    fn accept(&self, api: UpstreamApi) {
        self.tokens
            .record_accepted(|disowned| api == self.source || api == disowned.resource.api());
        self.multi_factor.is_accepted();
    }
}

/// Whether Partner Center is there, whatever it thinks of the request: a 4xx is an answer too, and
/// a 429 has a gate of its own.
fn is_reachable(exchanged: &Result<HttpReply, ExchangeError>) -> bool {
    match exchanged {
        Ok(answer) => {
            !answer.status.is_server_error() && answer.status != StatusCode::REQUEST_TIMEOUT
        }
        Err(ExchangeError::TimedOut | ExchangeError::Connection(_)) => false,
        Err(ExchangeError::Undecodable(_)) => true,
    }
}

// === impl UpstreamError ===

impl UpstreamError {
    /// The labels of the request that ended so.
    pub(super) fn status_and_code(&self) -> (StatusClass, Option<&str>) {
        let of = |refusal: &UpstreamErrorBody| {
            StatusCode::from_u16(refusal.status).map_or(StatusClass::Error, StatusClass::of)
        };
        match self {
            Self::Refused { refusal, .. } => (of(refusal), refusal.code.as_deref()),
            Self::Throttled { refusal, .. } => (
                StatusClass::Client,
                refusal.as_ref().and_then(|refusal| refusal.code.as_deref()),
            ),
            // A success that is of no use.
            _ => (StatusClass::Success, None),
        }
    }
}

#[cfg(test)]
mod tests;
