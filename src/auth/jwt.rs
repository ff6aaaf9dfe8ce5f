//! Callers that show a token which an issuer signed: a JWT (RFC 7519) by the rules of RFC 8725 and
//! RFC 9068, from Entra ID, Keycloak or any other OpenID Connect issuer.
//!
//! `header` reads how a token says it is signed, `jwks` has the issuer's keys from `source`,
//! `key_set` judges what each key is for and checks signature, issuer and audience, `claims` the
//! time and who it is. What was valid a moment ago is `token_cache`.

mod claims;
mod header;
mod jwks;
mod key_set;
mod metrics;
#[cfg(test)]
mod proptests;
mod rejection;
mod remembered;
mod source;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use prometheus::Registry;

pub use self::rejection::{TokenRejection, VerifyError};
use self::{
    header::TokenHeader, jwks::JwksCache, key_set::KeySet, metrics::JwksMetrics,
    remembered::VerifiedTokenCache, source::JwksSource,
};
use crate::{
    clock::SharedClock,
    config::JwtConfig,
    domain::{CustomerAccess, ScopeSet},
    jitter::Jitter,
    shutdown::Shutdown,
};

/// Tells who a token was made for; clones share the keys.
#[derive(Clone, Debug)]
pub struct JwtVerifier {
    inner: Arc<VerifierState>,
}

#[derive(Debug)]
struct VerifierState {
    config: JwtConfig,
    jwks: Arc<JwksCache>,
    token_cache: VerifiedTokenCache,
    clock: SharedClock,
}

/// What the verifier takes from outside.
#[derive(Debug)]
pub struct JwtDeps<'a> {
    /// Time.
    pub clock: SharedClock,
    /// Spreads fetches after a failure.
    pub jitter: Jitter,
    /// Ends the task that fetches keys.
    pub shutdown: Shutdown,
    /// Where metrics are registered.
    pub registry: &'a Registry,
}

/// What a valid token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedToken {
    /// Who the caller is: the value of `callers.jwt.subject_claim`, after [`VerifiedToken::PREFIX`].
    name: Arc<str>,
    /// The scopes that the token grants, none where it has no such claim; `None` when
    /// `callers.jwt.scopes_claim` is not configured.
    pub scopes: Option<ScopeSet>,
    /// The customers that the token grants, none where it has no such claim; `None` when
    /// `callers.jwt.customers_claim` is not configured.
    pub customers: Option<CustomerAccess>,
}

/// The verifier cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VerifierStartError {
    /// TLS cannot be set up, for want of CA certificates for example.
    #[error("cannot make a client for the token issuer")]
    Client(#[from] reqwest::Error),
    /// Another component has a metric of the same name.
    #[error("cannot register the metrics")]
    Metrics(#[from] prometheus::Error),
}

// === impl JwtVerifier ===

impl JwtVerifier {
    /// A verifier that begins to fetch the issuer's keys, and does not wait for them.
    ///
    /// # Errors
    ///
    /// [`VerifierStartError`]; an issuer that is down is none.
    pub fn start(config: &JwtConfig, deps: &JwtDeps<'_>) -> Result<Self, VerifierStartError> {
        let source = JwksSource::new(config.clone(), Arc::clone(&deps.clock))?;
        let jwks = JwksCache::start(source, JwksMetrics::new(deps.registry)?, deps);
        let inner = VerifierState {
            config: config.clone(),
            jwks,
            token_cache: VerifiedTokenCache::default(),
            clock: Arc::clone(&deps.clock),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Whether a credential has the form of a token: a JSON object in base64url, and a dot. Keys
    /// that `hash-key` makes have no dots.
    pub fn is_jwt(credential: &[u8]) -> bool {
        credential.starts_with(b"eyJ") && credential.contains(&b'.')
    }

    /// Tells who a token was made for, if it is valid now.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] says whether the token or the issuer is at fault.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: keys are fetched in a task of their own.
    pub async fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, VerifyError> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let digest = VerifiedTokenCache::digest(token);
        if let Some(keys) = inner.jwks.held()
            && let Some(verified) = inner.token_cache.get(&digest, &keys, now)
        {
            return Ok(verified);
        }
        let header = TokenHeader::parse(token)?;
        let keys = inner.jwks.with_key(&header).await?;
        let wall = inner.clock.wall_time();
        let (verified, valid_for) = verify_with_keys(token, &header, &keys, &inner.config, wall)?;
        let verified = Arc::new(verified);
        let now = inner.clock.now();
        let keep = Arc::clone(&verified);
        inner.token_cache.insert(digest, keep, keys, now, valid_for);
        Ok(verified)
    }
}

// === impl Verified ===

impl VerifiedToken {
    /// What the name of a caller that the callers file does not know begins with. No name in the
    /// file can: logs do not mistake one for the other.
    pub const PREFIX: &str = "token:";

    fn new(subject: &str, scopes: Option<ScopeSet>, customers: Option<CustomerAccess>) -> Self {
        Self {
            name: format!("{}{subject}", Self::PREFIX).into(),
            scopes,
            customers,
        }
    }

    /// Who the caller is, by the claim that names it.
    pub fn subject(&self) -> &str {
        self.name.strip_prefix(Self::PREFIX).unwrap_or_default()
    }

    /// What a caller is called that the callers file does not know.
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }
}

/// What a token says, and for how long from `now` it may go on saying so, if one of the keys has
/// signed it.
fn verify_with_keys(
    token: &str,
    header: &TokenHeader,
    keys: &KeySet,
    config: &JwtConfig,
    now: Timestamp,
) -> Result<(VerifiedToken, Duration), TokenRejection> {
    let key = keys.find(header).ok_or(TokenRejection::Key)?;
    let claims = key.claims(token)?;
    claims::read(&claims, config, now)
}
