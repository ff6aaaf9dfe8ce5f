//! The state that the token task and its readers share.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderValue;

use crate::{
    domain::Resource, partner_center::metrics::ErrorClass, service::source::SourceErrorKind,
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

/// A token to ask with.
#[derive(Clone, Debug)]
pub(in crate::partner_center) struct AccessToken {
    /// The value of `Authorization`, marked sensitive.
    pub(in crate::partner_center) authorization: HeaderValue,
    /// Tells one token from the next; grows.
    pub(in crate::partner_center) generation: u64,
    /// Not shown any more from here on, a little before its end; `None` when that is not known.
    pub(in crate::partner_center) usable_until: Option<Instant>,
    /// When the next one is to be had.
    pub(in crate::partner_center) refresh_at: Option<Instant>,
    /// Not renewed again by a refusal before this, since it was the answer to one.
    pub(in crate::partner_center) settled_at: Option<Instant>,
}

/// There is no token to ask with.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no access token: {detail}")]
pub(in crate::partner_center) struct TokenError {
    pub(in crate::partner_center) reason: TokenErrorReason,
    pub(in crate::partner_center) detail: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::partner_center) enum TokenErrorReason {
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
pub(in crate::partner_center) enum TokenRenewal {
    /// There is another one.
    Fresh,
    /// There is no other: a fresh one was refused just now, or its file holds the same.
    Same,
}

/// What the keeper tells.
#[derive(Clone, Debug, Default)]
pub(in crate::partner_center) struct TokenState {
    pub(in crate::partner_center) token: Option<AccessToken>,
    pub(in crate::partner_center) trouble: Option<TokenFailure>,
    /// The newest demand that has been considered.
    pub(in crate::partner_center) answered: u64,
    /// Callers demand a look at the token's file from here on, though a token is held.
    pub(in crate::partner_center) look_at: Option<Instant>,
}

/// Why the last attempt brought no token.
#[derive(Clone, Debug)]
pub(in crate::partner_center) struct TokenFailure {
    pub(in crate::partner_center) detail: Arc<str>,
    /// When the next attempt comes by itself; `None` when only other credentials can help.
    pub(in crate::partner_center) retry_at: Option<Instant>,
}

/// What callers tell.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::partner_center) struct RefreshDemand {
    /// Counts demands, so that a caller knows when its own was considered.
    pub(in crate::partner_center) serial: u64,
    /// The newest generation that is to be replaced, since Partner Center refused it.
    pub(in crate::partner_center) refused: Option<u64>,
    /// The token that Partner Center refuses for good.
    pub(in crate::partner_center) disowned: Option<RejectedToken>,
}

/// A token that Partner Center refuses though it is fresh, and the call that it refused.
#[derive(Clone, Copy, Debug)]
pub(in crate::partner_center) struct RejectedToken {
    /// Of the token.
    pub(in crate::partner_center) generation: u64,
    /// What a person must do.
    pub(in crate::partner_center) action: &'static str,
    /// The data that was asked for.
    pub(in crate::partner_center) resource: Resource,
    /// What a person does about it may count for a newer token only.
    pub(in crate::partner_center) may_need_renewal: bool,
}

// === impl AccessToken ===

impl AccessToken {
    /// The token itself, to be kept out of what an upstream says; `None` where it has no text.
    pub(in crate::partner_center) fn token_text(&self) -> Option<&str> {
        let (_scheme, token) = self.authorization.to_str().ok()?.split_once(' ')?;
        Some(token).filter(|token| !token.is_empty())
    }
}

// === impl DisownedToken ===

impl RejectedToken {
    /// Whether the refusal counts for `token`: it is the one that was refused, or took its place
    /// because of that and has not been accepted yet.
    pub(in crate::partner_center) fn applies_to(&self, token: &AccessToken) -> bool {
        self.generation == token.generation || token.settled_at.is_some()
    }
}

// === impl TokenState ===

impl TokenState {
    pub(in crate::partner_center) fn usable(&self, now: Instant) -> Option<&AccessToken> {
        self.token
            .as_ref()
            .filter(|token| token.usable_until.is_none_or(|until| now < until))
    }

    pub(in crate::partner_center) fn error(&self, now: Instant) -> TokenError {
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
    pub(in crate::partner_center) fn new(reason: TokenErrorReason, detail: &str) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }

    /// What it is counted as.
    pub(in crate::partner_center) fn class(&self) -> ErrorClass {
        match self.reason {
            TokenErrorReason::Unavailable { .. } => ErrorClass::TokenUnavailable,
            TokenErrorReason::Refused => ErrorClass::TokenRefused,
            TokenErrorReason::TimedOut => ErrorClass::Deadline,
            TokenErrorReason::Interrupted => ErrorClass::Interrupted,
        }
    }

    /// What it means to whoever asked.
    pub(in crate::partner_center) fn kind(&self, now: Instant) -> SourceErrorKind {
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
