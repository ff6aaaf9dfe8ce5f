//! Getting one page, whatever it takes: a turn, a token, the request, and more of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode};
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use super::{
    UpstreamDeps,
    call::LogicalCall,
    client::{Answer, HttpClient, before},
    error::{Meaning, UpstreamError},
    metrics::{Metrics, RetryReason, StatusClass},
    paging::PageRequest,
    refusal, request,
    throttle::{self, Throttle},
    token::{AccessToken, Renewal, Tokens},
    wire::Malformed,
};
use crate::{
    clock::SharedClock, config::UpstreamConfig, domain::UpstreamApi, jitter::Jitter,
    resilience::backoff::Backoff, usage::source::Refusal,
};

/// Pauses between the attempts of one call.
const BACKOFF: Backoff = match Backoff::new(Duration::from_millis(200), Duration::from_secs(10)) {
    Ok(backoff) => backoff,
    Err(_) => panic!("not a backoff"),
};

const IS_MFA_COMPLIANT: &str = "ismfacompliant";

/// Sends the requests of all calls, as many at once and as often as allowed.
#[derive(Debug)]
pub(super) struct Attempts {
    http: HttpClient,
    tokens: Tokens,
    /// Places for requests under way; none is held during a pause.
    places: Semaphore,
    insights: Throttle,
    commercial: Throttle,
    /// What every request says.
    headers: HeaderMap,
    /// The call that answers for the newest date.
    source: UpstreamApi,
    attempt_timeout: Duration,
    max_body: usize,
    clock: SharedClock,
    jitter: Jitter,
    metrics: Metrics,
}

// === impl Attempts ===

impl Attempts {
    /// `headers` are what every request says, from [`request::common_headers`].
    pub(super) fn new(
        config: &UpstreamConfig,
        headers: HeaderMap,
        http: HttpClient,
        tokens: Tokens,
        metrics: Metrics,
        deps: &UpstreamDeps<'_>,
    ) -> Self {
        Self {
            http,
            tokens,
            places: Semaphore::new(config.max_concurrency.get().min(Semaphore::MAX_PERMITS)),
            insights: Throttle::default(),
            commercial: Throttle::default(),
            headers,
            source: config.source,
            attempt_timeout: config.attempt_timeout,
            max_body: config.max_body,
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
    /// Dropping the future gives the place back and leaves nothing behind.
    pub(super) async fn get(
        &self,
        call: &mut LogicalCall,
        page: &PageRequest,
        request_id: Uuid,
    ) -> Result<Answer, UpstreamError> {
        loop {
            let (place, token) = self.admit(call).await?;
            let outcome = self.attempt(call, page, request_id, &token).await;
            drop(place);
            match outcome {
                Ok(answer) => return Ok(answer),
                Err(error) => self.prepare_next(call, error, &token).await?,
            }
        }
    }

    /// Most bytes that an answer may have.
    pub(super) fn max_body(&self) -> usize {
        self.max_body
    }

    /// What is wrong with an answer of more than that.
    pub(super) fn too_large(&self, what: &str) -> Malformed {
        let most = self.max_body;
        Malformed(format!(
            "{what}: expected at most {most} bytes (upstream.max_body)"
        ))
    }

    /// Waits for its turn: not throttled, with a token that can be used, and a place.
    async fn admit(
        &self,
        call: &LogicalCall,
    ) -> Result<(SemaphorePermit<'_>, AccessToken), UpstreamError> {
        loop {
            self.unthrottled(call).await?;
            self.tokens.ready(call.deadline).await?;
            let place = self.place(call).await?;
            // Both may have changed while this call waited for its place; what it waits for next,
            // it waits for without one.
            let now = self.clock.now();
            if now >= call.deadline {
                return Err(UpstreamError::DeadlinePassed);
            }
            if self.throttled_until(call).is_some() {
                continue;
            }
            if let Some(token) = self.tokens.current() {
                return Ok((place, token));
            }
        }
    }

    async fn unthrottled(&self, call: &LogicalCall) -> Result<(), UpstreamError> {
        // Looked at again after each pause: another call may have been throttled meanwhile.
        while let Some(until) = self.throttled_until(call) {
            if until >= call.deadline {
                return Err(UpstreamError::Throttled {
                    until,
                    refusal: None,
                });
            }
            self.clock.sleep_until(until).await;
        }
        Ok(())
    }

    fn throttled_until(&self, call: &LogicalCall) -> Option<Instant> {
        self.throttle(call.api())
            .until(call.customer(), self.clock.now())
    }

    #[expect(clippy::expect_used, reason = "nothing ever closes the semaphore")]
    async fn place(&self, call: &LogicalCall) -> Result<SemaphorePermit<'_>, UpstreamError> {
        let place = before(&self.clock, call.deadline, self.places.acquire())
            .await
            .map_err(|_| UpstreamError::DeadlinePassed)?;
        Ok(place.expect("the semaphore is open"))
    }

    /// Sends one request and judges its answer.
    async fn attempt(
        &self,
        call: &mut LogicalCall,
        page: &PageRequest,
        request_id: Uuid,
        token: &AccessToken,
    ) -> Result<Answer, UpstreamError> {
        let request = request::build(&self.headers, call, page, request_id, token)?;
        let sent_at = self.clock.now();
        let ends = call.deadline.min(sent_at + self.attempt_timeout);
        call.attempts += 1;
        let exchanged = self.http.exchange(request, self.max_body, ends).await;
        let took = self.clock.now().saturating_duration_since(sent_at);
        let answer = match exchanged {
            Ok(answer) => answer,
            Err(error) => {
                call.unanswered();
                self.metrics
                    .request_ended(call.api(), StatusClass::Error, None, took);
                return Err(error.into());
            }
        };
        call.answered(answer.status.as_u16(), &answer.headers);
        self.note_mfa(&answer.headers);
        let judged = self.judge(call, answer, token);
        let (class, code) = match &judged {
            Ok(answer) => (StatusClass::of(answer.status), None),
            Err(error) => error.status_and_code(),
        };
        self.metrics.request_ended(call.api(), class, code, took);
        judged
    }

    /// Tells answers from refusals.
    fn judge(
        &self,
        call: &LogicalCall,
        answer: Answer,
        token: &AccessToken,
    ) -> Result<Answer, UpstreamError> {
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            let refusal = refusal::read(&answer, token.bare());
            return Err(self.throttled(call, &answer, refusal));
        }
        self.throttle(call.api()).admitted(call.customer());
        if !answer.status.is_success() {
            return Err(UpstreamError::Refused {
                refusal: Arc::new(refusal::read(&answer, token.bare())),
                retry_after: throttle::retry_after(&answer.headers, self.clock.wall()),
            });
        }
        if answer.status != StatusCode::OK {
            let status = answer.status;
            return Err(Malformed(format!("status {status}: expected 200")).into());
        }
        if answer.truncated {
            return Err(self.too_large("the body").into());
        }
        self.tokens.accept();
        Ok(answer)
    }

    fn throttled(&self, call: &LogicalCall, answer: &Answer, refusal: Refusal) -> UpstreamError {
        let now = self.clock.now();
        let wall = self.clock.wall();
        let asked = throttle::retry_after(&answer.headers, wall).or_else(|| {
            let description = refusal.description.as_deref()?;
            throttle::retry_after_in(description)
        });
        let throttle = self.throttle(call.api());
        let (until, scope) = throttle.throttled(call.customer(), now, asked);
        tracing::debug!(
            api = call.api().as_str(),
            customer.id = %call.customer(),
            ?scope,
            pause_seconds = until.saturating_duration_since(now).as_secs_f64(),
            "upstream throttles"
        );
        if let Ok(until) = wall.checked_add(until.saturating_duration_since(now)) {
            self.metrics.throttled_until(until);
        }
        UpstreamError::Throttled {
            until,
            refusal: Some(Arc::new(refusal)),
        }
    }

    /// Gets ready for another attempt, pause included.
    ///
    /// # Errors
    ///
    /// `error` itself where another attempt would not help or not fit.
    async fn prepare_next(
        &self,
        call: &mut LogicalCall,
        error: UpstreamError,
        token: &AccessToken,
    ) -> Result<(), UpstreamError> {
        match error.meaning() {
            Some(Meaning::Unauthorized) if !call.renewed => {
                return self.renew(call, error, token).await;
            }
            Some(refused @ (Meaning::Unauthorized | Meaning::ProofMissing)) => {
                self.disown(call.api(), token, refused);
                return Err(error);
            }
            _ => {}
        }
        let Some(reason) = error.retry_reason().filter(|_| call.retries_left > 0) else {
            return Err(error);
        };
        let now = self.clock.now();
        let resume = if let UpstreamError::Throttled { until, .. } = error {
            until
        } else {
            let drawn = BACKOFF.pause(call.retries, self.jitter.fraction());
            now + drawn.max(error.retry_after())
        };
        if resume >= call.deadline {
            return Err(error);
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
        self.clock.sleep_until(resume).await;
        self.metrics.retried(reason);
        Ok(())
    }

    /// Gets another token in answer to a 401, once for each call.
    async fn renew(
        &self,
        call: &mut LogicalCall,
        error: UpstreamError,
        token: &AccessToken,
    ) -> Result<(), UpstreamError> {
        call.renewed = true;
        match self.tokens.renew(token.generation, call.deadline).await? {
            Renewal::Fresh => {
                self.metrics.retried(RetryReason::Unauthorized);
                Ok(())
            }
            Renewal::Same => {
                self.disown(call.api(), token, Meaning::Unauthorized);
                Err(error)
            }
        }
    }

    /// Has readiness say that the token is refused. Only the call that the service lives by counts:
    /// an App-only token is good for the commercial call though insights refuses it.
    fn disown(&self, api: UpstreamApi, token: &AccessToken, refused: Meaning) {
        if api == self.source || refused == Meaning::ProofMissing {
            self.tokens.disown(token.generation, refused.sentence());
        }
    }

    fn note_mfa(&self, headers: &HeaderMap) {
        let told = headers
            .get(IS_MFA_COMPLIANT)
            .and_then(|told| told.to_str().ok());
        match told.map(str::trim) {
            Some(told) if told.eq_ignore_ascii_case("true") => self.metrics.mfa_compliant(true),
            Some(told) if told.eq_ignore_ascii_case("false") => self.metrics.mfa_compliant(false),
            _ => {}
        }
    }

    fn throttle(&self, api: UpstreamApi) -> &Throttle {
        match api {
            UpstreamApi::Insights => &self.insights,
            UpstreamApi::Commercial => &self.commercial,
        }
    }
}

// === impl UpstreamError ===

impl UpstreamError {
    /// The labels of the request that ended so.
    fn status_and_code(&self) -> (StatusClass, Option<&str>) {
        let of = |refusal: &Refusal| {
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
