use std::sync::Arc;

use super::{
    CallerIdentity, CallersFile,
    jwt::{JwtVerifier, TokenRejection, VerifiedToken, VerifyError},
};
use crate::{
    domain::{Caller, CallerScope, CustomerAccess},
    resilience::byte_budget::ByteBudget,
};

/// Callers that show a token of the configured issuer.
///
/// A subject that the callers file names has the rights that stand there, as far as the token
/// grants them too: each claim that is configured can only take away, and one that is configured
/// and absent takes everything away. A subject that the file does not name has what the token
/// grants, where both claims are configured and grant anything, and is nobody otherwise.
#[derive(Clone, Debug)]
pub struct TokenAuthenticator {
    verifier: JwtVerifier,
    /// Of the subjects that the callers file does not name, by the caller's name.
    unsent: moka::sync::Cache<Arc<str>, Arc<ByteBudget>>,
}

/// A token that got nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenAuthError {
    /// It is not valid, or nobody can tell.
    Invalid(VerifyError),
    /// It is valid, of a subject that is no caller.
    UnknownSubject,
}

// === impl TokenCallers ===

impl TokenAuthenticator {
    /// Subjects whose unsent bytes are counted. Each takes some hundred bytes.
    const MAX_SUBJECTS: u64 = 10_000;

    /// Callers whose tokens this verifier believes.
    pub fn new(verifier: JwtVerifier) -> Self {
        Self {
            verifier,
            unsent: moka::sync::Cache::new(Self::MAX_SUBJECTS),
        }
    }

    /// Whether a credential is a token, as opposed to a key.
    pub fn is_token(credential: &[u8]) -> bool {
        JwtVerifier::is_jwt(credential)
    }

    /// Who shows this token, by these callers, where there are any.
    ///
    /// # Errors
    ///
    /// [`TokenAuthError`] when it is nobody.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn identify(
        &self,
        token: &[u8],
        callers: Option<&CallersFile>,
    ) -> Result<Arc<CallerIdentity>, TokenAuthError> {
        let verified = self.verify(token).await.inspect_err(|refused| {
            if let TokenAuthError::Invalid(VerifyError::Rejected(rejection)) = refused {
                tracing::debug!(reason = rejection.as_str(), "refused a token");
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
            tracing::debug!(subject, "refused a valid token, whose subject is no caller");
            TokenAuthError::UnknownSubject
        })
    }

    async fn verify(&self, token: &[u8]) -> Result<Arc<VerifiedToken>, TokenAuthError> {
        let token = str::from_utf8(token).map_err(|_| TokenRejection::Malformed)?;
        Ok(self.verifier.verify(token).await?)
    }

    /// What the token says alone.
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

/// What the file says, as far as the token says so too.
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

// === impl TokenRefused ===

impl From<VerifyError> for TokenAuthError {
    fn from(error: VerifyError) -> Self {
        Self::Invalid(error)
    }
}

impl From<TokenRejection> for TokenAuthError {
    fn from(rejection: TokenRejection) -> Self {
        Self::Invalid(rejection.into())
    }
}
