//! The outcome of one attempt to get a token.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use secrecy::SecretString;

use super::secret_file::UnreadableSecret;
use crate::http_client::ExchangeError;

/// A new access token.
#[derive(Clone, Debug)]
pub(crate) struct GrantedToken {
    pub(crate) token: SecretString,
    /// Counted from `requested_at`; `None` if it is unknown.
    pub(crate) lifetime: Option<Duration>,
    /// The time of the request. The token is younger than that.
    pub(crate) requested_at: Instant,
}

/// A failed attempt.
#[derive(Clone, Debug)]
pub(crate) struct GrantFailure {
    pub(crate) kind: GrantFailureKind,
    /// The sentence for callers: no secret, no address.
    pub(crate) detail: Arc<str>,
    /// The cause for the log: no secret.
    pub(crate) cause: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GrantFailureKind {
    /// Another attempt may succeed, after this pause if one was asked for.
    Transient { retry_after: Option<Duration> },
    /// The same credentials will be refused again: a person must act.
    Refused,
    /// The refresh token is refused, and not the client that sent it.
    RefreshTokenRefused,
}

// === impl GrantFailure ===

impl GrantFailure {
    pub(crate) fn transient(detail: &str, cause: impl Into<String>) -> Self {
        Self {
            kind: GrantFailureKind::Transient { retry_after: None },
            detail: detail.into(),
            cause: cause.into(),
        }
    }

    pub(crate) fn refused(action: &str, cause: impl Into<String>) -> Self {
        Self {
            kind: GrantFailureKind::Refused,
            detail: action.into(),
            cause: cause.into(),
        }
    }
}

impl From<UnreadableSecret> for GrantFailure {
    fn from(error: UnreadableSecret) -> Self {
        let action = format!("a credential cannot be read: {error}");
        Self::refused(&action, error.to_string())
    }
}

impl From<ExchangeError> for GrantFailure {
    fn from(error: ExchangeError) -> Self {
        let detail = match error {
            ExchangeError::TimedOut => "the token endpoint did not answer in time",
            ExchangeError::Connection(_) => "the connection to the token endpoint failed",
            ExchangeError::Undecodable(_) => "the token endpoint's answer is no access token",
        };
        Self::transient(detail, error.to_string())
    }
}
