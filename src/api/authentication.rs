//! Credential → who asks.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{
    access_key::{self, BadCredential},
    callers::{Callers, Identity},
    domain::Caller,
    peer::Peer,
    problem::Problem,
};

/// How callers are told apart.
#[derive(Clone, Debug)]
pub struct Authentication {
    /// `None` where nobody is told apart.
    callers: Option<Callers>,
    /// Everybody, then.
    anonymous: Arc<Identity>,
}

/// Why nobody knows who asks. Told and counted; what was presented is neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// Nothing was shown.
    NoCredential,
    /// An `Authorization` of another scheme, or without a token.
    Malformed,
    /// Two credentials that differ.
    Several,
    /// Nobody's key.
    UnknownKey,
    /// A certificate of our authority's, and of no caller's.
    UnknownCertificate,
}

// === impl Authentication ===

impl Authentication {
    /// By these callers; without any, everybody is anonymous and may do everything.
    pub fn new(callers: Option<Callers>) -> Self {
        Self {
            callers,
            anonymous: Arc::new(Identity::new(Caller::anonymous(), None)),
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
    ) -> Result<Arc<Identity>, Denied> {
        let Some(callers) = &self.callers else {
            return Ok(Arc::clone(&self.anonymous));
        };
        let callers = callers.live();
        let (known, otherwise) = match (access_key::presented(headers)?, &peer.certificate_name) {
            (Some(key), _) => (callers.by_key(key), Denied::UnknownKey),
            (None, Some(name)) => (callers.by_certificate(name), Denied::UnknownCertificate),
            (None, None) => (None, Denied::NoCredential),
        };
        known.cloned().ok_or(otherwise)
    }
}

// === impl Denied ===

impl Denied {
    pub(super) const ALL: [Self; 5] = [
        Self::NoCredential,
        Self::Malformed,
        Self::Several,
        Self::UnknownKey,
        Self::UnknownCertificate,
    ];

    /// The value of the `reason` label.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::NoCredential => "no-credential",
            Self::Malformed => "malformed",
            Self::Several => "several",
            Self::UnknownKey => "unknown-key",
            Self::UnknownCertificate => "unknown-certificate",
        }
    }

    /// What the caller is told, by RFC 6750 §3.1: an error code only where a token was shown.
    pub(super) fn problem(self) -> Problem {
        const BARE: &str = "Bearer realm=\"usage-proxy\"";
        const REFUSED: &str = "Bearer realm=\"usage-proxy\", error=\"invalid_token\"";
        const AMBIGUOUS: &str = "Bearer realm=\"usage-proxy\", error=\"invalid_request\"";

        let (status, challenge, detail) = match self {
            Self::NoCredential => (
                StatusCode::UNAUTHORIZED,
                BARE,
                "no credential was sent; expected `Authorization: Bearer` or `X-Api-Key`",
            ),
            Self::Malformed => (
                StatusCode::UNAUTHORIZED,
                BARE,
                "the Authorization header is not `Bearer` and a credential",
            ),
            Self::Several => (
                StatusCode::BAD_REQUEST,
                AMBIGUOUS,
                "more than one credential was sent; expected one, in Authorization or in X-Api-Key",
            ),
            Self::UnknownKey => (
                StatusCode::UNAUTHORIZED,
                REFUSED,
                "the credential that was sent is not, or no longer, that of any caller",
            ),
            Self::UnknownCertificate => (
                StatusCode::UNAUTHORIZED,
                BARE,
                "the client certificate is that of no caller, and no other credential was sent",
            ),
        };
        let (name, title) = match self {
            Self::Several => ("several-credentials", "Several credentials"),
            _ => ("unauthenticated", "Unauthenticated"),
        };
        Problem::new(status, name, title, detail).with_header(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(challenge),
        )
    }
}

impl From<BadCredential> for Denied {
    fn from(bad: BadCredential) -> Self {
        match bad {
            BadCredential::Scheme => Self::Malformed,
            BadCredential::Several => Self::Several,
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
        callers::CallersMetrics,
        clock::ManualClock,
        reload::Reload,
        shutdown::Shutdown,
    };

    /// A caller with a key, and one with a certificate.
    async fn two_callers() -> Authentication {
        let rights = "customers = [\"*\"]\nscopes = [\"usage:read\"]";
        let file = tempfile::NamedTempFile::new().unwrap();
        let callers = format!(
            "[[caller]]\nname = \"keyed\"\nkey_sha256 = \"{}\"\n{rights}\n[[caller]]\n\
             name = \"certified\"\nclient_certificate = \"c.contoso.com\"\n{rights}\n",
            KeyHash::of(b"k"),
        );
        fs::write(file.path(), callers).unwrap();
        let callers = Callers::load(
            file.path(),
            Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH)),
            CallersMetrics::new(&Registry::new()).unwrap(),
            &Reload::default(),
            &Shutdown::new(),
        )
        .await;
        Authentication::new(Some(callers.unwrap()))
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
    async fn a_credential_that_was_sent_counts_before_a_certificate() {
        let authentication = two_callers().await;
        let (ours, other) = (Some("c.contoso.com"), Some("d.contoso.com"));

        for (key, certificate, expected) in [
            (Some("k"), None, Ok("keyed")),
            (Some("k"), ours, Ok("keyed")),
            (Some("k"), other, Ok("keyed")),
            (None, ours, Ok("certified")),
            (None, other, Err(Denied::UnknownCertificate)),
            (None, Some(""), Err(Denied::UnknownCertificate)),
            (Some("x"), ours, Err(Denied::UnknownKey)),
            (Some("c.contoso.com"), None, Err(Denied::UnknownKey)),
            (None, None, Err(Denied::NoCredential)),
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
    async fn where_nobody_is_told_apart_everybody_is_anonymous() {
        let authentication = Authentication::new(None);

        for (key, certificate) in [(None, None), (Some("k"), Some("c.contoso.com"))] {
            let (headers, peer) = request(key, certificate);

            let found = authentication.authenticate(&headers, &peer).await.unwrap();

            assert_eq!(*found.caller(), Caller::anonymous());
        }
    }

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        for (index, denied) in Denied::ALL.into_iter().enumerate() {
            assert_eq!(denied as usize, index);
        }
    }
}
