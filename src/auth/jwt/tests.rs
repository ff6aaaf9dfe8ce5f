mod keys;
mod signatures;
mod token_claims;

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{
    jwks::REFRESH_INTERVAL,
    support::{TestIssuer, TestSigner},
    *,
};
use crate::clock::{Clock, ManualClock};

const ISSUER: &str = "https://issuer.example/tenant/v2.0";
const AUDIENCE: &str = "api://usage-proxy";

/// How long a test waits for what comes at once.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) const NOW: i64 = 1_790_000_000;

/// Claims that nothing is wrong with, for ten minutes.
pub(super) fn valid_claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "portal", "nbf": NOW, "exp": NOW + 600})
}

pub(super) fn config(jwks_url: &str) -> JwtConfig {
    JwtConfig {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        jwks_url: jwks_url.parse().unwrap(),
        subject_claim: "sub".to_owned(),
        scopes_claim: None,
        customers_claim: None,
    }
}

struct VerifierTest {
    issuer: TestIssuer,
    verifier: JwtVerifier,
    clock: Arc<ManualClock>,
    registry: Registry,
    shutdown: Shutdown,
}

impl VerifierTest {
    async fn start(signers: &[&TestSigner]) -> Self {
        Self::start_with(TestIssuer::start(signers).await, |_| {})
    }

    fn start_with(issuer: TestIssuer, change: impl FnOnce(&mut JwtConfig)) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_second(NOW).unwrap()));
        let registry = Registry::new();
        let shutdown = Shutdown::new();
        let mut config = config(&issuer.url);
        change(&mut config);
        let deps = JwtDeps {
            clock: Arc::clone(&clock) as _,
            jitter: Jitter::Fixed(0.5),
            shutdown: shutdown.clone(),
            registry: &registry,
        };
        let verifier = JwtVerifier::start(&config, &deps).unwrap();
        Self {
            issuer,
            verifier,
            clock,
            registry,
            shutdown,
        }
    }

    /// The caller's name, or why there is none.
    async fn verify(&self, token: &str) -> Result<String, VerifyError> {
        // The clock of the service stands still: a request that waited for it would wait for ever.
        let answer = tokio::time::timeout(WAIT_TIMEOUT, self.verifier.verify(token)).await;
        let verified = answer.expect("the request is not answered")?;
        Ok(verified.subject().to_owned())
    }

    async fn rejection(&self, token: &str) -> Option<TokenRejection> {
        match self.verify(token).await {
            Err(VerifyError::Rejected(rejection)) => Some(rejection),
            Err(VerifyError::IssuerUnavailable { .. }) => panic!("the issuer can be had"),
            Ok(_) => None,
        }
    }

    /// Moves the clock past the time of the next scheduled fetch, and waits for its end.
    async fn refresh(&self) {
        let fetches = self.issuer.fetches();
        self.clock
            .wait_for_sleepers_until(1, REFRESH_INTERVAL)
            .await;
        self.clock.advance(REFRESH_INTERVAL);
        self.issuer.fetched(fetches + 1).await;
    }

    fn metric(&self, name: &str) -> Option<f64> {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap();
        let sample = text.lines().find_map(|line| line.strip_prefix(name))?;
        sample.trim().parse().ok()
    }
}

impl Drop for VerifierTest {
    fn drop(&mut self) {
        self.shutdown.drain();
    }
}

fn is_issuer_unavailable(result: &Result<String, VerifyError>) -> bool {
    matches!(result, Err(VerifyError::IssuerUnavailable { .. }))
}

/// `claims` with these instead; null takes one away.
fn with_changes(mut claims: Value, changes: Value) -> Value {
    let all = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        all.remove(name);
        if !value.is_null() {
            all.insert(name.clone(), value.clone());
        }
    }
    claims
}

#[test]
fn every_rejection_has_its_own_name_and_description() {
    let names: HashSet<_> = TokenRejection::ALL.map(TokenRejection::as_str).into();
    let sentences: HashSet<_> = TokenRejection::ALL.map(TokenRejection::description).into();

    assert_eq!(names.len(), TokenRejection::ALL.len());
    assert_eq!(sentences.len(), TokenRejection::ALL.len());
    for sentence in sentences {
        assert!(!sentence.contains(['"', '\\']), "{sentence}");
    }
}
