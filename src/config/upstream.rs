use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use url::Url;

use super::{keys, settings::RawSettings};
use crate::domain::UpstreamApi;

/// `upstream.*`: how Partner Center is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Scheme, host and, where an environment wants one, path prefix. Default
    /// `https://api.partnercenter.microsoft.com`; `http` only to this machine.
    pub base_url: Url,
    /// Which call answers for the newest date of the simplified form. Default `insights`.
    pub source: UpstreamApi,
    /// Path of the commercial call below `base_url`; begins with `/`. Default
    /// `/v1/analytics/commercial/usage/license/`.
    pub commercial_path: String,
    /// Sent as `X-Locale`; visible ASCII. Default `en-US`.
    pub locale: String,
    /// Sent as `MS-PartnerCenter-Application`; visible ASCII. Default `usage-proxy`.
    pub application: String,
    /// Until a connection stands; above zero, at most `attempt_timeout`. Default `2s`.
    pub connect_timeout: Duration,
    /// One attempt: from sending the request to the last byte of its answer; above zero, at
    /// most `deadline`. Default `10s`.
    pub attempt_timeout: Duration,
    /// One logical call: waiting for a place, tokens, attempts and the pauses between them.
    /// Default `25s`.
    pub deadline: Duration,
    /// Calls under way at once. Default `16`.
    pub max_concurrency: NonZeroUsize,
    /// Attempts after the first; zero never tries again. Default `3`.
    pub retries: u32,
    /// Largest accepted answer in bytes, counted after decompression; above zero. All answers under way
    /// together take no more than that beyond 1 MiB for each call. Default `32MiB`.
    pub max_body: usize,
    /// Whether Partner Center is asked to say if the access token carries multi-factor proof.
    /// Default `false`.
    pub validate_mfa: bool,
    /// Whose credentials are shown. No default.
    pub auth: AuthConfig,
}

/// `upstream.auth.*`: how access tokens are had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthConfig {
    /// App+User, the secure application model: a refresh token is redeemed, and may rotate.
    RefreshToken {
        /// The token endpoint and who asks there.
        grant: GrantConfig,
        /// Holds the refresh token; rewritten whenever it rotates.
        refresh_token_file: PathBuf,
    },
    /// App only: the client's own credentials. The insights call refuses them, and nobody has shown that
    /// another call about usage takes them.
    ClientCredentials {
        /// The token endpoint and who asks there.
        grant: GrantConfig,
    },
    /// Another program writes the bare access token; read again whenever the file changes.
    TokenFile {
        /// Holds the access token and nothing else.
        token_file: PathBuf,
    },
}

/// A token endpoint, and who asks there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantConfig {
    /// `…/oauth2/token` (v1) or `…/oauth2/v2.0/token` (v2).
    pub token_url: Url,
    /// The application's id.
    pub client_id: String,
    /// How the application proves who it is.
    pub client_auth: ClientAuthConfig,
    /// What the token is for.
    pub audience: TokenAudience,
}

/// How an application proves to the token endpoint who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuthConfig {
    /// By a secret that both know.
    Secret {
        /// Holds the client secret and nothing else.
        client_secret_file: PathBuf,
    },
    /// By an assertion that it signs itself: `private_key_jwt`.
    Certificate {
        /// Holds the certificate that is registered with the application, in PEM.
        client_certificate_file: PathBuf,
        /// Holds its RSA key, in PEM, unencrypted.
        client_key_file: PathBuf,
    },
    /// By an assertion that another issuer signs, whom the application trusts: workload identity.
    FederatedToken {
        /// Holds the token; rewritten by whoever provides it, and read again each time.
        federated_token_file: PathBuf,
    },
}

/// What an access token is for, in the words of the endpoint's version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenAudience {
    /// v1: `resource=…`.
    Resource(String),
    /// v2: `scope=…`.
    Scope(String),
}

impl UpstreamConfig {
    pub(super) fn read(settings: &RawSettings) -> Option<Self> {
        Some(Self {
            base_url: settings.get(&keys::UPSTREAM_BASE_URL)?,
            source: settings.get(&keys::UPSTREAM_SOURCE)?,
            commercial_path: settings.get(&keys::UPSTREAM_COMMERCIAL_PATH)?,
            locale: settings.get(&keys::UPSTREAM_LOCALE)?,
            application: settings.get(&keys::UPSTREAM_APPLICATION)?,
            connect_timeout: settings.get(&keys::UPSTREAM_CONNECT_TIMEOUT)?,
            attempt_timeout: settings.get(&keys::UPSTREAM_ATTEMPT_TIMEOUT)?,
            deadline: settings.get(&keys::UPSTREAM_DEADLINE)?,
            max_concurrency: settings.get(&keys::UPSTREAM_MAX_CONCURRENCY)?,
            retries: settings.get(&keys::UPSTREAM_RETRIES)?,
            max_body: settings.get(&keys::UPSTREAM_MAX_BODY)?,
            validate_mfa: settings.get(&keys::UPSTREAM_VALIDATE_MFA)?,
            auth: AuthConfig::read(settings)?,
        })
    }
}
