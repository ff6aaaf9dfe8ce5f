//! The task that keeps an access token fresh: one attempt at a time, ahead of expiry or on demand.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;

use super::{
    grant::TokenGrant,
    outcome::{GrantFailure, GrantFailureKind, GrantedToken},
    state::{AccessToken, RefreshDemand, TokenFailure, TokenState},
};
use crate::{
    clock::SharedClock,
    http_client,
    jitter::Jitter,
    partner_center::{
        deps::UpstreamDeps,
        metrics::{RefreshResult, UpstreamMetrics},
    },
    resilience::backoff::Backoff,
    shutdown::Shutdown,
};

/// The pauses after transient failures; never less than [`MIN_PAUSE`].
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(60));
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// The interval at which refused credentials and a token's file are read on demand.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// The interval at which refused credentials are read without demand. A replica without a token gets no
/// requests, and must notice by itself that a person has acted.
const IDLE_READ_INTERVAL: Duration = Duration::from_secs(2);

/// The interval at which a refresh token that could not be written is tried again.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);

/// The time for which a token that came because of a refusal is not renewed by another one: if every token
/// is refused, each call would cost a redemption.
const SETTLING: Duration = Duration::from_secs(60);

/// The longest time before its end in which a token is not used: it must outlive the request.
const MAX_MARGIN: Duration = Duration::from_secs(30);

/// Gets tokens and publishes them, as long as the process runs.
#[derive(Debug)]
pub(crate) struct TokenRefresher {
    grant: TokenGrant,
    state: watch::Sender<TokenState>,
    demand: watch::Receiver<RefreshDemand>,
    /// The current token, to compare that of a file with it.
    current: Option<SecretString>,
    generation: u64,
    /// Transient failures in a row.
    failures: u32,
    /// The cause that was logged last, since the last success.
    logged: Option<String>,
    read_at: Instant,
    idle_read_at: Instant,
    save_at: Instant,
    saved_at_drain: bool,
    clock: SharedClock,
    jitter: Jitter,
    shutdown: Shutdown,
    metrics: UpstreamMetrics,
}

// === impl TokenRefresher ===

impl TokenRefresher {
    pub(crate) fn new(
        grant: TokenGrant,
        state: watch::Sender<TokenState>,
        demand: watch::Receiver<RefreshDemand>,
        metrics: UpstreamMetrics,
        deps: &UpstreamDeps<'_>,
    ) -> Self {
        let now = deps.clock.now();
        Self {
            grant,
            state,
            demand,
            current: None,
            generation: 0,
            failures: 0,
            logged: None,
            read_at: now,
            idle_read_at: now,
            save_at: now,
            saved_at_drain: false,
            clock: deps.clock.clone(),
            jitter: deps.jitter,
            shutdown: deps.shutdown.clone(),
            metrics,
        }
    }

    /// Runs until there are no callers any more.
    pub(crate) async fn run(mut self) {
        loop {
            let demand = *self.demand.borrow_and_update();
            if self.is_due(demand).await {
                self.attempt(demand).await;
            }
            self.state
                .send_modify(|state| state.considered = demand.serial);
            if self.wait().await.is_break() {
                return;
            }
        }
    }

    /// Returns whether an attempt is due.
    async fn is_due(&mut self, demand: RefreshDemand) -> bool {
        let now = self.clock.now();
        let state = self.state.borrow().clone();
        if let Some(failure) = &state.failure {
            return match failure.retry_at {
                Some(at) => at <= now,
                None => self.has_changed(now).await,
            };
        }
        let Some(token) = &state.token else {
            return true;
        };
        let is_refused =
            demand.refused == Some(token.generation) && token.settled_at.is_none_or(|at| at <= now);
        // While the process shuts down, only a token that is needed is worth the risk that its rotation
        // is cut off.
        let is_old = token.refresh_at.is_some_and(|at| at <= now)
            && (!self.shutdown.is_draining() || state.usable(now).is_none());
        let must_read_file = state.read_file_at.is_some_and(|at| at <= now);
        is_refused
            || is_old
            || must_read_file
            || is_rejected(demand, token) && self.has_changed(now).await
    }

    /// Returns whether refused credentials were replaced. Reads them at most once a second.
    async fn has_changed(&mut self, now: Instant) -> bool {
        if now < self.read_at {
            return false;
        }
        self.read_at = now + READ_INTERVAL;
        self.idle_read_at = now + IDLE_READ_INTERVAL;
        self.grant.has_changed().await
    }

    async fn attempt(&mut self, demand: RefreshDemand) {
        let obtained = self.grant.obtain(self.current.as_ref()).await;
        match obtained.and_then(with_header) {
            Ok((obtained, authorization)) => self.publish(obtained, authorization, demand),
            Err(failure) => self.record_failure(&failure),
        }
        let now = self.clock.now();
        self.idle_read_at = now + IDLE_READ_INTERVAL;
        self.save_at = now + SAVE_INTERVAL;
    }

    /// Publishes a token, unless it is the current one.
    fn publish(
        &mut self,
        obtained: GrantedToken,
        authorization: HeaderValue,
        demand: RefreshDemand,
    ) {
        let now = self.clock.now();
        self.failures = 0;
        self.logged = None;
        let read_file_at = self.grant.is_file().then(|| now + READ_INTERVAL);
        if self.grant.is_file() && self.is_current(&obtained.token) {
            self.state.send_modify(|state| {
                state.failure = None;
                state.read_file_at = read_file_at;
            });
            return;
        }
        let for_refusal = demand.refused == Some(self.generation) && !self.grant.is_file();
        self.generation += 1;
        let end = obtained
            .lifetime
            .map(|lifetime| (obtained.requested_at, lifetime));
        let token = AccessToken {
            authorization,
            generation: self.generation,
            usable_until: end.map(|(from, life)| from + life - (life / 10).min(MAX_MARGIN)),
            refresh_at: end.map(|(from, life)| {
                // About 80 % of its lifetime, so that not all replicas ask at once.
                from + life.mul_f64(0.75 + 0.1 * self.jitter.fraction())
            }),
            settled_at: for_refusal.then(|| now + SETTLING),
        };
        self.current = Some(obtained.token);
        self.state.send_modify(|state| {
            state.token = Some(token);
            state.failure = None;
            state.read_file_at = read_file_at;
        });
        self.metrics.record_refresh(RefreshResult::Success);
        let expires_at =
            end.and_then(|(from, life)| self.wall_time_at(now, from.checked_add(life)?));
        self.metrics
            .token_expiry
            .set(expires_at.map_or(0, Timestamp::as_second));
        tracing::info!(
            token.lifetime_seconds = end.map(|(_, life)| life.as_secs()),
            "access token obtained"
        );
    }

    fn record_failure(&mut self, failure: &GrantFailure) {
        let now = self.clock.now();
        let retry_at = match failure.kind {
            GrantFailureKind::Transient { retry_after } => Some(now + self.pause(retry_after)),
            GrantFailureKind::Refused | GrantFailureKind::RefreshTokenRefused => None,
        };
        self.read_at = now + READ_INTERVAL;
        self.log_failure(failure, retry_at.map(|at| at - now));
        let read_file_at = retry_at.filter(|_| self.grant.is_file());
        self.state.send_modify(|state| {
            state.failure = Some(TokenFailure {
                detail: Arc::clone(&failure.detail),
                retry_at,
            });
            state.read_file_at = read_file_at;
        });
    }

    fn pause(&mut self, retry_after: Option<Duration>) -> Duration {
        if self.grant.is_file() {
            return READ_INTERVAL;
        }
        let drawn = BACKOFF.delay(self.failures, self.jitter.fraction());
        self.failures = self.failures.saturating_add(1);
        drawn.max(MIN_PAUSE).max(retry_after.unwrap_or_default())
    }

    fn log_failure(&mut self, failure: &GrantFailure, pause: Option<Duration>) {
        let error = &failure.cause;
        // A file is read every second; the same error every second would say no more.
        if self.grant.is_file() && self.logged.as_ref() == Some(error) {
            return;
        }
        self.logged = Some(error.clone());
        if let Some(pause) = pause {
            self.metrics.record_refresh(RefreshResult::Unavailable);
            tracing::warn!(
                %error,
                retry_after_seconds = pause.as_secs_f64(),
                "no access token: {}", failure.detail
            );
        } else {
            self.metrics.record_refresh(RefreshResult::Refused);
            tracing::error!(%error, "no access token: {}", failure.detail);
        }
    }

    /// Waits until there may be something to do. `Break` means that there are no callers any more, or that
    /// the process ends.
    async fn wait(&mut self) -> ControlFlow<()> {
        let now = self.clock.now();
        let unsaved = self.grant.has_unsaved();
        let next = self.next_timer();
        let drains = unsaved && !self.saved_at_drain;
        tokio::select! {
            () = self.shutdown.cancelled() => return ControlFlow::Break(()),
            changed = self.demand.changed() => {
                return match changed {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_no_callers) => ControlFlow::Break(()),
                };
            }
            () = sleep(&self.clock, next) => {}
            () = self.shutdown.draining(), if drains => {
                self.saved_at_drain = true;
                self.save_at = now;
            }
        }
        if self.grant.has_unsaved() && self.save_at <= self.clock.now() {
            self.grant.save().await;
            self.save_at = self.clock.now() + SAVE_INTERVAL;
        }
        ControlFlow::Continue(())
    }

    /// Returns the time of the next work without demand.
    fn next_timer(&self) -> Option<Instant> {
        let state = self.state.borrow();
        let attempt = match (&state.failure, &state.token) {
            (Some(failure), _) => Some(failure.retry_at.unwrap_or(self.idle_read_at)),
            (None, Some(token)) => self.next_for(token),
            (None, None) => None,
        };
        let save = self.grant.has_unsaved().then_some(self.save_at);
        attempt.into_iter().chain(save).min()
    }

    fn next_for(&self, token: &AccessToken) -> Option<Instant> {
        let refresh = if self.shutdown.is_draining() {
            token.usable_until
        } else {
            token.refresh_at
        };
        let read = is_rejected(*self.demand.borrow(), token).then_some(self.idle_read_at);
        refresh.into_iter().chain(read).min()
    }

    fn is_current(&self, token: &SecretString) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|current| current.expose_secret() == token.expose_secret())
    }

    fn wall_time_at(&self, now: Instant, at: Instant) -> Option<Timestamp> {
        let ahead = SignedDuration::try_from(at.saturating_duration_since(now)).ok()?;
        self.clock.wall_time().checked_add(ahead).ok()
    }
}

/// Adds the header, which cannot hold every text.
fn with_header(obtained: GrantedToken) -> Result<(GrantedToken, HeaderValue), GrantFailure> {
    let authorization = http_client::bearer(&obtained.token).map_err(|_| {
        GrantFailure::transient(
            "the token endpoint's answer is no access token",
            "expected visible characters only",
        )
    })?;
    Ok((obtained, authorization))
}

/// Returns whether Partner Center rejects the token for good, so that only other credentials can help.
fn is_rejected(demand: RefreshDemand, token: &AccessToken) -> bool {
    let rejected = demand.rejected.map(|rejected| rejected.generation);
    rejected == Some(token.generation)
}

async fn sleep(clock: &SharedClock, until: Option<Instant>) {
    match until {
        Some(until) => clock.sleep_until(until).await,
        None => std::future::pending().await,
    }
}
