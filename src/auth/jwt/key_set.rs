//! The issuer's keys: each with its algorithms, and the checks of signature, issuer and audience.

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind, Validation,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{header::TokenHeader, rejection::TokenRejection};
use crate::config::JwtConfig;

/// The shortest RSA modulus that is accepted (NIST SP 800-131A).
const MIN_RSA_BITS: usize = 2048;

/// The usable public keys of an issuer (a JWK Set, RFC 7517 §5).
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<VerifyingKey>,
    /// Digest of the published document.
    digest: [u8; 32],
}

/// One key and its algorithms. The header of a token does not choose the algorithm.
#[derive(Debug)]
pub(super) struct VerifyingKey {
    id: String,
    key: DecodingKey,
    /// Contains the algorithms of the key.
    validation: Validation,
}

/// A JWK Set whose keys are parsed one by one: one unknown key must not invalidate the others.
#[derive(Deserialize)]
struct JwksDocument {
    keys: Vec<Value>,
}

// === impl KeySet ===

impl KeySet {
    /// Parses a document. Unusable keys are ignored, as RFC 7517 §5 demands: issuers publish keys
    /// for encryption and of future kinds in the same place.
    ///
    /// Returns `None` if the document is not a JWK Set.
    pub(super) fn parse(document: &[u8], config: &JwtConfig) -> Option<Self> {
        let published: JwksDocument = serde_json::from_slice(document).ok()?;
        let keys = published
            .keys
            .into_iter()
            .filter_map(|key| VerifyingKey::new(&serde_json::from_value(key).ok()?, config))
            .collect();
        Some(Self {
            keys,
            digest: Sha256::digest(document).into(),
        })
    }

    /// Returns true if both were parsed from the same document.
    pub(super) fn has_same_digest(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Finds the key with the id and algorithm of the header.
    pub(super) fn find(&self, header: &TokenHeader) -> Option<&VerifyingKey> {
        self.keys.iter().find(|key| {
            key.id == header.key_id && key.validation.algorithms.contains(&header.algorithm)
        })
    }
}

// === impl VerifyingKey ===

impl VerifyingKey {
    /// Returns `None` if the key is not for signatures of an accepted kind, or is too short.
    fn new(jwk: &Jwk, config: &JwtConfig) -> Option<Self> {
        let mut algorithms = accepted_algorithms(&jwk.algorithm).to_vec();
        if let Some(named) = jwk.common.key_algorithm {
            algorithms.retain(|algorithm| KeyAlgorithm::from(*algorithm) == named);
        }
        if algorithms.is_empty() || !is_signing_key(jwk) {
            return None;
        }
        Some(Self {
            id: jwk.common.key_id.clone()?,
            key: DecodingKey::from_jwk(jwk).ok().filter(is_long_enough)?,
            validation: validation(algorithms, config),
        })
    }

    /// Returns the claims of a token that this key has signed, from our issuer and for our audience.
    ///
    /// # Errors
    ///
    /// [`TokenRejection`]. The time is not checked here.
    pub(super) fn claims(&self, token: &str) -> Result<Map<String, Value>, TokenRejection> {
        let token = jsonwebtoken::decode(token, &self.key, &self.validation);
        let claims: Map<_, _> =
            token
                .map(|token| token.claims)
                .map_err(|error| match error.kind() {
                    ErrorKind::InvalidSignature => TokenRejection::Signature,
                    ErrorKind::InvalidAlgorithm => TokenRejection::Algorithm,
                    ErrorKind::InvalidIssuer => TokenRejection::Issuer,
                    ErrorKind::InvalidAudience => TokenRejection::Audience,
                    ErrorKind::MissingRequiredClaim(name) => match name.as_str() {
                        "iss" => TokenRejection::Issuer,
                        "aud" => TokenRejection::Audience,
                        _ => TokenRejection::Expired,
                    },
                    _ => TokenRejection::Malformed,
                })?;
        // The library accepts a list too, but an issuer is one text (RFC 7519 §4.1.1).
        match claims.get("iss") {
            Some(Value::String(_)) => Ok(claims),
            _ => Err(TokenRejection::Issuer),
        }
    }
}

/// Returns the accepted algorithms for a type of key. All are asymmetric: with a shared secret, the
/// issuer's public key could be used as the secret (RFC 8725 §2.1).
fn accepted_algorithms(parameters: &AlgorithmParameters) -> &'static [Algorithm] {
    match parameters {
        AlgorithmParameters::RSA(_) => &[Algorithm::RS256, Algorithm::PS256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            &[Algorithm::ES256]
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            &[Algorithm::EdDSA]
        }
        _ => &[],
    }
}

/// Checks `use` and `key_ops` (RFC 7517 §4.2 and §4.3).
fn is_signing_key(jwk: &Jwk) -> bool {
    let usage = jwk.common.public_key_use.as_ref();
    let operations = jwk.common.key_operations.as_ref();
    usage.is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify))
}

/// Checks the length of an RSA modulus without its leading zeros.
fn is_long_enough(key: &DecodingKey) -> bool {
    let DecodingKeyKind::RsaModulusExponent { n, .. } = key.kind() else {
        return true;
    };
    let mut digits = n.iter().skip_while(|byte| **byte == 0).peekable();
    let unused = digits.peek().map_or(0, |first| first.leading_zeros());
    digits.count() * 8 >= MIN_RSA_BITS + unused as usize
}

/// Requires `exp`, but leaves its check to us: the library would use the system clock.
fn validation(algorithms: Vec<Algorithm>, config: &JwtConfig) -> Validation {
    let mut validation = Validation {
        algorithms,
        validate_exp: false,
        validate_nbf: false,
        ..Validation::default()
    };
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.set_issuer(&[&config.issuer]);
    validation.set_audience(&[&config.audience]);
    validation
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::jwt::{
        support::{TestSigner, base64url},
        tests::config,
    };

    /// Returns true if a key with these members replaced is usable.
    fn is_used(signer: &TestSigner, members: Value) -> bool {
        let mut jwk = signer.jwk();
        let all = jwk.as_object_mut().unwrap();
        all.extend(members.as_object().unwrap().clone());
        all.retain(|_, value| !value.is_null());
        let document = json!({"keys": [jwk]}).to_string();
        let keys = KeySet::parse(document.as_bytes(), &config("https://issuer.example/")).unwrap();
        keys.len() == 1
    }

    #[test]
    fn keys_for_other_purposes_are_ignored() {
        for signer in [
            TestSigner::rsa("a"),
            TestSigner::ec("a"),
            TestSigner::ed("a"),
        ] {
            for (members, used) in [
                (json!({}), true),
                (json!({"use": null}), true),
                (json!({"use": null, "key_ops": ["sign", "verify"]}), true),
                (json!({"x5c": ["unread"], "issuer": {}}), true),
                (json!({"use": "enc"}), false),
                (json!({"key_ops": ["encrypt"]}), false),
                (json!({"key_ops": []}), false),
                (json!({"alg": "HS256"}), false),
                (json!({"alg": "RS512"}), false),
                (json!({"alg": "RSA-OAEP"}), false),
                (json!({"kid": null}), false),
                (json!({"kty": "oct", "k": "c2VjcmV0"}), false),
                (json!({"kty": "ML-DSA"}), false),
            ] {
                assert_eq!(is_used(&signer, members.clone()), used, "{members}");
            }
        }
    }

    #[test]
    fn keys_on_other_curves_are_ignored() {
        for (signer, curve) in [
            (TestSigner::ec("a"), "P-384"),
            (TestSigner::ec("a"), "secp256k1"),
            (TestSigner::ec("a"), "Ed25519"),
            (TestSigner::ed("a"), "Ed448"),
            (TestSigner::ed("a"), "X25519"),
            (TestSigner::ed("a"), "P-256"),
        ] {
            assert!(!is_used(&signer, json!({"crv": curve})), "{curve}");
        }
        assert!(!is_used(&TestSigner::ec("a"), json!({"y": null})));
        assert!(!is_used(&TestSigner::rsa("a"), json!({"e": "?"})));
    }

    #[test]
    fn short_rsa_keys_are_ignored() {
        for (first, zeros, bytes, used) in [
            (0x80, 0, 256, true),
            (0x80, 1, 256, true),
            (0x01, 0, 257, true),
            (0xff, 0, 512, true),
            (0x7f, 0, 256, false),
            (0xff, 1, 255, false),
            (0xff, 0, 128, false),
            (0xff, 128, 128, false),
        ] {
            let mut modulus = vec![0; zeros];
            modulus.push(first);
            modulus.resize(zeros + bytes, 0xff);

            let members = json!({"n": base64url(&modulus)});

            let case = (first, zeros, bytes);
            assert_eq!(is_used(&TestSigner::rsa("a"), members), used, "{case:?}");
        }
        assert!(!is_used(&TestSigner::rsa("a"), json!({"n": ""})));
    }
}
