//! The three kinds of credentials that bring an access token.

use std::path::Path;

use super::{
    endpoint::{GrantForm, TokenEndpoint},
    outcome::{GrantFailure, ObtainedToken},
    refresh_token::RefreshToken,
    secret_file::{Fingerprint, SecretFile},
};
use crate::{
    clock::SharedClock,
    config::{AuthConfig, UpstreamConfig},
    http_client::HttpClient,
    observability::traces::Tracer,
    partner_center::metrics::UpstreamMetrics,
};

/// How access tokens are had.
#[derive(Debug)]
pub(in crate::partner_center) enum TokenGrant {
    RefreshToken(Box<RefreshToken>),
    ClientCredentials(Box<ClientCredentials>),
    TokenFile(TokenFile),
}

/// The `client_credentials` grant (RFC 6749 §4.4), App only.
///
/// The insights call rejects such tokens.
#[derive(Debug)]
pub(in crate::partner_center) struct ClientCredentials {
    endpoint: TokenEndpoint,
    /// Of what was shown last; `None` when it could not be read.
    shown: Option<Fingerprint>,
}

/// The file of another program's token.
///
/// It is compared by content: Kubernetes swaps secrets by symlink, which leaves times and inodes
/// to mislead.
#[derive(Debug)]
pub(in crate::partner_center) struct TokenFile {
    file: SecretFile,
    clock: SharedClock,
}

// === impl Grant ===

impl TokenGrant {
    pub(in crate::partner_center) fn from_config(
        config: &UpstreamConfig,
        http: &HttpClient,
        tracer: Option<&Tracer>,
        metrics: &UpstreamMetrics,
    ) -> Self {
        let endpoint = |grant| {
            TokenEndpoint::new(
                (http.clone(), tracer.cloned()),
                grant,
                config.attempt_timeout,
                metrics.clone(),
            )
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

// === impl ClientCredentials ===

impl ClientCredentials {
    pub(super) fn new(endpoint: TokenEndpoint) -> Self {
        Self {
            endpoint,
            shown: None,
        }
    }

    pub(super) async fn obtain(&mut self) -> Result<ObtainedToken, GrantFailure> {
        self.shown = None;
        let credential = self.endpoint.credential().await?;
        self.shown = Some(Fingerprint::of(&credential.parts()));
        let granted = self
            .endpoint
            .redeem(&credential, GrantForm::ClientCredentials)
            .await?;
        granted.access
    }

    /// Whether the files hold anything else than what was shown last.
    pub(super) async fn has_changed(&self) -> bool {
        let now = self.endpoint.credential().await.ok();
        now.map(|credential| Fingerprint::of(&credential.parts())) != self.shown
    }
}

// === impl TokenFile ===

impl TokenFile {
    pub(super) fn new(path: &Path, clock: SharedClock) -> Self {
        Self {
            file: SecretFile::new(path, "upstream.auth.token_file"),
            clock,
        }
    }

    /// Reads the token. Its lifetime is the business of whoever writes it.
    pub(super) async fn obtain(&self) -> Result<ObtainedToken, GrantFailure> {
        let asked_at = self.clock.now();
        // A sidecar may not have written yet, or write again at this moment.
        let token = self.file.read().await.map_err(|fault| {
            GrantFailure::passing(
                "upstream.auth.token_file holds no access token",
                fault.to_string(),
            )
        })?;
        Ok(ObtainedToken {
            token,
            lifetime: None,
            asked_at,
        })
    }
}
