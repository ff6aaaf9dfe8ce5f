//! The access token that calls read.
//!
//! Calls read the current token without waiting. Only when there is no usable token do they wait, within
//! their own deadline, for the attempt that is running or that they start. A call that is dropped
//! cancels no attempt.

use std::{sync::Arc, time::Instant};

use tokio::sync::watch;

use super::{
    grant::TokenGrant,
    refresher::TokenRefresher,
    rejections,
    state::{
        AccessToken, RefreshDemand, RejectedToken, TokenError, TokenErrorReason, TokenFailure,
        TokenRenewal, TokenState, TokenStatus,
    },
};
use crate::{
    clock::{SharedClock, with_deadline},
    config::UpstreamConfig,
    http_client::HttpClient,
    partner_center::{deps::UpstreamDeps, metrics::UpstreamMetrics},
};

/// The held access token, for as many callers as there are; clones share it.
#[derive(Clone, Debug)]
pub(in crate::partner_center) struct AccessTokenSource {
    // A watch and not a lock: readers never wait for the keeper, which writes between awaits.
    state: watch::Receiver<TokenState>,
    wanted: Arc<watch::Sender<RefreshDemand>>,
    clock: SharedClock,
}

// === impl Tokens ===

impl AccessTokenSource {
    /// Starts the task that keeps a token, and begins to get the first one at once.
    ///
    /// # Errors
    ///
    /// When a metric of the same name is registered already; nothing is begun then.
    pub(in crate::partner_center) fn start(
        config: &UpstreamConfig,
        http: &HttpClient,
        metrics: &UpstreamMetrics,
        deps: &UpstreamDeps<'_>,
    ) -> Result<Self, prometheus::Error> {
        let grant = TokenGrant::from_config(config, http, deps.tracer.as_ref(), metrics);
        let (state, told) = watch::channel(TokenState::default());
        let (wants, wanted) = watch::channel(RefreshDemand::default());
        let keeper = TokenRefresher::new(grant, state, wanted, metrics.clone(), deps);
        let tokens = Self {
            state: told,
            wanted: Arc::new(wants),
            clock: deps.clock.clone(),
        };
        rejections::register(tokens.state.clone(), &tokens.wanted, deps.registry)?;
        // A redemption that is cut off may have rotated the refresh token all the same.
        deps.shutdown.spawn_until_done(keeper.run());
        Ok(tokens)
    }

    /// The held token, if it can be used; never waits.
    pub(in crate::partner_center) fn current(&self) -> Option<AccessToken> {
        let state = self.state.borrow();
        state.usable(self.clock.now()).cloned()
    }

    /// Waits until there is a token that can be used, or it is clear that there will be none soon.
    ///
    /// # Errors
    ///
    /// [`TokenError`] as soon as an attempt has failed, and at `deadline`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels no attempt.
    pub(in crate::partner_center) async fn ready(
        &self,
        deadline: Instant,
    ) -> Result<(), TokenError> {
        let now = self.clock.now();
        let looks = {
            let state = self.state.borrow();
            let looks = state.look_at.is_some_and(|at| at <= now);
            if state.usable(now).is_some() && !looks {
                return Ok(());
            }
            looks
        };
        let serial = self.request_refresh(None);
        self.wait(deadline, |state, now| {
            state.answered >= serial || (!looks && state.usable(now).is_some())
        })
        .await
        .and_then(|state| match state.usable(self.clock.now()) {
            Some(_) => Ok(()),
            None => Err(state.error(self.clock.now())),
        })
    }

    /// Gets another token than the one of `generation`, which Partner Center refused.
    ///
    /// # Errors
    ///
    /// [`TokenError`] as soon as the attempt has failed, and at `deadline`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels no attempt.
    pub(in crate::partner_center) async fn renew(
        &self,
        generation: u64,
        deadline: Instant,
    ) -> Result<TokenRenewal, TokenError> {
        let is_other = |state: &TokenState| {
            let token = state.token.as_ref();
            token.is_some_and(|token| token.generation > generation)
        };
        if is_other(&self.state.borrow()) {
            return Ok(TokenRenewal::Fresh);
        }
        let serial = self.request_refresh(Some(generation));
        let state = self
            .wait(deadline, |state, _| {
                state.answered >= serial || is_other(state)
            })
            .await?;
        if is_other(&state) {
            Ok(TokenRenewal::Fresh)
        } else if state.trouble.is_some() {
            Err(state.error(self.clock.now()))
        } else {
            Ok(TokenRenewal::Same)
        }
    }

    /// Takes note that Partner Center refuses a token though it is fresh.
    pub(in crate::partner_center) fn mark_rejected(&self, disowned: RejectedToken) {
        self.wanted.send_modify(|wanted| {
            wanted.serial += 1;
            wanted.disowned = Some(disowned);
        });
    }

    /// Takes note that Partner Center accepts the token after all, where that settles the refusal.
    pub(in crate::partner_center) fn record_accepted(
        &self,
        settles: impl FnOnce(&RejectedToken) -> bool,
    ) {
        self.wanted.send_if_modified(|wanted| {
            wanted.disowned = wanted.disowned.filter(|disowned| !settles(disowned));
            false
        });
    }

    /// The refusal of the current token; `None` while none is known.
    pub(in crate::partner_center) fn rejected(&self) -> Option<RejectedToken> {
        let state = self.state.borrow();
        let token = state.usable(self.clock.now())?;
        let disowned = self.wanted.borrow().disowned?;
        disowned.applies_to(token).then_some(disowned)
    }

    /// Completes once the current token is refused.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(in crate::partner_center) async fn until_rejected(&self) -> RejectedToken {
        let mut wanted = self.wanted.subscribe();
        loop {
            if let Some(disowned) = self.rejected() {
                return disowned;
            }
            // The sender is ours: waiting cannot fail.
            drop(wanted.changed().await);
        }
    }

    /// Whether calls can be made; never waits.
    pub(in crate::partner_center) fn status(&self) -> TokenStatus {
        if let Some(disowned) = self.rejected() {
            return TokenStatus::Refused {
                action: disowned.action.into(),
            };
        }
        let state = self.state.borrow();
        if state.usable(self.clock.now()).is_some() {
            return TokenStatus::Usable;
        }
        match &state.trouble {
            Some(TokenFailure {
                detail,
                retry_at: None,
            }) => TokenStatus::Refused {
                action: detail.clone(),
            },
            trouble => TokenStatus::Waiting {
                detail: trouble.as_ref().map(|trouble| trouble.detail.clone()),
            },
        }
    }

    /// What a person must do though the held token can still be used: the next one was refused.
    pub(in crate::partner_center) fn refresh_problem(&self) -> Option<Arc<str>> {
        let state = self.state.borrow();
        state.usable(self.clock.now())?;
        match &state.trouble {
            Some(TokenFailure {
                detail,
                retry_at: None,
            }) => Some(Arc::clone(detail)),
            _ => None,
        }
    }

    /// Tells the keeper that someone waits, and returns the number to wait for.
    fn request_refresh(&self, refused: Option<u64>) -> u64 {
        let mut serial = 0;
        self.wanted.send_modify(|wanted| {
            wanted.serial += 1;
            wanted.refused = wanted.refused.max(refused);
            serial = wanted.serial;
        });
        serial
    }

    async fn wait(
        &self,
        deadline: Instant,
        mut enough: impl FnMut(&TokenState, Instant) -> bool,
    ) -> Result<TokenState, TokenError> {
        let mut state = self.state.clone();
        let waited = state.wait_for(|state| enough(state, self.clock.now()));
        match with_deadline(&self.clock, deadline, waited).await {
            Some(Ok(state)) => Ok(state.clone()),
            Some(Err(_)) => Err(TokenError::new(
                TokenErrorReason::Interrupted,
                "the process is ending",
            )),
            None => Err(TokenError::new(
                TokenErrorReason::TimedOut,
                "none came before the call's time was up",
            )),
        }
    }
}

#[cfg(test)]
mod tests;
