//! Verifies access tokens: JWTs (RFC 7519) by the rules of RFC 8725 and RFC 9068, from Entra ID,
//! Keycloak or any other OpenID Connect issuer.
//!
//! `header` reads how a token claims to be signed, `jwks` caches the issuer's keys, `key_set` limits
//! each key to its algorithms and checks signature, issuer and audience, and `claims` checks the
//! time and reads the caller and its rights.

mod claims;
mod header;
mod jwks;
mod jwks_source;
mod key_set;
#[cfg(test)]
mod proptests;
mod rejection;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use moka::sync::Cache;
use prometheus::Registry;
use sha2::{Digest, Sha256};

pub use self::{
    claims::VerifiedToken,
    rejection::{TokenAuthError, TokenRejection},
};
use self::{
    header::TokenHeader,
    jwks::{JwksCache, JwksMetrics},
    jwks_source::JwksSource,
    key_set::KeySet,
};
use crate::{
    clock::SharedClock, config::JwtConfig, domain::CustomerAccess, jitter::Jitter,
    shutdown::Shutdown,
};

/// The longest time for which a verified token is accepted without another check.
const MAX_CACHED_FOR: Duration = Duration::from_secs(60);

/// The approximate size of the cache of verified tokens in bytes.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// Verifies tokens of the configured issuer; clones share the keys.
#[derive(Clone, Debug)]
pub struct JwtVerifier {
    inner: Arc<VerifierState>,
}

#[derive(Debug)]
struct VerifierState {
    config: JwtConfig,
    jwks: Arc<JwksCache>,
    /// Valid tokens by their SHA-256, so that a dashboard that polls does not cost a signature
    /// check each time. A digest cannot be used as a token.
    cache: Cache<[u8; 32], CachedToken>,
    clock: SharedClock,
}

#[derive(Clone, Debug)]
struct CachedToken {
    verified: Arc<VerifiedToken>,
    /// The keys that verified the token. Other keys make the entry invalid.
    keys: Arc<KeySet>,
    expires_at: Instant,
}

/// The dependencies of the verifier.
#[derive(Debug)]
pub struct JwtDeps<'a> {
    /// The time.
    pub clock: SharedClock,
    /// Spreads fetches after a failure.
    pub jitter: Jitter,
    /// Ends the task that fetches keys.
    pub shutdown: Shutdown,
    /// The registry for metrics.
    pub registry: &'a Registry,
}

/// The verifier cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum VerifierStartError {
    /// TLS cannot be set up, for example because there are no CA certificates.
    #[error("cannot make a client for the token issuer")]
    Client(#[from] reqwest::Error),
    /// Another component has a metric of the same name.
    #[error("cannot register the metrics")]
    Metrics(#[from] prometheus::Error),
}

// === impl JwtVerifier ===

impl JwtVerifier {
    /// Creates a verifier, and starts to fetch the issuer's keys without waiting for them.
    ///
    /// # Errors
    ///
    /// [`VerifierStartError`]; an issuer that is down is not an error.
    pub fn start(config: &JwtConfig, deps: &JwtDeps<'_>) -> Result<Self, VerifierStartError> {
        let source = JwksSource::new(config.clone(), Arc::clone(&deps.clock))?;
        let metrics = JwksMetrics::new(deps.registry)?;
        let clock = Arc::clone(&deps.clock);
        let jwks = JwksCache::start(source, metrics, clock, deps.jitter, &deps.shutdown);
        let cache = Cache::builder()
            .max_capacity(CACHE_BYTES)
            .weigher(|_, token: &CachedToken| token.weight())
            .build();
        Ok(Self {
            inner: Arc::new(VerifierState {
                config: config.clone(),
                jwks,
                cache,
                clock: Arc::clone(&deps.clock),
            }),
        })
    }

    /// Verifies a token and returns what it says.
    ///
    /// # Errors
    ///
    /// [`TokenAuthError::Rejected`] and [`TokenAuthError::IssuerUnavailable`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: keys are fetched in a task of their own.
    pub async fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenAuthError> {
        let inner = &*self.inner;
        let digest = Sha256::digest(token).into();
        if let Some(verified) = inner.cached(&digest) {
            return Ok(verified);
        }
        let header = TokenHeader::parse(token)?;
        let keys = inner.jwks.with_key(&header).await?;
        let now = inner.clock.wall_time();
        let (verified, valid_for) = verify_with_keys(token, &header, &keys, &inner.config, now)?;
        let verified = Arc::new(verified);
        let cached = CachedToken {
            verified: Arc::clone(&verified),
            keys,
            expires_at: inner.clock.now() + valid_for.min(MAX_CACHED_FOR),
        };
        inner.cache.insert(digest, cached);
        Ok(verified)
    }
}

// === impl VerifierState ===

impl VerifierState {
    fn cached(&self, digest: &[u8; 32]) -> Option<Arc<VerifiedToken>> {
        let token = self.cache.get(digest)?;
        let keys = self.jwks.keys()?;
        let is_valid = self.clock.now() < token.expires_at && Arc::ptr_eq(&token.keys, &keys);
        is_valid.then_some(token.verified)
    }
}

// === impl CachedToken ===

impl CachedToken {
    /// Returns the approximate size in bytes: the entry, and twice the size of its customers.
    fn weight(&self) -> u32 {
        let customers = match &self.verified.customers {
            Some(CustomerAccess::Only(customers)) => customers.len() * 32,
            Some(CustomerAccess::All) | None => 0,
        };
        u32::try_from(512 + self.verified.name().len() + customers).unwrap_or(u32::MAX)
    }
}

/// Verifies a token with its key, and returns what it says and for how long it is valid.
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
