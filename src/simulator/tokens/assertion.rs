//! Client assertions, verified as Microsoft verifies them: signature, audience, times, and no
//! replay.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::error::SimulatedTokenError;

/// `client_assertion_type` of a JWT (RFC 7523 §2.2).
pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The tolerated difference between clocks in seconds.
const LEEWAY_SECONDS: i64 = 5 * 60;

/// The longest lifetime of an assertion in seconds.
const MAX_LIFETIME_SECONDS: i64 = 10 * 60;

/// A certificate that is registered with the application.
#[derive(Clone, Debug)]
pub struct RegisteredCertificate {
    /// SHA-256 of the certificate, base64url without padding: `x5t#S256`.
    pub thumbprint: String,
    /// Its RSA public key, in PEM.
    pub public_key: String,
}

/// Verifies assertions, and rejects those that were used before.
#[derive(Debug)]
pub(in crate::simulator) struct AssertionVerifier {
    certificate: Option<RegisteredCertificate>,
    federated_token: Option<SecretString>,
    /// The expiry of each `jti` that was used.
    used: Mutex<HashMap<String, i64>>,
}

#[derive(Deserialize)]
struct SimulatedAssertionClaims {
    aud: String,
    iss: String,
    sub: String,
    jti: String,
    nbf: i64,
    exp: i64,
}

/// The expected content of an assertion.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpectedAssertion<'a> {
    pub(super) client_id: &'a str,
    /// The end of the requested URL, whose host may have any name.
    pub(super) path: &'a str,
    /// Unix time.
    pub(super) now: i64,
}

// === impl AssertionVerifier ===

impl AssertionVerifier {
    pub(in crate::simulator) fn new(
        certificate: Option<RegisteredCertificate>,
        federated_token: Option<SecretString>,
    ) -> Self {
        Self {
            certificate,
            federated_token,
            used: Mutex::default(),
        }
    }

    pub(super) fn verify(
        &self,
        assertion: &str,
        expected: ExpectedAssertion<'_>,
    ) -> Result<(), SimulatedTokenError> {
        let federated = self.federated_token.as_ref();
        if federated.is_some_and(|token| token.expose_secret() == assertion) {
            return Ok(());
        }
        let Some(certificate) = &self.certificate else {
            let text = "No matching federated identity record found for presented assertion.";
            return Err(SimulatedTokenError::invalid_request(70_021, text));
        };
        let claims = verify_signature(certificate, assertion).ok_or_else(|| {
            SimulatedTokenError::invalid_client(
                700_027,
                "The signature of the assertion is invalid.",
            )
        })?;
        claims.check(expected)?;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|_, ends| *ends + LEEWAY_SECONDS > expected.now);
        if used.insert(claims.jti, claims.exp).is_some() {
            return Err(SimulatedTokenError::invalid_client(
                700_023,
                "The assertion was used before.",
            ));
        }
        Ok(())
    }
}

// === impl SimulatedAssertionClaims ===

impl SimulatedAssertionClaims {
    fn check(&self, expected: ExpectedAssertion<'_>) -> Result<(), SimulatedTokenError> {
        let refuse = |code, text| Err(SimulatedTokenError::invalid_client(code, text));
        if [&self.iss, &self.sub].map(String::as_str) != [expected.client_id; 2] {
            return refuse(700_021, "iss and sub must be the identifier of the client.");
        }
        if !self.aud.ends_with(expected.path) {
            return refuse(700_023, "aud must be the URL of the token endpoint.");
        }
        let lives =
            self.nbf - LEEWAY_SECONDS <= expected.now && expected.now < self.exp + LEEWAY_SECONDS;
        if !lives || self.exp - self.nbf > MAX_LIFETIME_SECONDS {
            return refuse(700_024, "The assertion is not within its valid time range.");
        }
        Ok(())
    }
}

/// Returns the claims if the certificate's key signed them. Times are checked later, against the clock
/// of the simulator.
fn verify_signature(
    certificate: &RegisteredCertificate,
    assertion: &str,
) -> Option<SimulatedAssertionClaims> {
    let header = jsonwebtoken::decode_header(assertion).ok()?;
    let key = DecodingKey::from_rsa_pem(certificate.public_key.as_bytes()).ok()?;
    let mut validation = Validation::new(Algorithm::PS256);
    validation.algorithms = vec![Algorithm::PS256, Algorithm::RS256];
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.set_required_spec_claims(&["aud", "iss", "sub", "exp", "nbf"]);
    let token =
        jsonwebtoken::decode::<SimulatedAssertionClaims>(assertion, &key, &validation).ok()?;
    (header.x5t_s256.as_ref() == Some(&certificate.thumbprint)).then_some(token.claims)
}
