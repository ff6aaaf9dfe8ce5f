mod keys;
mod signatures;
mod token_claims;

use std::collections::HashSet;

use serde_json::{Value, json};
use strum::{EnumMessage as _, VariantArray as _};

use super::{
    jwks::REFRESH_INTERVAL,
    support::{TestIssuer, TestSigner},
    *,
};
use crate::clock::{Clock, ManualClock};

const ISSUER: &str = "https://issuer.example/tenant/v2.0";
const AUDIENCE: &str = "api://usage-proxy";

/// The deadline for everything that a test waits for.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) const NOW: i64 = 1_790_000_000;

/// Returns valid claims that expire in ten minutes.
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

    /// Returns the subject of the token.
    async fn verify(&self, token: &str) -> Result<String, TokenAuthError> {
        // The service's clock stands still: a request that waits for it would wait for ever.
        let answer = tokio::time::timeout(WAIT_TIMEOUT, self.verifier.verify(token)).await;
        let verified = answer.expect("the request is not answered")?;
        Ok(verified.subject().to_owned())
    }

    async fn rejection(&self, token: &str) -> Option<TokenRejection> {
        match self.verify(token).await {
            Err(TokenAuthError::Rejected(rejection)) => Some(rejection),
            Err(error) => panic!("{error:?}"),
            Ok(_) => None,
        }
    }

    /// Advances the clock to the next scheduled fetch, and waits for its end.
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

fn is_issuer_unavailable(result: &Result<String, TokenAuthError>) -> bool {
    matches!(result, Err(TokenAuthError::IssuerUnavailable { .. }))
}

/// Replaces claims; null removes one.
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
    let rejections = TokenRejection::VARIANTS;
    let names: HashSet<_> = rejections.iter().map(|one| <&str>::from(*one)).collect();
    let sentences: HashSet<_> = rejections.iter().map(|one| one.get_message()).collect();

    assert_eq!(names.len(), rejections.len());
    assert_eq!(sentences.len(), rejections.len());
    for sentence in sentences {
        let sentence = sentence.expect("every rejection has a description");
        assert!(!sentence.contains(['"', '\\']), "{sentence}");
    }
}
