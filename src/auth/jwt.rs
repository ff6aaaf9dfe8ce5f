//! Callers that show a token which an issuer signed: a JWT (RFC 7519) by the rules of RFC 8725 and
//! RFC 9068, from Entra ID, Keycloak or any other OpenID Connect issuer.
//!
//! `header` reads how a token says it is signed, `jwks` has the issuer's keys from `source`,
//! `key_set` judges what each key is for and checks signature, issuer and audience, `claims` the
//! time and who it is. What was valid a moment ago is `remembered`.

mod claims;
mod header;
mod jwks;
mod key_set;
mod metrics;
#[cfg(test)]
mod properties;
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

pub use self::rejection::{Rejection, VerifyError};
use self::{
    header::Header, jwks::Jwks, key_set::KeySet, metrics::Metrics, remembered::Remembered,
    source::KeySource,
};
use crate::{
    clock::SharedClock,
    config::JwtConfig,
    domain::{Customers, Scopes},
    jitter::Jitter,
    shutdown::Shutdown,
};

/// Tells who a token was made for; clones share the keys.
#[derive(Clone, Debug)]
pub struct JwtVerifier {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: JwtConfig,
    jwks: Arc<Jwks>,
    remembered: Remembered,
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
pub struct Verified {
    /// Who the caller is: the value of `callers.jwt.subject_claim`, after [`Verified::PREFIX`].
    name: Arc<str>,
    /// The scopes that the token grants, none where it has no such claim; `None` when
    /// `callers.jwt.scopes_claim` is not configured.
    pub scopes: Option<Scopes>,
    /// The customers that the token grants, none where it has no such claim; `None` when
    /// `callers.jwt.customers_claim` is not configured.
    pub customers: Option<Customers>,
}

/// The verifier cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
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
    /// [`StartError`]; an issuer that is down is none.
    pub fn start(config: &JwtConfig, deps: &JwtDeps<'_>) -> Result<Self, StartError> {
        let source = KeySource::new(config.clone(), Arc::clone(&deps.clock))?;
        let jwks = Jwks::start(source, Metrics::new(deps.registry)?, deps);
        let inner = Inner {
            config: config.clone(),
            jwks,
            remembered: Remembered::default(),
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
    pub async fn verify(&self, token: &str) -> Result<Arc<Verified>, VerifyError> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let digest = Remembered::digest(token);
        if let Some(keys) = inner.jwks.held()
            && let Some(verified) = inner.remembered.get(&digest, &keys, now)
        {
            return Ok(verified);
        }
        let header = Header::read(token)?;
        let keys = inner.jwks.with_key(&header).await?;
        let wall = inner.clock.wall();
        let (verified, valid_for) = judge(token, &header, &keys, &inner.config, wall)?;
        let verified = Arc::new(verified);
        let now = inner.clock.now();
        let keep = Arc::clone(&verified);
        inner.remembered.insert(digest, keep, keys, now, valid_for);
        Ok(verified)
    }
}

// === impl Verified ===

impl Verified {
    /// What the name of a caller that the callers file does not know begins with. No name in the
    /// file can: logs do not mistake one for the other.
    pub const PREFIX: &str = "token:";

    fn new(subject: &str, scopes: Option<Scopes>, customers: Option<Customers>) -> Self {
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
fn judge(
    token: &str,
    header: &Header,
    keys: &KeySet,
    config: &JwtConfig,
    now: Timestamp,
) -> Result<(Verified, Duration), Rejection> {
    let key = keys.find(header).ok_or(Rejection::Key)?;
    let claims = key.claims(token)?;
    claims::read(&claims, config, now)
}
