//! Access tokens: one held, renewed ahead of its end by a task of its own, never printed.
//!
//! Calls read the held token without waiting. Only where there is none that can be used do they
//! wait, for the attempt under way or the one they cause, within their own deadline; a call that
//! goes away cancels nothing.

mod authorization_code;
mod client_credentials;
mod client_proof;
mod endpoint;
mod grant;
mod refresh_token;
mod refresher;
mod rejections;
mod secret_file;
mod token_file;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderValue;
use tokio::sync::watch;

use self::refresher::TokenRefresher;
pub(super) use self::{
    authorization_code::{AuthorizationCode, CodeRequest, RedeemedCode, refused_sign_in},
    grant::{GrantFailure, ObtainedToken, TokenGrant},
};
use super::{
    UpstreamDeps,
    client::{HttpClient, before},
    error_class::ErrorClass,
    metrics::UpstreamMetrics,
};
use crate::{
    clock::SharedClock,
    config::UpstreamConfig,
    domain::{Question, Subject},
    service::source::SourceErrorKind,
};

/// Whether calls can be made, as far as credentials go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenStatus {
    /// A token is held that can be used.
    Usable,
    /// None yet, or none any more; it is being tried.
    Waiting {
        /// What went wrong last, where anything did.
        detail: Option<Arc<str>>,
    },
    /// The credentials are refused, and will be until a person has acted.
    Refused {
        /// What to do.
        action: Arc<str>,
    },
}

/// The held access token, for as many callers as there are; clones share it.
#[derive(Clone, Debug)]
pub(super) struct AccessTokenSource {
    // A watch and not a lock: readers never wait for the keeper, which writes between awaits.
    state: watch::Receiver<TokenState>,
    wanted: Arc<watch::Sender<RefreshDemand>>,
    clock: SharedClock,
}

/// A token to ask with.
#[derive(Clone, Debug)]
pub(super) struct AccessToken {
    /// The value of `Authorization`, marked sensitive.
    pub(super) authorization: HeaderValue,
    /// Tells one token from the next; grows.
    pub(super) generation: u64,
    /// Not shown any more from here on, a little before its end; `None` when that is not known.
    usable_until: Option<Instant>,
    /// When the next one is to be had.
    refresh_at: Option<Instant>,
    /// Not renewed again by a refusal before this, since it was the answer to one.
    settled_at: Option<Instant>,
}

/// There is no token to ask with.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no access token: {detail}")]
pub(super) struct TokenError {
    reason: TokenErrorReason,
    detail: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenErrorReason {
    /// A passing fault; the next attempt comes then.
    Unavailable { retry_at: Instant },
    /// A person must act.
    Refused,
    /// The caller's deadline passed first.
    TimedOut,
    /// The process is ending.
    Interrupted,
}

/// What came of asking for another token than the one refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenRenewal {
    /// There is another one.
    Fresh,
    /// There is no other: a fresh one was refused just now, or its file holds the same.
    Same,
}

/// What the keeper tells.
#[derive(Clone, Debug, Default)]
struct TokenState {
    token: Option<AccessToken>,
    trouble: Option<TokenFailure>,
    /// The newest demand that has been considered.
    answered: u64,
    /// Callers demand a look at the token's file from here on, though a token is held.
    look_at: Option<Instant>,
}

/// Why the last attempt brought no token.
#[derive(Clone, Debug)]
struct TokenFailure {
    detail: Arc<str>,
    /// When the next attempt comes by itself; `None` when only other credentials can help.
    retry_at: Option<Instant>,
}

/// What callers tell.
#[derive(Clone, Copy, Debug, Default)]
struct RefreshDemand {
    /// Counts demands, so that a caller knows when its own was considered.
    serial: u64,
    /// The newest generation that is to be replaced, since Partner Center refused it.
    refused: Option<u64>,
    /// The token that Partner Center refuses for good.
    disowned: Option<RejectedToken>,
}

/// A token that Partner Center refuses though it is fresh, and the call that it refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct RejectedToken {
    /// Of the token.
    pub(super) generation: u64,
    /// What a person must do.
    pub(super) action: &'static str,
    /// Whose data was asked for.
    pub(super) subject: Subject,
    /// What was asked.
    pub(super) question: Question,
    /// What a person does about it may count for a newer token only.
    pub(super) may_need_renewal: bool,
}

// === impl AccessToken ===

impl AccessToken {
    /// The token itself, to be kept out of what an upstream says; `None` where it has no text.
    pub(super) fn token_text(&self) -> Option<&str> {
        let (_scheme, token) = self.authorization.to_str().ok()?.split_once(' ')?;
        Some(token).filter(|token| !token.is_empty())
    }
}

// === impl Tokens ===

impl AccessTokenSource {
    /// Starts the task that keeps a token, and begins to get the first one at once.
    ///
    /// # Errors
    ///
    /// When a metric of the same name is registered already; nothing is begun then.
    pub(super) fn start(
        config: &UpstreamConfig,
        http: &HttpClient,
        metrics: &UpstreamMetrics,
        deps: &UpstreamDeps<'_>,
    ) -> Result<Self, prometheus::Error> {
        let grant = TokenGrant::from_config(config, http, metrics);
        let (state, told) = watch::channel(TokenState::default());
        let (wants, wanted) = watch::channel(RefreshDemand::default());
        let keeper = TokenRefresher::new(grant, state, wanted, metrics.clone(), deps);
        let tokens = Self {
            state: told,
            wanted: Arc::new(wants),
            clock: deps.clock.clone(),
        };
        rejections::register(&tokens, deps.registry)?;
        // A redemption that is cut off may have rotated the refresh token all the same.
        deps.shutdown.spawn_until_done(keeper.run());
        Ok(tokens)
    }

    /// The held token, if it can be used; never waits.
    pub(super) fn current(&self) -> Option<AccessToken> {
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
    pub(super) async fn ready(&self, deadline: Instant) -> Result<(), TokenError> {
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
    pub(super) async fn renew(
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
    pub(super) fn mark_rejected(&self, disowned: RejectedToken) {
        self.wanted.send_modify(|wanted| {
            wanted.serial += 1;
            wanted.disowned = Some(disowned);
        });
    }

    /// Takes note that Partner Center accepts the token after all, where that settles the refusal.
    pub(super) fn record_accepted(&self, settles: impl FnOnce(&RejectedToken) -> bool) {
        self.wanted.send_if_modified(|wanted| {
            wanted.disowned = wanted.disowned.filter(|disowned| !settles(disowned));
            false
        });
    }

    /// The refusal of the current token; `None` while none is known.
    pub(super) fn rejected(&self) -> Option<RejectedToken> {
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
    pub(super) async fn until_rejected(&self) -> RejectedToken {
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
    pub(super) fn status(&self) -> TokenStatus {
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
    pub(super) fn refresh_problem(&self) -> Option<Arc<str>> {
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
        match before(&self.clock, deadline, waited).await {
            Ok(Ok(state)) => Ok(state.clone()),
            Ok(Err(_)) => Err(TokenError::new(
                TokenErrorReason::Interrupted,
                "the process is ending",
            )),
            Err(_) => Err(TokenError::new(
                TokenErrorReason::TimedOut,
                "none came before the call's time was up",
            )),
        }
    }
}

// === impl DisownedToken ===

impl RejectedToken {
    /// Whether the refusal counts for `token`: it is the one that was refused, or took its place
    /// because of that and has not been accepted yet.
    fn applies_to(&self, token: &AccessToken) -> bool {
        self.generation == token.generation || token.settled_at.is_some()
    }
}

// === impl TokenState ===

impl TokenState {
    fn usable(&self, now: Instant) -> Option<&AccessToken> {
        self.token
            .as_ref()
            .filter(|token| token.usable_until.is_none_or(|until| now < until))
    }

    fn error(&self, now: Instant) -> TokenError {
        let Some(trouble) = &self.trouble else {
            // The held token ended between two looks at it: the next one is on its way.
            let reason = TokenErrorReason::Unavailable { retry_at: now };
            return TokenError::new(reason, "the held one has just expired");
        };
        TokenError {
            reason: match trouble.retry_at {
                Some(retry_at) => TokenErrorReason::Unavailable { retry_at },
                None => TokenErrorReason::Refused,
            },
            detail: trouble.detail.clone(),
        }
    }
}

// === impl TokenError ===

impl TokenError {
    fn new(reason: TokenErrorReason, detail: &str) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }

    /// What it is counted as.
    pub(super) fn class(&self) -> ErrorClass {
        match self.reason {
            TokenErrorReason::Unavailable { .. } => ErrorClass::TokenUnavailable,
            TokenErrorReason::Refused => ErrorClass::TokenRefused,
            TokenErrorReason::TimedOut => ErrorClass::Deadline,
            TokenErrorReason::Interrupted => ErrorClass::Interrupted,
        }
    }

    /// What it means to whoever asked.
    pub(super) fn kind(&self, now: Instant) -> SourceErrorKind {
        match self.reason {
            TokenErrorReason::Unavailable { retry_at } => SourceErrorKind::Unavailable {
                retry_after: Some(
                    retry_at
                        .saturating_duration_since(now)
                        .max(Duration::from_secs(1)),
                ),
            },
            TokenErrorReason::Refused => SourceErrorKind::CredentialsRejected,
            TokenErrorReason::TimedOut => SourceErrorKind::TimedOut,
            TokenErrorReason::Interrupted => SourceErrorKind::Interrupted,
        }
    }
}

#[cfg(test)]
mod tests;
