//! The ways to an access token, behind one face.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use secrecy::SecretString;

use super::{
    client_credentials::ClientCredentials,
    endpoint::TokenEndpoint,
    refresh_token::RefreshToken,
    secret_file::{SecretFile, UnreadableSecret},
    token_file::TokenFile,
};
use crate::{
    config::{AuthConfig, UpstreamConfig},
    partner_center::{client::HttpClient, metrics::UpstreamMetrics},
};

/// How access tokens are had.
#[derive(Debug)]
pub(in crate::partner_center) enum TokenGrant {
    RefreshToken(Box<RefreshToken>),
    ClientCredentials(Box<ClientCredentials>),
    TokenFile(TokenFile),
}

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

// === impl Grant ===

impl TokenGrant {
    pub(in crate::partner_center) fn from_config(
        config: &UpstreamConfig,
        http: &HttpClient,
        metrics: &UpstreamMetrics,
    ) -> Self {
        let endpoint = |grant| {
            TokenEndpoint::new(http.clone(), grant, config.attempt_timeout, metrics.clone())
        };
        match &config.auth {
            AuthConfig::RefreshToken {
                grant,
                refresh_token_file,
            } => Self::RefreshToken(Box::new(RefreshToken::new(
                endpoint(grant),
                SecretFile::new(refresh_token_file, "upstream.auth.refresh_token_file"),
                http.clock().clone(),
                metrics.clone(),
            ))),
            AuthConfig::ClientCredentials { grant } => {
                Self::ClientCredentials(Box::new(ClientCredentials::new(endpoint(grant))))
            }
            AuthConfig::TokenFile { token_file } => {
                Self::TokenFile(TokenFile::new(token_file, http.clock().clone()))
            }
        }
    }

    /// Makes one attempt.
    pub(in crate::partner_center) async fn obtain(
        &mut self,
    ) -> Result<ObtainedToken, GrantFailure> {
        match self {
            Self::RefreshToken(grant) => grant.obtain().await,
            Self::ClientCredentials(grant) => grant.obtain().await,
            Self::TokenFile(grant) => grant.obtain().await,
        }
    }

    /// Whether the credentials are others than the ones shown last.
    pub(super) async fn has_changed(&self) -> bool {
        match self {
            Self::RefreshToken(grant) => grant.has_changed().await,
            Self::ClientCredentials(grant) => grant.has_changed().await,
            Self::TokenFile(_) => true,
        }
    }

    /// Whether an attempt costs no more than reading a file, so that it is made on demand.
    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::TokenFile(_))
    }

    /// Whether something is held in memory that a restart would lose.
    pub(in crate::partner_center) fn has_unsaved(&self) -> bool {
        matches!(self, Self::RefreshToken(grant) if grant.has_unsaved())
    }

    /// Tries to write what is held in memory alone.
    pub(in crate::partner_center) async fn save(&mut self) {
        if let Self::RefreshToken(grant) = self {
            grant.save().await;
        }
    }
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
