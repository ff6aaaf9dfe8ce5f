use std::path::{Path, PathBuf};

use url::Url;

use super::{
    AuthConfig, ClientAuthConfig, GrantConfig, TokenAudience, choices::AuthKind, keys,
    settings::RawSettings,
};

/// The two generations of the token endpoint, which name what a token is for differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenEndpointVersion {
    V1,
    V2,
}

/// What tokens are for, unless configured otherwise.
const PARTNER_CENTER: &str = "https://api.partnercenter.microsoft.com";

// === impl TokenEndpoint ===

impl TokenEndpointVersion {
    /// Judged by the end of the path, since the tenant and the authority are the partner's.
    pub(super) fn from_url(url: &Url) -> Option<Self> {
        let path = url.path();
        if path.ends_with("/oauth2/v2.0/token") {
            Some(Self::V2)
        } else if path.ends_with("/oauth2/token") {
            Some(Self::V1)
        } else {
            None
        }
    }
}

// === impl AuthConfig ===

impl AuthConfig {
    pub(super) fn read(settings: &RawSettings) -> Option<Self> {
        let kind = settings.get(&keys::AUTH_KIND)?;
        Some(match kind {
            AuthKind::RefreshToken => Self::RefreshToken {
                grant: GrantConfig::read(settings, kind)?,
                refresh_token_file: settings.get(&keys::AUTH_REFRESH_TOKEN_FILE)?,
            },
            AuthKind::ClientCredentials => Self::ClientCredentials {
                grant: GrantConfig::read(settings, kind)?,
            },
            AuthKind::TokenFile => Self::TokenFile {
                token_file: settings.get(&keys::AUTH_TOKEN_FILE)?,
            },
        })
    }

    pub(super) const fn kind(&self) -> AuthKind {
        match self {
            Self::RefreshToken { .. } => AuthKind::RefreshToken,
            Self::ClientCredentials { .. } => AuthKind::ClientCredentials,
            Self::TokenFile { .. } => AuthKind::TokenFile,
        }
    }

    /// The token endpoint and who asks there, for the kinds that have one.
    pub const fn grant(&self) -> Option<&GrantConfig> {
        match self {
            Self::RefreshToken { grant, .. } | Self::ClientCredentials { grant } => Some(grant),
            Self::TokenFile { .. } => None,
        }
    }
}

impl GrantConfig {
    fn read(settings: &RawSettings, kind: AuthKind) -> Option<Self> {
        let token_url = settings.get(&keys::AUTH_TOKEN_URL)?;
        let stated = settings
            .get(&keys::AUTH_SCOPE)
            .map(TokenAudience::Scope)
            .or_else(|| {
                settings
                    .get(&keys::AUTH_RESOURCE)
                    .map(TokenAudience::Resource)
            });
        Some(Self {
            audience: stated.or_else(|| TokenAudience::default_for(kind, &token_url))?,
            token_url,
            client_id: settings.get(&keys::AUTH_CLIENT_ID)?,
            client_auth: ClientAuthConfig::read(settings)?,
        })
    }
}

impl ClientAuthConfig {
    /// The one that is stated; that it is one, `rules` has made sure of.
    fn read(settings: &RawSettings) -> Option<Self> {
        if let Some(client_secret_file) = settings.get(&keys::AUTH_CLIENT_SECRET_FILE) {
            return Some(Self::Secret { client_secret_file });
        }
        if let Some(federated_token_file) = settings.get(&keys::AUTH_FEDERATED_TOKEN_FILE) {
            return Some(Self::FederatedToken {
                federated_token_file,
            });
        }
        Some(Self::Certificate {
            client_certificate_file: settings.get(&keys::AUTH_CLIENT_CERTIFICATE_FILE)?,
            client_key_file: settings.get(&keys::AUTH_CLIENT_KEY_FILE)?,
        })
    }

    /// The files that are named, each with its key.
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        match self {
            Self::Secret { client_secret_file } => {
                vec![(keys::AUTH_CLIENT_SECRET_FILE.name(), client_secret_file)]
            }
            Self::Certificate {
                client_certificate_file,
                client_key_file,
            } => vec![
                (
                    keys::AUTH_CLIENT_CERTIFICATE_FILE.name(),
                    client_certificate_file,
                ),
                (keys::AUTH_CLIENT_KEY_FILE.name(), client_key_file),
            ],
            Self::FederatedToken {
                federated_token_file,
            } => vec![(keys::AUTH_FEDERATED_TOKEN_FILE.name(), federated_token_file)],
        }
    }

    /// The file that a key of these names.
    pub(super) fn file(&self, key: &str) -> Option<PathBuf> {
        let mut files = self.files().into_iter();
        files.find_map(|(name, file)| (name == key).then(|| file.to_owned()))
    }
}

impl TokenAudience {
    /// Partner Center, in the words of this endpoint; `None` where its version cannot be told.
    fn default_for(kind: AuthKind, token_url: &Url) -> Option<Self> {
        Some(match (TokenEndpointVersion::from_url(token_url)?, kind) {
            (TokenEndpointVersion::V1, _) => Self::Resource(PARTNER_CENTER.to_owned()),
            (TokenEndpointVersion::V2, AuthKind::ClientCredentials) => {
                Self::Scope(format!("{PARTNER_CENTER}/.default"))
            }
            (TokenEndpointVersion::V2, _) => {
                Self::Scope(format!("{PARTNER_CENTER}/user_impersonation"))
            }
        })
    }

    pub(super) fn scope(&self) -> Option<&String> {
        match self {
            Self::Scope(scope) => Some(scope),
            Self::Resource(_) => None,
        }
    }

    pub(super) fn resource(&self) -> Option<&String> {
        match self {
            Self::Resource(resource) => Some(resource),
            Self::Scope(_) => None,
        }
    }
}
