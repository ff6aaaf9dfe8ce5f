use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Validation, errors::ErrorKind};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    TokenRejection,
    header::{TokenHeader, accepted_algorithm},
};
use crate::config::JwtConfig;

/// An issuer's public keys, as far as they are good for tokens (a JWK Set, RFC 7517 §5).
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<VerifyingKey>,
    /// Of the document that they come from.
    digest: [u8; 32],
}

/// One key, and what it may be used for: the token's own header does not decide about that.
#[derive(Debug)]
pub(super) struct VerifyingKey {
    id: String,
    key: DecodingKey,
    /// Holds the algorithms that the key is for.
    validation: Validation,
}

/// A key as it is published. A member of another type than expected makes the key unusable.
#[derive(Debug, Deserialize)]
struct PublishedJwk {
    kty: String,
    kid: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct JwksDocument {
    keys: Vec<Value>,
}

/// Shorter moduli are within reach of those who can pay (NIST SP 800-131A).
const MIN_RSA_BITS: usize = 2048;

// === impl KeySet ===

impl KeySet {
    /// The keys of a document that can be used. Others are passed over, as RFC 7517 §5 wants it:
    /// issuers publish keys for encryption and of kinds to come in the same place.
    ///
    /// `None` when it is no JWK Set.
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

    /// Whether both come from the same document.
    pub(super) fn has_same_digest(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key that signs with this id and algorithm.
    pub(super) fn find(&self, header: &TokenHeader) -> Option<&VerifyingKey> {
        self.keys.iter().find(|key| {
            key.id == header.key_id && key.validation.algorithms.contains(&header.algorithm)
        })
    }
}

// === impl Key ===

impl VerifyingKey {
    fn new(jwk: &PublishedJwk, config: &JwtConfig) -> Option<Self> {
        let (key, algorithms) = jwk.is_signing_key().then(|| jwk.decoding_key())??;
        let named = |algorithm: &Algorithm| match &jwk.alg {
            Some(name) => accepted_algorithm(name) == Some(*algorithm),
            None => true,
        };
        let algorithms: Vec<_> = algorithms.iter().copied().filter(named).collect();
        (!algorithms.is_empty()).then(|| Self {
            id: jwk.kid.clone(),
            key,
            validation: validation(algorithms, config),
        })
    }

    /// The claims of a token that the key has signed, for our audience and in its issuer's name.
    ///
    /// # Errors
    ///
    /// [`TokenRejection`]. Whether the token is valid *now* is not judged here.
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
        // The library takes a list too, but an issuer is one text (RFC 7519 §4.1.1).
        match claims.get("iss") {
            Some(Value::String(_)) => Ok(claims),
            _ => Err(TokenRejection::Issuer),
        }
    }
}

/// `exp` has to be there, but the library would compare it with the machine's clock.
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

// === impl Jwk ===

impl PublishedJwk {
    /// `use` and `key_ops` limit what a key is for (RFC 7517 §4.2 and §4.3).
    fn is_signing_key(&self) -> bool {
        self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self
                .key_ops
                .as_ref()
                .is_none_or(|operations| operations.iter().any(|one| one == "verify"))
    }

    /// The key, and the algorithms that its type allows.
    fn decoding_key(&self) -> Option<(DecodingKey, &'static [Algorithm])> {
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let key = DecodingKey::from_rsa_components(self.n.as_deref()?, self.e.as_deref()?);
                let key = key.ok().filter(is_long_enough)?;
                Some((key, &[Algorithm::RS256, Algorithm::PS256]))
            }
            ("EC", Some("P-256")) => {
                let key = DecodingKey::from_ec_components(self.x.as_deref()?, self.y.as_deref()?);
                Some((key.ok()?, &[Algorithm::ES256]))
            }
            ("OKP", Some("Ed25519")) => {
                let key = DecodingKey::from_ed_components(self.x.as_deref()?);
                Some((key.ok()?, &[Algorithm::EdDSA]))
            }
            _ => None,
        }
    }
}

fn is_long_enough(key: &DecodingKey) -> bool {
    let DecodingKeyKind::RsaModulusExponent { n, .. } = key.kind() else {
        return false;
    };
    let digits = n.iter().skip_while(|byte| **byte == 0);
    let unused = digits
        .clone()
        .next()
        .map_or(0, |first| first.leading_zeros());
    digits.count() * 8 >= MIN_RSA_BITS + unused as usize
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::jwt::{
        support::{TestSigner, base64url},
        tests::config,
    };

    /// Whether a key with these members instead of its own is one to check tokens with.
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
