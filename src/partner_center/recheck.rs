//! Finding out without a caller that refused credentials are accepted again.
//!
//! A replica that has nothing cached and whose access token is refused is not ready, so it gets no
//! traffic that could show that a person has acted.

use std::time::Duration;

use super::{PartnerCenter, token::RejectedToken};
use crate::{
    resilience::backoff::Backoff,
    service::source::{CallTrace, SourceCall},
};

/// Pauses between checks; never less than [`SHORTEST_PAUSE`].
const BACKOFF: Backoff = match Backoff::new(Duration::from_secs(5), Duration::from_secs(5 * 60)) {
    Ok(backoff) => backoff,
    Err(_) => panic!("not a backoff"),
};
const SHORTEST_PAUSE: Duration = Duration::from_secs(5);

// === impl PartnerCenter ===

impl PartnerCenter {
    /// Repeats the call that was refused, with backoff, for as long as Partner Center refuses the
    /// access token and `is_needed` says so. Never completes.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons a check under way and leaves nothing behind.
    pub async fn recheck_refused_token(&self, is_needed: impl Fn() -> bool) {
        loop {
            self.tokens.until_rejected().await;
            let mut checks = 0_u32;
            while let Some(disowned) = self.tokens.rejected() {
                let pause = BACKOFF.delay(checks, self.jitter.fraction());
                let pause = pause.max(SHORTEST_PAUSE);
                self.clock.sleep_until(self.clock.now() + pause).await;
                if is_needed() {
                    checks = checks.saturating_add(1);
                    self.recheck_once(disowned).await;
                }
            }
        }
    }

    /// The call itself takes note of how it ended.
    async fn recheck_once(&self, disowned: RejectedToken) {
        let asked_at = self.clock.now();
        if disowned.may_need_renewal {
            let deadline = asked_at + self.deadline;
            drop(self.tokens.renew(disowned.generation, deadline).await);
        }
        let call = SourceCall {
            subject: disowned.subject,
            question: disowned.question,
            trace: CallTrace::default(),
            requested_at: asked_at,
        };
        drop(self.call(call).await);
    }
}
