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

use super::answer;
use crate::{
    access_key::{self, KeyHash, Schemes},
    config::AdminConfig,
    peer::Peer,
    problem::{Kind, Problem, excerpt},
    request_id,
};

/// What opens the admin listener; clones share it.
#[derive(Clone, Debug)]
pub struct Access {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    keys: Vec<Key>,
    /// Whether anything opens it, so that nothing is open without.
    guarded: bool,
    metrics_need_key: bool,
    failures: [IntCounter; Failure::ALL.len()],
}

#[derive(Debug)]
struct Key {
    hash: KeyHash,
    id: Arc<str>,
}

/// Who sent a request, as the log tells of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Operator {
    /// Where they connect from.
    pub(super) peer: Option<IpAddr>,
    /// How the hash of their key begins, or `certificate:` and its common name; `None` where nothing
    /// is needed.
    pub(super) credential: Option<Arc<str>>,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// It brings no key.
    Missing,
    /// What it brings is not one key.
    Malformed,
    /// Its key is none of ours.
    Unknown,
}

// === impl Access ===

impl Access {
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
        let inner = Inner {
            keys: config.key_hashes.iter().map(Key::new).collect(),
            guarded: config.is_guarded(),
            metrics_need_key: config.metrics_need_key,
            failures: Failure::ALL.map(|failure| failures.with_label_values(&[failure.as_str()])),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Probes come from an orchestrator, which has no key. A path that is not there needs one too:
    /// who has none learns nothing.
    fn needs_key(&self, path: &str) -> bool {
        match path {
            "/healthz" | "/readyz" => false,
            "/metrics" => self.inner.metrics_need_key && self.inner.guarded,
            _ => self.inner.guarded,
        }
    }

    /// What a request shows counts before what its connection does, right or wrong.
    fn credential_of(&self, request: &Request) -> Result<Arc<str>, Failure> {
        let presented = access_key::presented(request.headers(), Schemes::Bearer)
            .map_err(|_| Failure::Malformed)?;
        match (presented, certificate_of(request)) {
            (Some(key), _) => self.key_of(&key),
            (None, Some(name)) => Ok(format!("certificate:{name}").into()),
            (None, None) => Err(Failure::Missing),
        }
    }

    fn key_of(&self, presented: &[u8]) -> Result<Arc<str>, Failure> {
        let hash = KeyHash::of(presented);
        let mut keys = self.inner.keys.iter();
        let key = keys.find(|key| key.hash == hash).ok_or(Failure::Unknown)?;
        Ok(Arc::clone(&key.id))
    }

    fn refuse(&self, failure: Failure, request: &Request) -> Response {
        if let Some(counter) = self.inner.failures.get(failure as usize) {
            counter.inc();
        }
        let path = request.uri().path();
        tracing::info!(
            path = &*excerpt(path),
            peer = peer_of(request).map(tracing::field::display),
            reason = failure.as_str(),
            "a request of the admin listener was refused"
        );
        let request_id = request_id::accept_or_mint(request.headers());
        answer(failure.problem(), path, &request_id)
    }
}

/// Lets a request through to the routes, with its [`Operator`], or refuses it.
pub(super) async fn check(
    State(access): State<Access>,
    mut request: Request,
    next: Next,
) -> Response {
    let credential = if access.needs_key(request.uri().path()) {
        match access.credential_of(&request) {
            Ok(credential) => Some(credential),
            Err(failure) => return access.refuse(failure, &request),
        }
    } else {
        None
    };
    let peer = peer_of(&request);
    request
        .extensions_mut()
        .insert(Operator { peer, credential });
    next.run(request).await
}

fn peer_of(request: &Request) -> Option<IpAddr> {
    let peer = request.extensions().get::<Peer>()?;
    Some(peer.address.ip())
}

/// The listener asks for certificates only where it has a client CA, and shows us none of another.
fn certificate_of(request: &Request) -> Option<&str> {
    let peer = request.extensions().get::<Peer>()?;
    peer.certificate_name.as_deref()
}

// === impl Key ===

impl Key {
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

impl Failure {
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
    fn access() -> Access {
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
        Access::new(&config, &Registry::new()).unwrap()
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
    fn a_certificate_of_the_client_ca_opens_it_as_a_key_does() {
        let access = access();

        assert!(access.needs_key("/cache") && access.needs_key("/metrics"));
        assert!(!access.needs_key("/readyz"));
        let opened = access.credential_of(&request(Some("ops"), None));
        assert_eq!(opened.as_deref(), Ok("certificate:ops"));
        let without = access.credential_of(&request(None, None));
        assert_eq!(without, Err(Failure::Missing));
    }

    #[test]
    fn a_wrong_key_is_not_made_good_by_a_certificate() {
        let refused = access().credential_of(&request(Some("ops"), Some("up_wrong")));

        assert_eq!(refused, Err(Failure::Unknown));
    }
}
