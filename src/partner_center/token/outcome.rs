//! The outcome of one attempt to get a token.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use secrecy::SecretString;

use super::secret_file::UnreadableSecret;

/// An access token as it came.
#[derive(Debug)]
pub(in crate::partner_center) struct ObtainedToken {
    pub(in crate::partner_center) token: SecretString,
    /// Counted from `asked_at`; `None` when nobody said.
    pub(in crate::partner_center) lifetime: Option<Duration>,
    /// Before the request was sent: the token is younger than that.
    pub(in crate::partner_center) asked_at: Instant,
}

/// An attempt that brought no token.
#[derive(Clone, Debug)]
pub(in crate::partner_center) struct GrantFailure {
    /// Whether asking again may help.
    pub(in crate::partner_center) kind: GrantFailureKind,
    /// What anyone may know: no secret, no address.
    pub(in crate::partner_center) detail: Arc<str>,
    /// What the log says besides; no secret either.
    pub(in crate::partner_center) cause: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::partner_center) enum GrantFailureKind {
    /// It may work a moment later.
    Passing {
        /// The least pause that was asked for.
        not_before: Option<Duration>,
    },
    /// The same credentials will be refused again: a person must act.
    Refused {
        /// The refresh token itself was refused, not the client that showed it.
        of_refresh_token: bool,
    },
}

// === impl GrantFailure ===

impl GrantFailure {
    pub(super) fn passing(detail: &str, cause: String) -> Self {
        Self {
            kind: GrantFailureKind::Passing { not_before: None },
            detail: detail.into(),
            cause,
        }
    }

    pub(super) fn refused(action: &str, cause: String) -> Self {
        Self {
            kind: GrantFailureKind::Refused {
                of_refresh_token: false,
            },
            detail: action.into(),
            cause,
        }
    }

    /// With the least pause that was asked for; a refusal stays one.
    pub(super) fn not_before(mut self, pause: Option<Duration>) -> Self {
        if let GrantFailureKind::Passing { not_before } = &mut self.kind {
            *not_before = pause;
        }
        self
    }

    /// With whether the refresh token itself was refused; a passing failure stays one.
    pub(super) fn of_refresh_token(mut self, refused: bool) -> Self {
        if let GrantFailureKind::Refused { of_refresh_token } = &mut self.kind {
            *of_refresh_token = refused;
        }
        self
    }

    pub(super) fn refuses_refresh_token(&self) -> bool {
        self.kind
            == GrantFailureKind::Refused {
                of_refresh_token: true,
            }
    }
}

impl From<UnreadableSecret> for GrantFailure {
    fn from(fault: UnreadableSecret) -> Self {
        let action = format!("a credential cannot be read: {fault}");
        Self::refused(&action, fault.to_string())
    }
}
