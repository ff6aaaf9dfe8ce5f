use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Validation, errors::ErrorKind};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    Rejection,
    header::{Header, accepted},
};
use crate::config::JwtConfig;

/// An issuer's public keys, as far as they are good for tokens (a JWK Set, RFC 7517 §5).
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// Of the document that they come from.
    digest: [u8; 32],
}

/// One key, and what it may be used for: the token's own header does not decide about that.
#[derive(Debug)]
pub(super) struct Key {
    id: String,
    key: DecodingKey,
    /// Holds the algorithms that the key is for.
    validation: Validation,
}

/// A key as it is published. A member of another type than expected makes the key unusable.
#[derive(Debug, Deserialize)]
struct Jwk {
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
struct Document {
    keys: Vec<Value>,
}

/// Shorter moduli are within reach of those who can pay (NIST SP 800-131A).
const FEWEST_RSA_BITS: usize = 2048;

// === impl KeySet ===

impl KeySet {
    /// The keys of a document that can be used. Others are passed over, as RFC 7517 §5 wants it:
    /// issuers publish keys for encryption and of kinds to come in the same place.
    ///
    /// `None` when it is no JWK Set.
    pub(super) fn parse(document: &[u8], config: &JwtConfig) -> Option<Self> {
        let published: Document = serde_json::from_slice(document).ok()?;
        let keys = published
            .keys
            .into_iter()
            .filter_map(|key| Key::new(&serde_json::from_value(key).ok()?, config))
            .collect();
        Some(Self {
            keys,
            digest: Sha256::digest(document).into(),
        })
    }

    /// Whether both come from the same document.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key that signs with this id and algorithm.
    pub(super) fn find(&self, header: &Header) -> Option<&Key> {
        self.keys.iter().find(|key| {
            key.id == header.key_id && key.validation.algorithms.contains(&header.algorithm)
        })
    }
}

// === impl Key ===

impl Key {
    fn new(jwk: &Jwk, config: &JwtConfig) -> Option<Self> {
        let (key, algorithms) = jwk.is_for_signatures().then(|| jwk.decoding_key())??;
        let named = |algorithm: &Algorithm| match &jwk.alg {
            Some(name) => accepted(name) == Some(*algorithm),
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
    /// [`Rejection`]. Whether the token is valid *now* is not judged here.
    pub(super) fn claims(&self, token: &str) -> Result<Map<String, Value>, Rejection> {
        jsonwebtoken::decode(token, &self.key, &self.validation)
            .map(|token| token.claims)
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidSignature => Rejection::Signature,
                ErrorKind::InvalidAlgorithm => Rejection::Algorithm,
                ErrorKind::InvalidIssuer => Rejection::Issuer,
                ErrorKind::InvalidAudience => Rejection::Audience,
                ErrorKind::MissingRequiredClaim(name) => match name.as_str() {
                    "iss" => Rejection::Issuer,
                    "aud" => Rejection::Audience,
                    _ => Rejection::Expired,
                },
                _ => Rejection::Malformed,
            })
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

impl Jwk {
    /// `use` and `key_ops` limit what a key is for (RFC 7517 §4.2 and §4.3).
    fn is_for_signatures(&self) -> bool {
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
    digits.count() * 8 >= FEWEST_RSA_BITS + unused as usize
}
