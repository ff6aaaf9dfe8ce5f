//! Who may use the admin listener: whoever has one of its keys or a certificate of its client CA,
//! where it has any of either.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderValue, header},
    middleware::Next,
    response::Response,
};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::problem_response;
use crate::{
    access_key::{self, AuthSchemes, KeyHash},
    config::AdminConfig,
    peer::Peer,
    problem::{Kind, Problem, excerpt},
    request_id,
};

/// What opens the admin listener; clones share it.
#[derive(Clone, Debug)]
pub struct AdminAuth {
    inner: Arc<AdminAuthInner>,
}

#[derive(Debug)]
struct AdminAuthInner {
    keys: Vec<AdminKey>,
    /// Whether anything opens it, so that nothing is open without.
    requires_credential: bool,
    metrics_require_key: bool,
    failures: [IntCounter; AdminAuthError::ALL.len()],
}

#[derive(Debug)]
struct AdminKey {
    hash: KeyHash,
    id: Arc<str>,
}

/// Who sent a request, as the log tells of it.
#[derive(Clone, Debug, Default)]
pub(super) struct AdminOperator {
    /// Where they connect from.
    pub(super) peer: Option<IpAddr>,
    /// How the hash of their key begins, or `certificate:` and its common name; `None` where nothing
    /// is needed.
    pub(super) credential: Option<Arc<str>>,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AdminAuthError {
    /// It brings no key.
    Missing,
    /// What it brings is not one key.
    Malformed,
    /// Its key is none of ours.
    Unknown,
}

// === impl Access ===

impl AdminAuth {
    /// Reads the keys, and registers what is counted, each child at zero.
    ///
    /// # Errors
    ///
    /// When it is registered already.
    pub fn new(config: &AdminConfig, registry: &Registry) -> prometheus::Result<Self> {
        let failures = IntCounterVec::new(
            Opts::new(
                "usage_proxy_admin_authentication_failures_total",
                "Requests of the admin listener that brought no key of its own, by why.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(failures.clone()))?;
        let inner = AdminAuthInner {
            keys: config.key_hashes.iter().map(AdminKey::new).collect(),
            requires_credential: config.is_guarded(),
            metrics_require_key: config.metrics_need_key,
            failures: AdminAuthError::ALL
                .map(|failure| failures.with_label_values(&[failure.as_str()])),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Probes come from an orchestrator, which has no key. A path that is not there needs one too:
    /// who has none learns nothing.
    fn requires_key(&self, path: &str) -> bool {
        match path {
            "/healthz" | "/readyz" => false,
            "/metrics" => self.inner.metrics_require_key && self.inner.requires_credential,
            _ => self.inner.requires_credential,
        }
    }

    /// What a request shows counts before what its connection does, right or wrong.
    fn authenticate(&self, request: &Request) -> Result<Arc<str>, AdminAuthError> {
        let presented = access_key::extract_credential(request.headers(), AuthSchemes::Bearer)
            .map_err(|_| AdminAuthError::Malformed)?;
        match (presented, certificate_name(request)) {
            (Some(key), _) => self.find_key(&key),
            (None, Some(name)) => Ok(format!("certificate:{name}").into()),
            (None, None) => Err(AdminAuthError::Missing),
        }
    }

    fn find_key(&self, presented: &[u8]) -> Result<Arc<str>, AdminAuthError> {
        let hash = KeyHash::of_key(presented);
        let mut keys = self.inner.keys.iter();
        let key = keys
            .find(|key| key.hash == hash)
            .ok_or(AdminAuthError::Unknown)?;
        Ok(Arc::clone(&key.id))
    }

    fn reject(&self, failure: AdminAuthError, request: &Request) -> Response {
        if let Some(counter) = self.inner.failures.get(failure as usize) {
            counter.inc();
        }
        let path = request.uri().path();
        tracing::info!(
            path = &*excerpt(path),
            peer = peer_ip(request).map(tracing::field::display),
            reason = failure.as_str(),
            "a request of the admin listener was refused"
        );
        let request_id = request_id::accept_or_generate(request.headers());
        problem_response(failure.problem(), path, &request_id)
    }
}

/// Lets a request through to the routes, with its [`AdminOperator`], or refuses it.
pub(super) async fn authenticate_request(
    State(access): State<AdminAuth>,
    mut request: Request,
    next: Next,
) -> Response {
    let credential = if access.requires_key(request.uri().path()) {
        match access.authenticate(&request) {
            Ok(credential) => Some(credential),
            Err(failure) => return access.reject(failure, &request),
        }
    } else {
        None
    };
    let peer = peer_ip(&request);
    request
        .extensions_mut()
        .insert(AdminOperator { peer, credential });
    next.run(request).await
}

fn peer_ip(request: &Request) -> Option<IpAddr> {
    let peer = request.extensions().get::<Peer>()?;
    Some(peer.address.ip())
}

/// The listener asks for certificates only where it has a client CA, and shows us none of another.
fn certificate_name(request: &Request) -> Option<&str> {
    let peer = request.extensions().get::<Peer>()?;
    peer.certificate_name.as_deref()
}

// === impl Key ===

impl AdminKey {
    /// Digits of a hash that tell two keys apart.
    const ID_DIGITS: usize = 8;

    fn new(hash: &KeyHash) -> Self {
        let digits = hash.to_string();
        Self {
            hash: *hash,
            id: digits.get(..Self::ID_DIGITS).unwrap_or_default().into(),
        }
    }
}

// === impl Failure ===

impl AdminAuthError {
    /// Every failure, in the order of their discriminants.
    const ALL: [Self; 3] = [Self::Missing, Self::Malformed, Self::Unknown];

    /// The value of the label.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
        }
    }

    /// What the client is told; the challenge is that of RFC 6750 §3.
    fn problem(self) -> Problem {
        let (detail, challenge) = match self {
            Self::Missing => (
                "this needs a key of the admin listener, as `Authorization: Bearer KEY`",
                "Bearer",
            ),
            Self::Malformed => (
                "expected one key, as `Authorization: Bearer KEY`",
                "Bearer error=\"invalid_request\"",
            ),
            Self::Unknown => (
                "the key is none of the admin listener's; admin.key_sha256 has their hashes",
                "Bearer error=\"invalid_token\"",
            ),
        };
        Problem::new(Kind::NotAuthenticated, detail).with_header(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(challenge),
        )
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::config::TlsConfig;

    /// Opened by certificates and by nothing else.
    fn access() -> AdminAuth {
        let tls = TlsConfig {
            certificate_file: "/c".into(),
            key_file: "/k".into(),
            client_ca_file: Some("/ca".into()),
        };
        let config = AdminConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            key_hashes: Vec::new(),
            metrics_need_key: true,
            tls: Some(tls),
        };
        AdminAuth::new(&config, &Registry::new()).unwrap()
    }

    fn request(certificate: Option<&str>, key: Option<&str>) -> Request {
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(Peer {
            address: ([192, 0, 2, 1], 1).into(),
            encrypted: true,
            certificate_name: certificate.map(Into::into),
        });
        if let Some(key) = key {
            let value = HeaderValue::try_from(key).unwrap();
            request.headers_mut().insert(access_key::X_API_KEY, value);
        }
        request
    }

    #[test]
    fn a_client_certificate_authenticates_like_a_key() {
        let access = access();

        assert!(access.requires_key("/cache") && access.requires_key("/metrics"));
        assert!(!access.requires_key("/readyz"));
        let opened = access.authenticate(&request(Some("ops"), None));
        assert_eq!(opened.as_deref(), Ok("certificate:ops"));
        let without = access.authenticate(&request(None, None));
        assert_eq!(without, Err(AdminAuthError::Missing));
    }

    #[test]
    fn a_wrong_key_is_rejected_even_with_a_valid_certificate() {
        let refused = access().authenticate(&request(Some("ops"), Some("up_wrong")));

        assert_eq!(refused, Err(AdminAuthError::Unknown));
    }
}
