//! Authenticates callers by tokens of the configured issuer.

use std::sync::Arc;

use super::{
    caller_set::CallerIdentity,
    callers_file::CallersFile,
    jwt::{JwtVerifier, TokenAuthError, TokenRejection, VerifiedToken},
};
use crate::{
    domain::{Caller, CallerScope, CustomerAccess},
    resilience::byte_budget::ByteBudget,
};

/// Authenticates callers by their tokens.
///
/// A subject in the callers file has its rights from there, as far as the token grants them too: a
/// configured claim can only remove rights, and removes all if it is absent. Any other subject has
/// the rights of its token if both claims are configured and grant something; otherwise it is
/// rejected.
#[derive(Clone, Debug)]
pub struct TokenAuthenticator {
    verifier: JwtVerifier,
    /// Budgets of the subjects that are not in the callers file, by caller name.
    unsent: moka::sync::Cache<Arc<str>, Arc<ByteBudget>>,
}

// === impl TokenAuthenticator ===

impl TokenAuthenticator {
    /// The most subjects with a budget of their own. Each takes a few hundred bytes.
    const MAX_SUBJECTS: u64 = 10_000;

    /// Creates an authenticator with this verifier.
    pub fn new(verifier: JwtVerifier) -> Self {
        Self {
            verifier,
            unsent: moka::sync::Cache::new(Self::MAX_SUBJECTS),
        }
    }

    /// Returns true if a credential looks like a token: a JSON object in base64url, and a dot. Keys
    /// of `hash-key` have no dots.
    pub fn is_token(credential: &[u8]) -> bool {
        credential.starts_with(b"eyJ") && credential.contains(&b'.')
    }

    /// Identifies the caller of a token, with the rights of the callers file if there is one.
    ///
    /// # Errors
    ///
    /// [`TokenAuthError`] if the token is invalid or its subject is not a caller.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn identify(
        &self,
        token: &[u8],
        callers: Option<&CallersFile>,
    ) -> Result<Arc<CallerIdentity>, TokenAuthError> {
        let token = str::from_utf8(token).map_err(|_| TokenRejection::Malformed)?;
        let verified = self.verifier.verify(token).await.inspect_err(|error| {
            if let TokenAuthError::Rejected(rejection) = error {
                let reason: &str = rejection.into();
                tracing::debug!(reason, "rejected a token");
            }
        })?;
        let live = callers.map(CallersFile::current);
        let named = live
            .as_ref()
            .and_then(|callers| callers.by_subject(verified.subject()));
        let identity = match named {
            Some(named) => Some(restricted_by_token(named, &verified)),
            None => self.identity_from_token(&verified),
        };
        identity.ok_or_else(|| {
            let subject = verified.subject();
            tracing::debug!(
                subject,
                "rejected a valid token whose subject is not a caller"
            );
            TokenAuthError::UnknownSubject
        })
    }

    /// Returns the identity that the token alone grants.
    fn identity_from_token(&self, token: &VerifiedToken) -> Option<Arc<CallerIdentity>> {
        let scopes = token.scopes.filter(|scopes| !scopes.is_empty())?;
        let customers = token.customers.as_ref();
        let customers = customers.filter(|customers| !customers.is_none())?;
        let caller = Caller::new(Arc::clone(token.name()), customers.clone(), scopes);
        let unsent = self
            .unsent
            .get_with_by_ref(token.name(), CallerIdentity::new_unsent_budget);
        Some(Arc::new(CallerIdentity::with_unsent_budget(
            unsent, caller, None,
        )))
    }
}

/// Returns the rights that both the callers file and the token grant.
fn restricted_by_token(named: &Arc<CallerIdentity>, token: &VerifiedToken) -> Arc<CallerIdentity> {
    if token.scopes.is_none() && token.customers.is_none() {
        return Arc::clone(named);
    }
    let caller = named.caller().restricted_to(
        token.customers.as_ref().unwrap_or(&CustomerAccess::All),
        token
            .scopes
            .unwrap_or_else(|| CallerScope::ALL.into_iter().collect()),
    );
    let unsent = Arc::clone(named.unsent());
    Arc::new(CallerIdentity::with_unsent_budget(
        unsent,
        caller,
        named.rate_limit().cloned(),
    ))
}
