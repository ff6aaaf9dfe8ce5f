//! The tokens of an account in the store that replicas share, encrypted and bound to the account.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest, Sha256};

use super::outcome::GrantedToken;
use crate::{
    config::{AuthConfig, TokenAudience},
    sealing::{KeyId, OpenSealedError, SealingKeys},
    store::{SealedTokens, StoredTokens},
};

/// An application at a token endpoint, to which stored tokens are bound.
#[derive(Clone, Debug)]
pub struct TokenAccount {
    name: Arc<str>,
    kind: &'static str,
    endpoint: String,
    client_id: String,
    audience: String,
}

/// The hash of a refresh token.
pub(crate) type TokenHash = [u8; 32];

/// The refresh token of an account.
#[derive(Clone, Debug)]
pub(crate) struct RefreshToken {
    pub(crate) token: SecretString,
    /// The hashes of the tokens that were in a file, and that it came from or replaced, in their order.
    pub(crate) origins: Vec<TokenHash>,
}

/// Stored tokens, decrypted.
#[derive(Debug)]
pub struct OpenedTokens {
    pub(crate) version: i64,
    /// The time since they were stored.
    pub age: Duration,
    /// The key that encrypted them.
    pub key_id: KeyId,
    /// The refresh token; `None` for an application alone.
    pub(crate) refresh_token: Result<Option<RefreshToken>, OpenSealedError>,
    /// Known without a key.
    pub(crate) origins: Vec<TokenHash>,
    /// The access token, if there is one for this audience that has not expired.
    pub(crate) access_token: Option<StoredAccessToken>,
}

/// A stored access token.
#[derive(Clone, Debug)]
pub(crate) struct StoredAccessToken {
    pub(crate) token: SecretString,
    pub(crate) remaining: Duration,
    pub(crate) lifetime: Duration,
}

/// More than any account has had in files. The oldest are forgotten.
const MAX_ORIGINS: usize = 64;

// === impl TokenAccount ===

impl TokenAccount {
    /// Returns `None` if another program obtains the tokens.
    pub fn new(auth: &AuthConfig) -> Option<Self> {
        let grant = auth.grant()?;
        let kind = match auth {
            AuthConfig::RefreshToken { .. } => "refresh_token",
            AuthConfig::ClientCredentials { .. } | AuthConfig::TokenFile { .. } => {
                "client_credentials"
            }
        };
        // A refresh token is of both versions of the endpoint.
        let endpoint = grant.token_url.as_str();
        let endpoint = endpoint.replace("/oauth2/v2.0/token", "/oauth2/token");
        let audience = match &grant.audience {
            TokenAudience::Resource(resource) => format!("resource {resource}"),
            TokenAudience::Scope(scope) => format!("scope {scope}"),
        };
        let mut hash = Sha256::new();
        for part in [&endpoint, &grant.client_id] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        let id = hash.finalize();
        let id: String = id
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Some(Self {
            name: format!("{kind}/{id}").into(),
            kind,
            endpoint,
            client_id: grant.client_id.clone(),
            audience,
        })
    }

    /// The name of its row in the store.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Decrypts stored tokens. An access token that cannot be decrypted is none.
    pub fn open(&self, stored: StoredTokens, keys: &SealingKeys) -> OpenedTokens {
        let tokens = stored.tokens;
        let refresh_token = tokens.refresh_token.map(|sealed| {
            let token = keys.open(&sealed, &self.refresh_purpose())?;
            Ok(RefreshToken {
                token,
                origins: tokens.origins.clone(),
            })
        });
        let access_token = tokens
            .access_token
            .and_then(|sealed| keys.open(&sealed, &self.access_purpose()).ok());
        OpenedTokens {
            version: stored.version,
            age: stored.age,
            key_id: tokens.key_id,
            refresh_token: refresh_token.transpose(),
            origins: tokens.origins,
            access_token: access_token
                .filter(|_| !tokens.remaining.is_zero())
                .map(|token| StoredAccessToken {
                    token,
                    remaining: tokens.remaining,
                    lifetime: tokens.lifetime,
                }),
        }
    }

    /// Encrypts tokens to store them. Returns `None` if there are no random numbers.
    pub(crate) fn seal(
        &self,
        refresh_token: Option<&RefreshToken>,
        access_token: Option<&StoredAccessToken>,
        keys: &SealingKeys,
    ) -> Option<SealedTokens> {
        let seal = |token: &SecretString, purpose: &[&str]| keys.seal(token, purpose);
        let sealed_refresh = match refresh_token {
            Some(refresh) => Some(seal(&refresh.token, &self.refresh_purpose())?),
            None => None,
        };
        let sealed_access = match access_token {
            Some(access) => Some(seal(&access.token, &self.access_purpose())?),
            None => None,
        };
        let origins = refresh_token.map_or(&[][..], |refresh| &refresh.origins);
        let of_access =
            |time: fn(&StoredAccessToken) -> Duration| access_token.map_or(Duration::ZERO, time);
        Some(SealedTokens {
            key_id: keys.ids().next()?,
            refresh_token: sealed_refresh,
            access_token: sealed_access,
            remaining: of_access(|access| access.remaining),
            lifetime: of_access(|access| access.lifetime),
            origins: origins.to_vec(),
        })
    }

    fn refresh_purpose(&self) -> [&str; 5] {
        let Self {
            name,
            kind,
            endpoint,
            client_id,
            ..
        } = self;
        ["refresh token", name, kind, endpoint, client_id]
    }

    fn access_purpose(&self) -> [&str; 6] {
        let Self {
            name,
            kind,
            endpoint,
            client_id,
            audience,
        } = self;
        ["access token", name, kind, endpoint, client_id, audience]
    }
}

// === impl OpenedTokens ===

impl OpenedTokens {
    /// The error if the refresh token cannot be decrypted.
    pub fn locked(&self) -> Option<OpenSealedError> {
        self.refresh_token.as_ref().err().copied()
    }
}

// === impl RefreshToken ===

impl RefreshToken {
    /// A token of a file, which replaces those of `origins`.
    pub(crate) fn of_file(token: SecretString, mut origins: Vec<TokenHash>) -> Self {
        let hash = token_hash(&token);
        origins.retain(|origin| *origin != hash);
        origins.push(hash);
        let excess = origins.len().saturating_sub(MAX_ORIGINS);
        origins.drain(..excess);
        Self { token, origins }
    }

    /// Returns whether a file with this token has nothing new: it is this one, or one that it came from
    /// or replaced.
    pub(crate) fn includes(&self, file: &SecretString) -> bool {
        let hash = token_hash(file);
        self.origins.contains(&hash) || token_hash(&self.token) == hash
    }

    /// Returns whether it came from or replaced the file's token that the other came from.
    pub(crate) fn is_as_new_as(&self, other: &Self) -> bool {
        let origin = other.origins.last();
        origin.is_none_or(|origin| self.origins.contains(origin))
    }

    /// Adds the origins of another token, which this one replaces.
    pub(crate) fn replace(&mut self, other: &Self) {
        let own = std::mem::take(&mut self.origins);
        let mut origins = other.origins.clone();
        origins.retain(|origin| !own.contains(origin));
        origins.extend(own);
        let excess = origins.len().saturating_sub(MAX_ORIGINS);
        origins.drain(..excess);
        self.origins = origins;
    }
}

// === impl StoredAccessToken ===

impl StoredAccessToken {
    /// Returns what is left of a token at this time; `None` if nothing is, or that is unknown.
    pub(crate) fn at(granted: &GrantedToken, now: Instant) -> Option<Self> {
        let lifetime = granted.lifetime?;
        let age = now.saturating_duration_since(granted.requested_at);
        let remaining = lifetime.checked_sub(age).filter(|left| !left.is_zero())?;
        Some(Self {
            token: granted.token.clone(),
            remaining,
            lifetime,
        })
    }

    /// Returns whether it is too young for any replica to renew it.
    pub(crate) fn is_young(&self) -> bool {
        self.remaining > self.lifetime / 4
    }

    /// Returns it as if it had been requested here.
    pub(crate) fn granted(self, now: Instant) -> GrantedToken {
        let age = self.lifetime.saturating_sub(self.remaining);
        let (requested_at, lifetime) = match now.checked_sub(age) {
            Some(requested_at) => (requested_at, self.lifetime),
            None => (now, self.remaining),
        };
        GrantedToken {
            token: self.token,
            lifetime: Some(lifetime),
            requested_at,
        }
    }
}

/// Returns the hash of a refresh token, which is too random to be guessed.
pub(crate) fn token_hash(token: &SecretString) -> TokenHash {
    let hash = Sha256::new()
        .chain_update(b"usage-proxy refresh token\0")
        .chain_update(token.expose_secret());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ClientAuthConfig, GrantConfig};

    const HOUR: Duration = Duration::from_secs(3600);

    fn account(token_url: &str, client_id: &str, scope: &str) -> TokenAccount {
        let grant = GrantConfig {
            token_url: token_url.parse().unwrap(),
            client_id: client_id.to_owned(),
            client_auth: ClientAuthConfig::Secret {
                client_secret_file: "unused".into(),
            },
            audience: TokenAudience::Scope(scope.to_owned()),
        };
        TokenAccount::new(&AuthConfig::RefreshToken {
            grant,
            refresh_token_file: "unused".into(),
        })
        .unwrap()
    }

    fn ours() -> TokenAccount {
        account("https://login.example/t/oauth2/v2.0/token", "app", "scope")
    }

    fn keys() -> SealingKeys {
        let key = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=";
        SealingKeys::parse(&key.into()).unwrap()
    }

    fn sealed() -> StoredTokens {
        let refresh = RefreshToken::of_file("refresh".into(), vec![[1; 32]]);
        let access = StoredAccessToken {
            token: "access".into(),
            remaining: HOUR / 2,
            lifetime: HOUR,
        };
        StoredTokens {
            version: 1,
            age: HOUR / 2,
            tokens: ours().seal(Some(&refresh), Some(&access), &keys()).unwrap(),
        }
    }

    fn texts(opened: OpenedTokens) -> (Result<String, OpenSealedError>, Option<String>) {
        let text = |token: SecretString| token.expose_secret().to_owned();
        let refresh = opened
            .refresh_token
            .map(|refresh| text(refresh.unwrap().token));
        (
            refresh,
            opened.access_token.map(|access| text(access.token)),
        )
    }

    #[test]
    fn tokens_open_only_for_their_account_and_purpose() {
        let keys = keys();
        let altered = Err(OpenSealedError::Altered);

        let opened = ours().open(sealed(), &keys);
        assert_eq!(
            texts(opened),
            (Ok("refresh".to_owned()), Some("access".to_owned()))
        );

        for other in [
            account(
                "https://login.example/other/oauth2/v2.0/token",
                "app",
                "scope",
            ),
            account(
                "https://login.example/t/oauth2/v2.0/token",
                "other",
                "scope",
            ),
        ] {
            assert_ne!(other.name(), ours().name());
            assert_eq!(texts(other.open(sealed(), &keys)), (altered.clone(), None));
        }
        let mut swapped = sealed();
        let tokens = &mut swapped.tokens;
        std::mem::swap(&mut tokens.refresh_token, &mut tokens.access_token);
        assert_eq!(texts(ours().open(swapped, &keys)), (altered, None));
    }

    #[test]
    fn a_refresh_token_outlives_another_scope_and_version_of_the_endpoint() {
        let opened = account("https://login.example/t/oauth2/token", "app", "other");

        let opened = opened.open(sealed(), &keys());

        assert_eq!(texts(opened), (Ok("refresh".to_owned()), None));
    }

    #[test]
    fn a_token_of_the_file_is_new_unless_it_came_before() {
        let origins = |token: &RefreshToken| token.origins.clone();
        let first = RefreshToken::of_file("first".into(), Vec::new());
        let mut rotated = RefreshToken::of_file("second".into(), origins(&first));
        rotated.token = "rotated".into();

        for (file, is_known) in [
            ("first", true),
            ("second", true),
            ("rotated", true),
            ("third", false),
        ] {
            assert_eq!(rotated.includes(&file.into()), is_known, "{file}");
        }
        assert!(rotated.is_as_new_as(&first));
        assert!(!first.is_as_new_as(&rotated));
        let mut third = RefreshToken::of_file("third".into(), Vec::new());
        third.replace(&rotated);
        assert!(third.includes(&"first".into()) && third.is_as_new_as(&rotated));
        assert!(!rotated.is_as_new_as(&third));
    }

    #[test]
    fn the_origins_of_a_token_stay_few() {
        let mut token = RefreshToken::of_file("0".into(), Vec::new());
        for index in 1..=2 * MAX_ORIGINS {
            token = RefreshToken::of_file(index.to_string().into(), token.origins);
        }

        assert_eq!(token.origins.len(), MAX_ORIGINS);
        assert!(token.includes(&(2 * MAX_ORIGINS - 1).to_string().into()));
    }
}
