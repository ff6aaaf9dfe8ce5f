//! Gets one page, in as many attempts as that takes and the limits allow.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode};
use uuid::Uuid;

use super::{
    call::LogicalCall,
    deps::UpstreamDeps,
    error::UpstreamError,
    health::MultiFactorStatus,
    limits::{FailingScope, UpstreamLimits},
    metrics::{ErrorClass, RetryReason, StatusClass, UpstreamMetrics},
    paging::PageRequest,
    refusal::{RefusalMeaning, parse_refusal},
    request, spans, throttle,
    token::{AccessToken, AccessTokenSource, RejectedToken, TokenRenewal},
    wire::MalformedResponse,
};
use crate::{
    clock::SharedClock,
    config::UpstreamConfig,
    domain::{Resource, UpstreamApi},
    http_client::{ExchangeError, HttpClient, HttpReply},
    jitter::Jitter,
    observability::traces,
    resilience::{
        backoff::Backoff,
        byte_budget::{MemoryLimitError, MemoryPool, MemoryShare},
        circuit_breaker::CircuitPermit,
    },
    service::source::UpstreamErrorBody,
};

/// The longest pause that a call waits for. Where Partner Center asks for a longer one, the call fails at
/// once: it occupies a permit, so calls for one throttled customer would stop those for others.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// The pauses between the attempts of one call.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

/// The bytes of answers that each call may keep. Beyond that, all calls together may keep
/// `upstream.max_body`. Most answers have far less.
const RESERVED_BYTES: usize = 1024 * 1024;

/// Sends the requests of all calls, as often as allowed.
#[derive(Debug)]
pub(super) struct AttemptRunner {
    http: HttpClient,
    tokens: AccessTokenSource,
    limits: UpstreamLimits,
    /// The headers of every request.
    headers: HeaderMap,
    /// The call for the newest date.
    source: UpstreamApi,
    attempt_timeout: Duration,
    /// The memory for the bodies of all calls.
    memory: Arc<MemoryPool>,
    max_body: usize,
    multi_factor: MultiFactorStatus,
    clock: SharedClock,
    jitter: Jitter,
    metrics: UpstreamMetrics,
}

/// Permits one request.
struct AttemptPermit<'a> {
    token: AccessToken,
    circuit: CircuitPermit<'a, FailingScope>,
}

/// The reaction to a failed attempt.
enum NextAttempt {
    Retry,
    GiveUp,
}

// === impl AttemptRunner ===

impl AttemptRunner {
    /// The limits of all calls.
    pub(super) fn limits(&self) -> &UpstreamLimits {
        &self.limits
    }

    /// `headers` are from [`request::common_headers`].
    pub(super) fn new(
        config: &UpstreamConfig,
        headers: HeaderMap,
        http: HttpClient,
        tokens: AccessTokenSource,
        metrics: UpstreamMetrics,
        deps: &UpstreamDeps<'_>,
    ) -> Self {
        Self {
            http,
            tokens,
            limits: UpstreamLimits::new(deps.clock.clone()),
            headers,
            source: config.source,
            attempt_timeout: config.attempt_timeout,
            memory: MemoryPool::new(RESERVED_BYTES.min(config.max_body), config.max_body),
            max_body: config.max_body,
            multi_factor: MultiFactorStatus::new(metrics.clone()),
            clock: deps.clock.clone(),
            jitter: deps.jitter,
            metrics,
        }
    }

    /// Gets one page. The reply is a 200, and `request_id` is that of all attempts.
    ///
    /// # Errors
    ///
    /// The [`UpstreamError`] of the last attempt, when another would not help or is not allowed.
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
            // Frees the memory of an earlier attempt.
            call.memory.shrink_to(used);
            let permit = match self.acquire(call).await {
                Ok(permit) => permit,
                // The call's own error says more than that other calls failed.
                Err(open @ UpstreamError::CircuitOpen { .. }) => {
                    return Err(failed.unwrap_or(open));
                }
                Err(error) => return Err(error),
            };
            if failed.is_none() {
                self.limits.record_first_attempt();
            }
            let token = permit.token.clone();
            let error = match self.attempt(call, page, request_id, permit).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            match self.prepare_next(call, &error, &token).await? {
                NextAttempt::Retry => {
                    call.resends += 1;
                    failed = Some(error);
                }
                NextAttempt::GiveUp => return Err(error),
            }
        }
    }

    /// The multi-factor proof of the access token.
    pub(super) fn multi_factor(&self) -> &MultiFactorStatus {
        &self.multi_factor
    }

    /// Sets the gauges of the limits. Call it before a scrape.
    pub(super) fn update_gauges(&self) {
        self.limits.update_gauges(&self.metrics);
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Returns the memory for the bodies of one more call.
    pub(super) fn memory(&self) -> MemoryShare {
        self.memory.new_share()
    }

    /// Reserves memory for the rows that a call keeps while it reads the next page.
    ///
    /// # Errors
    ///
    /// [`UpstreamError`] if there is none left.
    pub(super) fn reserve_memory<T>(
        &self,
        call: &mut LogicalCall,
        rows: usize,
    ) -> Result<(), UpstreamError> {
        let acquired = call.memory.acquire(rows.saturating_mul(size_of::<T>()));
        acquired.map_err(|error| self.memory_error(error))
    }

    fn memory_error(&self, error: MemoryLimitError) -> UpstreamError {
        match error {
            MemoryLimitError::ShareFull => MalformedResponse::new(format!(
                "all pages together: expected at most {} bytes (upstream.max_body)",
                self.max_body
            ))
            .into(),
            MemoryLimitError::PoolFull => UpstreamError::OutOfMemory,
        }
    }

    /// Waits until the circuit passes the call, it is not throttled, and there is a usable token.
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
                let circuit = self.limits.enter_circuit(call)?;
                return Ok(AttemptPermit { token, circuit });
            }
        }
    }

    async fn wait_while_throttled(&self, call: &LogicalCall) -> Result<(), UpstreamError> {
        // Another call may have been throttled during the pause.
        while let Some(until) = self.limits.throttled_until(call) {
            if until >= call.deadline || until > self.clock.now() + MAX_PAUSE {
                return Err(UpstreamError::Throttled {
                    until,
                    refusal: None,
                });
            }
            self.clock.sleep_until(until).await;
        }
        Ok(())
    }

    /// Sends one request and checks the reply.
    async fn attempt(
        &self,
        call: &mut LogicalCall,
        page: &PageRequest,
        request_id: Uuid,
        permit: AttemptPermit<'_>,
    ) -> Result<HttpReply, UpstreamError> {
        let span = spans::begin_attempt(call, page, request_id);
        let mut request = request::build(&self.headers, call, page, request_id, &permit.token)?;
        if let Some(span) = &span {
            traces::inject(span.context(), request.headers_mut());
        }
        call.record_request(request_id, self.clock.wall_time());
        let reply = self.exchange(call, request, permit).await;
        if let Some(span) = &span {
            spans::end_attempt(span, call.last_status(), reply.as_ref().err());
        }
        reply
    }

    async fn exchange(
        &self,
        call: &mut LogicalCall,
        request: reqwest::Request,
        AttemptPermit { token, circuit }: AttemptPermit<'_>,
    ) -> Result<HttpReply, UpstreamError> {
        let sent_at = self.clock.now();
        let deadline = call.deadline.min(sent_at + self.attempt_timeout);
        let exchanged = self
            .http
            .exchange(request, &mut call.memory, deadline)
            .await;
        self.limits
            .record_outcome(circuit, call, is_reachable(&exchanged));
        let took = self.clock.now().saturating_duration_since(sent_at);
        let reply = exchanged.inspect_err(|_| {
            self.metrics
                .record_request(call.api(), StatusClass::Error, None, took);
        })?;
        call.record_reply(reply.status.as_u16(), &reply.headers);
        self.multi_factor.observe(&reply.headers);
        let checked = self.check_reply(call, reply, &token);
        let (class, code) = match &checked {
            Ok(_) => (StatusClass::Success, None),
            Err(error) => error.status_and_code(),
        };
        self.metrics.record_request(call.api(), class, code, took);
        checked
    }

    /// Returns the reply if it is a 200 with its whole body.
    fn check_reply(
        &self,
        call: &LogicalCall,
        reply: HttpReply,
        token: &AccessToken,
    ) -> Result<HttpReply, UpstreamError> {
        if reply.status == StatusCode::TOO_MANY_REQUESTS {
            let refusal = parse_refusal(&reply, token.token_text());
            return Err(self.record_throttle(call, &reply.headers, refusal));
        }
        self.limits.record_not_throttled(call);
        if !reply.status.is_success() {
            let refusal = parse_refusal(&reply, token.token_text());
            if RefusalMeaning::of(&refusal).is_about_customer() {
                self.accept(call.api());
            }
            return Err(UpstreamError::Refused {
                refusal: Arc::new(refusal),
                retry_after: throttle::retry_after(&reply.headers, self.clock.wall_time()),
            });
        }
        if reply.status != StatusCode::OK {
            let detail = format!("status {}: expected 200", reply.status);
            return Err(MalformedResponse::new(detail).into());
        }
        if let Some(error) = reply.unread {
            return Err(self.memory_error(error));
        }
        self.accept(call.api());
        Ok(reply)
    }

    fn record_throttle(
        &self,
        call: &LogicalCall,
        headers: &HeaderMap,
        refusal: UpstreamErrorBody,
    ) -> UpstreamError {
        let (now, wall) = (self.clock.now(), self.clock.wall_time());
        let asked = throttle::retry_after(headers, wall).or_else(|| {
            let description = refusal.description.as_deref()?;
            throttle::retry_after_in(description)
        });
        let until = self.limits.record_throttle(call, asked);
        if let Ok(until) = wall.checked_add(until.saturating_duration_since(now)) {
            self.metrics.record_throttle(until);
        }
        UpstreamError::Throttled {
            until,
            refusal: Some(Arc::new(refusal)),
        }
    }

    /// Prepares another attempt, pause included. Gives up where another would not help, does not fit the
    /// deadline, would wait for long, or is more than all calls together may make.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::Token`] if there is no other token than a rejected one, and
    /// [`UpstreamError::TokenReplaced`] if there is one that this call may not try.
    async fn prepare_next(
        &self,
        call: &mut LogicalCall,
        error: &UpstreamError,
        token: &AccessToken,
    ) -> Result<NextAttempt, UpstreamError> {
        match error.meaning() {
            Some(meaning) if meaning.class == ErrorClass::Unauthorized && !call.renewed => {
                return self.renew_token(call, token, meaning).await;
            }
            Some(meaning) if meaning.is_about_credentials() => {
                self.mark_rejected(call, token, meaning);
                return Ok(NextAttempt::GiveUp);
            }
            _ => {}
        }
        let Some(reason) = error.retry_reason().filter(|_| call.retries_left > 0) else {
            return Ok(NextAttempt::GiveUp);
        };
        let now = self.clock.now();
        let backoff = BACKOFF.delay(call.retries, self.jitter.fraction());
        let (resume_at, asked) = match error {
            UpstreamError::Throttled { until, .. } => {
                (*until, until.saturating_duration_since(now))
            }
            UpstreamError::Refused {
                retry_after: Some(asked),
                ..
            } => (now + backoff.max(*asked), *asked),
            _ => (now + backoff, Duration::ZERO),
        };
        if resume_at >= call.deadline
            || asked > MAX_PAUSE
            || self.limits.check_circuit(call).is_err()
            || !self.limits.acquire_retry()
        {
            return Ok(NextAttempt::GiveUp);
        }
        call.retries_left -= 1;
        call.retries += 1;
        tracing::debug!(
            api = call.api().as_str(),
            %error,
            pause_seconds = (resume_at - now).as_secs_f64(),
            attempts = call.attempts,
            "Partner Center is asked again after a pause"
        );
        spans::record_pause(call, error, resume_at - now);
        self.clock.sleep_until(resume_at).await;
        self.metrics.record_retry(reason);
        Ok(NextAttempt::Retry)
    }

    /// Gets another token after a 401, once for each call. The attempt with it is a retry like any other:
    /// otherwise an outage in which all tokens are rejected would double the load.
    async fn renew_token(
        &self,
        call: &mut LogicalCall,
        token: &AccessToken,
        meaning: RefusalMeaning,
    ) -> Result<NextAttempt, UpstreamError> {
        call.renewed = true;
        match self.tokens.renew(token.generation, call.deadline).await? {
            TokenRenewal::Fresh if self.limits.acquire_retry() => {
                self.metrics.record_retry(RetryReason::Unauthorized);
                Ok(NextAttempt::Retry)
            }
            // The next call uses the new token.
            TokenRenewal::Fresh => Err(UpstreamError::TokenReplaced),
            TokenRenewal::Same => {
                self.mark_rejected(call, token, meaning);
                Ok(NextAttempt::GiveUp)
            }
        }
    }

    /// Marks the token as rejected, for readiness. Only the call that the service depends on counts,
    /// unless the refusal is about the token itself: one call may be denied to us while another works.
    fn mark_rejected(&self, call: &LogicalCall, token: &AccessToken, meaning: RefusalMeaning) {
        let class = meaning.class;
        if class == ErrorClass::ProofMissing {
            self.multi_factor.record_rejection();
        }
        let is_about_token = matches!(class, ErrorClass::ProofMissing | ErrorClass::WrongAudience);
        if call.api() == self.source || is_about_token {
            self.tokens.mark_rejected(RejectedToken {
                generation: token.generation,
                action: meaning.advice,
                resource: match call.call.resource {
                    // It is repeated as a check, so the cheaper call will do.
                    Resource::FleetUsage(_) => Resource::FleetDate,
                    resource => resource,
                },
                may_need_renewal: class == ErrorClass::AccessDenied,
            });
        }
    }

    /// Records that Partner Center accepted our credentials for a call.
    fn accept(&self, api: UpstreamApi) {
        self.tokens
            .record_accepted(|rejected| api == self.source || api == rejected.resource.api());
        self.multi_factor.record_success();
    }
}

/// Returns whether Partner Center works, whatever it says about the request: a 4xx is a reply too.
fn is_reachable(exchanged: &Result<HttpReply, ExchangeError>) -> bool {
    match exchanged {
        Ok(reply) => !reply.status.is_server_error() && reply.status != StatusCode::REQUEST_TIMEOUT,
        Err(ExchangeError::TimedOut | ExchangeError::Connection(_)) => false,
        Err(ExchangeError::Undecodable(_)) => true,
    }
}
