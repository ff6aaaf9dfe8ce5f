//! The access token, as calls read it.
//!
//! Calls read the current token without waiting. Only if there is no usable token do they wait, within
//! their own deadline, for the attempt in progress or one that they demand. A call that is dropped
//! cancels no attempt.

use std::{sync::Arc, time::Instant};

use tokio::sync::watch;

use super::{
    grant::TokenGrant,
    refresher::TokenRefresher,
    state::{
        AccessToken, RefreshDemand, RejectedToken, TokenError, TokenErrorReason, TokenRenewal,
        TokenState, TokenStatus,
    },
};
use crate::{
    clock::{SharedClock, with_deadline},
    config::UpstreamConfig,
    http_client::HttpClient,
    partner_center::{deps::UpstreamDeps, metrics::UpstreamMetrics},
};

/// The current access token; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct AccessTokenSource {
    // A watch and not a lock: readers never wait for the refresher, which writes between awaits.
    state: watch::Receiver<TokenState>,
    demand: Arc<watch::Sender<RefreshDemand>>,
    clock: SharedClock,
    metrics: UpstreamMetrics,
}

// === impl AccessTokenSource ===

impl AccessTokenSource {
    /// Starts the task that keeps a token fresh. It gets the first one at once.
    pub(crate) fn start(
        config: &UpstreamConfig,
        http: &HttpClient,
        metrics: &UpstreamMetrics,
        deps: &UpstreamDeps<'_>,
    ) -> Self {
        let shared = deps.tokens.clone();
        let grant = TokenGrant::from_config(config, http, deps.tracer.as_ref(), metrics, shared);
        let (publisher, state) = watch::channel(TokenState::default());
        let (demand, demanded) = watch::channel(RefreshDemand::default());
        let refresher = TokenRefresher::new(grant, publisher, demanded, metrics.clone(), deps);
        // A redemption that is cut off may have rotated the refresh token all the same.
        deps.shutdown.spawn_until_done(refresher.run());
        Self {
            state,
            demand: Arc::new(demand),
            clock: deps.clock.clone(),
            metrics: metrics.clone(),
        }
    }

    /// The current token, if it is usable.
    pub(crate) fn current(&self) -> Option<AccessToken> {
        let state = self.state.borrow();
        state.usable(self.clock.now()).cloned()
    }

    /// Waits until there is a usable token, or an attempt has failed.
    ///
    /// # Errors
    ///
    /// [`TokenError`] as soon as an attempt has failed, and at `deadline`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels no attempt.
    pub(crate) async fn ready(&self, deadline: Instant) -> Result<(), TokenError> {
        let now = self.clock.now();
        let must_read_file = {
            let state = self.state.borrow();
            let must_read_file = state.read_file_at.is_some_and(|at| at <= now);
            if state.usable(now).is_some() && !must_read_file {
                return Ok(());
            }
            must_read_file
        };
        let serial = self.request_refresh(None);
        let state = self
            .wait(deadline, |state, now| {
                state.considered >= serial || (!must_read_file && state.usable(now).is_some())
            })
            .await?;
        let now = self.clock.now();
        match state.usable(now) {
            Some(_) => Ok(()),
            None => Err(state.error(now)),
        }
    }

    /// Gets another token than that of `generation`, which Partner Center refused.
    ///
    /// # Errors
    ///
    /// [`TokenError`] as soon as the attempt has failed, and at `deadline`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels no attempt.
    pub(crate) async fn renew(
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
                state.considered >= serial || is_other(state)
            })
            .await?;
        if is_other(&state) {
            Ok(TokenRenewal::Fresh)
        } else if state.failure.is_some() {
            Err(state.error(self.clock.now()))
        } else {
            Ok(TokenRenewal::Same)
        }
    }

    /// Records that Partner Center rejects a token though it is fresh.
    pub(crate) fn mark_rejected(&self, rejected: RejectedToken) {
        self.demand.send_modify(|demand| {
            demand.serial += 1;
            demand.rejected = Some(rejected);
        });
    }

    /// Records that Partner Center accepts the token, where that ends a rejection.
    pub(crate) fn record_accepted(&self, ends: impl FnOnce(&RejectedToken) -> bool) {
        self.demand.send_if_modified(|demand| {
            demand.rejected = demand.rejected.filter(|rejected| !ends(rejected));
            false
        });
    }

    /// Returns the rejection of the current token, if there is one.
    pub(crate) fn rejected(&self) -> Option<RejectedToken> {
        let state = self.state.borrow();
        let token = state.usable(self.clock.now())?;
        let rejected = self.demand.borrow().rejected?;
        rejected.applies_to(token).then_some(rejected)
    }

    /// Completes when the current token is rejected.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(crate) async fn until_rejected(&self) {
        let mut demand = self.demand.subscribe();
        while self.rejected().is_none() {
            // The sender is ours: waiting cannot fail.
            drop(demand.changed().await);
        }
    }

    /// Returns the state of the token.
    pub(crate) fn status(&self) -> TokenStatus {
        if let Some(rejected) = self.rejected() {
            return TokenStatus::Refused {
                action: rejected.action.into(),
            };
        }
        let state = self.state.borrow();
        if state.usable(self.clock.now()).is_some() {
            return TokenStatus::Usable;
        }
        match state.refusal() {
            Some(action) => TokenStatus::Refused {
                action: Arc::clone(action),
            },
            None => TokenStatus::Waiting {
                detail: state.failure.as_ref().map(|failure| failure.detail.clone()),
            },
        }
    }

    /// Returns what a person must do though the current token is usable: the next one was refused.
    pub(crate) fn refresh_problem(&self) -> Option<Arc<str>> {
        let state = self.state.borrow();
        state.usable(self.clock.now())?;
        state.refusal().cloned()
    }

    /// Sets the gauges of refused credentials. Call it before a scrape.
    ///
    /// A counter would not do: refused credentials are not sent again before they have changed.
    pub(crate) fn update_gauges(&self) {
        let state = self.state.borrow();
        let rejected = self.demand.borrow().rejected;
        let is_rejected = rejected
            .zip(state.token.as_ref())
            .is_some_and(|(rejected, token)| rejected.applies_to(token));
        let is_refused = state.refusal().is_some();
        let metrics = &self.metrics;
        metrics.refused_by_token_endpoint.set(is_refused.into());
        metrics.refused_by_partner_center.set(is_rejected.into());
    }

    /// Demands an attempt, and returns the serial number of the demand.
    fn request_refresh(&self, refused: Option<u64>) -> u64 {
        let mut serial = 0;
        self.demand.send_modify(|demand| {
            demand.serial += 1;
            demand.refused = demand.refused.max(refused);
            serial = demand.serial;
        });
        serial
    }

    async fn wait(
        &self,
        deadline: Instant,
        mut is_enough: impl FnMut(&TokenState, Instant) -> bool,
    ) -> Result<TokenState, TokenError> {
        let mut state = self.state.clone();
        let changed = state.wait_for(|state| is_enough(state, self.clock.now()));
        match with_deadline(&self.clock, deadline, changed).await {
            Some(Ok(state)) => Ok(state.clone()),
            Some(Err(_)) => Err(TokenError::new(
                TokenErrorReason::Interrupted,
                "the process is shutting down",
            )),
            None => Err(TokenError::new(
                TokenErrorReason::TimedOut,
                "there was none before the deadline of the call",
            )),
        }
    }
}
