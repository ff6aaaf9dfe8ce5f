//! The state that the refresher and the readers of the token share.

use std::{sync::Arc, time::Instant};

use http::HeaderValue;

use crate::domain::Resource;

/// The state of the access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenStatus {
    /// There is a usable token.
    Usable,
    /// There is none, and another attempt will be made.
    Waiting {
        /// The error of the last attempt.
        detail: Option<Arc<str>>,
    },
    /// The credentials are refused until a person acts.
    Refused {
        /// The advice for a person.
        action: Arc<str>,
    },
}

/// A token to call with.
#[derive(Clone, Debug)]
pub(crate) struct AccessToken {
    /// The value of `Authorization`, marked sensitive.
    pub(crate) authorization: HeaderValue,
    /// Distinguishes this token from earlier ones, and grows.
    pub(crate) generation: u64,
    /// The end of its use, a little before it expires; `None` if that is unknown.
    pub(crate) usable_until: Option<Instant>,
    /// The time to get the next one.
    pub(crate) refresh_at: Option<Instant>,
    /// A refusal renews it from then on, since it came because of one.
    pub(crate) settled_at: Option<Instant>,
}

/// There is no token to call with.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no access token: {detail}")]
pub(crate) struct TokenError {
    pub(crate) reason: TokenErrorReason,
    pub(crate) detail: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenErrorReason {
    /// A transient error; the time of the next attempt.
    Unavailable { retry_at: Instant },
    /// A person must act.
    Refused,
    /// The deadline of the caller passed.
    TimedOut,
    /// The process is shutting down.
    Interrupted,
}

/// The result of asking for another token than a rejected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenRenewal {
    /// There is another one.
    Fresh,
    /// There is no other: a fresh one was rejected just now, or its file has the same.
    Same,
}

/// The state that the refresher publishes.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenState {
    pub(crate) token: Option<AccessToken>,
    pub(crate) failure: Option<TokenFailure>,
    /// The newest demand that was considered.
    pub(crate) considered: u64,
    /// From then on, callers have the token's file read again, though there is a token.
    pub(crate) read_file_at: Option<Instant>,
}

/// The failure of the last attempt.
#[derive(Clone, Debug)]
pub(crate) struct TokenFailure {
    pub(crate) detail: Arc<str>,
    /// The time of the next attempt; `None` if only other credentials can help.
    pub(crate) retry_at: Option<Instant>,
}

/// The demand of callers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RefreshDemand {
    /// Counts demands, so that a caller knows when its own was considered.
    pub(crate) serial: u64,
    /// The newest generation to replace, since Partner Center refused it once.
    pub(crate) refused: Option<u64>,
    /// The token that Partner Center rejects for good.
    pub(crate) rejected: Option<RejectedToken>,
}

/// A token that Partner Center rejects though it is fresh, and the call that it rejected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RejectedToken {
    pub(crate) generation: u64,
    /// The advice for a person.
    pub(crate) action: &'static str,
    /// The data that was asked for.
    pub(crate) resource: Resource,
    /// A change by a person may have effect only for a newer token.
    pub(crate) may_need_renewal: bool,
}

// === impl AccessToken ===

impl AccessToken {
    /// The token itself, to redact it in upstream's texts; `None` if it is no text.
    pub(crate) fn token_text(&self) -> Option<&str> {
        let (_scheme, token) = self.authorization.to_str().ok()?.split_once(' ')?;
        Some(token).filter(|token| !token.is_empty())
    }
}

// === impl RejectedToken ===

impl RejectedToken {
    /// Returns whether the rejection counts for `token`: it is the rejected one, or replaced it because
    /// of that and was not accepted yet.
    pub(crate) fn applies_to(&self, token: &AccessToken) -> bool {
        self.generation == token.generation || token.settled_at.is_some()
    }
}

// === impl TokenState ===

impl TokenState {
    pub(crate) fn usable(&self, now: Instant) -> Option<&AccessToken> {
        let is_usable = |token: &&AccessToken| token.usable_until.is_none_or(|until| now < until);
        self.token.as_ref().filter(is_usable)
    }

    /// Returns what a person must do, if the credentials are refused.
    pub(crate) fn refusal(&self) -> Option<&Arc<str>> {
        let failure = self.failure.as_ref()?;
        failure.retry_at.is_none().then_some(&failure.detail)
    }

    pub(crate) fn error(&self, now: Instant) -> TokenError {
        let Some(failure) = &self.failure else {
            // The token expired between two looks at it; the next one is on its way.
            let reason = TokenErrorReason::Unavailable { retry_at: now };
            return TokenError::new(reason, "the current one has just expired");
        };
        TokenError {
            reason: match failure.retry_at {
                Some(retry_at) => TokenErrorReason::Unavailable { retry_at },
                None => TokenErrorReason::Refused,
            },
            detail: failure.detail.clone(),
        }
    }
}

// === impl TokenError ===

impl TokenError {
    pub(crate) fn new(reason: TokenErrorReason, detail: &str) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}
