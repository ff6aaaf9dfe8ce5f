//! The task that keeps an access token: one attempt at a time, ahead of expiry or on demand.

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
    outcome::{GrantFailure, GrantFailureKind, ObtainedToken},
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

/// Pauses between attempts that fail for a passing reason; never less than [`SHORTEST_PAUSE`].
const BACKOFF: Backoff = match Backoff::new(Duration::from_secs(2), Duration::from_secs(60)) {
    Ok(backoff) => backoff,
    Err(_) => panic!("not a backoff"),
};
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// How often refused credentials and a token's file are looked at on demand.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often refused credentials are looked at without demand. A replica that is out of rotation
/// for want of a token sees no demand, and must notice by itself that a person has acted. Only
/// files are read.
const IDLE_LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How often a refresh token that could not be written is tried again.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);

/// A token that came in answer to a refusal is not renewed by another for this long: where every
/// token is refused, each call would cost a redemption.
const SETTLING: Duration = Duration::from_secs(60);

/// Before its end a token is not shown any more: it must outlive the request that carries it.
const LONGEST_MARGIN: Duration = Duration::from_secs(30);

/// Gets tokens and tells of them; lives as long as the process.
#[derive(Debug)]
pub(super) struct TokenRefresher {
    grant: TokenGrant,
    state: watch::Sender<TokenState>,
    wanted: watch::Receiver<RefreshDemand>,
    /// The held token, to tell whether a file holds another.
    held: Option<SecretString>,
    generation: u64,
    /// Passing failures in a row.
    failures: u32,
    /// The cause that the log was told last, since the last success.
    reported: Option<String>,
    look_at: Instant,
    idle_look_at: Instant,
    save_at: Instant,
    saved_at_drain: bool,
    clock: SharedClock,
    jitter: Jitter,
    shutdown: Shutdown,
    metrics: UpstreamMetrics,
}

// === impl Keeper ===

impl TokenRefresher {
    pub(super) fn new(
        grant: TokenGrant,
        state: watch::Sender<TokenState>,
        wanted: watch::Receiver<RefreshDemand>,
        metrics: UpstreamMetrics,
        deps: &UpstreamDeps<'_>,
    ) -> Self {
        let now = deps.clock.now();
        Self {
            grant,
            state,
            wanted,
            held: None,
            generation: 0,
            failures: 0,
            reported: None,
            look_at: now,
            idle_look_at: now,
            save_at: now,
            saved_at_drain: false,
            clock: deps.clock.clone(),
            jitter: deps.jitter,
            shutdown: deps.shutdown.clone(),
            metrics,
        }
    }

    /// Keeps a token until nobody can ask for one any more.
    pub(super) async fn run(mut self) {
        loop {
            let wanted = *self.wanted.borrow_and_update();
            if self.is_due(wanted).await {
                self.attempt(wanted).await;
            }
            self.state
                .send_modify(|state| state.answered = wanted.serial);
            if self.wait().await.is_break() {
                return;
            }
        }
    }

    /// Whether an attempt is to be made now.
    async fn is_due(&mut self, wanted: RefreshDemand) -> bool {
        let now = self.clock.now();
        let state = self.state.borrow().clone();
        match (&state.trouble, &state.token) {
            (Some(TokenFailure { retry_at: None, .. }), _) => self.may_have_changed(now).await,
            (
                Some(TokenFailure {
                    retry_at: Some(at), ..
                }),
                _,
            ) => *at <= now,
            (None, None) => true,
            (None, Some(token)) => {
                let refused = wanted.refused == Some(token.generation)
                    && token.settled_at.is_none_or(|at| at <= now);
                // While the process is ending, only a token that is needed is worth the risk of
                // being cut off in mid-rotation.
                let old = token.refresh_at.is_some_and(|at| at <= now)
                    && (!self.shutdown.is_draining() || state.usable(now).is_none());
                let unread = state.look_at.is_some_and(|at| at <= now);
                let mends = is_disowned(wanted, token) && self.may_have_changed(now).await;
                refused || old || unread || mends
            }
        }
    }

    /// Whether refused credentials have been replaced; looks at most once a second.
    async fn may_have_changed(&mut self, now: Instant) -> bool {
        if now < self.look_at {
            return false;
        }
        self.look_at = now + LOOK_INTERVAL;
        self.idle_look_at = now + IDLE_LOOK_INTERVAL;
        self.grant.has_changed().await
    }

    async fn attempt(&mut self, wanted: RefreshDemand) {
        match self.grant.obtain().await.and_then(checked) {
            Ok((obtained, authorization)) => self.hold(obtained, authorization, wanted),
            Err(failure) => self.fail(&failure),
        }
        let now = self.clock.now();
        self.idle_look_at = now + IDLE_LOOK_INTERVAL;
        self.save_at = now + SAVE_INTERVAL;
    }

    /// Publishes a token, unless it is the one held already.
    fn hold(&mut self, obtained: ObtainedToken, authorization: HeaderValue, wanted: RefreshDemand) {
        let now = self.clock.now();
        self.failures = 0;
        self.reported = None;
        let look_at = self.grant.is_file().then(|| now + LOOK_INTERVAL);
        if self.grant.is_file() && self.is_held(&obtained.token) {
            self.state.send_modify(|state| {
                state.trouble = None;
                state.look_at = look_at;
            });
            return;
        }
        let for_refusal = wanted.refused == Some(self.generation) && !self.grant.is_file();
        self.generation += 1;
        let end = obtained
            .lifetime
            .map(|lifetime| (obtained.asked_at, lifetime));
        let token = AccessToken {
            authorization,
            generation: self.generation,
            usable_until: end.map(|(from, life)| from + life - (life / 10).min(LONGEST_MARGIN)),
            refresh_at: end.map(|(from, life)| {
                // About 80 % of its life, so that replicas do not all ask at once.
                from + life.mul_f64(0.75 + 0.1 * self.jitter.fraction())
            }),
            settled_at: for_refusal.then(|| now + SETTLING),
        };
        self.held = Some(obtained.token);
        self.state.send_modify(|state| {
            state.token = Some(token);
            state.trouble = None;
            state.look_at = look_at;
        });
        self.metrics.token_refreshed(RefreshResult::Success);
        self.metrics
            .token_expires(end.and_then(|(from, life)| self.wall_at(now, from.checked_add(life)?)));
        tracing::info!(
            token.lifetime_seconds = end.map(|(_, life)| life.as_secs()),
            "access token obtained"
        );
    }

    fn fail(&mut self, failure: &GrantFailure) {
        let now = self.clock.now();
        let retry_at = match failure.kind {
            GrantFailureKind::Passing { not_before } => Some(now + self.pause(not_before)),
            GrantFailureKind::Refused { .. } => None,
        };
        self.look_at = now + LOOK_INTERVAL;
        self.report(failure, retry_at.map(|at| at - now));
        let look_at = retry_at.filter(|_| self.grant.is_file());
        self.state.send_modify(|state| {
            state.trouble = Some(TokenFailure {
                detail: Arc::clone(&failure.detail),
                retry_at,
            });
            state.look_at = look_at;
        });
    }

    fn pause(&mut self, not_before: Option<Duration>) -> Duration {
        if self.grant.is_file() {
            return LOOK_INTERVAL;
        }
        let drawn = BACKOFF.delay(self.failures, self.jitter.fraction());
        self.failures = self.failures.saturating_add(1);
        drawn
            .max(SHORTEST_PAUSE)
            .max(not_before.unwrap_or_default())
    }

    fn report(&mut self, failure: &GrantFailure, pause: Option<Duration>) {
        let error = &failure.cause;
        // A file is looked at every second; the same fault every second would say no more.
        if self.grant.is_file() && self.reported.as_ref() == Some(error) {
            return;
        }
        self.reported = Some(error.clone());
        if let Some(pause) = pause {
            self.metrics.token_refreshed(RefreshResult::Unavailable);
            tracing::warn!(
                %error,
                retry_after_seconds = pause.as_secs_f64(),
                "no access token: {}", failure.detail
            );
        } else {
            self.metrics.token_refreshed(RefreshResult::Refused);
            tracing::error!(%error, "no access token: {}", failure.detail);
        }
    }

    /// Waits until there may be something to do; `Break` when there will not be: nobody can ask any
    /// more, or the process ends.
    async fn wait(&mut self) -> ControlFlow<()> {
        let now = self.clock.now();
        let unsaved = self.grant.has_unsaved();
        let next = self.next_timer();
        let drains = unsaved && !self.saved_at_drain;
        tokio::select! {
            () = self.shutdown.cancelled() => return ControlFlow::Break(()),
            changed = self.wanted.changed() => {
                return match changed {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_nobody) => ControlFlow::Break(()),
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

    /// When there is something to do without demand; `None` when there will not be.
    fn next_timer(&self) -> Option<Instant> {
        let state = self.state.borrow();
        let attempt = match (&state.trouble, &state.token) {
            (Some(trouble), _) => Some(trouble.retry_at.unwrap_or(self.idle_look_at)),
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
        let look = is_disowned(*self.wanted.borrow(), token).then_some(self.idle_look_at);
        refresh.into_iter().chain(look).min()
    }

    fn is_held(&self, token: &SecretString) -> bool {
        self.held
            .as_ref()
            .is_some_and(|held| held.expose_secret() == token.expose_secret())
    }

    fn wall_at(&self, now: Instant, at: Instant) -> Option<Timestamp> {
        let ahead = SignedDuration::try_from(at.saturating_duration_since(now)).ok()?;
        self.clock.wall_time().checked_add(ahead).ok()
    }
}

/// Makes the header, which not every text can be.
fn checked(obtained: ObtainedToken) -> Result<(ObtainedToken, HeaderValue), GrantFailure> {
    let authorization = http_client::bearer(&obtained.token).map_err(|_| {
        GrantFailure::passing(
            "what came is no access token",
            "expected visible characters only".to_owned(),
        )
    })?;
    Ok((obtained, authorization))
}

/// Whether Partner Center refuses the token for good, so that only other credentials can help.
fn is_disowned(wanted: RefreshDemand, token: &AccessToken) -> bool {
    let disowned = wanted.disowned.map(|disowned| disowned.generation);
    disowned == Some(token.generation)
}

async fn sleep(clock: &SharedClock, until: Option<Instant>) {
    match until {
        Some(until) => clock.sleep_until(until).await,
        None => std::future::pending().await,
    }
}
