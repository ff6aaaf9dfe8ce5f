use url::Url;

use crate::config::{keys, settings::RawSettings};

/// `callers.jwt.*`: whose tokens are believed, and what is read in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtConfig {
    /// What `iss` has to be, letter by letter. No default.
    pub issuer: String,
    /// What `aud` has to be, or to hold. No default.
    pub audience: String,
    /// Where the issuer's keys are (a JWK Set, RFC 7517); `http` only on this machine. No default.
    pub jwks_url: Url,
    /// The claim that says who the caller is; a top-level one, like the others. Default `sub`.
    pub subject_claim: String,
    /// The claim that says which scopes a caller holds; `None`: the callers file says so alone.
    pub scopes_claim: Option<String>,
    /// The claim that says which customers a caller may read; `None`: the callers file says so
    /// alone.
    pub customers_claim: Option<String>,
}

impl JwtConfig {
    /// What is read as the caller's name unless another claim is configured.
    pub(in crate::config) const SUBJECT_CLAIM: &str = "sub";

    /// `None` unless an issuer is configured, and all that goes with it.
    pub(in crate::config) fn read(settings: &RawSettings) -> Option<Self> {
        Some(Self {
            issuer: settings.get(&keys::JWT_ISSUER)?,
            audience: settings.get(&keys::JWT_AUDIENCE)?,
            jwks_url: settings.get(&keys::JWT_JWKS_URL)?,
            subject_claim: settings.get(&keys::JWT_SUBJECT_CLAIM)?,
            scopes_claim: settings.get(&keys::JWT_SCOPES_CLAIM),
            customers_claim: settings.get(&keys::JWT_CUSTOMERS_CLAIM),
        })
    }
}
