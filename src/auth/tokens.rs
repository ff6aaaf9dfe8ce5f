use std::sync::Arc;

use super::{
    Callers, Identity,
    jwt::{JwtVerifier, Rejection, Verified, VerifyError},
};
use crate::{
    domain::{Caller, Customers, Scope},
    resilience::byte_budget::ByteBudget,
};

/// Callers that show a token of the configured issuer.
///
/// A subject that the callers file names has the rights that stand there, as far as the token
/// grants them too: each claim that is configured can only take away, and one that is configured
/// and absent takes everything away. A subject that the file does not name has what the token
/// grants, where both claims are configured and grant anything, and is nobody otherwise.
#[derive(Clone, Debug)]
pub struct TokenCallers {
    verifier: JwtVerifier,
    /// Of the subjects that the callers file does not name, by the caller's name.
    unsent: moka::sync::Cache<Arc<str>, Arc<ByteBudget>>,
}

/// A token that got nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefused {
    /// It is not valid, or nobody can tell.
    Invalid(VerifyError),
    /// It is valid, of a subject that is no caller.
    UnknownSubject,
}

// === impl TokenCallers ===

impl TokenCallers {
    /// Subjects whose unsent bytes are counted. Each takes some hundred bytes.
    const SUBJECTS: u64 = 10_000;

    /// Callers whose tokens this verifier believes.
    pub fn new(verifier: JwtVerifier) -> Self {
        Self {
            verifier,
            unsent: moka::sync::Cache::new(Self::SUBJECTS),
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
    /// [`TokenRefused`] when it is nobody.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn identify(
        &self,
        token: &[u8],
        callers: Option<&Callers>,
    ) -> Result<Arc<Identity>, TokenRefused> {
        let verified = self.verify(token).await.inspect_err(|refused| {
            if let TokenRefused::Invalid(VerifyError::Rejected(rejection)) = refused {
                tracing::debug!(reason = rejection.as_str(), "refused a token");
            }
        })?;
        let live = callers.map(Callers::live);
        let named = live
            .as_ref()
            .and_then(|callers| callers.by_subject(verified.subject()));
        let identity = match named {
            Some(named) => Some(narrowed(named, &verified)),
            None => self.of_its_own(&verified),
        };
        identity.ok_or_else(|| {
            let subject = verified.subject();
            tracing::debug!(subject, "refused a valid token, whose subject is no caller");
            TokenRefused::UnknownSubject
        })
    }

    async fn verify(&self, token: &[u8]) -> Result<Arc<Verified>, TokenRefused> {
        let token = str::from_utf8(token).map_err(|_| Rejection::Malformed)?;
        Ok(self.verifier.verify(token).await?)
    }

    /// What the token says alone.
    fn of_its_own(&self, token: &Verified) -> Option<Arc<Identity>> {
        let scopes = token.scopes.filter(|scopes| !scopes.is_empty())?;
        let customers = token.customers.as_ref();
        let customers = customers.filter(|customers| !customers.are_none())?;
        let caller = Caller::new(Arc::clone(token.name()), customers.clone(), scopes);
        let unsent = self
            .unsent
            .get_with_by_ref(token.name(), Identity::unsent_budget);
        Some(Arc::new(Identity::sharing(unsent, caller, None)))
    }
}

/// What the file says, as far as the token says so too.
fn narrowed(named: &Arc<Identity>, token: &Verified) -> Arc<Identity> {
    if token.scopes.is_none() && token.customers.is_none() {
        return Arc::clone(named);
    }
    let caller = named.caller().narrowed(
        token.customers.as_ref().unwrap_or(&Customers::All),
        token
            .scopes
            .unwrap_or_else(|| Scope::ALL.into_iter().collect()),
    );
    let unsent = Arc::clone(named.unsent());
    Arc::new(Identity::sharing(unsent, caller, named.limit().cloned()))
}

// === impl TokenRefused ===

impl From<VerifyError> for TokenRefused {
    fn from(error: VerifyError) -> Self {
        Self::Invalid(error)
    }
}

impl From<Rejection> for TokenRefused {
    fn from(rejection: Rejection) -> Self {
        Self::Invalid(rejection.into())
    }
}
