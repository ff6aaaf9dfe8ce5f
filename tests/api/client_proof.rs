//! An application that proves who it is by a certificate or a federated token, to a token endpoint
//! that verifies it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair};
use sha2::{Digest, Sha256};
use usage_proxy::simulator::RegisteredCertificate;

use crate::support::prelude::*;

const SUCCESSES: &str = "usage_proxy_token_refresh_total{result=\"success\"}";
const REFUSALS: &str = "usage_proxy_token_refresh_total{result=\"refused\"}";

/// Past the end of an access token, and of an assertion.
const HOURS: Duration = Duration::from_secs(2 * 60 * 60);

/// A certificate and its key.
struct Identity {
    certificate: String,
    key: String,
    /// Unix time.
    expires_at: i64,
    registered: RegisteredCertificate,
}

// === impl Identity ===

impl Identity {
    fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let certificate = CertificateParams::new(vec!["usage-proxy".to_owned()]).unwrap();
        let expires_at = certificate.not_after.unix_timestamp();
        let certificate = certificate.self_signed(&key).unwrap();
        Self {
            expires_at,
            registered: RegisteredCertificate {
                thumbprint: URL_SAFE_NO_PAD.encode(Sha256::digest(certificate.der())),
                public_key: key.public_key_pem(),
            },
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A service that shows this, to an endpoint where `registered` is registered.
    fn shown_where(&self, registered: &RegisteredCertificate) -> Builder {
        let registered = registered.clone();
        TestApp::builder()
            .simulator(|options| options.client_certificate = Some(registered))
            .prove_by(&[
                (
                    "upstream.auth.client_certificate_file",
                    "certificate",
                    &self.certificate,
                ),
                ("upstream.auth.client_key_file", "key", &self.key),
            ])
    }
}

#[tokio::test]
async fn a_registered_certificate_gets_tokens_repeatedly() {
    let identity = Identity::new();
    let app = identity.shown_where(&identity.registered).start().await;

    let first = app.usage(DOCUMENTED).await;
    app.advance(HOURS);
    app.wait_for_metric(SUCCESSES, 2.0).await;

    assert_eq!(first.status, 200);
    let expiry = "usage_proxy_upstream_client_certificate_expiry_timestamp_seconds";
    assert_eq!(app.metric(expiry).await, identity.expires_at as f64);
    assert_eq!(app.calls(SimulatedApi::Token), 2);
}

#[tokio::test]
async fn app_only_access_works_with_a_certificate() {
    let identity = Identity::new();
    let app = identity
        .shown_where(&identity.registered)
        .config(|config| {
            let auth = &mut config.upstream.auth;
            let grant = auth.grant().unwrap().clone();
            *auth = usage_proxy::config::AuthConfig::ClientCredentials { grant };
            config.upstream.source = usage_proxy::domain::UpstreamApi::Commercial;
        })
        .start()
        .await;
    app.simulator.allow_app_only();

    let reply = app.usage(DOCUMENTED).await;

    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn another_certificate_or_another_key_is_refused_with_what_to_do() {
    let (ours, theirs) = (Identity::new(), Identity::new());
    let mixed = RegisteredCertificate {
        public_key: theirs.registered.public_key.clone(),
        ..ours.registered.clone()
    };
    for registered in [&theirs.registered, &mixed] {
        let app = ours.shown_where(registered).start_without_waiting().await;
        app.wait_for_metric(REFUSALS, 1.0).await;

        let readiness = app.admin_get("/readyz").await;

        assert_eq!(readiness.status, 503);
        let reason = readiness.text();
        assert!(reason.contains("client_certificate_file"), "{reason}");
    }
}

#[tokio::test]
async fn a_renewed_federated_token_is_used_without_a_restart() {
    const KEY: &str = "upstream.auth.federated_token_file";
    let app = TestApp::builder()
        .simulator(|options| options.federated_token = Some("the-new-one".into()))
        .prove_by(&[(KEY, "federated", "the-old-one")])
        .start_without_waiting()
        .await;
    app.wait_for_metric(REFUSALS, 1.0).await;
    let refused = app.admin_get("/readyz").await;

    std::fs::write(app.secrets().join("federated"), "the-new-one").unwrap();
    app.advance(Duration::from_secs(30));
    app.wait_for_metric(SUCCESSES, 1.0).await;

    assert!(refused.text().contains("federated"), "{}", refused.text());
    assert_eq!(app.usage(DOCUMENTED).await.status, 200);
}
