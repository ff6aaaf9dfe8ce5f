//! Whether there is another attempt after one that failed, and when.

use std::time::Duration;

use super::{AttemptRunner, LONGEST_PAUSE};
use crate::{
    domain::UpstreamApi,
    partner_center::{
        call::LogicalCall,
        error::{RefusalMeaning, UpstreamError},
        metrics::RetryReason,
        spans,
        token::{AccessToken, RejectedToken, TokenRenewal},
    },
    resilience::backoff::Backoff,
};

/// Pauses between the attempts of one call.
const BACKOFF: Backoff = match Backoff::new(Duration::from_millis(200), Duration::from_secs(10)) {
    Ok(backoff) => backoff,
    Err(_) => panic!("not a backoff"),
};

/// What comes after an attempt that failed.
pub(super) enum NextAttempt {
    Retry,
    GiveUp,
}

// === impl Attempts ===

impl AttemptRunner {
    /// Gets ready for another attempt, pause included, or gives up: where another would not help,
    /// does not fit the deadline, is asked to wait for long, or is more than all calls together may make.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::Token`] where a token that was refused has no successor, and
    /// [`UpstreamError::TokenReplaced`] where it has one that this call may not try.
    pub(super) async fn next(
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
    pub(super) fn accept(&self, api: UpstreamApi) {
        self.tokens
            .record_accepted(|disowned| api == self.source || api == disowned.resource.api());
        self.multi_factor.is_accepted();
    }
}
