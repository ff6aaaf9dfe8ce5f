//! Authentication of operators: by a key of the admin listener or a certificate of its client CA,
//! if either is configured.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::Response,
};
use prometheus::{IntCounterVec, Registry, register_int_counter_vec_with_registry};
use strum::{IntoStaticStr, VariantArray};

use crate::{
    access_key::{self, AuthSchemes, KeyHash},
    config::AdminConfig,
    peer::Peer,
    problem::{Problem, ProblemKind},
    text::excerpt,
};

/// The credentials of the admin listener; clones share them.
#[derive(Clone, Debug)]
pub(super) struct AdminAuth {
    inner: Arc<AdminAuthInner>,
}

#[derive(Debug)]
struct AdminAuthInner {
    keys: Vec<AdminKey>,
    /// False if neither keys nor a client CA are configured: all requests are accepted.
    requires_credential: bool,
    metrics_require_key: bool,
    failures: IntCounterVec,
}

#[derive(Debug)]
struct AdminKey {
    hash: KeyHash,
    /// The first digits of the hash, for the log.
    id: Arc<str>,
}

/// The sender of a request, for the log.
#[derive(Clone, Debug, Default)]
pub(super) struct AdminOperator {
    /// The address of the peer.
    pub(super) peer: Option<IpAddr>,
    /// The id of the key, or `certificate:` and its common name; `None` if none is required.
    pub(super) credential: Option<Arc<str>>,
}

/// The reason for which a request is rejected; converts into the value of the `reason` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case", const_into_str)]
enum AdminAuthError {
    /// The request has no key.
    Missing,
    /// The request does not have exactly one key.
    Malformed,
    /// The key is unknown.
    Unknown,
}

// === impl AdminAuth ===

impl AdminAuth {
    /// Reads the keys and registers the metric.
    ///
    /// # Errors
    ///
    /// Fails if the metric is registered already.
    pub(super) fn new(config: &AdminConfig, registry: &Registry) -> prometheus::Result<Self> {
        let failures = register_int_counter_vec_with_registry!(
            "usage_proxy_admin_authentication_failures_total",
            "Requests of the admin listener without a valid credential, by reason.",
            &["reason"],
            registry
        )?;
        for error in AdminAuthError::VARIANTS {
            failures.with_label_values(&[error.into_str()]);
        }
        let inner = AdminAuthInner {
            keys: config.key_sha256.iter().map(AdminKey::new).collect(),
            requires_credential: config.is_guarded(),
            metrics_require_key: config.metrics_need_key,
            failures,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Exempts probes, which an orchestrator sends without a key. Unknown paths are not exempt, so
    /// that a stranger learns nothing.
    fn requires_key(&self, path: &str) -> bool {
        match path {
            "/healthz" | "/readyz" => false,
            "/metrics" | "/metrics/usage" => {
                self.inner.metrics_require_key && self.inner.requires_credential
            }
            _ => self.inner.requires_credential,
        }
    }

    /// Returns the id of the credential. If a request has both a key and a certificate, only the key
    /// is checked, even if it is invalid.
    fn authenticate(&self, request: &Request) -> Result<Arc<str>, AdminAuthError> {
        let key = access_key::extract_credential(request.headers(), AuthSchemes::Bearer)
            .map_err(|_| AdminAuthError::Malformed)?;
        let peer = request.extensions().get::<Peer>();
        match (key, peer.and_then(|peer| peer.certificate_name.as_deref())) {
            (Some(key), _) => self.find_key(&key),
            // TLS accepts certificates of the client CA only.
            (None, Some(name)) => Ok(format!("certificate:{name}").into()),
            (None, None) => Err(AdminAuthError::Missing),
        }
    }

    fn find_key(&self, key: &[u8]) -> Result<Arc<str>, AdminAuthError> {
        let hash = KeyHash::of_key(key);
        let key = self.inner.keys.iter().find(|key| key.hash == hash);
        key.map(|key| Arc::clone(&key.id))
            .ok_or(AdminAuthError::Unknown)
    }
}

/// Passes a request on with its [`AdminOperator`], or rejects it.
pub(super) async fn authenticate_request(
    State(access): State<AdminAuth>,
    mut request: Request,
    next: Next,
) -> Result<Response, Extension<Problem>> {
    let path = request.uri().path();
    let peer = request.extensions().get::<Peer>();
    let peer = peer.map(|peer| peer.address.ip());
    let credential = if access.requires_key(path) {
        let credential = access.authenticate(&request).map_err(|error| {
            let reason = error.into_str();
            access.inner.failures.with_label_values(&[reason]).inc();
            tracing::info!(
                path = &*excerpt(path),
                peer = peer.map(tracing::field::display),
                reason,
                "a request of the admin listener was refused"
            );
            Extension(error.problem())
        })?;
        Some(credential)
    } else {
        None
    };
    request
        .extensions_mut()
        .insert(AdminOperator { peer, credential });
    Ok(next.run(request).await)
}

// === impl AdminKey ===

impl AdminKey {
    const ID_DIGITS: usize = 8;

    fn new(hash: &KeyHash) -> Self {
        let digits = hash.to_string();
        Self {
            hash: *hash,
            id: digits.get(..Self::ID_DIGITS).unwrap_or_default().into(),
        }
    }
}

// === impl AdminOperator ===

impl AdminOperator {
    /// Rejects a change that a web page asks for, where no key is required. Any web page can have a
    /// browser on this machine send it without reading the response. It cannot send a key.
    pub(super) fn reject_web_pages(&self, headers: &HeaderMap) -> Result<(), Extension<Problem>> {
        if self.credential.is_none() && headers.contains_key(header::ORIGIN) {
            return Err(Extension(Problem::new(
                ProblemKind::NotForPages,
                "without a key of the admin listener (admin.key_sha256), no web page may change anything",
            )));
        }
        Ok(())
    }
}

// === impl AdminAuthError ===

impl AdminAuthError {
    /// Returns the problem for the client, with the challenge of RFC 6750 §3.
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
                "the key is not a key of the admin listener; admin.key_sha256 has their hashes",
                "Bearer error=\"invalid_token\"",
            ),
        };
        let challenge = HeaderValue::from_static(challenge);
        Problem::new(ProblemKind::NotAuthenticated, detail)
            .with_header(header::WWW_AUTHENTICATE, challenge)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::config::TlsConfig;

    /// Accepts client certificates only.
    fn access() -> AdminAuth {
        let tls = TlsConfig {
            certificate_file: "/c".into(),
            key_file: "/k".into(),
            client_ca_file: Some("/ca".into()),
        };
        let config = AdminConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            key_sha256: Vec::new(),
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

        assert!(access.requires_key("/cache") && access.requires_key("/metrics/usage"));
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
