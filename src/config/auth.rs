//! `upstream.auth.*`: the keys of the account at Partner Center, and the configuration they make.

use std::path::{Path, PathBuf};

use strum::{EnumString, IntoStaticStr};
use url::Url;

use super::{
    key::AnyConfigKey as _,
    network_types::ENDPOINT,
    section::section,
    settings::RawSettings,
    value_type::{FILE, OAUTH_TEXT, ValueType, choice},
};

/// The default audience of a token.
const PARTNER_CENTER: &str = "https://api.partnercenter.microsoft.com";

/// The account, by which access tokens are obtained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthConfig {
    /// App+User, the secure application model: a refresh token is redeemed, and may rotate.
    RefreshToken {
        /// The token endpoint and the application.
        grant: GrantConfig,
        /// The file of the refresh token; rewritten when the token rotates.
        refresh_token_file: PathBuf,
    },
    /// App only: the application's own credentials. The insights call refuses them; for another
    /// call about usage it is unproven.
    ClientCredentials {
        /// The token endpoint and the application.
        grant: GrantConfig,
    },
    /// Another program writes the access token.
    TokenFile {
        /// The file of the access token; read again when it changes.
        token_file: PathBuf,
    },
}

/// A token endpoint and the application that it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantConfig {
    /// `…/oauth2/token` (v1) or `…/oauth2/v2.0/token` (v2).
    pub token_url: Url,
    /// The application's id.
    pub client_id: String,
    /// The application's credential.
    pub client_auth: ClientAuthConfig,
    /// The resource that the token is for.
    pub audience: TokenAudience,
}

/// The credential by which an application authenticates at the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuthConfig {
    /// A secret that both know.
    Secret {
        /// The file of the client secret.
        client_secret_file: PathBuf,
    },
    /// An assertion that the application signs: `private_key_jwt`.
    Certificate {
        /// The certificate that is registered with the application, in PEM.
        client_certificate_file: PathBuf,
        /// Its RSA key, in PEM, unencrypted.
        client_key_file: PathBuf,
    },
    /// An assertion that another issuer signs: workload identity.
    FederatedToken {
        /// The file of the token; read again each time.
        federated_token_file: PathBuf,
    },
}

/// The resource that an access token is for, as the endpoint's version names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenAudience {
    /// v1: `resource=…`.
    Resource(String),
    /// v2: `scope=…`.
    Scope(String),
}

/// `upstream.auth.kind`, which decides which other `upstream.auth.*` keys apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum AuthKind {
    RefreshToken,
    ClientCredentials,
    TokenFile,
}

/// The two generations of the token endpoint, which name the audience differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenEndpointVersion {
    V1,
    V2,
}

const AUTH_KIND: ValueType<AuthKind> = ValueType::new(
    "`refresh_token`, `client_credentials` or `token_file`",
    choice,
);

const GRANTS: &[&str] = &["refresh_token", "client_credentials"];

section! {
    /// `upstream.auth.*` as it is written; [`AuthConfig`] has the parts that belong together.
    pub(super) struct AuthKeys of upstream_auth = "upstream.auth" {
        kind: AuthKind as AUTH_KIND, KeyPresence::Required;
        token_url: Option<Url> as ENDPOINT, KeyPresence::RequiredBy(GRANTS);
        client_id: Option<String> as OAUTH_TEXT, KeyPresence::RequiredBy(GRANTS);
        client_secret_file: Option<PathBuf> as FILE, KeyPresence::AllowedBy(GRANTS);
        client_certificate_file: Option<PathBuf> as FILE, KeyPresence::AllowedBy(GRANTS);
        client_key_file: Option<PathBuf> as FILE, KeyPresence::AllowedBy(GRANTS);
        federated_token_file: Option<PathBuf> as FILE, KeyPresence::AllowedBy(GRANTS);
        refresh_token_file: Option<PathBuf> as FILE, KeyPresence::RequiredBy(&["refresh_token"]);
        scope: Option<String> as OAUTH_TEXT, KeyPresence::AllowedBy(GRANTS);
        resource: Option<String> as OAUTH_TEXT, KeyPresence::AllowedBy(GRANTS);
        token_file: Option<PathBuf> as FILE, KeyPresence::RequiredBy(&["token_file"]);
    }
}

/// Makes Partner Center the default audience, if the version of the token endpoint is known.
pub(super) fn set_default_audience(settings: &mut RawSettings) {
    let is_set = |name: &str| settings.source_of(name).is_some();
    if is_set(upstream_auth::scope.name()) || is_set(upstream_auth::resource.name()) {
        return;
    }
    let (Some(kind), Some(url)) = (
        settings.get(&upstream_auth::kind),
        settings.get(&upstream_auth::token_url),
    ) else {
        return;
    };
    let scope = match kind {
        AuthKind::RefreshToken => format!("{PARTNER_CENTER}/user_impersonation"),
        AuthKind::ClientCredentials => format!("{PARTNER_CENTER}/.default"),
        AuthKind::TokenFile => return,
    };
    match TokenEndpointVersion::from_url(&url) {
        Some(TokenEndpointVersion::V1) => {
            settings.set_default(&upstream_auth::resource, PARTNER_CENTER.to_owned());
        }
        Some(TokenEndpointVersion::V2) => settings.set_default(&upstream_auth::scope, scope),
        None => {}
    }
}

/// Reads the account; returns `None` if a value is missing or invalid.
pub(super) fn read(settings: &RawSettings) -> Option<AuthConfig> {
    let keys = upstream_auth::read(settings)?;
    Some(match keys.kind {
        AuthKind::RefreshToken => AuthConfig::RefreshToken {
            refresh_token_file: keys.refresh_token_file.clone()?,
            grant: keys.into_grant()?,
        },
        AuthKind::ClientCredentials => AuthConfig::ClientCredentials {
            grant: keys.into_grant()?,
        },
        AuthKind::TokenFile => AuthConfig::TokenFile {
            token_file: keys.token_file?,
        },
    })
}

// === impl AuthKeys ===

impl AuthKeys {
    fn into_grant(self) -> Option<GrantConfig> {
        let audience = match (self.scope, self.resource) {
            (Some(scope), _) => TokenAudience::Scope(scope),
            (None, resource) => TokenAudience::Resource(resource?),
        };
        // `rules` has checked that there is one of them only.
        let client_auth = match (self.client_secret_file, self.federated_token_file) {
            (Some(client_secret_file), _) => ClientAuthConfig::Secret { client_secret_file },
            (None, Some(federated_token_file)) => ClientAuthConfig::FederatedToken {
                federated_token_file,
            },
            (None, None) => ClientAuthConfig::Certificate {
                client_certificate_file: self.client_certificate_file?,
                client_key_file: self.client_key_file?,
            },
        };
        Some(GrantConfig {
            token_url: self.token_url?,
            client_id: self.client_id?,
            client_auth,
            audience,
        })
    }
}

// === impl AuthConfig ===

impl AuthConfig {
    /// Returns the token endpoint and the application, for the kinds that have them.
    pub const fn grant(&self) -> Option<&GrantConfig> {
        match self {
            Self::RefreshToken { grant, .. } | Self::ClientCredentials { grant } => Some(grant),
            Self::TokenFile { .. } => None,
        }
    }
}

impl ClientAuthConfig {
    /// Returns the files of the credential, each with its key.
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        match self {
            Self::Secret { client_secret_file } => {
                vec![(upstream_auth::client_secret_file.name(), client_secret_file)]
            }
            Self::Certificate {
                client_certificate_file,
                client_key_file,
            } => vec![
                (
                    upstream_auth::client_certificate_file.name(),
                    client_certificate_file,
                ),
                (upstream_auth::client_key_file.name(), client_key_file),
            ],
            Self::FederatedToken {
                federated_token_file,
            } => vec![(
                upstream_auth::federated_token_file.name(),
                federated_token_file,
            )],
        }
    }
}

// === impl TokenEndpointVersion ===

impl TokenEndpointVersion {
    /// Reads the end of the path, since the authority and the tenant are the partner's.
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
