//! Authenticates requests, and describes failures as problems.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use strum::{EnumMessage as _, VariantArray as _};

use super::route::Route;
use crate::{
    access_key::{self, AuthSchemes, CredentialError},
    auth::{
        CallerIdentity, CallersFile, TokenAuthenticator,
        jwt::{TokenAuthError, TokenRejection},
    },
    clock::retry_after_seconds,
    domain::Caller,
    peer::Peer,
    problem::{Problem, ProblemKind},
};

/// Finds the caller of a request by its credential.
#[derive(Clone, Debug)]
pub struct Authenticator {
    /// The callers file, if one is configured.
    callers: Option<CallersFile>,
    /// The token issuer, if one is configured.
    tokens: Option<TokenAuthenticator>,
    /// The identity of every request if neither is configured.
    anonymous_identity: Arc<CallerIdentity>,
}

/// The reason for which a request is not authenticated. It contains no part of the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthenticationError {
    /// The request has no credential.
    MissingCredential,
    /// `Authorization` has another scheme, or no token.
    Malformed,
    /// The request has two different credentials.
    ConflictingCredentials,
    /// The key is not a key of any caller.
    UnknownKey,
    /// The certificate is signed by our client CA, but no caller has its common name.
    UnknownCertificate,
    /// The token is invalid.
    Token(TokenRejection),
    /// The token is valid, but its subject is not a caller.
    UnknownSubject,
    /// The token cannot be checked; the caller is not at fault.
    IssuerUnavailable {
        /// The time after which a retry may help.
        retry_after: Duration,
    },
}

// === impl Authenticator ===

impl Authenticator {
    /// Authenticates by these callers and tokens. With neither, every caller is anonymous and has all
    /// rights.
    pub fn new(callers: Option<CallersFile>, tokens: Option<TokenAuthenticator>) -> Self {
        Self {
            callers,
            tokens,
            anonymous_identity: Arc::new(CallerIdentity::new(Caller::anonymous(), None)),
        }
    }

    /// Returns true if requests without a credential are accepted.
    pub(super) fn allows_anonymous(&self) -> bool {
        self.callers.is_none() && self.tokens.is_none()
    }

    /// Returns the caller of a request with these headers on this connection.
    ///
    /// If a request has both a credential and a certificate, only the credential is checked, even if
    /// it is invalid.
    pub(super) async fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Arc<CallerIdentity>, AuthenticationError> {
        if self.allows_anonymous() {
            return Ok(Arc::clone(&self.anonymous_identity));
        }
        let presented = access_key::extract_credential(headers, AuthSchemes::BearerOrBasic)?;
        let presented = presented.as_deref();
        if let (Some(token), Some(tokens)) = (presented, &self.tokens)
            && TokenAuthenticator::is_token(token)
        {
            // On the heap, so that the future of a key stays small.
            let identified = Box::pin(tokens.identify(token, self.callers.as_ref()));
            return Ok(identified.await?);
        }
        let callers = self.callers.as_ref().map(CallersFile::current);
        let callers = callers.as_deref();
        let (known, otherwise) = match (presented, &peer.certificate_name) {
            (Some(key), _) => (
                callers.and_then(|callers| callers.by_key(key)),
                AuthenticationError::UnknownKey,
            ),
            (None, Some(name)) => (
                callers.and_then(|callers| callers.by_certificate(name)),
                AuthenticationError::UnknownCertificate,
            ),
            (None, None) => (None, AuthenticationError::MissingCredential),
        };
        known.cloned().ok_or(otherwise)
    }
}

// === impl AuthenticationError ===

impl AuthenticationError {
    /// Returns every value of the `reason` label.
    pub(super) fn reasons() -> impl Iterator<Item = &'static str> {
        let plain = [
            Self::MissingCredential,
            Self::Malformed,
            Self::ConflictingCredentials,
            Self::UnknownKey,
            Self::UnknownCertificate,
            Self::UnknownSubject,
            Self::IssuerUnavailable {
                retry_after: Duration::ZERO,
            },
        ];
        plain
            .into_iter()
            .chain(TokenRejection::VARIANTS.iter().copied().map(Self::Token))
            .map(Self::reason)
    }

    /// Returns the value of the `reason` label.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::MissingCredential => "no-credential",
            Self::Malformed => "malformed",
            Self::ConflictingCredentials => "several",
            Self::UnknownKey => "unknown-key",
            Self::UnknownCertificate => "unknown-certificate",
            Self::Token(rejection) => rejection.into(),
            Self::UnknownSubject => "unknown-subject",
            Self::IssuerUnavailable { .. } => "issuer-unavailable",
        }
    }

    /// Returns the problem for this route. Routes for browsers also offer `Basic`, so that the browser
    /// asks for a password (RFC 7617 §2).
    pub(super) fn problem_for(self, route: Route) -> Problem {
        const BASIC: &str = "Basic realm=\"usage-proxy\", charset=\"UTF-8\"";

        let problem = self.problem();
        if problem.status() == StatusCode::UNAUTHORIZED && route.is_opened_in_browsers() {
            problem.with_appended_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(BASIC))
        } else {
            problem
        }
    }

    /// Returns the problem with its challenge; only a request with a token gets an error code
    /// (RFC 6750 §3.1).
    fn problem(self) -> Problem {
        const BARE: &str = "Bearer realm=\"usage-proxy\"";
        const REFUSED: &str = "Bearer realm=\"usage-proxy\", error=\"invalid_token\"";
        const AMBIGUOUS: &str = "Bearer realm=\"usage-proxy\", error=\"invalid_request\"";

        let (challenge, detail) = match self {
            Self::MissingCredential => (
                BARE,
                "no credential was sent; expected `Authorization: Bearer` or `X-Api-Key`",
            ),
            Self::Malformed => (
                BARE,
                "the Authorization header is not `Bearer` and a credential, nor `Basic` with it as password",
            ),
            Self::ConflictingCredentials => (
                AMBIGUOUS,
                "more than one credential was sent; expected one, in Authorization or in X-Api-Key",
            ),
            Self::UnknownKey => (REFUSED, "no caller has this credential"),
            Self::UnknownCertificate => (
                BARE,
                "no caller has this client certificate, and no other credential was sent",
            ),
            Self::Token(rejection) => (REFUSED, rejection.get_message().unwrap_or_default()),
            Self::UnknownSubject => (REFUSED, "the token names a subject that is no caller"),
            Self::IssuerUnavailable { retry_after } => {
                return Problem::new(
                    ProblemKind::IssuerUnavailable,
                    "the token cannot be checked, because its issuer's keys cannot be fetched",
                )
                .with_retry_after(retry_after_seconds(retry_after));
            }
        };
        let kind = match self {
            Self::ConflictingCredentials => ProblemKind::SeveralCredentials,
            _ => ProblemKind::Unauthenticated,
        };
        let challenge = match self {
            Self::Token(_) | Self::UnknownSubject => {
                HeaderValue::try_from(format!("{challenge}, error_description=\"{detail}\""))
                    .unwrap_or(HeaderValue::from_static(challenge))
            }
            _ => HeaderValue::from_static(challenge),
        };
        Problem::new(kind, detail).with_header(header::WWW_AUTHENTICATE, challenge)
    }
}

impl From<TokenAuthError> for AuthenticationError {
    fn from(refused: TokenAuthError) -> Self {
        match refused {
            TokenAuthError::Rejected(rejection) => Self::Token(rejection),
            TokenAuthError::IssuerUnavailable { retry_after } => {
                Self::IssuerUnavailable { retry_after }
            }
            TokenAuthError::UnknownSubject => Self::UnknownSubject,
        }
    }
}

impl From<CredentialError> for AuthenticationError {
    fn from(bad: CredentialError) -> Self {
        match bad {
            CredentialError::UnsupportedScheme => Self::Malformed,
            CredentialError::Conflicting => Self::ConflictingCredentials,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, net::Ipv4Addr};

    use jiff::Timestamp;
    use prometheus::Registry;

    use super::*;
    use crate::{
        access_key::{KeyHash, X_API_KEY},
        auth::CallersMetrics,
        clock::ManualClock,
        reload::Reload,
        shutdown::Shutdown,
    };

    /// Returns an authenticator with a caller by key and one by certificate.
    async fn two_callers() -> Authenticator {
        let rights = "customers = [\"*\"]\nscopes = [\"usage:read\"]";
        let file = tempfile::NamedTempFile::new().unwrap();
        let callers = format!(
            "[[caller]]\nname = \"keyed\"\nkey_sha256 = \"{}\"\n{rights}\n[[caller]]\n\
             name = \"certified\"\nclient_certificate = \"c.contoso.com\"\n{rights}\n",
            KeyHash::of_key(b"k"),
        );
        fs::write(file.path(), callers).unwrap();
        let callers = CallersFile::load(
            file.path(),
            Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH)),
            CallersMetrics::new(&Registry::new()).unwrap(),
            &Reload::default(),
            &Shutdown::new(),
        )
        .await;
        Authenticator::new(Some(callers.unwrap()), None)
    }

    fn request(key: Option<&'static str>, certificate: Option<&str>) -> (HeaderMap, Peer) {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            headers.insert(X_API_KEY, HeaderValue::from_static(key));
        }
        let mut peer = Peer::from(std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        peer.certificate_name = certificate.map(Arc::from);
        (headers, peer)
    }

    #[tokio::test]
    async fn a_sent_credential_takes_precedence_over_a_certificate() {
        let authentication = two_callers().await;
        let (ours, other) = (Some("c.contoso.com"), Some("d.contoso.com"));

        for (key, certificate, expected) in [
            (Some("k"), None, Ok("keyed")),
            (Some("k"), ours, Ok("keyed")),
            (Some("k"), other, Ok("keyed")),
            (None, ours, Ok("certified")),
            (None, other, Err(AuthenticationError::UnknownCertificate)),
            (None, Some(""), Err(AuthenticationError::UnknownCertificate)),
            (Some("x"), ours, Err(AuthenticationError::UnknownKey)),
            (
                Some("c.contoso.com"),
                None,
                Err(AuthenticationError::UnknownKey),
            ),
            (None, None, Err(AuthenticationError::MissingCredential)),
        ] {
            let (headers, peer) = request(key, certificate);

            let found = authentication.authenticate(&headers, &peer).await;

            let name = found.as_ref().map(|found| &**found.caller().name());
            assert_eq!(
                name.map_err(|denied| *denied),
                expected,
                "{key:?} {certificate:?}"
            );
        }
    }

    #[tokio::test]
    async fn without_configured_callers_every_caller_is_anonymous() {
        let authentication = Authenticator::new(None, None);

        for (key, certificate) in [(None, None), (Some("k"), Some("c.contoso.com"))] {
            let (headers, peer) = request(key, certificate);

            let found = authentication.authenticate(&headers, &peer).await.unwrap();

            assert_eq!(*found.caller(), Caller::anonymous());
        }
    }

    #[test]
    fn every_error_has_a_unique_reason() {
        let reasons: Vec<_> = AuthenticationError::reasons().collect();
        let distinct: std::collections::HashSet<_> = reasons.iter().collect();

        assert_eq!(distinct.len(), reasons.len(), "{reasons:?}");
    }

    #[test]
    fn a_rejected_token_gets_the_error_codes_of_rfc_6750() {
        let problem = AuthenticationError::Token(TokenRejection::Expired).problem();

        let response = problem.into_response();

        assert_eq!(
            response.headers()[header::WWW_AUTHENTICATE],
            "Bearer realm=\"usage-proxy\", error=\"invalid_token\", \
             error_description=\"the token has expired\""
        );
    }
}
