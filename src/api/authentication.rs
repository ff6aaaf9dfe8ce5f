//! Credential → who asks.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use strum::{EnumMessage as _, VariantArray as _};

use super::{route::Route, schema::Anonymous};
use crate::{
    access_key::{self, AuthSchemes, CredentialError},
    auth::{
        CallerIdentity, CallersFile, TokenAuthenticator,
        jwt::{TokenAuthError, TokenRejection},
    },
    clock::retry_after_seconds,
    domain::Caller,
    peer::Peer,
    problem::{Kind, Problem},
};

/// How callers are told apart.
#[derive(Clone, Debug)]
pub struct Authenticator {
    /// Whom the callers file names, where there is one.
    callers: Option<CallersFile>,
    /// Whose tokens are believed, where somebody's are.
    tokens: Option<TokenAuthenticator>,
    /// Everybody, where there is neither and nobody is told apart.
    anonymous_identity: Arc<CallerIdentity>,
}

/// Why nobody knows who asks. Told and counted; what was presented is neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthenticationError {
    /// Nothing was shown.
    MissingCredential,
    /// An `Authorization` of another scheme, or without a token.
    Malformed,
    /// Two credentials that differ.
    ConflictingCredentials,
    /// Nobody's key.
    UnknownKey,
    /// A certificate of our authority's, and of no caller's.
    UnknownCertificate,
    /// A token that is not valid.
    Token(TokenRejection),
    /// A valid token, of a subject that is no caller.
    UnknownSubject,
    /// A token of which nobody can tell whether it is valid; the caller is not at fault.
    IssuerUnavailable {
        /// How long until asking again may help.
        retry_after: Duration,
    },
}

// === impl Authentication ===

impl Authenticator {
    /// By these callers and tokens; with neither, everybody is anonymous and may do everything.
    pub fn new(callers: Option<CallersFile>, tokens: Option<TokenAuthenticator>) -> Self {
        Self {
            callers,
            tokens,
            anonymous_identity: Arc::new(CallerIdentity::new(Caller::anonymous(), None)),
        }
    }

    /// Whether a caller may do without a credential.
    pub(super) fn anonymous(&self) -> Anonymous {
        match (&self.callers, &self.tokens) {
            (None, None) => Anonymous::Allowed,
            _ => Anonymous::Refused,
        }
    }

    /// Who sent these headers over this connection.
    ///
    /// What a request shows counts for more than what its connection does, right or wrong: a
    /// credential that was sent is never passed over for a certificate.
    pub(super) async fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Arc<CallerIdentity>, AuthenticationError> {
        if self.anonymous() == Anonymous::Allowed {
            return Ok(Arc::clone(&self.anonymous_identity));
        }
        let presented = access_key::extract_credential(headers, AuthSchemes::BearerOrBasic)?;
        let presented = presented.as_deref();
        if let (Some(token), Some(tokens)) = (presented, &self.tokens)
            && TokenAuthenticator::is_token(token)
        {
            return Ok(tokens.identify(token, self.callers.as_ref()).await?);
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

// === impl Denied ===

impl AuthenticationError {
    /// Every value of the `reason` label.
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

    /// The value of the `reason` label.
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

    /// What the caller is told at this route: a browser, so that it asks its user, also that the
    /// credential may be a password (RFC 7617 §2).
    pub(super) fn problem_for(self, route: Route) -> Problem {
        const BASIC: &str = "Basic realm=\"usage-proxy\", charset=\"UTF-8\"";

        let problem = self.problem();
        if problem.status() == StatusCode::UNAUTHORIZED && route.is_opened_in_browsers() {
            problem.with_appended_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(BASIC))
        } else {
            problem
        }
    }

    /// What the caller is told, by RFC 6750 §3.1: an error code only where a token was shown.
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
            Self::UnknownKey => (
                REFUSED,
                "the credential that was sent is not, or no longer, that of any caller",
            ),
            Self::UnknownCertificate => (
                BARE,
                "the client certificate is that of no caller, and no other credential was sent",
            ),
            Self::Token(rejection) => (REFUSED, rejection.get_message().unwrap_or_default()),
            Self::UnknownSubject => (REFUSED, "the token is that of no caller"),
            Self::IssuerUnavailable { retry_after } => {
                return Problem::new(
                    Kind::IssuerUnavailable,
                    "the token cannot be checked, since its issuer's keys cannot be had",
                )
                .with_retry_after(retry_after_seconds(retry_after));
            }
        };
        let kind = match self {
            Self::ConflictingCredentials => Kind::SeveralCredentials,
            _ => Kind::Unauthenticated,
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

    /// A caller with a key, and one with a certificate.
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
