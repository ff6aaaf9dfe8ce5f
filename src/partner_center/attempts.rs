//! Getting one page, whatever it takes: a turn, a token, the request, and more of them.

mod retries;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode};
use uuid::Uuid;

use self::retries::NextAttempt;
use super::{
    call::LogicalCall,
    client::{ExchangeError, HttpExchange, UpstreamReply},
    deps::UpstreamDeps,
    error::{RefusalMeaning, UpstreamError},
    limits::{FailingScope, UpstreamLimits},
    metrics::{StatusClass, UpstreamMetrics},
    multi_factor::MultiFactorStatus,
    paging::PageRequest,
    refusal, request, spans, throttle,
    token::{AccessToken, AccessTokenSource},
    wire::MalformedResponse,
};
use crate::{
    clock::SharedClock,
    config::UpstreamConfig,
    domain::UpstreamApi,
    jitter::Jitter,
    observability::traces,
    resilience::{
        circuit_breaker::CircuitPermit,
        memory_pool::{MemoryLimitError, MemoryPool, MemoryShare},
    },
    service::source::UpstreamErrorBody,
};

/// A pause that Partner Center asks for is waited for up to this; where it is longer, the call fails
/// at once and says until when. A call holds a caller's place while it lasts, so calls for one
/// customer that is silenced would otherwise keep all others from being asked for.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Bytes of answers that each call may keep, whatever others do; beyond that, all calls together may
/// keep `upstream.max_body`. Most answers have far less.
const FREE_BYTES: usize = 1024 * 1024;

/// Sends the requests of all calls, as many at once and as often as allowed.
#[derive(Debug)]
pub(super) struct AttemptRunner {
    http: Arc<dyn HttpExchange>,
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

// === impl Attempts ===

impl AttemptRunner {
    /// `headers` are what every request says, from [`request::common_headers`].
    pub(super) fn new(
        config: &UpstreamConfig,
        headers: HeaderMap,
        http: Arc<dyn HttpExchange>,
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
    ) -> Result<UpstreamReply, UpstreamError> {
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
    ) -> Result<UpstreamReply, UpstreamError> {
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
    ) -> Result<UpstreamReply, UpstreamError> {
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
        answer: UpstreamReply,
        token: &AccessToken,
    ) -> Result<UpstreamReply, UpstreamError> {
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
        answer: &UpstreamReply,
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
}

/// Whether Partner Center is there, whatever it thinks of the request: a 4xx is an answer too, and
/// a 429 has a gate of its own.
fn is_reachable(exchanged: &Result<UpstreamReply, ExchangeError>) -> bool {
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
