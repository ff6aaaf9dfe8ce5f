//! The credentials that get an access token.

use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};

use super::{
    account::{RefreshToken, TokenAccount},
    credential::ClientCredential,
    endpoint::{GrantForm, TokenEndpoint},
    outcome::{GrantFailure, GrantFailureKind, GrantedToken},
    refresh_token::RefreshTokenStore,
    secret_file::{Fingerprint, SecretFile, UnreadableSecret},
    shared_grant::SharedGrant,
};
use crate::{
    clock::SharedClock,
    config::{AuthConfig, UpstreamConfig},
    http_client::HttpClient,
    observability::traces::Tracer,
    partner_center::{deps::SharedTokenStore, metrics::UpstreamMetrics},
};

/// The configuration key of the refresh token's file.
const REFRESH_TOKEN: &str = "upstream.auth.refresh_token_file";

/// The source of access tokens.
#[derive(Debug)]
pub(crate) enum TokenGrant {
    Endpoint(Box<EndpointGrant>),
    /// The same, with tokens that replicas share.
    Shared(Box<SharedGrant>),
    /// A file with the token of another program. It is compared by content: Kubernetes replaces secrets
    /// by symlinks, so that times and inodes mislead.
    File {
        file: SecretFile,
        clock: SharedClock,
    },
}

/// The `refresh_token` grant (RFC 6749 §6) of the secure application model, or the
/// `client_credentials` grant (§4.4), whose tokens the insights call rejects.
#[derive(Debug)]
pub(crate) struct EndpointGrant {
    endpoint: TokenEndpoint,
    /// `None` for the `client_credentials` grant.
    refresh_token: Option<RefreshTokenStore>,
    /// The fingerprint of the credentials that were sent last, or that replaced them; `None` if they could not be read.
    last_sent: Option<Fingerprint>,
}

// === impl TokenGrant ===

impl TokenGrant {
    pub(crate) fn from_config(
        config: &UpstreamConfig,
        http: &HttpClient,
        tracer: Option<&Tracer>,
        metrics: &UpstreamMetrics,
        shared: Option<SharedTokenStore>,
    ) -> Self {
        let clock = http.clock().clone();
        let (grant, file) = match &config.auth {
            AuthConfig::RefreshToken {
                grant,
                refresh_token_file,
            } => (grant, Some(refresh_token_file)),
            AuthConfig::ClientCredentials { grant } => (grant, None),
            AuthConfig::TokenFile { token_file } => {
                return Self::File {
                    file: SecretFile::new(token_file, "upstream.auth.token_file"),
                    clock,
                };
            }
        };
        let endpoint = TokenEndpoint::new(
            grant,
            http.clone(),
            config.attempt_timeout,
            tracer.cloned(),
            metrics.clone(),
        );
        if let Some((shared, account)) = shared.zip(TokenAccount::new(&config.auth)) {
            let file = file.map(|file| SecretFile::new(file, REFRESH_TOKEN));
            let grant = SharedGrant::new(endpoint, file, account, shared, metrics.clone());
            return Self::Shared(Box::new(grant));
        }
        let store = |file: &PathBuf| RefreshTokenStore::new(file, clock, metrics.clone());
        Self::Endpoint(Box::new(EndpointGrant {
            endpoint,
            refresh_token: file.map(store),
            last_sent: None,
        }))
    }

    /// Only reads the file of the refresh token from now on; see [`RefreshTokenStore::share`].
    pub(crate) fn share(&mut self, stored: Option<RefreshToken>) {
        if let Self::Endpoint(grant) = self
            && let Some(store) = &mut grant.refresh_token
        {
            store.share(stored);
        }
    }

    /// Makes one attempt to get another token than this one.
    pub(crate) async fn obtain(
        &mut self,
        unwanted: Option<&SecretString>,
    ) -> Result<GrantedToken, GrantFailure> {
        let (file, clock) = match self {
            Self::Endpoint(grant) => return grant.obtain().await,
            Self::Shared(grant) => return grant.obtain(unwanted).await,
            Self::File { file, clock } => (file, clock),
        };
        let requested_at = clock.now();
        // The other program may write the file at this moment.
        let token = file.read().await.map_err(|error| {
            let detail = "upstream.auth.token_file has no access token";
            GrantFailure::transient(detail, error.to_string())
        })?;
        Ok(GrantedToken {
            token,
            lifetime: None,
            requested_at,
        })
    }

    /// Returns whether the credentials are others than those sent last.
    pub(crate) async fn has_changed(&mut self) -> bool {
        match self {
            Self::Endpoint(grant) => grant.has_changed().await,
            Self::Shared(grant) => grant.has_changed().await,
            Self::File { .. } => true,
        }
    }

    /// Returns whether an attempt only reads a file, so that it is made on demand.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::File { .. })
    }

    /// Returns whether a rotated refresh token could not be stored, so that a restart would lose it.
    pub(crate) fn has_unsaved(&self) -> bool {
        match self {
            Self::Endpoint(grant) => {
                let store = grant.refresh_token.as_ref();
                store.is_some_and(RefreshTokenStore::has_unsaved)
            }
            Self::Shared(grant) => grant.has_unsaved(),
            Self::File { .. } => false,
        }
    }

    /// Stores a refresh token that could not be stored before.
    pub(crate) async fn save(&mut self) {
        match self {
            Self::Endpoint(grant) => {
                if let Some(store) = &mut grant.refresh_token {
                    store.save().await;
                }
            }
            Self::Shared(grant) => grant.save().await,
            Self::File { .. } => {}
        }
    }
}

// === impl EndpointGrant ===

impl EndpointGrant {
    /// Redeems the credentials. A rotated refresh token is stored before anything else.
    async fn obtain(&mut self) -> Result<GrantedToken, GrantFailure> {
        self.last_sent = None;
        if let Some(store) = &mut self.refresh_token {
            store.save().await;
        }
        let (credential, token) = self.read().await?;
        self.last_sent = Some(fingerprint(&credential, token.as_ref()));
        let form = match &token {
            Some(token) => GrantForm::RefreshToken(token),
            None => GrantForm::ClientCredentials,
        };
        let granted = self.endpoint.redeem(&credential, form).await;
        let (Some(store), Some(sent)) = (&mut self.refresh_token, &token) else {
            return granted?.access;
        };
        let granted = granted.inspect_err(|failure| {
            if failure.kind == GrantFailureKind::RefreshTokenRefused {
                store.forget_unsaved();
            }
        })?;
        if let Some(rotated) = granted.refresh_token
            && rotated.expose_secret() != sent.expose_secret()
        {
            self.last_sent = Some(fingerprint(&credential, Some(&rotated)));
            store.rotate(sent, rotated).await;
        }
        granted.access
    }

    async fn has_changed(&self) -> bool {
        if let Some(store) = &self.refresh_token
            && store.is_overtaken().await
        {
            return true;
        }
        let current = self.read().await.ok();
        current.map(|(credential, token)| fingerprint(&credential, token.as_ref()))
            != self.last_sent
    }

    async fn read(&self) -> Result<(ClientCredential, Option<SecretString>), UnreadableSecret> {
        let credential = self.endpoint.credential().await?;
        let token = match &self.refresh_token {
            Some(store) => Some(store.read().await?),
            None => None,
        };
        Ok((credential, token))
    }
}

/// Returns the fingerprint of all credentials that are sent together.
pub(super) fn fingerprint(
    credential: &ClientCredential,
    token: Option<&SecretString>,
) -> Fingerprint {
    let mut secrets = credential.secrets();
    secrets.extend(token);
    Fingerprint::of(&secrets)
}
